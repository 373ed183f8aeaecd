//! Does a world add up? Everything that follows from jobs, attempts and nodes is derived again and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Violation;
use crate::array::ArraySpec;
use crate::attempt::{Attempt, AttemptState};
use crate::ids::{AttemptId, GpuClass, GpuUuid, JobId, NodeName};
use crate::job::{Job, JobState};
use crate::mig::Mig;
use crate::node::Gpu;
use crate::world::{Cohort, CohortKey, CohortPlace, Node, PathUsage, People, Requests, World};

/// Everything that does not add up.
pub(super) fn violations(world: &World) -> Vec<Violation> {
    let mut found = Findings::default();
    jobs(world, &mut found);
    attempts(world, &mut found);
    nodes(world, &mut found);
    queue(world, &mut found);
    dependents(world, &mut found);
    usage(world, &mut found);
    requests(world, &mut found);
    holds(world, &mut found);
    sequences(world, &mut found);
    submitted(world, &mut found);
    for (subject, text) in super::channels::misheld(world) {
        found.add(subject, text);
    }
    for (subject, text) in super::power::misreserved(world) {
        found.add(subject, text);
    }
    for (node, text) in super::windows::misplaced(world) {
        found.add(format!("node {node}"), text);
    }
    found.0
}

#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.0.push(Violation { subject: subject.into(), text: text.into() });
    }
}

fn jobs(world: &World, found: &mut Findings) {
    let mut live: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
    for id in world.attempts.keys() {
        live.entry(id.job).or_default().push(id.number);
    }
    for (id, array) in &world.arrays {
        if let Some(text) = wrong_with_array(world, array) {
            found.add(format!("array {id}"), text);
        }
    }
    for (id, job) in &world.jobs {
        let attempts = live.get(id).map(Vec::as_slice).unwrap_or_default();
        if let Some(text) = wrong_with_job(job, attempts) {
            found.add(format!("job {id}"), text);
        }
    }
    for id in live.keys().filter(|id| !world.jobs.contains_key(id)) {
        found.add(format!("job {id}"), "is gone and still has an attempt");
    }
}

fn wrong_with_job(job: &Job, attempts: &[u32]) -> Option<String> {
    let state = job.status.state;
    match state {
        JobState::Held | JobState::Pending if !attempts.is_empty() => {
            Some(format!("is {} and holds resources in attempts {attempts:?}", state.word()))
        }
        JobState::Starting | JobState::Running if attempts != [job.status.attempt] => {
            Some(format!(
                "is {} in attempt {} and has attempts {attempts:?}",
                state.word(),
                job.status.attempt
            ))
        }
        JobState::Held | JobState::Pending | JobState::Starting | JobState::Running => None,
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => {
            Some(format!("is {} and still in the world", state.word()))
        }
    }
}

/// Its living tasks are counted again; how many have ended is the store's to say.
fn wrong_with_array(world: &World, array: &Job) -> Option<String> {
    let Some(tasks) = &array.status.tasks else {
        return Some("does not say how its tasks stand".to_owned());
    };
    let (mut counted, mut there) = (BTreeMap::new(), BTreeMap::new());
    let living = tasks.counts.iter().filter(|(state, _)| !state.is_terminal());
    counted.extend(living.map(|(state, count)| (*state, *count)));
    for job in world.jobs.values().filter(|job| job.array == Some(array.id)) {
        *there.entry(job.status.state).or_insert(0) += 1;
        let place = job.id.0.wrapping_sub(array.id.0).wrapping_sub(1);
        if u32::try_from(place).is_ok_and(|place| tasks.folded_state(place).is_some()) {
            return Some(format!("has task {} both folded and as a job", job.id));
        }
    }
    let behind = tasks.behind.as_ref().map(|behind| &behind.places);
    let folded = tasks.waiting.join(&tasks.held);
    if behind.is_some_and(|behind| behind.is_empty() || !behind.minus(&folded).is_empty()) {
        return Some("has tasks wait for others that are none of its own".to_owned());
    }
    let all = tasks.waiting.len() + tasks.held.len() + tasks.counts.values().sum::<u32>();
    let asked = array.spec.array.as_ref().map_or(0, ArraySpec::len);
    if counted != there {
        return Some(format!("counts {counted:?}, has {there:?}"));
    }
    if all != asked {
        return Some(format!("has {asked} tasks and counts {all}"));
    }
    if tasks.state() != array.status.state || array.status.state.is_terminal() {
        return Some(format!(
            "is {}, its tasks say {:?}",
            array.status.state.word(),
            tasks.state()
        ));
    }
    None
}

