//! What the site says of power: watts of its GPUs, caps that it orders, words for caps, and limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::GpuClass;
use crate::mig::Mig;
use crate::node::Gpu;
use crate::node::Inventory;

/// Of a GPU whose class has no watts of its own: only proportions count then.
const USUAL_WATTS: u32 = 1_000;

/// What stands in a table of limits for all that is not named.
const ALL_OTHERS: &str = "*";

/// What the site says of power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerTerms {
    /// The most that a GPU of each class draws when nothing caps it, watts; with its part of the node around it where
    /// `node_watts` says nothing. A class that is not named draws as much as any other.
    pub gpu_watts: BTreeMap<GpuClass, u32>,
    /// What an idle GPU draws of that, percent.
    pub idle_percent: u32,
    /// What a node draws beside its GPUs, busy or not, watts.
    pub node_watts: u32,
    /// The site's order: no GPU of the class draws more while an attempt holds it, watts.
    pub cap_watts: BTreeMap<GpuClass, u32>,
    /// Words that jobs may give instead of watts, with the watts of each class.
    pub modes: BTreeMap<String, BTreeMap<GpuClass, u32>>,
    /// What may be drawn together.
    pub limits: PowerLimits,
}

/// The most that is reserved together, watts. Nothing is limited by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerLimits {
    /// By all nodes.
    pub site_watts: Option<u64>,
    /// By all nodes of a hall, by the name of the hall; `*`: by those of each other one.
    pub hall_watts: BTreeMap<String, u64>,
    /// By all nodes of a rack, likewise.
    pub rack_watts: BTreeMap<String, u64>,
    /// By a node, likewise.
    pub node_watts: BTreeMap<String, u64>,
}

/// What a limit is of, the widest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PowerLevel {
    /// All nodes.
    Site,
    /// Those of a hall.
    Hall,
    /// Those of a rack.
    Rack,
    /// One.
    Node,
}

/// What is wrong with the site's numbers: which key, and how it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {rule}")]
pub struct BadPower {
    /// The key below `policy.power`.
    pub key: String,
    /// What it must be.
    pub rule: &'static str,
}

impl Default for PowerTerms {
    fn default() -> Self {
        // A B200 of 1,000 W draws 140 W when it has nothing to do.
        PowerTerms {
            gpu_watts: BTreeMap::new(),
            idle_percent: 15,
            node_watts: 0,
            cap_watts: BTreeMap::new(),
            modes: BTreeMap::new(),
            limits: PowerLimits::default(),
        }
    }
}

impl PowerTerms {
    /// The first number that cannot be.
    ///
    /// # Errors
    /// [`BadPower`], with its key.
    pub fn check(&self) -> Result<(), BadPower> {
        let bad = |key: String, rule| Err(BadPower { key, rule });
        if self.idle_percent > 100 {
            return bad("idle_percent".to_owned(), "must be 0 up to 100");
        }
        if let Some((class, _)) = self.gpu_watts.iter().find(|(_, watts)| **watts == 0) {
            return bad(format!("gpu_watts.{class}"), "must be above 0");
        }
        if let Some((class, _)) = self.cap_watts.iter().find(|(_, watts)| **watts == 0) {
            return bad(
                format!("cap_watts.{class}"),
                "must be at least 1 watt; leave it out for no cap",
            );
        }
        for (mode, watts) in &self.modes {
            if mode.is_empty() || mode.chars().all(|letter| letter.is_ascii_digit()) {
                return bad(format!("modes.\"{mode}\""), "must be a word that is no number");
            }
            if let Some((class, _)) = watts.iter().find(|(_, watts)| **watts == 0) {
                return bad(format!("modes.{mode}.{class}"), "must be at least 1 watt");
            }
        }
        Ok(())
    }

    /// The most that a GPU draws that nothing caps, watts.
    #[must_use]
    pub fn full_watts(&self, class: &GpuClass) -> u32 {
        self.gpu_watts.get(class).copied().unwrap_or(USUAL_WATTS)
    }

    /// What a GPU is reserved that nobody holds, watts.
    #[must_use]
    pub fn idle_watts(&self, class: &GpuClass) -> u32 {
        let idle = u64::from(self.full_watts(class)) * u64::from(self.idle_percent.min(100)) / 100;
        u32::try_from(idle).unwrap_or(u32::MAX)
    }

    /// The same of one GPU: one that is cut into instances counts with all that it may draw at any time, since they are used
    /// one by one and cannot be capped.
    #[must_use]
    pub fn idle_watts_of(&self, gpu: &Gpu) -> u32 {
        match gpu.mig {
            Mig::Off => self.idle_watts(&gpu.class),
            Mig::Cut(_) | Mig::Instance(_) => self.busy_watts(&gpu.class, None),
        }
    }

