//! Random lives: jobs, gangs, cancellations, lost nodes, repeated and late reports, against the invariants.
//!
//! A seed draws a sequence of happenings; workers are little machines that obey the orders derived for them, but
//! whose reports may be repeated, held back, or lost with their node. After every happening the world must add up;
//! once nothing is injected any more, every job must come to an end.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::orders::{self, Order};
use super::*;
use crate::account::Accounts;
use crate::amount::{CpuMilli, GpuMilliSeconds, MemoryMib, UnixMicros};
use crate::array::{self, ArraySpec};
use crate::attempt::{Attempt, AttemptState, Cause, ExitStatus};
use crate::change::Change;
use crate::check;
use crate::ids::{
    AttemptId, Epoch, GpuClass, GpuUuid, IdempotencyKey, JobId, NodeName, ProjectPath,
    ReservationName, UserName,
};
use crate::imex::Imex;
use crate::job::{Digest, JobState};
use crate::ledger::{self, CounterAccount, LedgerEntry, LedgerKind};
use crate::node::{Gpu, Inventory};
use crate::planner;
use crate::policy::Policy;
use crate::quota::{self, Consent, Interval, Proposal};
use crate::reservation::Wanted;
use crate::spec::{
    Constraints, Deadline, Dependency, DependencyKind, GpuRequest, JobSpec, NodeRequest,
    TaskLayout, Work,
};
use crate::window::{Window, WindowId};
use crate::world::World;

const NODES: usize = 4;
const GPUS: u32 = 4;

/// Lives begin shortly before a month does and the weight changes; the budget is soon used up, its cap is not.
const QUOTA: &str = r#"
[class.b200]
weight_milli = [{ value = 1000 }, { value = 2500, from = "2026-02-01T00:00:20+09:00" }]
[node.public]
limit = { b200 = 14 }
[node."public/team"]
limit = { b200 = 12 }
budget = { period = "month", ngh = 2, carry = { percent = 50 } }
overuse = { cap = 10 }
[node."public/other"]
"#;

fn node_name(index: usize) -> NodeName {
    NodeName::new(&format!("node-{index}")).unwrap()
}

/// The node as it registers; `cut` times it came back with less.
fn inventory(index: usize, cut: u64) -> Inventory {
    let gpu = |at: u32| Gpu {
        uuid: GpuUuid::new(&format!("GPU-{index}-{at}")).unwrap(),
        index: at,
        name: "B200".to_owned(),
        class: GpuClass::new("b200").unwrap(),
        pci_bus_id: String::new(),
        memory_mib: MemoryMib(1),
        serial: String::new(),
        nvlink_domain: if index < 2 { "fabric.1".to_owned() } else { String::new() },
        cap_range: None,
        mig: crate::mig::Mig::Off,
    };
    Inventory {
        node: node_name(index),
        address: "127.0.0.1".to_owned(),
        boot_id: "boot".to_owned(),
        journal_id: String::new(),
        worker_version: String::new(),
        os: String::new(),
        kernel: String::new(),
        driver_version: String::new(),
        cuda_version: String::new(),
        cpu_milli: CpuMilli(if cut == 0 { 64_000 } else { 1_500 }),
        memory_mib: MemoryMib(65_536),
        gpus: (0..GPUS).map(gpu).collect(),
        labels: BTreeMap::new(),
        simulated: true,
        confinement: None,
        images: None,
        caps: None,
        checks_hardware: false,
        // Fewer than it has GPUs: some attempts find none.
        imex: Some(Imex::Able(3)),
    }
}

