//! Which faults befall whom and when: drawn from a seed before anything runs, so that the same seed plans the same.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::wire::Condition;

/// What there is to be harmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Schedulers on one database.
    pub schedulers: usize,
    /// Workers that are processes and run real jobs.
    pub workers: usize,
    /// Workers of this program.
    pub virtuals: usize,
    /// Who submits.
    pub clients: usize,
    /// The database is a server that can be harmed by itself.
    pub server: bool,
    /// The database lies on a disk that can be filled.
    pub disk: bool,
    /// The first so many workers that are processes ask a driver about their GPUs, which can lose one.
    pub drivers: usize,
    /// The database server's syncs can be made slow.
    pub slow_server: bool,
}

/// A program, of those that are processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// A scheduler.
    Scheduler(usize),
    /// A worker, with its shims.
    Worker(usize),
    /// The database server, all of its processes.
    Server,
}

/// One of a kind, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A scheduler.
    Scheduler(usize),
    /// A worker process.
    Worker(usize),
    /// A worker of this program.
    Virtual(usize),
    /// Somebody who submits.
    Client(usize),
    /// The database server.
    Server,
    /// The disk that the database lies on.
    Disk,
    /// The wall clock that a program sees.
    Clock(Program),
    /// What a program syncs to its disk.
    Syncs(Program),
    /// The GPUs of a worker, as its driver tells of them.
    Gpus(usize),
}

/// What befalls a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Harm {
    /// SIGKILL; started again at the end. The jobs of a worker go on meanwhile.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// SIGKILL to a worker and everything that it has started, as a power cut does.
    PowerCut,
    /// SIGKILL to one of a worker's shims.
    KillShim,
    /// A worker of this program says nothing, and goes on where it was.
    Silence,
    /// A worker of this program says nothing, and comes back having forgotten everything.
    Reinstall,
    /// Its wires are like this, to every scheduler.
    Wires(Condition),
    /// Its wires are like this and are cut at the end, so that what was held back is lost.
    WiresThenCut(Condition),
    /// SIGKILL to one process of the database server, which makes it throw everybody out and recover from its log.
    Crash,
    /// No byte can be written.
    Fill,
    /// The clock is off by so many milliseconds, and put right at the end.
    Step(i64),
    /// Each sync takes so much longer.
    Slow(Duration),
    /// The driver loses the GPU of this index; at the end it is there again.
    LoseGpu(usize),
    /// Restarted with a certificate that runs out at once; at the end everybody is thrown out, and a good one is put there.
    Expire,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Since the beginning.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// Whom.
    pub target: Target,
    /// What.
    pub harm: Harm,
}

impl Harm {
    /// Whether a process is killed.
    #[must_use]
    pub fn kills(self) -> bool {
        match self {
            Self::Kill | Self::PowerCut | Self::KillShim | Self::Crash | Self::Expire => true,
            Self::Pause
            | Self::Silence
            | Self::Reinstall
            | Self::Wires(_)
            | Self::WiresThenCut(_)
            | Self::Fill
            | Self::Step(_)
            | Self::Slow(_)
            | Self::LoseGpu(_) => false,
        }
    }

    /// In a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Pause => "paused",
            Self::PowerCut => "power cut",
            Self::KillShim => "shim killed",
            Self::Silence => "silent",
            Self::Reinstall => "reinstalled",
            Self::Wires(condition) if condition == Condition::BLOCKED => "partitioned",
            Self::Wires(condition) if !condition.delay.is_zero() => "slow",
            Self::Wires(condition) if condition.blocked_up => "not heard",
            Self::Wires(_) => "gets no answers",
            Self::WiresThenCut(_) => "answers lost",
            Self::Crash => "crashed",
            Self::Fill => "full",
            Self::Step(by_ms) if by_ms < 0 => "stepped back",
            Self::Step(_) => "stepped forward",
            Self::Slow(_) => "slow to sync",
            Self::LoseGpu(_) => "lost one",
            Self::Expire => "certificate ran out",
        }
    }
}

