//! May this job start there? Checked against a world and what earlier decisions of the same plan took from it.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::UnixMicros;
use crate::attempt::{NodeAllocation, Placement};
use crate::ids::{AttemptId, GpuClass, GpuUuid, JobId, NodeName};
use crate::job::{Job, JobState};
use crate::mig::Mig;
use crate::power::budget::PlaceKey;
use crate::spec::{GpuRequest, NodeRequest};
use crate::world::{Node, World};

use super::preempt::Stop;
use super::reckoning::Reckoning;

/// A world with what the decisions so far took from it.
#[derive(Debug)]
pub(super) struct Shadow<'w> {
    pub(super) world: &'w World,
    pub(super) reckoning: &'w mut Reckoning,
    pub(super) started: BTreeSet<JobId>,
    stopped: BTreeSet<AttemptId>,
    pub(super) gpu_milli: BTreeMap<(NodeName, GpuUuid), u64>,
    cpu_milli: BTreeMap<NodeName, u64>,
    memory_mib: BTreeMap<NodeName, u64>,
    pub(super) held: BTreeMap<String, BTreeMap<GpuClass, u64>>,
    /// Given to scavengers, which is no part of that.
    scavenged: BTreeMap<String, BTreeMap<GpuClass, u64>>,
    /// Set aside, by path.
    reserved: BTreeMap<String, i128>,
    /// What GPUs that the plan gave count with, and what it gave of each limit, watts.
    pub(super) gpu_watts: BTreeMap<(NodeName, GpuUuid), u64>,
    pub(super) watts: BTreeMap<PlaceKey, u64>,
}

impl<'w> Shadow<'w> {
    /// The world as it is.
    pub fn of(world: &'w World, reckoning: &'w mut Reckoning) -> Self {
        Shadow {
            world,
            reckoning,
            started: BTreeSet::new(),
            stopped: BTreeSet::new(),
            gpu_milli: BTreeMap::new(),
            cpu_milli: BTreeMap::new(),
            memory_mib: BTreeMap::new(),
            held: BTreeMap::new(),
            scavenged: BTreeMap::new(),
            reserved: BTreeMap::new(),
            gpu_watts: BTreeMap::new(),
            watts: BTreeMap::new(),
        }
    }

    /// Everything that forbids stopping the attempt for the job, in words.
    pub fn preempt(&mut self, attempt: AttemptId, for_job: JobId) -> Vec<String> {
        let (world, stopped, given) = (self.world, &self.stopped, &self.held);
        let mut stop = Stop { world, stopped, given, reckoning: self.reckoning };
        let wrong = stop.judge(attempt, for_job);
        self.stopped.insert(attempt);
        wrong
    }

    /// Everything that forbids the start, in words; takes what it takes in any case, so that the decisions after
    /// it are judged by what would really be left.
    pub fn start(
        &mut self,
        id: JobId,
        placement: &Placement,
        now: Option<UnixMicros>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.started.insert(id) {
            wrong.push("is started twice by the same plan".to_owned());
        }
        let Some(job) = self.world.job(id) else {
            wrong.push("is not known".to_owned());
            return wrong;
        };
        let job: &Job = &job;
        self.judge_job(job, now, &mut wrong);
        self.judge_array(job, &mut wrong);
        judge_shape(job, placement, &mut wrong);
        for allocation in &placement.nodes {
            self.judge_node(job, placement, allocation, &mut wrong);
        }
        wrong.extend(super::blocks::judge(self.world, job, placement));
        wrong.extend(super::fabric::judge(self.world, self.reckoning, job, placement, now));
        wrong.extend(super::windows::judge(self.world, job, placement, now));
        wrong.extend(super::power::judge_caps(self.world, job, placement));
        self.judge_power(placement, &mut wrong);
        self.judge_limits(job, placement, &mut wrong);
        self.judge_budgets(job, placement, &mut wrong);
        self.judge_terms(job, placement, &mut wrong);
        self.judge_kept(job, placement.class.as_ref(), &mut wrong);
        wrong
    }

