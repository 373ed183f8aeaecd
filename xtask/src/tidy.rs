//! `cargo xtask tidy`: the rules of the house that neither compiler nor linter knows.
//!
//! Each rule is a module with one function from the tree to findings. Nothing is repaired here.

mod invariants;
mod links;
mod migrations;
mod names;
mod size;
mod source;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::Workspace;
use tree::Tree;

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: PathBuf,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: impl Into<PathBuf>, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.into(), line, text: text.into() }
    }
}

pub fn run() -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let tree = Tree::read(&workspace.root)?;
    let mut findings = size::check(&tree)?;
    findings.extend(names::check(&tree));
    findings.extend(migrations::check(&tree));
    findings.extend(links::check(&tree));
    findings.extend(invariants::check(&tree));
    Ok(report(findings, tree.files.len()))
}

fn report(mut findings: Vec<Finding>, files: usize) -> ExitCode {
    findings.sort();
    for finding in &findings {
        println!("{}:{}: {}", finding.path.display(), finding.line, finding.text);
    }
    if findings.is_empty() {
        println!("tidy: {files} files in order");
        return ExitCode::SUCCESS;
    }
    println!("tidy: {} things to put in order", findings.len());
    ExitCode::FAILURE
}
