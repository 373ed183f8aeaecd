//! What of every power limit is reserved: by nodes for themselves, by GPUs that nobody holds with their idle figure, and by
//! GPUs that an attempt holds with the cap that it started with.
//!
//! It follows from nodes and attempts alone, node by node, so whatever an attempt reserved is given back when it ends. Where
//! nothing is limited there is nothing in it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{PowerLevel, PowerLimits, PowerTerms};
use crate::ids::NodeName;
use crate::node::{Gpu, Inventory};
use crate::world::{Node, World};

/// Racks, and nodes, that are shown at most; a site has thousands.
const SHOWN_MAX: usize = 10;

/// Name of a limit: its level, and what of that level it is of; nothing for the site.
pub type PlaceKey = (PowerLevel, String);

/// What is reserved of every limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PowerBudget {
    places: BTreeMap<PlaceKey, PowerPlace>,
    nodes: BTreeMap<NodeName, Share>,
}

/// One limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PowerPlace {
    /// The most, watts.
    pub limit_watts: u64,
    /// What is reserved of it, watts; more than the limit where that was lowered, or nodes were added.
    pub reserved_watts: u64,
    /// What would be if nothing ran there, watts.
    pub idle_watts: u64,
    /// Nodes there.
    pub nodes: u32,
}

/// What a node reserves, watts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeDraw {
    /// With what runs there.
    pub watts: u64,
    /// If nothing did.
    pub idle_watts: u64,
}

/// Where a node counts, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    places: Vec<PlaceKey>,
    draw: NodeDraw,
}

impl PowerPlace {
    /// Which part of the limit is reserved, thousandths.
    #[must_use]
    pub fn reserved_per_mille(&self) -> u64 {
        self.reserved_watts.saturating_mul(1_000) / self.limit_watts.max(1)
    }

    /// What is left, watts; nothing where too much is reserved already.
    #[must_use]
    pub fn free_watts(&self) -> u64 {
        self.limit_watts.saturating_sub(self.reserved_watts)
    }
}

impl PowerBudget {
    /// Every limit of which there are nodes, the widest first.
    pub fn places(&self) -> impl Iterator<Item = (&PlaceKey, &PowerPlace)> {
        self.places.iter()
    }

    /// One limit; `None` if no node counts for it.
    #[must_use]
    pub fn get(&self, key: &PlaceKey) -> Option<&PowerPlace> {
        self.places.get(key)
    }

    /// Those that people look at: of the site and of halls all, of racks and of nodes the fullest; the widest first.
    #[must_use]
    pub fn shown(&self) -> Vec<(&PlaceKey, &PowerPlace)> {
        let mut shown = Vec::new();
        for level in PowerLevel::ALL {
            let mut of_level: Vec<_> = self.places().filter(|((of, _), _)| *of == level).collect();
            if matches!(level, PowerLevel::Rack | PowerLevel::Node) {
                of_level.sort_by_key(|(_, place)| Reverse(place.reserved_per_mille()));
                of_level.truncate(SHOWN_MAX);
            }
            shown.extend(of_level);
        }
        shown
    }

    /// The limits that the node counts for.
    pub fn of_node(&self, node: &NodeName) -> impl Iterator<Item = &PlaceKey> {
        self.nodes.get(node).into_iter().flat_map(|share| &share.places)
    }

    /// From now on a node of this inventory reserves so much, and no longer what it did.
    pub fn set(&mut self, limits: &PowerLimits, inventory: &Inventory, draw: NodeDraw) {
        if let Some(before) = self.nodes.remove(&inventory.node) {
            before.places.into_iter().for_each(|key| self.leave(key, before.draw));
        }
        let of = |level| {
            let (name, watts) = limits.of(level, inventory)?;
            Some(((level, name.to_owned()), watts))
        };
        let places: Vec<(PlaceKey, u64)> = PowerLevel::ALL.into_iter().filter_map(of).collect();
        for (key, limit_watts) in &places {
            let place = self.places.entry(key.clone()).or_default();
            place.limit_watts = *limit_watts;
            place.reserved_watts += draw.watts;
            place.idle_watts += draw.idle_watts;
            place.nodes += 1;
        }
        let places = places.into_iter().map(|(key, _)| key).collect();
        self.nodes.insert(inventory.node.clone(), Share { places, draw });
    }

    /// A limit of which no node is left is forgotten: a world that is loaded anew never heard of it.
    fn leave(&mut self, key: PlaceKey, draw: NodeDraw) {
        let Some(place) = self.places.get_mut(&key) else { return };
        place.reserved_watts = place.reserved_watts.saturating_sub(draw.watts);
        place.idle_watts = place.idle_watts.saturating_sub(draw.idle_watts);
        place.nodes = place.nodes.saturating_sub(1);
        if place.nodes == 0 {
            self.places.remove(&key);
        }
    }
}

