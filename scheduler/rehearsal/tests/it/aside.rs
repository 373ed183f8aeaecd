//! What a worker says cannot take the server down: a panic while it is drafted is counted, and what it was about is laid aside.
//! And what plays found and is easier said by itself.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{AttemptId, JobId, NodeName, UserName};
use gotgan_core::job::JobState;
use gotgan_core::node::Admin;
use gotgan_core::policy::Policy;
use gotgan_core::world::World;
use gotgan_proto::v1::job_spec::Work;
use gotgan_proto::v1::jobs_server::Jobs;
use gotgan_proto::v1::quota_server::Quota;
use gotgan_proto::v1::worker_message::Message as Said;
use gotgan_proto::v1::{self, JobSpec, WorkerMessage};
use gotgan_rehearsal::node::{CLASS, Journal};
use gotgan_scheduler::api::{JobsService, QuotaService, Services, WorkersService};
use gotgan_scheduler::assembly::{Assembly, Ground};
use gotgan_scheduler::auth::{Authenticator, Principal, PrincipalKind, Role};
use gotgan_scheduler::clock;
use gotgan_scheduler::config::Timing;
use gotgan_scheduler::flow::quarantine::Origin;
use gotgan_scheduler::loops::leadership::{self, Terms};
use gotgan_scheduler::metrics::Metrics;
use gotgan_store::memory::Memory;
use tokio::runtime::Handle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Request;

const NODE: &str = "n0";

async fn leader() -> Arc<Services> {
    let store = Memory::new().store();
    let taken = store.take_leadership("one", "one", clock::now(), 60_000).await.unwrap();
    let ground = Ground {
        store,
        epoch: taken.epoch,
        policy: Arc::new(Policy::default()),
        timing: Timing { quorum_grace_ms: 0, ..Timing::default() },
        authenticator: Authenticator::new("secret".to_owned()),
        identity: None,
        address: String::new(),
        metrics: Metrics::new(),
    };
    let Assembly { services, writer, planner, .. } = ground.assemble().await.unwrap();
    let ended = CancellationToken::new();
    planner.spawn(services.writer.clone(), Handle::current(), ended).unwrap();
    tokio::spawn(writer.run());
    services
}

fn by_admin<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let kind = PrincipalKind::Token { id: "1".into() };
    let (subject, role) = (UserName::new("admin").unwrap(), Role::Admin);
    let principal = Principal { subject, role, projects: Vec::new(), expires: None, kind };
    request.extensions_mut().insert(principal);
    request
}

