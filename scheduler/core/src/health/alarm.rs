//! What is a matter of the building: many nodes of a rack or a hall that are slowed down at once.

use std::collections::BTreeMap;

use super::{Condition, Terms};
use crate::node::Inventory;
use crate::topology::Level;
use crate::world::{Node, World};

/// Many nodes of a block have the same condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FacilityAlarm {
    /// Level of the block.
    pub level: Level,
    /// Its name.
    pub block: String,
    /// What they have.
    pub condition: Condition,
    /// How many nodes of it.
    pub nodes: u64,
    /// How many it has.
    pub all: u64,
}

impl FacilityAlarm {
    /// Whether another is about the same, whatever the numbers.
    #[must_use]
    pub fn is_about(&self, other: &Self) -> bool {
        (self.level, &self.block, self.condition) == (other.level, &other.block, other.condition)
    }

    /// In words, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let what = match self.condition {
            Condition::PowerBrake => "are slowed down by the power supply: look at the power",
            _ => "are slowed down because they are too warm: look at the cooling",
        };
        let FacilityAlarm { level, block, nodes, all, .. } = self;
        format!("{} {block}: {nodes} of {all} nodes {what}; nothing was taken out", level.noun())
    }
}

/// Nodes of a block, and how many of them each slow-down has.
#[derive(Default)]
struct Slowed {
    all: u64,
    nodes: BTreeMap<Condition, u64>,
}

/// Levels whose blocks share power and air.
const LEVELS: [Level; 2] = [Level::Hall, Level::Rack];

/// All alarms of the building.
#[must_use]
pub fn facility(world: &World, terms: &Terms) -> Vec<FacilityAlarm> {
    let slowed = |node: &&Node| !slowdowns(node).is_empty();
    if world.nodes.values().filter(slowed).count() < terms.facility_nodes as usize {
        return Vec::new();
    }
    let mut blocks: BTreeMap<(Level, &str), Slowed> = BTreeMap::new();
    for node in world.nodes.values() {
        for (level, block) in blocks_of(&node.registered) {
            let slowed = blocks.entry((level, block)).or_default();
            slowed.all += 1;
            for condition in slowdowns(node) {
                *slowed.nodes.entry(condition).or_default() += 1;
            }
        }
    }
    let alarms = blocks.into_iter().flat_map(|((level, block), slowed)| {
        slowed.nodes.into_iter().map(move |(condition, nodes)| {
            let (block, all) = (block.to_owned(), slowed.all);
            FacilityAlarm { level, block, condition, nodes, all }
        })
    });
    alarms.filter(|alarm| is_many(alarm.nodes, alarm.all, terms)).collect()
}

fn is_many(nodes: u64, all: u64, terms: &Terms) -> bool {
    nodes >= u64::from(terms.facility_nodes)
        && nodes * 100 >= all * u64::from(terms.facility_percent)
}

fn blocks_of(inventory: &Inventory) -> impl Iterator<Item = (Level, &str)> {
    LEVELS.into_iter().filter_map(|level| Some((level, inventory.block(level)?)))
}

/// Slow-downs that some GPU of the node has.
fn slowdowns(node: &Node) -> Vec<Condition> {
    let all = Condition::ALL.iter().copied().filter(|it| it.is_of_the_facility());
    all.filter(|condition| node.health.has(*condition)).collect()
}
