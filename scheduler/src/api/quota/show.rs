//! The quota tree as the API shows it.

use gotgan_core::account::Account;
use gotgan_core::amount::GpuMilli;
use gotgan_core::ids::{GpuClass, ProjectPath};
use gotgan_core::quota::budget::Budget;
use gotgan_core::quota::{QuotaNode, QuotaTree};
use gotgan_core::world::World;
use gotgan_proto::v1;
use tonic::{Code, Status};

use super::project_of;
use crate::api::error;
use crate::auth::Principal;

/// A node that the tree has not.
pub(super) fn no_such_node(path: &ProjectPath) -> Status {
    let message = format!("the quota tree has no node {path}; see `gotgan quota show`");
    error::status(Code::NotFound, "UNKNOWN_PROJECT", message)
}

/// What the caller may see of a tree, with what is in use now.
pub(super) fn tree(
    world: &World,
    who: &Principal,
    below: &str,
    tree: &QuotaTree,
) -> Result<v1::QuotaTree, Status> {
    let below = project_of(who, below)?;
    if let Some(path) = below.as_ref().filter(|path| tree.get(path).is_none()) {
        return Err(no_such_node(path));
    }
    let wanted = |path: &ProjectPath| {
        who.may_see(path) && below.as_ref().is_none_or(|below| path.is_within(below.as_str()))
    };
    let nodes = tree.nodes.iter().filter(|(path, _)| wanted(path));
    let nodes = nodes.map(|(path, node)| show_node(world, path, node));
    Ok(v1::QuotaTree { revision: tree.revision, nodes: nodes.collect() })
}

fn show_node(world: &World, path: &ProjectPath, node: &QuotaNode) -> v1::QuotaNode {
    let mut limits: Vec<v1::QuotaLimit> =
        node.limits.iter().map(|(class, most)| limit(class.as_str(), *most)).collect();
    limits.extend(node.any_limit.map(|most| limit("any", most)));
    limits.sort_by(|a, b| a.gpu_class.cmp(&b.gpu_class));
    let usage = world.usage.get(path.as_str()).cloned().unwrap_or_default();
    let amount = |(class, gpus): (&GpuClass, &GpuMilli)| v1::QuotaUse {
        gpu_class: class.to_string(),
        gpu_milli: gpus.0,
    };
    v1::QuotaNode {
        path: path.to_string(),
        title: node.title.clone(),
        limits,
        in_use: usage.held.iter().map(amount).collect(),
        pending_jobs: usage.waiting,
        running_jobs: usage.active,
        guarantees: node.guarantees.iter().map(amount).collect(),
        weight: node.weight,
        budget: node.budget.as_ref().map(|budget| show_budget(world, path, budget)),
        alert_percents: node.budget.iter().flat_map(|_| node.alert.percents()).collect(),
        terms: node
            .bounds
            .words()
            .into_iter()
            .map(|(name, value)| v1::QuotaTerm { name, value })
            .collect(),
    }
}

fn show_budget(world: &World, path: &ProjectPath, budget: &Budget) -> v1::QuotaBudget {
    let account = Account::of(path.as_str(), budget, &world.accounts);
    v1::QuotaBudget {
        ngh_milli: budget.ngh.thousandths_down(),
        carried_ngh_milli: account.carried.thousandths_down(),
        used_ngh_milli: account.used.thousandths_up(),
        held_ngh_milli: account.held.thousandths_up(),
        cap_ngh_milli: account.cap.thousandths_down(),
        period: account.period,
    }
}

fn limit(class: &str, most: GpuMilli) -> v1::QuotaLimit {
    v1::QuotaLimit { gpu_class: class.to_owned(), gpu_milli: Some(most.0) }
}
