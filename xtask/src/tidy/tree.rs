//! The files of the checkout that rules look at, read once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Directories with nothing written by hand, by the end of their paths.
const SKIPPED: [&str; 6] =
    ["target", ".git", ".gotgan", "__pycache__", "fuzz/corpus", "fuzz/artifacts"];
/// Only these are text that rules read; of other files only the name counts.
const READ: [&str; 4] = ["rs", "md", "sql", "toml"];

#[derive(Debug, Default)]
pub struct Tree {
    /// Sorted by path.
    pub files: Vec<TreeFile>,
}

#[derive(Debug)]
pub struct TreeFile {
    /// Relative to the root, with `/` between its parts.
    pub path: String,
    /// Empty for what no rule reads.
    pub text: String,
}

impl Tree {
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.read_directory(root, Path::new(""))?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn read_directory(&mut self, root: &Path, below: &Path) -> Result<()> {
        let directory = root.join(below);
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("{} cannot be read", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                if !SKIPPED.iter().any(|skipped| path.ends_with(skipped)) {
                    self.read_directory(root, &path)?;
                }
            } else {
                self.files.push(read_file(root, &path)?);
            }
        }
        Ok(())
    }

    pub fn with_extension<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = &'a TreeFile> {
        self.files.iter().filter(move |file| has_extension(Path::new(&file.path), extension))
    }

    /// Whether there is a file or a directory of this name.
    pub fn contains(&self, path: &str) -> bool {
        let directory = format!("{path}/");
        path.is_empty()
            || self.files.iter().any(|file| file.path == path || file.path.starts_with(&directory))
    }
}

fn read_file(root: &Path, path: &PathBuf) -> Result<TreeFile> {
    let wanted = READ.iter().any(|extension| has_extension(path, extension));
    let text = if wanted {
        fs::read_to_string(root.join(path))
            .with_context(|| format!("{} cannot be read", path.display()))?
    } else {
        String::new()
    };
    Ok(TreeFile { path: path.to_string_lossy().into_owned(), text })
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// A tree for the tests of the rules.
#[cfg(test)]
pub fn tree_of(files: &[(&str, &str)]) -> Tree {
    let file =
        |(path, text): &(&str, &str)| TreeFile { path: (*path).into(), text: (*text).into() };
    Tree { files: files.iter().map(file).collect() }
}
