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
use super::score::ClassIndex;
use super::whole::Whole;
use crate::attempt::{Attempt, AttemptState};
use crate::change::Change;
use crate::ids::{GpuClass, JobId, NodeName, ProjectPath};
use crate::job::Job;
use crate::plan::Decision;
use crate::planned::PlannedStarts;
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
    pub whole: Whole,
    /// How everybody stands.
    pub fair: Arc<Fair>,
    /// Who waited for what.
    pub demands: Vec<Demand>,
    /// Classes of which somebody within a guarantee waits for room: nobody borrows them in a pass for an event.
    pub contested: BTreeSet<ClassIndex>,
    /// Starts that are planned.
    pub planned: Arc<PlannedStarts>,
    /// The same by node, each with its place in their order; found once asked for.
    planned_on: Option<BTreeMap<NodeName, Vec<(usize, JobId)>>>,
    /// Of whom something of a class started or ended since it was put right.
    touched: BTreeSet<(ProjectPath, GpuClass)>,
}

impl Bearings {
    pub(super) fn of(kept: Kept) -> Self {
        Bearings(Some(Box::new(kept)))
    }

    /// Takes notice of a change of the world.
    pub fn see(&mut self, change: &Change) {
        if let Some(kept) = &mut self.0 {
            kept.version += 1;
        }
        match change {
            Change::AttemptLeased(attempt) => self.touch(attempt),
            Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => {
                self.touch(attempt);
            }
            Change::NodeRegistered(_)
            | Change::NodeAdministered { .. }
            | Change::NodeHeard { .. }
            | Change::NodeLeftovers { .. }
            | Change::WindowMoved(_)
            | Change::QuotaApplied { .. }
            | Change::QuotaTurned { .. } => self.0 = None,
            Change::JobSubmitted(_)
            | Change::JobMoved { .. }
            | Change::AttemptMoved(_)
            | Change::StepCreated(_)
            | Change::TaskMoved { .. }
            | Change::PassRecorded(_)
            | Change::Booked(_)
            | Change::QuotaAudited(_)
            | Change::QuotaApproved(_)
            | Change::QuotaAlerted(_)
            | Change::Happened(_) => {}
        }
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

    fn touch(&mut self, attempt: &Attempt) {
        let (Some(kept), Some(class)) = (&mut self.0, &attempt.placement.class) else { return };
        kept.touched.insert((attempt.project.clone(), class.clone()));
    }
}

impl Kept {
    /// What a pass leaves behind that knew this.
    pub fn of(
        version: u64,
        whole: Whole,
        fair: Arc<Fair>,
        demands: Vec<Demand>,
        planned: Arc<PlannedStarts>,
        contested: BTreeSet<ClassIndex>,
    ) -> Self {
        let (planned_on, touched) = (None, BTreeSet::new());
        Kept { version, whole, fair, demands, contested, planned, planned_on, touched }
    }

    /// Notes what a pass has decided: it counts as given already, and may yet be refused.
    pub fn note<'w>(&mut self, decisions: &[Decision], job: impl Fn(JobId) -> Option<&'w Job>) {
        for decision in decisions {
            let Decision::Start { job: id, placement } = decision else { continue };
            if let (Some(job), Some(class)) = (job(*id), &placement.class) {
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
        let fair = Arc::make_mut(&mut self.fair);
        for (project, name) in touched {
            let node = fair.find(&project);
            let class = self.whole.classes.binary_search(&name).ok();
            let class = class.and_then(|at| u16::try_from(at).ok()).map(ClassIndex);
            let (Some(node), Some(class)) = (node, class) else { continue };
            let path: Vec<_> = fair.self_and_ancestors(node).collect();
            for node in path {
                let held = world.usage.held(fair.arena().path(node).as_str(), &name);
                fair.put_right(node, class, held);
            }
        }
    }

    /// Jobs for which a start is planned on any node of the machine, in the order in which they were planned.
    pub fn planned_on(&mut self, machine: &Machine<'_>) -> Vec<JobId> {
        let planned = &self.planned;
        let by_node = self.planned_on.get_or_insert_with(|| {
            let mut by_node: BTreeMap<NodeName, Vec<(usize, JobId)>> = BTreeMap::new();
            for (place, (job, start)) in planned.iter().enumerate() {
                for node in &start.nodes {
                    by_node.entry(node.clone()).or_default().push((place, job));
                }
            }
            by_node
        });
        let here = machine.slots.iter().filter_map(|slot| by_node.get(slot.name));
        let places: BTreeSet<(usize, JobId)> = here.flatten().copied().collect();
        places.into_iter().map(|(_, job)| job).collect()
    }
}
