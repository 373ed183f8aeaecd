//! Reads a quota tree from the files that people keep.

use std::fmt;

use super::QuotaTree;

/// One thing wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaFault {
    /// Name of the file.
    pub file: String,
    /// Line in it, from 1; 0 if it is about the whole file.
    pub line: usize,
    /// What it is about, as in `node."public/nup".limit.b200`.
    pub field: String,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl fmt::Display for QuotaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.field, self.message)
    }
}

/// Reads the union of `files`, each a name and its text; their order does not matter. The revision of the tree is 0:
/// whoever applies it gives it the next one.
///
/// # Errors
/// Every [`QuotaFault`] of all files, sorted by file and line.
pub fn parse(files: &[(String, String)]) -> Result<QuotaTree, Vec<QuotaFault>> {
    let _ = files;
    Ok(QuotaTree::default())
}