fn spec(nodes: u32, gpus: GpuRequest, dependencies: Vec<Dependency>, script: bool) -> JobSpec {
    let work = if script {
        Work::Script { text: "#!/bin/sh\n".to_owned(), arguments: Vec::new() }
    } else {
        Work::Command { argv: vec!["true".to_owned()], layout: TaskLayout::PerNode }
    };
    JobSpec {
        name: "job".to_owned(),
        project: ProjectPath::new("public/team").unwrap(),
        work,
        nodes,
        nodes_max: None,
        per_node: NodeRequest {
            gpus,
            cpu_milli: CpuMilli(1_000),
            memory_mib: MemoryMib(64),
            gpu_cap_watts: None,
        },
        constraints: Constraints::default(),
        time_limit_s: 600,
        priority: 0,
        dependencies,
        warning_signal: None,
        requeue: true,
        max_retries: 1,
        environment: BTreeMap::new(),
        working_directory: String::new(),
        output_path: String::new(),
        error_path: String::new(),
        hold: false,
        comment: String::new(),
        grace_s: 1,
        scavenger: false,
        array: None,
        singleton: false,
        deadline: None,
        image: None,
    }
}

/// One worker: what it holds and what it has not been heard about yet.
#[derive(Debug, Default)]
struct Worker {
    up: bool,
    /// Attempts in its journal; true: ended.
    held: BTreeMap<AttemptId, bool>,
    started: BTreeSet<AttemptId>,
    /// Started before it was wiped last, and how often it was.
    forgotten: BTreeSet<AttemptId>,
    wiped: u32,
    next_seq: BTreeMap<AttemptId, u64>,
    /// Reports on the way, oldest first.
    sent: Vec<Report>,
    /// Reports delivered once, to be repeated.
    delivered: Vec<Report>,
}

impl Worker {
    fn say(&mut self, node: &NodeName, attempt: AttemptId, at: UnixMicros, event: MemberEvent) {
        let seq = self.next_seq.entry(attempt).or_insert(1);
        self.sent.push(Report { node: node.clone(), attempt, seq: *seq, at, event });
        *seq += 1;
    }

    fn obey(&mut self, node: &NodeName, at: UnixMicros, order: Order) {
        match order {
            Order::Run { attempt, start_now, .. } => {
                if self.held.insert(attempt.id, false).is_none() {
                    self.say(node, attempt.id, at, MemberEvent::Accepted);
                    if start_now {
                        self.start(node, attempt.id, at);
                    }
                } else {
                    self.held.insert(attempt.id, self.held[&attempt.id]);
                }
            }
            Order::Start(id) => self.start(node, id, at),
            Order::StartTasks(_) => {}
            Order::Stop(id, stop) => {
                if self.held.get(&id) != Some(&true) {
                    self.end(node, id, at, stop.cause, None);
                }
            }
            Order::Forget(id) => {
                self.held.remove(&id);
            }
        }
    }

    fn start(&mut self, node: &NodeName, id: AttemptId, at: UnixMicros) {
        if self.held.get(&id) == Some(&false) && self.started.insert(id) {
            assert!(!self.forgotten.contains(&id), "attempt {id} is started on {node} once more");
            self.say(node, id, at, MemberEvent::Started);
        }
    }

    fn end(
        &mut self,
        node: &NodeName,
        id: AttemptId,
        at: UnixMicros,
        cause: Cause,
        exit: Option<ExitStatus>,
    ) {
        self.held.insert(id, true);
        self.say(node, id, at, MemberEvent::Ended { cause, reason: String::new(), exit });
    }
}

/// Everything of one life.
struct Life {
    world: World,
    /// Fed with the same changes; must stay equal.
    replica: World,
    policy: Policy,
    now: UnixMicros,
    workers: Vec<Worker>,
    /// Nodes that have fewer CPUs when they come back next.
    smaller: [bool; NODES],
    entries: Vec<LedgerEntry>,
    ended: BTreeMap<AttemptId, Arc<Attempt>>,
    last_states: BTreeMap<JobId, JobState>,
    starts: BTreeSet<AttemptId>,
    submitted: u64,
}

