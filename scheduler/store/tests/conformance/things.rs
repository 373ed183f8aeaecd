//! Jobs, attempts, nodes and the rest, made with a few words; and a leader that keeps a world beside its store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::{CpuMilli, GpuMilli, GpuMilliSeconds, MemoryMib, UnixMicros};
use gotgan_core::attempt::{
    Attempt, AttemptState, Cause, GpuAllocation, Member, MemberEnd, NodeAllocation, Outcome,
    Placement, Progress,
};
use gotgan_core::change::{Change, Event, EventKind, Subject};
use gotgan_core::fairshare::HalfLife;
use gotgan_core::ids::{AttemptId, Epoch, GpuClass, JobId, NodeName, ProjectPath, UserName};
use gotgan_core::image::{ImagePath, Images};
use gotgan_core::imex::{Imex, ImexLease};
use gotgan_core::job::{Digest, Job, JobState, JobStatus};
use gotgan_core::ledger::{LedgerEntry, Line};
use gotgan_core::measured::MeasuredUse;
use gotgan_core::meter::{self, Meter};
use gotgan_core::node::{Gpu, Inventory, Liveness};
use gotgan_core::power::caps::{CapRange, Caps};
use gotgan_core::quota::QuotaBook;
use gotgan_core::spec::{Constraints, GpuRequest, JobSpec, NodeRequest, Work};
use gotgan_core::step::{Step, StepKind, Task, TaskState};
use gotgan_core::world::World;
use gotgan_store::{Result, Round, Store};

use crate::harness::Place;

pub const SECOND: i64 = 1_000_000;
pub const LEASE_MS: i64 = 10_000;

pub fn at(seconds: i64) -> UnixMicros {
    UnixMicros(1_700_000_000 * SECOND + seconds * SECOND + 123_456)
}

pub fn path(text: &str) -> ProjectPath {
    ProjectPath::new(text).unwrap()
}

pub fn user(text: &str) -> UserName {
    UserName::new(text).unwrap()
}

pub fn node_name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub fn status(state: JobState) -> JobStatus {
    JobStatus {
        state,
        detail: format!("it is {}", state.word()),
        queued: at(1),
        not_before: at(0),
        started: None,
        ended: state.is_terminal().then(|| at(90)),
        attempt: 0,
        failures: 0,
        losses: 0,
        waits_for: Vec::new(),
        avoid: BTreeSet::new(),
        pending_action: None,
        promised: std::collections::BTreeSet::new(),
        cause: None,
        exit: None,
        tasks: None,
    }
}

pub fn spec(project: &str, name: &str) -> JobSpec {
    JobSpec {
        name: name.to_owned(),
        project: path(project),
        work: Work::Script {
            text: "#!/bin/sh\necho \"$1\"\n".to_owned(),
            arguments: vec!["ä".to_owned()],
        },
        nodes: 1,
        nodes_max: None,
        per_node: NodeRequest {
            gpus: GpuRequest::Whole { count: 2, class: GpuClass::new("b200").ok() },
            cpu_milli: CpuMilli(8000),
            memory_mib: MemoryMib(65_536),
            gpu_cap_watts: Some(600),
        },
        constraints: Constraints { images: true, ..Constraints::default() },
        time_limit_s: 3600,
        priority: -3,
        dependencies: Vec::new(),
        warning_signal: None,
        requeue: true,
        scavenger: false,
        array: None,
        singleton: false,
        deadline: None,
        image: Some(ImagePath::new("/images/torch").unwrap()),
        max_retries: 1,
        environment: BTreeMap::from([("LANG".to_owned(), "ko_KR.UTF-8".to_owned())]),
        working_directory: String::new(),
        output_path: String::new(),
        error_path: String::new(),
        hold: false,
        comment: String::new(),
        grace_s: 30,
    }
}

pub fn job(id: u64, owner: &str, project: &str, name: &str) -> Job {
    Job {
        id: JobId(id),
        owner: user(owner),
        key: gotgan_core::ids::IdempotencyKey::new(&format!("key-{id}")).unwrap(),
        digest: Digest(format!("{id:064x}").into()),
        submitted: at(1),
        spec: Arc::new(spec(project, name)),
        status: status(JobState::Pending),
        array: None,
    }
}

pub fn plain_job(id: u64) -> Job {
    job(id, "minji", "public/nup/a", "train")
}

pub fn submitted(job: Job) -> Change {
    Change::JobSubmitted(Arc::new(job))
}

pub fn moved(id: u64, state: JobState) -> Change {
    Change::JobMoved { id: JobId(id), status: Arc::new(status(state)) }
}

pub fn gpu(node: &str, index: usize) -> gotgan_core::ids::GpuUuid {
    gotgan_core::ids::GpuUuid::new(&format!("GPU-{node}-{index}")).unwrap()
}