impl Target {
    /// In a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Scheduler(_) => "scheduler",
            Self::Worker(_) => "worker",
            Self::Virtual(_) => "virtual worker",
            Self::Client(_) => "client",
            Self::Server => "database server",
            Self::Disk => "disk",
            Self::Clock(Program::Scheduler(_)) => "clock of a scheduler",
            Self::Clock(Program::Worker(_)) => "clock of a worker",
            Self::Clock(Program::Server) => "clock of the database server",
            Self::Syncs(Program::Scheduler(_)) => "disk of a scheduler",
            Self::Syncs(Program::Worker(_)) => "disk of a worker",
            Self::Syncs(Program::Server) => "disk of the database server",
            Self::Gpus(_) => "GPUs of a worker",
        }
    }
}

/// Draws faults for a time, so many a minute. Nothing is harmed twice at once, but several things may be.
#[must_use]
pub fn draw(seed: u64, shape: &Shape, time: Duration, per_minute: u32) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let kinds = kinds(shape);
    let mut busy: BTreeMap<Target, Duration> = BTreeMap::new();
    let mut faults = Vec::new();
    let mean_ms = 60_000 / u64::from(per_minute.max(1));
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(random.random_range(1..=2 * mean_ms));
        if at >= time {
            return faults;
        }
        let Ok(&(_, kind)) = kinds.choose_weighted(&mut random, |(weight, _)| *weight) else {
            return faults;
        };
        let (target, harm, lasts) = one(kind, shape, &mut random);
        if busy.get(&target).is_some_and(|until| at < *until) {
            continue;
        }
        // Everything is sound at the end.
        let lasts = lasts.min(time.saturating_sub(at));
        busy.insert(target, at + lasts + REST);
        faults.push(Fault { at, lasts, target, harm });
    }
}

/// Nothing is harmed again sooner than this after it is sound.
const REST: Duration = Duration::from_millis(300);
/// GPUs of each node.
pub const GPUS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    KillScheduler,
    PauseScheduler,
    KillWorker,
    PauseWorker,
    PowerCut,
    KillShim,
    Silence,
    Reinstall,
    WorkerWires,
    ClientWires,
    Crash,
    Fill,
    StepScheduler,
    StepWorker,
    SlowScheduler,
    SlowWorker,
    SlowServer,
    LoseGpu,
    ExpireScheduler,
    ExpireWorker,
}

/// What can befall something of this shape, with how often it does.
fn kinds(shape: &Shape) -> Vec<(u32, Kind)> {
    let mut kinds = vec![(14, Kind::KillScheduler), (6, Kind::PauseScheduler)];
    kinds.extend([(4, Kind::StepScheduler), (2, Kind::ExpireScheduler)]);
    if shape.workers > 0 {
        kinds.extend([(12, Kind::KillWorker), (4, Kind::PauseWorker)]);
        kinds.extend([(3, Kind::PowerCut), (6, Kind::KillShim)]);
        kinds.extend([(4, Kind::StepWorker), (4, Kind::SlowWorker), (3, Kind::ExpireWorker)]);
    }
    if shape.virtuals > 0 {
        kinds.extend([(8, Kind::Silence), (3, Kind::Reinstall)]);
    }
    if shape.virtuals + shape.workers > 0 {
        kinds.push((16, Kind::WorkerWires));
    }
    if shape.clients > 0 {
        kinds.push((12, Kind::ClientWires));
    }
    kinds.extend(shape.server.then_some((4, Kind::Crash)));
    kinds.extend(shape.disk.then_some((3, Kind::Fill)));
    kinds.extend((shape.drivers > 0).then_some((5, Kind::LoseGpu)));
    // A scheduler with a server has nothing of weight on its own disk.
    kinds.extend((!shape.server).then_some((5, Kind::SlowScheduler)));
    kinds.extend(shape.slow_server.then_some((5, Kind::SlowServer)));
    kinds
}

