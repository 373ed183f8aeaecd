//! The Standard Workload Format: a line a job, eighteen numbers with blanks between them, -1 for what is not known;
//! lines that begin with `;` are about the file.
//!
//! Taken are the job's number (field 1), its submission (2), its run time (4), the processors it was given (5), or
//! else those it asked for (8), the time it asked for (9), and as its tenant the group (13), or else the user (12).
//! A processor is taken for a GPU. What is left out is counted.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::bounds::{Counted, GPUS_MAX, SECONDS_MAX, counted};
use super::trace::Raw;
use crate::table::TableError;

/// Fields of a line that are needed, as their places from 0, with their names in the format's description.
const NUMBER: (usize, &str) = (0, "job number");
const SUBMIT: (usize, &str) = (1, "submit time");
const RUN_TIME: (usize, &str) = (3, "run time");
const GIVEN: (usize, &str) = (4, "number of allocated processors");
const ASKED: (usize, &str) = (7, "requested number of processors");
const ASKED_TIME: (usize, &str) = (8, "requested time");
const USER: (usize, &str) = (11, "user ID");
const GROUP: (usize, &str) = (12, "group ID");

/// Jobs left out.
#[derive(Debug, Default)]
struct Skipped {
    no_run_time: u64,
    no_size: u64,
    too_large: u64,
}

/// Reads the jobs of a text and counts those left out; `path` is for errors.
///
/// # Errors
/// [`TableError`]
pub(super) fn read(path: &Path, text: impl Read) -> Result<(Vec<Raw>, Vec<Counted>), TableError> {
    let (mut jobs, mut skipped) = (Vec::new(), Skipped::default());
    for (line, text) in (1..).zip(BufReader::new(text).lines()) {
        let text =
            text.map_err(|source| TableError::Unreadable { path: path.to_owned(), source })?;
        if text.trim().is_empty() || text.trim_start().starts_with(';') {
            continue;
        }
        let fields = Fields { path, line, values: text.split_whitespace().collect() };
        jobs.extend(job(&fields, &mut skipped)?);
    }
    let Skipped { no_run_time, no_size, too_large } = skipped;
    let skipped = counted(&[
        (no_run_time, "jobs without a run time"),
        (no_size, "jobs without a number of processors"),
        (too_large, "jobs with numbers too large to be true"),
    ]);
    Ok((jobs, skipped))
}

fn job(fields: &Fields<'_>, skipped: &mut Skipped) -> Result<Option<Raw>, TableError> {
    let id = fields.number(NUMBER)?;
    let (submit_s, duration_s) = (fields.number(SUBMIT)?, fields.number(RUN_TIME)?);
    let size = fields.known(GIVEN)?.or(fields.known(ASKED)?);
    let asked_s = fields.known(ASKED_TIME)?;
    let tenant = match (fields.known(GROUP)?, fields.known(USER)?) {
        (Some(group), _) => format!("group-{group}"),
        (None, Some(user)) => format!("user-{user}"),
        (None, None) => "unknown".to_owned(),
    };
    if duration_s <= 0 {
        skipped.no_run_time += 1;
        return Ok(None);
    }
    let Some(size) = size else {
        skipped.no_size += 1;
        return Ok(None);
    };
    let possible = 0..=SECONDS_MAX;
    let gpus = u32::try_from(size).ok().filter(|gpus| *gpus <= GPUS_MAX);
    match (u64::try_from(id), gpus) {
        (Ok(id), Some(gpus)) if possible.contains(&duration_s) && possible.contains(&submit_s) => {
            Ok(Some(Raw { id, submit_s, duration_s, asked_s, gpus, tenant }))
        }
        (Ok(_) | Err(_), Some(_) | None) => {
            skipped.too_large += 1;
            Ok(None)
        }
    }
}

/// The fields of a line.
struct Fields<'a> {
    path: &'a Path,
    line: u64,
    values: Vec<&'a str>,
}

impl Fields<'_> {
    /// A whole number; some archives write `12.00` for it.
    fn number(&self, (place, name): (usize, &str)) -> Result<i64, TableError> {
        let text = self.values.get(place).copied().unwrap_or_default();
        let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
        whole.parse().map_err(|error: std::num::ParseIntError| TableError::Value {
            path: self.path.to_owned(),
            line: self.line,
            column: name.to_owned(),
            text: text.to_owned(),
            reason: error.to_string(),
        })
    }

    /// The same, if it is known: neither -1 nor nothing.
    fn known(&self, field: (usize, &str)) -> Result<Option<i64>, TableError> {
        Ok(Some(self.number(field)?).filter(|number| *number > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "; Version: 2.2\n;   UnixStartTime: 0\n\n\
        1 0 5 100 8 -1 -1 16 3600 -1 1 3 4 -1 1 -1 -1 -1\n\
        2 10 -1 60.00 -1 -1 -1 2 -1 -1 1 3 -1 -1 1 -1 -1 -1\n\
        3 20 -1 -1 4 -1 -1 4 -1 -1 0 3 4 -1 1 -1 -1 -1\n\
        4 30 -1 5 -1 -1 -1 -1 -1 -1 0 -1 -1 -1 1 -1 -1 -1\n";

    fn read_text(text: &str) -> Result<(Vec<Raw>, Vec<Counted>), TableError> {
        read(Path::new("a.swf"), text.as_bytes())
    }

    #[test]
    fn a_line_is_a_job_and_what_cannot_be_replayed_is_counted() {
        let (jobs, skipped) = read_text(TEXT).unwrap();
        let jobs: Vec<_> = jobs
            .iter()
            .map(|job| {
                (job.id, job.submit_s, job.duration_s, job.asked_s, job.gpus, job.tenant.as_str())
            })
            .collect();
        assert_eq!(jobs, [(1, 0, 100, Some(3600), 8, "group-4"), (2, 10, 60, None, 2, "user-3")]);
        let skipped: Vec<String> = skipped.iter().map(ToString::to_string).collect();
        assert_eq!(skipped, ["1 jobs without a run time", "1 jobs without a number of processors"]);
    }

    #[test]
    fn a_line_that_is_no_job_is_named() {
        let error = read_text("; header\n1 0 x\n").unwrap_err().to_string();
        assert!(error.contains("line 2, column \"run time\": \"\""), "{error}");
    }
}
