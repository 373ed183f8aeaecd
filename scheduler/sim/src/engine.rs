//! Runs a scenario: takes its events in the order of time, has the scheduler's own core decide, and jumps on.
//!
//! A round here is what a round of the scheduler's writer is: whatever has a date is put in force, then commands and
//! reports are drafted, and what changed is told to workers. After the events of a moment the planner is asked until it
//! decides nothing more. Deciding takes no time; workers take the time that the scenario gives them.

mod act;
mod arrive;
mod estimate;
mod observe;
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::admit::Fleet;
use gotgan_core::amount::{Ngh, UnixMicros};
use gotgan_core::fairshare::History;
use gotgan_core::ids::{AttemptId, Epoch, GpuClass, NodeName, ProjectPath};
use gotgan_core::lifecycle::{self, Draft};
use gotgan_core::plan::{BlockerKind, Report};
use gotgan_core::planned::PlannedStarts;
use gotgan_core::planner;
use gotgan_core::policy::Policy;
use gotgan_core::quota::QuotaBook;
use gotgan_core::quota::entitle::Entitlements;
use gotgan_core::world::{Snapshot, World};

use crate::books::Books;
use crate::expect::Found;
use crate::fleet;
use crate::meter::{Meter, Parts};
use crate::moving::MovedIn;
use crate::record::Record;
use crate::replay::Told;
use crate::setup::Setup;
use crate::worker::{WorkerStep, Workers};

use arrive::Sources;
use estimate::Estimates;

/// Passes at one moment; a planner that still decides something then goes round in a circle.
const PASSES_MAX: u32 = 10_000;

/// Reports that are folded in one round, as a bound on what is kept of it.
const REPORTS_PER_ROUND: usize = 64;

/// Something that happens at a moment. The order of the kinds is the order within a moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A date of the quota book comes, or an attempt must be paid.
    Date,
    /// Workers do the next thing.
    Worker(WorkerStep),
    /// A node has been silent for so long that it gets no new work.
    Suspect(NodeName, UnixMicros),
    /// And for so long that it is given up.
    GiveUp(NodeName, UnixMicros),
    /// An event of the scenario, by its place.
    Event(usize),
    /// A stream begins, by its place.
    Open(usize),
    /// A source brings its next job.
    Arrive(usize),
    /// Time alone may let a job start or stop.
    Wake,
    /// An expectation begins to look, by its place.
    Mark(usize),
    /// An expectation is looked at, by its place.
    Sample(usize),
}

/// A run under way.
#[derive(Debug)]
pub struct Engine<'s> {
    setup: &'s Setup,
    books: &'s Books,
    left_out: &'s BTreeSet<usize>,
    world: World,
    policy: Arc<Policy>,
    fleet: Arc<Fleet>,
    now: UnixMicros,
    steps: BTreeSet<(UnixMicros, Step)>,
    sources: Sources,
    workers: Workers,
    meter: Meter,
    record: Record,
    found: BTreeMap<usize, Found>,
    /// What attempts that ended held: what a store would give a scheduler that starts again.
    history: History,
    /// What the ledger says was used, by project and account: what a store would give it as well.
    used: BTreeMap<(ProjectPath, UnixMicros), Ngh>,
    /// What was moved in from Slurm last.
    moved: &'s MovedIn,
    /// What the quota files say that were applied last.
    files: &'s QuotaBook,
    /// What became of a class before an expectation began to look.
    marks: BTreeMap<usize, Parts>,
    /// What is due, as long as it was found for what is in service and in force.
    due: BTreeMap<GpuClass, Entitlements>,
    dirty: Dirty,
    /// What the last pass planned.
    planned: Arc<PlannedStarts>,
    /// Who tells jobs when they will start; `None` if nobody asks.
    estimates: Option<Estimates>,
    wake: Option<UnixMicros>,
    /// When there may be something to say of a budget next.
    alert: Option<UnixMicros>,
}

/// What must be looked at again.
#[derive(Debug, Clone, Copy, Default)]
struct Dirty {
    /// A pass could find something new.
    plan: bool,
    /// What GPUs do has changed.
    parts: bool,
    /// Guarantees or what is in service has changed.
    due: bool,
    /// Projects or guarantees may have changed.
    tree: bool,
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub record: Record,
    /// Where every GPU was.
    pub meter: Meter,
    /// The world at the end.
    pub world: World,
    /// What was found for each expectation, by its place.
    pub found: BTreeMap<usize, Found>,
}

/// Runs the scenario, without the events left out.
#[must_use]
pub fn run(setup: &Setup, books: &Books, left_out: &BTreeSet<usize>) -> Outcome {
    let engine = Engine::new(setup, books, left_out);
    engine.run(&mut |_| {})
}

/// The same; after each moment at which something happened, `watch` is told which it was, and jobs that wait are told
/// when they will start.
#[must_use]
pub fn run_estimating(setup: &Setup, books: &Books, watch: &mut dyn FnMut(UnixMicros)) -> Outcome {
    let nothing = BTreeSet::new();
    let mut engine = Engine::new(setup, books, &nothing);
    engine.estimates = Some(Estimates::default());
    engine.run(watch)
}

