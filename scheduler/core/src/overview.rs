//! How a node of the quota tree stands, class by class: what it is guaranteed, what is left of that while hardware is
//! missing, what it holds and asks for, who else holds what it does not use, and which node above binds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{GpuClass, LotName, ProjectPath};
use crate::job::{Job, JobState};
use crate::planner;
use crate::quota::entitle::{Arena, Entitlements};
use crate::world::World;

/// Most borrowers that are named.
const BORROWERS_MAX: usize = 5;

/// How a node stands in one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which class.
    pub class: GpuClass,
    /// What the tree guarantees it, with what is given below it.
    pub guarantee: GpuMilli,
    /// What is left of that because less is in service than was guaranteed.
    pub scaled: GpuMilli,
    /// What is fair now: of its guarantee what it asks for, and its part of what others leave.
    pub entitled: GpuMilli,
    /// What it holds, without its scavengers.
    pub held: GpuMilli,
    /// What its scavengers hold, which counts in no guarantee.
    pub scavenged: GpuMilli,
    /// What it holds and what its waiting jobs ask for.
    pub asked: GpuMilli,
    /// The least of its limits and those above it.
    pub limit: Option<BindingLimit>,
    /// Of its guarantee, what it does not hold and others hold beyond theirs.
    pub lent: GpuMilli,
    /// Of its guarantee that nobody asks for, what it and nodes below it keep from others.
    pub kept: GpuMilli,
    /// Who holds most beyond what they are guaranteed, the most first; not below this node.
    pub borrowers: Vec<(ProjectPath, GpuMilli)>,
    /// Batches that are due and not accepted: lot and number, from 1.
    pub waits_for: Vec<(LotName, usize)>,
}

/// A limit that binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingLimit {
    /// At which node.
    pub path: ProjectPath,
    /// What it allows.
    pub limit: GpuMilli,
    /// What counts against it now.
    pub held: GpuMilli,
}

impl Standing {
    /// Of what it holds, what is beyond its guarantee.
    #[must_use]
    pub fn borrowed(&self) -> GpuMilli {
        self.held.saturating_sub(self.scaled)
    }
}

/// How the node at `path` stands at `now` in every class that it has to do with; `None` if the tree has no such node.
#[must_use]
pub fn standings(world: &World, path: &ProjectPath, now: UnixMicros) -> Option<Vec<Standing>> {
    world.quota.get(path)?;
    let due = planner::entitlements(world, now);
    let asked = asked_by_path(world, due.keys().collect(), now);
    let standing = |class: GpuClass| {
        // Of a class that nothing in service has, nothing is due to anybody.
        let none = || {
            Entitlements::new(
                Arc::new(Arena::of(&world.quota)),
                &world.quota,
                &class,
                GpuMilli::ZERO,
                |_| GpuMilli::ZERO,
            )
        };
        let due = due.get(&class).cloned().unwrap_or_else(none);
        standing(&Scene { world, due: &due, class: &class, now }, path, &asked)
    };
    let classes = classes_of(world, path, &asked).into_iter();
    Some(classes.filter_map(standing).collect())
}

fn standing(
    scene: &Scene<'_>,
    path: &ProjectPath,
    asked: &BTreeMap<String, ByClass>,
) -> Option<Standing> {
    let Scene { world, due, class, .. } = *scene;
    let node = due.arena().find(path.as_str())?;
    let held = world.usage.held(path.as_str(), class);
    let borrowers = scene.borrowers(path);
    let unused = due.scaled_guarantee(node).saturating_sub(held);
    let beyond = borrowers.iter().map(|(_, gpus)| *gpus).sum();
    Some(Standing {
        class: class.clone(),
        guarantee: due.guarantee(node),
        scaled: due.scaled_guarantee(node),
        entitled: due.of(node).entitled,
        held,
        scavenged: world.usage.scavenged(path.as_str(), class),
        asked: asked.get(path.as_str()).and_then(|of| of.get(class)).copied().unwrap_or_default(),
        limit: scene.binding_limit(path),
        lent: unused.min(beyond),
        kept: due.kept(node),
        borrowers: borrowers.into_iter().take(BORROWERS_MAX).collect(),
        waits_for: scene.waits_for(),
    })
}

/// What one class is looked at with.
struct Scene<'a> {
    world: &'a World,
    due: &'a Entitlements,
    class: &'a GpuClass,
    now: UnixMicros,
}

