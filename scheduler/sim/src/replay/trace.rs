//! A trace: jobs as somebody's cluster saw them, by submission, whatever file they came in.
//!
//! Times are seconds, as in the files; where a trace begins does not matter. A tenant is whoever shares the machine
//! with others: a virtual cluster, a group, a project.

use std::io::Read;
use std::path::Path;

use gotgan_core::amount::UnixMicros;

use super::bounds::{Counted, GPUS_MAX, SECONDS_MAX};
use super::{history, swf};
use crate::table::{Row, Table, TableError, open_text};

/// A tenant by its place in [`Trace::tenants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantIndex(pub usize);

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceJob {
    /// Its number in the trace.
    pub id: u64,
    /// When it was submitted.
    pub submit: UnixMicros,
    /// How long it runs once it has started, seconds.
    pub duration_s: i64,
    /// What it said it would take at most, seconds, if the trace knows.
    pub asked_s: Option<i64>,
    /// Whole GPUs, all at once.
    pub gpus: u32,
    /// Whose.
    pub tenant: TenantIndex,
}

/// Jobs by submission, those of one moment by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// The jobs.
    pub jobs: Vec<TraceJob>,
    /// Names of the tenants, sorted.
    pub tenants: Vec<String>,
    /// What was left out, and why.
    pub skipped: Vec<Counted>,
}

/// What a file of a trace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CSV with the columns `id`, `submit_s`, `duration_s`, `gpus` and `vc` or `tenant`; `asked_s` if there is one.
    Csv,
    /// The Standard Workload Format.
    Swf,
    /// What `gotgan jobs --all --json` prints.
    Jobs,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read, or is no table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// It is not what `gotgan jobs --all --json` prints.
    #[error("{path} is not what gotgan jobs --all --json prints")]
    NotJobs {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no job in it that can be replayed.
    #[error("{path} has no job that can be replayed{why}")]
    Empty {
        /// Which file.
        path: String,
        /// What was left out.
        why: String,
    },
}

/// A job as a file has it, its tenant by name.
#[derive(Debug)]
pub(super) struct Raw {
    pub id: u64,
    pub submit_s: i64,
    pub duration_s: i64,
    pub asked_s: Option<i64>,
    pub gpus: u32,
    pub tenant: String,
}

impl Format {
    /// What the name of the file says: `.swf`, `.json`, else CSV; `.gz` after it does not matter.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase());
        let name = name.unwrap_or_default();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        match plain.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("swf") => Format::Swf,
            Some("json") => Format::Jobs,
            Some(_) | None => Format::Csv,
        }
    }
}

/// Reads the trace in the file at `path`.
///
/// # Errors
/// [`TraceError`]
pub fn read(path: &Path, format: Format) -> Result<Trace, TraceError> {
    read_text(path, open_text(path)?, format)
}

/// Reads the trace in a text; `path` is for errors.
///
/// # Errors
/// [`TraceError`]
pub fn read_text<'a>(
    path: &Path,
    text: Box<dyn Read + 'a>,
    format: Format,
) -> Result<Trace, TraceError> {
    let (raw, skipped) = match format {
        Format::Csv => read_csv(path, text)?,
        Format::Swf => swf::read(path, text)?,
        Format::Jobs => history::read(path, text)?,
    };
    if raw.is_empty() {
        let why = skipped.iter().map(|one| format!("; {one}")).collect();
        return Err(TraceError::Empty { path: path.display().to_string(), why });
    }
    Ok(Trace::of(raw, skipped))
}

impl Trace {
    pub(super) fn of(raw: Vec<Raw>, skipped: Vec<Counted>) -> Self {
        let mut tenants: Vec<String> = raw.iter().map(|job| job.tenant.clone()).collect();
        tenants.sort();
        tenants.dedup();
        let place = |name: &String| TenantIndex(tenants.binary_search(name).unwrap_or(0));
        let mut jobs: Vec<TraceJob> = raw
            .iter()
            .map(|job| TraceJob {
                id: job.id,
                submit: UnixMicros(0).plus_seconds(job.submit_s),
                duration_s: job.duration_s,
                // Who asks for nothing has not said what it asks for.
                asked_s: job.asked_s.filter(|asked| *asked > 0).map(|asked| asked.min(SECONDS_MAX)),
                gpus: job.gpus,
                tenant: place(&job.tenant),
            })
            .collect();
        jobs.sort_by_key(|job| (job.submit, job.id));
        Trace { jobs, tenants, skipped }
    }
}

