//! `backup`, `restore` and `verify`: the database as a file, a file as a database, and whether either agrees with itself.
//!
//! They run where the database is reached from, beside a scheduler or without any: what is needed when nothing runs must
//! not need a server.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gotgan_store::backup::{self, JOBS_SKIPPED, Summary};
use gotgan_store::{Verification, open, open_as_it_is, without_password};
use serde::Serialize;

use crate::clock;

/// Stands for standard output and standard input.
const STANDARD: &str = "-";

/// What to do with the database instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Write one state of the database into a file; its scheduler goes on meanwhile.
    ///
    /// The file is JSON lines of one form for both databases, and holds secrets, as the database does. It is made
    /// readable by its owner only and never written over another.
    #[command(after_help = "Examples:\n  gotgan-scheduler backup /backup/gotgan-monday.jsonl\n  \
                      gotgan-scheduler --database postgres://gotgan@db/gotgan backup - | zstd > b.zst")]
    Backup {
        /// New file; "-" for standard output.
        file: PathBuf,
    },
    /// Fill an empty database from a backup of either kind of database, and verify it.
    ///
    /// All or nothing. Leaderships and numbers of jobs go on well beyond those of the backup, so that nothing given
    /// out since then is given out again.
    #[command(
        after_help = "Example:\n  gotgan-scheduler --database postgres://gotgan@db/new restore /backup/gotgan-monday.jsonl"
    )]
    Restore {
        /// File that `backup` made; "-" for standard input.
        file: PathBuf,
    },
    /// Recompute ledger, leases and audit chain from the rows; exit code 1 if something differs.
    #[command(
        after_help = "Examples:\n  gotgan-scheduler verify\n  gotgan-scheduler verify /backup/gotgan-monday.jsonl"
    )]
    Verify {
        /// A backup to verify instead of the database; it is restored into a temporary file.
        file: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Good,
    /// What is stored does not agree with itself.
    Differs,
}

impl From<&Verification> for Outcome {
    fn from(found: &Verification) -> Self {
        if found.differences.is_empty() { Outcome::Good } else { Outcome::Differs }
    }
}

/// Does it to the database of `url`.
///
/// # Errors
/// What kept it from being done, with what was being done.
pub async fn run(command: Command, url: &str) -> Result<Outcome> {
    match command {
        Command::Backup { file } => back_up(url, &file).await,
        Command::Restore { file } => restore(url, &file).await,
        Command::Verify { file, json } => {
            let found = match &file {
                Some(file) => verify_backup(file).await?,
                None => verify_database(url).await?,
            };
            say(&if json { as_json(&found)? } else { in_words(&found) })?;
            Ok(Outcome::from(&found))
        }
    }
}

async fn back_up(url: &str, path: &Path) -> Result<Outcome> {
    if path.as_os_str() == STANDARD {
        let mut out = BufWriter::new(io::stdout());
        let summary = backup::backup(url, clock::now(), &mut out).await?;
        tracing::info!(rows = summary.rows, sha256 = summary.sha256, "backed up");
        return Ok(Outcome::Good);
    }
    if path.exists() {
        bail!("{} is there already; name another file", path.display());
    }
    let part = part_of(path);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let file = file.with_context(|| format!("cannot make {}", part.display()))?;
    let written = write_backup(url, file).await;
    let summary = written.inspect_err(|_| drop(fs::remove_file(&part)))?;
    fs::rename(&part, path).with_context(|| format!("cannot make {}", path.display()))?;
    let (rows, sha256) = (summary.rows, &summary.sha256);
    say(&format!(
        "{rows} rows in {}\nsha256 of all lines but the last: {sha256}\n",
        path.display()
    ))?;
    Ok(Outcome::Good)
}

/// It has its name only once it is whole and on the disk.
async fn write_backup(url: &str, file: File) -> Result<Summary> {
    let mut out = BufWriter::new(file);
    let summary = backup::backup(url, clock::now(), &mut out).await;
    let summary = summary.with_context(|| format!("cannot back {} up", without_password(url)))?;
    out.get_ref().sync_all().context("cannot write the backup to the disk")?;
    Ok(summary)
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

async fn restore(url: &str, path: &Path) -> Result<Outcome> {
    let summary = restore_into(url, path).await?;
    let header = &summary.header;
    say(&format!(
        "{} rows of the {} database of {} restored\nthe next job has a number {JOBS_SKIPPED} above the last one of the backup\n",
        summary.rows,
        header.database,
        gotgan_core::quota::show_moment(header.taken_us),
    ))?;
    let found = open(url).await?.verify().await?;
    say(&in_words(&found))?;
    Ok(Outcome::from(&found))
}

async fn restore_into(url: &str, path: &Path) -> Result<Summary> {
    if path.as_os_str() == STANDARD {
        return Ok(backup::restore(url, &mut BufReader::new(io::stdin())).await?);
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let restored = backup::restore(url, &mut BufReader::new(file)).await;
    restored.with_context(|| format!("cannot restore {}", path.display()))
}

async fn verify_database(url: &str) -> Result<Verification> {
    let opened = open_as_it_is(url).await;
    let store = opened.with_context(|| format!("cannot open {}", without_password(url)))?;
    Ok(store.verify().await?)
}

async fn verify_backup(path: &Path) -> Result<Verification> {
    let place = Scratch::new()?;
    let url = format!("sqlite://{}", place.0.join("verify.db").display());
    restore_into(&url, path).await?;
    verify_database(&url).await
}

/// A directory that nobody else may read, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gotgan-verify-{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a temporary directory was left");
        }
    }
}

#[derive(Serialize)]
struct View<'a> {
    schema: &'static str,
    consistent: bool,
    attempts: u64,
    live_attempts: u64,
    gpus: u64,
    audit_entries: u64,
    revisions: u64,
    differences: &'a [String],
}

fn as_json(found: &Verification) -> Result<String> {
    let view = View {
        schema: "gotgan.verification/1",
        consistent: found.differences.is_empty(),
        attempts: found.attempts,
        live_attempts: found.live_attempts,
        gpus: found.gpus,
        audit_entries: found.audit_entries,
        revisions: found.revisions,
        differences: &found.differences,
    };
    Ok(serde_json::to_string(&view)? + "\n")
}

fn in_words(found: &Verification) -> String {
    let Verification { attempts, live_attempts, gpus, audit_entries, revisions, .. } = found;
    let mut text = format!(
        "ledger       recomputed for {attempts} attempts\n\
         leases       {live_attempts} living attempts hold {gpus} GPUs\n\
         audit chain  {audit_entries} entries, {revisions} quota trees follow from them\n"
    );
    for difference in &found.differences {
        text.push_str(&format!("differs: {difference}\n"));
    }
    text.push_str(match found.differences.len() {
        0 => "all agrees\n",
        Verification::DIFFERENCES_MAX => "more may differ\n",
        _ => "",
    });
    text
}

fn say(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compared_is_said_and_what_differs_named() {
        let mut found = Verification { attempts: 7, gpus: 2, ..Verification::default() };
        let text = in_words(&found);
        assert!(text.contains("7 attempts") && text.ends_with("all agrees\n"), "{text}");
        assert_eq!(Outcome::from(&found), Outcome::Good);
        found.differences.push("ledger: entry 1".to_owned());
        let text = in_words(&found);
        assert!(text.ends_with("differs: ledger: entry 1\n"), "{text}");
        assert_eq!(Outcome::from(&found), Outcome::Differs);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
