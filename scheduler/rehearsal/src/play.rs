//! One play: a small site, drawn from a seed, on which everything breaks for a while; then calm, in which all that can end
//! must end; then judgement.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::amount::UnixMicros;
use gotgan_core::check;
use gotgan_core::ids::Epoch;
use gotgan_core::node::Liveness;
use gotgan_core::policy::Policy;
use gotgan_core::world::{Snapshot, World};
use gotgan_proto::v1::JobState;
use gotgan_scheduler::clock::{self, simulated};
use gotgan_scheduler::config::Timing;
use gotgan_scheduler::planted;
use gotgan_store::memory::Memory;

use crate::executor::{self, Executor, Group};
use crate::judge::{Counts, Violation};
use crate::node::Journal;
use crate::people::Person;
use crate::stage::{Due, Stage};
use crate::weather::{self, Weather};
use crate::{daemon, draw, judge};

/// When plays begin, by their wall clock.
const EPOCH: UnixMicros = UnixMicros(1_800_000_000_000_000);
/// Once nothing breaks, everything must have ended by then.
const CALM_MAX: Duration = Duration::from_secs(1_800);
/// Until the last nodes have heard that something has ended.
const REST: Duration = Duration::from_secs(90);
/// Steps between looks at whether all have ended.
const LOOK_EVERY: u64 = 256;
/// People who want things.
const PEOPLE: u64 = 3;

/// What is to be played.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Decides everything.
    pub seed: u64,
    /// Name of the bug that is planted.
    pub planted: Option<String>,
    /// Whether what happened to jobs is to be told.
    pub tells_story: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Polls of tasks.
    pub steps: u64,
    /// Over all of them: whose each was, and when.
    pub digest: u64,
    /// How much there was.
    pub counts: Counts,
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// The step after which the first was seen.
    pub broken_at: Option<u64>,
    /// What happened to each job, if it was to be told.
    pub story: BTreeMap<u64, Vec<String>>,
}

/// Whether a job of that state has ended.
#[must_use]
pub fn is_terminal(state: JobState) -> bool {
    matches!(
        state,
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut
    )
}

/// Plays it, on this thread.
#[must_use]
pub fn play(script: &Script) -> Outcome {
    draw::begin(script.seed);
    simulated::begin(EPOCH);
    planted::plant(script.planted.as_deref());
    let mut play = Play::new(script);
    let played = catch_unwind(AssertUnwindSafe(|| play.run()));
    if played.is_err() {
        judge::with(|judge| judge.find(0, &[], "a part of the scheduler panicked".to_owned()));
        play.broken_at.get_or_insert(play.steps);
    }
    let (steps, digest, broken_at) = (play.steps, play.digest, play.broken_at);
    let Play { stage, executor, .. } = play;
    drop(executor);
    (0..stage.lives.borrow().len()).for_each(|host| stage.close(host));
    drop(stage);
    planted::plant(None);
    let judged = judge::end();
    simulated::end();
    let story = judged.story.unwrap_or_default();
    Outcome {
        steps,
        digest,
        counts: judged.counts,
        violations: judged.violations,
        broken_at,
        story,
    }
}

struct Play {
    stage: Rc<Stage>,
    executor: Executor,
    steps: u64,
    digest: u64,
    broken_at: Option<u64>,
    /// Steps until all is calm.
    storm: u64,
}