    /// What a GPU is reserved that an attempt holds with this cap, or with none, watts.
    #[must_use]
    pub fn busy_watts(&self, class: &GpuClass, cap_watts: Option<u32>) -> u32 {
        let full = self.full_watts(class);
        cap_watts.map_or(full, |cap| cap.min(full)).max(self.idle_watts(class))
    }

    /// The cap that a GPU of the class gets for a job that asks for so many watts, or for nothing; `None`: none.
    #[must_use]
    pub fn cap_watts(&self, class: &GpuClass, asked_watts: Option<u32>) -> Option<u32> {
        let ordered = self.cap_watts.get(class).copied();
        ordered.into_iter().chain(asked_watts).min()
    }
}

impl PowerLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == PowerLimits::default()
    }

    /// The limit of what the node belongs to at that level, with the name of that; `None` if there is none.
    #[must_use]
    pub fn of<'a>(&self, level: PowerLevel, inventory: &'a Inventory) -> Option<(&'a str, u64)> {
        let label = |key: &str| inventory.labels.get(key).map(String::as_str);
        let (name, limits) = match level {
            PowerLevel::Site => return self.site_watts.map(|watts| ("", watts)),
            PowerLevel::Hall => (label(level.word())?, &self.hall_watts),
            PowerLevel::Rack => (label(level.word())?, &self.rack_watts),
            PowerLevel::Node => (inventory.node.as_str(), &self.node_watts),
        };
        let watts = limits.get(name).or_else(|| limits.get(ALL_OTHERS)).copied()?;
        (!name.is_empty()).then_some((name, watts))
    }
}

impl PowerLevel {
    /// All levels, the widest first.
    pub const ALL: [PowerLevel; 4] =
        [PowerLevel::Site, PowerLevel::Hall, PowerLevel::Rack, PowerLevel::Node];

    /// The word for it; for halls and racks also the key of the label that names a node's.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            PowerLevel::Site => "site",
            PowerLevel::Hall => "hall",
            PowerLevel::Rack => "rack",
            PowerLevel::Node => "node",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> GpuClass {
        GpuClass::new(name).unwrap()
    }

    #[test]
    fn the_lower_of_what_a_job_asks_and_the_site_orders_is_the_cap() {
        let cap_watts = BTreeMap::from([(class("b200"), 800)]);
        let terms = PowerTerms { cap_watts, ..PowerTerms::default() };
        assert_eq!(terms.cap_watts(&class("b200"), None), Some(800));
        assert_eq!(terms.cap_watts(&class("b200"), Some(600)), Some(600));
        assert_eq!(terms.cap_watts(&class("b200"), Some(1000)), Some(800));
        assert_eq!(terms.cap_watts(&class("h100"), Some(400)), Some(400));
        assert_eq!(terms.cap_watts(&class("h100"), None), None);
    }

    #[test]
    fn a_gpu_is_reserved_no_less_than_idle_and_no_more_than_all_of_it() {
        let gpu_watts = BTreeMap::from([(class("b200"), 1000)]);
        let terms = PowerTerms { gpu_watts, ..PowerTerms::default() };
        assert_eq!(terms.idle_watts(&class("b200")), 150);
        assert_eq!(terms.busy_watts(&class("b200"), None), 1000);
        assert_eq!(terms.busy_watts(&class("b200"), Some(600)), 600);
        assert_eq!(terms.busy_watts(&class("b200"), Some(1200)), 1000);
        assert_eq!(terms.busy_watts(&class("b200"), Some(100)), 150);
    }

    #[test]
    fn a_number_that_cannot_be_is_refused_with_its_key() {
        let refusal = |terms: PowerTerms| terms.check().unwrap_err().to_string();
        let cap_watts = BTreeMap::from([(class("b200"), 0)]);
        let terms = PowerTerms { cap_watts, ..PowerTerms::default() };
        assert!(refusal(terms).starts_with("cap_watts.b200 must be"));
        let modes = BTreeMap::from([("600".to_owned(), BTreeMap::new())]);
        let terms = PowerTerms { modes, ..PowerTerms::default() };
        assert!(refusal(terms).ends_with("must be a word that is no number"));
        let terms = PowerTerms { idle_percent: 101, ..PowerTerms::default() };
        assert!(refusal(terms).starts_with("idle_percent"));
        PowerTerms::default().check().unwrap();
    }
}
