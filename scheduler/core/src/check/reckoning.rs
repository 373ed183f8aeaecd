//! What the judgement of guarantees takes from all nodes and attempts, found once for decisions that are checked one after
//! the other: what one of them changes of it is told, and is little.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::amount::{GpuMilli, UnixMicros};
use crate::attempt::Attempt;
use crate::ids::{AttemptId, GpuClass, NodeName, ProjectPath};
use crate::meter::Footing;
use crate::plan::Decision;
use crate::quota::entitle::{Arena, Entitlements};
use crate::world::{Node, World};

use super::fabric::Fabrics;

/// Found where it is first asked for. Right as long as nothing but decisions changes the world, and each of those is told.
#[derive(Debug, Default)]
pub struct Reckoning {
    due: BTreeMap<GpuClass, Arc<Entitlements>>,
    free: BTreeMap<GpuClass, u64>,
    active: BTreeMap<GpuClass, Active>,
    attempts: Option<ByPath>,
    fabrics: Option<Arc<Fabrics>>,
}

impl Reckoning {
    /// What nodes of the quota tree are guaranteed of the class, and what is left of that by what is in service.
    pub(super) fn due(&mut self, world: &World, class: &GpuClass) -> Arc<Entitlements> {
        let fabrics = Arc::clone(self.fabrics(world));
        let due = self.due.entry(class.clone()).or_insert_with(|| {
            let capacity = gpus_in_service(world, &fabrics, class).map(|(amount, _)| amount).sum();
            let (arena, tree) = (Arc::new(Arena::of(&world.quota)), &world.quota);
            Arc::new(Entitlements::new(arena, tree, class, GpuMilli(capacity), |_| GpuMilli::ZERO))
        });
        Arc::clone(due)
    }

    /// Thousandths of the class that are free on nodes in service.
    pub(super) fn free(&mut self, world: &World, class: &GpuClass) -> u64 {
        let fabrics = Arc::clone(self.fabrics(world));
        let free = || gpus_in_service(world, &fabrics, class).map(|(_, free)| free).sum();
        *self.free.entry(class.clone()).or_insert_with(free)
    }

    /// What attempts that do not stop hold of the class.
    pub(super) fn active(&mut self, world: &World, class: &GpuClass) -> &Active {
        self.active.entry(class.clone()).or_insert_with(|| Active::of(world, class))
    }

    /// Attempts that have not ended at and below the path.
    pub(super) fn attempts(&mut self, world: &World, path: &str) -> u64 {
        let count = || {
            let mut attempts = ByPath::default();
            world.attempts.values().for_each(|attempt| attempts.add(&attempt.project, 1));
            attempts
        };
        self.attempts.get_or_insert_with(count).at(path)
    }

    /// Which nodes are reserved, and which stand by.
    pub(super) fn fabrics(&mut self, world: &World) -> &Arc<Fabrics> {
        self.fabrics.get_or_insert_with(|| Arc::new(Fabrics::of(world)))
    }

    /// The decision was committed to the world, which is as it is after it.
    pub(crate) fn committed(&mut self, world: &World, decision: &Decision) {
        match decision {
            Decision::Start { job, .. } => {
                let number = world.jobs.get(job).map_or(0, |job| job.status.attempt);
                let attempt = world.attempts.get(&AttemptId { job: *job, number });
                attempt.into_iter().for_each(|attempt| self.starts(attempt));
            }
            Decision::Preempt { attempt, .. } => self.stops(world, *attempt),
        }
    }

    fn starts(&mut self, attempt: &Attempt) {
        if let Some(attempts) = &mut self.attempts {
            attempts.add(&attempt.project, 1);
        }
        let Some(class) = &attempt.placement.class else { return };
        if let Some(free) = self.free.get_mut(class) {
            *free = free.saturating_sub(attempt.gpus().0);
        }
        if let Some(active) = self.active.get_mut(class).filter(|_| !attempt.scavenges()) {
            active.add(attempt);
        }
    }