impl Life {
    fn new() -> Self {
        let book = quota::parse(&[("quota.toml".to_owned(), QUOTA.to_owned())]).unwrap();
        let mut life = Life {
            world: World::default(),
            replica: World::default(),
            policy: Policy { retry_delay_ms: 1, ..Policy::default() },
            now: quota::read_moment("2026-01-31T23:59:40+09:00").unwrap(),
            workers: (0..NODES).map(|_| Worker::default()).collect(),
            smaller: [false; NODES],
            entries: Vec::new(),
            ended: BTreeMap::new(),
            last_states: BTreeMap::new(),
            starts: BTreeSet::new(),
            submitted: 0,
        };
        let office = UserName::new("office").unwrap();
        let proposal = Proposal {
            requester: office.clone(),
            reason: String::new(),
            base_revision: 0,
            consent: Consent::default(),
            book,
        };
        life.draft(|draft| apply_quota(draft, proposal, &office).unwrap());
        for index in 0..NODES {
            life.connect(index);
        }
        life
    }

    /// Drafts, checks, and hands the orders that follow to the workers that are up.
    fn draft<T>(&mut self, change: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        let mut draft = Draft::new(&mut self.world, &self.policy, Epoch(1), self.now);
        let value = change(&mut draft);
        let changes = draft.into_changes();
        self.replica.apply_all(&changes);
        for change in &changes {
            self.note(change);
        }
        assert_eq!(self.world, self.replica, "the replica differs");
        let violations = check::world(&self.world);
        assert!(violations.is_empty(), "{violations:?}");
        self.dispatch(&changes);
        value
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::Booked(entry) => self.entries.push(entry.clone()),
            Change::AttemptLeased(attempt) => {
                assert!(self.starts.insert(attempt.id), "{} started twice", attempt.id);
                self.runs_into_no_window(attempt);
            }
            Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => {
                assert!(self.ended.insert(attempt.id, Arc::clone(attempt)).is_none());
            }
            Change::JobMoved { id, status } => {
                let before = self.last_states.insert(*id, status.state);
                assert!(!before.is_some_and(JobState::is_terminal), "job {id} moved after its end");
            }
            _ => {}
        }
    }

    /// An attempt that begins now is over, grace included, before any window of its nodes begins, or by the end of one
    /// that is for it.
    fn runs_into_no_window(&self, attempt: &Attempt) {
        let ends = attempt.leased.plus_seconds(601);
        let held = |window: &Window| {
            let own = window.reserved.as_ref();
            own.is_some_and(|reserved| reserved.holders.contains(&attempt.project))
                && attempt.leased.plus_seconds(600) <= window.during.until
        };
        let on = |window: &Window| {
            let mut nodes = attempt.placement.nodes.iter();
            nodes.any(|held| window.nodes.contains(&held.node))
        };
        for window in self.world.windows.iter().filter(|window| on(window)) {
            let in_time = ends <= window.during.from || held(window);
            assert!(in_time, "{} runs into {window:?}", attempt.id);
        }
    }

    fn maintain(&mut self, worker: usize, [ahead_s, length_s]: [i64; 2], stop_running: bool) {
        let from = self.now.plus_seconds(ahead_s);
        let wish = MaintenanceWish {
            nodes: BTreeSet::from([node_name(worker), node_name((worker + 1) % NODES)]),
            during: Interval { from, until: from.plus_seconds(length_s) },
            stop_running,
            reason: "drawn".to_owned(),
            by: UserName::new("kim").unwrap(),
        };
        self.draft(|draft| plan_maintenance(draft, wish)).unwrap();
    }

    fn reserve(&mut self, worker: usize, [ahead_s, length_s]: [i64; 2], own: bool) {
        let from = self.now.plus_seconds(ahead_s);
        // Long enough for the team's jobs where it is theirs.
        let (holder, more_s) = if own { ("public/team", 600) } else { ("public/other", 0) };
        let wish = ReservationWish {
            name: ReservationName::new(&format!("r{worker}")).unwrap(),
            holders: BTreeSet::from([ProjectPath::new(holder).unwrap()]),
            nodes: if own {
                NodesWish::Named(BTreeSet::from([node_name(worker)]))
            } else {
                NodesWish::Chosen(Wanted { count: 2, class: None, block: None })
            },
            during: Interval { from, until: from.plus_seconds(length_s + more_s) },
            reason: "drawn".to_owned(),
            by: UserName::new("kim").unwrap(),
        };
        // Where something else is in the way it is refused, and as good.
        let _ = self.draft(|draft| reserve(draft, wish));
    }

    fn dispatch(&mut self, changes: &[Change]) {
        let mut touched = BTreeSet::new();
        for change in changes {
            match change {
                Change::AttemptLeased(attempt) | Change::AttemptMoved(attempt) => {
                    touched.insert(attempt.id);
                }
                _ => {}
            }
        }
        for id in touched {
            let orders = match (self.world.attempts.get(&id), self.ended.get(&id)) {
                (Some(attempt), _) => orders::for_attempt(&self.world, attempt),
                (None, Some(ended)) => {
                    let nodes = ended.placement.nodes.iter();
                    nodes.map(|place| (place.node.clone(), Order::Forget(id))).collect()
                }
                (None, None) => Vec::new(),
            };
            for (node, order) in orders {
                let worker = self.workers.iter_mut().enumerate();
                let (_, worker) =
                    worker.into_iter().find(|(at, _)| node_name(*at) == node).unwrap();
                if worker.up {
                    worker.obey(&node, self.now, order);
                }
            }
        }
    }

    fn connect(&mut self, index: usize) {
        self.workers[index].up = true;
        let cut = u64::from(self.smaller[index]);
        let held: Vec<(AttemptId, bool)> =
            self.workers[index].held.iter().map(|(id, ended)| (*id, *ended)).collect();
        let journal_id = format!("journal-{}", self.workers[index].wiped);
        let inventory = Inventory { journal_id, ..inventory(index, cut) };
        self.draft(|draft| register(draft, inventory, &held));
        // The journal sends again what was not acknowledged.
        let again: Vec<Report> = self.workers[index].delivered.clone();
        self.workers[index].sent.splice(0..0, again);
        let node = node_name(index);
        for order in orders::for_node(&self.world, &node, &held) {
            self.workers[index].obey(&node, self.now, order);
        }
    }

    /// Numbers of what lives: jobs, arrays, and of each array a task that is no job.
    fn live(&self) -> Vec<JobId> {
        let folded = self.world.arrays.values().filter_map(|array| {
            let tasks = array.status.tasks.as_deref()?;
            let place = tasks.waiting.first().or(tasks.held.first())?;
            Some(array::task_id(array.id, place))
        });
        let records = self.world.jobs.keys().chain(self.world.arrays.keys()).copied();
        records.chain(folded).collect()
    }

    fn submit(
        &mut self,
        (nodes, gpus): (u32, GpuRequest),
        after: Option<u64>,
        script: bool,
        array: Option<ArraySpec>,
    ) {
        self.submitted += 1;
        let kind = [DependencyKind::AfterOk, DependencyKind::AfterAny, DependencyKind::AfterNotOk];
        let live = self.live();
        let dependency = after.filter(|_| !live.is_empty()).map(|pick| {
            let (kind, job) = (kind[pick as usize % kind.len()], live[pick as usize % live.len()]);
            Dependency::on(kind, job)
        });
        let submission = Submission {
            owner: UserName::new("kim").unwrap(),
            key: IdempotencyKey::new(&format!("key-{}", self.submitted)).unwrap(),
            digest: Digest("".into()),
            spec: Arc::new(JobSpec {
                array,
                singleton: self.submitted.is_multiple_of(5),
                deadline: self.submitted.is_multiple_of(4).then_some(Deadline::WithinS(605)),
                ..spec(nodes, gpus, dependency.into_iter().collect(), script)
            }),
            outcomes: BTreeMap::new(),
        };
        self.draft(|draft| submit(draft, vec![submission])).unwrap();
    }

    fn plan(&mut self) {
        let plan = planner::plan(&self.world, &self.policy, self.now);
        for decision in &plan.decisions {
            self.draft(|draft| commit(draft, decision)).unwrap();
        }
    }

    /// Delivers the oldest report on the way from a worker.
    fn deliver(&mut self, index: usize) {
        if !self.workers[index].up || self.workers[index].sent.is_empty() {
            return;
        }
        let report = self.workers[index].sent.remove(0);
        let folded = self.draft(|draft| fold(draft, &report));
        assert_ne!(folded, Folded::Gap, "{report:?}");
        let over = matches!(report.event, MemberEvent::Ended { .. });
        if folded == Folded::Settled && over {
            self.workers[index].held.remove(&report.attempt);
        }
        self.workers[index].delivered.push(report);
    }

    /// Ends a running attempt on one worker by itself.
    fn finish_one(&mut self, index: usize, pick: usize, code: i32) {
        let worker = &mut self.workers[index];
        let running: Vec<AttemptId> = worker
            .started
            .iter()
            .filter(|id| worker.held.get(id) == Some(&false))
            .copied()
            .collect();
        if worker.up && !running.is_empty() {
            let id = running[pick % running.len()];
            let exit = Some(ExitStatus::Code(code));
            worker.end(&node_name(index), id, self.now, Cause::User, exit);
        }
    }

    /// The node goes away; with `wiped` it comes back without its journal.
    fn crash(&mut self, index: usize, wiped: bool) {
        self.workers[index].up = false;
        self.smaller[index] = wiped != self.smaller[index];
        if wiped {
            let Worker { started, mut forgotten, wiped, .. } =
                std::mem::take(&mut self.workers[index]);
            forgotten.extend(started);
            self.workers[index] = Worker { forgotten, wiped: wiped + 1, ..Worker::default() };
        }
        let node = node_name(index);
        self.draft(|draft| miss(draft, &node));
    }

    fn lose(&mut self, index: usize) {
        if !self.workers[index].up {
            let node = node_name(index);
            self.draft(|draft| {
                miss(draft, &node);
                give_up(draft, &node);
            });
        }
    }

    fn act_on(&mut self, pick: usize, action: Action) {
        let live = self.live();
        if live.is_empty() {
            return;
        }
        let actor = Actor { name: UserName::new("kim").unwrap(), for_site: pick.is_multiple_of(2) };
        // A refusal is as good as a change here: the world must add up after both.
        let _ = self.draft(|draft| act(draft, live[pick % live.len()], action, &actor, "drawn"));
    }

    /// What must hold of the ledger after everything has ended.
    fn audit(&self) {
        let sum = |id: AttemptId, kind: LedgerKind| -> i64 {
            let lines = self.entries.iter().filter(|it| it.attempt == id && it.kind == kind);
            lines.map(|entry| entry.amount.0).sum()
        };
        for (id, attempt) in &self.ended {
            let cost = ledger::cost(attempt.gpus(), attempt.leased, attempt.ended.unwrap());
            let used = sum(*id, LedgerKind::Charge) + sum(*id, LedgerKind::Overuse);
            let too_far = self.entries.iter().filter(|it| {
                it.attempt == *id
                    && it.kind == LedgerKind::Refund
                    && it.counter == CounterAccount::Pool
            });
            let too_far: i64 = too_far.map(|entry| entry.amount.0).sum();
            assert_eq!(GpuMilliSeconds(used - too_far), cost, "{id}");
            assert_eq!(sum(*id, LedgerKind::Hold), sum(*id, LedgerKind::Release), "{id}");
            let refunded = ledger::is_refunded(attempt.outcome.as_ref().unwrap().cause);
            let expected = if refunded { cost.0 } else { 0 };
            assert_eq!(sum(*id, LedgerKind::Refund) - too_far, expected, "{id}");
        }
        let positions: Vec<u64> = self.entries.iter().map(|entry| entry.seq).collect();
        let expected: Vec<u64> = (1..=self.entries.len() as u64).collect();
        assert_eq!(positions, expected);
        self.audit_accounts();
    }

    /// No line crosses an edge, and accounts are what a world would be given that is built from the ledger.
    fn audit_accounts(&self) {
        let mut accounts = Accounts::default();
        for entry in &self.entries {
            accounts.enter(&entry.project, entry.stretch.account, entry.used());
            let Interval { from, until } = entry.stretch.time;
            assert!(from < until, "{entry:?}");
            if !matches!(entry.kind, LedgerKind::Hold | LedgerKind::Release) {
                let edges = ["2026-02-01", "2026-02-01T00:00:20+09:00"].map(|edge| {
                    let edge = quota::read_moment(edge).unwrap();
                    from < edge && edge < until
                });
                assert_eq!(edges, [false, false], "{entry:?}");
            }
        }
        assert_eq!(self.world.accounts, accounts);
    }

    /// No more faults: everything must come to an end.
    fn heal(&mut self) {
        self.smaller = [false; NODES];
        for index in 0..NODES {
            if self.workers[index].up {
                self.crash(index, false);
                self.smaller[index] = false;
            }
            if !self.workers[index].up {
                self.connect(index);
            }
        }
        for _ in 0..2_000 {
            self.now = self.now.plus_seconds(1);
            self.draft(begin_round);
            let held = |id: &JobId| self.world.state_of(*id) == Some(JobState::Held);
            let held: Vec<JobId> = self.live().into_iter().filter(held).collect();
            let actor = Actor { name: UserName::new("kim").unwrap(), for_site: true };
            for id in held {
                // Cancelling one may have cancelled those that wait for it.
                let _ = self.draft(|draft| act(draft, id, Action::Cancel, &actor, ""));
            }
            self.plan();
            for index in 0..NODES {
                while !self.workers[index].sent.is_empty() {
                    self.deliver(index);
                }
                self.finish_one(index, 0, 0);
            }
            if self.live().is_empty() && self.workers.iter().all(|it| it.sent.is_empty()) {
                break;
            }
        }
        assert!(
            self.live().is_empty(),
            "still there: {:?} {:?}",
            self.world.jobs,
            self.world.arrays
        );
        assert!(self.world.attempts.is_empty());
        assert!(self.world.steps.is_empty() && self.world.dependents.is_empty());
        assert!(self.world.usage.iter().next().is_none());
        assert_eq!(self.starts.len(), self.ended.len());
    }
}

