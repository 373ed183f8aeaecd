//! Turns associations into nodes of a quota tree, and says of each what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::dump::Association;
use crate::ids::ProjectPath;

/// Longest title that quota files take, characters.
const TITLE_MAX: usize = 256;
/// Largest weight that quota files take.
const WEIGHT_MAX: u64 = 1_000_000;
/// How Slurm writes "as the parent" where a number is expected.
const FAIRSHARE_PARENT: [&str; 2] = ["parent", "2147483647"];
/// Name of the leaf for users of an account that has accounts below it.
const DIRECT: &str = "direct";
/// Stands for each class of GPUs.
const EVERY: &str = "";
/// Longest wall time that quota files take, minutes: ten years.
const WALLTIME_MAX_MINUTES: u64 = 10 * 365 * 24 * 60;
/// Slurm's account above all others.
const ROOT: &str = "root";

/// What became of an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerdictKind {
    /// All of it is in the files.
    Taken,
    /// All of it is in the files, some of it in other words.
    Mapped,
    /// Something it says has no counterpart and is not in the files.
    Refused,
}

impl VerdictKind {
    /// The word in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            VerdictKind::Taken => "taken",
            VerdictKind::Mapped => "mapped",
            VerdictKind::Refused => "refused",
        }
    }
}

/// Of one association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Line in the dump, from 1.
    pub line: usize,
    /// Slurm's account.
    pub account: String,
    /// Slurm's user, for a user's association.
    pub user: Option<String>,
    /// Where it went.
    pub path: Option<ProjectPath>,
    /// What became of it.
    pub kind: VerdictKind,
    /// Why, a sentence each thing that was mapped or refused.
    pub notes: Vec<String>,
}

/// What a dump became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Quota files: name and text, sorted by name.
    pub files: Vec<(String, String)>,
    /// One an association, in the order of the dump.
    pub verdicts: Vec<Verdict>,
    /// Where each account went; its use is that path's.
    pub accounts: BTreeMap<String, ProjectPath>,
}

/// A node that is written.
#[derive(Debug, Default)]
struct Node {
    title: String,
    weight: Option<u64>,
    /// By class, `any` included.
    limits: BTreeMap<String, u64>,
    /// GPUs of one job, by class; the empty name stands for each class.
    max_gang: BTreeMap<String, u64>,
    max_walltime_minutes: Option<u64>,
    max_jobs: Option<u64>,
}

/// Quota files below `root` from the associations of a cluster.
#[must_use]
pub fn import(root: &ProjectPath, associations: &[Association]) -> Imported {
    let mut importer = Importer::new(root);
    importer.place_accounts(associations);
    for association in associations {
        importer.take(association);
    }
    Imported { files: importer.files(), verdicts: importer.verdicts, accounts: importer.accounts }
}

struct Importer<'a> {
    root: &'a ProjectPath,
    accounts: BTreeMap<String, ProjectPath>,
    /// Why an account has no place.
    unplaced: BTreeMap<String, String>,
    parents: BTreeSet<String>,
    nodes: BTreeMap<ProjectPath, Node>,
    verdicts: Vec<Verdict>,
}

/// What is found about one association on the way.
#[derive(Default)]
struct Notes {
    mapped: Vec<String>,
    refused: Vec<String>,
}

impl Notes {
    fn verdict(self, association: &Association, path: Option<ProjectPath>) -> Verdict {
        let kind = match (self.refused.is_empty(), self.mapped.is_empty()) {
            (false, _) => VerdictKind::Refused,
            (true, false) => VerdictKind::Mapped,
            (true, true) => VerdictKind::Taken,
        };
        Verdict {
            line: association.line,
            account: association.account.clone(),
            user: association.user.clone(),
            path,
            kind,
            notes: self.refused.into_iter().chain(self.mapped).collect(),
        }
    }
}

impl<'a> Importer<'a> {
    fn new(root: &'a ProjectPath) -> Self {
        let mut importer = Importer {
            root,
            accounts: BTreeMap::from([(ROOT.to_owned(), root.clone())]),
            unplaced: BTreeMap::new(),
            parents: BTreeSet::new(),
            nodes: BTreeMap::new(),
            verdicts: Vec::new(),
        };
        for path in root.self_and_ancestors().filter_map(|path| ProjectPath::new(path).ok()) {
            importer.nodes.insert(path, Node::default());
        }
        importer
    }

    /// Gives every account its path, parents first whatever their order in the dump.
    fn place_accounts(&mut self, associations: &[Association]) {
        let mut waiting: Vec<&Association> =
            associations.iter().filter(|one| one.user.is_none()).collect();
        for account in &waiting {
            self.parents.insert(account.parent.clone());
        }
        loop {
            let before = waiting.len();
            waiting.retain(|account| match self.accounts.get(&account.parent) {
                Some(parent) => {
                    let parent = parent.clone();
                    self.place(account, &parent);
                    false
                }
                None => true,
            });
            if waiting.len() == before {
                break;
            }
        }
        for account in waiting {
            let why = format!("its parent {} has no place", account.parent);
            self.unplaced.insert(account.account.clone(), why);
        }
    }