impl Play {
    fn new(script: &Script) -> Self {
        let nodes = draw::between(2, 4);
        let gpus = draw::between(1, 4);
        let names: Vec<String> = (0..nodes).map(|number| format!("n{number}")).collect();
        let timing = Timing {
            heartbeat_ms: 1_000,
            suspect_after_ms: 3_000,
            lost_after_ms: 10_000,
            confirm_within_ms: 6_000,
            leader_lease_ms: 3_000,
            quorum_grace_ms: 2_000,
            repair_every_ms: 500,
            event_passes_beyond_ms: if draw::one_in(2) { 0 } else { 5 },
            cross_check_every_s: 1,
            ..Timing::default()
        };
        let stage = Stage::new(timing, names.clone(), nodes * gpus);
        judge::begin(&stage.memory, script.tells_story);
        weather::set(Weather::drawn());
        for _ in 0..draw::between(1, 2) {
            stage.add_host();
        }
        for name in names {
            let journal = Journal::new(name, u32::try_from(gpus).unwrap_or(1));
            let journal = Rc::new(RefCell::new(journal));
            executor::spawn(Group::Stage, daemon::live(Rc::clone(&stage), journal));
        }
        for number in 0..PEOPLE {
            executor::spawn(Group::Stage, Person::new(&stage, number).live());
        }
        executor::spawn(Group::Stage, audit(Rc::clone(&stage)));
        let storm = draw::between(3_000, 30_000);
        Play { stage, executor: Executor::default(), steps: 0, digest: 0, broken_at: None, storm }
    }

    fn run(&mut self) {
        while self.steps < self.storm && self.step() {
            self.strike();
        }
        weather::set(Weather::default());
        self.stage.calm.set(true);
        let until = simulated::passed() + CALM_MAX;
        while !self.all_ended() {
            if simulated::passed() > until || !self.step() {
                if self.broken_at.is_none() {
                    self.tell_stuck();
                }
                break;
            }
        }
        let until = simulated::passed() + REST;
        while simulated::passed() < until && self.step() {}
        if self.broken_at.is_none() {
            judge::with(judge::Judge::conclude);
            self.note_broken();
        }
    }

    /// False if it is to end.
    fn step(&mut self) -> bool {
        let Some(group) = self.executor.step() else {
            let text = "nothing will ever happen again".to_owned();
            judge::with(|judge| judge.find(0, &[], text));
            return false;
        };
        self.steps += 1;
        let whose = match group {
            Group::Stage => u64::MAX,
            Group::Scheduler(number) => number.into(),
        };
        let when = u64::try_from(simulated::passed().as_nanos()).unwrap_or(u64::MAX);
        self.digest =
            (self.digest.rotate_left(5) ^ whose ^ when).wrapping_mul(0x517c_c1b7_2722_0a95);
        let due = std::mem::take(&mut *self.stage.due.borrow_mut());
        for each in due {
            match each {
                Due::Resume(group) => self.executor.resume(group),
                Due::Over(host, group) => {
                    self.stage.end(host);
                    self.executor.kill(group);
                    self.stage.close(host);
                    self.stage.begin_later(host, draw::millis(50, 1_500));
                }
            }
        }
        self.note_broken();
        self.broken_at.is_none()
    }

    fn note_broken(&mut self) {
        if self.broken_at.is_none() && judge::with(|judge| !judge.violations.is_empty()) {
            self.broken_at = Some(self.steps);
        }
    }

    /// Now and then a scheduler is killed, or stopped for a while.
    fn strike(&mut self) {
        let weather = weather::now();
        if draw::one_in(weather.kill) {
            self.kill();
        }
        if draw::one_in(weather.pause) {
            self.pause();
        }
    }

    fn kill(&mut self) {
        let host = self.victim();
        let Some(group) = self.stage.end(host) else { return };
        judge::with(|judge| judge.counts.kills += 1);
        self.executor.kill(group);
        self.stage.close(host);
        self.stage.begin_later(host, draw::millis(20, 8_000));
    }

    fn pause(&mut self) {
        let host = self.victim();
        let Some(group) = self.stage.lives.borrow()[host] else { return };
        judge::with(|judge| judge.counts.pauses += 1);
        self.executor.pause(group);
        let stage = Rc::clone(&self.stage);
        executor::spawn(Group::Stage, async move {
            clock::sleep(draw::millis(100, 12_000)).await;
            stage.due.borrow_mut().push(Due::Resume(group));
        });
    }

    fn victim(&self) -> usize {
        let hosts = self.stage.lives.borrow().len() as u64;
        usize::try_from(draw::below(hosts)).unwrap_or(0)
    }

