//! Who pays and where it may run: the project, and the nodes and labels named.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{FaultReason, Findings};
use super::fleet::Fleet;
use super::near::suggestion;
use super::request::ConstraintsRequest;
use super::together;
use super::work::shown;
use crate::ids::{NodeName, ProjectPath, ReservationName};
use crate::image::ImagePath;
use crate::quota::QuotaTree;
use crate::spec::Constraints;

/// Nodes named in one list: as many as a gang may have.
const NODES_MAX: usize = 10_000;
/// Labels asked for.
const LABELS_MAX: usize = 64;
/// Children of a project named in a message.
const CHILDREN_NAMED: usize = 3;

/// The leaf that pays; `None` with a fault noted.
pub(super) fn project(
    asked: &str,
    quota: &QuotaTree,
    findings: &mut Findings,
) -> Option<ProjectPath> {
    if asked.is_empty() {
        let message = "no project; name the one that pays, as in public/nup/startup-042";
        findings.fault("project", FaultReason::Missing, message);
        return None;
    }
    let known = ProjectPath::new(asked).ok().filter(|path| quota.nodes.contains_key(path));
    let Some(path) = known else {
        let leaves = quota.nodes.keys().map(ProjectPath::as_str);
        let near = suggestion(asked, leaves, "projects");
        let message = format!("there is no project \"{}\"{near}", shown(asked));
        findings.fault("project", FaultReason::UnknownProject, message);
        return None;
    };
    if !quota.is_leaf(&path) {
        let children: Vec<&str> = quota
            .nodes
            .keys()
            .filter(|other| other.parent() == Some(path.as_str()))
            .map(ProjectPath::as_str)
            .take(CHILDREN_NAMED)
            .collect();
        let message = format!(
            "\"{path}\" has projects below it and takes no jobs itself; use one of them, as {}",
            children.join(", ")
        );
        findings.fault("project", FaultReason::ProjectNotALeaf, message);
        return None;
    }
    Some(path)
}

/// Where a gang of `nodes` nodes may run.
pub(super) fn constraints(
    request: ConstraintsRequest,
    (nodes, images): (u32, bool),
    fleet: &Fleet,
    findings: &mut Findings,
) -> Constraints {
    let wanted = node_list("constraints.nodes", &request.nodes, fleet, findings);
    let unwanted = node_list("constraints.exclude_nodes", &request.exclude_nodes, fleet, findings);
    if let Some(both) = wanted.intersection(&unwanted).next() {
        let message = format!("{both} is also in constraints.nodes; remove it from one of the two");
        findings.fault("constraints.exclude_nodes", FaultReason::Conflict, message);
    }
    // Counted as given, so that a misspelt name is one fault and not two.
    let named = request.nodes.iter().collect::<BTreeSet<_>>().len();
    if named > 0 && named < nodes as usize {
        let message =
            format!("names {named} of the {nodes} nodes the job needs; name more or ask for fewer");
        findings.fault("constraints.nodes", FaultReason::Conflict, message);
    }
    labels(&request.labels, fleet, findings);
    let blocks = together::block_terms(&request, nodes, fleet, findings);
    let reservation = reservation(&request.reservation, findings);
    let labels = request.labels;
    Constraints { nodes: wanted, exclude_nodes: unwanted, labels, blocks, reservation, images }
}

/// What lies at the path is seen by the worker, as the job's user. Workers say anew at each start whether they can run
/// images, so that none does now is no fault.
pub(super) fn image(asked: &str, fleet: &Fleet, findings: &mut Findings) -> Option<ImagePath> {
    if asked.is_empty() {
        return None;
    }
    match ImagePath::new(asked) {
        Ok(image) => {
            if fleet.images() == 0 {
                let message = "no node runs jobs with an image now: it waits until one does";
                findings.warn(message.to_owned());
            }
            Some(image)
        }
        Err(bad) => {
            let message = format!("\"{}\" {bad}", shown(asked));
            findings.fault("image", FaultReason::Malformed, message);
            None
        }
    }
}

/// Whether there is such a reservation, and for whom, is seen when the job is stored, which knows the time.
fn reservation(asked: &str, findings: &mut Findings) -> Option<ReservationName> {
    if asked.is_empty() {
        return None;
    }
    let name = ReservationName::new(asked);
    if let Err(bad) = &name {
        findings.fault("constraints.reservation", FaultReason::Malformed, bad.to_string());
    }
    name.ok()
}

fn node_list(
    field: &str,
    asked: &[String],
    fleet: &Fleet,
    findings: &mut Findings,
) -> BTreeSet<NodeName> {
    findings.require_at_most(field, asked.len(), NODES_MAX, "nodes");
    let mut names = BTreeSet::new();
    for text in asked.iter().take(NODES_MAX) {
        match NodeName::new(text) {
            Ok(name) if fleet.nodes().contains(&name) => {
                names.insert(name);
            }
            Ok(name) if fleet.nodes().is_empty() => {
                findings
                    .warn(format!("no node has registered yet, so {name} could not be checked"));
                names.insert(name);
            }
            Ok(_) | Err(_) => {
                let known = fleet.nodes().iter().map(NodeName::as_str);
                let near = suggestion(text, known, "nodes");
                let message = format!("there is no node \"{}\"{near}", shown(text));
                findings.fault(field, FaultReason::UnknownNode, message);
            }
        }
    }
    names
}

fn labels(asked: &BTreeMap<String, String>, fleet: &Fleet, findings: &mut Findings) {
    findings.require_at_most("constraints.labels", asked.len(), LABELS_MAX, "labels");
    for (key, value) in asked.iter().take(LABELS_MAX) {
        if fleet.nodes().is_empty() {
            findings.warn(format!(
                "no node has registered yet, so the label {}={} could not be checked",
                shown(key),
                shown(value)
            ));
            continue;
        }
        let field = format!("constraints.labels.{}", shown(key));
        match fleet.labels().get(key) {
            None => {
                let near = suggestion(key, fleet.labels().keys().map(String::as_str), "labels");
                let message = format!("no node carries the label \"{}\"{near}", shown(key));
                findings.fault(&field, FaultReason::UnknownLabel, message);
            }
            Some(values) if !values.contains(value) => {
                let near = suggestion(value, values.iter().map(String::as_str), "its values");
                let message = format!("no node carries {}=\"{}\"{near}", shown(key), shown(value));
                findings.fault(&field, FaultReason::UnknownLabel, message);
            }
            Some(_) => {}
        }
    }
}
