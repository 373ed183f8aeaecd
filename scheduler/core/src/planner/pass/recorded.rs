//! What the pass writes down of its starts, so that their order can be checked afterwards. Nothing is decided here, and
//! a pass that starts nothing writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Pass, Tier, Waiting};
use crate::amount::GpuMilli;
use crate::ids::JobId;
use crate::job::Job;
use crate::plan::Blocker;
use crate::planned::PlannedStarts;
use crate::planner::burden::Burdens;
use crate::planner::fair::{Fair, Wanted};
use crate::planner::score::ClassIndex;
use crate::planner::turns::{Claim, wanted};
use crate::precedence::{
    Guaranteed, LevelSheet, Own, PASSED_MAX, PassSheet, PassTurns, Passed, RUNGS_MAX, Rank, Rung,
    Stage, StartTurn, Sums, Take, WHOLE_MAX,
};
use crate::quota::entitle::{Arena, NodeIndex};

/// What came before the turns, if anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nodes reserved for the job's project.
    Reserved,
    /// Its planned start has come.
    Planned,
    /// Nothing: it was its turn.
    #[default]
    Turn,
}

/// The record of a pass under way.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// How jobs start at present.
    pub entry: Entry,
    /// `None` until something starts.
    turns: Option<PassTurns>,
    /// Jobs for which others had stopped.
    promised: Vec<JobId>,
    /// Of those that wait so many had their turn before the last start.
    looked: usize,
    /// So much had been given when the record began.
    before: usize,
    /// Levels of the tree on the paths to the projects of those that started, each by what is compared there.
    levels: BTreeSet<LevelKey>,
}

/// By which GPUs the nodes below one other are compared, inner `None`: all; and which other, `None`: there is none.
type LevelKey = (Option<ClassIndex>, Option<NodeIndex>);

/// Cohorts that wait whatever the turns bring, by their first jobs, with the worst reason.
#[derive(Debug)]
pub(super) struct Aside {
    passed: Vec<Passed>,
    /// As many as are kept.
    most: usize,
    more: u32,
}

