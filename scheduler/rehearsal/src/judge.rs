//! What must always hold, judged all the time from what nodes ran, what the database took, and what people were told.
//!
//! The numbers are those of the promises in `docs/torment.md`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::attempt::{Attempt, AttemptState};
use gotgan_core::change::{Change, Subject};
use gotgan_core::ids::{AttemptId, JobId};
use gotgan_core::job::JobState;
use gotgan_proto::v1;
use gotgan_scheduler::clock::simulated;
use gotgan_store::Round;
use gotgan_store::memory::{Memory, Tables};

use crate::node::{CLASS, Key};

/// Thousandths of a GPU that there are.
const WHOLE_GPU_MILLI: u64 = 1000;
/// In the story, what is of no job.
pub const SITE: u64 = 0;
/// More is not shown.
const VIOLATIONS_MAX: usize = 10;
/// The project with a limit.
pub const LIMITED: &str = "centre/beta";

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise was broken; 0: a program did what it never should.
    pub promise: u8,
    /// How.
    pub text: String,
    /// Jobs that it is about.
    pub jobs: Vec<u64>,
    /// By the clock of the play, in microseconds.
    pub at_us: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {}: {}", self.promise, self.text)
    }
}

/// What there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Schedulers that were killed.
    pub kills: u64,
    /// And stopped for a while.
    pub pauses: u64,
    /// What befell nodes.
    pub faults: u64,
    /// Streams that were registered.
    pub streams: u64,
    /// Orders of leaders that were overtaken.
    pub stale: u64,
    /// Writes of leaders that were overtaken.
    pub fenced: u64,
    /// Rounds the database took.
    pub rounds: u64,
    /// Jobs that were stored.
    pub jobs: u64,
    /// Attempts that began on a node.
    pub starts: u64,
    /// Times a leader's world was held against the database.
    pub audits: u64,
}

impl Counts {
    /// Both together.
    pub fn add(&mut self, other: &Counts) {
        self.kills += other.kills;
        self.pauses += other.pauses;
        self.faults += other.faults;
        self.streams += other.streams;
        self.stale += other.stale;
        self.fenced += other.fenced;
        self.rounds += other.rounds;
        self.jobs += other.jobs;
        self.starts += other.starts;
        self.audits += other.audits;
    }
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct Judge {
    /// How much there was.
    pub counts: Counts,
    /// Limits of which any may be in force, in thousandths of GPUs.
    pub limits: Vec<u64>,
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// What happened to each job, if that is to be told.
    pub story: Option<BTreeMap<u64, Vec<String>>>,
    memory: Memory,
    in_use: BTreeMap<String, Vec<(Key, u32)>>,
    starts: BTreeMap<(Key, String), u32>,
    ready: BTreeSet<(Key, String)>,
    asked: BTreeSet<String>,
    told: BTreeMap<String, u64>,
    refused: BTreeMap<String, String>,
    live: BTreeMap<AttemptId, Arc<Attempt>>,
    states: BTreeMap<JobId, JobState>,
    arrays: BTreeSet<JobId>,
    numbers: BTreeMap<JobId, u32>,
    /// With what state was seen of it, and when.
    ended: BTreeMap<u64, (i32, Duration)>,
}

thread_local! {
    static JUDGE: RefCell<Judge> = RefCell::default();
}

/// Begins to judge what goes on around this database.
pub fn begin(memory: &Memory, tells_story: bool) {
    let story = tells_story.then(BTreeMap::new);
    let judge = Judge { memory: memory.clone(), story, ..Judge::default() };
    drop(JUDGE.replace(judge));
}

/// What was found, of a play that is over.
#[must_use]
pub fn end() -> Judge {
    JUDGE.take()
}

/// Tells the judge something.
pub fn with<T>(then: impl FnOnce(&mut Judge) -> T) -> T {
    JUDGE.with_borrow_mut(then)
}

/// A round is in the database.
pub fn committed(memory: &Memory, round: &Round) {
    with(|judge| judge.committed(&memory.tables(), &round.changes));
}

/// The quota tree with this limit, in GPUs. What is guaranteed fits even a small site.
#[must_use]
pub fn tree(limit_gpus: u64) -> String {
    format!(
        "[node.centre]\ndecision = \"D-1\"\n[node.\"centre/alpha\"]\n[node.\"centre/gamma\"]\n\
         [node.\"{LIMITED}\"]\nlimit = {{ {CLASS} = {limit_gpus} }}\n"
    )
}

impl Judge {
    /// Something is wrong.
    pub fn find(&mut self, promise: u8, jobs: &[u64], text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let at_us = u64::try_from(simulated::passed().as_micros()).unwrap_or(u64::MAX);
            self.violations.push(Violation { promise, text, jobs: jobs.to_vec(), at_us });
        }
    }

