//! The planner once more, as plainly as it can be said: looks at every node for every job and sorts. Slow, and
//! simple enough to be believed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::ids::{GpuClass, JobId, NodeName};
use gotgan_core::job::Job;
use gotgan_core::quota::entitle::{Arena, Entitlements};
use gotgan_core::spec::GpuRequest;
use gotgan_core::world::{Node, Usage, World};

/// GPUs by node: which of them, by position in the inventory.
pub type Start = BTreeMap<NodeName, Vec<usize>>;

/// What starts where.
pub fn plan(world: &World, now: UnixMicros) -> BTreeMap<JobId, Start> {
    let mut nodes: BTreeMap<NodeName, Node> = world.nodes.clone();
    nodes.retain(|_, node| node.takes_work());
    let mut usage = world.usage.clone();
    let mut starts = BTreeMap::new();
    for key in &world.queue {
        let job = &world.jobs[&key.job];
        if !job.status.waits_for.is_empty() || job.status.not_before > now {
            continue;
        }
        for class in classes(world, job) {
            if !allowed(world, &usage, job, class.as_ref()) {
                continue;
            }
            if let Some(start) = place(&nodes, job, class.as_ref()) {
                take(&mut nodes, &mut usage, job, class.as_ref(), &start);
                starts.insert(job.id, start);
                break;
            }
        }
    }
    starts
}

/// What starts where in a tree with guarantees: looks at every job again after every one it has dealt with.
pub fn plan_by_tier(world: &World, now: UnixMicros) -> BTreeMap<JobId, Start> {
    let mut nodes: BTreeMap<NodeName, Node> = world.nodes.clone();
    nodes.retain(|_, node| node.takes_work());
    let mut usage = world.usage.clone();
    let mut starts = BTreeMap::new();
    let competes = |job: &&Job| job.status.waits_for.is_empty() && job.status.not_before <= now;
    let mut left: Vec<&Job> =
        world.queue.iter().map(|key| &world.jobs[&key.job]).filter(competes).collect();
    let shares = shares(world, &left);
    let mut must_borrow = BTreeSet::new();
    loop {
        let turn = |job: &&Job| {
            let place = place_among(world, &shares, &usage, job, must_borrow.contains(&job.id));
            (place, Reverse(job.spec.total_gpus()), job.id)
        };
        let Some(job) = left.iter().copied().min_by_key(turn) else {
            return starts;
        };
        let borrows = |class: &Option<GpuClass>| is_borrowed(&shares, &usage, job, class.as_ref());
        let all = classes(world, job);
        let borrowing = must_borrow.contains(&job.id) || all.iter().all(borrows);
        let tried = all.iter().filter(|class| borrowing || !borrows(class));
        let found = tried.clone().find_map(|class| {
            let class = class.as_ref();
            let allowed = allowed(world, &usage, job, class);
            let start = if allowed { place(&nodes, job, class) } else { None };
            start.map(|start| (class, start))
        });
        let tried_all = tried.count() == all.len();
        if let Some((class, start)) = found {
            take(&mut nodes, &mut usage, job, class, &start);
            starts.insert(job.id, start);
        } else if !tried_all {
            must_borrow.insert(job.id);
            continue;
        }
        left.retain(|other| other.id != job.id);
    }
}

/// By class.
type Shares = BTreeMap<GpuClass, Entitlements>;

fn shares(world: &World, waiting: &[&Job]) -> Shares {
    let arena = Arc::new(Arena::of(&world.quota));
    let gpus = world.nodes.values().flat_map(|node| &node.inventory.gpus);
    let classes: BTreeSet<GpuClass> = gpus.map(|gpu| gpu.class.clone()).collect();
    let of = |class: GpuClass| {
        let in_service = world.nodes.values().filter(|node| node.is_in_service());
        let gpus = in_service.flat_map(|node| &node.inventory.gpus);
        let capacity = GpuMilli::WHOLE.times(gpus.filter(|gpu| gpu.class == class).count() as u64);
        let demand = |node| {
            let path = arena.path(node);
            let asks = |job: &&&Job| {
                let asked = job.spec.per_node.gpus.class();
                job.spec.project == *path && asked.is_none_or(|asked| *asked == class)
            };
            let asked: GpuMilli =
                waiting.iter().filter(asks).map(|job| job.spec.total_gpus()).sum();
            world.usage.held(path.as_str(), &class) + asked
        };
        let due = Entitlements::new(Arc::clone(&arena), &world.quota, &class, capacity, demand);
        (class, due)
    };
    classes.into_iter().map(of).collect()
}