impl<'s> Engine<'s> {
    fn run(mut self, watch: &mut dyn FnMut(UnixMicros)) -> Outcome {
        self.build();
        self.schedule();
        while self.moment() {
            watch(self.now);
        }
        self.finish()
    }

    fn new(setup: &'s Setup, books: &'s Books, left_out: &'s BTreeSet<usize>) -> Self {
        Engine {
            setup,
            books,
            left_out,
            world: World::restore(
                Snapshot {
                    history: History::new(setup.policy.half_life()),
                    power: Arc::new(setup.policy.power.clone()),
                    ..Snapshot::default()
                },
                setup.from.0,
            ),
            policy: Arc::clone(&setup.policy),
            fleet: Arc::default(),
            now: setup.from.0,
            steps: BTreeSet::new(),
            sources: Sources::default(),
            workers: Workers::new(setup.pace),
            meter: Meter::from(setup.from.0),
            record: Record::default(),
            history: History::new(setup.policy.half_life()),
            found: BTreeMap::new(),
            used: BTreeMap::new(),
            moved: &setup.moved.0,
            files: &books.first,
            marks: BTreeMap::new(),
            due: BTreeMap::new(),
            dirty: Dirty { plan: true, parts: true, due: true, tree: true },
            planned: Arc::default(),
            estimates: None,
            wake: None,
            alert: None,
        }
    }

    /// The quota book is applied, and nodes register.
    fn build(&mut self) {
        self.put_in_force(self.books.first.clone());
        for cluster in &self.setup.clusters {
            let nodes = match fleet::nodes(cluster) {
                Ok(nodes) => nodes,
                Err(error) => {
                    self.record.violations.push(error.to_string());
                    continue;
                }
            };
            self.write(|draft| {
                for inventory in nodes {
                    lifecycle::register(draft, inventory, &[]);
                }
            });
        }
        self.fleet = Arc::new(Fleet::of(&self.world));
    }

    fn schedule(&mut self) {
        for (index, event) in self.setup.events.iter().enumerate() {
            if !self.left_out.contains(&index) {
                self.at(event.at.0, Step::Event(index));
            }
        }
        for (index, expect) in self.setup.expects.iter().enumerate() {
            let at = expect.at.unwrap_or(self.setup.until);
            self.at(at.0, Step::Sample(index));
            if let Some(from) = sample::since(&expect.value).and_then(|since| since.from) {
                self.at(from.0, Step::Mark(index));
            }
        }
        self.schedule_streams();
        self.at(self.now, Step::Wake);
    }

    /// Notes a step; the same one noted twice for a moment is one.
    fn at(&mut self, at: UnixMicros, step: Step) {
        self.steps.insert((at, step));
    }

    /// Everything that happens at the next moment; false if the scenario is over.
    fn moment(&mut self) -> bool {
        let next = self.steps.first().map(|(at, _)| *at);
        let Some(at) = next.filter(|at| *at <= self.setup.until.0) else { return false };
        self.meter.advance(at);
        self.now = at;
        self.record.moments += 1;
        while self.has_step() {
            while self.has_step()
                && let Some((_, step)) = self.steps.pop_first()
            {
                self.perform(step);
            }
            self.settle();
        }
        self.estimate();
        self.look();
        while self.steps.first().is_some_and(|(at, _)| *at == self.now) {
            if let Some((_, step)) = self.steps.pop_first() {
                self.perform(step);
            }
        }
        true
    }

    /// Whether there is something to do at this moment before anybody looks.
    fn has_step(&self) -> bool {
        let first = self.steps.first();
        first.is_some_and(|(at, step)| *at == self.now && !matches!(step, Step::Sample(_)))
    }

    fn perform(&mut self, step: Step) {
        match step {
            // Whatever a round is for, it begins with what has a date.
            Step::Date => self.write(|_| {}),
            Step::Worker(step) => self.work(step),
            Step::Suspect(node, since) => self.miss(&node, since),
            Step::GiveUp(node, since) => self.give_up(&node, since),
            Step::Event(index) => self.act(index),
            Step::Open(index) => self.open(index),
            Step::Arrive(source) => self.arrive(source),
            Step::Wake => {
                if self.wake.is_none_or(|wake| wake <= self.now) {
                    self.wake = None;
                    self.dirty.plan |= !self.world.queue.is_empty();
                }
            }
            Step::Mark(index) => self.mark(index),
            Step::Sample(index) => self.sample(index),
        }
    }