impl Scene<'_> {
    /// Projects beyond their guarantee, the most first.
    fn borrowers(&self, outside: &ProjectPath) -> Vec<(ProjectPath, GpuMilli)> {
        let arena = self.due.arena();
        let leaves = arena.indexes().filter(|node| arena.is_leaf(*node));
        let excess = leaves.filter_map(|leaf| {
            let path = arena.path(leaf);
            let held = self.world.usage.held(path.as_str(), self.class);
            let excess = held.saturating_sub(self.due.scaled_guarantee(leaf));
            let counts = !excess.is_zero() && !path.is_within(outside.as_str());
            counts.then(|| (path.clone(), excess))
        });
        let mut borrowers: Vec<_> = excess.collect();
        borrowers.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        borrowers
    }

    fn binding_limit(&self, path: &ProjectPath) -> Option<BindingLimit> {
        let limits = path.self_and_ancestors().filter_map(|above| {
            let (above, node) = self.world.quota.nodes.get_key_value(above)?;
            let limit = *node.limits.get(self.class)?;
            let held = self.world.usage.held(above.as_str(), self.class);
            Some(BindingLimit { path: above.clone(), limit, held })
        });
        limits.min_by_key(|binding| binding.limit.saturating_sub(binding.held))
    }

    fn waits_for(&self) -> Vec<(LotName, usize)> {
        let book = &self.world.book;
        let due = book.lots.iter().filter(|(_, lot)| {
            let cluster = book.clusters.get(&lot.cluster);
            lot.due <= self.now && cluster.is_some_and(|cluster| cluster.class == *self.class)
        });
        let batches = due.flat_map(|(name, lot)| {
            let open = (1..)
                .zip(&lot.batches)
                .filter(|(_, batch)| batch.accepted.is_none_or(|accepted| accepted > self.now));
            open.map(|(number, _)| (name.clone(), number))
        });
        batches.collect()
    }
}

type ByClass = BTreeMap<GpuClass, GpuMilli>;

/// What is held and what waiting jobs ask for, at every path; a job that takes any class asks for each there is.
fn asked_by_path(
    world: &World,
    there: Vec<&GpuClass>,
    now: UnixMicros,
) -> BTreeMap<String, ByClass> {
    let held = world.usage.iter().map(|(path, usage)| (path.to_owned(), usage.held.clone()));
    let mut asked: BTreeMap<String, ByClass> = held.collect();
    let jobs = world.jobs.values().filter(|job| competes(job, now)).map(|job| (job, 1));
    let arrays = world.arrays.values().map(|array| (array, tasks_competing(array)));
    for (job, times) in jobs.chain(arrays) {
        let gpus = job.spec.total_gpus().times(times);
        let classes: Vec<&GpuClass> = match job.spec.per_node.gpus.class() {
            Some(class) => vec![class],
            None => there.clone(),
        };
        for path in job.spec.project.self_and_ancestors().filter(|_| !gpus.is_zero()) {
            let of = asked.entry(path.to_owned()).or_default();
            for class in &classes {
                *of.entry((*class).clone()).or_default() += gpus;
            }
        }
    }
    asked
}

fn competes(job: &Job, now: UnixMicros) -> bool {
    let status = &job.status;
    let may_start = status.state == JobState::Pending && status.waits_for.is_empty();
    may_start && status.not_before <= now && !job.spec.scavenger
}

/// Tasks of an array that compete and are no jobs of their own: no more than may run at once.
fn tasks_competing(array: &Job) -> u64 {
    let limit = array.spec.array.as_ref().and_then(|array| array.at_once);
    let tasks = array.status.tasks.as_deref();
    let tasks = tasks.filter(|_| array.status.waits_for.is_empty() && !array.spec.scavenger);
    tasks.map_or(0, |tasks| {
        let more = limit.map_or(u32::MAX, |limit| limit.saturating_sub(tasks.active()));
        u64::from(tasks.ready().len().min(more))
    })
}

/// Classes that the node or one below it is guaranteed, limited to, holds, asks for or scavenges.
fn classes_of(
    world: &World,
    path: &ProjectPath,
    asked: &BTreeMap<String, ByClass>,
) -> BTreeSet<GpuClass> {
    let below = world.quota.nodes.iter().filter(|(node, _)| node.is_within(path.as_str()));
    let said = below.flat_map(|(_, node)| node.guarantees.keys().chain(node.limits.keys()));
    let used = asked.get(path.as_str()).into_iter().flat_map(ByClass::keys);
    let scavenged = world.usage.get(path.as_str()).into_iter().flat_map(|of| of.scavenged.keys());
    said.chain(used).chain(scavenged).cloned().collect()
}
