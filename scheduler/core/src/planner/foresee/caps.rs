//! What nodes of the quota tree may hold at once, as a look ahead counts it: limits by class and over all classes, how
//! much they may borrow, and how many of their jobs may run.

use std::collections::BTreeMap;

use super::lines::LineId;
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};
use crate::planner::ceiling::Ceilings;
use crate::quota::QuotaNode;
use crate::spec::JobSpec;
use crate::world::World;

/// A job in the unit of a cap that counts jobs.
const ONE_JOB: u64 = 1000;

/// A cap, by its number in [`Caps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CapId(usize);

/// What a cap counts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Counts {
    /// GPUs of a class, thousandths.
    Class(GpuClass),
    /// GPUs of all classes, thousandths.
    Any,
    /// Jobs, thousandths.
    Jobs,
}

/// So much at once.
#[derive(Debug)]
struct Cap {
    counts: Counts,
    most: u64,
    held: u64,
    /// Lines whose first job waits for this.
    parked: Vec<LineId>,
}

/// All caps of the tree.
#[derive(Debug, Default)]
pub(super) struct Caps<'w> {
    caps: Vec<Cap>,
    by_path: BTreeMap<&'w str, Vec<CapId>>,
}

/// What a job takes of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken<'a> {
    /// The class of its GPUs; `None` if it has none.
    pub class: Option<&'a GpuClass>,
    /// How many.
    pub gpus: GpuMilli,
}

impl<'w> Caps<'w> {
    /// Those of the tree in force, with what is held.
    pub fn of(world: &'w World) -> Self {
        let (mut caps, ceilings) = (Caps::default(), Ceilings::of(world));
        for (path, node) in &world.quota.nodes {
            caps.enter(world, path, node);
            for (class, ceiling) in ceilings.at(path.as_str()) {
                let held = world.usage.held(path.as_str(), &class).0;
                caps.add(path, Counts::Class(class), ceiling.most().0, held);
            }
        }
        caps
    }

    fn enter(&mut self, world: &World, path: &'w ProjectPath, node: &QuotaNode) {
        for (class, limit) in &node.limits {
            let held = world.usage.held(path.as_str(), class).0;
            self.add(path, Counts::Class(class.clone()), limit.0, held);
        }
        if let Some(limit) = node.any_limit {
            self.add(path, Counts::Any, limit.0, world.usage.held_any(path.as_str()).0);
        }
        if let Some(jobs) = node.bounds.max_jobs {
            let active = world.usage.get(path.as_str()).map_or(0, |usage| usage.active);
            let [most, held] = [jobs, active].map(|jobs| jobs.saturating_mul(ONE_JOB));
            self.add(path, Counts::Jobs, most, held);
        }
    }

    fn add(&mut self, path: &'w ProjectPath, counts: Counts, most: u64, held: u64) {
        let id = CapId(self.caps.len());
        self.caps.push(Cap { counts, most, held, parked: Vec::new() });
        self.by_path.entry(path.as_str()).or_default().push(id);
    }

    /// Those over a project, its own first.
    pub fn over(&self, project: &ProjectPath) -> Vec<CapId> {
        let paths = project.self_and_ancestors();
        paths.filter_map(|path| self.by_path.get(path)).flatten().copied().collect()
    }

    /// One that leaves no room for so much; `None` if all do.
    pub fn blocking(&self, over: &[CapId], taken: Taken<'_>) -> Option<CapId> {
        let full = |id: &&CapId| {
            let cap = &self.caps[id.0];
            cap.held.saturating_add(cap.counts.of(taken)) > cap.most
        };
        over.iter().find(full).copied()
    }

    /// Whether they would leave room if nothing were held.
    pub fn could_allow(&self, over: &[CapId], taken: Taken<'_>) -> bool {
        over.iter().map(|id| &self.caps[id.0]).all(|cap| cap.counts.of(taken) <= cap.most)
    }

    /// Counts a start.
    pub fn take(&mut self, over: &[CapId], taken: Taken<'_>) {
        for id in over {
            let cap = &mut self.caps[id.0];
            cap.held = cap.held.saturating_add(cap.counts.of(taken));
        }
    }

    /// Counts an end; the lines that waited for it.
    pub fn give_back(&mut self, over: &[CapId], taken: Taken<'_>) -> Vec<LineId> {
        let mut lines = Vec::new();
        for id in over {
            let cap = &mut self.caps[id.0];
            let back = cap.counts.of(taken);
            cap.held = cap.held.saturating_sub(back);
            if back > 0 {
                lines.append(&mut cap.parked);
            }
        }
        lines
    }

    /// Notes that a line waits for the cap.
    pub fn park(&mut self, cap: CapId, line: LineId) {
        self.caps[cap.0].parked.push(line);
    }
}

impl Counts {
    fn of(&self, taken: Taken<'_>) -> u64 {
        match self {
            Counts::Class(class) if taken.class == Some(class) => taken.gpus.0,
            Counts::Class(_) => 0,
            Counts::Any => taken.class.map_or(0, |_| taken.gpus.0),
            Counts::Jobs => ONE_JOB,
        }
    }
}

/// Whether some node at or above the project forbids jobs of that size or length altogether.
pub(super) fn forbids(world: &World, spec: &JobSpec, class: Option<&GpuClass>) -> bool {
    let above = spec.project.self_and_ancestors().filter_map(|path| world.quota.nodes.get(path));
    above.map(|node| &node.bounds).any(|bounds| {
        let gang = class.and_then(|class| bounds.max_gang.as_ref()?.of(class));
        gang.is_some_and(|most| spec.total_gpus() > most)
            || bounds.max_walltime_s.is_some_and(|most| spec.time_limit_s > most)
    })
}
