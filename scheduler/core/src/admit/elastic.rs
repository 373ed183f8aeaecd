//! Jobs that can do with different numbers of nodes: from how many to how many.

use super::AdmitContext;
use super::fault::{FaultReason, Findings};
use super::request::ResourcesRequest;
use super::resources::{NODES_MAX, capable};
use crate::spec::{Constraints, NodeRequest};

/// Most nodes of a job that has `nodes` at least; `None` if it is to have exactly these.
pub(super) fn nodes_max(
    request: &ResourcesRequest,
    (nodes, per_node): (u32, &NodeRequest),
    constraints: &Constraints,
    context: &AdmitContext,
    findings: &mut Findings,
) -> Option<u32> {
    let most = request.nodes_max;
    if most == 0 {
        return None;
    }
    let (field, before) = ("resources.nodes_max", findings.faults.len());
    if request.gpus_total > 0 {
        let message = "cannot be spread over a number of nodes that is found at the start; give \
                       resources.gpus_per_node";
        findings.fault("resources.gpus_total", FaultReason::Conflict, message);
    } else if most < nodes {
        let message = format!("is {most}, and the job has {nodes} at least; give {nodes} or more");
        findings.fault(field, FaultReason::OutOfRange, message);
    }
    findings.require_range(field, most.into(), 1, NODES_MAX.into(), "nodes");
    let unit = constraints.blocks.segment_nodes();
    if !most.is_multiple_of(unit) {
        let (fewer, more) = (most - most % unit, most.saturating_add(unit - most % unit));
        let message =
            format!("is {most}, no multiple of segments of {unit}; give {fewer} or {more}");
        findings.fault(field, FaultReason::Conflict, message);
    }
    if findings.faults.len() == before {
        warn(most, per_node, constraints, context, findings);
    }
    (most > nodes).then_some(most)
}

/// What keeps it from ever having so many; nodes may be added while it waits, so this is no fault.
fn warn(
    most: u32,
    per_node: &NodeRequest,
    constraints: &Constraints,
    context: &AdmitContext,
    findings: &mut Findings,
) {
    let named = constraints.nodes.len();
    if named > 0 && named < most as usize {
        findings.warn(format!("{named} nodes are named, so the job never has {most}"));
    }
    let there = capable(per_node, context);
    if there > 0 && there < most {
        findings.warn(format!("the machine has {there} such nodes, so the job never has {most}"));
    }
}
