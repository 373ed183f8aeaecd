//! What a full pass leaves behind for the passes that follow events: how everybody stood, so that a pass that only asks who
//! starts in what was freed need not find all of that again.
//!
//! Shares, guarantees and what was used are those of the full pass. What is held is put right before every pass, along the
//! paths of the projects of which something started or ended since. So a pass for an event has turns in the order in
//! which a full pass at the same moment would have them, but for what faded and for who began to wait in the meantime.
//!
//! A full pass leaves no bearings where more than room decides who starts: while others stop for somebody. They are
//! dropped when a node comes, goes or is taken out, and when other quotas come into force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fair::{Demand, Fair};
use super::fit::Machine;
use super::places::Places;
use super::score::ClassIndex;
use super::whole::{Whole, class_of};
use crate::array::{self, ARRAY_TASKS_MAX, ArrayTasks};
use crate::attempt::{Attempt, AttemptState};
use crate::change::Change;
use crate::ids::{GpuClass, JobId, NodeName, ProjectPath};
use crate::job::{Job, JobState, JobStatus};
use crate::plan::Decision;
use crate::planned::{PlannedStart, PlannedStarts};
use crate::world::World;

/// Jobs beside the cohorts up to which a pass for an event looks at all of them; each takes longer than a cohort.
const BESIDE_MAX: usize = 256;

/// What a full pass leaves behind for passes that follow events; nothing where the next pass must be a full one.
#[derive(Debug, Clone, Default)]
pub struct Bearings(Option<Box<Kept>>);

#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// The version of the world up to which every change was seen.
    version: u64,
    /// What goes for all nodes together.
    pub whole: Arc<Whole>,
    /// Where projects stand in the quota tree.
    pub places: Arc<Places>,
    /// How everybody stands; with the pass while that is under way.
    pub fair: Option<Box<Fair>>,
    /// Whether anybody is guaranteed anything.
    has_tiers: bool,
    /// Who waited for what.
    pub demands: Vec<Demand>,
    /// Classes of which somebody within a guarantee waits for room: nobody borrows them in a pass for an event.
    pub contested: BTreeSet<ClassIndex>,
    /// Starts that are planned.
    pub planned: Arc<PlannedStarts>,
    /// The same by node, each with its place in their order.
    planned_on: BTreeMap<NodeName, Vec<(usize, JobId)>>,
    /// Of whom something of a class started or ended since it was put right.
    touched: BTreeSet<(ProjectPath, GpuClass)>,
    /// Starts that were decided and have not been seen to happen, with their projects: they may be refused.
    unsettled: BTreeMap<JobId, ProjectPath>,
    /// What changed since the last pass.
    pub fresh: Fresh,
    /// What kept somebody from starting who found room, or might have.
    pub refusing: Refusing,
}

/// What changed since the last pass that could let somebody start who waited then. It may be more than that.
#[derive(Debug, Clone, Default)]
pub(super) struct Fresh {
    /// Nodes on which something was freed, or is free for longer.
    pub nodes: BTreeSet<NodeName>,
    /// Jobs that wait since then, or may have.
    pub jobs: BTreeSet<JobId>,
    /// Projects that hold less, or have more in their accounts.
    pub projects: BTreeSet<ProjectPath>,
    /// The last pass has not looked at everybody.
    pub has_more: bool,
}

/// What keeps jobs from starting beside room.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusing {
    /// Nodes of the quota tree, by their limits and budgets.
    pub paths: BTreeSet<String>,
    /// Guarantees, or what nodes of the tree keep of them: a matter of what everybody holds.
    pub by_all: bool,
}

impl Bearings {
    pub(super) fn of(kept: Kept) -> Self {
        Bearings(Some(Box::new(kept)))
    }

