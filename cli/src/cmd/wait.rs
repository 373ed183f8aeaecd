//! `gotgan wait`: until jobs have ended; the exit code tells how.

use std::{ops::ControlFlow, time::Duration};

use clap::Args;
use gotgan_proto::v1::{self, JobState};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Error, Exit},
    listing::{JobPages, PAGE_MAX},
    output::table::{Table, column},
    refer::{self, JobRef},
    units,
    view::job::{JobView, is_terminal, tone_of_state},
    watch,
};

/// Wait until jobs have ended
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Wait {
    /// Jobs to wait for
    #[arg(required = true, value_name = "JOB", value_parser = JobRef::parse_one, num_args = 1..=watch::WATCH_MAX)]
    jobs: Vec<JobRef>,
    /// Give up after this time, with exit code 9; the jobs go on
    #[arg(long, value_parser = units::parse_time, value_name = "TIME")]
    timeout: Option<i64>,
    /// Print nothing
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Exits with 0 if all completed, 1 if one failed, else 11 if one timed out, else 10 if one was cancelled.

Examples:
  gotgan wait 42 43
  gotgan wait --timeout 2h $(gotgan submit --parsable train.sh) && echo done";

#[derive(Serialize)]
struct Waited {
    exit_code: u8,
    jobs: Vec<JobView>,
}

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let mut job_ids = refer::resolve_all(&self.jobs, &context.client()?).await?;
        job_ids.sort_unstable();
        job_ids.dedup();
        wait_for(&job_ids, self.timeout, !self.quiet, context).await
    }
}

/// Waits for these jobs, at most so many seconds; shows them if asked and returns the code that tells how they
/// ended.
///
/// # Errors
/// When one is not there, or the time is over.
pub async fn wait_for(
    job_ids: &[u64],
    timeout_s: Option<i64>,
    shown: bool,
    context: &Context,
) -> Result<u8, Error> {
    let client = context.client()?;
    let progress = context.output.progress();
    let waiting = watch::until_terminal(&client, job_ids, |event, states| {
        let open = states.values().filter(|state| !is_terminal(**state)).count();
        let text = format!(
            "waiting for {open} of {} jobs; job {}: {}",
            states.len(),
            event.job_id,
            event.text
        );
        progress.note(&text);
        Ok(ControlFlow::Continue(()))
    });
    let limit =
        timeout_s.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.unsigned_abs()));
    let states = match tokio::time::timeout(limit, waiting).await {
        Ok(states) => states?,
        Err(_) => return Err(gave_up()),
    };
    progress.clear();
    let code = exit_of(states.values().copied()).code();
    if shown {
        show(job_ids, code, &client, context).await?;
    }
    Ok(code)
}

fn gave_up() -> Error {
    Error::Unreachable {
        message: "the jobs have not ended within --timeout".to_owned(),
        hint: "they go on; wait again, or see `gotgan why JOB`".to_owned(),
    }
}

/// How the program ends for jobs that ended so.
pub fn exit_of(states: impl Iterator<Item = i32>) -> Exit {
    let states: Vec<i32> = states.collect();
    let any = |state: JobState| states.contains(&i32::from(state));
    if any(JobState::Failed) {
        Exit::Failed
    } else if any(JobState::TimedOut) {
        Exit::TimedOut
    } else if any(JobState::Cancelled) {
        Exit::Cancelled
    } else {
        Exit::Ok
    }
}

async fn show(
    job_ids: &[u64],
    exit_code: u8,
    client: &crate::client::Client,
    context: &Context,
) -> Result<(), Error> {
    let request = v1::ListJobsRequest { job_ids: job_ids.to_vec(), ..Default::default() };
    let pages = JobPages { request, size: PAGE_MAX, token: String::new(), all: true };
    let mut jobs: Vec<JobView> = Vec::new();
    pages.each(client, |page| jobs.extend(page.iter().map(JobView::of))).await?;
    jobs.sort_by_key(|job| job.job_id);
    if context.output.json {
        return context.output.document("gotgan.wait/1", &Waited { exit_code, jobs });
    }
    let mut table = Table::new(&[
        column("JOB").right(),
        column("NAME").shrink(12),
        column("STATE"),
        column("EXIT").drop(1),
        column("TIME").right().drop(3),
        column("DETAIL").shrink(10).drop(2),
    ]);
    for job in jobs {
        let exit = job.exit.as_ref().map(crate::view::job::ExitView::text).unwrap_or_default();
        table.toned_row([
            (job.label(), Default::default()),
            (job.name.clone(), Default::default()),
            (job.state.clone(), tone_of_state(&job.state)),
            (exit, Default::default()),
            (job.run_time(0), Default::default()),
            (job.detail.clone(), Default::default()),
        ]);
    }
    context.output.table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_the_worst_end() {
        let exit = |states: &[JobState]| exit_of(states.iter().map(|state| i32::from(*state)));
        assert_eq!(exit(&[JobState::Completed, JobState::Completed]), Exit::Ok);
        assert_eq!(exit(&[JobState::Cancelled, JobState::Completed]), Exit::Cancelled);
        assert_eq!(exit(&[JobState::Cancelled, JobState::TimedOut]), Exit::TimedOut);
        assert_eq!(exit(&[JobState::TimedOut, JobState::Failed]), Exit::Failed);
    }
}
