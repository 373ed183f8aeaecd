//! What a node remembers and how it behaves: orders in, reports out. Its journal survives its daemon, and is lost when it is
//! set up anew; whatever it starts, it starts once.

use std::collections::BTreeMap;
use std::time::Duration;

use gotgan_proto::v1::job_spec::Work;
use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{self, Cause, ExitStatus, Report};
use gotgan_scheduler::clock::{self, simulated};

use crate::judge;

/// Class of all GPUs.
pub const CLASS: &str = "b200";
/// Number of the signal of which stopped tasks die.
const SIGTERM: i32 = 15;

/// Job and number of an attempt.
pub type Key = (u64, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Ended,
}

#[derive(Debug)]
struct Held {
    phase: Phase,
    gpus: Vec<(String, u32)>,
    ranks: Vec<u32>,
    living: Vec<u32>,
    lasts: Duration,
    code: i32,
    ends: Option<Duration>,
    last_seq: u64,
    unacked: Vec<Report>,
}

/// The node's memory.
#[derive(Debug)]
pub struct Journal {
    /// Its name.
    pub name: String,
    gpus: u32,
    epoch: u64,
    held: BTreeMap<Key, Held>,
    lives: u32,
    boots: u32,
}

impl Journal {
    /// A node that has never run anything.
    #[must_use]
    pub fn new(name: String, gpus: u32) -> Self {
        Journal { name, gpus, epoch: 0, held: BTreeMap::new(), lives: 0, boots: 0 }
    }

    /// The first message of a stream.
    #[must_use]
    pub fn register(&self) -> v1::Register {
        let held = self.held.iter().map(|(key, held)| v1::HeldAttempt {
            job_id: key.0,
            attempt: key.1,
            ended: held.phase == Phase::Ended,
        });
        v1::Register {
            inventory: Some(self.inventory()),
            held: held.collect(),
            epoch: self.epoch,
            journal_id: format!("{}-{}", self.name, self.lives),
        }
    }

    fn inventory(&self) -> v1::NodeInventory {
        let gpu = |index: u32| v1::GpuDevice {
            uuid: format!("GPU-{}-{index}", self.name),
            index,
            name: "Rehearsed".into(),
            gpu_class: CLASS.into(),
            pci_bus_id: format!("00000000:{index:02x}:00.0"),
            memory_mib: 180 << 10,
            ..Default::default()
        };
        v1::NodeInventory {
            node: self.name.clone(),
            address: "127.0.0.1".into(),
            boot_id: format!("boot-{}", self.boots),
            worker_version: "0".into(),
            os: "none".into(),
            kernel: "0".into(),
            cpu_milli: 64_000,
            memory_mib: 1 << 20,
            gpus: (0..self.gpus).map(gpu).collect(),
            simulated: true,
            ..Default::default()
        }
    }

    /// A beat.
    #[must_use]
    pub fn beat(&self, seq: u64) -> v1::Heartbeat {
        v1::Heartbeat { seq, at_us: clock::now().0, ..Default::default() }
    }

    /// Every report that is not acknowledged.
    #[must_use]
    pub fn unacked(&self) -> Vec<Report> {
        self.held.values().flat_map(|held| held.unacked.iter().cloned()).collect()
    }