    fn all_ended(&self) -> bool {
        if !self.steps.is_multiple_of(LOOK_EVERY) {
            return false;
        }
        self.stage.memory.tables().jobs.values().all(|job| job.status.state.is_terminal())
    }

    /// 12. Once nothing breaks, everything ends.
    fn tell_stuck(&self) {
        for served in self.stage.served.borrow().iter().flatten() {
            let pass = served.services.last_pass.get();
            let (group, streams) = (served.group, served.services.dispatcher.connected());
            let text = format!(
                "{group:?} has {streams} streams; last pass {} {:?}",
                pass.count, pass.report
            );
            judge::with(|judge| judge.note(judge::SITE, || text));
        }
        let tables = self.stage.memory.tables();
        let living = tables.jobs.values().filter(|job| !job.status.state.is_terminal());
        for job in living {
            let attempt = tables.attempts.values().rfind(|attempt| attempt.id.job == job.id);
            let members = attempt.map(|attempt| (attempt.state, &attempt.members));
            let text = format!(
                "job {} is {} still, {} s after all was calm: {:?} {members:?}",
                job.id,
                job.status.state.word(),
                CALM_MAX.as_secs(),
                job.status
            );
            judge::with(|judge| judge.find(12, &[job.id.0], text));
        }
    }
}

/// Holds the world of whoever leads against itself and against the database, from time to time.
async fn audit(stage: Rc<Stage>) {
    loop {
        clock::sleep(draw::millis(1_000, 15_000)).await;
        let Some(served) = stage.leader() else { continue };
        let (memory, policy) = (stage.memory.clone(), Arc::clone(&stage.policy));
        let epoch = served.services.epoch;
        let look =
            served.services.writer.read(move |world| differences(world, &memory, epoch, &policy));
        for (promise, text) in look.await.unwrap_or_default() {
            judge::with(|judge| judge.find(promise, &[], text));
        }
        judge::with(|judge| judge.counts.audits += 1);
    }
}

/// 2 and 11. What does not add up, and what a restart would change.
fn differences(world: &World, memory: &Memory, epoch: Epoch, policy: &Policy) -> Vec<(u8, String)> {
    let mut found: Vec<(u8, String)> =
        check::world(world).into_iter().map(|it| (2, it.to_string())).collect();
    let now = clock::now();
    let tables = memory.tables();
    // One that was overtaken and does not know yet has an old world.
    if tables.epoch() == epoch {
        let power = Arc::new(policy.power.clone());
        let snapshot = Snapshot { power, ..tables.load(policy.half_life(), now) };
        let stored = without_volatile(World::restore(snapshot, now));
        let present = without_volatile(world.clone());
        if stored != present {
            found.push((11, differing(&stored, &present)));
        }
    }
    found
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

fn differing(stored: &World, present: &World) -> String {
    let parts = [
        ("sequences", stored.sequences == present.sequences),
        ("nodes", stored.nodes == present.nodes),
        ("book", stored.book == present.book),
        ("audit", stored.audit == present.audit),
        ("jobs", stored.jobs == present.jobs),
        ("arrays", stored.arrays == present.arrays),
        ("attempts", stored.attempts == present.attempts),
        ("steps", stored.steps == present.steps),
        ("queue", stored.queue == present.queue),
        ("cohorts", stored.cohorts == present.cohorts),
        ("people", stored.people == present.people),
        ("usage", stored.usage == present.usage),
        ("history", stored.history == present.history),
        ("accounts", stored.accounts == present.accounts),
        ("windows", stored.windows == present.windows),
    ];
    let differ: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    let jobs = stored.jobs.iter().find(|(id, job)| present.jobs.get(id) != Some(job));
    let attempts = stored.attempts.iter().find(|(id, it)| present.attempts.get(id) != Some(it));
    format!("a restart would change {differ:?}, first {jobs:?} {attempts:?}")
}
