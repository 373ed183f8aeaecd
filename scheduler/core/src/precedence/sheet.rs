//! What a pass that started something leaves behind, and what follows from it for any job that waited then.
//!
//! The standings are those of the beginning of the pass; what the pass gave is beside them in the order in which it was
//! given. So the standing of a node at the moment of any start is that of the beginning and what was given to it since,
//! to the last bit what the planner compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rank::{Own, Rank, Rung, Stage, Sums};
use crate::amount::{GpuMilli, UnixMicros};
use crate::fairshare::{OrderRule, Standing};
use crate::ids::{GpuClass, JobId, ProjectPath};
use crate::job::Job;
use crate::plan::Blocker;
use crate::spec::GpuRequest;

/// Where no more than so many wait for different things, a sheet keeps how all of them stand. Of more it keeps the levels on
/// the paths to the projects of those that started, on one of which any other project parts from them: a nation has
/// thousands of projects that wait, and a record of each start must stay small.
pub const WHOLE_MAX: usize = 64;

/// Standings a sheet keeps at most, those nearest to the top first.
pub const RUNGS_MAX: usize = 256;

/// Of those that were passed over a sheet keeps so many, in the order of their turns.
pub const PASSED_MAX: usize = 32;

/// What a pass knew of everybody who waited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassSheet {
    /// When.
    pub at: UnixMicros,
    /// By which rule projects take turns.
    pub rule: OrderRule,
    /// After so many minutes what was used counts half.
    pub half_life_minutes: u32,
    /// What is held now counts as if it had been held for so many seconds.
    pub always_s: u64,
    /// Of the quota book.
    pub revision: u64,
    /// Whether anybody is guaranteed anything, so that jobs within a guarantee go first.
    pub has_tiers: bool,
    /// The only node that has none above it, by which nothing is decided.
    pub top: Option<ProjectPath>,
    /// Every class of GPU there is.
    pub classes: Vec<GpuClass>,
    /// Standings of what waits and of what lies above.
    pub levels: Vec<LevelSheet>,
    /// What projects that wait are guaranteed; empty where nobody is guaranteed anything.
    pub guaranteed: Vec<Guaranteed>,
    /// What the pass gave, in its order, also what it kept for jobs that others stop for.
    pub takes: Vec<Take>,
    /// Jobs for which others had stopped.
    pub promised: Vec<JobId>,
    /// Jobs whose turn came before that of a job that started, and which could not start.
    pub passed: Vec<Passed>,
    /// How many more there were.
    pub passed_more: u32,
}

/// Nodes of the quota tree below one other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelSheet {
    /// By which GPUs they are compared; `None`: all together.
    pub class: Option<GpuClass>,
    /// The node above; `None`: there is none.
    pub above: Option<ProjectPath>,
    /// Over all of them, also those that do not wait.
    pub sums: Sums,
    /// Those that wait, or have something below that does.
    pub nodes: BTreeMap<ProjectPath, Standing>,
}

/// What a project is guaranteed of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guaranteed {
    /// Which project.
    pub project: ProjectPath,
    /// Of which class.
    pub class: GpuClass,
    /// What is guaranteed of what is in service.
    pub guarantee: GpuMilli,
    /// What it holds.
    pub held: GpuMilli,
}

/// GPUs that the pass gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// To which project.
    pub project: ProjectPath,
    /// Of which class.
    pub class: GpuClass,
    /// How many.
    pub gpus: GpuMilli,
}

/// A job that was passed over, or the first of a cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Which.
    pub job: JobId,
    /// Whether all jobs like it were.
    pub cohort: bool,
    /// The worst reason.
    pub reason: Blocker,
    /// By when a start was planned for it.
    pub planned: Option<UnixMicros>,
}

/// A start, with the rank that the job had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTurn {
    /// Which job.
    pub job: JobId,
    /// Its place in the order.
    pub rank: Rank,
    /// What the pass had given before.
    pub takes: u32,
}

/// What a pass leaves behind that started something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassTurns {
    /// What it knew.
    pub sheet: PassSheet,
    /// Its starts, in their order.
    pub starts: Vec<StartTurn>,
}

/// By what a job's project is compared with others.
enum Compared<'a> {
    /// By GPUs of this class, or by all together.
    By(Option<&'a GpuClass>),
    /// By nothing: there is no such class, or it is a scavenger.
    Nothing,
}

impl PassSheet {
    /// The rank of a job that waited, once the pass had given so much; `None` if the sheet does not tell.
    #[must_use]
    pub fn rank(&self, job: &Job, takes: u32) -> Option<Rank> {
        let (rank, is_whole) = self.rank_as_kept(job, takes)?;
        is_whole.then_some(rank)
    }

