//! The form of a backup: lines of JSON, `gotgan.backup/1`.
//!
//! ```text
//! {"schema":"gotgan.backup/1","program":"0.1.0","form":9,"database":"postgres","taken_us":1700000000000000}
//! {"table":"settings","columns":["name","value"]}
//! ["job_token_secret","…"]
//! {"table":"leadership","columns":["single","epoch","holder","address","expires_us"]}
//! [1,7,"head-1:4f","https://head-1:7440",1700000003000000]
//! {"rows":2,"sha256":"…"}
//! ```
//!
//! The digest is of all lines but the last, line feeds included: `head -n -1 FILE | sha256sum` computes it. A file that was
//! cut off has no last line and is refused whole.

use std::io::{self, BufRead, Write};

use gotgan_core::amount::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Summary;
use crate::DatabaseKind;

/// Name of the form.
const SCHEMA: &str = "gotgan.backup/1";

/// Longest line: specifications of jobs are limited to far less, and quota trees of a country are a few MiB.
const LINE_MAX: u64 = 256 << 20;

/// Rows handed on together.
const BATCH_ROWS: usize = 500;
/// And their size, since a few rows may be long.
const BATCH_BYTES: usize = 4 << 20;

/// What a file cannot be read or written for.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system.
    #[error("the backup cannot be {doing}")]
    System {
        /// Read or written.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no backup.
    #[error("line {line}: {message}")]
    Malformed {
        /// Which, from 1.
        line: u64,
        /// What is wrong there.
        message: String,
    },
    /// It ends before its last line.
    #[error("the backup was cut off after {rows} rows; nothing was restored")]
    CutOff {
        /// Rows that are there.
        rows: u64,
    },
    /// Its digest is another than its last line says.
    #[error("the backup was changed: its digest is {computed}, and its last line says {written}")]
    Changed {
        /// Of what is there.
        computed: String,
        /// Of what was written.
        written: String,
    },
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    schema: String,
    /// Version of the program that made it.
    pub program: String,
    /// Number of the last migration of the database it was made of.
    pub form: i64,
    /// Kind of that database.
    pub database: String,
    /// When it was made.
    pub taken_us: UnixMicros,
}

#[derive(Serialize, Deserialize)]
struct TableLine {
    table: String,
    columns: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct LastLine {
    rows: u64,
    sha256: String,
}

/// Writes a backup line by line.
pub(crate) struct BackupWriter<'a> {
    out: &'a mut (dyn Write + Send),
    taken: UnixMicros,
    header: Option<Header>,
    hasher: Sha256,
    rows: u64,
}

impl<'a> BackupWriter<'a> {
    pub(crate) fn new(out: &'a mut (dyn Write + Send), taken: UnixMicros) -> Self {
        Self { out, taken, header: None, hasher: Sha256::new(), rows: 0 }
    }

    pub(crate) fn begin(&mut self, form: i64, kind: DatabaseKind) -> Result<(), FileError> {
        let header = Header {
            schema: SCHEMA.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            form,
            database: kind.word().to_owned(),
            taken_us: self.taken,
        };
        self.line(&json(&header))?;
        self.header = Some(header);
        Ok(())
    }

    pub(crate) fn table(&mut self, table: &str, columns: &[String]) -> Result<(), FileError> {
        self.line(&json(&TableLine { table: table.to_owned(), columns: columns.to_vec() }))
    }

    /// A row as the database made it: an array of JSON.
    pub(crate) fn row(&mut self, row: &str) -> Result<(), FileError> {
        self.rows += 1;
        self.line(row)
    }

    fn line(&mut self, text: &str) -> Result<(), FileError> {
        self.hasher.update(text.as_bytes());
        self.hasher.update(b"\n");
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|source| FileError::System { doing: "written", source })
    }

    pub(crate) fn finish(mut self) -> Result<Summary, FileError> {
        let sha256 = hex(self.hasher.clone());
        let rows = self.rows;
        self.line(&json(&LastLine { rows, sha256: sha256.clone() }))?;
        self.out.flush().map_err(|source| FileError::System { doing: "written", source })?;
        let none = || malformed(1, "nothing was written");
        Ok(Summary { header: self.header.ok_or_else(none)?, rows, sha256 })
    }
}

/// A part of a backup.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Rows of this table follow.
    Table { table: String, columns: Vec<String> },
    /// Rows of the table named last, as an array of arrays, and how many.
    Rows { json: String, count: u64 },
    /// All is there and unchanged.
    End(Summary),
}

/// Reads a backup part by part.
pub(crate) struct BackupReader<'a> {
    input: &'a mut (dyn BufRead + Send),
    header: Header,
    hasher: Sha256,
    line: u64,
    rows: u64,
    /// A line that was read and is not of the rows before it.
    ahead: Option<String>,
}

