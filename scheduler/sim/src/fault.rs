//! What is wrong with a scenario: file, line, key, and how to put it right.

use std::fmt;

use gotgan_core::quota::QuotaFault;

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScenarioFault {
    /// Name of the file.
    pub file: String,
    /// Line in it, from 1; 0 if it is about the whole file.
    pub line: usize,
    /// What it is about, as in `stream.size`; empty if about the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ScenarioFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl From<QuotaFault> for ScenarioFault {
    fn from(fault: QuotaFault) -> Self {
        let QuotaFault { file, line, field, message } = fault;
        ScenarioFault { file, line, key: field, message }
    }
}

/// Finds lines and keys in the text of one file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Name of the file.
    pub name: &'a str,
    /// All of it.
    pub text: &'a str,
}

impl Source<'_> {
    /// A fault at that byte of the text.
    #[must_use]
    pub fn fault(&self, at: usize, key: &str, message: impl Into<String>) -> ScenarioFault {
        let file = self.name.to_owned();
        let line = self.head(at).matches('\n').count() + 1;
        ScenarioFault { file, line, key: key.to_owned(), message: message.into() }
    }

    /// What the reader of TOML found, at the key it was reading.
    #[must_use]
    pub fn unreadable(&self, error: &toml::de::Error) -> ScenarioFault {
        let at = error.span().map_or(0, |span| span.start);
        self.fault(at, self.key_at(at), error.message())
    }

    /// The key whose value is at that byte, or that begins there.
    fn key_at(&self, at: usize) -> &str {
        let start = self.head(at).rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[start..].lines().next().unwrap_or_default();
        let before = &line[..(at - start).min(line.len())];
        let left = before.rfind('=').map(|equals| &before[..equals]);
        let left = left.unwrap_or_else(|| line.split('=').next().unwrap_or_default());
        left.rsplit(['{', ',']).next().unwrap_or_default().trim()
    }

    /// The text before that byte.
    fn head(&self, at: usize) -> &str {
        let end = (0..=at.min(self.text.len())).rev().find(|end| self.text.is_char_boundary(*end));
        &self.text[..end.unwrap_or(0)]
    }
}
