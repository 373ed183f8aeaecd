//! People who want things: they ask whoever seems to lead, ask again under the same key when nobody answers, and keep what
//! they were told.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::ids::{JobId, UserName};
use gotgan_proto::v1::cluster_server::Cluster;
use gotgan_proto::v1::job_spec::Work;
use gotgan_proto::v1::jobs_server::Jobs;
use gotgan_proto::v1::nodes_server::Nodes;
use gotgan_proto::v1::quota_server::Quota;
use gotgan_proto::v1::{self, JobSpec};
use gotgan_scheduler::api::{ClusterService, JobsService, NodesService, QuotaService, Services};
use gotgan_scheduler::auth::{Principal, PrincipalKind, Role};
use gotgan_scheduler::clock::{self, simulated};
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};

use crate::executor;
use crate::judge::{self, LIMITED};
use crate::node::CLASS;
use crate::stage::Stage;
use crate::{draw, weather};

/// An answer that has not come in this time is asked for again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nobody submits while so many jobs are on their way.
const LIVING_MAX: usize = 20;
/// Jobs that somebody still thinks of.
const RECENT: usize = 12;
/// What pays; fewer by the one that may have little.
const PROJECTS: [&str; 5] =
    ["centre/alpha", "centre/alpha", "centre/gamma", "centre/gamma", LIMITED];

/// One who wants things.
#[derive(Debug)]
pub struct Person {
    stage: Rc<Stage>,
    number: u64,
    count: u64,
    recent: Vec<u64>,
    submitted: Vec<v1::SubmitRequest>,
}

impl Person {
    /// Somebody; the first also runs the site.
    #[must_use]
    pub fn new(stage: &Rc<Stage>, number: u64) -> Self {
        let (recent, submitted) = Default::default();
        Person { stage: Rc::clone(stage), number, count: 0, recent, submitted }
    }

    /// Wants things until all is calm.
    pub async fn live(mut self) {
        if self.number == 0 {
            self.limit(draw::between(1, self.stage.gpus)).await;
            self.stage.open.set(true);
        }
        while !self.stage.open.get() {
            clock::sleep(Duration::from_millis(200)).await;
        }
        while !self.stage.calm.get() {
            clock::sleep(draw::millis(5, 1_200)).await;
            self.want().await;
        }
        if self.number == 0 {
            self.settle().await;
        }
    }

    async fn want(&mut self) {
        let enough = judge::with(|judge| judge.living()) >= LIVING_MAX;
        match draw::below(100) {
            0..40 if !enough => self.submit(false).await,
            40..48 if !enough => self.submit_many().await,
            48..55 if !enough => self.submit(true).await,
            0..55 => {}
            55..63 => self.act("cancel").await,
            63..67 => self.act("hold").await,
            67..73 => self.act("release").await,
            73..77 => self.act("requeue").await,
            77..83 => self.again().await,
            83..89 => self.look().await,
            89..92 => self.ask_why().await,
            92..95 if self.number == 0 => self.limit(draw::between(1, self.stage.gpus)).await,
            95..98 if self.number == 0 => self.drain().await,
            _ => {}
        }
    }

    fn key(&mut self) -> String {
        self.count += 1;
        format!("p{}-{}", self.number, self.count)
    }

    fn request(&mut self, is_array: bool) -> v1::SubmitRequest {
        let key = self.key();
        let spec = self.spec(&key, is_array);
        judge::with(|judge| judge.asked(&key));
        v1::SubmitRequest { idempotency_key: key, spec: Some(spec), dry_run: false }
    }

    fn spec(&mut self, key: &str, is_array: bool) -> JobSpec {
        let is_gang = !is_array && draw::one_in(5);
        let is_share = !is_gang && draw::one_in(5);
        let per_node = (self.stage.gpus / self.stage.nodes.len() as u64).clamp(1, 4);
        let lasts_ms =
            if draw::one_in(8) { draw::between(1_000, 40_000) } else { draw::below(3_000) };
        let code = u64::from(draw::one_in(10));
        let argv = vec!["part".to_owned(), lasts_ms.to_string(), code.to_string()];
        let mut resources = v1::Resources {
            cpu_milli_per_node: 10,
            memory_mib_per_node: 16,
            nodes: 1,
            gpu_class: CLASS.into(),
            ..Default::default()
        };
        match (is_gang, is_share) {
            (true, _) => {
                resources.nodes =
                    u32::try_from(draw::between(2, self.stage.nodes.len() as u64)).unwrap_or(2);
                resources.gpus_per_node = 1;
            }
            (false, true) => resources.gpu_share_milli = 500,
            (false, false) => {
                resources.gpus_per_node = u32::try_from(draw::between(1, per_node)).unwrap_or(1);
            }
        }
        let array = if is_array { format!("0-{}", draw::between(1, 5)) } else { String::new() };
        let mut dependencies = Vec::new();
        if !is_array
            && draw::one_in(8)
            && let Some(job_id) = draw::of(&self.recent)
        {
            let kind = v1::DependencyKind::AfterAny.into();
            dependencies.push(v1::Dependency { kind, job_id: *job_id, ..Default::default() });
        }
        JobSpec {
            name: key.to_owned(),
            project: (*draw::of(&PROJECTS).unwrap_or(&LIMITED)).to_owned(),
            work: Some(Work::Command(v1::Command { argv, layout: v1::TaskLayout::PerNode.into() })),
            resources: Some(resources),
            time_limit_s: 60,
            grace_s: Some(1),
            max_retries: u32::try_from(draw::below(2)).unwrap_or(0),
            hold: draw::one_in(15),
            array,
            dependencies,
            ..Default::default()
        }
    }

