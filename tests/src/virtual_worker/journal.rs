//! What a virtual node remembers and how it behaves: orders in, reports out. No IO; the present is an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{self, Cause, ExitStatus, NodeInventory, Register, Report, report::Event};
use gotgan_worker::orders::epoch_of;

use super::board::Board;

/// Number of SIGTERM, of which stopped tasks die.
const SIGTERM: i32 = 15;

/// Job and number of an attempt.
pub type Key = (u64, u32);

/// What an attempt does on a virtual node.
#[derive(Debug, Clone, PartialEq)]
pub enum Play {
    /// Runs that long, then every task of it ends like this.
    Run(Duration, ExitStatus),
    /// Runs until it is told to stop.
    Forever,
    /// Cannot run here.
    Refuse(Cause, String),
    /// The node says nothing at all.
    Ignore,
}

/// Decides what an attempt does.
#[derive(Clone)]
pub struct Script(Arc<dyn Fn(&v1::RunAttempt) -> Play + Send + Sync>);

impl Script {
    /// Decides by the order.
    pub fn by(decide: impl Fn(&v1::RunAttempt) -> Play + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// Every attempt runs that long and succeeds.
    #[must_use]
    pub fn succeed_after(duration: Duration) -> Self {
        Self::by(move |_| Play::Run(duration, ExitStatus::default()))
    }

    /// Every attempt runs until it is told to stop.
    #[must_use]
    pub fn forever() -> Self {
        Self::by(|_| Play::Forever)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script(..)")
    }
}

/// What a node was told to run, and when on which GPUs it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The node.
    pub node: String,
    /// The job.
    pub job_id: u64,
    /// Number of the attempt.
    pub attempt: u32,
    /// UUIDs, with thousandths of each.
    pub gpus: Vec<(String, u32)>,
    /// IMEX channel that it was to have; 0: none.
    pub imex_channel: u32,
    /// When it came, Unix microseconds.
    pub from_us: i64,
    /// When nothing was left of it.
    pub until_us: Option<i64>,
    /// How often its processes were started.
    pub starts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Ended,
}

#[derive(Debug)]
struct Held {
    play: Play,
    phase: Phase,
    /// Tasks of step 0 here.
    tasks: Vec<v1::TaskStart>,
    /// Living tasks, by step and rank.
    living: Vec<(u32, u32)>,
    /// Further steps it knows.
    steps: Vec<u32>,
    last_seq: u64,
    unacked: Vec<Report>,
    /// GPUs it has here.
    gpus: usize,
    /// Its place in the list of runs, if there is one.
    run: usize,
}

/// The node's memory.
#[derive(Debug)]
pub struct Journal {
    inventory: NodeInventory,
    script: Script,
    epoch: u64,
    held: BTreeMap<Key, Held>,
    ends: BTreeMap<(Instant, Key), ()>,
    runs: Vec<Run>,
    refused_orders: u64,
    /// How often everything was forgotten.
    reinstalled: u32,
    board: Option<Arc<Board>>,
}

impl Journal {
    /// The memory of a node that has never run anything.
    #[must_use]
    pub fn new(inventory: NodeInventory, script: Script) -> Self {
        Self {
            inventory,
            script,
            epoch: 0,
            held: BTreeMap::new(),
            ends: BTreeMap::new(),
            runs: Vec::new(),
            refused_orders: 0,
            reinstalled: 0,
            board: None,
        }
    }

    /// The same, which also notes what it does where other nodes note it. It keeps no list of its own then: what one
    /// of thousands ran nobody asks.
    #[must_use]
    pub fn noting_on(mut self, board: &Arc<Board>) -> Self {
        self.board = Some(Arc::clone(board));
        self
    }

    /// What the node has.
    #[must_use]
    pub fn inventory(&self) -> &NodeInventory {
        &self.inventory
    }

    /// Everything it was told to run.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Orders it refused because they came from an older leader.
    #[must_use]
    pub fn refused_orders(&self) -> u64 {
        self.refused_orders
    }