    fn place(&mut self, account: &Association, parent: &ProjectPath) {
        let path = ProjectPath::new(&format!("{parent}/{}", label(&account.account)));
        match path {
            Ok(path) if self.nodes.contains_key(&path) => {
                let why = format!("another account is called {path} already");
                self.unplaced.insert(account.account.clone(), why);
            }
            Ok(path) => {
                self.nodes.insert(path.clone(), Node::default());
                self.accounts.insert(account.account.clone(), path);
            }
            Err(bad) => {
                self.unplaced.insert(account.account.clone(), bad.to_string());
            }
        }
    }

    fn take(&mut self, association: &Association) {
        let mut notes = Notes::default();
        let Some(path) = self.accounts.get(&association.account).cloned() else {
            let why = self.unplaced.get(&association.account);
            notes
                .refused
                .push(why.cloned().unwrap_or_else(|| "there is no such account".to_owned()));
            return self.verdicts.push(notes.verdict(association, None));
        };
        let path = match &association.user {
            None => self.take_account(association, path, &mut notes),
            Some(_) => self.take_user(association, path, &mut notes),
        };
        self.verdicts.push(notes.verdict(association, Some(path)));
    }

    fn take_account(
        &mut self,
        association: &Association,
        path: ProjectPath,
        notes: &mut Notes,
    ) -> ProjectPath {
        let last = path.as_str().rsplit('/').next().unwrap_or_default();
        if last != association.account {
            notes.mapped.push(format!(
                "is called {last}: names have lower-case letters, digits and hyphens"
            ));
        }
        let mut node = Node::default();
        for (key, value) in &association.terms {
            take_account_term(&mut node, key, value, notes);
        }
        self.nodes.insert(path.clone(), node);
        path
    }

    /// Users are no nodes: those of an account are the members of its project.
    fn take_user(
        &mut self,
        association: &Association,
        path: ProjectPath,
        notes: &mut Notes,
    ) -> ProjectPath {
        let direct = ProjectPath::new(&format!("{path}/{DIRECT}"));
        let path = match direct {
            Ok(direct) if self.parents.contains(&association.account) => {
                notes.mapped.push(format!(
                    "is a member of {direct}: jobs go to projects that have none below them"
                ));
                self.nodes.entry(direct.clone()).or_default();
                direct
            }
            _ => path,
        };
        for (key, value) in &association.terms {
            take_user_term(key, value, notes);
        }
        path
    }

    /// One file an account right below the root, one for what is above.
    fn files(&self) -> Vec<(String, String)> {
        let depth = self.root.as_str().split('/').count();
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for (path, node) in &self.nodes {
            let part = path.as_str().split('/').nth(depth).unwrap_or(ROOT);
            write_node(files.entry(format!("{part}.toml")).or_default(), path, node);
        }
        files.into_iter().collect()
    }
}

fn write_node(file: &mut String, path: &ProjectPath, node: &Node) {
    if !file.is_empty() {
        file.push('\n');
    }
    // Writing into a text cannot fail.
    let _ = writeln!(file, "[node.\"{path}\"]");
    if !node.title.is_empty() {
        let _ = writeln!(file, "title = {}", toml::Value::String(node.title.clone()));
    }
    if let Some(weight) = node.weight {
        let _ = writeln!(file, "weight = {weight}");
    }
    if !node.limits.is_empty() {
        let limits = node.limits.iter().map(|(class, gpus)| format!("{class} = {gpus}"));
        let _ = writeln!(file, "limit = {{ {} }}", limits.collect::<Vec<_>>().join(", "));
    }
    match node.max_gang.get(EVERY) {
        Some(gpus) => {
            let _ = writeln!(file, "max_gang = {gpus}");
        }
        None if !node.max_gang.is_empty() => {
            let classes = node.max_gang.iter().map(|(class, gpus)| format!("{class} = {gpus}"));
            let _ = writeln!(file, "max_gang = {{ {} }}", classes.collect::<Vec<_>>().join(", "));
        }
        None => {}
    }
    if let Some(minutes) = node.max_walltime_minutes {
        let _ = writeln!(file, "max_walltime = \"{minutes}m\"");
    }
    if let Some(jobs) = node.max_jobs {
        let _ = writeln!(file, "max_jobs = {jobs}");
    }
}