    async fn submit(&mut self, is_array: bool) {
        let request = self.request(is_array);
        let asked = request.clone();
        let answer = self.ask(move |it| {
            let asked = asked.clone();
            async move { JobsService(it).submit(by_admin(asked)).await }
        });
        let answer = answer.await.map(|answer| answer.job_id);
        self.submitted(request, answer);
    }

    async fn submit_many(&mut self) {
        let jobs: Vec<_> = (0..draw::between(2, 4)).map(|_| self.request(false)).collect();
        let asked = v1::SubmitManyRequest { jobs: jobs.clone() };
        let answer = self.ask(move |it| {
            let asked = asked.clone();
            async move { JobsService(it).submit_many(by_admin(asked)).await }
        });
        let answer = answer.await;
        for (index, request) in jobs.into_iter().enumerate() {
            let told = match &answer {
                Ok(told) => Ok(told.jobs.get(index).map_or(0, |job| job.job_id)),
                Err(status) => Err(status.clone()),
            };
            self.submitted(request, told);
        }
    }

    fn submitted(&mut self, request: v1::SubmitRequest, answer: Result<u64, Status>) {
        let key = &request.idempotency_key;
        match answer {
            Ok(job) => {
                judge::with(|judge| judge.submitted(key, job));
                self.recent.push(job);
                self.submitted.push(request);
                self.recent.drain(..self.recent.len().saturating_sub(RECENT));
                self.submitted.drain(..self.submitted.len().saturating_sub(RECENT));
            }
            Err(status) => judge::with(|judge| judge.refused(key, status.message())),
        }
    }

    /// The same submission once more, as one does who is not sure.
    async fn again(&mut self) {
        let Some(request) = draw::of(&self.submitted).cloned() else { return };
        let asked = request.clone();
        let answer = self.ask(move |it| {
            let asked = asked.clone();
            async move { JobsService(it).submit(by_admin(asked)).await }
        });
        let answer = answer.await.map(|answer| answer.job_id);
        let key = &request.idempotency_key;
        match answer {
            Ok(job) => judge::with(|judge| judge.submitted(key, job)),
            Err(status) => {
                let text = format!("{key} once more was refused: {}", status.message());
                judge::with(|judge| judge.find(4, &[], text));
            }
        }
    }

    async fn act(&mut self, verb: &'static str) {
        let Some(&job_id) = draw::of(&self.recent) else { return };
        self.act_on(verb, job_id).await;
    }

    async fn act_on(&mut self, verb: &'static str, job_id: u64) {
        let idempotency_key = self.key();
        let asked = v1::JobActionRequest { idempotency_key, job_id, ..Default::default() };
        let answer = self.ask(move |it| {
            let (jobs, asked) = (JobsService(it), by_admin(asked.clone()));
            async move {
                match verb {
                    "cancel" => jobs.cancel(asked).await,
                    "hold" => jobs.hold(asked).await,
                    "release" => jobs.release(asked).await,
                    _ => jobs.requeue(asked).await,
                }
            }
        });
        // That it cannot be done is as good an answer as any.
        drop(answer.await);
    }

    /// Looks at all jobs, and at how many GPUs there are.
    async fn look(&mut self) {
        let asked = || v1::ListJobsRequest {
            page: Some(v1::PageRequest { size: 1_000, ..Default::default() }),
            ..Default::default()
        };
        let began = simulated::passed();
        let answer =
            self.ask(move |it| async move { JobsService(it).list(by_admin(asked())).await });
        if let Ok(answer) = answer.await {
            judge::with(|judge| judge.looked(began, &answer.jobs));
        }
        let asked = || by_admin(v1::StatusRequest::default());
        let answer = self.ask(move |it| async move { ClusterService(it).status(asked()).await });
        if let Ok(answer) = answer.await {
            judge::with(|judge| judge.counted(&answer.classes));
        }
    }

