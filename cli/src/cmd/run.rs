//! `gotgan run`: outside a job it submits, follows the output and ends as the job does; inside a job it starts a
//! step over the job's nodes.

use clap::Args;
use gotgan_proto::v1::{self, JobState};

use crate::{
    client::{self, Client},
    cmd::{logs, step, submit},
    context::Context,
    error::{Error, Exit, printable},
    follow::{self, Show},
    options::JobOptions,
    view::job::{ExitView, is_terminal},
    watch,
};

/// Run a command and follow it: as a job, or inside a job as a step over its nodes
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = "gotgan run [OPTIONS] -- COMMAND [ARGUMENT]...\n       gotgan run [OPTIONS] SCRIPT [ARGUMENT]...    (outside a job)")]
pub struct Run {
    #[command(flatten)]
    options: JobOptions,
    /// Begin each line of output with its rank
    #[arg(long, short = 'l')]
    label: bool,
    /// The command after `--`, or outside a job a script
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    words: Vec<String>,
}

const EXAMPLES: &str = "\
Ends with the code of the task that decided: its exit code, or 128 and its signal. Outside a job Ctrl-C cancels.
Inside a job (GOTGAN_JOB_ID is set) --nodes, --tasks, --tasks-per-node, --gpus-per-task, --name, --chdir, --env and
--label apply; the job's allocation is what there is to use.

Examples:
  gotgan run --gpus 1 -- nvidia-smi
  gotgan run -N 2 --gpus-per-node 8 --tasks-per gpu -t 1h -- python train.py
  gotgan run --label --tasks-per-node 8 --gpus-per-task 1 -- python train.py    (in a job script)";

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        match step::Inside::from_environment()? {
            Some(inside) => inside.run(self.options, self.words, self.label, context).await,
            None => outside(self.options, self.words, self.label, context).await,
        }
    }
}

async fn outside(
    options: JobOptions,
    words: Vec<String>,
    label: bool,
    context: &Context,
) -> Result<u8, Error> {
    let (spec, mut warnings) = submit::job_of(options, words, context)?;
    let submitted = submit::send(spec, false, context, &mut warnings).await?;
    let job_id = submitted.job_id.ok_or_else(|| Error::Unexpected("no job id".to_owned()))?;
    context.output.aside(&format!("gotgan: job {job_id}"));
    let client = context.client()?;
    let ended = tokio::select! {
        ended = follow_to_end(&client, job_id, label, context) => ended?,
        _ = tokio::signal::ctrl_c() => return cancel(&client, job_id, context).await,
    };
    tell_end(&ended, context);
    Ok(code_of(&ended))
}

/// Prints the output of one attempt after the other until the job is terminal.
async fn follow_to_end(
    client: &Client,
    job_id: u64,
    label: bool,
    context: &Context,
) -> Result<v1::Job, Error> {
    let mut followed = 0;
    loop {
        wait_for_attempt(client, job_id, followed, context).await?;
        let job = watch::get_job(client, job_id).await?;
        let latest = job.attempts.last().filter(|attempt| attempt.number > followed);
        if let Some(attempt) = latest {
            followed = attempt.number;
            print_attempt(client, job_id, attempt, label, context).await?;
        }
        if is_terminal(job.state) {
            return Ok(job);
        }
    }
}

/// Waits until an attempt after `followed` runs, or the job is terminal.
async fn wait_for_attempt(
    client: &Client,
    job_id: u64,
    followed: u32,
    context: &Context,
) -> Result<(), Error> {
    use std::ops::ControlFlow::{Break, Continue};
    if followed == 0 {
        return logs::wait_for_start(client, job_id, context).await;
    }
    watch::until_terminal(client, &[job_id], |event, _| {
        let again = event.state == i32::from(JobState::Running) && event.attempt > followed;
        Ok(if again { Break(()) } else { Continue(()) })
    })
    .await?;
    Ok(())
}

async fn print_attempt(
    client: &Client,
    job_id: u64,
    attempt: &v1::Attempt,
    label: bool,
    context: &Context,
) -> Result<(), Error> {
    let step = attempt.steps.iter().find(|step| step.number == 0);
    let mut ranks: Vec<u32> =
        step.map(|step| step.tasks.iter().map(|task| task.rank).collect()).unwrap_or_default();
    if ranks.is_empty() {
        ranks.push(0);
    }
    let never_ran = attempt.started_us == 0 && attempt.ended_us != 0;
    if never_ran {
        return Ok(());
    }
    let sources = follow::both_streams(job_id, attempt.number, 0, &ranks);
    let show = Show { offset: 0, follow: true, label };
    match follow::print(client, &sources, show, &context.output).await {
        // Output that cannot be had must not hide how the job ended.
        Err(problem @ Error::Refused(_)) => {
            context.output.warn(&format!("the output is incomplete: {problem}"));
            Ok(())
        }
        result => result,
    }
}

async fn cancel(client: &Client, job_id: u64, context: &Context) -> Result<u8, Error> {
    context.output.aside(&format!("gotgan: cancelling job {job_id}; Ctrl-C again leaves it"));
    let idempotency_key = client::new_idempotency_key()?;
    let reason = "Ctrl-C at gotgan run".to_owned();
    let tasks = String::new();
    let request = v1::JobActionRequest { idempotency_key, job_id, reason, tasks };
    let ending = async {
        client.call(async |api| api.jobs().cancel(request.clone()).await).await?;
        watch::until_terminal(client, &[job_id], |_, _| Ok(std::ops::ControlFlow::Continue(())))
            .await
    };
    tokio::select! {
        ended = ending => ended.map(|_| Exit::Interrupted.code()),
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted.code()),
    }
}

fn tell_end(job: &v1::Job, context: &Context) {
    let state = crate::view::word::job_state(job.state);
    if job.state != i32::from(JobState::Completed) {
        context
            .output
            .aside(&printable(&format!("gotgan: job {} {state}: {}", job.job_id, job.detail)));
    }
}

/// The code of the task that decided, or that of how the job ended without one.
fn code_of(job: &v1::Job) -> u8 {
    let task_code =
        ExitView::of(job.exit.as_ref()).map(|exit| exit.shell_code()).unwrap_or_default();
    match JobState::try_from(job.state) {
        Ok(JobState::Completed) => task_code,
        Ok(JobState::Cancelled) => Exit::Cancelled.code(),
        Ok(JobState::TimedOut) => Exit::TimedOut.code(),
        _ if task_code != 0 => task_code,
        _ => Exit::Failed.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: JobState, code: i32, signal: i32) -> u8 {
        let exit = Some(v1::ExitStatus { code, signal });
        code_of(&v1::Job { state: state.into(), exit, ..Default::default() })
    }

    #[test]
    fn the_code_is_that_of_the_task_or_of_how_it_ended() {
        assert_eq!(ended(JobState::Completed, 0, 0), 0);
        assert_eq!(ended(JobState::Failed, 7, 0), 7);
        assert_eq!(ended(JobState::Failed, 0, 9), 137);
        assert_eq!(ended(JobState::Failed, 0, 0), 1);
        assert_eq!(ended(JobState::Cancelled, 0, 15), 10);
        assert_eq!(ended(JobState::TimedOut, 0, 15), 11);
    }
}
