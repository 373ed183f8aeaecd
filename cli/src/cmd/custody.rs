//! `gotgan admin backup`, `restore` and `verify`: carried out by `gotgan-scheduler`, which has the database, on its host.
//!
//! This program becomes that one, so its output and its exit code are what the caller sees.

use std::{env, ffi::OsString, os::unix::process::CommandExt, path::PathBuf, process::Command};

use clap::Args;

use crate::error::Error;

const PROGRAM: &str = "gotgan-scheduler";

/// Where the database is.
#[derive(Args, Debug)]
struct Place {
    /// Configuration file of the scheduler
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its data directory [default: /var/lib/gotgan]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Its database, postgres://… or sqlite://… [default: SQLite in the data directory]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

/// Write one state of the database into a file, while schedulers run
///
/// Runs on a scheduler's host. The file is of one form for both databases and holds secrets, as the database does.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gotgan admin backup /backup/gotgan-monday.jsonl
  gotgan admin backup --config /etc/gotgan/scheduler.toml - | zstd > gotgan.zst")]
pub(super) struct Backup {
    #[command(flatten)]
    place: Place,
    /// New file; - for standard output
    file: PathBuf,
}

/// Fill an empty database from a backup of either kind, and verify it
///
/// Runs on a scheduler's host, while no scheduler runs on that database.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gotgan admin restore --database postgres://gotgan@db/new /backup/gotgan-monday.jsonl")]
pub(super) struct Restore {
    #[command(flatten)]
    place: Place,
    /// File that a backup was written to; - for standard input
    file: PathBuf,
}

/// Recompute ledger, leases and audit chain; exit code 1 if something differs
///
/// Runs on a scheduler's host, while schedulers run or not. With a file, the backup in it is verified.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gotgan admin verify
  gotgan admin verify /backup/gotgan-monday.jsonl")]
pub(super) struct Verify {
    #[command(flatten)]
    place: Place,
    /// A backup, instead of the database
    file: Option<PathBuf>,
}

impl Backup {
    pub(super) fn run(self) -> Error {
        self.place.become_scheduler(&["backup"], Some(self.file))
    }
}

impl Restore {
    pub(super) fn run(self) -> Error {
        self.place.become_scheduler(&["restore"], Some(self.file))
    }
}

impl Verify {
    pub(super) fn run(self, json: bool) -> Error {
        let words: &[&str] = if json { &["verify", "--json"] } else { &["verify"] };
        self.place.become_scheduler(words, self.file)
    }
}

impl Place {
    /// Returns only if that cannot be done.
    fn become_scheduler(self, words: &[&str], file: Option<PathBuf>) -> Error {
        let problem = Command::new(program()).args(self.words(words, file)).exec();
        Error::invalid(
            format!("{PROGRAM} cannot be started here: {problem}"),
            format!("run it on a scheduler's host, where {PROGRAM} is beside gotgan or in PATH"),
        )
    }

    fn words(self, command: &[&str], file: Option<PathBuf>) -> Vec<OsString> {
        let mut words: Vec<OsString> = command.iter().map(OsString::from).collect();
        let flags = [
            ("--config", self.config.map(PathBuf::into_os_string)),
            ("--data-dir", self.data_dir.map(PathBuf::into_os_string)),
            ("--database", self.database.map(OsString::from)),
        ];
        for (flag, value) in flags {
            words.extend(value.into_iter().flat_map(|value| [flag.into(), value]));
        }
        // A file may be called like a flag.
        words.push("--".into());
        words.extend(file.map(PathBuf::into_os_string));
        words
    }
}

/// The one beside this program, as they are installed; else the one in PATH.
fn program() -> PathBuf {
    let own = env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let beside = own.and_then(|path| Some(path.parent()?.join(PROGRAM)));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PROGRAM.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_the_file_are_handed_on() {
        let place = Place {
            config: None,
            data_dir: Some("/data".into()),
            database: Some("sqlite:///x".to_owned()),
        };
        let words = place.words(&["backup"], Some("-".into()));
        assert_eq!(
            words,
            ["backup", "--data-dir", "/data", "--database", "sqlite:///x", "--", "-"]
        );
    }
}