    fn judge_job(&self, job: &Job, now: Option<UnixMicros>, wrong: &mut Vec<String>) {
        if job.status.state != JobState::Pending {
            wrong.push(format!("is {}, not pending", job.status.state.word()));
        }
        let first = AttemptId { job: job.id, number: 0 };
        let last = AttemptId { job: job.id, number: u32::MAX };
        if self.world.attempts.range(first..=last).next().is_some() {
            wrong.push("has an attempt that has not ended".to_owned());
        }
        for other in &job.status.waits_for {
            wrong.push(format!("waits for job {}", other.job));
        }
        let deadline = job.spec.deadline.map(|deadline| deadline.moment(job.submitted));
        let ends = now.map(|now| now.plus_seconds(job.spec.time_limit_s));
        if deadline.zip(ends).is_some_and(|(deadline, ends)| ends > deadline) {
            wrong.push("can no longer end by its deadline".to_owned());
        }
        if now.is_some_and(|now| now < job.status.not_before) {
            wrong.push("waits before its next try".to_owned());
        }
    }

    /// Whether no more tasks of its array will hold resources than may at once, counted from attempts.
    fn judge_array(&self, job: &Job, wrong: &mut Vec<String>) {
        let Some((array, limit)) = job.array_limit() else { return };
        // Its tasks are numbered one after the other.
        let tasks = job.spec.array.as_ref().map_or(0, |array| u64::from(array.len()));
        let (first, last) = (JobId(array.0 + 1), JobId(array.0 + tasks));
        let attempts =
            AttemptId { job: first, number: 0 }..=AttemptId { job: last, number: u32::MAX };
        let running: BTreeSet<JobId> =
            self.world.attempts.range(attempts).map(|(id, _)| id.job).collect();
        let starting = self.started.range(first..=last).filter(|id| !running.contains(id));
        if running.len() + starting.count() > limit as usize {
            wrong.push(format!("array {array} runs at most {limit} of its tasks at once"));
        }
    }

    fn judge_node(
        &mut self,
        job: &Job,
        placement: &Placement,
        allocation: &NodeAllocation,
        wrong: &mut Vec<String>,
    ) {
        let name = &allocation.node;
        let Some(node) = self.world.nodes.get(name) else {
            wrong.push(format!("node {name} is not known"));
            return;
        };
        if let Some(why) = node.why_no_work() {
            wrong.push(format!("node {name} takes no work: {why}"));
        }
        judge_constraints(job, node, wrong);
        judge_amounts(&job.spec.per_node, allocation, wrong);
        judge_kinds(&job.spec.per_node.gpus, node, allocation, wrong);
        self.judge_gpus(node, placement, allocation, wrong);
        let cpu = add(&mut self.cpu_milli, name.clone(), allocation.cpu_milli.0);
        if cpu > node.free.cpu_milli.0 {
            wrong.push(format!("node {name} has too few free CPUs"));
        }
        let memory = add(&mut self.memory_mib, name.clone(), allocation.memory_mib.0);
        if memory > node.free.memory_mib.0 {
            wrong.push(format!("node {name} has too little free memory"));
        }
    }

    fn judge_gpus(
        &mut self,
        node: &Node,
        placement: &Placement,
        allocation: &NodeAllocation,
        wrong: &mut Vec<String>,
    ) {
        for held in &allocation.gpus {
            let uuid = &held.uuid;
            let Some(index) = node.inventory.gpus.iter().position(|gpu| gpu.uuid == *uuid) else {
                wrong.push(format!("node {} has no GPU {uuid}", allocation.node));
                continue;
            };
            if Some(&node.inventory.gpus[index].class) != placement.class.as_ref() {
                wrong.push(format!("GPU {uuid} is not of the placement's class"));
            }
            let key = (allocation.node.clone(), uuid.clone());
            let taken = add(&mut self.gpu_milli, key, held.milli.0);
            let free = node.free.gpus.get(index).map_or(0, |free| free.0);
            if taken > free {
                wrong.push(format!("GPU {uuid} has {free} thousandths free, {taken} are taken"));
            }
        }
    }