/// What a node reserves that has these attempts.
#[must_use]
pub fn draw_of(world: &World, node: &Node) -> NodeDraw {
    let terms: &PowerTerms = &world.power;
    let of_gpus = |watts: &dyn Fn(&Gpu) -> u32| -> u64 {
        node.registered.gpus.iter().map(|gpu| u64::from(watts(gpu))).sum()
    };
    let own = u64::from(terms.node_watts);
    NodeDraw {
        watts: own + of_gpus(&|gpu| gpu_watts(world, node, gpu)),
        idle_watts: own + of_gpus(&|gpu| terms.idle_watts_of(gpu)),
    }
}

/// What a GPU of the node is reserved now, watts. Attempts that share it may have started with different caps; then the
/// highest counts.
#[must_use]
pub fn gpu_watts(world: &World, node: &Node, gpu: &Gpu) -> u32 {
    let attempts = node.attempts.iter().filter_map(|id| world.attempts.get(id));
    let holders = attempts.filter_map(|attempt| {
        let placement = &attempt.placement;
        let held = placement.nodes.iter().find(|held| held.node == node.registered.node)?;
        let holds = held.gpus.iter().any(|held| held.uuid == gpu.uuid);
        holds.then(|| world.power.busy_watts(&gpu.class, placement.gpu_cap_watts))
    });
    holders.max().unwrap_or_else(|| world.power.idle_watts_of(gpu))
}

impl World {
    /// Counts what the node reserves anew.
    pub(crate) fn recount_power(&mut self, name: &NodeName) {
        if self.power.limits.is_empty() {
            return;
        }
        let Some(node) = self.nodes.get(name) else { return };
        let draw = draw_of(self, node);
        self.power_budget.set(&self.power.limits, &node.registered, draw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(level: PowerLevel, name: &str) -> PlaceKey {
        (level, name.to_owned())
    }

    fn inventory(node: &str, hall: &str) -> Inventory {
        let node = format!(
            r#"{{"node":"{node}","address":"","boot_id":"","worker_version":"","os":"","kernel":"",
                "driver_version":"","cuda_version":"","cpu_milli":1,"memory_mib":1,"gpus":[],
                "labels":{{"hall":"{hall}"}},"simulated":true}}"#
        );
        serde_json::from_str(&node).unwrap()
    }

    fn limits() -> PowerLimits {
        PowerLimits {
            site_watts: Some(10_000),
            hall_watts: BTreeMap::from([("h1".to_owned(), 5_000), ("*".to_owned(), 4_000)]),
            ..PowerLimits::default()
        }
    }

    #[test]
    fn a_node_counts_at_every_level_that_has_a_limit() {
        let mut budget = PowerBudget::default();
        let draw = NodeDraw { watts: 900, idle_watts: 100 };
        budget.set(&limits(), &inventory("n1", "h1"), draw);
        budget.set(&limits(), &inventory("n2", "h2"), draw);
        let found: Vec<_> = budget.places().map(|(key, place)| (key.clone(), *place)).collect();
        let place = |limit_watts, nodes: u32| PowerPlace {
            limit_watts,
            reserved_watts: 900 * u64::from(nodes),
            idle_watts: 100 * u64::from(nodes),
            nodes,
        };
        let expected = [
            (key(PowerLevel::Site, ""), place(10_000, 2)),
            (key(PowerLevel::Hall, "h1"), place(5_000, 1)),
            (key(PowerLevel::Hall, "h2"), place(4_000, 1)),
        ];
        assert_eq!(found, expected);
        assert_eq!(found[1].1.free_watts(), 4_100);
    }

    #[test]
    fn of_nodes_the_fullest_are_shown_behind_all_halls() {
        let node_watts = BTreeMap::from([("*".to_owned(), 1_000)]);
        let limits = PowerLimits { node_watts, ..limits() };
        let mut budget = PowerBudget::default();
        for number in 0..20_u32 {
            let (name, hall) = (format!("n{number}"), format!("h{}", number % 12));
            let draw = NodeDraw { watts: u64::from(number) * 10, idle_watts: 0 };
            budget.set(&limits, &inventory(&name, &hall), draw);
        }
        let shown: Vec<_> = budget.shown().into_iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(shown.len(), 1 + 12 + SHOWN_MAX);
        assert_eq!(shown[13], key(PowerLevel::Node, "n19"));
    }

    #[test]
    fn what_a_node_reserved_goes_with_it_to_another_hall() {
        let mut budget = PowerBudget::default();
        let draw = |watts| NodeDraw { watts, idle_watts: 100 };
        budget.set(&limits(), &inventory("n1", "h1"), draw(900));
        budget.set(&limits(), &inventory("n1", "h2"), draw(300));
        let mut moved = PowerBudget::default();
        moved.set(&limits(), &inventory("n1", "h2"), draw(300));
        assert_eq!(budget, moved);
        let of_node: Vec<_> = budget.of_node(&NodeName::new("n1").unwrap()).cloned().collect();
        assert_eq!(of_node, [key(PowerLevel::Site, ""), key(PowerLevel::Hall, "h2")]);
    }
}