impl<'a> BackupReader<'a> {
    /// Reads the first line.
    pub(crate) fn new(input: &'a mut (dyn BufRead + Send)) -> Result<Self, FileError> {
        let header = Header {
            schema: String::new(),
            program: String::new(),
            form: 0,
            database: String::new(),
            taken_us: UnixMicros(0),
        };
        let (hasher, ahead) = (Sha256::new(), None);
        let mut reader = Self { input, header, hasher, line: 0, rows: 0, ahead };
        let first = reader.next_line()?.unwrap_or_default();
        reader.digest(&first);
        let found: Option<Header> = serde_json::from_str(&first).ok();
        let known = found.filter(|header| header.schema == SCHEMA);
        reader.header = known.ok_or_else(|| malformed(1, "this is no backup of Gotgan"))?;
        Ok(reader)
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The next part.
    pub(crate) fn part(&mut self) -> Result<Part, FileError> {
        let next = match self.ahead.take() {
            Some(line) => Some(line),
            None => self.next_line()?,
        };
        let Some(line) = next else { return Err(FileError::CutOff { rows: self.rows }) };
        if line.starts_with('[') {
            return self.batch(line);
        }
        if let Ok(last) = serde_json::from_str::<LastLine>(&line) {
            return self.end(last);
        }
        self.digest(&line);
        match serde_json::from_str::<TableLine>(&line) {
            Ok(TableLine { table, columns }) => Ok(Part::Table { table, columns }),
            Err(error) => Err(malformed(self.line, &error.to_string())),
        }
    }

    fn batch(&mut self, first: String) -> Result<Part, FileError> {
        let mut json = String::from("[");
        let (mut count, mut line) = (0, first);
        loop {
            // Refused here by its number, rather than by the database as one of many.
            if serde_json::from_str::<Vec<&RawValue>>(&line).is_err() {
                return Err(malformed(self.line, "this is no row"));
            }
            self.digest(&line);
            json.push_str(&line);
            count += 1;
            if count >= BATCH_ROWS || json.len() >= BATCH_BYTES {
                break;
            }
            match self.next_line()? {
                Some(next) if next.starts_with('[') => line = next,
                other => {
                    self.ahead = other;
                    break;
                }
            }
            json.push(',');
        }
        json.push(']');
        let count = count as u64;
        self.rows += count;
        Ok(Part::Rows { json, count })
    }

    fn end(&mut self, last: LastLine) -> Result<Part, FileError> {
        let computed = hex(self.hasher.clone());
        if computed != last.sha256 || self.rows != last.rows {
            return Err(FileError::Changed { computed, written: last.sha256 });
        }
        if self.next_line()?.is_some() {
            return Err(malformed(self.line, "something follows the last line"));
        }
        Ok(Part::End(Summary { header: self.header.clone(), rows: self.rows, sha256: computed }))
    }

    fn next_line(&mut self) -> Result<Option<String>, FileError> {
        let mut line = String::new();
        let mut limited = io::Read::take(&mut *self.input, LINE_MAX);
        let read = limited.read_line(&mut line);
        self.line += 1;
        match read {
            Ok(0) => Ok(None),
            // Half a line is none: the file was cut off in it.
            Ok(_) if line.pop() != Some('\n') => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(malformed(self.line, "this is no text"))
            }
            Err(source) => Err(FileError::System { doing: "read", source }),
        }
    }

    fn digest(&mut self, line: &str) {
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
    }
}

fn malformed(line: u64, message: &str) -> FileError {
    FileError::Malformed { line, message: message.to_owned() }
}

/// Of what has no map with other keys than text, so that it cannot fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = BackupWriter::new(&mut out, UnixMicros(7));
        writer.begin(9, DatabaseKind::Sqlite).unwrap();
        writer.table("settings", &["name".to_owned(), "value".to_owned()]).unwrap();
        writer.row(r#"["a","1"]"#).unwrap();
        writer.row(r#"["b","[{]\n"]"#).unwrap();
        writer.table("jobs", &["id".to_owned()]).unwrap();
        writer.finish().unwrap();
        out
    }

    fn read(mut bytes: &[u8]) -> Result<Vec<Part>, FileError> {
        let input: &mut (dyn BufRead + Send) = &mut bytes;
        let mut reader = BackupReader::new(input)?;
        let mut parts = Vec::new();
        loop {
            let part = reader.part()?;
            let is_last = matches!(part, Part::End(_));
            parts.push(part);
            if is_last {
                return Ok(parts);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let parts = read(&written()).unwrap();
        assert_eq!(parts.len(), 4);
        let json = r#"[["a","1"],["b","[{]\n"]]"#.to_owned();
        assert_eq!(parts[1], Part::Rows { json, count: 2 });
        let Part::End(summary) = &parts[3] else { panic!("{parts:?}") };
        assert_eq!((summary.rows, summary.header.form), (2, 9));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let whole = written();
        for length in 0..whole.len() - 1 {
            assert!(read(&whole[..length]).is_err(), "cut after {length} bytes");
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_is_refused() {
        let whole = written();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            let read = read(&bytes);
            assert!(read.is_err(), "byte {place} changed: {read:?}");
        }
    }

    #[test]
    fn a_line_too_many_is_refused() {
        let mut more = written();
        more.extend_from_slice(b"[1]\n");
        assert!(matches!(read(&more), Err(FileError::Malformed { line: 7, .. })));
        assert!(matches!(read(b"hello\n"), Err(FileError::Malformed { line: 1, .. })));
    }
}
