//! Reads the book from the files that people keep.
//!
//! Everything that is not understood is refused by name: a term that is written down and not enforced would be
//! worse than none. All faults of all files are reported at once.

mod alert;
mod approval;
mod bounds;
mod budget;
mod file;
mod fleet;
mod lending;
mod node;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use super::book::{ClusterTerms, QuotaBook};
use super::check;
use crate::ids::{ClusterName, GpuClass, ProjectPath};

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

/// Reads the union of `files`, each a name and its text, and checks it at every moment at which something changes;
/// the order of the files does not matter. The revision is 0: whoever applies it gives it the next one.
///
/// # Errors
/// Every [`QuotaFault`] of all files, sorted by file and line. Sums are checked once all files can be read.
pub fn parse(files: &[(String, String)]) -> Result<QuotaBook, Vec<QuotaFault>> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort();
    let mut reading = Reading::default();
    for (name, text) in files {
        file::FileReader { name, text, reading: &mut reading }.read();
    }
    reading.require_parents();
    reading.require_references();
    reading.require_references_of_grants();
    let Reading { book, places, mut faults } = reading;
    if faults.is_empty() {
        faults = check::check(&book, &places);
    }
    if faults.is_empty() {
        return Ok(book);
    }
    faults.sort();
    faults.dedup();
    Err(faults)
}

/// Where something was written down.
#[derive(Debug, Clone)]
struct Place {
    file: String,
    line: usize,
}

/// Where every node and every field of it was written down.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Places {
    /// A fault at the place of `field`, or of the nearest thing around it.
    pub fn fault(&self, field: &str, message: String) -> QuotaFault {
        let mut around = Some(field);
        let mut place = None;
        while let (None, Some(name)) = (place, around) {
            place = self.0.get(name);
            around = name.rfind('.').map(|dot| &name[..dot]);
        }
        let Place { file, line } = place.cloned().unwrap_or(Place { file: String::new(), line: 0 });
        QuotaFault { file, line, field: field.to_owned(), message }
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    book: QuotaBook,
    places: Places,
    faults: Vec<QuotaFault>,
}

impl Reading {
    fn require_parents(&mut self) {
        for path in self.book.nodes.keys() {
            let Some(parent) = path.parent() else {
                continue;
            };
            if !self.book.nodes.contains_key(parent) {
                let message = format!("its parent is missing: add [node.\"{parent}\"] to any file");
                self.faults.push(self.places.fault(&node_field(path), message));
            }
        }
    }

    /// Names that must be declared elsewhere. Classes need not be, but if one is, all must be.
    fn require_references(&mut self) {
        let QuotaBook { classes, clusters, lots, nodes, .. } = &self.book;
        let mut faults = Vec::new();
        let known = |class| classes.is_empty() || classes.contains_key(class);
        for (name, cluster) in clusters.iter().filter(|(_, cluster)| !known(&cluster.class)) {
            let field = format!("cluster.{name}.class");
            faults.push(self.places.fault(&field, no_class(&cluster.class)));
        }
        for (name, lot) in lots.iter().filter(|(_, lot)| !clusters.contains_key(&lot.cluster)) {
            let message =
                format!("no cluster {0} is declared: add [cluster.{0}] to any file", lot.cluster);
            faults.push(self.places.fault(&format!("lot.{name}.cluster"), message));
        }
        for (path, node) in nodes {
            let guaranteed = node.guarantees.keys().map(|class| ("guarantee", class));
            let limited = node.limits.keys().map(|class| ("limit", class));
            let bound = node.bounds.amounts();
            let bound = bound.flat_map(|(what, amount)| amount.classes().map(move |c| (what, c)));
            for (what, class) in
                guaranteed.chain(limited).chain(bound).filter(|(_, class)| !known(class))
            {
                let field = format!("{}.{what}.{class}", node_field(path));
                faults.push(self.places.fault(&field, no_class(class)));
            }
        }
        self.faults.extend(faults);
    }

    /// The same for reservations and loans.
    fn require_references_of_grants(&mut self) {
        let QuotaBook { classes, clusters, nodes, reservations, loans, .. } = &self.book;
        let known = |class| classes.is_empty() || classes.contains_key(class);
        let mut faults = Vec::new();
        for (name, terms) in reservations {
            let field = format!("reservation.{name}");
            if !known(&terms.class) {
                faults.push(self.places.fault(&format!("{field}.class"), no_class(&terms.class)));
            }
            if !nodes.contains_key(&terms.holder) {
                faults.push(self.places.fault(&format!("{field}.node"), no_node(&terms.holder)));
            }
            let named = terms.fabric.cluster();
            if let Some(message) =
                named.and_then(|name| wrong_cluster(clusters, name, &terms.class))
            {
                faults.push(self.places.fault(&format!("{field}.cluster"), message));
            }
        }
        for (name, loan) in loans {
            let field = format!("loan.{name}");
            if !known(&loan.class) {
                faults.push(self.places.fault(&format!("{field}.class"), no_class(&loan.class)));
            }
            for (side, path) in [("lender", &loan.lender), ("borrower", &loan.borrower)] {
                if !nodes.contains_key(path) {
                    faults.push(self.places.fault(&format!("{field}.{side}"), no_node(path)));
                }
            }
        }
        self.faults.extend(faults);
    }
}

fn no_class(class: &GpuClass) -> String {
    format!("no class {class} is declared: add [class.{class}] to any file, or correct the name")
}

fn no_node(path: &ProjectPath) -> String {
    format!("there is no node {path}: add [node.\"{path}\"] to any file, or correct the name")
}

/// Why that cluster cannot have GPUs of the class.
fn wrong_cluster(
    clusters: &BTreeMap<ClusterName, ClusterTerms>,
    name: &ClusterName,
    class: &GpuClass,
) -> Option<String> {
    match clusters.get(name) {
        None => Some(format!("no cluster {name} is declared: add [cluster.{name}] to any file")),
        Some(terms) if terms.class != *class => {
            Some(format!("{name} has {} GPUs, not {class}: name another cluster", terms.class))
        }
        Some(_) => None,
    }
}

pub(super) fn node_field(path: &ProjectPath) -> String {
    format!("node.\"{path}\"")
}