fn is_borrowed(shares: &Shares, usage: &Usage, job: &Job, class: Option<&GpuClass>) -> bool {
    let Some(class) = class else { return false };
    let Some(due) = shares.get(class) else { return true };
    let Some(node) = due.arena().find(job.spec.project.as_str()) else {
        return true;
    };
    let held = usage.held(job.spec.project.as_str(), class);
    held + job.spec.total_gpus() > due.scaled_guarantee(node)
}

/// Borrowed or not, priority, how far above its share on each level from the top, age.
type Among = (bool, Reverse<i32>, Vec<(bool, u64)>, UnixMicros);

fn place_among(
    world: &World,
    shares: &Shares,
    usage: &Usage,
    job: &Job,
    must_borrow: bool,
) -> Among {
    let classes = classes(world, job);
    let borrowed = classes.iter().all(|class| is_borrowed(shares, usage, job, class.as_ref()));
    let known: Vec<_> = classes.into_iter().flatten().filter(|c| shares.contains_key(c)).collect();
    let mut levels: Vec<&str> = job.spec.project.self_and_ancestors().collect();
    levels.reverse();
    let ratio = |path: &&str| {
        let node = shares.values().next()?.arena().find(path)?;
        let held: GpuMilli = known.iter().map(|class| usage.held(path, class)).sum();
        let due: GpuMilli = known.iter().map(|class| shares[class].of(node).entitled).sum();
        // Exact to a millionth of a millionth, which is finer than fractions of such small numbers can differ.
        let part = (held.0 * 1_000_000_000_000).checked_div(due.0);
        Some((due.is_zero(), part.unwrap_or(0)))
    };
    let ratios = if known.is_empty() { None } else { levels.iter().map(ratio).collect() };
    let ratios = ratios.unwrap_or_default();
    (borrowed || must_borrow, Reverse(job.spec.priority), ratios, job.status.queued)
}

fn classes(world: &World, job: &Job) -> Vec<Option<GpuClass>> {
    match (&job.spec.per_node.gpus, job.spec.per_node.gpus.class()) {
        (GpuRequest::None, _) => vec![None],
        (_, Some(class)) => vec![Some(class.clone())],
        (_, None) => {
            let gpus = world.nodes.values().flat_map(|node| &node.inventory.gpus);
            let names: BTreeSet<_> = gpus.map(|gpu| gpu.class.clone()).collect();
            names.into_iter().map(Some).collect()
        }
    }
}

fn allowed(world: &World, usage: &Usage, job: &Job, class: Option<&GpuClass>) -> bool {
    job.spec.project.self_and_ancestors().all(|path| {
        let Some(node) = world.quota.nodes.get(path) else {
            return false;
        };
        let Some(class) = class else { return true };
        let total = job.spec.total_gpus();
        let limit = node.limits.get(class).copied().unwrap_or(GpuMilli(u64::MAX));
        let any = node.any_limit.unwrap_or(GpuMilli(u64::MAX));
        usage.held(path, class) + total <= limit && usage.held_any(path) + total <= any
    })
}

/// The best nodes, without those it avoids unless the rest could never serve it.
fn place(nodes: &BTreeMap<NodeName, Node>, job: &Job, class: Option<&GpuClass>) -> Option<Start> {
    let avoid = &job.status.avoid;
    let rest: BTreeMap<_, _> = nodes
        .iter()
        .filter(|(name, _)| !avoid.contains(*name))
        .map(|(n, w)| (n.clone(), w.clone()))
        .collect();
    let could_elsewhere = match job.spec.per_node.gpus {
        // Any class will do: avoiding is dropped only if no class could serve without those nodes.
        GpuRequest::Whole { class: None, .. } | GpuRequest::Share { class: None, .. } => {
            let all = nodes.values().flat_map(|node| &node.inventory.gpus);
            let classes: BTreeSet<_> = all.map(|gpu| gpu.class.clone()).collect();
            classes.iter().any(|class| could(&rest, job, Some(class)))
        }
        _ => could(&rest, job, class),
    };
    best(if could_elsewhere { &rest } else { nodes }, job, class)
}