fn attempts(world: &World, found: &mut Findings) {
    for (id, attempt) in &world.attempts {
        for text in wrong_with_attempt(world, *id, attempt) {
            found.add(format!("attempt {id}"), text);
        }
    }
    for (id, step) in world.steps.keys().filter(|(id, _)| !world.attempts.contains_key(id)) {
        found.add(format!("attempt {id}"), format!("is gone and still has step {step}"));
    }
}

fn wrong_with_attempt(world: &World, id: AttemptId, attempt: &Attempt) -> Vec<String> {
    let mut wrong = Vec::new();
    if attempt.id != id {
        wrong.push(format!("is entered as {id} and calls itself {}", attempt.id));
    }
    if attempt.state == AttemptState::Ended {
        wrong.push("has ended and is still in the world".to_owned());
    }
    let nodes = &attempt.placement.nodes;
    if attempt.members.len() != nodes.len() {
        wrong.push(format!("has {} members on {} nodes", attempt.members.len(), nodes.len()));
    }
    let names: BTreeSet<_> = nodes.iter().map(|allocation| &allocation.node).collect();
    if names.len() != nodes.len() {
        wrong.push("has a node twice".to_owned());
    }
    let unknown = names.into_iter().filter(|name| !world.nodes.contains_key(*name));
    wrong.extend(unknown.map(|name| format!("is on node {name}, which is not known")));
    if attempt.gpus().is_zero() == attempt.placement.class.is_some() {
        wrong.push("has a class without GPUs or GPUs without a class".to_owned());
    }
    if world.jobs.get(&id.job).is_some_and(|job| job.spec.project != attempt.project) {
        wrong.push(format!("is paid by {}, which is not its job's project", attempt.project));
    }
    wrong
}

/// What live attempts hold on one node.
#[derive(Debug, Default)]
struct Held {
    attempts: BTreeSet<AttemptId>,
    gpu_milli: BTreeMap<GpuUuid, u64>,
    cpu_milli: u64,
    memory_mib: u64,
}

fn nodes(world: &World, found: &mut Findings) {
    let mut held: BTreeMap<&NodeName, Held> = BTreeMap::new();
    for (id, attempt) in &world.attempts {
        for allocation in &attempt.placement.nodes {
            let here = held.entry(&allocation.node).or_default();
            here.attempts.insert(*id);
            here.cpu_milli += allocation.cpu_milli.0;
            here.memory_mib += allocation.memory_mib.0;
            for gpu in &allocation.gpus {
                *here.gpu_milli.entry(gpu.uuid.clone()).or_default() += gpu.milli.0;
            }
        }
    }
    for (name, node) in &world.nodes {
        let here = held.remove(name).unwrap_or_default();
        for text in wrong_with_node(name, node, &here) {
            found.add(format!("node {name}"), text);
        }
        let left = node.free.gpus.iter().any(|free| free.0 > 0);
        if left != world.with_gpus_left.contains(name) {
            found.add(format!("node {name}"), format!("has GPUs left is {left}, and is not said"));
        }
    }
    if let Some(gone) = world.with_gpus_left.iter().find(|name| !world.nodes.contains_key(*name)) {
        found.add(format!("node {gone}"), "has GPUs left and is not there");
    }
}

