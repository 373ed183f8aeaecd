//! Tables of text: CSV files with a header, packed with gzip or not, their columns read by name.
//!
//! What a column means is not known here. Whoever reads one gets a value, or an error that says where it stood.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::read::MultiGzDecoder;

/// What every file begins with that gzip has written.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be opened or unpacked.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not CSV.
    #[error("{}: not a table", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why; names the line.
        #[source]
        source: csv::Error,
    },
    /// The header lacks a column.
    #[error("{}, line 1: there is no column \"{column}\"", path.display())]
    NoColumn {
        /// Which file.
        path: PathBuf,
        /// Which column.
        column: String,
    },
    /// A value does not mean anything in its column.
    #[error("{}, line {line}, column \"{column}\": \"{text}\": {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Its line, the header's is 1.
        line: u64,
        /// Its column.
        column: String,
        /// What stands there.
        text: String,
        /// Why it cannot be taken.
        reason: String,
    },
}

/// Opens the file at `path` as text, unpacked if gzip packed it, which its first bytes tell.
///
/// # Errors
/// [`TableError::Unreadable`]
pub fn open_text(path: &Path) -> Result<Box<dyn Read>, TableError> {
    let unreadable = |source| TableError::Unreadable { path: path.to_owned(), source };
    unpacked(BufReader::new(File::open(path).map_err(unreadable)?)).map_err(unreadable)
}

/// Text out of bytes, unpacked if gzip packed them.
///
/// # Errors
/// If the first of them cannot be read.
pub fn unpacked<'a>(mut bytes: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let packed = bytes.fill_buf()?.starts_with(&GZIP_MAGIC);
    Ok(if packed { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) })
}

/// Opens the CSV file with a header at `path`, packed with gzip or not.
///
/// # Errors
/// [`TableError::Unreadable`]
pub fn open(path: &Path) -> Result<csv::Reader<Box<dyn Read>>, TableError> {
    Ok(as_csv(open_text(path)?))
}

fn as_csv<R: Read>(text: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text)
}

/// A table that is read row by row.
pub struct Table<'a> {
    path: PathBuf,
    names: csv::StringRecord,
    reader: csv::Reader<Box<dyn Read + 'a>>,
}

impl<'a> Table<'a> {
    /// Opens the table at `path`, as [`open`] does.
    ///
    /// # Errors
    /// [`TableError`] also if the header cannot be read.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        Table::of(path, open_text(path)?)
    }

    /// The table of a text; `path` is for errors.
    ///
    /// # Errors
    /// [`TableError::Malformed`] if the header cannot be read.
    pub fn of(path: &Path, text: Box<dyn Read + 'a>) -> Result<Self, TableError> {
        let mut reader = as_csv(text);
        let malformed = |source| TableError::Malformed { path: path.to_owned(), source };
        let names = reader.headers().map_err(malformed)?.clone();
        Ok(Table { path: path.to_owned(), names, reader })
    }

    /// Whether there is such a column.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.names.iter().any(|name| name == column)
    }

    /// That there are all of these columns, also if there is no row.
    ///
    /// # Errors
    /// [`TableError::NoColumn`] with the first that is not there.
    pub fn require(&self, columns: &[&str]) -> Result<(), TableError> {
        match columns.iter().find(|column| !self.has(column)) {
            None => Ok(()),
            Some(column) => Err(no_column(&self.path, column)),
        }
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// [`TableError::Malformed`]
    pub fn row(&mut self) -> Result<Option<Row<'_>>, TableError> {
        let mut values = csv::StringRecord::new();
        match self.reader.read_record(&mut values) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(Row { path: &self.path, names: &self.names, values })),
            Err(source) => Err(TableError::Malformed { path: self.path.clone(), source }),
        }
    }
}

impl std::fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("path", &self.path).field("names", &self.names).finish()
    }
}

/// One row.
#[derive(Debug)]
pub struct Row<'t> {
    path: &'t Path,
    names: &'t csv::StringRecord,
    values: csv::StringRecord,
}

impl Row<'_> {
    /// What stands in that column, without the blanks around it.
    ///
    /// # Errors
    /// [`TableError::NoColumn`]
    pub fn text(&self, column: &str) -> Result<&str, TableError> {
        let place = self.names.iter().position(|name| name == column);
        let value = place.and_then(|place| self.values.get(place));
        value.ok_or_else(|| no_column(self.path, column))
    }

    /// The value in that column.
    ///
    /// # Errors
    /// [`TableError::NoColumn`], or [`TableError::Value`] if it is none.
    pub fn value<T: FromStr>(&self, column: &str) -> Result<T, TableError>
    where
        T::Err: Display,
    {
        self.text(column)?.parse().map_err(|error: T::Err| self.fault(column, error.to_string()))
    }

    /// The value in that column, or `None` if it is empty.
    ///
    /// # Errors
    /// As [`Row::value`].
    pub fn value_or_none<T: FromStr>(&self, column: &str) -> Result<Option<T>, TableError>
    where
        T::Err: Display,
    {
        if self.text(column)?.is_empty() { Ok(None) } else { self.value(column).map(Some) }
    }

    /// What to say of a value that cannot be taken for `reason`.
    #[must_use]
    pub fn fault(&self, column: &str, reason: impl Into<String>) -> TableError {
        TableError::Value {
            path: self.path.to_owned(),
            line: self.line(),
            column: column.to_owned(),
            text: self.text(column).unwrap_or_default().to_owned(),
            reason: reason.into(),
        }
    }

    /// The line of the file that it begins in; the header's is 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.values.position().map_or(0, csv::Position::line)
    }
}

fn no_column(path: &Path, column: &str) -> TableError {
    TableError::NoColumn { path: path.to_owned(), column: column.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &str = "id,gpus\n1, 8\n2,\n3,many\n";

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    }

    fn sizes(path: &Path) -> Vec<Result<Option<u32>, String>> {
        let mut table = Table::open(path).unwrap();
        let mut sizes = Vec::new();
        while let Some(row) = table.row().unwrap() {
            sizes.push(row.value_or_none("gpus").map_err(|error| error.to_string()));
        }
        sizes
    }

    #[test]
    fn a_packed_table_is_read_as_a_plain_one() {
        let (plain, packed) = (file(TEXT.as_bytes()), file(&packed(TEXT)));
        assert_eq!(sizes(plain.path())[..2], [Ok(Some(8)), Ok(None)]);
        assert_eq!(sizes(plain.path())[..2], sizes(packed.path())[..2]);
    }

    #[test]
    fn a_fault_names_file_line_and_column() {
        let file = file(TEXT.as_bytes());
        let fault = sizes(file.path())[2].clone().unwrap_err();
        let place = format!("{}, line 4, column \"gpus\"", file.path().display());
        assert_eq!(fault, format!("{place}: \"many\": invalid digit found in string"));
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let file = file(TEXT.as_bytes());
        let table = Table::open(file.path()).unwrap();
        assert!(table.require(&["id", "gpus"]).is_ok());
        let fault = table.require(&["id", "vc"]).unwrap_err();
        assert_eq!(
            fault.to_string(),
            format!("{}, line 1: there is no column \"vc\"", file.path().display())
        );
    }

    #[test]
    fn rows_of_different_lengths_are_no_table() {
        let file = file(b"id,gpus\n1,8\n2\n");
        let mut table = Table::open(file.path()).unwrap();
        assert!(table.row().unwrap().is_some());
        assert!(matches!(table.row(), Err(TableError::Malformed { .. })));
    }
}