    fn judge_limits(&mut self, job: &Job, placement: &Placement, wrong: &mut Vec<String>) {
        let project = job.spec.project.as_str();
        let parts: Vec<&str> = project.split('/').collect();
        let gpus: u64 =
            placement.nodes.iter().flat_map(|node| &node.gpus).map(|gpu| gpu.milli.0).sum();
        for depth in 1..=parts.len() {
            let path = parts[..depth].join("/");
            let given = if job.spec.scavenger { &mut self.scavenged } else { &mut self.held };
            if let Some(class) = &placement.class {
                add(given.entry(path.clone()).or_default(), class.clone(), gpus);
            }
            self.judge_level(&path, job.spec.scavenger, placement.class.as_ref(), wrong);
        }
    }

    /// Whether a slice of the job can be set aside at every node that has a budget, counted in units of their own:
    /// thousandths of GPUs times seconds times thousandths of weight.
    fn judge_budgets(&mut self, job: &Job, placement: &Placement, wrong: &mut Vec<String>) {
        let Some(class) = placement.class.as_ref().filter(|_| !job.spec.scavenger) else { return };
        let tree = &self.world.quota;
        let gpus: u64 =
            placement.nodes.iter().flat_map(|node| &node.gpus).map(|gpu| gpu.milli.0).sum();
        let weight = tree.weights.get(class).copied().unwrap_or(1000);
        let seconds = job.spec.time_limit_s.clamp(0, crate::meter::SLICE_S);
        let needed = i128::from(gpus) * i128::from(seconds) * i128::from(weight);
        for (path, node) in &tree.nodes {
            let (Some(budget), true) = (&node.budget, job.spec.project.is_within(path.as_str()))
            else {
                continue;
            };
            let given = self.reserved.entry(path.to_string()).or_default();
            *given += needed;
            let accounts = &self.world.accounts;
            let spent =
                accounts.used(path.as_str(), budget.span).0 + accounts.held(path.as_str()).0;
            let carried = budget.before.as_ref().map_or(0, |before| {
                let left = before.ngh.0 - accounts.used(path.as_str(), before.span).0;
                let part = left.max(0) * i128::from(before.carry.percent) / 100;
                before.carry.most.map_or(part, |most| part.min(most.0))
            });
            let most = (budget.ngh.0 + carried) * i128::from(budget.cap_milli) / 1000;
            if needed > 0 && spent + *given > most {
                wrong.push(format!("the budget of {path} has not enough left"));
            }
        }
    }

    /// Whether a node of the tree holds no more than it may, with everything the plan has given so far. What scavengers
    /// hold counts for scavengers only.
    fn judge_level(
        &self,
        path: &str,
        scavenges: bool,
        class: Option<&GpuClass>,
        wrong: &mut Vec<String>,
    ) {
        let Some(quota) = self.world.quota.nodes.get(path) else {
            wrong.push(format!("{path} is not in the quota tree"));
            return;
        };
        let Some(class) = class else { return };
        let usage = self.world.usage.get(path);
        let mut held_of: BTreeMap<&GpuClass, u64> = BTreeMap::new();
        let held = [usage.map(|usage| &usage.held), usage.map(|usage| &usage.scavenged)];
        let given = [self.held.get(path), self.scavenged.get(path)];
        for (held, given) in held.into_iter().zip(given).take(if scavenges { 2 } else { 1 }) {
            let held = held.into_iter().flatten().map(|(class, gpus)| (class, gpus.0));
            let given = given.into_iter().flatten().map(|(class, gpus)| (class, *gpus));
            held.chain(given).for_each(|(class, gpus)| *held_of.entry(class).or_default() += gpus);
        }
        let held = held_of.get(class).copied().unwrap_or_default();
        if quota.limits.get(class).is_some_and(|limit| held > limit.0) {
            wrong.push(format!("{path} would hold {held} thousandths of {class}, above its limit"));
        }
        let all: u64 = held_of.values().sum();
        if quota.any_limit.is_some_and(|limit| all > limit.0) {
            wrong.push(format!("{path} would hold {all} thousandths in all, above its limit"));
        }
    }
}

fn add<K: Ord>(sums: &mut BTreeMap<K, u64>, key: K, more: u64) -> u64 {
    let sum = sums.entry(key).or_default();
    *sum = sum.saturating_add(more);
    *sum
}

