//! The Jobs service.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use gotgan_core::explain;
use gotgan_core::ids::{AttemptId, JobId, NodeName, ProjectPath, UserName};
use gotgan_core::job::JobState;
use gotgan_core::lifecycle::{self, Action, StepRequest};
use gotgan_proto::v1;
use gotgan_proto::v1::jobs_server::Jobs;
use gotgan_store::{JobDetail, JobFilter, TaskFilter};
use tonic::{Code, Request, Response, Status};

use super::idempotent::{keyed, once};
use super::page::{fitting, page_of};
use super::{Services, convert, error, jobs_streams, order, principal, submit};
use crate::auth::{Principal, Role};
use crate::flow::telemetry::LiveUse;
use crate::planted;

/// Most jobs of one SubmitMany, most ids of one List or Watch.
const MANY_MAX: usize = 1_000;

/// Answers for jobs.
#[derive(Debug, Clone)]
pub struct JobsService(pub Arc<Services>);

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Jobs for JobsService {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let who = principal(&request)?;
        if let Some(forgotten) = planted::submission() {
            return Ok(Response::new(forgotten));
        }
        let all = vec![request.into_inner()];
        let answers = submit::submit(&self.0, &who, all, &|_| String::new()).await?;
        answers.into_iter().next().map(Response::new).ok_or_else(|| Status::internal("no answer"))
    }

    async fn submit_many(
        &self,
        request: Request<v1::SubmitManyRequest>,
    ) -> Result<Response<v1::SubmitManyResponse>, Status> {
        let who = principal(&request)?;
        let jobs = request.into_inner().jobs;
        if jobs.is_empty() || jobs.len() > MANY_MAX {
            let message = format!("{} jobs were sent; send 1 to {MANY_MAX}", jobs.len());
            return Err(error::invalid("jobs", "OUT_OF_RANGE", message));
        }
        let jobs = submit::submit(&self.0, &who, jobs, &|at| format!("jobs[{at}].")).await?;
        Ok(Response::new(v1::SubmitManyResponse { jobs }))
    }

    async fn get(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let who = principal(&request)?;
        let detail = self.visible_job(&who, request.into_inner().job_id).await?;
        let simulated = self.simulated_nodes(std::slice::from_ref(&detail)).await?;
        let mut job = convert::job(&detail, &|node| simulated.contains(node));
        self.enter_uses(&detail, &mut job);
        self.enter_starts(std::slice::from_mut(&mut job)).await?;
        Ok(Response::new(job))
    }

    async fn list(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let (page, starts) = (page_of(request.page.clone())?, request.starts);
        let filter = filter_of(&who, request)?;
        let found = self.0.store.jobs(&filter, &page).await.map_err(|e| error::store(&e))?;
        let simulated = self.simulated_nodes(&found).await?;
        let jobs = found.iter().map(|it| convert::job_brief(it, &|node| simulated.contains(node)));
        let mut jobs: Vec<v1::Job> = jobs.collect();
        if starts {
            self.enter_starts(&mut jobs).await?;
        }
        let (mut jobs, next_token) = fitting(jobs, page.size, |job| job.job_id.to_string());
        planted::jobs(&mut jobs);
        Ok(Response::new(v1::ListJobsResponse { jobs, next_token }))
    }

    type WatchStream = Answers<v1::JobEvent>;

    async fn watch(
        &self,
        request: Request<v1::WatchJobsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        if request.job_ids.len() > MANY_MAX {
            let message = format!("at most {MANY_MAX} jobs can be watched by id");
            return Err(error::invalid("job_ids", "TOO_LONG", message));
        }
        let stream = jobs_streams::watch(Arc::clone(&self.0), who, request).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    type LogsStream = Answers<v1::LogChunk>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        self.visible_job(&who, request.job_id).await?;
        let stream = jobs_streams::logs(Arc::clone(&self.0), who, request);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel(
        &self,
        request: Request<v1::JobActionRequest>,
    ) -> Result<Response<v1::JobActionResponse>, Status> {
        self.act(request, Action::Cancel).await
    }

    async fn hold(
        &self,
        request: Request<v1::JobActionRequest>,
    ) -> Result<Response<v1::JobActionResponse>, Status> {
        self.act(request, Action::Hold).await
    }

    async fn release(
        &self,
        request: Request<v1::JobActionRequest>,
    ) -> Result<Response<v1::JobActionResponse>, Status> {
        self.act(request, Action::Release).await
    }

    async fn requeue(
        &self,
        request: Request<v1::JobActionRequest>,
    ) -> Result<Response<v1::JobActionResponse>, Status> {
        self.act(request, Action::Requeue).await
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::Explanation>, Status> {
        let who = principal(&request)?;
        let id = request.into_inner().job_id;
        let detail = self.visible_job(&who, id).await?;
        let explained = self.explained(vec![JobId(id)]).await?.into_iter().next();
        let explanation = explained.map_or_else(
            || ended_explanation(&detail),
            |found| v1::Explanation { start: found.start(), ..explanation(id, found.explanation) },
        );
        Ok(Response::new(explanation))
    }

    async fn explain_order(
        &self,
        request: Request<v1::ExplainOrderRequest>,
    ) -> Result<Response<v1::OrderExplanation>, Status> {
        let who = principal(&request)?;
        order::explain(&self.0, &who, &request.into_inner()).await.map(Response::new)
    }

    async fn start_step(
        &self,
        request: Request<v1::StartStepRequest>,
    ) -> Result<Response<v1::StartStepResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let attempt = AttemptId { job: JobId(request.job_id), number: request.attempt };
        if who.attempt().is_some_and(|own| own != attempt) {
            return Err(error::no_such_job(request.job_id));
        }
        let detail = self.visible_job(&who, request.job_id).await?;
        let runs_sites = matches!(who.role, Role::Admin | Role::Operator);
        if detail.job.owner != who.subject && !runs_sites {
            let message = format!(
                "job {} is {}'s; only its owner starts steps in it",
                detail.job.id, detail.job.owner
            );
            return Err(error::status(Code::PermissionDenied, "NOT_THE_OWNER", message));
        }
        let keyed = keyed(&who, &request.idempotency_key, "StartStep", &request, "")?;
        let step = step_request(attempt, request);
        let started = once(&self.0, keyed, move |round| {
            let (step, tasks) = lifecycle::start_step(&mut round.draft, step)
                .map_err(|refusal| error::step(&refusal))?;
            let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
            Ok(v1::StartStepResponse { step, tasks })
        });
        Ok(Response::new(started.await?))
    }
}

