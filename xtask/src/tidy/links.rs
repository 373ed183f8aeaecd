//! Pages that lead somewhere: relative links exist, and every decision is numbered and in the index.

use super::Finding;
use super::tree::{Tree, TreeFile};

const DECISIONS: &str = "docs/decisions/";
const INDEX: &str = "docs/decisions/README.md";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        tree.with_extension("md").flat_map(|page| dead_links(tree, page)).collect();
    findings.extend(decisions(tree));
    findings
}

fn dead_links(tree: &Tree, page: &TreeFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (at, line) in page.text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for target in targets(line) {
            let path = resolve(&page.path, target);
            if !path.is_some_and(|path| tree.contains(&path)) {
                findings.push(Finding::new(
                    &page.path,
                    at + 1,
                    format!("the link to {target} leads nowhere"),
                ));
            }
        }
    }
    findings
}

/// Files that the links of a line name, without anchors. Addresses on the web are not looked at.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let after = line.split("](").skip(1);
    let target = after.filter_map(|rest| Some(rest.split_once(')')?.0));
    target
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| target.split_once('#').map_or(target, |(path, _)| path))
        .filter(|path| !path.is_empty())
}

/// A path seen from a page, seen from the root; None if it leaves the checkout.
fn resolve(page: &str, target: &str) -> Option<String> {
    let directory = page.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn decisions(tree: &Tree) -> Vec<Finding> {
    let index = tree.files.iter().find(|file| file.path == INDEX);
    let index = index.map_or("", |file| &file.text);
    let mut findings = Vec::new();
    let mut expected = 1;
    for page in tree.with_extension("md").filter(|page| page.path != INDEX) {
        let Some(name) = page.path.strip_prefix(DECISIONS) else {
            continue;
        };
        if !name.starts_with(&format!("{expected:04}-")) {
            findings.push(Finding::new(
                &page.path,
                0,
                format!("decision {expected:04} expected here"),
            ));
        }
        if !index.contains(&format!("]({name})")) {
            findings.push(Finding::new(&page.path, 0, format!("not linked from {INDEX}")));
        }
        expected += 1;
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::tree_of;

    #[test]
    fn a_link_is_followed_from_where_its_page_lies() {
        let tree = tree_of(&[
            ("docs/a.md", "[b](../b.md#part) [c](c.md)\n[d](https://x/y.md) [e](#e)"),
            ("b.md", ""),
        ]);
        let found = check(&tree);
        assert_eq!(found, [Finding::new("docs/a.md", 1, "the link to c.md leads nowhere")]);
    }

    #[test]
    fn a_link_may_lead_to_a_directory_but_not_out_of_the_checkout() {
        let tree = tree_of(&[("a.md", "[x](examples/) [y](../secret)"), ("examples/job.sh", "")]);
        assert_eq!(check(&tree).len(), 1);
    }

    #[test]
    fn code_blocks_hold_no_links() {
        assert!(check(&tree_of(&[("a.md", "```\n[x](y.md)\n```\n")])).is_empty());
    }

    #[test]
    fn decisions_are_numbered_without_gaps_and_indexed() {
        let index = "[one](0001-one.md)";
        let good = [(INDEX, index), ("docs/decisions/0001-one.md", "")];
        assert!(check(&tree_of(&good)).is_empty());
        let gap = [("docs/decisions/0002-two.md", ""), (INDEX, "")];
        assert_eq!(check(&tree_of(&gap)).len(), 2);
    }
}
