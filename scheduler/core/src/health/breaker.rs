//! The circuit breaker: a bad driver, or a bad rule, must not empty a hall.
//!
//! Nodes are taken out by rules. When more of a hall would be out than the site finds believable, no more are taken out
//! there, however much they show signs, until a person has looked and reset the breaker.

use serde::{Deserialize, Serialize};

use super::Terms;
use crate::amount::UnixMicros;
use crate::ids::NodeName;
use crate::node::Inventory;
use crate::topology::Level;
use crate::world::{Node, World};

/// The breaker of one hall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Of what: see [`scope_of`].
    pub scope: String,
    /// When it broke; `None` if it holds.
    pub broken: Option<UnixMicros>,
    /// Why, in words.
    pub reason: String,
}

/// Name of what a node shares its breaker with: its hall, else its cluster, else everything.
#[must_use]
pub fn scope_of(inventory: &Inventory) -> String {
    let named =
        |level: Level| inventory.block(level).map(|name| format!("{} {name}", level.word()));
    named(Level::Hall).or_else(|| named(Level::Cluster)).unwrap_or_else(|| "all nodes".to_owned())
}

/// Nodes that share a breaker.
pub fn nodes_of<'w>(
    world: &'w World,
    scope: &'w str,
) -> impl Iterator<Item = (&'w NodeName, &'w Node)> {
    world.nodes.iter().filter(move |(_, node)| scope_of(&node.registered) == scope)
}

/// What the breaker says to one more node going out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It may go.
    Holds,
    /// It may not: the breaker is broken already.
    Broken,
    /// It may not: the breaker breaks by it.
    Breaks(Breaker),
}

/// Whether one more node may be taken out by itself.
#[must_use]
pub fn ruling(world: &World, node: &NodeName, terms: &Terms, now: UnixMicros) -> Ruling {
    let Some(known) = world.nodes.get(node) else { return Ruling::Holds };
    if known.health.out_since().is_some() || terms.breaker_percent >= 100 {
        return Ruling::Holds;
    }
    let scope = scope_of(&known.registered);
    if world.breakers.get(&scope).is_some_and(|breaker| breaker.broken.is_some()) {
        return Ruling::Broken;
    }
    let (out, all) = count(world, &scope, terms, now);
    if out < terms.breaker_lets_go(all) {
        return Ruling::Holds;
    }
    let reason = format!(
        "{out} of {all} nodes went out within {} s, and {node} would have been one more",
        terms.breaker_window_s
    );
    Ruling::Breaks(Breaker { scope, broken: Some(now), reason })
}

/// Nodes of a scope that went out by themselves lately, and all of them.
fn count(world: &World, scope: &str, terms: &Terms, now: UnixMicros) -> (u64, u64) {
    let window_ms = terms.breaker_window_s.saturating_mul(1000);
    let (mut out, mut all) = (0, 0);
    for (_, node) in nodes_of(world, scope) {
        all += 1;
        let since = node.health.out_since();
        out += u64::from(since.is_some_and(|since| now.millis_since(since) <= window_ms));
    }
    (out, all)
}