/// CPUs and memory may be overdrawn for a while if a node comes back smaller than it was; a GPU never is.
fn wrong_with_node(name: &NodeName, node: &Node, held: &Held) -> Vec<String> {
    let mut wrong = Vec::new();
    let inventory = &node.inventory;
    let sound = node.registered.gpus.iter().filter(|gpu| node.health.offers(&gpu.uuid));
    let offered: Vec<Unit<'_>> = sound.flat_map(units_of).collect();
    if !inventory.gpus.iter().map(given_as).eq(offered.iter().copied()) {
        wrong.push("offers other GPUs than those that are not out".to_owned());
    }
    for gpu in &node.registered.gpus {
        let all: u64 = units_of(gpu).iter().map(|(.., milli)| milli).sum();
        if all > 1000 {
            wrong.push(format!("the instances of {} come to {all} thousandths", gpu.uuid));
        }
    }
    if inventory.node != *name {
        wrong.push(format!("calls itself {}", inventory.node));
    }
    if node.attempts != held.attempts {
        wrong.push(format!("lists attempts {:?}, has {:?}", node.attempts, held.attempts));
    }
    if node.free.gpus.len() != inventory.gpus.len() {
        wrong.push(format!("has {} GPUs and {} free", inventory.gpus.len(), node.free.gpus.len()));
    }
    for ((uuid, _, all), free) in offered.iter().zip(&node.free.gpus) {
        let taken = held.gpu_milli.get(*uuid).copied().unwrap_or(0);
        if taken > *all {
            wrong.push(format!("GPU {uuid} is given out {taken} thousandths of {all}"));
        }
        if free.0 != all.saturating_sub(taken) {
            wrong.push(format!("GPU {uuid} has {free} free beside {taken} thousandths"));
        }
    }
    let cpu = inventory.cpu_milli.0.saturating_sub(held.cpu_milli);
    if node.free.cpu_milli.0 != cpu {
        wrong.push(format!(
            "has {} CPUs free by its count, {cpu} thousandths really",
            node.free.cpu_milli
        ));
    }
    let memory = inventory.memory_mib.0.saturating_sub(held.memory_mib);
    if node.free.memory_mib.0 != memory {
        wrong.push(format!("has {} free by its count, {memory} MiB really", node.free.memory_mib));
    }
    wrong
}

/// What is given out as one: its name, class, and thousandths of a GPU.
type Unit<'a> = (&'a GpuUuid, &'a GpuClass, u64);

/// What a registered GPU is given out as: itself, or its instances by their part of its compute slices.
fn units_of(gpu: &Gpu) -> Vec<Unit<'_>> {
    let Mig::Cut(cut) = &gpu.mig else { return vec![(&gpu.uuid, &gpu.class, 1000)] };
    let part = |slices: u32| u64::from(slices.max(1)) * 1000 / u64::from(cut.slices());
    cut.instances().iter().map(|one| (&one.uuid, &gpu.class, part(one.slices))).collect()
}

fn given_as(gpu: &Gpu) -> Unit<'_> {
    let milli = match &gpu.mig {
        Mig::Off => 1000,
        Mig::Cut(_) => 0,
        Mig::Instance(part) => u64::from(part.kind.milli),
    };
    (&gpu.uuid, &gpu.class, milli)
}

fn queue(world: &World, found: &mut Findings) {
    let queued: BTreeSet<JobId> = world.queue.iter().map(|key| key.job).collect();
    for (id, job) in &world.jobs {
        if (job.status.state == JobState::Pending) != queued.contains(id) {
            let word = if queued.contains(id) { "is" } else { "is not" };
            found
                .add(format!("job {id}"), format!("{} and {word} queued", job.status.state.word()));
        }
    }
    for key in &world.queue {
        let right = world.jobs.get(&key.job).is_some_and(|job| {
            key.priority.0 == job.spec.priority && key.queued == job.status.queued
        });
        if !right {
            found.add(format!("job {}", key.job), "is queued at a place that is not its own");
        }
    }
    if queued.len() != world.queue.len() {
        found.add("queue", "has a job twice");
    }
    cohorts(world, &queued, found);
}