/// What every round begins with.
fn begin_round(draft: &mut Draft<'_>) {
    turn_quota(draft);
    turn_windows(draft);
    settle_due(draft);
    end_overdue(draft);
}

/// Something that happens; numbers pick among what is there.
#[derive(Debug, Clone)]
enum Happening {
    Submit {
        nodes: u32,
        gpus: u32,
        share: bool,
        after: Option<u64>,
        script: bool,
        array: Option<(u32, Option<u32>)>,
    },
    Plan,
    Deliver(usize),
    Repeat(usize),
    Finish {
        worker: usize,
        pick: usize,
        code: i32,
    },
    Crash {
        worker: usize,
        wiped: bool,
    },
    Lose(usize),
    Connect(usize),
    Act(usize, Action),
    Maintain {
        worker: usize,
        ahead_s: i64,
        length_s: i64,
        stop_running: bool,
    },
    CancelMaintenance(u64),
    Reserve {
        worker: usize,
        ahead_s: i64,
        length_s: i64,
        own: bool,
    },
    CancelReservation(usize),
    Wait(i64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let worker = 0..NODES;
    let action = prop_oneof![
        Just(Action::Cancel),
        Just(Action::Hold),
        Just(Action::Release),
        Just(Action::Requeue)
    ];
    let array = proptest::option::weighted(0.3, (1..6_u32, proptest::option::of(1..3_u32)));
    let after = proptest::option::of(any::<u64>());
    let submit = (1..=3_u32, 0..=GPUS, any::<bool>(), after, any::<bool>(), array);
    prop_oneof![
        4 => submit.prop_map(|(nodes, gpus, share, after, script, array)| {
            Happening::Submit { nodes, gpus, share, after, script, array }
        }),
        6 => Just(Happening::Plan),
        16 => worker.clone().prop_map(Happening::Deliver),
        2 => worker.clone().prop_map(Happening::Repeat),
        6 => (worker.clone(), any::<usize>(), 0..2_i32)
            .prop_map(|(worker, pick, code)| Happening::Finish { worker, pick, code }),
        1 => (worker.clone(), any::<bool>())
            .prop_map(|(worker, wiped)| Happening::Crash { worker, wiped }),
        1 => worker.clone().prop_map(Happening::Lose),
        2 => worker.prop_map(Happening::Connect),
        2 => (any::<usize>(), action).prop_map(|(pick, action)| Happening::Act(pick, action)),
        1 => (0..NODES, 0..300_i64, 1..300_i64, any::<bool>())
            .prop_map(|(worker, ahead_s, length_s, stop_running)| {
                Happening::Maintain { worker, ahead_s, length_s, stop_running }
            }),
        1 => (1..4_u64).prop_map(Happening::CancelMaintenance),
        1 => (0..NODES, 0..300_i64, 1..300_i64, any::<bool>())
            .prop_map(|(worker, ahead_s, length_s, own)| {
                Happening::Reserve { worker, ahead_s, length_s, own }
            }),
        1 => (0..NODES).prop_map(Happening::CancelReservation),
        3 => (0..3_000_000_i64).prop_map(Happening::Wait),
    ]
}

fn live_through(life: &mut Life, happening: Happening) {
    match happening {
        Happening::Submit { nodes, gpus, share, after, script, array } => {
            let gpus = match (gpus, share) {
                (0, _) => GpuRequest::None,
                (count, false) => GpuRequest::Whole { count, class: None },
                (count, true) => GpuRequest::Share { milli: count * 200, class: None },
            };
            let array = array.map(|(tasks, limit)| ArraySpec::new(0..tasks, limit));
            life.submit((nodes, gpus), after, script, array);
        }
        Happening::Plan => life.plan(),
        Happening::Deliver(worker) => life.deliver(worker),
        Happening::Repeat(worker) => {
            if let Some(report) = life.workers[worker].delivered.first().cloned() {
                let folded = life.draft(|draft| fold(draft, &report));
                assert!(matches!(folded, Folded::Repeated | Folded::Settled), "{folded:?}");
            }
        }
        Happening::Finish { worker, pick, code } => life.finish_one(worker, pick, code),
        Happening::Crash { worker, wiped } => {
            if life.workers[worker].up {
                life.crash(worker, wiped);
            }
        }
        Happening::Lose(worker) => life.lose(worker),
        Happening::Connect(worker) => {
            if !life.workers[worker].up {
                life.connect(worker);
            }
        }
        Happening::Act(pick, action) => life.act_on(pick, action),
        Happening::Maintain { worker, ahead_s, length_s, stop_running } => {
            life.maintain(worker, [ahead_s, length_s], stop_running);
        }
        Happening::CancelMaintenance(number) => {
            let kim = UserName::new("kim").unwrap();
            // As with jobs, a refusal is as good as a change.
            let _ = life.draft(|draft| cancel_maintenance(draft, WindowId(number), &kim));
        }
        Happening::Reserve { worker, ahead_s, length_s, own } => {
            life.reserve(worker, [ahead_s, length_s], own);
        }
        Happening::CancelReservation(number) => {
            let kim = UserName::new("kim").unwrap();
            let name = ReservationName::new(&format!("r{number}")).unwrap();
            let _ = life.draft(|draft| cancel_reservation(draft, &name, &kim));
        }
        Happening::Wait(micros) => {
            life.now = UnixMicros(life.now.0 + micros);
            life.draft(begin_round);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_world_adds_up_and_every_job_ends(
        happenings in proptest::collection::vec(happening(), 1..120)
    ) {
        let mut life = Life::new();
        for happening in happenings {
            live_through(&mut life, happening);
        }
        life.heal();
        life.audit();
    }
}
