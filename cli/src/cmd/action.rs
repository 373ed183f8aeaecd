//! `gotgan cancel`, `hold`, `release` and `requeue`: the same for each job named, all tried before it fails.

use clap::Args;
use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    client::{Api, Client},
    context::Context,
    error::{Error, Exit},
    refer::JobRef,
    view::word,
};

/// The jobs, and why.
#[derive(Args, Debug)]
struct Target {
    /// Jobs, or tasks of arrays, as in 42_7 or 42_[5-9]
    #[arg(required = true, value_name = "JOB", value_parser = JobRef::parse)]
    jobs: Vec<JobRef>,
    /// Shown in the jobs' detail
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    reason: String,
}

/// End jobs for good
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  gotgan cancel 42 43 --reason 'wrong data'\n  gotgan cancel '50_[5-9]'"
)]
pub struct Cancel {
    #[command(flatten)]
    target: Target,
}

/// Keep pending jobs from starting
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  gotgan hold 42 --reason 'data is late'")]
pub struct Hold {
    #[command(flatten)]
    target: Target,
}

/// Let held jobs wait for resources again
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  gotgan release 42")]
pub struct Release {
    #[command(flatten)]
    target: Target,
}

/// Stop running jobs and put them back into the queue
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  gotgan requeue 42 --reason 'node1 goes to repair'")]
pub struct Requeue {
    #[command(flatten)]
    target: Target,
}

/// What happened to one job.
#[derive(Serialize)]
struct Done {
    job_id: u64,
    /// Tasks of the array, if not all were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<String>,
    changed: bool,
    state: String,
}

#[derive(Serialize)]
struct AllDone {
    action: &'static str,
    jobs: Vec<Done>,
}

type Answer = Result<tonic::Response<v1::JobActionResponse>, tonic::Status>;

impl Cancel {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let act = async |api: Api, request| api.jobs().cancel(request).await;
        self.target.each("cancel", act, context).await
    }
}

impl Hold {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let act = async |api: Api, request| api.jobs().hold(request).await;
        self.target.each("hold", act, context).await
    }
}

impl Release {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let act = async |api: Api, request| api.jobs().release(request).await;
        self.target.each("release", act, context).await
    }
}

impl Requeue {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let act = async |api: Api, request| api.jobs().requeue(request).await;
        self.target.each("requeue", act, context).await
    }
}

impl Target {
    async fn each(
        self,
        action: &'static str,
        act: impl AsyncFn(Api, v1::JobActionRequest) -> Answer,
        context: &Context,
    ) -> Result<u8, Error> {
        let (client, key) = (context.client()?, context.idempotency_key()?);
        let (mut done, mut failed) = (Vec::new(), None);
        for (place, job) in self.jobs.iter().enumerate() {
            // A key counts for one request, so each job gets its own, derived from the one given.
            let idempotency_key = match job.tasks.as_str() {
                "" => format!("{key}/{}", job.job_id),
                _ => format!("{key}/{}/{place}", job.job_id),
            };
            let request = v1::JobActionRequest {
                idempotency_key,
                job_id: job.job_id,
                reason: self.reason.clone(),
                tasks: job.tasks.clone(),
            };
            match send(&client, &act, request).await {
                Ok(answer) => done.push(view(job, &answer)),
                // The rest is still tried, unless nobody answers.
                Err(problem @ Error::Unreachable { .. }) => return Err(problem),
                Err(problem) => {
                    let several = self.jobs.len() > 1;
                    if several {
                        context.output.aside(&format!("job {job}:"));
                    }
                    failed = Some(problem.report(context.output.json));
                }
            }
        }
        show(AllDone { action, jobs: done }, context)?;
        Ok(failed.unwrap_or(Exit::Ok.code()))
    }
}

async fn send(
    client: &Client,
    act: &impl AsyncFn(Api, v1::JobActionRequest) -> Answer,
    request: v1::JobActionRequest,
) -> Result<v1::JobActionResponse, Error> {
    client.call(async |api| act(api, request.clone()).await).await
}

fn view(job: &JobRef, answer: &v1::JobActionResponse) -> Done {
    let tasks = (!job.tasks.is_empty()).then(|| job.tasks.clone());
    Done {
        job_id: job.job_id,
        tasks,
        changed: answer.changed,
        state: word::job_state(answer.state),
    }
}

fn show(all: AllDone, context: &Context) -> Result<(), Error> {
    if context.output.json {
        return context.output.document("gotgan.action/1", &all);
    }
    for done in &all.jobs {
        let note = if done.changed { "" } else { " (was so already)" };
        let tasks = done.tasks.clone().unwrap_or_default();
        let job = JobRef { job_id: done.job_id, tasks };
        context.output.line(&format!("job {job} {}{note}", done.state))?;
    }
    Ok(())
}