    /// The first message of a stream.
    #[must_use]
    pub fn register(&self) -> Register {
        Register {
            inventory: Some(self.inventory.clone()),
            held: self.held(),
            epoch: self.epoch,
            journal_id: format!("{}-{}", self.inventory.node, self.reinstalled),
        }
    }

    /// Every attempt it has not been told to forget.
    #[must_use]
    pub fn held(&self) -> Vec<v1::HeldAttempt> {
        let held = |(key, held): (&Key, &Held)| v1::HeldAttempt {
            job_id: key.0,
            attempt: key.1,
            ended: held.phase == Phase::Ended,
        };
        self.held.iter().map(held).collect()
    }

    /// Attempts with living tasks.
    #[must_use]
    pub fn running(&self) -> Vec<v1::HeldAttempt> {
        self.held().into_iter().filter(|held| !held.ended).collect()
    }

    /// Every report that is not acknowledged.
    #[must_use]
    pub fn unacked(&self) -> Vec<Report> {
        self.held.values().flat_map(|held| held.unacked.iter().cloned()).collect()
    }

    /// When the next attempt ends by itself.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        self.ends.keys().next().map(|(at, _)| *at)
    }

    /// As if the machine had been reinstalled: what it ran is still on record, and over.
    pub fn forget_all(&mut self, now_us: i64) {
        self.reinstalled += 1;
        for held in std::mem::take(&mut self.held).into_values() {
            if let Some(run) = self.runs.get_mut(held.run) {
                run.until_us.get_or_insert(now_us);
            }
        }
        self.ends.clear();
    }

    /// Ends what is due.
    pub fn end_due(&mut self, now: Instant, now_us: i64) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Some((&(at, key), ())) = self.ends.first_key_value() {
            if at > now {
                break;
            }
            self.ends.pop_first();
            let Some(held) = self.held.get(&key).filter(|held| held.phase == Phase::Running) else {
                continue;
            };
            if let Play::Run(_, exit) = held.play {
                self.end(key, Cause::User.into(), String::new(), exit, now_us, &mut reports);
            }
        }
        reports
    }

    /// Does what it is told; what it has to say about it comes back.
    pub fn obey(&mut self, order: Order, now: Instant, now_us: i64) -> Vec<Report> {
        if let Some(epoch) = epoch_of(&order) {
            if epoch < self.epoch {
                self.refused_orders += 1;
                return Vec::new();
            }
            self.epoch = epoch;
        }
        let mut reports = Vec::new();
        match order {
            Order::RunAttempt(order) => self.take_in(order, now, now_us, &mut reports),
            Order::StartAttempt(v1::StartAttempt { job_id, attempt, .. }) => {
                self.start((job_id, attempt), now, now_us, &mut reports);
            }
            Order::StopAttempt(stop) => self.stop(stop, now_us, &mut reports),
            Order::StartTasks(tasks) => self.start_tasks(&tasks, now_us, &mut reports),
            Order::ReportAck(ack) => self.acked(ack),
            Order::ForgetAttempt(v1::ForgetAttempt { job_id, attempt, .. }) => {
                self.forget((job_id, attempt));
            }
            // Its GPUs are invented: they are neither cut nor checked.
            Order::Registered(_)
            | Order::FindingAck(_)
            | Order::ReadLog(_)
            | Order::CutGpu(_)
            | Order::CheckHardware(_) => {}
        }
        reports
    }

    fn take_in(
        &mut self,
        order: v1::RunAttempt,
        now: Instant,
        now_us: i64,
        reports: &mut Vec<Report>,
    ) {
        let key = (order.job_id, order.attempt);
        if self.held.contains_key(&key) {
            return;
        }
        let play = (self.script.0)(&order);
        if play == Play::Ignore {
            return;
        }
        let run = self.note(&order, now_us);
        let held = Held {
            play: play.clone(),
            phase: Phase::Waiting,
            gpus: order.gpus.len(),
            tasks: order.tasks,
            living: Vec::new(),
            steps: Vec::new(),
            last_seq: 0,
            unacked: Vec::new(),
            run,
        };
        self.held.insert(key, held);
        if let Play::Refuse(cause, reason) = play {
            let refused = v1::AttemptRefused { cause: cause.into(), reason };
            self.report(key, Event::Refused(refused), now_us, reports);
            return self.is_over(key, now_us);
        }
        self.report(key, Event::Accepted(v1::AttemptAccepted {}), now_us, reports);
        if order.start_now {
            self.start(key, now, now_us, reports);
        }
    }

    fn note(&mut self, order: &v1::RunAttempt, now_us: i64) -> usize {
        if let Some(board) = &self.board {
            board.told(order.job_id, now_us);
            return self.runs.len();
        }
        self.runs.push(Run {
            node: self.inventory.node.clone(),
            job_id: order.job_id,
            attempt: order.attempt,
            gpus: order.gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.milli)).collect(),
            imex_channel: order.imex_channel,
            from_us: now_us,
            until_us: None,
            starts: 0,
        });
        self.runs.len() - 1
    }

    fn start(&mut self, key: Key, now: Instant, now_us: i64, reports: &mut Vec<Report>) {
        let Some(held) = self.held.get_mut(&key).filter(|held| held.phase == Phase::Waiting) else {
            return;
        };
        held.phase = Phase::Running;
        held.living = held.tasks.iter().map(|task| (0, task.rank)).collect();
        let living = held.living.clone();
        if let Some(run) = self.runs.get_mut(held.run) {
            run.starts += 1;
        }
        if let Some(board) = &self.board {
            board.started(key.0, held.gpus, now_us);
        }
        if let Play::Run(duration, _) = held.play
            // A node of a gang that the script does not run on waits until it is told to stop.
            && !living.is_empty()
        {
            self.ends.insert((now + duration, key), ());
        }
        self.report(key, Event::Started(v1::AttemptStarted {}), now_us, reports);
        for (step, rank) in living {
            self.report(key, Event::TaskStarted(v1::TaskStarted { step, rank }), now_us, reports);
        }
        // What takes no time needs no timer.
        reports.extend(self.end_due(now, now_us));
    }

    fn start_tasks(&mut self, order: &v1::StartTasks, now_us: i64, reports: &mut Vec<Report>) {
        let key = (order.job_id, order.attempt);
        let Some(held) = self.held.get_mut(&key).filter(|held| held.phase == Phase::Running) else {
            return;
        };
        if held.steps.contains(&order.step) {
            return;
        }
        held.steps.push(order.step);
        for task in &order.tasks {
            let (step, rank) = (order.step, task.rank);
            let ended = v1::TaskEnded {
                step,
                rank,
                exit: Some(ExitStatus::default()),
                ..Default::default()
            };
            self.report(key, Event::TaskStarted(v1::TaskStarted { step, rank }), now_us, reports);
            self.report(key, Event::TaskEnded(ended), now_us, reports);
        }
    }

    fn stop(&mut self, order: v1::StopAttempt, now_us: i64, reports: &mut Vec<Report>) {
        let key = (order.job_id, order.attempt);
        let killed = ExitStatus { code: 0, signal: SIGTERM };
        if self.held.get(&key).is_some_and(|held| held.phase != Phase::Ended) {
            self.end(key, order.cause, order.reason, killed, now_us, reports);
        } else if !self.held.contains_key(&key) {
            self.end_unheard_of(key, order, now_us, reports);
        }
    }

    /// The order to stop has overtaken the order to run: it will never run here.
    fn end_unheard_of(
        &mut self,
        key: Key,
        order: v1::StopAttempt,
        now_us: i64,
        reports: &mut Vec<Report>,
    ) {
        let (job_id, attempt) = key;
        let run = self.note(&v1::RunAttempt { job_id, attempt, ..Default::default() }, now_us);
        let held = Held {
            play: Play::Forever,
            phase: Phase::Waiting,
            tasks: Vec::new(),
            living: Vec::new(),
            steps: Vec::new(),
            last_seq: 0,
            unacked: Vec::new(),
            gpus: 0,
            run,
        };
        self.held.insert(key, held);
        self.end(key, order.cause, order.reason, ExitStatus::default(), now_us, reports);
    }

    fn end(
        &mut self,
        key: Key,
        cause: i32,
        reason: String,
        exit: ExitStatus,
        now_us: i64,
        reports: &mut Vec<Report>,
    ) {
        let Some(held) = self.held.get_mut(&key) else { return };
        for (step, rank) in std::mem::take(&mut held.living) {
            let ended = v1::TaskEnded { step, rank, exit: Some(exit), detail: String::new() };
            self.report(key, Event::TaskEnded(ended), now_us, reports);
        }
        let ended = v1::AttemptEnded { cause, reason, exit: Some(exit), measured: None };
        self.report(key, Event::Ended(ended), now_us, reports);
        self.is_over(key, now_us);
    }

    fn is_over(&mut self, key: Key, now_us: i64) {
        if let Some(held) = self.held.get_mut(&key) {
            if let Some(board) = &self.board {
                board.ended(if held.phase == Phase::Running { held.gpus } else { 0 });
            }
            held.phase = Phase::Ended;
            if let Some(run) = self.runs.get_mut(held.run) {
                run.until_us = Some(now_us);
            }
        }
    }

    fn report(&mut self, key: Key, event: Event, now_us: i64, reports: &mut Vec<Report>) {
        let Some(held) = self.held.get_mut(&key) else { return };
        held.last_seq += 1;
        let (job_id, attempt) = key;
        let report =
            Report { job_id, attempt, seq: held.last_seq, at_us: now_us, event: Some(event) };
        held.unacked.push(report.clone());
        reports.push(report);
    }

    fn acked(&mut self, ack: v1::ReportAck) {
        if let Some(held) = self.held.get_mut(&(ack.job_id, ack.attempt)) {
            held.unacked.retain(|report| report.seq > ack.seq);
        }
    }

    /// A living attempt is not forgotten.
    fn forget(&mut self, key: Key) {
        if self.held.get(&key).is_some_and(|held| held.phase == Phase::Ended) {
            self.held.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtual_worker::inventory;

    fn journal(duration: Duration) -> Journal {
        Journal::new(inventory("n", "b200", 1), Script::succeed_after(duration))
    }

    fn order(epoch: u64, start_now: bool) -> Order {
        Order::RunAttempt(v1::RunAttempt {
            epoch,
            job_id: 1,
            attempt: 1,
            tasks: vec![v1::TaskStart::default()],
            start_now,
            ..Default::default()
        })
    }

    fn words(reports: &[Report]) -> Vec<(u64, &'static str)> {
        let word = |report: &Report| match report.event {
            Some(Event::Accepted(_)) => "accepted",
            Some(Event::Refused(_)) => "refused",
            Some(Event::Started(_)) => "started",
            Some(Event::TaskStarted(_)) => "task started",
            Some(Event::TaskEnded(_)) => "task ended",
            Some(Event::Ended(_)) => "ended",
            Some(Event::Unfit(_)) => "unfit",
            None => "nothing",
        };
        reports.iter().map(|report| (report.seq, word(report))).collect()
    }

    #[test]
    fn an_attempt_without_duration_is_told_whole_at_once() {
        let reports = journal(Duration::ZERO).obey(order(1, true), Instant::now(), 0);
        let expected =
            [(1, "accepted"), (2, "started"), (3, "task started"), (4, "task ended"), (5, "ended")];
        assert_eq!(words(&reports), expected);
    }

    #[test]
    fn a_repeated_order_and_one_of_an_older_leader_start_nothing() {
        let mut journal = journal(Duration::from_secs(9));
        let now = Instant::now();
        assert_eq!(journal.obey(order(5, true), now, 0).len(), 3);
        assert!(journal.obey(order(5, true), now, 0).is_empty());
        assert!(journal.obey(order(4, true), now, 0).is_empty());
        assert_eq!((journal.runs()[0].starts, journal.refused_orders()), (1, 1));
    }

    #[test]
    fn reports_stay_until_they_are_acknowledged() {
        let mut journal = journal(Duration::ZERO);
        journal.obey(order(1, true), Instant::now(), 0);
        let ack = v1::ReportAck { job_id: 1, attempt: 1, seq: 3 };
        journal.obey(Order::ReportAck(ack), Instant::now(), 0);
        assert_eq!(words(&journal.unacked()), [(4, "task ended"), (5, "ended")]);
    }
}
