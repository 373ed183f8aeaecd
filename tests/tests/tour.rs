//! The tour of the README: every command of it is run, in order, against a cluster as the quickstart leaves it.

use std::fs;

use gotgan_tests::{Cluster, Database, programs};

/// What a code block that is run begins with.
const FENCE: &str = "```sh tour";

on_each_database! {
    the_tour_of_the_readme_works,
}

/// Blocks of commands in their order, each with the line it begins at.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            None if line.trim_end() == FENCE => open = Some((number + 1, String::new())),
            None => {}
            Some(_) if line.starts_with("```") => blocks.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

async fn the_tour_of_the_readme_works(database: Database) {
    let text = fs::read_to_string(programs::checkout().join("README.md")).expect("a README");
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "README.md has no block that begins with {FENCE}");
    let quota = examples_quota();
    let mut cluster = Cluster::builder(database).quota(&quota).start().await;
    cluster.add_worker("node-a", "8xB200").await;
    cluster.add_worker("node-b", "8xB200").await;
    let gotgan = cluster.gotgan().in_directory(&programs::checkout());
    // One shell for all, so that what a block sets is there for the next.
    let mut script = String::new();
    for (line, block) in &blocks {
        script.push_str(&format!("echo 'README.md:{line}' >&2\n{block}"));
    }
    gotgan.shell(&script).ok();
}

/// The tree of the examples as one file.
fn examples_quota() -> String {
    let directory = programs::checkout().join("examples/quota/small");
    let mut files: Vec<_> =
        fs::read_dir(directory).unwrap().flatten().map(|file| file.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}