impl Aside {
    /// One more.
    pub fn add(&mut self, job: JobId, worst: impl FnOnce() -> Option<Blocker>) {
        if self.passed.len() < self.most {
            let passed = |reason| Passed { job, cohort: true, reason, planned: None };
            self.passed.extend(worst().map(passed));
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl Recorder {
    /// Notes a job for which others had stopped.
    pub fn note_promised(&mut self, job: JobId) {
        self.promised.push(job);
    }

    /// Whether others had stopped for anybody.
    pub fn has_promised(&self) -> bool {
        !self.promised.is_empty()
    }

    /// Whether the one of those that wait had its turn before the last start.
    pub fn keeps(&self, at: usize) -> bool {
        self.turns.is_some() && at < self.looked
    }

    /// Notes that one of those that wait was passed over, and why.
    pub fn note_passed(
        &mut self,
        at: usize,
        waiting: &Waiting,
        list: &[Blocker],
        starts: &PlannedStarts,
    ) {
        let Some(turns) = self.turns.as_mut().filter(|_| at < self.looked) else { return };
        if turns.sheet.passed.len() >= PASSED_MAX {
            turns.sheet.passed_more = turns.sheet.passed_more.saturating_add(1);
            return;
        }
        let planned = starts.of(waiting.job).map(|start| start.at);
        let (job, cohort) = (waiting.job, !waiting.is_alone());
        let passed = |reason: &Blocker| Passed { job, cohort, reason: reason.clone(), planned };
        turns.sheet.passed.extend(list.first().map(passed));
    }

    /// For those that have no turn: as many as there is place for behind those that had theirs. None where nothing starts.
    pub fn aside(&self) -> Aside {
        let most = if self.turns.is_some() { PASSED_MAX.saturating_sub(self.looked) } else { 0 };
        Aside { passed: Vec::new(), most, more: 0 }
    }

    /// Notes those that had no turn.
    pub fn note_aside(&mut self, aside: Aside) {
        if let Some(turns) = &mut self.turns {
            turns.sheet.passed_more = turns.sheet.passed_more.saturating_add(aside.more);
            turns.sheet.passed.extend(aside.passed);
        }
    }
}

impl Pass<'_> {
    /// The whole record; `None` if nothing started.
    pub(super) fn finish_record(&mut self) -> Option<PassTurns> {
        let recorder = std::mem::take(&mut self.recorder);
        let mut turns = recorder.turns.filter(|turns| !turns.starts.is_empty())?;
        if let Some(mut fair) = self.fair.take() {
            // How everything stood before anything was given.
            let given = fair.rewind(recorder.before);
            turns.sheet.levels = self.levels(&fair, &recorder.levels);
            turns.sheet.guaranteed = self.guaranteed_rows(&fair, &recorder.levels);
            given.iter().for_each(|taken| fair.take(taken.node, taken.class, taken.gpus));
            self.fair = Some(fair);
        }
        turns.sheet.promised = recorder.promised;
        Some(turns)
    }

    /// Notes that a job starts, before it counts as started.
    pub(super) fn record_start(&mut self, job: &Job, claim: Claim) {
        self.begin_record();
        let Some(fair) = &self.fair else { return };
        let rank = self.rank_of(fair, job, claim);
        let levels = self.levels_above(fair, job, claim);
        self.recorder.levels.extend(levels);
        self.recorder.looked = self.waiting.len();
        if let Some(turns) = &mut self.recorder.turns {
            let takes = u32::try_from(turns.sheet.takes.len()).unwrap_or(u32::MAX);
            turns.starts.push(StartTurn { job: job.id, rank, takes });
        }
    }

    /// Notes what the pass gives, or keeps for a job that others stop for, before it counts as given.
    pub(super) fn record_take(&mut self, node: NodeIndex, class: ClassIndex, gpus: GpuMilli) {
        self.begin_record();
        let (Some(fair), Some(turns)) = (&self.fair, &mut self.recorder.turns) else { return };
        let project = fair.arena().path(node).clone();
        let class = self.machine.class_name(class).clone();
        turns.sheet.takes.push(Take { project, class, gpus });
    }

    /// Keeps how everything stands before anything is given.
    fn begin_record(&mut self) {
        if let (None, Some(fair)) = (&self.recorder.turns, &self.fair) {
            let (sheet, before) = (self.sheet(fair), fair.taken().len());
            self.recorder.turns = Some(PassTurns { sheet, starts: Vec::new() });
            self.recorder.before = before;
        }
    }

    fn rank_of(&self, fair: &Fair, job: &Job, claim: Claim) -> Rank {
        let stage = match (self.recorder.entry, claim.tier) {
            (Entry::Reserved, _) => Stage::Reserved,
            (Entry::Planned, _) => Stage::Planned,
            (Entry::Turn, Tier::Guaranteed) => Stage::Guaranteed,
            (Entry::Turn, Tier::Borrowed) => Stage::Borrowed,
            (Entry::Turn, Tier::Overuse) => Stage::Overuse,
            (Entry::Turn, Tier::Scavenger) => Stage::Scavenger,
        };
        let own = Own {
            priority: job.spec.priority,
            queued: job.status.queued,
            gpus: job.spec.total_gpus(),
            job: job.id,
        };
        let promised = stage == Stage::Guaranteed && !job.status.promised.is_empty();
        let table = table_of(wanted(&job.spec, &self.machine));
        // Scavengers have turns of their own.
        let table = table.filter(|_| !job.spec.scavenger);
        let rungs = table.zip(claim.node).map(|(class, node)| self.rungs(fair, node, class));
        Rank { stage, promised, rungs: rungs.unwrap_or_default(), own: Some(own) }
    }

    /// Levels on which the project of a job is compared with others.
    fn levels_above(&self, fair: &Fair, job: &Job, claim: Claim) -> Vec<LevelKey> {
        let table = table_of(wanted(&job.spec, &self.machine));
        let Some((class, node)) = table.zip(claim.node) else { return Vec::new() };
        let arena = fair.arena();
        arena.self_and_ancestors(node).map(|node| (class, arena.parent(node))).collect()
    }

    fn rungs(&self, fair: &Fair, node: NodeIndex, class: Option<ClassIndex>) -> Vec<Rung> {
        let (arena, burdens) = (fair.arena(), fair.all_burdens());
        let class_name = class.map(|class| self.machine.class_name(class).clone());
        let above = arena.self_and_ancestors(node).filter(|node| burdens.decides(*node));
        let mut rungs: Vec<Rung> = above
            .map(|node| {
                let (standing, level) = burdens.standing(node, class);
                let (sums, class) = (Sums::of(level), class_name.clone());
                Rung { node: Some(arena.path(node).clone()), class, standing, sums }
            })
            .collect();
        rungs.reverse();
        rungs
    }

    /// What goes for the whole pass.
    fn sheet(&self, fair: &Fair) -> PassSheet {
        let arena = fair.arena();
        let top = match arena.children(None) {
            [top] => Some(arena.path(*top).clone()),
            [] | [_, ..] => None,
        };
        PassSheet {
            at: self.now,
            rule: self.policy.fair_share_rule,
            half_life_minutes: self.policy.half_life().minutes(),
            always_s: fair.all_burdens().always_s(),
            revision: self.world.book.revision,
            has_tiers: fair.has_tiers,
            top,
            classes: self.machine.classes.clone(),
            ..PassSheet::default()
        }
    }

    /// Whether so many wait for different things that only what concerns those that started is kept.
    fn is_large(&self) -> bool {
        self.demands.len() > WHOLE_MAX
    }

    fn levels(&self, fair: &Fair, of_starts: &BTreeSet<LevelKey>) -> Vec<LevelSheet> {
        let (arena, burdens) = (fair.arena(), fair.all_burdens());
        let mut levels: Vec<LevelSheet> = Vec::new();
        let mut last = None;
        let is_large = self.is_large();
        let concerns = |level: LevelKey| !is_large || of_starts.contains(&level);
        let tables: BTreeSet<Option<ClassIndex>> =
            of_starts.iter().map(|(table, _)| *table).collect();
        let compared = self.demands.iter().filter_map(|demand| {
            let table = table_of(demand.wanted)?;
            (!is_large || tables.contains(&table)).then_some((demand.node?, table))
        });
        for (_, above, class, node) in nearest_first(arena, burdens, compared, concerns) {
            let (standing, level) = burdens.standing(node, class);
            if last != Some((above, class)) {
                last = Some((above, class));
                levels.push(LevelSheet {
                    class: class.map(|class| self.machine.class_name(class).clone()),
                    above: above.map(|above| arena.path(above).clone()),
                    sums: Sums::of(level),
                    nodes: BTreeMap::new(),
                });
            }
            if let Some(level) = levels.last_mut() {
                level.nodes.insert(arena.path(node).clone(), standing);
            }
        }
        levels
    }

    fn guaranteed_rows(&self, fair: &Fair, of_starts: &BTreeSet<LevelKey>) -> Vec<Guaranteed> {
        if !fair.has_tiers {
            return Vec::new();
        }
        let row = |node: NodeIndex, class: ClassIndex| {
            let (guarantee, held) = fair.guaranteed(node, class);
            let project = fair.arena().path(node).clone();
            Guaranteed { project, class: self.machine.class_name(class).clone(), guarantee, held }
        };
        let places = self.demands.iter().filter_map(|demand| Some((demand.node?, demand.wanted)));
        let concerns = |class: &ClassIndex| {
            let mut classes = of_starts.iter().map(|(of, _)| of);
            !self.is_large() || classes.any(|of| of.is_none_or(|of| of == *class))
        };
        let of = |(node, wanted): (NodeIndex, Wanted)| {
            let classes = fair.class_indexes().filter(concerns);
            let classes = classes.filter(move |class| wanted.has_class(usize::from(class.0)));
            classes.map(move |class| (node, class))
        };
        let mut rows: Vec<(NodeIndex, ClassIndex)> = places.flat_map(of).collect();
        rows.sort_unstable_by_key(|(node, class)| (*node, class.0));
        rows.dedup();
        rows.into_iter().take(RUNGS_MAX).map(|(node, class)| row(node, class)).collect()
    }
}

/// A node at or above a project that waits: its depth, the node above, and by what it is compared.
type Place = (usize, Option<NodeIndex>, Option<ClassIndex>, NodeIndex);

/// Those nearest to the top first, siblings together; no more than a sheet keeps.
fn nearest_first(
    arena: &Arena,
    burdens: &Burdens,
    compared: impl Iterator<Item = (NodeIndex, Option<ClassIndex>)>,
    concerns: impl Fn(LevelKey) -> bool,
) -> Vec<Place> {
    let mut tables: BTreeMap<Option<ClassIndex>, Vec<bool>> = BTreeMap::new();
    for (node, class) in compared {
        let marked = tables.entry(class).or_insert_with(|| vec![false; arena.len()]);
        // Whatever is above a node that was marked was marked with it.
        for node in arena.self_and_ancestors(node) {
            if std::mem::replace(&mut marked[node.get()], true) {
                break;
            }
        }
    }
    let mut places: Vec<Place> = Vec::new();
    for (class, marked) in tables {
        let nodes = arena.indexes().filter(|node| marked[node.get()] && burdens.decides(*node));
        let nodes = nodes.map(|node| (arena.parent(node), node));
        for (above, node) in nodes.filter(|(above, _)| concerns((class, *above))) {
            places.push((arena.self_and_ancestors(node).count(), above, class, node));
        }
    }
    places.sort_unstable_by_key(|(depth, above, class, node)| {
        (*depth, *above, class.map(|class| class.0), *node)
    });
    places.truncate(RUNGS_MAX);
    places
}

/// By the GPUs of which class the projects of jobs are compared that want this, inner `None`: of all; `None` where
/// nothing is compared.
fn table_of(wanted: Wanted) -> Option<Option<ClassIndex>> {
    match wanted {
        Wanted::Class(None) => None,
        Wanted::Class(class) => Some(class),
        Wanted::Any | Wanted::Nothing => Some(None),
    }
}
