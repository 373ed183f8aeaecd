//! `gotgan logs`: output of a job's tasks, stored or as it comes.

use std::ops::ControlFlow;

use clap::{Args, ValueEnum};
use gotgan_proto::v1::{self, JobState, LogStream};

use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::{self, Show, Source},
    refer::JobRef,
    view::job::is_terminal,
    watch,
};

/// Print a job's output
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Logs {
    #[arg(value_name = "JOB", value_parser = JobRef::parse_one)]
    job: JobRef,
    /// Go on until the tasks have ended; waits for the job to start
    #[arg(long, short)]
    follow: bool,
    /// Step; 0 is the script or the command
    #[arg(long, default_value_t = 0, value_name = "N")]
    step: u32,
    /// Rank of the task [default: 0]
    #[arg(long, value_name = "N")]
    rank: Option<u32>,
    /// All ranks of the step, each line with its rank
    #[arg(long, conflicts_with = "rank")]
    all_ranks: bool,
    /// Attempt [default: the latest]
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    attempt: u32,
    /// Which stream
    #[arg(long, value_enum, default_value_t = Which::Both)]
    stream: Which,
    /// Standard error only
    #[arg(long, conflicts_with = "stream")]
    stderr: bool,
    /// First byte of each stream
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    offset: u64,
    /// Begin each line with its rank
    #[arg(long)]
    label: bool,
}

const EXAMPLES: &str = "\
Standard error of the job goes to standard error here. With --json each line of output is one object.

Examples:
  gotgan logs 42
  gotgan logs -f --all-ranks 42
  gotgan logs --step 1 --rank 3 --stderr 42";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Both,
    Stdout,
    Stderr,
}

impl Which {
    fn includes(self, stream: LogStream) -> bool {
        match self {
            Self::Both => true,
            Self::Stdout => stream != LogStream::Stderr,
            Self::Stderr => stream == LogStream::Stderr,
        }
    }
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let client = context.client()?;
        let job_id = self.job.resolve(&client).await?;
        if self.follow {
            wait_for_start(&client, job_id, context).await?;
        }
        let sources = self.sources(job_id, &client).await?;
        let label = self.label || self.all_ranks;
        let show = Show { offset: self.offset, follow: self.follow, label };
        follow::print(&client, &sources, show, &context.output).await?;
        Ok(Exit::Ok.code())
    }

    async fn sources(&self, job_id: u64, client: &Client) -> Result<Vec<Source>, Error> {
        let (attempt, ranks) = if self.all_ranks {
            let job = watch::get_job(client, job_id).await?;
            let attempt = find_attempt(&job, self.attempt)?;
            (attempt.number, ranks_of(attempt, self.step)?)
        } else {
            (self.attempt, vec![self.rank.unwrap_or_default()])
        };
        let which = if self.stderr { Which::Stderr } else { self.stream };
        let mut sources = follow::both_streams(job_id, attempt, self.step, &ranks);
        sources.retain(|source| which.includes(source.stream));
        Ok(sources)
    }
}

fn find_attempt(job: &v1::Job, number: u32) -> Result<&v1::Attempt, Error> {
    let found = match number {
        0 => job.attempts.last(),
        _ => job.attempts.iter().find(|attempt| attempt.number == number),
    };
    found.ok_or_else(|| {
        Error::invalid(
            format!("job {} has no such attempt", job.job_id),
            format!("`gotgan job {}` shows its attempts", job.job_id),
        )
    })
}

/// The ranks of a step.
fn ranks_of(attempt: &v1::Attempt, step: u32) -> Result<Vec<u32>, Error> {
    let found = attempt.steps.iter().find(|found| found.number == step);
    let found = found.ok_or_else(|| {
        Error::invalid(
            format!("attempt {} has no step {step}", attempt.number),
            "`gotgan job JOB` shows the steps there are",
        )
    })?;
    Ok(found.tasks.iter().map(|task| task.rank).collect())
}

/// Waits until the job runs or has ended; on a terminal it says so.
///
/// # Errors
/// When the job is not there or the scheduler is not reached.
pub async fn wait_for_start(client: &Client, job_id: u64, context: &Context) -> Result<(), Error> {
    let progress = context.output.progress();
    watch::until_terminal(client, &[job_id], |event, _| {
        progress.note(&format!("job {job_id}: {}", event.text));
        let begun = event.state == i32::from(JobState::Running) || is_terminal(event.state);
        Ok(if begun { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    progress.clear();
    Ok(())
}
