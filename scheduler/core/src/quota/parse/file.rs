//! Reads one file: what its tables are, and where faults are.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Place, QuotaFault, Reading};

/// Longest text, characters.
const TEXT_MAX: usize = 256;

/// Reads one file.
pub(super) struct FileReader<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub reading: &'a mut Reading,
}

impl FileReader<'_> {
    pub fn read(&mut self) {
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
                ("class", DeValue::Table(classes)) => self.read_classes(classes),
                ("cluster", DeValue::Table(clusters)) => self.read_clusters(clusters),
                ("lot", DeValue::Table(lots)) => self.read_lots(lots),
                ("approval", DeValue::Array(rules)) => self.read_approval(key, rules),
                ("reservation", DeValue::Array(list)) => self.read_reservations(list),
                ("loan", DeValue::Array(list)) => self.read_loans(list),
                (word @ ("reservation" | "loan"), _) => {
                    self.fault(key, word, format!("must be a list: write [[{word}]]"));
                }
                ("approval", _) => {
                    self.fault(key, "approval", "must be a list: write [[approval]]");
                }
                ("node", _) => {
                    self.fault(key, "node", "must be a table, as in [node.\"public/nup\"]");
                }
                (word @ ("class" | "cluster" | "lot"), _) => {
                    self.fault(key, word, format!("must be a table, as in [{word}.NAME]"));
                }
                (other, _) => {
                    let known = "only [node.\"PATH\"], [class.NAME], [cluster.NAME], [lot.NAME], \
                                 [[approval]], [[reservation]] and [[loan]] are";
                    self.unknown(key, other, known);
                }
            }
        }
    }

    /// A text that people read.
    pub fn text(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::String(text) if text.chars().count() <= TEXT_MAX => text.clone().into_owned(),
            _ => {
                self.fault(
                    value,
                    field,
                    format!("must be a text of at most {TEXT_MAX} characters"),
                );
                String::new()
            }
        }
    }

    /// What `read` makes of the value; a fault and `None` if it is wrong.
    pub fn value<T>(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        read(value.get_ref()).map_err(|message| self.fault(value, field, message)).ok()
    }

    /// Remembers where a field stands.
    pub fn note<T>(&mut self, at: &Spanned<T>, field: &str) {
        let place = Place { file: self.name.to_owned(), line: self.line(&at.span()) };
        self.reading.places.0.insert(field.to_owned(), place);
    }

    /// Whether `field` is new; if it is not, a fault that names both places.
    pub fn is_new<T>(&mut self, at: &Spanned<T>, field: &str) -> bool {
        if let Some(first) = self.reading.places.0.get(field) {
            let message =
                format!("is there already at {}:{}: keep one of them", first.file, first.line);
            self.fault(at, field, message);
            return false;
        }
        self.note(at, field);
        true
    }

    pub fn unknown(&mut self, key: &Spanned<impl AsRef<str>>, field: &str, known: &str) {
        self.fault(key, field, format!("not enforced by this version ({known}): remove it"));
    }

    pub fn fault<T>(&mut self, at: &Spanned<T>, field: &str, message: impl Into<String>) {
        let line = self.line(&at.span());
        self.fault_at(line, field, message);
    }

    fn fault_at(&mut self, line: usize, field: &str, message: impl Into<String>) {
        let (file, field) = (self.name.to_owned(), in_one_line(field));
        let message = in_one_line(&message.into());
        self.reading.faults.push(QuotaFault { file, line, field, message });
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Keys can have line ends in them, and are quoted in faults: a fault is one line.
fn in_one_line(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

/// The parser's messages may have lines of their own; a fault is one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
