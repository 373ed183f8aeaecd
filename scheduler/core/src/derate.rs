//! Less power for a part of the machine: which nodes stand idle, and which attempts stop for it.
//!
//! A node that may run jobs counts with all that its GPUs may draw, whether it runs one now or not; a node that stands idle
//! counts with what idle GPUs draw. What stops is what has the weakest claim, then what loses least; and of that, nothing
//! that was not needed in the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::{GpuMilli, UnixMicros};
use crate::attempt::Attempt;
use crate::ids::{AttemptId, GpuClass, NodeName};
use crate::meter::Footing;
use crate::node::{Admin, Liveness};
use crate::power::PowerTerms;
use crate::world::{Node, World};

/// What a node draws at most, watts: with all its GPUs as the site caps them.
fn full_watts(terms: &PowerTerms, node: &Node) -> u64 {
    u64::from(terms.node_watts) + gpu_watts(terms, node)
}

fn gpu_watts(terms: &PowerTerms, node: &Node) -> u64 {
    let watts = |class| terms.busy_watts(class, terms.cap_watts(class, None));
    node.registered.gpus.iter().map(|gpu| u64::from(watts(&gpu.class))).sum()
}

/// What standing idle saves of it.
fn saved_watts(terms: &PowerTerms, node: &Node) -> u64 {
    let idle: u64 =
        node.registered.gpus.iter().map(|gpu| u64::from(terms.idle_watts(&gpu.class))).sum();
    gpu_watts(terms, node).saturating_sub(idle)
}

/// Which nodes stand idle, and what that comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derating {
    /// They take no jobs.
    pub idle: BTreeSet<NodeName>,
    /// Attempts that stop for it, in the order of jobs.
    pub stopped: BTreeSet<AttemptId>,
    /// The most that the whole part draws, watts.
    pub full_watts: u64,
    /// The most that it draws with those nodes idle, watts.
    pub watts: u64,
    /// GPUs of the part.
    pub gpus: u64,
    /// Of those, on nodes that stand idle.
    pub gpus_idle: u64,
}

/// Why the power cannot be brought down so far.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DerateRefusal {
    /// The nodes have no GPUs.
    #[error("nodes like that have no GPUs; see `gotgan nodes`")]
    NoGpus,
    /// Even idle GPUs draw more.
    #[error(
        "with every node idle it still draws {least_percent} % (policy.power.idle_percent): ask for no less, or switch \
         machines off"
    )]
    TooLow {
        /// What is left with every node idle, percent, rounded up.
        least_percent: u64,
    },
}

/// How good the claim of an attempt that runs is. The first stop first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// It takes what nobody else wants.
    Scavenger,
    /// It is beyond a budget.
    Overuse,
    /// Its project holds more than it is sure of.
    Borrowed,
    /// With what its project leased before it is no more than the project, or one above it, is sure of.
    Guaranteed,
}

/// What stopping an attempt costs. The derived order *is* the rule: from the first field to the last, smaller stops first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    claim: Claim,
    /// GPU time since its lease: what a checkpoint saved is not known here.
    lost: u128,
    id: AttemptId,
}

/// Chooses nodes of this part to stand idle so that the rest draws `to_percent` of what the part may draw, or less.
///
/// # Errors
/// [`DerateRefusal`].
pub fn choose(
    world: &World,
    part: &BTreeSet<NodeName>,
    to_percent: u32,
    terms: &PowerTerms,
    now: UnixMicros,
) -> Result<Derating, DerateRefusal> {
    let mut choice = Choice::of(world, part, terms);
    if choice.full == 0 {
        return Err(DerateRefusal::NoGpus);
    }
    choice.allowed = choice.full * u64::from(to_percent.min(100)) / 100;
    choice.take_empty();
    choice.stop_until_enough(now);
    if choice.watts > choice.allowed {
        return Err(DerateRefusal::TooLow {
            least_percent: (choice.watts * 100).div_ceil(choice.full),
        });
    }
    choice.give_back();
    Ok(choice.done())
}

struct Choice<'w> {
    world: &'w World,
    terms: &'w PowerTerms,
    /// Nodes of the part that have GPUs.
    nodes: BTreeMap<&'w NodeName, &'w Node>,
    idle: BTreeSet<&'w NodeName>,
    /// In the order in which they were taken.
    stopped: Vec<AttemptId>,
    /// Attempts of which nothing is there any more soon, whoever stopped them.
    leaving: BTreeSet<AttemptId>,
    full: u64,
    watts: u64,
    allowed: u64,
}

impl<'w> Choice<'w> {
    fn of(world: &'w World, part: &BTreeSet<NodeName>, terms: &'w PowerTerms) -> Self {
        let nodes = world
            .nodes
            .iter()
            .filter(|(name, node)| part.contains(*name) && !node.registered.gpus.is_empty());
        let nodes: BTreeMap<_, _> = nodes.collect();
        let full = nodes.values().map(|node| full_watts(terms, node)).sum();
        let leaving = world.attempts.values().filter(|attempt| attempt.stop.is_some());
        let leaving = leaving.map(|attempt| attempt.id).collect();
        let (idle, stopped) = (BTreeSet::new(), Vec::new());
        Choice { world, terms, nodes, idle, stopped, leaving, full, watts: full, allowed: full }
    }

    fn is_enough(&self) -> bool {
        self.watts <= self.allowed
    }

