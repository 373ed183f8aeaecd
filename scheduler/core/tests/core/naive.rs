//! The planner once more, as plainly as it can be said: looks at every node for every job and sorts. Slow, and
//! simple enough to be believed.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::fragmentation::{ClassNumber, ClassSet, Counts, GpuShape, Mix, Room, Shape};
use gotgan_core::ids::{GpuClass, JobId, NodeName};
use gotgan_core::job::Job;
use gotgan_core::node::Gpu;
use gotgan_core::quota::entitle::{Arena, Entitlements};
use gotgan_core::spec::GpuRequest;
use gotgan_core::world::{Node, Usage, World};

/// GPUs by node: which of them, by position in the inventory.
pub type Start = BTreeMap<NodeName, Vec<usize>>;

fn has_tiers(world: &World) -> bool {
    world.quota.nodes.values().flat_map(|node| node.guarantees.values()).any(|gpus| !gpus.is_zero())
}

/// What starts where, by guarantees and shares: looks at every job again after every one it has dealt with. Knows no past.
pub fn plan(world: &World, now: UnixMicros) -> BTreeMap<JobId, Start> {
    let mut nodes: BTreeMap<NodeName, Node> = world.nodes.clone();
    nodes.retain(|_, node| node.takes_work());
    let mut usage = world.usage.clone();
    let mut starts = BTreeMap::new();
    let typical = Typical::of(world);
    let mut power = Power::of(world);
    let competes = |job: &&Job| job.status.waits_for.is_empty() && job.status.not_before <= now;
    let mut left: Vec<&Job> =
        world.queue.iter().map(|key| world.jobs[&key.job].as_ref()).filter(competes).collect();
    let shares = shares(world, &left);
    let levels = Levels::of(world, &shares);
    let mut must_borrow = BTreeSet::new();
    loop {
        let turn = |job: &&Job| {
            let place =
                place_among(world, &shares, &levels, &usage, job, must_borrow.contains(&job.id));
            (place, Reverse(job.spec.total_gpus()), job.id)
        };
        let Some(job) = left.iter().copied().min_by_key(turn) else {
            return starts;
        };
        let borrows = |class: &Option<GpuClass>| is_borrowed(&shares, &usage, job, class.as_ref());
        let all = classes(world, job);
        let borrowing =
            !has_tiers(world) || must_borrow.contains(&job.id) || all.iter().all(borrows);
        let tried = all.iter().filter(|class| borrowing || !borrows(class));
        let allowed = tried.clone().filter(|class| allowed(world, &usage, job, class.as_ref()));
        let found = lightest(&typical, &nodes, &power, job, allowed);
        let tried_all = tried.count() == all.len();
        if let Some((class, start)) = found {
            take(&mut nodes, &mut usage, job, class.as_ref(), &start);
            power.take(job, class.as_ref(), &start);
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
        let capacity = gpus.filter(|gpu| gpu.class == class).map(Gpu::amount).sum();
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

/// Borrowed or not, how far from its turn on each level from the top, priority, age.
type Place = (bool, Vec<Of>, Reverse<i32>, UnixMicros);

/// What nodes would have if everybody asked for everything.
fn full(world: &World, due: &Entitlements, class: &GpuClass) -> Entitlements {
    let there = world.nodes.values().filter(|node| node.is_in_service());
    let gpus = there.flat_map(|node| &node.inventory.gpus).filter(|gpu| gpu.class == *class);
    let capacity = gpus.map(Gpu::amount).sum();
    let arena = Arc::new(due.arena().clone());
    Entitlements::new(arena, &world.quota, class, capacity, |_| capacity)
}

/// Shares by path and class.
struct Levels {
    full: BTreeMap<(String, GpuClass), u64>,
}

impl Levels {
    fn of(world: &World, shares: &Shares) -> Self {
        let mut full = BTreeMap::new();
        for (class, due) in shares {
            let all = self::full(world, due, class);
            for (path, node) in &world.quota.nodes {
                let share = all.of(all.arena().find(path.as_str()).unwrap()).entitled.0;
                full.insert((path.to_string(), class.clone()), share.max(node.weight.into()));
            }
        }
        Levels { full }
    }

    /// A fraction: what is held for the share.
    fn burden(&self, usage: &Usage, path: &str, only: Option<&GpuClass>) -> (u64, u64) {
        let own = self
            .full
            .iter()
            .filter(|((of, class), _)| of == path && only.is_none_or(|o| o == class));
        own.fold((0, 0), |(held, share), ((_, class), own)| {
            (held + usage.held(path, class).0, share + own)
        })
    }
}

fn place_among(
    world: &World,
    shares: &Shares,
    levels: &Levels,
    usage: &Usage,
    job: &Job,
    must_borrow: bool,
) -> Place {
    let classes = classes(world, job);
    let borrowed = classes.iter().all(|class| is_borrowed(shares, usage, job, class.as_ref()));
    let only = job.spec.per_node.gpus.class();
    let mut paths: Vec<&str> = job.spec.project.self_and_ancestors().collect();
    paths.reverse();
    let known = only.is_none_or(|class| shares.contains_key(class))
        && world.quota.nodes.contains_key(job.spec.project.as_str());
    // There is one top, so nothing is decided by it.
    let burdens =
        paths.iter().skip(1).filter(|_| known).map(|path| Of(levels.burden(usage, path, only)));
    let borrows = has_tiers(world) && (borrowed || must_borrow);
    (borrows, burdens.collect(), Reverse(job.spec.priority), job.status.queued)
}

/// A fraction that is compared by its value.
struct Of((u64, u64));

impl Ord for Of {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.0 * other.0.1).cmp(&(other.0.0 * self.0.1))
    }
}

impl PartialOrd for Of {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Of {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Of {}

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

/// The best nodes of the class that costs least; for a gang, of the first class.
fn lightest<'c>(
    typical: &Typical,
    nodes: &BTreeMap<NodeName, Node>,
    power: &Power<'_>,
    job: &Job,
    classes: impl Iterator<Item = &'c Option<GpuClass>>,
) -> Option<(&'c Option<GpuClass>, Start)> {
    let found = classes.filter_map(|class| {
        let (growth, start) = place(typical, nodes, power, job, class.as_ref())?;
        Some((if job.spec.nodes > 1 { 0 } else { growth }, class, start))
    });
    found.min_by_key(|(growth, _, _)| *growth).map(|(_, class, start)| (class, start))
}

/// The best nodes, without those it avoids unless the rest could never serve it.
fn place(
    typical: &Typical,
    nodes: &BTreeMap<NodeName, Node>,
    power: &Power<'_>,
    job: &Job,
    class: Option<&GpuClass>,
) -> Option<(i64, Start)> {
    let avoid = &job.status.avoid;
    let rest: BTreeMap<_, _> = nodes
        .iter()
        .filter(|(name, _)| !avoid.contains(*name))
        .map(|(n, w)| (n.clone(), w.clone()))
        .collect();
    let could_elsewhere = match job.spec.per_node.gpus {
        // Any class will do: avoiding is dropped only if no class could serve without those nodes.
        GpuRequest::Whole { class: None, .. }
        | GpuRequest::Share { class: None, .. }
        | GpuRequest::Mig { class: None, .. } => {
            let all = nodes.values().flat_map(|node| &node.inventory.gpus);
            let classes: BTreeSet<_> = all.map(|gpu| gpu.class.clone()).collect();
            classes.iter().any(|class| could(&rest, job, Some(class)))
        }
        _ => could(&rest, job, class),
    };
    best(typical, if could_elsewhere { &rest } else { nodes }, Some(power), job, class)
}

fn could(nodes: &BTreeMap<NodeName, Node>, job: &Job, class: Option<&GpuClass>) -> bool {
    let emptied = nodes.iter().map(|(name, node)| {
        let free = gotgan_core::world::NodeFree::all_of(&node.inventory);
        (name.clone(), Node { free, ..node.clone() })
    });
    best(&Typical::default(), &emptied.collect(), None, job, class).is_some()
}

fn best(
    typical: &Typical,
    nodes: &BTreeMap<NodeName, Node>,
    power: Option<&Power<'_>>,
    job: &Job,
    class: Option<&GpuClass>,
) -> Option<(i64, Start)> {
    let mut scored: Vec<_> = nodes
        .iter()
        .filter(|(name, node)| meets(name, node, job))
        .flat_map(|(name, node)| choices(node, job, class).into_iter().map(move |c| (c, name)))
        .map(|((score, gpus), name)| (score, name, gpus))
        .collect();
    scored.sort();
    let constraints = &job.spec.constraints;
    if job.spec.nodes == 1 && constraints.blocks.is_empty() {
        if let Some(power) = power {
            scored.retain(|(_, name, gpus)| {
                let start = Start::from([((*name).clone(), gpus.clone())]);
                power.has_enough(job, class, &start)
            });
        }
        return typical.lightest(nodes, job, class, scored);
    }
    let mut start = Start::new();
    for (_, name, gpus) in scored {
        if start.len() < job.spec.nodes as usize && !start.contains_key(name) {
            start.insert(name.clone(), gpus);
            // Another one may be in another hall.
            if power.is_some_and(|power| !power.has_enough(job, class, &start)) {
                start.remove(name);
            }
        }
    }
    (start.len() == job.spec.nodes as usize).then_some((0, start))
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
        // Instances for who asks for their kind, GPUs that are whole for all others.
        .filter(|(_, gpu)| gpu.kind() == job.spec.per_node.gpus.kind())
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
        GpuRequest::Mig { count, milli, .. } => {
            let free = of_class.into_iter().filter(|(_, free)| *free == u64::from(milli));
            let free: Vec<usize> = free.map(|(index, _)| index).collect();
            let enough = free.get(..count as usize).map(<[usize]>::to_vec);
            enough.map(|taken| ([free.len() as u64, cpu, 0], taken)).into_iter().collect()
        }
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
        GpuRequest::Share { milli, .. } | GpuRequest::Mig { milli, .. } => GpuMilli(milli.into()),
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

/// What every GPU counts with, by node and position; and every limit with the nodes that count for it.
struct Power<'w> {
    world: &'w World,
    watts: BTreeMap<(NodeName, usize), u64>,
}

impl<'w> Power<'w> {
    fn of(world: &'w World) -> Self {
        let mut power = Power { world, watts: BTreeMap::new() };
        for (name, node) in &world.nodes {
            for (at, gpu) in node.inventory.gpus.iter().enumerate() {
                let holders = world.attempts.values().filter(|attempt| {
                    let held = attempt.placement.nodes.iter().flat_map(|held| &held.gpus);
                    held.clone().any(|held| held.uuid == gpu.uuid)
                });
                let watts =
                    holders.map(|attempt| power.busy(&gpu.class, attempt.placement.gpu_cap_watts));
                let watts = watts.max().unwrap_or_else(|| power.idle(&gpu.class));
                power.watts.insert((name.clone(), at), watts);
            }
        }
        power
    }

    fn full(&self, class: &GpuClass) -> u64 {
        self.world.power.gpu_watts.get(class).map_or(1000, |watts| u64::from(*watts))
    }

    fn idle(&self, class: &GpuClass) -> u64 {
        self.full(class) * u64::from(self.world.power.idle_percent) / 100
    }

    fn busy(&self, class: &GpuClass, cap: Option<u32>) -> u64 {
        let full = self.full(class);
        cap.map_or(full, |cap| full.min(cap.into())).max(self.idle(class))
    }

    /// What GPUs would count with if the job had them there.
    fn with(
        &self,
        job: &Job,
        class: Option<&GpuClass>,
        start: &Start,
    ) -> BTreeMap<(NodeName, usize), u64> {
        let mut watts = self.watts.clone();
        let Some(class) = class else { return watts };
        let ordered = self.world.power.cap_watts.get(class).copied();
        let cap = ordered.into_iter().chain(job.spec.per_node.gpu_cap_watts).min();
        for (name, gpus) in start {
            for gpu in gpus {
                let watts = watts.get_mut(&(name.clone(), *gpu)).unwrap();
                *watts = (*watts).max(self.busy(class, cap));
            }
        }
        watts
    }

    fn take(&mut self, job: &Job, class: Option<&GpuClass>, start: &Start) {
        self.watts = self.with(job, class, start);
    }

    /// Whether every limit that the start adds to holds with it.
    fn has_enough(&self, job: &Job, class: Option<&GpuClass>, start: &Start) -> bool {
        let after = self.with(job, class, start);
        let limits = &self.world.power.limits;
        let own = u64::from(self.world.power.node_watts);
        let sum = |watts: &BTreeMap<(NodeName, usize), u64>, counts: &dyn Fn(&NodeName) -> bool| {
            let nodes = self.world.nodes.keys().filter(|name| counts(name)).count() as u64;
            let gpus = watts.iter().filter(|((name, _), _)| counts(name));
            own * nodes + gpus.map(|(_, watts)| *watts).sum::<u64>()
        };
        let holds = |limit: u64, counts: &dyn Fn(&NodeName) -> bool| {
            let (before, after) = (sum(&self.watts, counts), sum(&after, counts));
            after == before || after <= limit
        };
        let of_label = |key: &str, value: &str, name: &NodeName| {
            let labels = &self.world.nodes[name].inventory.labels;
            labels.get(key).is_some_and(|own| own == value)
        };
        limits.site_watts.is_none_or(|limit| holds(limit, &|_| true))
            && limits
                .hall_watts
                .iter()
                .all(|(hall, limit)| holds(*limit, &|name| of_label("hall", hall, name)))
            && limits
                .rack_watts
                .iter()
                .all(|(rack, limit)| holds(*limit, &|name| of_label("rack", rack, name)))
            && limits
                .node_watts
                .get("*")
                .is_none_or(|limit| start.keys().all(|node| holds(*limit, &|name| name == node)))
    }
}

/// Jobs as they come, and the numbers of classes.
#[derive(Default)]
struct Typical {
    mix: Mix,
    classes: BTreeMap<GpuClass, ClassNumber>,
}

impl Typical {
    fn of(world: &World) -> Self {
        let gpus = world.nodes.values().flat_map(|node| &node.inventory.gpus);
        let names: BTreeSet<_> = gpus.map(|gpu| gpu.class.clone()).collect();
        let classes: BTreeMap<_, _> = names.into_iter().zip((0..).map(ClassNumber)).collect();
        let mut counts = Counts::new();
        for job in world.jobs.values().filter(|job| !job.spec.scavenger) {
            let number = |class| classes.get(class).copied().map_or(ClassSet::NONE, ClassSet::only);
            let asked = job.spec.per_node.gpus.class().map_or(ClassSet::ANY, number);
            *counts.entry(Shape { classes: asked, ..shape(job) }).or_default() += 1;
        }
        Typical { mix: Mix::of(&counts), classes }
    }

    /// Of the first 64 choices the one that costs least; the first one where it takes all GPUs of its node.
    fn lightest(
        &self,
        nodes: &BTreeMap<NodeName, Node>,
        job: &Job,
        class: Option<&GpuClass>,
        choices: Vec<([u64; 3], &NodeName, Vec<usize>)>,
    ) -> Option<(i64, Start)> {
        let (_, first, _) = choices.first()?;
        let gpus = nodes[*first].inventory.gpus.len();
        let whole_node = matches!(job.spec.per_node.gpus, GpuRequest::Whole { count, .. } if count as usize >= gpus);
        let weighed =
            choices.into_iter().take(if whole_node { 1 } else { 64 }).map(|(_, name, gpus)| {
                (self.growth(&nodes[name], job, class, &gpus), Start::from([(name.clone(), gpus)]))
            });
        weighed.min_by_key(|(growth, _)| *growth)
    }

    /// Over all classes of the node for a job without GPUs.
    fn growth(&self, node: &Node, job: &Job, class: Option<&GpuClass>, gpus: &[usize]) -> i64 {
        let own: BTreeSet<_> = node.inventory.gpus.iter().map(|gpu| &gpu.class).collect();
        let own = own.into_iter().filter(|own| class.is_none_or(|class| class == *own));
        let growth = |class: &GpuClass| {
            let gpus_there = &node.inventory.gpus;
            let is_whole = |gpu: &usize| gpus_there[*gpu].kind().is_none();
            let of_class = |gpu: &usize| gpus_there[*gpu].class == *class && is_whole(gpu);
            let places: Vec<usize> = (0..node.free.gpus.len()).filter(of_class).collect();
            let Some(number) = self.classes.get(class) else { return 0 };
            let room = Room {
                class: *number,
                cpu_milli: node.free.cpu_milli,
                memory_mib: node.free.memory_mib,
                gpus: places.iter().map(|gpu| node.free.gpus[*gpu]).collect(),
            };
            let gpu = places.iter().position(|gpu| gpus == [*gpu]);
            let choice = self.mix.weigh(&room, self.mix.fragments(&room), &shape(job), gpu);
            choice.unwrap().growth.0
        };
        own.map(growth).sum()
    }
}

fn shape(job: &Job) -> Shape {
    let request = &job.spec.per_node;
    let gpus = match request.gpus {
        GpuRequest::None | GpuRequest::Mig { .. } => GpuShape::None,
        GpuRequest::Whole { count, .. } => GpuShape::Whole(count),
        GpuRequest::Share { milli, .. } => GpuShape::Share(GpuMilli(milli.into())),
    };
    let (cpu_milli, memory_mib) = (request.cpu_milli, request.memory_mib);
    Shape { gpus, classes: ClassSet::ANY, cpu_milli, memory_mib }
}
