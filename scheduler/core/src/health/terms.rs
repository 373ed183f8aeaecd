//! Numbers the site sets about health.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Rules;

/// Numbers the site sets about the health of its hardware, and its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// What comes back is watched for this long without a sign of bad health before it takes work, seconds.
    pub verify_s: i64,
    /// What is to be reset once nothing is on it has nothing begun on it from then on that would not be over so long after
    /// that was known, seconds; 0: it may wait for ever.
    pub reset_within_s: i64,
    /// A failure within this time after an error of the hardware is put down to that, seconds.
    pub blame_s: i64,
    /// Jobs of two users that fail on a GPU by their own doing within this time make it watched, seconds.
    pub complaints_s: i64,
    /// A slow-down by heat or by the power supply is over once it has been away for this long, seconds.
    pub slowdown_s: i64,
    /// When more than this part of the nodes of a hall would be out by themselves, no more are taken out, percent. 100:
    /// there is no such limit.
    pub breaker_percent: u32,
    /// So many nodes of a hall may always be out by themselves.
    pub breaker_nodes: u32,
    /// Nodes that went out longer ago than this do not count, seconds.
    pub breaker_window_s: i64,
    /// So many nodes of a rack or hall that are slowed down at once are a matter of the building.
    pub facility_nodes: u32,
    /// And so large a part of them, percent.
    pub facility_percent: u32,
    /// When so many users, or losses of the node itself, speak against a node, it is a lemon; 0: none is looked for. The
    /// score is rounded.
    pub lemon_score: u32,
    /// After this time what speaks against a node counts half, seconds.
    pub lemon_half_life_s: i64,
    /// What each sign calls for. Set by a file of its own.
    #[serde(skip)]
    pub rules: Arc<Rules>,
}

impl Terms {
    /// How many nodes of a hall of so many may be out at a time by themselves.
    #[must_use]
    pub(crate) fn breaker_lets_go(&self, nodes: u64) -> u64 {
        match self.breaker_percent {
            100.. => u64::MAX,
            percent => (nodes * u64::from(percent) / 100).max(u64::from(self.breaker_nodes)),
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            verify_s: 60,
            reset_within_s: 24 * 3600,
            blame_s: 300,
            complaints_s: 24 * 3600,
            slowdown_s: 60,
            breaker_percent: 5,
            breaker_nodes: 3,
            breaker_window_s: 3600,
            facility_nodes: 3,
            facility_percent: 30,
            lemon_score: 3,
            lemon_half_life_s: 3 * 86_400,
            rules: Arc::new(Rules::default()),
        }
    }
}
