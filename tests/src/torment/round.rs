//! One round: a fresh cluster is used and harmed, comes to rest, and is judged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gotgan_proto::v1::job_spec::Work;
use gotgan_proto::v1::{self, HealthState, Job, JobState, NodeAdmin};
use tonic::Status;

use super::check::{self, Violation};
use super::evidence::{self, Part};
use super::history::{History, Limit, Look};
use super::load::{Client, Desk};
use super::plan::GPUS;
use super::plan::{self, Fault, Shape};
use super::stage::{COME_BACK, Stage};
use super::{Options, promise, quota, watch};
use crate::api::{Api, fresh_key, told};
use crate::virtual_worker::session::now_us;
use crate::{Database, audit, deadline};

/// All jobs end this long after the last fault, and after as often the time that they need if they use all they may.
const CALM_WITHIN: Duration = Duration::from_secs(60);
const CALM_TIMES: u32 = 3;
/// Nodes that are not well by themselves after this time are repaired; once more after as long.
const REPAIR_EVERY: Duration = Duration::from_secs(10);
/// Longer between two that said that they lead, and nobody did.
const LEADERLESS_US: i64 = 1_500_000;
/// Between two looks at whether all is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What no program ever says.
const NEVER_SAID: [&str; 3] =
    ["panicked at", "decides other than the same pass over everybody", "rebuilt from the store"];

/// A round that is over.
#[derive(Debug)]
pub struct Ended {
    /// What was seen.
    pub history: History,
    /// What befell whom.
    pub faults: Vec<Fault>,
    /// When the first could have.
    pub begun_us: i64,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// From the last fault until all jobs had ended.
    pub calm_after: Duration,
    /// Programs that ended by themselves.
    pub restarts: BTreeMap<String, u32>,
}

/// Plays a round.
pub async fn play(seed: u64, database: Database, shape: Shape, options: &Options) -> Ended {
    let directory =
        tempfile::Builder::new().prefix("gotgan-torment-").tempdir_in(&options.directory);
    let directory = directory.expect("a directory can be made");
    let planted = options.planted.as_deref();
    let mut stage = Stage::set(seed, database, shape, planted, directory.path()).await;
    let desk = desk(directory.path(), options);
    let faults = plan::draw(seed, &stage.shape(), options.round, options.per_minute);
    let (begun, begun_us) = (Instant::now(), now_us());
    let until = begun + options.round;
    let people: Vec<_> = (0..stage.shape().clients)
        .map(|number| Client::new(number, seed, stage.apis_of(number), Arc::clone(&desk)))
        .map(|client| tokio::spawn(client.live(until)))
        .collect();
    let watcher = tokio::spawn(watch::watch(stage.apis(), Arc::clone(&desk), until));
    harm(&mut stage, &faults, begun).await;
    let calm = Instant::now();
    // They end in time: whoever gets no answer gives up.
    for person in people {
        let _ = person.await;
    }
    let _ = watcher.await;
    come_to_rest(&mut stage, &desk, calm).await;
    let calm_after = calm.elapsed();
    watch_a_promise(&mut stage, &desk).await;
    look_back(&mut stage, &desk).await;
    let history = std::mem::take(&mut *desk.history());
    let violations = check::judge(&history);
    if !violations.is_empty() {
        keep_logs(&stage, &options.logs.join(seed.to_string()));
    }
    let restarts = stage.restarts().clone();
    Ended { history, faults, begun_us, violations, calm_after, restarts }
}

fn desk(directory: &Path, options: &Options) -> Arc<Desk> {
    let traces = directory.join("traces");
    fs::create_dir(&traces).expect("a directory can be made");
    // Jobs of any user leave theirs.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&traces, open).expect("it is ours");
    let first = quota::LIMITS[0] * 1000;
    let limit =
        Limit { project: quota::LIMITED.into(), gpu_milli: first, sent_us: 0, answered_us: 0 };
    let guarantees = quota::GUARANTEES.map(|(project, gpus)| (project.to_owned(), gpus * 1000));
    let history =
        History { limits: vec![limit], guarantees: guarantees.into(), ..History::default() };
    let (history, program) = (Mutex::new(history), options.program.clone());
    Arc::new(Desk { history, program, traces, living: AtomicUsize::new(0) })
}

/// Lets everything befall whom it is planned for, and heals it.
async fn harm(stage: &mut Stage, faults: &[Fault], begun: Instant) {
    // Ends before beginnings at the same moment, and in the order of the plan.
    let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        moments.push((fault.at, true, number));
        moments.push((fault.at + fault.lasts, false, number));
    }
    moments.sort_unstable();
    for (moment, begins, number) in moments {
        while begun.elapsed() < moment {
            stage.tend();
            let left = moment.saturating_sub(begun.elapsed());
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
        let fault = &faults[number];
        if begins {
            stage.befall(fault).await;
        } else {
            stage.heal(fault);
        }
    }
}

