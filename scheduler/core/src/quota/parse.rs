//! Reads a quota tree from the files that people keep.
//!
//! Everything that is not understood is refused by name: a limit that is written down and not enforced would be
//! worse than none. All faults of all files are reported at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{QuotaNode, QuotaTree};
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};

/// Key of a limit over all classes together; no class may be called so.
const ANY: &str = "any";
/// Word for no limit of one's own.
const UNLIMITED: &str = "unlimited";
/// Most whole GPUs a limit may say: a thousand times the largest machine there is, and far from overflow.
const LIMIT_GPUS_MAX: i64 = 1_000_000_000;
/// Longest title, characters.
const TITLE_MAX: usize = 256;

/// One thing wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuotaFault {
    /// Name of the file.
    pub file: String,
    /// Line in it, from 1; 0 if it is about the whole file.
    pub line: usize,
    /// What it is about, as in `node."public/nup".limit.b200`; empty if about the whole file.
    pub field: String,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl fmt::Display for QuotaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Reads the union of `files`, each a name and its text; their order does not matter. The revision of the tree is 0:
/// whoever applies it gives it the next one.
///
/// # Errors
/// Every [`QuotaFault`] of all files, sorted by file and line.
pub fn parse(files: &[(String, String)]) -> Result<QuotaTree, Vec<QuotaFault>> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort();
    let mut reading = Reading::default();
    for (name, text) in files {
        FileReader { name, text, reading: &mut reading }.read();
    }
    reading.require_parents();
    let Reading { nodes, mut faults } = reading;
    if faults.is_empty() {
        let nodes = nodes.into_iter().map(|(path, (node, _))| (path, node)).collect();
        return Ok(QuotaTree { revision: 0, nodes });
    }
    faults.sort();
    Err(faults)
}

/// Where a node was written down.
#[derive(Debug, Clone)]
struct Place {
    file: String,
    line: usize,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    nodes: BTreeMap<ProjectPath, (QuotaNode, Place)>,
    faults: Vec<QuotaFault>,
}

impl Reading {
    fn require_parents(&mut self) {
        for (path, (_, place)) in &self.nodes {
            let Some(parent) = path.parent() else {
                continue;
            };
            if !self.nodes.contains_key(parent) {
                self.faults.push(QuotaFault {
                    file: place.file.clone(),
                    line: place.line,
                    field: node_field(path.as_str()),
                    message: format!("its parent is missing: add [node.\"{parent}\"] to any file"),
                });
            }
        }
    }
}

/// Reads one file.
struct FileReader<'a> {
    name: &'a str,
    text: &'a str,
    reading: &'a mut Reading,
}

impl FileReader<'_> {
    fn read(&mut self) {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(0, |span| self.line(&span));
                return self.fault_at(line, "", format!("not TOML: {}", one_line(error.message())));
            }
        };
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("node", DeValue::Table(nodes)) => self.read_nodes(nodes),
                ("node", _) => {
                    self.fault(key, "node", "must be a table, as in [node.\"public/nup\"]");
                }
                (other, _) => self.unknown(key, other, "only [node.\"PATH\"] is"),
            }
        }
    }

    fn read_nodes(&mut self, nodes: &DeTable<'_>) {
        for (key, value) in nodes {
            let field = node_field(key.get_ref());
            let path = match ProjectPath::new(key.get_ref()) {
                Ok(path) => path,
                Err(bad) => {
                    self.fault(key, &field, bad.to_string());
                    continue;
                }
            };
            match value.get_ref() {
                DeValue::Table(table) => {
                    let node = self.read_node(&field, table);
                    self.enter(key, path, node);
                }
                _ => self.fault(key, &field, "must be a table with title and limit"),
            }
        }
    }

    fn enter(&mut self, key: &Spanned<impl AsRef<str>>, path: ProjectPath, node: QuotaNode) {
        let place = Place { file: self.name.to_owned(), line: self.line(&key.span()) };
        if let Some((_, first)) = self.reading.nodes.get(&path) {
            let at = format!("{}:{}", first.file, first.line);
            let message = format!("is there already at {at}: keep one of them");
            return self.fault(key, &node_field(path.as_str()), message);
        }
        self.reading.nodes.insert(path, (node, place));
    }

    fn read_node(&mut self, field: &str, table: &DeTable<'_>) -> QuotaNode {
        let mut node = QuotaNode::default();
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("title", DeValue::String(title)) if title.chars().count() <= TITLE_MAX => {
                    node.title = title.clone().into_owned();
                }
                ("title", _) => {
                    let message = format!("must be a text of at most {TITLE_MAX} characters");
                    self.fault(value, &format!("{field}.title"), message);
                }
                ("limit", DeValue::Table(limits)) => {
                    self.read_limits(&format!("{field}.limit"), limits, &mut node);
                }
                ("limit", _) => {
                    let message = "must be a table of classes, as in limit = { b200 = 16 }";
                    self.fault(value, &format!("{field}.limit"), message);
                }
                (other, _) => {
                    self.unknown(key, &format!("{field}.{other}"), "only title and limit are");
                }
            }
        }
        node
    }

    fn read_limits(&mut self, field: &str, limits: &DeTable<'_>, node: &mut QuotaNode) {
        for (key, value) in limits {
            let field = format!("{field}.{}", key.get_ref());
            let limit = match limit_of(value.get_ref()) {
                Ok(limit) => limit,
                Err(message) => {
                    self.fault(value, &field, message);
                    continue;
                }
            };
            if key.get_ref() == ANY {
                node.any_limit = limit;
                continue;
            }
            match GpuClass::new(key.get_ref()) {
                Ok(class) => node.limits.extend(limit.map(|limit| (class, limit))),
                Err(bad) => self.fault(key, &field, bad.to_string()),
            }
        }
    }

    fn unknown(&mut self, key: &Spanned<impl AsRef<str>>, field: &str, known: &str) {
        self.fault(key, field, format!("not enforced by this version ({known}): remove it"));
    }

    fn fault<T>(&mut self, at: &Spanned<T>, field: &str, message: impl Into<String>) {
        let line = self.line(&at.span());
        self.fault_at(line, field, message);
    }

    fn fault_at(&mut self, line: usize, field: &str, message: impl Into<String>) {
        let (file, field) = (self.name.to_owned(), field.to_owned());
        self.reading.faults.push(QuotaFault { file, line, field, message: message.into() });
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Whole GPUs, or `None` for no limit of its own.
fn limit_of(value: &DeValue<'_>) -> Result<Option<GpuMilli>, String> {
    match value {
        DeValue::String(word) if word.as_ref() == UNLIMITED => Ok(None),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|gpus| (0..=LIMIT_GPUS_MAX).contains(gpus))
            .and_then(|gpus| u64::try_from(gpus).ok())
            .map(|gpus| Some(GpuMilli::WHOLE.times(gpus)))
            .ok_or_else(|| {
                format!("must be 0 to {LIMIT_GPUS_MAX} whole GPUs, not {}", number.as_str())
            }),
        DeValue::String(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err("must be whole GPUs, as in 16, or \"unlimited\"".to_owned()),
    }
}

fn node_field(path: &str) -> String {
    format!("node.\"{path}\"")
}

/// The parser's messages may have lines of their own; a fault is one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