    /// The same as far as the sheet tells, from the top of the tree down; and whether that is all of it.
    pub(super) fn rank_as_kept(&self, job: &Job, takes: u32) -> Option<(Rank, bool)> {
        let stage = self.stage(job, takes)?;
        let promised = stage == Stage::Guaranteed && self.promised.contains(&job.id);
        let (rungs, is_whole) = match self.compared(job) {
            Compared::By(class) => self.rungs(&job.spec.project, class, takes),
            Compared::Nothing => (Vec::new(), true),
        };
        let own = Own {
            priority: job.spec.priority,
            queued: job.status.queued,
            gpus: job.spec.total_gpus(),
            job: job.id,
        };
        Some((Rank { stage, promised, rungs, own: Some(own) }, is_whole))
    }

    fn compared<'a>(&self, job: &'a Job) -> Compared<'a> {
        let gpus = &job.spec.per_node.gpus;
        if job.spec.scavenger {
            return Compared::Nothing;
        }
        match (gpus, gpus.class()) {
            (GpuRequest::None, _) | (_, None) => Compared::By(None),
            (_, Some(class)) if self.classes.contains(class) => Compared::By(Some(class)),
            (_, Some(_)) => Compared::Nothing,
        }
    }

    /// The part of the pass in which a job that waits had its first turn, but for budgets.
    fn stage(&self, job: &Job, takes: u32) -> Option<Stage> {
        let gpus = &job.spec.per_node.gpus;
        if job.spec.scavenger {
            return Some(Stage::Scavenger);
        }
        if !self.has_tiers {
            return Some(Stage::Borrowed);
        }
        if gpus.amount().is_zero() {
            return Some(Stage::Guaranteed);
        }
        if matches!(self.compared(job), Compared::Nothing) {
            return Some(Stage::Borrowed);
        }
        let may_have = |row: &&Guaranteed| {
            row.project == job.spec.project && gpus.class().is_none_or(|class| row.class == *class)
        };
        let mut rows = self.guaranteed.iter().filter(may_have).peekable();
        rows.peek()?;
        let asks = job.spec.total_gpus();
        let within = rows.any(|row| {
            let given = self.given(row.project.as_str(), Some(&row.class), takes);
            row.held.0.saturating_add(given.0).saturating_add(asks.0) <= row.guarantee.0
        });
        Some(if within { Stage::Guaranteed } else { Stage::Borrowed })
    }

    /// What a node of the tree was compared by on each level, from the top down.
    /// From the top down as far as they are kept, and whether all are.
    fn rungs(
        &self,
        project: &ProjectPath,
        class: Option<&GpuClass>,
        takes: u32,
    ) -> (Vec<Rung>, bool) {
        let (mut rungs, mut is_whole, mut next) = (Vec::new(), true, Some(project.clone()));
        while let Some(node) = next.filter(|node| self.top.as_ref() != Some(node)) {
            next = node.parent().and_then(|above| ProjectPath::new(above).ok());
            let of_class = |level: &&LevelSheet| level.class.as_ref() == class;
            let mut levels = self.levels.iter().filter(of_class);
            let kept = levels.find_map(|level| Some((level, *level.nodes.get(&node)?)));
            let Some((level, mut standing)) = kept else {
                // What lies below says nothing without it.
                rungs.clear();
                is_whole = false;
                continue;
            };
            let given = self.given(node.as_str(), class, takes).0.saturating_mul(self.always_s);
            standing.used = standing.used.saturating_add(given);
            let (node, class, sums) = (Some(node), level.class.clone(), level.sums);
            rungs.push(Rung { node, class, standing, sums });
        }
        rungs.reverse();
        (rungs, is_whole)
    }

    /// What the pass had given a node and what is below it, of one class or of all.
    fn given(&self, node: &str, class: Option<&GpuClass>, takes: u32) -> GpuMilli {
        let takes = self.takes.iter().take(takes as usize).filter(|take| {
            take.project.is_within(node) && class.is_none_or(|class| take.class == *class)
        });
        GpuMilli(takes.fold(0, |sum, take| sum.saturating_add(take.gpus.0)))
    }

    /// Why that job was passed over: by itself, or as one of the cohort of another that `is_like` it.
    pub fn passed(&self, job: JobId, is_like: impl Fn(JobId) -> bool) -> Option<&Passed> {
        let alone = self.passed.iter().find(|passed| passed.job == job);
        alone.or_else(|| self.passed.iter().find(|passed| passed.cohort && is_like(passed.job)))
    }
}