fn one(kind: Kind, shape: &Shape, random: &mut StdRng) -> (Target, Harm, Duration) {
    let mut below = |count: usize| random.random_range(0..count.max(1));
    let target = match kind {
        Kind::KillScheduler | Kind::PauseScheduler | Kind::ExpireScheduler => {
            Target::Scheduler(below(shape.schedulers))
        }
        Kind::KillWorker
        | Kind::PauseWorker
        | Kind::PowerCut
        | Kind::KillShim
        | Kind::ExpireWorker => Target::Worker(below(shape.workers)),
        Kind::Silence | Kind::Reinstall => Target::Virtual(below(shape.virtuals)),
        Kind::WorkerWires => match below(shape.workers + shape.virtuals) {
            worker if worker < shape.workers => Target::Worker(worker),
            other => Target::Virtual(other - shape.workers),
        },
        Kind::ClientWires => Target::Client(below(shape.clients)),
        Kind::Crash => Target::Server,
        Kind::Fill => Target::Disk,
        Kind::StepScheduler => Target::Clock(Program::Scheduler(below(shape.schedulers))),
        Kind::StepWorker => Target::Clock(Program::Worker(below(shape.workers))),
        Kind::SlowScheduler => Target::Syncs(Program::Scheduler(below(shape.schedulers))),
        Kind::SlowWorker => Target::Syncs(Program::Worker(below(shape.workers))),
        Kind::SlowServer => Target::Syncs(Program::Server),
        Kind::LoseGpu => Target::Gpus(below(shape.drivers)),
    };
    let harm = match kind {
        Kind::KillScheduler | Kind::KillWorker => Harm::Kill,
        Kind::PauseScheduler | Kind::PauseWorker => Harm::Pause,
        Kind::PowerCut => Harm::PowerCut,
        Kind::KillShim => Harm::KillShim,
        Kind::Silence => Harm::Silence,
        Kind::Reinstall => Harm::Reinstall,
        Kind::WorkerWires | Kind::ClientWires => wires(random),
        Kind::Crash => Harm::Crash,
        Kind::Fill => Harm::Fill,
        Kind::StepScheduler | Kind::StepWorker => step(random),
        Kind::SlowScheduler | Kind::SlowWorker | Kind::SlowServer => {
            Harm::Slow(Duration::from_millis(random.random_range(10..700)))
        }
        Kind::LoseGpu => Harm::LoseGpu(random.random_range(0..GPUS)),
        Kind::ExpireScheduler | Kind::ExpireWorker => Harm::Expire,
    };
    (target, harm, lasts(kind, random))
}

fn wires(random: &mut StdRng) -> Harm {
    match random.random_range(0..6) {
        0 => Harm::Wires(Condition::BLOCKED),
        1 => Harm::Wires(Condition::NOT_HEARD),
        2 => Harm::Wires(Condition::NO_ANSWERS),
        3 => Harm::Wires(Condition::slow(Duration::from_millis(random.random_range(5..200)))),
        _ => Harm::WiresThenCut(Condition::NO_ANSWERS),
    }
}

/// By seconds, and one in three by up to two minutes; ahead as often as back.
fn step(random: &mut StdRng) -> Harm {
    let range_ms = if random.random_ratio(1, 3) { 10_000..120_000 } else { 500..10_000 };
    let by_ms = random.random_range(range_ms);
    Harm::Step(if random.random_ratio(1, 2) { by_ms } else { -by_ms })
}