/// Every pending job and every task that waits stands in one place, and that is its own.
fn cohorts(world: &World, queued: &BTreeSet<JobId>, found: &mut Findings) {
    let beside = world.cohorts.dependent().chain(world.cohorts.delayed());
    let mut grouped: Vec<(JobId, JobId)> =
        beside.chain(world.cohorts.limited()).map(|id| (id, id)).collect();
    for (_, Cohort { key, jobs, .. }) in world.cohorts.iter() {
        for place in jobs.places() {
            let own = world.record(place.job).map(CohortPlace::of);
            let of_array = || {
                let array = world.array_over(place.job)?;
                let (job, last) = (place.job, place.last);
                Some(CohortPlace { job, last, ..CohortPlace::of(array) })
            };
            let right = own.or_else(of_array) == Some(*place);
            let of = world.job(place.job);
            if right && of.is_some_and(|job| *key == CohortKey::of(&job)) {
                grouped.push((place.job, place.last));
            }
        }
        if jobs.len() != jobs.places().iter().map(CohortPlace::jobs).sum::<usize>() {
            found.add("cohorts", format!("count {} jobs of {}", jobs.len(), key.spec().name));
        }
    }
    grouped.sort_unstable();
    let mut expected: Vec<(JobId, JobId)> = queued.iter().map(|id| (*id, *id)).collect();
    expected.extend(world.arrays.values().flat_map(|array| runs_of(array)));
    expected.sort_unstable();
    if grouped != expected {
        found.add("cohorts", "have other jobs than the queue");
    }
}

/// How the tasks of an array that wait must be grouped: by themselves, or as one if they do not simply compete.
fn runs_of(array: &Job) -> Vec<(JobId, JobId)> {
    let limit = array.spec.array.as_ref().and_then(|array| array.at_once);
    let Some(tasks) = array.status.tasks.as_ref().filter(|tasks| !tasks.waiting.is_empty()) else {
        return Vec::new();
    };
    let behind = tasks.behind.as_ref().map(|behind| &behind.places);
    if limit.is_some() || !array.status.waits_for.is_empty() {
        return vec![(array.id, array.id)];
    }
    let number = |place: u32| JobId(array.id.0 + 1 + u64::from(place));
    let ready = behind.map_or(tasks.waiting.clone(), |behind| tasks.waiting.minus(behind));
    ready.ranges().map(|(first, last)| (number(first), number(last))).collect()
}

fn dependents(world: &World, found: &mut Findings) {
    let mut derived: BTreeMap<JobId, BTreeSet<JobId>> = BTreeMap::new();
    for (id, job) in world.jobs.iter().chain(&world.arrays) {
        for other in &job.status.waits_for {
            derived.entry(other.job).or_default().insert(*id);
        }
    }
    if derived != world.dependents {
        found.add("dependents", format!("are {:?}, should be {derived:?}", world.dependents));
    }
    let mut behind: BTreeMap<JobId, BTreeSet<JobId>> = BTreeMap::new();
    for (id, array) in &world.arrays {
        let of = array.status.tasks.as_ref().and_then(|tasks| tasks.behind.as_ref());
        if let Some(of) = of {
            behind.entry(of.array).or_default().insert(*id);
        }
    }
    if behind != world.behind {
        found.add("arrays behind others", format!("are {:?}, should be {behind:?}", world.behind));
    }
}

fn usage(world: &World, found: &mut Findings) {
    let mut derived: BTreeMap<String, PathUsage> = BTreeMap::new();
    for attempt in world.attempts.values() {
        if let Some(class) = &attempt.placement.class {
            let gpus = attempt.gpus();
            let scavenges = world.jobs.get(&attempt.id.job).is_some_and(|job| job.spec.scavenger);
            if attempt.scavenges() != scavenges {
                found.add(format!("attempt {}", attempt.id), "is on another footing than its job");
            }
            let hold = |usage: &mut PathUsage| {
                let of = if scavenges { &mut usage.scavenged } else { &mut usage.held };
                *of.entry(class.clone()).or_default() += gpus;
            };
            each_level(&mut derived, attempt.project.as_str(), hold);
        }
    }
    for job in world.jobs.values() {
        let project = job.spec.project.as_str();
        if job.status.state.is_active() {
            each_level(&mut derived, project, |usage| usage.active += 1);
        } else {
            each_level(&mut derived, project, |usage| usage.waiting += 1);
        }
    }
    let mut scavengers = world.jobs.values().filter(|job| job.spec.scavenger).count() as u64;
    for (array, folded) in folded(world).filter(|(_, folded)| *folded > 0) {
        scavengers += if array.spec.scavenger { folded } else { 0 };
        let project = array.spec.project.as_str();
        each_level(&mut derived, project, |usage| usage.waiting += folded);
    }
    if scavengers != world.scavengers {
        found.add("scavengers", format!("{} counted, {scavengers} there", world.scavengers));
    }
    let counted: BTreeMap<String, PathUsage> =
        world.usage.iter().map(|(path, usage)| (path.to_owned(), usage.clone())).collect();
    for path in derived.keys().chain(counted.keys()).collect::<BTreeSet<_>>() {
        if derived.get(path) != counted.get(path) {
            let (is, should) = (counted.get(path), derived.get(path));
            found.add(path.clone(), format!("counts {is:?}, should {should:?}"));
        }
    }
}