/// Waits until something is to be found in the world.
async fn until<T: Send + 'static>(
    services: &Services,
    look: impl Fn(&World) -> Option<T> + Send + Clone + 'static,
) -> T {
    loop {
        if let Some(found) = services.writer.read(look.clone()).await.unwrap() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn worker(attempt: Option<AttemptId>) -> Origin {
    Origin::Worker { node: NodeName::new(NODE).unwrap(), attempt }
}

async fn open_to_all(services: &Arc<Services>) {
    let file = v1::QuotaFile { name: "t.toml".into(), text: "[node.centre]\n".into() };
    let proposal = Some(v1::QuotaProposal { files: vec![file], ..Default::default() });
    let apply =
        v1::ApplyQuotaRequest { idempotency_key: "quota".into(), proposal, ..Default::default() };
    QuotaService(Arc::clone(services)).apply(by_admin(apply)).await.unwrap();
}

fn job_of(gpus: u32, key: &str) -> v1::SubmitRequest {
    let command = v1::Command { argv: vec!["part".into()], layout: v1::TaskLayout::PerNode.into() };
    let resources = v1::Resources {
        nodes: 1,
        gpus_per_node: gpus,
        gpu_class: CLASS.into(),
        cpu_milli_per_node: 10,
        memory_mib_per_node: 16,
        ..Default::default()
    };
    let spec = JobSpec {
        name: "job".into(),
        project: "centre".into(),
        work: Some(Work::Command(command)),
        resources: Some(resources),
        time_limit_s: 60,
        ..Default::default()
    };
    v1::SubmitRequest { idempotency_key: key.into(), spec: Some(spec), ..Default::default() }
}

async fn job_that_starts(services: &Arc<Services>) -> AttemptId {
    open_to_all(services).await;
    JobsService(Arc::clone(services)).submit(by_admin(job_of(1, "job"))).await.unwrap();
    until(services, |world| world.attempts.keys().next().copied()).await
}

/// The node comes, with so many GPUs.
async fn come(services: &Arc<Services>, gpus: u32) -> impl Sized {
    let (say, heard) = tokio::sync::mpsc::channel(8);
    let register = Journal::new(NODE.to_owned(), gpus).register();
    say.try_send(Ok(WorkerMessage { message: Some(Said::Register(register)) })).unwrap();
    let workers = WorkersService::new(Arc::clone(services));
    let stream = ReceiverStream::new(heard);
    let (session, orders) = workers.open(NodeName::new(NODE).unwrap(), stream).await.unwrap();
    tokio::spawn(session);
    (say, orders)
}

#[tokio::test]
async fn what_is_stored_is_answered_again_also_where_it_would_be_refused_by_now() {
    let services = leader().await;
    open_to_all(&services).await;
    let jobs = JobsService(Arc::clone(&services));
    let _two = come(&services, 2).await;
    let first = jobs.submit(by_admin(job_of(2, "one"))).await.unwrap().into_inner();
    assert!(!first.repeated);
    let _one = come(&services, 1).await;
    let again = jobs.submit(by_admin(job_of(2, "one"))).await.unwrap().into_inner();
    assert_eq!((again.job_id, again.repeated), (first.job_id, true));
    let refused = jobs.submit(by_admin(job_of(2, "other"))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    let reused = jobs.submit(by_admin(job_of(3, "one"))).await.unwrap_err();
    assert_eq!(reused.code(), tonic::Code::InvalidArgument, "{reused}");
}

#[tokio::test]
async fn an_attempt_of_which_a_worker_says_what_makes_the_scheduler_fail_is_laid_aside() {
    let services = leader().await;
    let _line = come(&services, 2).await;
    let attempt = job_that_starts(&services).await;
    let said = || services.writer.hear(worker(Some(attempt)), |_| panic!("this cannot be"));
    let answer: Result<(), _> = said().await;
    assert!(answer.is_err());
    // Twice: what is laid aside is not listened to.
    assert!(said().await.is_err());
    let reason = until(&services, move |world| {
        let job = world.jobs.get(&attempt.job)?;
        let is_aside = world.attempts.is_empty() && job.status.state == JobState::Held;
        match &world.nodes.get(NODE)?.admin {
            Admin::Drain { reason, .. } if is_aside => Some(reason.clone()),
            Admin::Drain { .. } | Admin::Active => None,
        }
    });
    let reason = reason.await;
    assert!(reason.contains("this cannot be"), "{reason}");
    assert_eq!(services.metrics.assertions.get(), 1);
    assert!(!services.dispatcher.is_connected(&NodeName::new(NODE).unwrap()));
    // And it goes on.
    let found = services.store.job(JobId(1)).await.unwrap().unwrap();
    assert_eq!((found.job.status.state, found.attempts.len()), (JobState::Held, 1));
}

#[tokio::test]
async fn a_look_that_panics_has_no_answer_and_ends_nothing() {
    let services = leader().await;
    let looked: Result<(), _> = services.writer.read(|_| panic!("this cannot be")).await;
    assert!(looked.is_err());
    assert_eq!(services.metrics.assertions.get(), 1);
    assert_eq!(services.writer.read(|world| world.jobs.len()).await.unwrap(), 0);
}

#[test]
fn a_standby_waits_until_it_saw_the_lease_not_renewed_for_its_length_whatever_its_clock_shows() {
    const LEASE_MS: i64 = 1_000;
    // By this clock every lease of the leader ran out long ago.
    clock::simulated::begin(UnixMicros(1_800_000_000_000_000));
    let store = Memory::new().store();
    let soon = || Context::from_waker(Waker::noop());
    let mut first = store.take_leadership("one", "one", UnixMicros(1), LEASE_MS);
    let Poll::Ready(Ok(led)) = first.as_mut().poll(&mut soon()) else { panic!("it is in memory") };
    drop(first);
    let (terms, stop) = (Terms { lease_ms: LEASE_MS, watches: true }, CancellationToken::new());
    let mut taking = pin!(leadership::take(&store, ("two", "two"), terms, &stop, |_| {}));
    let mut waited_ms = 0;
    let taken = loop {
        if let Poll::Ready(taken) = taking.as_mut().poll(&mut soon()) {
            break taken;
        }
        if waited_ms == 600 {
            let mut renewed = store.renew_leadership(led.epoch, UnixMicros(2), LEASE_MS);
            assert!(matches!(renewed.as_mut().poll(&mut soon()), Poll::Ready(Ok(()))));
        }
        waited_ms += 100;
        clock::simulated::advance(Duration::from_millis(100));
    };
    clock::simulated::end();
    assert_eq!(taken.unwrap().unwrap().epoch.0, led.epoch.0 + 1);
    assert!((1_600..2_200).contains(&waited_ms), "after {waited_ms} ms");
}