/// As many distinct nodes as asked, and a class exactly where GPUs are asked.
fn judge_shape(job: &Job, placement: &Placement, wrong: &mut Vec<String>) {
    let names: BTreeSet<_> = placement.nodes.iter().map(|allocation| &allocation.node).collect();
    if names.len() != placement.nodes.len() {
        wrong.push("has a node twice".to_owned());
    }
    let (least, given) = (job.spec.nodes, placement.nodes.len());
    let most = job.spec.nodes_max.unwrap_or(least).max(least);
    if given < least as usize || given > most as usize {
        let asked = if most > least { format!("{least} to {most}") } else { least.to_string() };
        wrong.push(format!("asks {asked} nodes and gets {given}"));
    }
    let asks_gpus = job.spec.per_node.gpus != GpuRequest::None;
    if asks_gpus != placement.class.is_some() {
        wrong.push("has a class without GPUs or GPUs without a class".to_owned());
    }
    let asked = job.spec.per_node.gpus.class();
    if asked.is_some() && asked != placement.class.as_ref() {
        wrong.push("gets GPUs of another class than it asks".to_owned());
    }
}

fn judge_constraints(job: &Job, node: &Node, wrong: &mut Vec<String>) {
    let name = &node.inventory.node;
    let constraints = &job.spec.constraints;
    if !constraints.nodes.is_empty() && !constraints.nodes.contains(name) {
        wrong.push(format!("node {name} is not among those it asks"));
    }
    if constraints.exclude_nodes.contains(name) {
        wrong.push(format!("node {name} is among those it excludes"));
    }
    for (key, value) in &constraints.labels {
        if node.inventory.labels.get(key) != Some(value) {
            wrong.push(format!("node {name} does not carry {key}={value}"));
        }
    }
    if job.spec.image.is_some() && !node.inventory.runs_images() {
        wrong.push(format!("node {name} cannot run a job with an image"));
    }
}

/// An instance of a GPU that is cut is only for who asks one of its profile, and a GPU that is not cut for all others.
fn judge_kinds(asked: &GpuRequest, node: &Node, given: &NodeAllocation, wrong: &mut Vec<String>) {
    let uuids: BTreeSet<&GpuUuid> = given.gpus.iter().map(|held| &held.uuid).collect();
    if uuids.len() != given.gpus.len() {
        wrong.push(format!("node {} gives a GPU or an instance twice", given.node));
    }
    for gpu in node.inventory.gpus.iter().filter(|gpu| uuids.contains(&gpu.uuid)) {
        let right = match (asked, &gpu.mig) {
            (GpuRequest::Whole { .. } | GpuRequest::Share { .. }, Mig::Off) => true,
            (GpuRequest::Mig { profile, milli, .. }, Mig::Instance(part)) => {
                part.kind.profile == *profile && part.kind.milli == *milli
            }
            (_, Mig::Off | Mig::Cut(_) | Mig::Instance(_)) => false,
        };
        if !right {
            wrong.push(format!("{} is not of the kind it asks", gpu.uuid));
        }
    }
}

/// Each node gives exactly what was asked: whole GPUs wholly, a share from one GPU, instances each as a whole.
fn judge_amounts(asked: &NodeRequest, given: &NodeAllocation, wrong: &mut Vec<String>) {
    let amounts: Vec<u64> = given.gpus.iter().map(|gpu| gpu.milli.0).collect();
    let right = match &asked.gpus {
        GpuRequest::None => amounts.is_empty(),
        GpuRequest::Whole { count, .. } => {
            amounts.len() == *count as usize && amounts.iter().all(|milli| *milli == 1000)
        }
        GpuRequest::Share { milli, .. } => amounts == [u64::from(*milli)],
        GpuRequest::Mig { count, milli, .. } => {
            let of_each = u64::from(*milli);
            amounts.len() == *count as usize && amounts.iter().all(|given| *given == of_each)
        }
    };
    if !right {
        wrong.push(format!("node {} gives {amounts:?} thousandths of GPUs", given.node));
    }
    if given.cpu_milli != asked.cpu_milli || given.memory_mib != asked.memory_mib {
        wrong.push(format!("node {} gives other CPUs or memory than asked", given.node));
    }
}
