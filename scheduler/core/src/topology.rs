//! Where nodes stand beside each other, and how close the nodes of a gang are to be.
//!
//! A block is a set of nodes that are close in one way: of one cluster, one hall, one rack and so on. Each way is a
//! level. A node says which block it belongs to at a level by a label whose key is the word of the level, so blocks
//! need no file of their own and follow the nodes. Levels are independent: none is assumed to lie inside another.

use serde::{Deserialize, Serialize};

use crate::node::Inventory;

/// A way in which nodes are close, the widest first; in this order ranks of a gang follow blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One fabric, as quota files name it.
    Cluster,
    /// One room.
    Hall,
    /// Below one spine switch.
    Spine,
    /// Below one leaf switch.
    Leaf,
    /// One rack.
    Rack,
    /// One NVLink domain: nodes whose GPUs reach each other's memory, as the 18 trays of an NVL72 rack.
    Nvlink,
}

impl Level {
    /// All levels, the widest first.
    pub const ALL: [Level; 6] =
        [Level::Cluster, Level::Hall, Level::Spine, Level::Leaf, Level::Rack, Level::Nvlink];

    /// The level in which segments lie unless another is asked for.
    pub const OF_SEGMENTS: Level = Level::Nvlink;

    /// The word people type, and the key of the label that names a node's block.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Level::Cluster => "cluster",
            Level::Hall => "hall",
            Level::Spine => "spine",
            Level::Leaf => "leaf",
            Level::Rack => "rack",
            Level::Nvlink => "nvlink",
        }
    }

    /// What a block of it is called.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Level::Cluster => "cluster",
            Level::Hall => "hall",
            Level::Spine => "spine switch",
            Level::Leaf => "leaf switch",
            Level::Rack => "rack",
            Level::Nvlink => "NVLink domain",
        }
    }

    /// The level of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Level::ALL.into_iter().find(|level| level.word() == word)
    }
}

impl Inventory {
    /// Name of the block that it belongs to at that level; `None` if it belongs to none.
    #[must_use]
    pub fn block(&self, level: Level) -> Option<&str> {
        self.labels.get(level.word()).map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// How close the nodes of a gang are to be. Nothing is asked by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockTerms {
    /// All of its nodes must be of one block of this level, whichever; a node that belongs to none will not do.
    #[serde(default)]
    pub one: Option<Level>,
    /// Its nodes should be of as few blocks of this level as possible; it never waits for that.
    #[serde(default)]
    pub prefer: Option<Level>,
    /// It must be made of parts that are each inside one block.
    #[serde(default)]
    pub segment: Option<Segment>,
}

/// Parts of a gang that are each inside one block. Their nodes have neighbouring ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// Nodes of each part, at least 1; the gang is a multiple of it.
    pub nodes: u32,
    /// Level of the blocks.
    pub level: Level,
}

impl BlockTerms {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == BlockTerms::default()
    }

    /// Whether some choices of nodes will not do.
    #[must_use]
    pub fn is_binding(&self) -> bool {
        self.one.is_some() || self.segment.is_some()
    }

    /// Whether a node could serve that belongs to these blocks.
    #[must_use]
    pub fn admit(&self, inventory: &Inventory) -> bool {
        let levels = self.one.into_iter().chain(self.segment.map(|segment| segment.level));
        levels.into_iter().all(|level| inventory.block(level).is_some())
    }

    /// Nodes of a segment; 1 where none is asked.
    #[must_use]
    pub fn segment_nodes(&self) -> u32 {
        self.segment.map_or(1, |segment| segment.nodes.max(1))
    }

    /// The level whose blocks stay together in the ranks, whatever else does.
    #[must_use]
    pub fn ranked_by(&self) -> Option<Level> {
        self.segment.map(|segment| segment.level).or(self.prefer)
    }

    /// As stored by builds that knew `same_cluster` alone.
    pub(crate) fn of_same_cluster(same_cluster: bool) -> Self {
        let one = same_cluster.then_some(Level::Cluster);
        BlockTerms { one, ..BlockTerms::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_found_by_its_word_and_stored_by_it() {
        for level in Level::ALL {
            assert_eq!(Level::of_word(level.word()), Some(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.word());
        }
        assert_eq!(Level::of_word("row"), None);
        assert!(Level::ALL.is_sorted(), "the derived order is the order of the list");
    }
}