fn requests(world: &World, found: &mut Findings) {
    let jobs = world.jobs.values().map(|job| (job.as_ref(), 1));
    if world.requests != Requests::of(jobs.chain(folded(world))) {
        found.add("requests", "are not those of the jobs");
    }
    let all: u64 = folded(world).map(|(_, folded)| folded).sum();
    if all != world.folded {
        found
            .add("arrays", format!("{} tasks counted that are no jobs, {all} there", world.folded));
    }
}

/// Every array with how many of its tasks are no jobs of their own.
fn folded(world: &World) -> impl Iterator<Item = (&Job, u64)> {
    world.arrays.values().map(|array| {
        let tasks = array.status.tasks.as_ref();
        let folded = tasks.map_or(0, |tasks| tasks.waiting.len() + tasks.held.len());
        (array.as_ref(), u64::from(folded))
    })
}

/// What is set aside, by path; what was used is the ledger's to say.
fn holds(world: &World, found: &mut Findings) {
    let mut derived: BTreeMap<String, i128> = BTreeMap::new();
    for attempt in world.attempts.values() {
        let held = i128::from(attempt.hold.0) * i128::from(attempt.meter.weight_milli);
        let project = attempt.project.as_str();
        let ends = project.match_indices('/').map(|(at, _)| at).chain([project.len()]);
        for end in ends {
            *derived.entry(project[..end].to_owned()).or_default() += held;
        }
    }
    let entered = world.accounts.holds().map(|(path, held)| (path.to_owned(), held.0));
    let entered: BTreeMap<String, i128> = entered.collect();
    for path in derived.keys().chain(entered.keys()).collect::<BTreeSet<_>>() {
        let [is, should] = [&entered, &derived].map(|of| of.get(path).copied().unwrap_or_default());
        if is != should {
            found.add(path.clone(), format!("has {is} set aside, should have {should}"));
        }
    }
}

fn each_level(
    derived: &mut BTreeMap<String, PathUsage>,
    project: &str,
    change: impl Fn(&mut PathUsage),
) {
    let ends = project.match_indices('/').map(|(at, _)| at).chain([project.len()]);
    for end in ends {
        change(derived.entry(project[..end].to_owned()).or_default());
    }
}

fn sequences(world: &World, found: &mut Findings) {
    let arrays = world.arrays.values().map(|array| array.last_id().0);
    let jobs = world.jobs.keys().next_back().map_or(0, |id| id.0);
    let last = arrays.max().unwrap_or(0).max(jobs);
    if world.sequences.next_job <= last {
        let text = format!("next is {}, job {last} is there already", world.sequences.next_job);
        found.add("job numbers", text);
    }
}

/// Who submitted what, and what must start by when.
fn submitted(world: &World, found: &mut Findings) {
    let jobs = || world.jobs.values().chain(world.arrays.values()).map(Arc::as_ref);
    if world.people != People::of(jobs()) {
        found.add("people", "have other jobs than there are");
    }
    let waits = |job: &&Job| match &job.status.tasks {
        Some(tasks) => tasks.waiting.len() + tasks.held.len() > 0,
        None => matches!(job.status.state, JobState::Pending | JobState::Held),
    };
    let start = |job: &Job| {
        let limit = job.spec.time_limit_s;
        let deadline = job.spec.deadline?.moment(job.submitted);
        Some((deadline.plus_seconds(-limit), job.id))
    };
    let starts: BTreeSet<_> = jobs().filter(waits).filter_map(start).collect();
    if starts != world.deadlines {
        found.add("deadlines", "are not those of the jobs that wait");
    }
}