/// Short ones that nobody gives up for and, one in three, long ones, beyond a lease and until a node is given up.
fn lasts(kind: Kind, random: &mut StdRng) -> Duration {
    let range_ms = match kind {
        // It is over at once; its consequences are not.
        Kind::KillShim | Kind::Crash => 1..2,
        // It must be there, run out, and be missed.
        Kind::ExpireScheduler | Kind::ExpireWorker => 3_000..6_000,
        _ if random.random_ratio(1, 3) => 2_000..6_000,
        _ => 20..1_000,
    };
    Duration::from_millis(random.random_range(range_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        schedulers: 2,
        workers: 2,
        virtuals: 4,
        clients: 3,
        server: true,
        disk: false,
        drivers: 1,
        slow_server: true,
    };
    const TIME: Duration = Duration::from_mins(10);

    #[test]
    fn the_same_seed_plans_the_same_and_another_something_else() {
        let plan = |seed| draw(seed, &SHAPE, TIME, 40);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn nothing_is_harmed_twice_at_once_and_all_is_sound_at_the_end() {
        let faults = draw(3, &SHAPE, TIME, 400);
        assert!(faults.len() > 1_000, "{}", faults.len());
        let mut until: BTreeMap<Target, Duration> = BTreeMap::new();
        for fault in faults {
            let before = until.insert(fault.target, fault.at + fault.lasts);
            assert!(before.is_none_or(|before| before < fault.at), "{fault:?}");
            assert!(fault.at + fault.lasts <= TIME, "{fault:?}");
        }
    }

    #[test]
    fn everything_that_there_is_and_nothing_else_is_harmed() {
        let plan = |shape: &Shape| draw(5, shape, TIME, 400);
        let hit = |faults: &[Fault], target| faults.iter().any(|fault| fault.target == target);
        let faults = plan(&SHAPE);
        for target in [Target::Scheduler(1), Target::Worker(1), Target::Virtual(3)] {
            assert!(hit(&faults, target), "{target:?}");
        }
        assert!(hit(&faults, Target::Server) && !hit(&faults, Target::Disk));
        let (scheduler, worker) = (Program::Scheduler(1), Program::Worker(1));
        for target in [Target::Clock(scheduler), Target::Clock(worker), Target::Syncs(worker)] {
            assert!(hit(&faults, target), "{target:?}");
        }
        assert!(hit(&faults, Target::Syncs(Program::Server)) && hit(&faults, Target::Gpus(0)));
        assert!(!hit(&faults, Target::Syncs(scheduler)) && !hit(&faults, Target::Gpus(1)));
        let alone = Shape { workers: 0, virtuals: 0, clients: 0, server: false, ..SHAPE };
        let alone = Shape { drivers: 0, slow_server: false, ..alone };
        let faults = plan(&Shape { schedulers: 1, disk: true, ..alone });
        let others = [Target::Server, Target::Worker(0), Target::Virtual(0), Target::Client(0)];
        assert!(others.into_iter().all(|target| !hit(&faults, target)));
        let others = [Target::Clock(Program::Worker(0)), Target::Gpus(0)];
        assert!(others.into_iter().all(|target| !hit(&faults, target)));
        assert!(!hit(&faults, Target::Syncs(Program::Server)));
        assert!(hit(&faults, Target::Disk) && !hit(&faults, Target::Scheduler(1)));
        assert!(hit(&faults, Target::Syncs(Program::Scheduler(0))));
    }

    #[test]
    fn clocks_are_stepped_both_ways_by_seconds_and_by_minutes_and_certificates_have_time_to_run_out()
     {
        let faults = draw(7, &SHAPE, TIME, 400);
        let steps: Vec<i64> = faults
            .iter()
            .filter_map(|fault| if let Harm::Step(by_ms) = fault.harm { Some(by_ms) } else { None })
            .collect();
        for wanted in [|by: i64| by > 60_000, |by| by < -60_000, |by| (0..5_000).contains(&by)] {
            assert!(steps.iter().any(|by_ms| wanted(*by_ms)), "{steps:?}");
        }
        let lasting = |fault: &&Fault| fault.at + Duration::from_secs(6) < TIME;
        let expiring = faults.iter().filter(lasting).filter(|fault| fault.harm == Harm::Expire);
        let least = expiring.map(|fault| fault.lasts).min();
        assert!(least.is_some_and(|least| least >= Duration::from_secs(3)), "{least:?}");
    }
}