pub fn inventory(node: &str) -> Inventory {
    let gpus = (0..8).map(|index: u32| Gpu {
        uuid: gpu(node, index as usize),
        index,
        name: "NVIDIA B200".to_owned(),
        class: GpuClass::new("b200").unwrap(),
        pci_bus_id: format!("0000:{index:02x}:00.0"),
        memory_mib: MemoryMib(183_359),
        serial: format!("16500000000{index:02}"),
        nvlink_domain: "a1b2c3d4-0000-0000-0000-000000000001.7".to_owned(),
        cap_range: Some(CapRange { min_watts: 200, max_watts: 1_000 }),
        mig: gotgan_core::mig::Mig::Off,
    });
    Inventory {
        node: node_name(node),
        address: "10.0.0.1:7000".to_owned(),
        boot_id: "boot".to_owned(),
        journal_id: "journal".to_owned(),
        worker_version: "0.1.0".to_owned(),
        os: "Debian".to_owned(),
        kernel: "6.1".to_owned(),
        driver_version: "580.1".to_owned(),
        cuda_version: "13.0".to_owned(),
        cpu_milli: CpuMilli(128_000),
        memory_mib: MemoryMib(2_000_000),
        gpus: gpus.collect(),
        labels: BTreeMap::from([("rack".to_owned(), "r1".to_owned())]),
        simulated: true,
        confinement: None,
        images: Some(Images::Able("runc 1.1.5".to_owned())),
        caps: Some(Caps::Unable("no permission".to_owned())),
        checks_hardware: true,
        imex: Some(Imex::Able(2_048)),
    }
}

/// An attempt that holds these GPUs of one node, each to `milli`.
pub fn attempt(job: u64, number: u32, node: &str, gpus: &[usize], milli: u64) -> Attempt {
    let gpus =
        gpus.iter().map(|index| GpuAllocation { uuid: gpu(node, *index), milli: GpuMilli(milli) });
    let placement = Placement {
        class: GpuClass::new("b200").ok(),
        gpu_cap_watts: Some(500),
        nodes: vec![NodeAllocation {
            node: node_name(node),
            gpus: gpus.collect(),
            cpu_milli: CpuMilli(8000),
            memory_mib: MemoryMib(65_536),
            imex: Some(ImexLease {
                domain: "fabric.7".to_owned(),
                channel: u32::try_from(job).unwrap() * 8 + number,
            }),
        }],
    };
    let mut attempt = Attempt {
        id: AttemptId { job: JobId(job), number },
        project: path("public/nup/a"),
        epoch: Epoch(1),
        leased: at(10),
        hold: GpuMilliSeconds::default(),
        meter: Meter::default(),
        placement: Arc::new(placement),
        state: AttemptState::Leased,
        started: None,
        ended: None,
        members: vec![Member { last_seq: 0, progress: Progress::Leased }],
        stop: None,
        outcome: None,
        next_step: 1,
        measured: None,
        idle_told: None,
    };
    begin(&mut attempt);
    attempt
}

/// Sets its first slice aside.
fn begin(attempt: &mut Attempt) -> Vec<Line> {
    let class = attempt.placement.class.clone().unwrap();
    meter::begin(attempt, &QuotaBook::default(), &class, 3600)
}

pub fn running(mut attempt: Attempt) -> Attempt {
    attempt.state = AttemptState::Running;
    attempt.started = Some(at(12));
    attempt.members = vec![Member { last_seq: 2, progress: Progress::Running }];
    attempt.idle_told = Some(at(13));
    attempt
}

pub fn ended(mut attempt: Attempt, seconds: i64, cause: Cause) -> Attempt {
    let detail = "rank 1 said \"no\"".to_owned();
    attempt.state = AttemptState::Ended;
    attempt.ended = Some(at(seconds));
    let end = MemberEnd { cause, exit: None, detail: detail.clone(), at: at(seconds), own: true };
    attempt.members = vec![Member { last_seq: 3, progress: Progress::Ended(end) }];
    attempt.outcome = Some(Outcome { cause, exit: None, detail });
    attempt.measured = Some(MeasuredUse {
        nodes: 1,
        observed: GpuMilliSeconds(9_000),
        busy: Some(GpuMilliSeconds(7_000)),
        energy_mj: Some(u64::MAX),
        peak_memory: None,
        longest_idle_ms: Some(0),
        estimated: false,
    });
    attempt
}

/// Pays an attempt that has ended.
pub fn close(attempt: &mut Attempt) -> Vec<Line> {
    let cause = attempt.outcome.as_ref().unwrap().cause;
    let (ended, class) = (attempt.ended.unwrap(), attempt.placement.class.clone().unwrap());
    meter::end(attempt, &QuotaBook::default(), &class, ended, cause)
}

