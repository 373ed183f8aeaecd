//! `gotgan run` inside a job: a step over the allocation, its output, and the code of its worst task.

use std::time::Duration;

use gotgan_proto::v1;

use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::{self, Show},
    options::{self, JobOptions},
    units,
    view::job::{ExitView, is_terminal},
    view::step::StepView,
    watch,
};

/// Pauses between looks at the step after its output has ended; reports need a moment to be committed.
const LOOK_FIRST: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(2);

/// The job this process runs in.
#[derive(Debug)]
pub struct Inside {
    job_id: u64,
    attempt: u32,
}

impl Inside {
    /// The job of the environment; none outside a job, or without the job's token.
    ///
    /// # Errors
    /// When the variables are there but malformed.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        let lookup = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        let (Some(job_id), Some(_)) = (lookup("GOTGAN_JOB_ID"), lookup("GOTGAN_TOKEN")) else {
            return Ok(None);
        };
        let wrong = |message: String| {
            Error::invalid(message, "unset GOTGAN_JOB_ID to submit a job of its own")
        };
        let job_id =
            units::parse_job_id(&job_id).map_err(|text| wrong(format!("GOTGAN_JOB_ID: {text}")))?;
        let attempt = lookup("GOTGAN_ATTEMPT").and_then(|text| text.parse().ok());
        let attempt = attempt.ok_or_else(|| wrong("GOTGAN_ATTEMPT is not a number".to_owned()))?;
        Ok(Some(Self { job_id, attempt }))
    }

    /// Starts the step, follows it, and returns the code of its worst task.
    ///
    /// # Errors
    /// When the scheduler refuses the step or is not reached.
    pub async fn run(
        self,
        options: JobOptions,
        argv: Vec<String>,
        label: bool,
        context: &Context,
    ) -> Result<u8, Error> {
        warn_of_unused(&options, context);
        let client = context.client()?;
        let request = self.request(options, argv, context)?;
        let started = client.call(async |api| api.jobs().start_step(request.clone()).await).await?;
        let ranks: Vec<u32> = (0..started.tasks).collect();
        let sources = follow::both_streams(self.job_id, self.attempt, started.step, &ranks);
        let show = Show { offset: 0, follow: true, label };
        if let Err(problem) = follow::print(&client, &sources, show, &context.output).await {
            match problem {
                // Output that cannot be had must not hide how the step ended.
                Error::Refused(_) => {
                    context.output.warn(&format!("the output is incomplete: {problem}"))
                }
                other => return Err(other),
            }
        }
        let step = self.wait_for_end(&client, started.step).await?;
        Ok(judge(&step, context))
    }

    fn request(
        &self,
        options: JobOptions,
        argv: Vec<String>,
        context: &Context,
    ) -> Result<v1::StartStepRequest, Error> {
        if options.nodes.is_some_and(|nodes| nodes.most.is_some()) {
            let message = "a step runs on a number of nodes that is known; write one number";
            return Err(Error::invalid(format!("--nodes: {message}"), "or leave it out for all"));
        }
        let gpus_per_task = options.gpus_per_task.as_ref().map_or(0, |amount| amount.count);
        Ok(v1::StartStepRequest {
            idempotency_key: context.idempotency_key()?,
            job_id: self.job_id,
            attempt: self.attempt,
            argv,
            nodes: options.nodes.map_or(0, |nodes| nodes.least),
            tasks: options.tasks.unwrap_or_default(),
            tasks_per_node: options.tasks_per_node.unwrap_or_default(),
            gpus_per_task,
            environment: options.env.into_iter().collect(),
            working_directory: options::absolute_directory(options.chdir)?,
            name: options.name.unwrap_or_default(),
        })
    }

    /// Looks until every task of the step has ended, or the attempt has.
    async fn wait_for_end(&self, client: &Client, number: u32) -> Result<StepView, Error> {
        let mut pause = LOOK_FIRST;
        loop {
            let job = watch::get_job(client, self.job_id).await?;
            let attempt = job.attempts.iter().find(|attempt| attempt.number == self.attempt);
            let attempt =
                attempt.ok_or_else(|| Error::Unexpected("the attempt is gone".to_owned()))?;
            let over =
                attempt.ended_us != 0 || is_terminal(job.state) || job.attempt > self.attempt;
            let step = attempt.steps.iter().find(|step| step.number == number);
            match step.map(StepView::of) {
                Some(step) if over || step.tasks.iter().all(|task| task.state == "ended") => {
                    return Ok(step);
                }
                None if over => return Err(Error::Unexpected(format!("step {number} is gone"))),
                _ => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }
}

/// Names the tasks that failed and returns the worst code.
fn judge(step: &StepView, context: &Context) -> u8 {
    let mut worst = Exit::Ok.code();
    for task in step.tasks.iter().filter(|task| task.exit.is_none() || task.failed()) {
        let detail =
            if task.detail.is_empty() { String::new() } else { format!(" ({})", task.detail) };
        let line = format!(
            "gotgan: step {}: rank {} on {}: {}{detail}",
            step.step,
            task.rank,
            task.node,
            task.outcome()
        );
        context.output.aside(&line);
        let code = task.exit.as_ref().map_or(0, ExitView::shell_code);
        worst = worst.max(code).max(Exit::Failed.code());
    }
    worst
}

/// Options that only a job of its own can have are named, as they have no effect here.
fn warn_of_unused(options: &JobOptions, context: &Context) {
    let used = JobOptions {
        nodes: options.nodes,
        tasks: options.tasks,
        tasks_per_node: options.tasks_per_node,
        gpus_per_task: options.gpus_per_task.clone(),
        env: options.env.clone(),
        chdir: options.chdir.clone(),
        name: options.name.clone(),
        ..JobOptions::default()
    };
    if used != *options {
        context.output.warn(
            "inside a job only --nodes, --tasks, --tasks-per-node, --gpus-per-task, --name, --chdir, --env and --label have an effect",
        );
    }
}