    /// Takes notice of a change of the world.
    pub fn see(&mut self, change: &Change) {
        self.with(|kept| kept.version += 1);
        match change {
            Change::AttemptLeased(attempt) => {
                self.touch(attempt);
                self.with(|kept| _ = kept.unsettled.remove(&attempt.id.job));
            }
            Change::AttemptMoved(attempt) => self.see_attempt(attempt),
            Change::JobSubmitted(job) => self.see_job(job.id, &job.status),
            Change::JobMoved { id, status } => self.see_job(*id, status),
            Change::Booked(entry) => self.with(|kept| {
                kept.fresh.projects.insert(entry.project.clone());
            }),
            Change::NodeRegistered(_)
            | Change::NodeAdministered { .. }
            | Change::NodeHealth { changes_room: true, .. }
            | Change::NodeHeard { .. }
            | Change::NodeLeftovers { .. }
            | Change::WindowMoved(_)
            | Change::QuotaApplied { .. }
            | Change::QuotaTurned { .. } => self.0 = None,
            Change::StepCreated(_)
            | Change::TaskMoved { .. }
            | Change::PassRecorded(_)
            | Change::NodeHealth { changes_room: false, .. }
            | Change::BreakerMoved(_)
            | Change::QuotaAudited(_)
            | Change::QuotaApproved(_)
            | Change::QuotaAlerted(_)
            | Change::Happened(_) => {}
        }
    }

    /// Takes notice that a node has reported which was counted on all along: nothing has changed but that what finds a place
    /// there can start now.
    pub fn see_reported(&mut self, node: &NodeName) {
        self.with(|kept| {
            kept.version += 1;
            kept.fresh.nodes.insert(node.clone());
        });
    }

    /// Whether a pass for an event can be made of the world as it is.
    #[must_use]
    pub fn suffice_for(&self, world: &World) -> bool {
        let has_seen_all = self.0.as_ref().is_some_and(|kept| kept.version == world.version);
        has_seen_all && world.scavengers == 0 && world.cohorts.beside_len() <= BESIDE_MAX
    }

    /// What was kept, with what is held put right; `None` if it does not suffice.
    pub(super) fn put_right(&mut self, world: &World) -> Option<&mut Kept> {
        if !self.suffice_for(world) {
            return None;
        }
        let kept = self.0.as_deref_mut()?;
        kept.put_right(world);
        Some(kept)
    }

    fn with(&mut self, see: impl FnOnce(&mut Kept)) {
        if let Some(kept) = &mut self.0 {
            see(kept);
        }
    }

    fn touch(&mut self, attempt: &Attempt) {
        let Some(class) = &attempt.placement.class else { return };
        self.with(|kept| _ = kept.touched.insert((attempt.project.clone(), class.clone())));
    }

    /// Whatever happened to it, its nodes may be free sooner than they were to be.
    fn see_attempt(&mut self, attempt: &Attempt) {
        self.with(|kept| {
            let nodes = attempt.placement.nodes.iter().map(|held| held.node.clone());
            kept.fresh.nodes.extend(nodes);
        });
        if attempt.state == AttemptState::Ended {
            self.touch(attempt);
            self.with(|kept| _ = kept.fresh.projects.insert(attempt.project.clone()));
        }
    }

    fn see_job(&mut self, id: JobId, status: &JobStatus) {
        self.with(|kept| {
            let waits = status.state == JobState::Pending;
            if waits || status.tasks.is_some() {
                kept.fresh.jobs.insert(id);
            }
            let planned = Arc::clone(&kept.planned);
            let own = planned.of(id).filter(|_| !waits);
            let of_tasks =
                status.tasks.iter().flat_map(|tasks| no_longer_wait(&planned, id, tasks));
            let free = own.into_iter().chain(of_tasks).flat_map(|start| &start.nodes).cloned();
            kept.fresh.nodes.extend(free);
        });
    }
}

/// Starts that are planned for tasks of an array that do not wait, or are no tasks of it at all.
fn no_longer_wait<'a>(
    planned: &'a PlannedStarts,
    array: JobId,
    tasks: &'a ArrayTasks,
) -> impl Iterator<Item = &'a PlannedStart> {
    let (first, last) = (array::task_id(array, 0), array::task_id(array, ARRAY_TASKS_MAX));
    let place = move |job: JobId| u32::try_from(job.0.saturating_sub(first.0)).unwrap_or(u32::MAX);
    let between = planned.between(first, last);
    between.filter(move |(job, _)| !tasks.waiting.contains(place(*job))).map(|(_, start)| start)
}