    /// When the next attempt ends by itself.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        self.held.values().filter_map(|held| held.ends).min()
    }

    /// As if the machine had been set up anew: nothing runs on, and nothing is known.
    pub fn lose_everything(&mut self) {
        for (key, held) in std::mem::take(&mut self.held) {
            if held.phase == Phase::Running {
                judge::with(|judge| judge.ended(&self.name, key, &held.gpus));
            }
        }
        self.lives += 1;
        self.boots += 1;
        self.epoch = 0;
    }

    /// Ends what is due.
    pub fn end_due(&mut self) -> Vec<Report> {
        let now = simulated::passed();
        let due = self.held.iter().filter(|(_, held)| held.ends.is_some_and(|ends| ends <= now));
        let due: Vec<(Key, i32)> = due.map(|(key, held)| (*key, held.code)).collect();
        let mut reports = Vec::new();
        for (key, code) in due {
            let exit = ExitStatus { code, signal: 0 };
            self.end(key, Cause::User.into(), exit, &mut reports);
        }
        reports
    }

    /// Does what it is told; what it has to say about it comes back.
    pub fn obey(&mut self, order: Order) -> Vec<Report> {
        let mut reports = self.end_due();
        if let Some(epoch) = epoch_of(&order) {
            if epoch < self.epoch {
                judge::with(|judge| judge.counts.stale += 1);
                return reports;
            }
            self.epoch = epoch;
        }
        match order {
            Order::RunAttempt(order) => self.take_in(order, &mut reports),
            Order::StartAttempt(v1::StartAttempt { job_id, attempt, .. }) => {
                self.start((job_id, attempt), &mut reports);
            }
            Order::StopAttempt(stop) => self.stop(&stop, &mut reports),
            Order::ReportAck(ack) => {
                if let Some(held) = self.held.get_mut(&(ack.job_id, ack.attempt)) {
                    held.unacked.retain(|report| report.seq > ack.seq);
                }
            }
            Order::ForgetAttempt(v1::ForgetAttempt { job_id, attempt, .. }) => {
                let key = (job_id, attempt);
                if self.held.get(&key).is_some_and(|held| held.phase == Phase::Ended) {
                    self.held.remove(&key);
                }
            }
            Order::StartTasks(_)
            | Order::CheckHardware(_)
            | Order::Registered(_)
            | Order::FindingAck(_)
            | Order::ReadLog(_)
            | Order::CutGpu(_) => {}
        }
        reports
    }

    fn take_in(&mut self, order: v1::RunAttempt, reports: &mut Vec<Report>) {
        let key = (order.job_id, order.attempt);
        if self.held.contains_key(&key) {
            return;
        }
        let (lasts, code) = script_of(&order);
        let held = Held {
            phase: Phase::Waiting,
            gpus: order.gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.milli)).collect(),
            ranks: order.tasks.iter().map(|task| task.rank).collect(),
            living: Vec::new(),
            lasts,
            code,
            ends: None,
            last_seq: 0,
            unacked: Vec::new(),
        };
        judge::with(|judge| judge.accepted(&self.name, key));
        self.held.insert(key, held);
        self.report(key, Event::Accepted(v1::AttemptAccepted {}), reports);
        if order.start_now {
            self.start(key, reports);
        }
    }

    fn start(&mut self, key: Key, reports: &mut Vec<Report>) {
        let Some(held) = self.held.get_mut(&key).filter(|held| held.phase == Phase::Waiting) else {
            return;
        };
        held.phase = Phase::Running;
        held.living.clone_from(&held.ranks);
        // A node of a gang on which no task is waits until it is told to stop.
        held.ends = (!held.living.is_empty()).then(|| simulated::passed() + held.lasts);
        judge::with(|judge| judge.started(&self.name, key, &held.gpus));
        let living = held.living.clone();
        self.report(key, Event::Started(v1::AttemptStarted {}), reports);
        for rank in living {
            self.report(key, Event::TaskStarted(v1::TaskStarted { step: 0, rank }), reports);
        }
    }

    fn stop(&mut self, order: &v1::StopAttempt, reports: &mut Vec<Report>) {
        let key = (order.job_id, order.attempt);
        let killed = ExitStatus { code: 0, signal: SIGTERM };
        match self.held.get(&key).map(|held| held.phase) {
            Some(Phase::Ended) => {}
            Some(Phase::Waiting | Phase::Running) => self.end(key, order.cause, killed, reports),
            // The order to stop has overtaken the order to run: it will never run here.
            None => {
                let held = Held {
                    phase: Phase::Waiting,
                    gpus: Vec::new(),
                    ranks: Vec::new(),
                    living: Vec::new(),
                    lasts: Duration::ZERO,
                    code: 0,
                    ends: None,
                    last_seq: 0,
                    unacked: Vec::new(),
                };
                self.held.insert(key, held);
                self.end(key, order.cause, ExitStatus::default(), reports);
            }
        }
    }

    fn end(&mut self, key: Key, cause: i32, exit: ExitStatus, reports: &mut Vec<Report>) {
        let Some(held) = self.held.get_mut(&key) else { return };
        let (was, living) = (held.phase, std::mem::take(&mut held.living));
        (held.phase, held.ends) = (Phase::Ended, None);
        if was == Phase::Running {
            judge::with(|judge| judge.ended(&self.name, key, &held.gpus));
        }
        for rank in living {
            let ended = v1::TaskEnded { step: 0, rank, exit: Some(exit), detail: String::new() };
            self.report(key, Event::TaskEnded(ended), reports);
        }
        let reason = String::new();
        let ended = v1::AttemptEnded { cause, reason, exit: Some(exit), measured: None };
        self.report(key, Event::Ended(ended), reports);
    }

    fn report(&mut self, key: Key, event: Event, reports: &mut Vec<Report>) {
        let Some(held) = self.held.get_mut(&key) else { return };
        held.last_seq += 1;
        let (job_id, attempt) = key;
        let (seq, at_us) = (held.last_seq, clock::now().0);
        let report = Report { job_id, attempt, seq, at_us, event: Some(event) };
        held.unacked.push(report.clone());
        reports.push(report);
    }
}

/// How long it lasts and how it ends, as the arguments of its command say.
fn script_of(order: &v1::RunAttempt) -> (Duration, i32) {
    let work = order.spec.as_ref().and_then(|spec| spec.work.as_ref());
    let Some(Work::Command(command)) = work else { return (Duration::ZERO, 0) };
    let number = |at: usize| command.argv.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
    (Duration::from_millis(number(1)), i32::try_from(number(2)).unwrap_or(1))
}

/// The leader that gave the order; acknowledgements and reads need none.
fn epoch_of(order: &Order) -> Option<u64> {
    match order {
        Order::Registered(order) => Some(order.epoch),
        Order::RunAttempt(order) => Some(order.epoch),
        Order::StartAttempt(order) => Some(order.epoch),
        Order::StopAttempt(order) => Some(order.epoch),
        Order::StartTasks(order) => Some(order.epoch),
        Order::ForgetAttempt(order) => Some(order.epoch),
        Order::CutGpu(order) => Some(order.epoch),
        Order::CheckHardware(order) => Some(order.epoch),
        Order::ReportAck(_) | Order::FindingAck(_) | Order::ReadLog(_) => None,
    }
}
