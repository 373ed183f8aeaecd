//! NVLink domains as the GPUs of nodes name them, beside those that the configuration names.
//!
//! What the configuration names is never touched. Where it names nothing, a node is of the domain that its GPUs agree
//! on. Where the two do not go together, or GPUs of one node do not, this says so, and nothing follows from it.

use std::collections::BTreeSet;
use std::fmt;

use crate::ids::NodeName;
use crate::node::Inventory;
use crate::topology::Level;
use crate::world::World;

/// What does not go together about a node's NVLink domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disagreement {
    /// Its own GPUs name several.
    Within {
        /// Those, in order.
        domains: Vec<String>,
    },
    /// The configuration has it in one domain with a node whose GPUs name another one than its own.
    NamedAlike {
        /// The configured name.
        name: String,
        /// The first such node.
        other: NodeName,
    },
    /// Its GPUs name the domain that another node's name too, and the two nodes are in different ones.
    NamedApart {
        /// What the GPUs of both name.
        domain: String,
        /// The first such node.
        other: NodeName,
        /// Where that one is.
        name: String,
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disagreement::Within { domains } => {
                write!(out, "its GPUs are of different NVLink domains: {}", domains.join(", "))
            }
            Disagreement::NamedAlike { name, other } => write!(
                out,
                "its NVLink domain is configured as {name}, like that of {other}, but their GPUs are of different ones"
            ),
            Disagreement::NamedApart { domain, other, name } => write!(
                out,
                "its GPUs are of the NVLink domain {domain}, like those of {other}, which is in {name}"
            ),
        }
    }
}

/// The domains that GPUs of the node name; those that name none are passed over.
fn named_by_gpus(inventory: &Inventory) -> BTreeSet<&str> {
    let domains = inventory.gpus.iter().map(|gpu| gpu.nvlink_domain.as_str());
    domains.filter(|domain| !domain.is_empty()).collect()
}

/// The domain that they agree on.
fn agreed(inventory: &Inventory) -> Option<&str> {
    let domains = named_by_gpus(inventory);
    if domains.len() == 1 { domains.first().copied() } else { None }
}

/// Puts a node into the domain that its GPUs agree on, where the configuration names none.
pub fn take_domain_of_gpus(inventory: &mut Inventory) {
    if inventory.block(Level::Nvlink).is_some() {
        return;
    }
    if let Some(domain) = agreed(inventory).map(str::to_owned) {
        inventory.labels.insert(Level::Nvlink.word().to_owned(), domain);
    }
}

/// What does not go together, if anything does not. Looks at all nodes.
#[must_use]
pub fn disagreement(world: &World, inventory: &Inventory) -> Option<Disagreement> {
    let domains = named_by_gpus(inventory);
    if domains.len() > 1 {
        let domains = domains.into_iter().map(str::to_owned).collect();
        return Some(Disagreement::Within { domains });
    }
    let (ours, name) = (agreed(inventory)?, inventory.block(Level::Nvlink)?);
    let others = world.nodes.iter().filter(|(other, _)| **other != inventory.node);
    others.into_iter().find_map(|(other, node)| {
        let theirs = agreed(&node.registered)?;
        let their_name = node.registered.block(Level::Nvlink)?;
        match (theirs == ours, their_name == name) {
            (true, true) | (false, false) => None,
            (false, true) => {
                Some(Disagreement::NamedAlike { name: name.to_owned(), other: other.clone() })
            }
            (true, false) => Some(Disagreement::NamedApart {
                domain: ours.to_owned(),
                other: other.clone(),
                name: their_name.to_owned(),
            }),
        }
    })
}