fn could(nodes: &BTreeMap<NodeName, Node>, job: &Job, class: Option<&GpuClass>) -> bool {
    let emptied = nodes.iter().map(|(name, node)| {
        let free = gotgan_core::world::NodeFree::all_of(&node.inventory);
        (name.clone(), Node { free, ..node.clone() })
    });
    best(&emptied.collect(), job, class).is_some()
}

fn best(nodes: &BTreeMap<NodeName, Node>, job: &Job, class: Option<&GpuClass>) -> Option<Start> {
    let mut scored: Vec<_> = nodes
        .iter()
        .filter(|(name, node)| meets(name, node, job))
        .flat_map(|(name, node)| choices(node, job, class).into_iter().map(move |c| (c, name)))
        .map(|((score, gpus), name)| (score, name, gpus))
        .collect();
    scored.sort();
    let mut start = Start::new();
    for (_, name, gpus) in scored {
        if start.len() < job.spec.nodes as usize {
            start.entry(name.clone()).or_insert(gpus);
        }
    }
    (start.len() == job.spec.nodes as usize).then_some(start)
}

fn meets(name: &NodeName, node: &Node, job: &Job) -> bool {
    let constraints = &job.spec.constraints;
    let need = &job.spec.per_node;
    let labels = &node.inventory.labels;
    (constraints.nodes.is_empty() || constraints.nodes.contains(name))
        && !constraints.exclude_nodes.contains(name)
        && constraints.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && node.free.cpu_milli >= need.cpu_milli
        && node.free.memory_mib >= need.memory_mib
}

/// Ways to serve on this node, each with numbers to sort by.
fn choices(node: &Node, job: &Job, class: Option<&GpuClass>) -> Vec<([u64; 3], Vec<usize>)> {
    let cpu = node.free.cpu_milli.0;
    let of_class: Vec<(usize, u64)> = node
        .inventory
        .gpus
        .iter()
        .enumerate()
        .filter(|(_, gpu)| Some(&gpu.class) == class)
        .map(|(index, _)| (index, node.free.gpus[index].0))
        .collect();
    let whole: Vec<usize> =
        of_class.iter().filter(|(_, free)| *free == 1000).map(|(index, _)| *index).collect();
    match job.spec.per_node.gpus {
        GpuRequest::None => vec![([node.inventory.gpus.len() as u64, cpu, 0], Vec::new())],
        GpuRequest::Whole { count, .. } if whole.len() >= count as usize => {
            vec![([whole.len() as u64, cpu, 0], whole[..count as usize].to_vec())]
        }
        GpuRequest::Whole { .. } => Vec::new(),
        GpuRequest::Share { milli, .. } => of_class
            .into_iter()
            .filter(|(_, free)| *free >= u64::from(milli))
            .map(|(index, free)| ([free, whole.len() as u64, cpu], vec![index]))
            .collect(),
    }
}

fn take(
    nodes: &mut BTreeMap<NodeName, Node>,
    usage: &mut Usage,
    job: &Job,
    class: Option<&GpuClass>,
    start: &Start,
) {
    let milli = match job.spec.per_node.gpus {
        GpuRequest::None => GpuMilli::ZERO,
        GpuRequest::Whole { .. } => GpuMilli::WHOLE,
        GpuRequest::Share { milli, .. } => GpuMilli(milli.into()),
    };
    for (name, gpus) in start {
        let free = &mut nodes.get_mut(name).unwrap().free;
        for gpu in gpus {
            free.gpus[*gpu] -= milli;
        }
        free.cpu_milli -= job.spec.per_node.cpu_milli;
        free.memory_mib -= job.spec.per_node.memory_mib;
    }
    if let Some(class) = class {
        usage.take(&job.spec.project, class, job.spec.total_gpus());
    }
}