pub fn step(job: u64, attempt: u32, number: u32, tasks: u32) -> Step {
    let tasks = (0..tasks).map(|rank| Task {
        rank,
        node: node_name("n1"),
        local_rank: rank,
        state: TaskState::Pending,
    });
    Step {
        attempt: AttemptId { job: JobId(job), number: attempt },
        number,
        kind: if number == 0 { StepKind::Batch } else { StepKind::Run },
        name: "step 'one'".to_owned(),
        argv: vec!["python".to_owned(), "-c".to_owned(), "print(\"\u{0}\")".to_owned()],
        environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        working_directory: "/tmp".to_owned(),
        created: at(11),
        tasks: tasks.collect(),
        gpus_per_task: 1,
    }
}

pub fn event(seq: u64, subject: Subject, kind: EventKind, text: &str) -> Change {
    Change::Happened(Arc::new(Event { seq, at: at(2), subject, kind, text: text.to_owned() }))
}

pub fn job_event(seq: u64, job: u64) -> Change {
    let subject = Subject::Job { id: JobId(job), attempt: 0, state: JobState::Pending };
    event(seq, subject, EventKind::Submitted, "stored")
}

pub fn round(changes: Vec<Change>) -> Round {
    Round { changes, ..Round::default() }
}

/// A leader: a store, its epoch, and the world that its changes add up to.
pub struct Leader {
    pub store: Arc<dyn Store>,
    pub epoch: Epoch,
    pub world: World,
    /// Everything booked, to compare with.
    pub booked: Vec<LedgerEntry>,
}

impl Leader {
    pub async fn at(place: &Place) -> Self {
        let store = place.open().await;
        let leadership =
            store.take_leadership("one", "localhost:1", at(0), LEASE_MS).await.unwrap();
        let world = World::restore(store.load(HalfLife::default(), at(1)).await.unwrap(), at(1));
        Leader { store, epoch: leadership.epoch, world, booked: Vec::new() }
    }

    /// Commits and, if that was allowed, applies.
    pub async fn try_commit(&mut self, changes: Vec<Change>) -> Result<()> {
        let round = round(changes);
        self.store.commit(self.epoch, at(5), &round).await?;
        self.world.apply_all(&round.changes);
        self.booked.extend(round.changes.into_iter().filter_map(|change| match change {
            Change::Booked(entry) => Some(entry),
            _ => None,
        }));
        Ok(())
    }

    pub async fn commit(&mut self, changes: Vec<Change>) {
        self.try_commit(changes).await.unwrap();
    }

    /// The lease of an attempt with its lines.
    pub fn lease(&self, attempt: &Attempt) -> Vec<Change> {
        let mut changes = vec![Change::AttemptLeased(Arc::new(attempt.clone()))];
        changes.extend(self.lines(attempt, begin(&mut attempt.clone())));
        changes
    }

    /// The end of an attempt with its lines.
    pub fn end(&self, attempt: &Attempt) -> Vec<Change> {
        let mut attempt = attempt.clone();
        let lines = close(&mut attempt);
        let booked = self.lines(&attempt, lines);
        let mut changes = vec![Change::AttemptMoved(Arc::new(attempt))];
        changes.extend(booked);
        changes
    }

    /// A slice of an attempt is over: it is paid, and the next one set aside.
    pub fn settle(&self, attempt: &mut Attempt, now: UnixMicros) -> Vec<Change> {
        let class = attempt.placement.class.clone().unwrap();
        let lines = meter::renew(attempt, &QuotaBook::default(), &class, 3600, now);
        let mut changes = vec![Change::AttemptMoved(Arc::new(attempt.clone()))];
        changes.extend(self.lines(attempt, lines));
        changes
    }

    fn lines(&self, attempt: &Attempt, lines: Vec<Line>) -> Vec<Change> {
        let first = self.world.sequences.next_entry;
        let entry = |(place, line): (u64, Line)| {
            let Line { kind, amount, counter, stretch } = line;
            Change::Booked(LedgerEntry {
                seq: first + place,
                at: at(5),
                kind,
                project: attempt.project.clone(),
                class: attempt.placement.class.clone().unwrap(),
                amount,
                attempt: attempt.id,
                counter,
                stretch,
            })
        };
        (0_u64..).zip(lines).map(entry).collect()
    }

    /// Compares the world with the one the store remembers.
    pub async fn assert_reloads(&self) {
        self.assert_reloads_at(at(1)).await;
    }

    /// The same at another moment, for a book with dates.
    pub async fn assert_reloads_at(&self, now: UnixMicros) {
        let reloaded =
            World::restore(self.store.load(HalfLife::default(), now).await.unwrap(), now);
        assert_eq!(without_volatile(reloaded), without_volatile(self.world.clone()));
    }
}

/// The world without what is not stored.
fn without_volatile(mut world: World) -> World {
    world.version = 0;
    for node in world.nodes.values_mut() {
        node.liveness = Liveness::Unknown;
        node.liveness_since = UnixMicros::default();
        node.leftovers.clear();
    }
    world
}