impl Kept {
    /// What a pass leaves behind that knew this.
    pub fn of(
        version: u64,
        whole: Arc<Whole>,
        (places, fair): (Arc<Places>, Fair),
        demands: Vec<Demand>,
        planned: Arc<PlannedStarts>,
        contested: BTreeSet<ClassIndex>,
    ) -> Self {
        let (planned_on, touched) = (by_node(&planned), BTreeSet::new());
        let (fresh, refusing) = (Fresh::default(), Refusing::default());
        Kept {
            version,
            whole,
            places,
            has_tiers: fair.has_tiers,
            fair: Some(Box::new(fair)),
            demands,
            contested,
            planned,
            planned_on,
            touched,
            unsettled: BTreeMap::new(),
            fresh,
            refusing,
        }
    }

    /// Whether only those can start who find room in what is fresh, and those who are: not where anything that is gone or
    /// smaller may have kept others from room that there was all along.
    pub fn is_narrow(&self) -> bool {
        let refused = |path: &ProjectPath| {
            let mut path = path.self_and_ancestors();
            path.any(|above| self.refusing.paths.contains(above))
        };
        let Fresh { projects, has_more, .. } = &self.fresh;
        let mut projects = projects.iter().chain(self.unsettled.values());
        !has_more && !self.has_tiers && !self.refusing.by_all && !projects.any(refused)
    }

    /// A pass has looked at everything, or not at all of it.
    pub fn begin_anew(&mut self, has_more: bool) {
        self.fresh = Fresh { has_more, ..Fresh::default() };
        self.unsettled.clear();
    }

    /// Notes what a pass has decided: it counts as given already, and may yet be refused. Then what it was given is fresh.
    pub fn note<'w>(&mut self, decisions: &[Decision], job: impl Fn(JobId) -> Option<&'w Job>) {
        for decision in decisions {
            let Decision::Start { job: id, placement } = decision else { continue };
            self.fresh.jobs.insert(*id);
            self.fresh.nodes.extend(placement.nodes.iter().map(|held| held.node.clone()));
            let Some(job) = job(*id) else { continue };
            self.unsettled.insert(*id, job.spec.project.clone());
            if let Some(class) = &placement.class {
                self.touched.insert((job.spec.project.clone(), class.clone()));
            }
        }
    }

    /// What is held is what the world says.
    fn put_right(&mut self, world: &World) {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() {
            return;
        }
        let Some(fair) = &mut self.fair else { return };
        for (project, name) in touched {
            let class = class_of(&self.whole.classes, &name);
            let Some((node, class)) = fair.find(&project).zip(class) else { continue };
            let path: Vec<_> = fair.self_and_ancestors(node).collect();
            for node in path {
                let held = world.usage.held(fair.arena().path(node).as_str(), &name);
                fair.put_right(node, class, held);
            }
        }
    }

    /// Jobs for which a start is planned on any node of the machine, in the order in which they were planned.
    pub fn planned_on(&self, machine: &Machine<'_>) -> Vec<JobId> {
        let here = machine.slots.iter().filter_map(|slot| self.planned_on.get(slot.name));
        let places: BTreeSet<(usize, JobId)> = here.flatten().copied().collect();
        places.into_iter().map(|(_, job)| job).collect()
    }
}

/// Planned starts by node, each with its place in their order.
fn by_node(planned: &PlannedStarts) -> BTreeMap<NodeName, Vec<(usize, JobId)>> {
    let mut by_node: BTreeMap<NodeName, Vec<(usize, JobId)>> = BTreeMap::new();
    for (place, (job, start)) in planned.iter().enumerate() {
        for node in &start.nodes {
            by_node.entry(node.clone()).or_default().push((place, job));
        }
    }
    by_node
}