fn take_account_term(node: &mut Node, key: &str, value: &str, notes: &mut Notes) {
    match key.to_ascii_lowercase().as_str() {
        "description" => {
            node.title =
                value.chars().filter(|letter| !letter.is_control()).take(TITLE_MAX).collect();
        }
        "organization" => {}
        "fairshare" if FAIRSHARE_PARENT.contains(&value) => {
            notes.refused.push("Fairshare=parent: a node has a weight of its own".to_owned());
        }
        "fairshare" => match value.parse::<u64>() {
            Ok(0) => {
                notes.mapped.push("Fairshare=0 became weight 1, the least there is".to_owned());
                node.weight = Some(1);
            }
            Ok(weight) if weight <= WEIGHT_MAX => node.weight = Some(weight),
            _ => notes.refused.push(format!("Fairshare={value}: a weight is 1 to {WEIGHT_MAX}")),
        },
        "grptres" => take_limits(node, value, notes),
        "maxtresperjob" => take_max_gang(node, value, notes),
        "maxwalldurationperjob" => match value.parse::<u64>() {
            Ok(minutes @ 1..=WALLTIME_MAX_MINUTES) => {
                notes.mapped.push(format!("{key}={minutes} is a max_walltime of so many minutes"));
                node.max_walltime_minutes = Some(minutes);
            }
            _ => notes.refused.push(format!("{key}={value}: not a number of minutes")),
        },
        "grpjobs" => match value.parse::<u64>() {
            Ok(jobs) => {
                notes.mapped.push(format!("{key}={jobs} is a max_jobs"));
                node.max_jobs = Some(jobs);
            }
            Err(_) => notes.refused.push(format!("{key}={value}: not a number of jobs")),
        },
        "qos" | "defaultqos" if value.trim_matches([',', '+']) == "normal" => {}
        "qos" | "defaultqos" => {
            notes
                .refused
                .push(format!("{key} {value}: there are no QOS; tiers follow from guarantees"));
        }
        _ => notes.refused.push(format!("{key}={value} has no counterpart")),
    }
}

fn take_user_term(key: &str, value: &str, notes: &mut Notes) {
    match key.to_ascii_lowercase().as_str() {
        "defaultaccount" | "defaultwckey" => {}
        "fairshare" if FAIRSHARE_PARENT.contains(&value) || value == "1" => {}
        "fairshare" => notes.refused.push(format!(
            "Fairshare={value}: members of a project stand in one line, by priority and age"
        )),
        "adminlevel" if value == "None" => {}
        "adminlevel" => {
            notes.refused.push(format!("AdminLevel={value}: make a token with the role that fits"));
        }
        "qos" | "defaultqos" if value.trim_matches([',', '+']) == "normal" => {}
        "partition" => notes.refused.push(format!(
            "Partition={value}: a project is not bound to a partition; jobs name a class of GPUs"
        )),
        _ => notes.refused.push(format!("{key}={value}: a single user has no limits of their own")),
    }
}

/// `cpu=64,gres/gpu:h200=4,gres/gpu=6`: the limit over all classes and those of classes.
fn take_limits(node: &mut Node, value: &str, notes: &mut Notes) {
    for part in value.split(',').filter(|part| !part.is_empty()) {
        let (name, count) = part.split_once('=').unwrap_or((part, ""));
        let class = match name.strip_prefix("gres/gpu") {
            Some("") => "any".to_owned(),
            Some(class) => label(class.trim_start_matches(':')),
            None => {
                notes.refused.push(format!("GrpTRES {part}: only GPUs are limited"));
                continue;
            }
        };
        match count.parse::<u64>() {
            Ok(gpus) => {
                node.limits.insert(class, gpus);
            }
            Err(_) => notes.refused.push(format!("GrpTRES {part}: not a whole number of GPUs")),
        }
    }
}

/// `gres/gpu=8`, or by class. Together they would bind both each class and all of them, which one term cannot say.
fn take_max_gang(node: &mut Node, value: &str, notes: &mut Notes) {
    for part in value.split(',').filter(|part| !part.is_empty()) {
        let (name, count) = part.split_once('=').unwrap_or((part, ""));
        let class = match name.strip_prefix("gres/gpu") {
            Some(class) => label(class.trim_start_matches(':')),
            None => {
                notes.refused.push(format!("MaxTRESPerJob {part}: only GPUs are limited"));
                continue;
            }
        };
        match count.parse::<u64>() {
            Ok(gpus) => {
                notes.mapped.push(format!("MaxTRESPerJob {part} is a max_gang"));
                node.max_gang.insert(class, gpus);
            }
            Err(_) => {
                notes.refused.push(format!("MaxTRESPerJob {part}: not a whole number of GPUs"));
            }
        }
    }
    if node.max_gang.contains_key(EVERY) && node.max_gang.len() > 1 {
        node.max_gang.retain(|class, _| class == EVERY);
        notes.refused.push(format!(
            "MaxTRESPerJob={value}: max_gang is one number, or one for each class; the one for all was taken"
        ));
    }
}

/// The name with what names may not have replaced.
fn label(name: &str) -> String {
    let plain = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '-',
    };
    name.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}