fn read_csv<'a>(
    path: &Path,
    text: Box<dyn Read + 'a>,
) -> Result<(Vec<Raw>, Vec<Counted>), TableError> {
    let mut table = Table::of(path, text)?;
    let tenant = if table.has("vc") { "vc" } else { "tenant" };
    table.require(&["id", "submit_s", "duration_s", "gpus", tenant])?;
    let has_asked = table.has("asked_s");
    let mut jobs = Vec::new();
    while let Some(row) = table.row()? {
        jobs.push(csv_job(&row, tenant, has_asked)?);
    }
    Ok((jobs, Vec::new()))
}

fn csv_job(row: &Row<'_>, tenant: &str, has_asked: bool) -> Result<Raw, TableError> {
    let asks = has_asked && !row.text("asked_s")?.is_empty();
    Ok(Raw {
        id: row.value("id")?,
        submit_s: within(row, "submit_s", 0, SECONDS_MAX)?,
        duration_s: within(row, "duration_s", 1, SECONDS_MAX)?,
        asked_s: asks.then(|| within(row, "asked_s", 0, SECONDS_MAX)).transpose()?,
        gpus: u32::try_from(within(row, "gpus", 1, i64::from(GPUS_MAX))?).unwrap_or(GPUS_MAX),
        tenant: row.text(tenant)?.to_owned(),
    })
}

/// A number that lies between two.
fn within(row: &Row<'_>, column: &str, least: i64, most: i64) -> Result<i64, TableError> {
    let value = row.value(column)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(row.fault(column, format!("must be from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        (folder, path)
    }

    #[test]
    fn the_name_of_a_file_says_what_it_is() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(of("a/b.SWF.gz"), Format::Swf);
        assert_eq!(of("jobs.json"), Format::Jobs);
        assert_eq!(of("trace.csv.gz"), Format::Csv);
        assert_eq!(of("trace"), Format::Csv);
    }

    #[test]
    fn who_asks_for_no_time_has_not_said_how_much_it_asks_for() {
        let head = "id,submit_s,duration_s,gpus,vc,asked_s\n";
        let asked = |text: &str| {
            let (_folder, path) = file("t.csv", &format!("{head}1,0,10,8,a,{text}\n"));
            read(&path, Format::Csv).map(|trace| trace.jobs[0].asked_s)
        };
        assert_eq!((asked("0").unwrap(), asked("").unwrap()), (None, None));
        assert_eq!(asked("60").unwrap(), Some(60));
        assert!(asked("-1").is_err() && asked("9223372036854775807").is_err());
    }

    #[test]
    fn jobs_are_by_submission_and_tenants_by_name() {
        let text =
            "gpus,id,submit_s,duration_s,tenant\n1,2,50,10,zoo\n8,1,50,20,ant\n2,3,10,5,zoo\n";
        let (_folder, path) = file("t.csv", text);
        let trace = read(&path, Format::of(&path)).unwrap();
        assert_eq!(trace.tenants, ["ant", "zoo"]);
        let jobs: Vec<_> = trace.jobs.iter().map(|job| (job.id, job.gpus, job.tenant.0)).collect();
        assert_eq!(jobs, [(3, 2, 1), (1, 8, 0), (2, 1, 1)]);
    }

    #[test]
    fn a_job_without_gpus_or_time_is_a_fault_of_a_table() {
        for (row, column) in
            [("1,0,0,1,a", "duration_s"), ("1,0,5,0,a", "gpus"), ("1,-1,5,1,a", "submit_s")]
        {
            let (_folder, path) =
                file("t.csv", &format!("id,submit_s,duration_s,gpus,vc\n{row}\n"));
            let error = read(&path, Format::Csv).unwrap_err().to_string();
            assert!(error.contains(&format!("line 2, column \"{column}\"")), "{error}");
        }
    }

    #[test]
    fn a_trace_without_jobs_is_refused() {
        let (_folder, path) = file("t.csv", "id,submit_s,duration_s,gpus,vc\n");
        assert!(matches!(read(&path, Format::Csv), Err(TraceError::Empty { .. })));
    }
}