    /// Nodes on which nothing runs, those first that take no jobs anyway.
    fn take_empty(&mut self) {
        let mut empty: Vec<(bool, &NodeName)> = self
            .nodes
            .iter()
            .filter_map(|(name, node)| self.is_left(node).then_some((takes_jobs(node), *name)))
            .collect();
        empty.sort_unstable();
        for (_, name) in empty {
            if self.is_enough() {
                return;
            }
            self.lay_idle(name);
        }
    }

    /// Nothing runs there, or soon will.
    fn is_left(&self, node: &Node) -> bool {
        node.attempts.iter().all(|id| self.leaving.contains(id))
    }

    fn lay_idle(&mut self, name: &'w NodeName) {
        if let Some(node) = self.nodes.get(name)
            && self.idle.insert(name)
        {
            self.watts -= saved_watts(self.terms, node);
        }
    }

    fn stop_until_enough(&mut self, now: UnixMicros) {
        for cost in self.costs(now) {
            if self.is_enough() {
                return;
            }
            self.stopped.push(cost.id);
            self.leaving.insert(cost.id);
            for name in self.nodes_of(cost.id) {
                if self.nodes.get(name).is_some_and(|node| self.is_left(node)) {
                    self.lay_idle(name);
                }
            }
        }
    }

    /// Attempts on the part that do not stop anyway, those first that stop first.
    fn costs(&self, now: UnixMicros) -> Vec<Cost> {
        let claims = claims(self.world);
        let here: BTreeSet<AttemptId> =
            self.nodes.values().flat_map(|node| &node.attempts).copied().collect();
        let running = here.iter().filter(|id| !self.leaving.contains(id));
        let attempts = running.filter_map(|id| self.world.attempts.get(id));
        let mut costs: Vec<Cost> = attempts
            .map(|attempt| Cost {
                claim: claims.get(&attempt.id).copied().unwrap_or(Claim::Borrowed),
                lost: lost(attempt, now),
                id: attempt.id,
            })
            .collect();
        costs.sort_unstable();
        costs
    }

    fn nodes_of(&self, id: AttemptId) -> Vec<&'w NodeName> {
        let attempt = self.world.attempts.get(&id);
        let held = attempt.into_iter().flat_map(|attempt| &attempt.placement.nodes);
        held.filter_map(|held| self.nodes.get_key_value(&held.node).map(|(name, _)| *name))
            .collect()
    }

    /// Lets go on what was not needed in the end, the best claims first: until nothing more can.
    fn give_back(&mut self) {
        loop {
            let before = self.stopped.len();
            for id in self.stopped.clone().into_iter().rev() {
                self.give_back_one(id);
            }
            if self.stopped.len() == before {
                return;
            }
        }
    }

    fn give_back_one(&mut self, id: AttemptId) {
        let nodes = self.nodes_of(id).into_iter().filter(|name| self.idle.contains(name));
        let nodes: BTreeSet<&NodeName> = nodes.collect();
        let saved = |name: &&NodeName| {
            self.nodes.get(*name).map_or(0, |node| saved_watts(self.terms, node))
        };
        let more: u64 = nodes.iter().map(saved).sum();
        if self.watts + more > self.allowed {
            return;
        }
        self.watts += more;
        self.idle.retain(|name| !nodes.contains(name));
        self.stopped.retain(|stopped| *stopped != id);
        self.leaving.remove(&id);
    }

    fn done(self) -> Derating {
        let gpus_of = |node: &Node| node.registered.gpus.len() as u64;
        let idle_nodes = self.idle.iter().filter_map(|name| self.nodes.get(*name));
        Derating {
            gpus: self.nodes.values().map(|node| gpus_of(node)).sum(),
            gpus_idle: idle_nodes.map(|node| gpus_of(node)).sum(),
            idle: self.idle.into_iter().cloned().collect(),
            stopped: self.stopped.into_iter().collect(),
            full_watts: self.full,
            watts: self.watts,
        }
    }
}

fn takes_jobs(node: &Node) -> bool {
    node.admin == Admin::Active && node.liveness != Liveness::Lost && node.maintenance.is_none()
}

fn lost(attempt: &Attempt, now: UnixMicros) -> u128 {
    let held_ms = now.millis_since(attempt.leased).max(0).unsigned_abs();
    u128::from(attempt.gpus().0) * u128::from(held_ms)
}

/// The claims of all attempts that hold GPUs. What a project leased first is what it is sure of.
fn claims(world: &World) -> BTreeMap<AttemptId, Claim> {
    let mut lines: Vec<_> = world.attempts.values().collect();
    lines.sort_by_key(|attempt| attempt.place_in_line());
    let mut held: BTreeMap<(&GpuClass, &str), GpuMilli> = BTreeMap::new();
    let mut claims = BTreeMap::new();
    for attempt in lines {
        let Some(class) = &attempt.placement.class else { continue };
        let mut sure = false;
        for path in attempt.project.self_and_ancestors() {
            let guarantee = guarantee(world, path, class);
            let held = held.entry((class, path)).or_default();
            *held += attempt.gpus();
            sure |= *held <= guarantee;
        }
        let claim = match (attempt.meter.footing, sure) {
            (Footing::Scavenger, _) => Claim::Scavenger,
            (Footing::Overuse, _) => Claim::Overuse,
            (Footing::Budget, true) => Claim::Guaranteed,
            (Footing::Budget, false) => Claim::Borrowed,
        };
        claims.insert(attempt.id, claim);
    }
    claims
}

fn guarantee(world: &World, path: &str, class: &GpuClass) -> GpuMilli {
    let node = world.quota.nodes.get(path);
    node.and_then(|node| node.guarantees.get(class)).copied().unwrap_or_default()
}
