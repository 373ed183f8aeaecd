//! The Fair Tree rule against a table of reference results, where there is one beside the repository: the file
//! `fairness/fair-tree-golden.csv` below the directory that the environment names as `GOTGAN_TRACES`.

#![expect(clippy::disallowed_methods, reason = "reads the table, and says so where there is none")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use gotgan_core::fairshare::{OrderRule, Standing, order};
use gotgan_core::ids::ProjectPath;

const HEADER: &str = "case,level,parent,name,kind,shares,usage,expected_fairshare";

/// Relative to the root of the workspace, unless the path is absolute.
fn table() -> PathBuf {
    let traces = std::env::var("GOTGAN_TRACES").unwrap_or_else(|_| "../shared/traces".to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(traces).join("fairness/fair-tree-golden.csv")
}

/// A decimal in millionths, exactly; more digits than six are refused.
fn millionths(text: &str) -> u64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    assert!(part.len() <= 6, "{text} has more than six decimals");
    format!("{whole}{part:0<6}").parse().unwrap()
}

/// One case of the table: a tree, and what it says of the users.
#[derive(Default)]
struct Case {
    paths: BTreeMap<String, ProjectPath>,
    rows: Vec<(ProjectPath, u64, u64)>,
    expected: BTreeMap<ProjectPath, u64>,
}

impl Case {
    fn read(&mut self, fields: &[&str]) {
        let &[_, level, parent, name, kind, shares, usage, expected] = fields else {
            panic!("not eight fields: {fields:?}");
        };
        let label = name.replace('.', "-");
        let path = match self.paths.get(parent) {
            Some(above) => ProjectPath::new(&format!("{above}/{label}")).unwrap(),
            None => ProjectPath::new(&label).unwrap(),
        };
        assert_eq!(level.parse::<usize>().unwrap(), path.as_str().matches('/').count(), "{path}");
        self.paths.insert(name.to_owned(), path.clone());
        self.rows.push((path.clone(), millionths(shares), millionths(usage)));
        assert_eq!(kind == "user", !expected.is_empty(), "{path}");
        if kind == "user" {
            self.expected.insert(path, millionths(expected));
        }
    }

    /// Shares in the greatest unit in which all of them are whole.
    fn tree(&self) -> BTreeMap<ProjectPath, Standing> {
        let unit = self.rows.iter().fold(0, |unit, row| common_divisor(unit, row.1)).max(1);
        let standing = |&(ref path, share, used): &(ProjectPath, u64, u64)| {
            (path.clone(), Standing::of_use(u32::try_from(share / unit).unwrap(), used))
        };
        self.rows.iter().map(standing).collect()
    }

    /// What the rule says, rounded as the table is.
    fn found(&self) -> BTreeMap<ProjectPath, u64> {
        let turns = order(&self.tree(), OrderRule::FairTree);
        let rounded = |points: u64, of: u64| (2_000_000 * points + of) / (2 * of);
        let told = turns.into_iter();
        told.map(|turn| (turn.project, rounded(turn.points.into(), turn.of.into()))).collect()
    }
}

fn common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

fn cases(text: &str) -> BTreeMap<String, Case> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(HEADER));
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        cases.entry(fields[0].to_owned()).or_default().read(&fields);
    }
    cases
}

/// Past the harness, which keeps to itself what a test that passes prints.
fn skip(table: &Path) {
    let line = format!("SKIPPED: no Fair Tree reference table at {}\n", table.display());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

#[test]
fn fair_tree_gives_every_user_what_the_reference_table_says() {
    let table = table();
    let text = match std::fs::read_to_string(&table) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return skip(&table),
        text => text.unwrap(),
    };
    let cases = cases(&text);
    assert_eq!(cases.len(), 3);
    for (name, case) in &cases {
        assert_eq!(case.found(), case.expected, "case {name}");
    }
}

#[test]
fn decimals_of_the_table_are_read_exactly() {
    assert_eq!(
        (millionths("0.285714"), millionths("1.0"), millionths("133")),
        (285_714, 1_000_000, 133_000_000)
    );
}

#[test]
fn a_table_with_decimals_is_ordered_by_them() {
    let text = format!(
        "{HEADER}\nc,0,,root,account,1,3.3,\nc,1,root,a.1,user,0.25,1.1,0.5\nc,1,root,a.2,user,0.75,2.2,1.0\n"
    );
    let cases = cases(&text);
    assert_eq!(cases["c"].found(), cases["c"].expected);
}