/// Lets go what is held and waits until every job has ended; what has not is noted.
async fn come_to_rest(stage: &mut Stage, desk: &Desk, calm: Instant) {
    let calm_within = CALM_WITHIN + ahead(stage);
    let mut within = calm_within;
    let mut repairs = 0;
    loop {
        stage.tend();
        let api = leading(stage).await;
        let left = match &api {
            Some(api) => {
                desk.history().led_us.push(now_us());
                rest(api).await
            }
            None => Err(Status::unavailable("no scheduler leads")),
        };
        let broken = match &api {
            Some(api) => broken_nodes(api).await,
            None => Err(Status::unavailable("no scheduler leads")),
        };
        if let Ok(left) = &left {
            let limit_milli = desk.history().limits.last().map_or(1, |limit| limit.gpu_milli);
            within = within.max(calm_within + CALM_TIMES * needed(left, limit_milli));
            if left.is_empty() && broken.as_ref().is_ok_and(Vec::is_empty) {
                return;
            }
        }
        if let (Some(api), Ok(broken)) = (&api, &broken)
            && calm.elapsed() > REPAIR_EVERY * (repairs + 1)
        {
            repairs += 1;
            repair(stage, api, broken, repairs).await;
        }
        if calm.elapsed() > within {
            note_stuck(desk, api.as_ref(), left).await;
            let broken = broken.unwrap_or_default().into_iter();
            let broken =
                broken.map(|node| (0, format!("{node} is not well though it was repaired")));
            return desk.history().stuck.extend(broken);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What was to be done a moment after what a clock showed that was ahead is done when that moment has come. How far the
/// one of a scheduler was ahead at most.
fn ahead(stage: &Stage) -> Duration {
    let clocks = stage.wrong_clocks().iter().filter(|clock| clock.node.is_none());
    let most_us = clocks.map(|clock| clock.by_us).max().unwrap_or(0);
    Duration::from_micros(u64::try_from(most_us).unwrap_or(0))
}

/// Nodes of which something is not in service, or is missing.
async fn broken_nodes(api: &Api) -> Result<Vec<String>, Status> {
    let well = [HealthState::Unspecified, HealthState::Ok];
    let is_broken = |node: &v1::Node| {
        let mut all = node.health.iter().chain(&node.gpu_health);
        let gpus = node.inventory.as_ref().map_or(0, |inventory| inventory.gpus.len());
        all.any(|health| !well.contains(&health.state())) || gpus < GPUS
    };
    let nodes = nodes(api).await?.into_iter();
    Ok(nodes.filter(is_broken).map(|node| node.name).collect())
}

/// Does what an operator does to nodes that do not come back by themselves: they are rebooted, as is asked for where the driver
/// has lost a GPU, and then it is said that somebody has looked.
async fn repair(stage: &mut Stage, api: &Api, broken: &[String], times: u32) {
    for node in broken {
        if times == 1 {
            stage.reboot(node);
            continue;
        }
        let (idempotency_key, name) = (fresh_key(), node.clone());
        let request = v1::VerifyRequest { idempotency_key, name, ..Default::default() };
        // One that comes back meanwhile needs none.
        let _ = api.nodes().verify(request).await;
    }
}

/// Only where all jobs have ended: on a machine that is not calm nothing is promised.
async fn watch_a_promise(stage: &mut Stage, desk: &Desk) {
    if !desk.history().stuck.is_empty() {
        return;
    }
    // All nodes are there.
    world(stage).await;
    let Some(api) = leading(stage).await else { return };
    let nodes = stage.nodes().len();
    let promise = promise::watch(&api, desk, nodes, GPUS as u32).await;
    desk.history().promise = Some(promise);
    come_to_rest(stage, desk, Instant::now()).await;
}

/// How long jobs take if each project uses all of its limit, or of its guarantee where it has none.
fn needed(jobs: &[Job], limit_milli: u64) -> Duration {
    let of_project = |project: &str, milli: u64| {
        let jobs = jobs.iter().filter_map(|job| job.spec.as_ref());
        let work: u64 = jobs.filter(|spec| spec.project == project).map(work).sum();
        Duration::from_millis(work / milli.max(1))
    };
    let limited = of_project(quota::LIMITED, limit_milli);
    let others = quota::GUARANTEES.iter().filter(|(project, _)| *project != quota::LIMITED);
    others.map(|(project, gpus)| of_project(project, gpus * 1000)).fold(limited, Duration::max)
}

/// Thousandths of a GPU times milliseconds.
fn work(spec: &v1::JobSpec) -> u64 {
    let wanted = spec.resources.clone().unwrap_or_default();
    let lasts = match &spec.work {
        Some(Work::Command(command)) => Part::read(&command.argv).map(|part| part.lasts),
        Some(Work::Script(_)) | None => None,
    };
    let gpus = u64::from(wanted.nodes.max(1)) * u64::from(wanted.gpus_per_node.max(1));
    let lasts_ms = lasts.unwrap_or_default().as_millis();
    gpus * 1000 * u64::try_from(lasts_ms).unwrap_or(u64::MAX)
}

async fn note_stuck(desk: &Desk, api: Option<&Api>, left: Result<Vec<Job>, Status>) {
    let mut stuck = Vec::new();
    match (left, api) {
        (Ok(jobs), Some(api)) => {
            for job in jobs {
                let why = api.explain(job.job_id).await.map(|found| found.summary);
                let why = why.unwrap_or_else(|status| told(&status));
                stuck.push((job.job_id, format!("job {} is {:?}: {why}", job.job_id, job.state())));
            }
        }
        (Ok(_), None) => {}
        (Err(status), _) => stuck.push((0, told(&status))),
    }
    desk.history().stuck = stuck;
}

/// The API by whoever leads.
async fn leading(stage: &Stage) -> Option<Api> {
    for api in stage.apis() {
        let asked = tokio::time::timeout(Duration::from_secs(2), api.status()).await;
        if asked.is_ok_and(|answer| answer.is_ok()) {
            return Some(api);
        }
    }
    None
}

/// Releases jobs that are held and nodes that were taken out; tells which jobs have not ended.
async fn rest(api: &Api) -> Result<Vec<Job>, Status> {
    for node in nodes(api).await? {
        if node.admin() != NodeAdmin::Active {
            let request = v1::ResumeRequest { idempotency_key: fresh_key(), name: node.name };
            api.nodes().resume(request).await?;
        }
    }
    let living = [JobState::Held, JobState::Pending, JobState::Starting, JobState::Running];
    let request = v1::ListJobsRequest {
        states: living.map(Into::into).into(),
        page: Some(v1::PageRequest { size: 1000, ..Default::default() }),
        tasks: true,
        ..Default::default()
    };
    let left = api.jobs().list(request).await?.into_inner().jobs;
    for job in left.iter().filter(|job| job.state() == JobState::Held) {
        // It may have ended meanwhile.
        let _ = api.jobs().release(Api::action(job.job_id, "")).await;
    }
    Ok(left)
}

async fn nodes(api: &Api) -> Result<Vec<v1::Node>, Status> {
    let page = Some(v1::PageRequest { size: 1000, ..Default::default() });
    let request = v1::ListNodesRequest { page, ..Default::default() };
    Ok(api.nodes().list(request).await?.into_inner().nodes)
}

/// Takes down how it ended, what the books say, and whether a restart changes anything.
async fn look_back(stage: &mut Stage, desk: &Desk) {
    let mut runs = stage.runs();
    runs.extend(evidence::left_in(&desk.traces));
    let said = said(&stage.cluster().logs());
    let all_over = desk.history().stuck.is_empty();
    let before = world(stage).await;
    let mut replayed = Vec::new();
    if all_over {
        stage.restart_schedulers();
        replayed = differences(&before, &world(stage).await);
    }
    let books = if all_over { books(stage).await } else { Vec::new() };
    let mut history = desk.history();
    history.runs = runs;
    history.said = said;
    history.jobs = before.jobs;
    history.replayed = replayed;
    history.books = books;
    history.apart = apart(stage, &history);
    history.wrong_clocks = stage.wrong_clocks().to_vec();
    let asked_us = now_us();
    for job in history.jobs.clone() {
        let look = Look { asked_us, state: job.state(), attempt: job.attempt };
        history.note(job.job_id, look);
    }
}

/// When nodes could not be told anything: they were harmed themselves, or nobody led.
fn apart(stage: &Stage, history: &History) -> BTreeMap<String, Vec<(i64, i64)>> {
    let mut apart = stage.apart().clone();
    let come_back_us = i64::try_from(COME_BACK.as_micros()).unwrap_or(i64::MAX);
    let leaderless = history.leaderless(LEADERLESS_US);
    for node in stage.nodes() {
        let spans = apart.entry(node).or_default();
        spans.extend(leaderless.iter().map(|(from, until)| (*from, until + come_back_us)));
        spans.sort_unstable();
    }
    apart
}

/// Everything that a restart must not change.
#[derive(Debug)]
struct World {
    jobs: Vec<Job>,
    /// Name, who drained it, what is free.
    nodes: Vec<String>,
    counts: String,
}

/// Once all nodes are heard.
async fn world(stage: &mut Stage) -> World {
    let count = stage.nodes().len();
    let limit = Duration::from_secs(120);
    deadline::until_within(limit, "a leader and all nodes", async || {
        stage.tend();
        let api = leading(stage).await.ok_or("no scheduler leads")?;
        take_down(&api, count).await.map_err(|status| told(&status))
    })
    .await
}

async fn take_down(api: &Api, count: usize) -> Result<World, Status> {
    let status = api.status().await?;
    if status.nodes_ready != count as u64 {
        return Err(Status::unavailable(format!("{} of {count} nodes", status.nodes_ready)));
    }
    let mut jobs = Vec::new();
    let mut token = String::new();
    loop {
        let page = Some(v1::PageRequest { size: 1000, token });
        let request = v1::ListJobsRequest { page, tasks: true, ..Default::default() };
        let answer = api.jobs().list(request).await?.into_inner();
        for job in answer.jobs {
            jobs.push(api.jobs().get(v1::GetJobRequest { job_id: job.job_id }).await?.into_inner());
        }
        token = answer.next_token;
        if token.is_empty() {
            break;
        }
    }
    let held = |node: &v1::Node| {
        let free = (node.free_gpu_milli, node.free_cpu_milli, node.free_memory_mib);
        format!("{} {:?} {free:?} {:?}", node.name, node.admin(), node.attempts)
    };
    let nodes = nodes(api).await?.iter().map(held).collect();
    let left = (status.jobs_held, status.jobs_pending, status.jobs_starting, status.jobs_running);
    Ok(World { jobs, nodes, counts: format!("{:?} jobs left: {left:?}", status.classes) })
}

fn differences(before: &World, after: &World) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |one: String, other: String| {
        if one != other {
            found.push(format!("before a restart {one}, after it {other}"));
        }
    };
    compare(before.counts.clone(), after.counts.clone());
    compare(format!("{:?}", before.nodes), format!("{:?}", after.nodes));
    compare(format!("{} jobs", before.jobs.len()), format!("{} jobs", after.jobs.len()));
    for (one, other) in before.jobs.iter().zip(&after.jobs) {
        compare(format!("{one:?}"), format!("{other:?}"));
    }
    found
}

/// Looks at the books that find something wrong before it is believed: a machine that is short of everything may change its
/// leader in the middle of one, which breaks the connection. What is wrong in the books stays wrong.
const LOOKS_AT_BOOKS: u32 = 3;

async fn books(stage: &Stage) -> Vec<String> {
    let mut found = look_into_books(stage).await;
    for _ in 1..LOOKS_AT_BOOKS {
        if found.is_empty() {
            break;
        }
        wait_for_a_leader(stage).await;
        found = look_into_books(stage).await;
    }
    found
}

/// For a while; that none comes is for others to say.
async fn wait_for_a_leader(stage: &Stage) {
    let comes = async {
        while leading(stage).await.is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Who looks into the books next finds none either.
    let _ = tokio::time::timeout(COME_BACK, comes).await;
}

/// What whoever looks at the ledger finds; and nothing is held once all is over.
async fn look_into_books(stage: &Stage) -> Vec<String> {
    let Some(api) = leading(stage).await else { return vec!["no scheduler leads".into()] };
    let mut found = Vec::new();
    match nodes(&api).await {
        Ok(nodes) => {
            let holding = nodes.iter().filter(|node| !node.attempts.is_empty());
            found.extend(holding.map(|node| format!("{} holds {:?}", node.name, node.attempts)));
        }
        Err(status) => found.push(told(&status)),
    }
    let audit = tokio::spawn(async move { audit::ledger(&api).await });
    if let Err(error) = audit.await {
        let panic = error.into_panic();
        let text = panic.downcast_ref::<String>().cloned();
        found.push(text.unwrap_or_else(|| "the ledger cannot be audited".into()));
    }
    found
}

/// What programs said that they never should.
fn said(logs: &[std::path::PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    for log in logs {
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| NEVER_SAID.iter().any(|word| line.contains(word)));
        found.extend(lines.take(3).map(|line| format!("{}: {line}", log.display())));
    }
    found
}

fn keep_logs(stage: &Stage, place: &Path) {
    let kept = fs::create_dir_all(place);
    for log in stage.cluster().logs() {
        let name = log.file_name().unwrap_or_default();
        let _ = fs::copy(&log, place.join(name));
    }
    if kept.is_ok() {
        eprintln!("logs are in {}", place.display());
    }
}