    /// 9. What is told of a planned start is what is planned.
    async fn ask_why(&self) {
        let Some(&job_id) = draw::of(&self.recent) else { return };
        let answer = self.ask(move |it| async move {
            let before = it.last_pass.get().count;
            let asked = by_admin(v1::ExplainRequest { job_id });
            let told = JobsService(Arc::clone(&it)).explain(asked).await?.into_inner();
            let pass = it.last_pass.get();
            let start = pass.report.planned.of(JobId(job_id)).filter(|_| pass.count == before);
            Ok(Response::new((told, start.map(|start| start.at.min(start.promised)))))
        });
        let Ok((told, Some(earliest))) = answer.await else { return };
        let planned = told.blockers.iter().filter(|it| it.kind() == v1::BlockerKind::Planned);
        for told_us in planned.filter_map(|it| it.subject.parse::<i64>().ok()) {
            if told_us < earliest.0 {
                let text =
                    format!("job {job_id} is promised for {told_us}, planned for {earliest:?}");
                judge::with(|judge| judge.find(9, &[job_id], text));
            }
        }
    }

    async fn limit(&mut self, gpus: u64) {
        let file = v1::QuotaFile { name: "tree.toml".into(), text: judge::tree(gpus) };
        let asked = v1::ApplyQuotaRequest {
            idempotency_key: self.key(),
            proposal: Some(v1::QuotaProposal { files: vec![file], ..Default::default() }),
            ..Default::default()
        };
        judge::with(|judge| judge.limits.push(gpus * 1000));
        let answer = self.ask(move |it| {
            let asked = asked.clone();
            async move { QuotaService(it).apply(by_admin(asked)).await }
        });
        match answer.await {
            Ok(_) => judge::with(|judge| judge.limits = vec![gpus * 1000]),
            Err(status) => {
                judge::with(|judge| judge.find(0, &[], format!("a quota was refused: {status}")));
            }
        }
    }

    async fn drain(&mut self) {
        let Some(name) = draw::of(&self.stage.nodes).cloned() else { return };
        if draw::one_in(2) {
            return self.resume(name).await;
        }
        let idempotency_key = self.key();
        let asked = v1::DrainRequest { idempotency_key, name, reason: "to look".into() };
        let answer = self.ask(move |it| {
            let asked = asked.clone();
            async move { NodesService(it).drain(by_admin(asked)).await }
        });
        drop(answer.await);
    }

    async fn resume(&mut self, name: String) {
        let asked = v1::ResumeRequest { idempotency_key: self.key(), name };
        let answer = self.ask(move |it| {
            let asked = asked.clone();
            async move { NodesService(it).resume(by_admin(asked)).await }
        });
        drop(answer.await);
    }

    /// So that everything can end: nodes take work, nothing is beyond a limit, and nothing is held.
    async fn settle(&mut self) {
        self.limit(self.stage.gpus).await;
        for name in self.stage.nodes.clone() {
            self.resume(name).await;
        }
        loop {
            for job in judge::with(|judge| judge.held()) {
                self.act_on("release", job).await;
            }
            clock::sleep(Duration::from_secs(5)).await;
        }
    }

    /// Asks one scheduler after the other until one answers for good. A refusal is only for good once nothing that was asked
    /// before can arrive any more: that might be taken in where this was refused.
    async fn ask<T: 'static, F>(&self, question: impl Fn(Arc<Services>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>> + 'static,
    {
        let mut unanswered = Vec::new();
        loop {
            if let Some(served) = self.stage.leader() {
                let (tell, mut told) = oneshot::channel();
                let lost = if draw::one_in(weather::now().lost) { draw::below(2) } else { 2 };
                let call = question(served.services);
                executor::spawn(served.group, async move {
                    weather::travel().await;
                    if lost == 0 {
                        return;
                    }
                    let answer = call.await;
                    weather::travel().await;
                    if lost > 1 {
                        // Whoever asked may have gone.
                        let _ = tell.send(answer);
                    }
                });
                match clock::within(PATIENCE, &mut told).await {
                    Some(Ok(Ok(answer))) => return Ok(answer.into_inner()),
                    Some(Ok(Err(status))) if !may_be_asked_again(status.code()) => {
                        if unanswered.is_empty() {
                            return Err(status);
                        }
                        for told in unanswered.drain(..) {
                            let _: Result<Result<Response<T>, Status>, _> = told.await;
                        }
                    }
                    Some(Ok(Err(_)) | Err(_)) => {}
                    None => unanswered.push(told),
                }
            }
            clock::sleep(draw::millis(20, 400)).await;
        }
    }
}

fn by_admin<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(subject) = UserName::new("admin") {
        let kind = PrincipalKind::Token { id: "1".into() };
        let (role, projects, expires) = (Role::Admin, Vec::new(), None);
        request.extensions_mut().insert(Principal { subject, role, projects, expires, kind });
    }
    request
}

/// Whether a refusal says nothing about the request.
fn may_be_asked_again(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
    )
}