    /// Adds to the story.
    pub fn note(&mut self, job: u64, text: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let line = format!("{:>12.6} s  {}", simulated::passed().as_secs_f64(), text());
            story.entry(job).or_default().push(line);
        }
    }

    /// Jobs and arrays that have not ended.
    #[must_use]
    pub fn living(&self) -> usize {
        self.states.values().filter(|state| !state.is_terminal()).count()
    }

    /// Jobs that wait for somebody to let them go on, perhaps.
    #[must_use]
    pub fn held(&self) -> Vec<u64> {
        let living = self.states.iter().filter(|(_, state)| !state.is_terminal());
        let held =
            living.filter(|(id, state)| **state == JobState::Held || self.arrays.contains(id));
        held.map(|(id, _)| id.0).collect()
    }

    /// Somebody will submit under this key.
    pub fn asked(&mut self, key: &str) {
        self.asked.insert(key.to_owned());
    }

    /// 4. What is acknowledged is acknowledged alike each time.
    pub fn submitted(&mut self, key: &str, job: u64) {
        self.note(job, || format!("{key} was told that it is job {job}"));
        if let Some(before) = self.told.insert(key.to_owned(), job)
            && before != job
        {
            self.find(4, &[before, job], format!("{key} became job {before} and then {job}"));
        }
    }

    /// A submission was refused for good.
    pub fn refused(&mut self, key: &str, why: &str) {
        self.refused.insert(key.to_owned(), why.to_owned());
    }

    /// A node has it in its journal.
    pub fn accepted(&mut self, node: &str, key: Key) {
        self.note(key.0, || format!("{node} takes in attempt {}.{}", key.0, key.1));
        self.ready.insert((key, node.to_owned()));
    }

    /// A node starts its processes.
    pub fn started(&mut self, node: &str, key: Key, gpus: &[(String, u32)]) {
        self.counts.starts += 1;
        self.note(key.0, || format!("{node} starts attempt {}.{} on {gpus:?}", key.0, key.1));
        let starts = self.starts.entry((key, node.to_owned())).or_default();
        *starts += 1;
        if *starts > 1 {
            let text = format!("attempt {}.{} was started {starts} times on {node}", key.0, key.1);
            self.find(5, &[key.0], text);
        }
        self.was_given(node, key, gpus);
        for (gpu, milli) in gpus {
            let holders = self.in_use.entry(gpu.clone()).or_default();
            holders.push((key, *milli));
            let sum: u64 = holders.iter().map(|(_, milli)| u64::from(*milli)).sum();
            if sum > WHOLE_GPU_MILLI {
                let jobs: Vec<u64> = holders.iter().map(|(key, _)| key.0).collect();
                self.find(1, &jobs, format!("{gpu} has {sum} thousandths in use by {jobs:?}"));
            }
        }
    }

    /// 5 and 6. What runs was given what it has, and its gang is ready.
    fn was_given(&mut self, node: &str, key: Key, gpus: &[(String, u32)]) {
        let id = AttemptId { job: JobId(key.0), number: key.1 };
        let memory = self.memory.clone();
        let tables = memory.tables();
        let Some(attempt) = tables.attempts.get(&id) else {
            return self.find(5, &[key.0], format!("attempt {id} runs on {node} and is unknown"));
        };
        let places = &attempt.placement.nodes;
        let given = places.iter().find(|place| place.node.as_str() == node);
        let given: BTreeSet<(&str, u64)> = given
            .into_iter()
            .flat_map(|place| place.gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu.milli.0)))
            .collect();
        let has: BTreeSet<(&str, u64)> =
            gpus.iter().map(|(uuid, milli)| (uuid.as_str(), u64::from(*milli))).collect();
        if given != has {
            let text = format!("attempt {id} has {has:?} on {node}, and was given {given:?}");
            self.find(5, &[key.0], text);
        }
        let mut others = places.iter().map(|place| place.node.as_str());
        let late = others.find(|other| !self.ready.contains(&(key, (*other).to_owned())));
        if let Some(late) = late {
            let text = format!("attempt {id} starts on {node}, and {late} is not ready");
            self.find(6, &[key.0], text);
        }
    }

    /// Nothing of it is left on a node.
    pub fn ended(&mut self, node: &str, key: Key, gpus: &[(String, u32)]) {
        self.note(key.0, || format!("{node} has ended attempt {}.{}", key.0, key.1));
        for (gpu, _) in gpus {
            if let Some(holders) = self.in_use.get_mut(gpu) {
                holders.retain(|(holder, _)| *holder != key);
            }
        }
    }

    /// 2. Free, allocated and down GPUs are all that there are.
    pub fn counted(&mut self, classes: &[v1::ClassCapacity]) {
        for class in classes {
            let sum = class.free_gpu_milli + class.allocated_gpu_milli + class.down_gpu_milli;
            if sum != class.capacity_gpu_milli {
                self.find(2, &[], format!("GPUs do not add up: {class:?}"));
            }
        }
    }

    /// 7. Who asks after somebody has seen that a job ended never sees it otherwise.
    pub fn looked(&mut self, asked: Duration, jobs: &[v1::Job]) {
        for job in jobs {
            let ended = crate::play::is_terminal(job.state());
            match self.ended.get(&job.job_id) {
                Some((before, seen)) if *before != job.state && *seen < asked => {
                    let text = format!("job {} had ended and is {:?}", job.job_id, job.state());
                    self.find(7, &[job.job_id], text);
                }
                Some(_) => {}
                None if ended => {
                    self.ended.insert(job.job_id, (job.state, simulated::passed()));
                }
                None => {}
            }
        }
    }

    fn committed(&mut self, tables: &Tables, changes: &[Change]) {
        self.counts.rounds += 1;
        for change in changes {
            match change {
                Change::JobSubmitted(job) => {
                    self.counts.jobs += 1;
                    self.states.insert(job.id, job.status.state);
                    if job.is_array() {
                        self.arrays.insert(job.id);
                    }
                    let state = job.status.state.word();
                    self.note(job.id.0, || format!("is stored as {state} under {}", job.key));
                }
                Change::JobMoved { id, status } => self.moved(*id, status.state),
                Change::AttemptLeased(attempt) => self.leased(attempt),
                Change::AttemptMoved(attempt) => self.went_on(attempt),
                Change::NodeHeard { node, liveness, .. } => {
                    self.note(SITE, || format!("{node} is {liveness:?}"));
                }
                Change::NodeLeftovers { node, attempts } => {
                    self.note(SITE, || format!("{node} still runs {attempts:?}"));
                }
                Change::Happened(event) if !matches!(event.subject, Subject::Job { .. }) => {
                    self.note(SITE, || format!("{:?}: {}", event.subject, event.text));
                }
                _ => {}
            }
        }
        self.hold_nothing(tables, changes);
    }

    /// 7. A job that has ended never changes.
    fn moved(&mut self, id: JobId, state: JobState) {
        self.note(id.0, || format!("is {}", state.word()));
        let before = self.states.insert(id, state);
        if let Some(before) = before.filter(|before| before.is_terminal() && *before != state) {
            let text = format!("job {id} was {} and is {}", before.word(), state.word());
            self.find(7, &[id.0], text);
        }
    }

    /// 3 and 5. Attempts are numbered one after the other, and nothing starts beyond a limit.
    fn leased(&mut self, attempt: &Arc<Attempt>) {
        let id = attempt.id;
        self.note(id.job.0, || format!("attempt {id} is leased by epoch {}", attempt.epoch));
        let last = self.numbers.insert(id.job, id.number).unwrap_or(0);
        if id.number != last + 1 {
            self.find(5, &[id.job.0], format!("attempt {id} follows number {last}"));
        }
        self.live.insert(id, Arc::clone(attempt));
        let used: u64 = self
            .live
            .values()
            .filter(|attempt| attempt.project.as_str() == LIMITED)
            .map(|attempt| attempt.gpus().0)
            .sum();
        let most = self.limits.iter().copied().max().unwrap_or(u64::MAX);
        if attempt.project.as_str() == LIMITED && used > most {
            let text = format!("{LIMITED} holds {used} thousandths, limit {most}");
            self.find(3, &[id.job.0], text);
        }
    }

    fn went_on(&mut self, attempt: &Arc<Attempt>) {
        let id = attempt.id;
        self.note(id.job.0, || {
            format!("attempt {id} is {:?}, stop {:?}", attempt.state, attempt.stop)
        });
        if attempt.state == AttemptState::Ended {
            self.live.remove(&id);
        } else if let Some(place) = self.live.get_mut(&id) {
            *place = Arc::clone(attempt);
        }
    }

    /// 7. A job that has ended holds nothing.
    fn hold_nothing(&mut self, tables: &Tables, changes: &[Change]) {
        for change in changes {
            let Change::JobMoved { id, status } = change else { continue };
            if !status.state.is_terminal() {
                continue;
            }
            let (first, last) =
                (AttemptId { job: *id, number: 0 }, AttemptId { job: *id, number: u32::MAX });
            let holds = |(_, attempt): (&AttemptId, &Attempt)| attempt.state != AttemptState::Ended;
            if tables.attempts.range(first..=last).any(holds) {
                self.find(7, &[id.0], format!("job {id} has ended and an attempt of it has not"));
            }
        }
    }

    /// Everything that can be said once it is over.
    pub fn conclude(&mut self) {
        let memory = self.memory.clone();
        let tables = memory.tables();
        self.judge_keys(&tables);
        self.judge_gangs(&tables);
        let verification = tables.verify();
        for text in verification.differences {
            self.find(8, &[], text);
        }
        let running: Vec<(String, Vec<(Key, u32)>)> =
            std::mem::take(&mut self.in_use).into_iter().filter(|(_, it)| !it.is_empty()).collect();
        for (gpu, holders) in running {
            let jobs: Vec<u64> = holders.iter().map(|(key, _)| key.0).collect();
            self.find(7, &jobs, format!("{gpu} is still in use by {holders:?}"));
        }
    }

    /// 4. What was acknowledged is there, once for its key; and nothing that nobody asked for.
    fn judge_keys(&mut self, tables: &Tables) {
        let mut stored: BTreeMap<&str, u64> = BTreeMap::new();
        for job in tables.jobs.values().filter(|job| job.array.is_none()) {
            let name = job.spec.name.as_str();
            if let Some(other) = stored.insert(name, job.id.0) {
                self.find(4, &[other, job.id.0], format!("{name} is stored twice"));
            }
            if !self.asked.contains(name) {
                self.find(4, &[job.id.0], format!("nobody has submitted {name}"));
            }
        }
        for (key, job) in self.told.clone() {
            if stored.get(key.as_str()) != Some(&job) {
                let text =
                    format!("{key} was told job {job}; stored: {:?}", stored.get(key.as_str()));
                self.find(4, &[job], text);
            }
        }
        for (key, why) in self.refused.clone() {
            if let Some(job) = stored.get(key.as_str()) {
                self.find(4, &[*job], format!("{key} was refused ({why}) and is there"));
            }
        }
    }

    /// 6. A gang that has done its work has done it on every one of its nodes.
    fn judge_gangs(&mut self, tables: &Tables) {
        for job in tables.jobs.values() {
            if job.status.state != JobState::Completed || job.is_array() {
                continue;
            }
            let id = AttemptId { job: job.id, number: job.status.attempt };
            let Some(attempt) = tables.attempts.get(&id) else { continue };
            for place in &attempt.placement.nodes {
                let key = ((id.job.0, id.number), place.node.to_string());
                if !self.starts.contains_key(&key) {
                    let text =
                        format!("job {} has completed and never ran on {}", job.id, place.node);
                    self.find(6, &[job.id.0], text);
                }
            }
        }
    }
}