impl JobsService {
    pub(super) async fn visible_job(&self, who: &Principal, id: u64) -> Result<JobDetail, Status> {
        jobs_streams::visible_job(&self.0, who, id).await
    }

    /// What the GPUs of attempts that have not ended did so far, by the beats of their nodes.
    fn enter_uses(&self, detail: &JobDetail, job: &mut v1::Job) {
        for (shown, attempt) in job.attempts.iter_mut().zip(&detail.attempts) {
            if attempt.ended.is_none() {
                let LiveUse { measured, idle_ms } = self.0.telemetry.use_of(attempt);
                (shown.measured, shown.idle_ms) = (measured.map(convert::measured), idle_ms);
            }
        }
    }

    /// Which nodes of these jobs' attempts are simulated. For jobs that have run nowhere nobody is asked.
    async fn simulated_nodes(&self, jobs: &[JobDetail]) -> Result<BTreeSet<NodeName>, Status> {
        let attempts = jobs.iter().flat_map(|job| &job.attempts);
        let places = attempts.flat_map(|attempt| &attempt.placement.nodes);
        let mut nodes: BTreeSet<NodeName> = places.map(|place| place.node.clone()).collect();
        if nodes.is_empty() {
            return Ok(nodes);
        }
        let look = self.0.writer.read(move |world| {
            let is_simulated = |node: &NodeName| {
                world.nodes.get(node).is_some_and(|known| known.inventory.simulated)
            };
            nodes.retain(is_simulated);
            nodes
        });
        look.await.map_err(|e| error::flow(&e))
    }
}

fn step_request(attempt: AttemptId, request: v1::StartStepRequest) -> StepRequest {
    StepRequest {
        attempt,
        argv: request.argv,
        nodes: request.nodes,
        tasks: request.tasks,
        tasks_per_node: request.tasks_per_node,
        gpus_per_task: request.gpus_per_task,
        environment: request.environment.into_iter().collect(),
        working_directory: request.working_directory,
        name: request.name,
    }
}

fn filter_of(who: &Principal, request: v1::ListJobsRequest) -> Result<JobFilter, Status> {
    let states: Vec<JobState> = request.states().filter_map(convert::job_state_from).collect();
    let project = match request.project.as_str() {
        "" => None,
        path => Some(ProjectPath::new(path).map_err(|bad| error::bad_name("project", &bad))?),
    };
    let owner = match request.owner.as_str() {
        "" => None,
        name => Some(UserName::new(name).map_err(|bad| error::bad_name("owner", &bad))?),
    };
    if request.job_ids.len() > MANY_MAX {
        let message = format!("at most {MANY_MAX} ids");
        return Err(error::invalid("job_ids", "TOO_LONG", message));
    }
    Ok(JobFilter {
        states,
        within: scope_of(who)?,
        project,
        owner,
        name: Some(request.name).filter(|name| !name.is_empty()),
        tasks: match (request.array_job_id, request.tasks || !request.job_ids.is_empty()) {
            (0, true) => TaskFilter::Beside,
            (0, false) => TaskFilter::Without,
            (array, _) => TaskFilter::Of(JobId(array)),
        },
        ids: request.job_ids.into_iter().map(JobId).collect(),
    })
}

/// Paths the caller is confined to; empty: none.
pub(super) fn scope_of(who: &Principal) -> Result<Vec<ProjectPath>, Status> {
    match who.project_scope() {
        None => Ok(Vec::new()),
        // An empty list would read as "everything" further down.
        Some([]) => Err(error::foreign_project("of anybody")),
        Some(projects) => Ok(projects.to_vec()),
    }
}

fn ended_explanation(detail: &JobDetail) -> v1::Explanation {
    let status = &detail.job.status;
    let mut summary = format!("job {} has {}", detail.job.id, status.state.word());
    if !status.detail.is_empty() {
        summary.push_str(": ");
        summary.push_str(&status.detail);
    }
    v1::Explanation {
        job_id: detail.job.id.0,
        state: convert::job_state(status.state).into(),
        summary,
        ..v1::Explanation::default()
    }
}

fn explanation(id: u64, found: explain::Explanation) -> v1::Explanation {
    planted::explanation(v1::Explanation {
        job_id: id,
        state: convert::job_state(found.state).into(),
        summary: found.summary,
        blockers: found.blockers.iter().map(convert::blocker).collect(),
        planned_us: found.planned.map_or(0, |at| at.0),
        jobs_ahead: found.jobs_ahead,
        start: None,
    })
}