    /// The attempt stops, by a decision that comes before those that are still to be judged.
    pub(super) fn stops(&mut self, world: &World, id: AttemptId) {
        let Some(attempt) = world.attempts.get(&id) else { return };
        let active = attempt.placement.class.as_ref().and_then(|class| self.active.get_mut(class));
        active.into_iter().for_each(|active| active.remove(attempt));
    }
}

/// Of each GPU or instance of the class on nodes in service, what it is and what of it is free, thousandths.
fn gpus_in_service<'w>(
    world: &'w World,
    fabrics: &'w Fabrics,
    class: &'w GpuClass,
) -> impl Iterator<Item = (u64, u64)> + 'w {
    let counts =
        |(name, node): &(&NodeName, &Node)| node.is_in_service() && !fabrics.stands_by(name);
    let nodes = world.nodes.iter().filter(counts);
    let gpus = nodes.flat_map(|(_, node)| node.inventory.gpus.iter().zip(&node.free.gpus));
    let of_class = gpus.filter(move |(gpu, _)| gpu.class == *class);
    of_class.map(|(gpu, free)| (gpu.amount().0, free.0))
}

/// An amount at and below each path of the quota tree.
#[derive(Debug, Default)]
struct ByPath(BTreeMap<String, u64>);

impl ByPath {
    fn add(&mut self, project: &ProjectPath, amount: u64) {
        for path in project.self_and_ancestors() {
            match self.0.get_mut(path) {
                Some(sum) => *sum += amount,
                None => drop(self.0.insert(path.to_owned(), amount)),
            }
        }
    }

    fn take(&mut self, project: &ProjectPath, amount: u64) {
        for path in project.self_and_ancestors() {
            if let Some(sum) = self.0.get_mut(path) {
                *sum = sum.saturating_sub(amount);
            }
        }
    }

    fn at(&self, path: &str) -> u64 {
        self.0.get(path).copied().unwrap_or_default()
    }
}

/// Where an attempt stands among those of its project.
type Place = (Footing, UnixMicros, AttemptId);

/// What attempts that do not stop hold of one class; scavengers, which stop for everybody else, are none of them.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// What they hold.
    by_path: ByPath,
    by_project: BTreeMap<ProjectPath, BTreeMap<Place, u64>>,
}

impl Active {
    fn of(world: &World, class: &GpuClass) -> Self {
        let mut active = Active::default();
        let counts = |attempt: &&Arc<Attempt>| {
            let of_class = attempt.placement.class.as_ref() == Some(class);
            of_class && attempt.stop.is_none() && !attempt.scavenges()
        };
        world.attempts.values().filter(counts).for_each(|attempt| active.add(attempt));
        active
    }

    fn add(&mut self, attempt: &Attempt) {
        let gpus = attempt.gpus().0;
        let project = self.by_project.entry(attempt.project.clone()).or_default();
        project.insert(attempt.place_in_line(), gpus);
        self.by_path.add(&attempt.project, gpus);
    }

    fn remove(&mut self, attempt: &Attempt) {
        let project = self.by_project.get_mut(&attempt.project);
        let Some(gpus) = project.and_then(|project| project.remove(&attempt.place_in_line()))
        else {
            return;
        };
        self.by_path.take(&attempt.project, gpus);
    }

    /// At and below the path.
    pub fn at(&self, path: &str) -> u64 {
        self.by_path.at(path)
    }

    /// At and below the path, by attempts up to that place in line.
    pub fn up_to(&self, path: &str, last: Place) -> u64 {
        let below = format!("{path}/");
        let from = (Bound::Included(below.as_str()), Bound::Unbounded);
        let below = self.by_project.range::<str, _>(from);
        let below = below.take_while(|(project, _)| project.is_within(path));
        let own = self.by_project.get(path).into_iter().chain(below.map(|(_, lines)| lines));
        own.flat_map(|lines| lines.range(..=last)).map(|(_, gpus)| gpus).sum()
    }
}