    /// A round of the writer.
    fn write<R>(&mut self, command: impl FnOnce(&mut Draft<'_>) -> R) -> R {
        let policy = Arc::clone(&self.policy);
        let mut draft = Draft::new(&mut self.world, &policy, Epoch(1), self.now);
        lifecycle::turn_quota(&mut draft);
        lifecycle::turn_windows(&mut draft);
        lifecycle::settle_due(&mut draft);
        lifecycle::end_overdue(&mut draft);
        lifecycle::tell_alerts(&mut draft);
        let answer = command(&mut draft);
        let changes = draft.into_changes();
        self.observe(&changes);
        answer
    }

    fn work(&mut self, step: WorkerStep) {
        let (reports, next) = self.workers.perform(step, &self.world, self.now);
        if let Some((at, step)) = next {
            self.at(at, Step::Worker(step));
        }
        for part in reports.chunks(REPORTS_PER_ROUND) {
            self.write(|draft| {
                for report in part {
                    lifecycle::fold(draft, report);
                }
            });
        }
    }

    /// Tells workers what they must be told about these attempts.
    fn dispatch(&mut self, touched: &BTreeSet<AttemptId>) {
        for id in touched {
            let Some(attempt) = self.world.attempts.get(id) else { continue };
            for (at, step) in self.workers.take_orders(&self.world, attempt, self.now) {
                self.at(at, Step::Worker(step));
            }
        }
    }

    /// Streams fill up, and the planner decides until there is nothing left to decide.
    fn settle(&mut self) {
        self.fill();
        let mut passes = 0;
        while std::mem::take(&mut self.dirty.plan) && !self.world.queue.is_empty() {
            let plan = planner::plan_after(&self.planned, &self.world, &self.policy, self.now);
            self.planned = Arc::clone(&plan.report.planned);
            self.note_planned();
            self.record.passes += 1;
            passes += 1;
            self.wake = self.next_wake(&plan.report);
            if plan.decisions.is_empty() {
                break;
            }
            if passes > PASSES_MAX {
                self.record
                    .violations
                    .push(format!("the planner decides without end at {}", self.now.0));
                break;
            }
            let late = self.write(|draft| {
                let results = lifecycle::commit_each(draft, &plan.decisions);
                results.iter().filter(|result| result.is_err()).count() as u64
            });
            self.record.late_decisions += late;
            self.dirty.plan = true;
        }
        if let Some(wake) = self.wake {
            self.at(wake, Step::Wake);
        }
    }

    /// Notes by when jobs were told first that they would start.
    fn note_planned(&mut self) {
        for (job, start) in self.planned.iter().filter(|(_, start)| start.since == self.now) {
            let told = Told { at: self.now, by: start.promised };
            self.record.told.entry(job).or_insert(told);
        }
    }

    /// When time alone may change what a pass decides: a wait between tries is over, a job has waited so long that
    /// a start is planned for it, or an attempt has run for its promised minimum while somebody wants its GPUs.
    fn next_wake(&self, report: &Report) -> Option<UnixMicros> {
        let (gangs_s, others_s) = (self.policy.planned_gangs_after_s, self.policy.planned_after_s);
        let waiting = self.world.queue.iter().filter_map(|key| self.world.jobs.get(&key.job));
        let of_jobs = waiting.flat_map(|job| {
            let since = job.status.queued.max(job.status.not_before);
            let patience_s = if job.spec.nodes > 1 { gangs_s } else { others_s };
            [job.status.not_before, since.plus_seconds(patience_s)]
        });
        let minimum_s = self.policy.min_runtime_before_preemption_s;
        let lent = wants_back(report).then(|| self.world.attempts.values());
        let safe = lent.into_iter().flatten().map(|attempt| attempt.leased.plus_seconds(minimum_s));
        of_jobs.chain(safe).filter(|at| *at > self.now).min()
    }

    /// What GPUs do from now on.
    fn look(&mut self) {
        if std::mem::take(&mut self.dirty.due) {
            self.due = planner::entitlements(&self.world, self.now);
        }
        if std::mem::take(&mut self.dirty.parts) {
            self.meter.see(&self.world, &self.due);
        }
    }

    fn finish(mut self) -> Outcome {
        self.meter.advance(self.setup.until.0);
        let wrong = gotgan_core::check::world(&self.world);
        self.record.violations.extend(wrong.iter().map(ToString::to_string));
        let Engine { record, meter, world, found, .. } = self;
        Outcome { record, meter, world, found }
    }
}

/// Whether any job within its guarantee waits for what others hold.
fn wants_back(report: &Report) -> bool {
    let blockers = report.lists().flat_map(|list| list.iter());
    blockers.map(|blocker| blocker.kind).any(|kind| match kind {
        BlockerKind::Lent | BlockerKind::Recall => true,
        BlockerKind::Held
        | BlockerKind::Dependency
        | BlockerKind::AskedReservation
        | BlockerKind::ProjectLimit
        | BlockerKind::ParentLimit
        | BlockerKind::Constraints
        | BlockerKind::NodesUnavailable
        | BlockerKind::Reservation
        | BlockerKind::Maintenance
        | BlockerKind::Capacity
        | BlockerKind::Power
        | BlockerKind::Order
        | BlockerKind::ArrayLimit
        | BlockerKind::Deadline
        | BlockerKind::Elastic
        | BlockerKind::FairShare
        | BlockerKind::Budget
        | BlockerKind::Term
        | BlockerKind::Kept
        | BlockerKind::RetryDelay
        | BlockerKind::Tier
        | BlockerKind::Planned => false,
    })
}
