//! How close the nodes of a gang are to be: whether there are such blocks, and whether any is large enough.

use std::collections::BTreeMap;

use super::fault::{FaultReason, Findings};
use super::fleet::Fleet;
use super::request::ConstraintsRequest;
use super::work::shown;
use crate::topology::{BlockTerms, Level, Segment};

/// What a gang of `nodes` nodes asks of blocks.
pub(super) fn block_terms(
    request: &ConstraintsRequest,
    nodes: u32,
    fleet: &Fleet,
    findings: &mut Findings,
) -> BlockTerms {
    let one = one(request, findings).map(|(field, level)| {
        judge_one(field, level, &request.labels, nodes, fleet, findings);
        level
    });
    let prefer = level("constraints.prefer", &request.prefer, findings);
    if let Some(level) = prefer {
        require_named("constraints.prefer", level, fleet, findings);
        if one == Some(level) {
            let noun = level.noun();
            findings.warn(format!("prefers one {noun} and must have one: it has no choice"));
        }
    }
    let segment = segment(request, findings);
    if let Some(segment) = segment {
        judge_segments(segment, nodes, fleet, findings);
    }
    BlockTerms { one, prefer, segment }
}

/// The level of that word, if one is asked for.
fn level(field: &str, word: &str, findings: &mut Findings) -> Option<Level> {
    let found = Level::of_word(word);
    if found.is_none() && !word.is_empty() {
        let words = Level::ALL.map(Level::word).join(", ");
        let message = format!("there is no level \"{}\"; levels: {words}", shown(word));
        findings.fault(field, FaultReason::UnknownLevel, message);
    }
    found
}

/// The level of which all nodes must be in one block, and the field that asks for it.
fn one(request: &ConstraintsRequest, findings: &mut Findings) -> Option<(&'static str, Level)> {
    let one = level("constraints.one", &request.one, findings);
    if let (true, Some(other)) = (request.same_cluster, one.filter(|one| *one != Level::Cluster)) {
        let message =
            format!("asks for one {} beside one cluster; leave one of the two out", other.noun());
        findings.fault("constraints.same_cluster", FaultReason::Conflict, message);
    }
    let same_cluster = request.same_cluster && request.one.is_empty();
    let same_cluster = same_cluster.then_some(("constraints.same_cluster", Level::Cluster));
    one.map(|level| ("constraints.one", level)).or(same_cluster)
}

fn segment(request: &ConstraintsRequest, findings: &mut Findings) -> Option<Segment> {
    let level = level("constraints.segment_level", &request.segment_level, findings);
    if level.is_some() && request.segment_nodes == 0 {
        let message =
            "is the level of segments, and no size is given; add constraints.segment_nodes";
        findings.fault("constraints.segment_level", FaultReason::Conflict, message);
    }
    let (nodes, level) = (request.segment_nodes, level.unwrap_or(Level::OF_SEGMENTS));
    (nodes > 0).then_some(Segment { nodes, level })
}

/// That nodes say which block of the level they belong to.
fn require_named(field: &str, level: Level, fleet: &Fleet, findings: &mut Findings) -> bool {
    let named = fleet.blocks(level).next().is_some();
    if !named && !fleet.nodes().is_empty() {
        let (noun, word) = (level.noun(), level.word());
        let message = format!(
            "no node says which {noun} it belongs to: operators name it in the worker's [topology] {word}, or by the \
             label {word}"
        );
        findings.fault(field, FaultReason::LargerThanMachine, message);
    }
    named
}

/// That some block has so many nodes; of which classes they are is left to the planner.
fn judge_one(
    field: &str,
    level: Level,
    labels: &BTreeMap<String, String>,
    nodes: u32,
    fleet: &Fleet,
    findings: &mut Findings,
) {
    if !require_named(field, level, fleet, findings) {
        return;
    }
    let named = labels.get(level.word());
    let blocks = fleet.blocks(level).filter(|(name, _)| named.is_none_or(|named| named == name));
    // One that is named and not there is a fault of its own.
    let Some((largest, count)) = blocks.max_by_key(|(_, count)| *count) else { return };
    if count < nodes {
        let noun = level.noun();
        let message = format!(
            "the job needs {nodes} nodes of one {noun}, and the largest, {largest}, has {count}; ask for fewer"
        );
        findings.fault(field, FaultReason::LargerThanMachine, message);
    }
}

/// That the gang is made of whole segments, and that so many would find room if all were empty.
fn judge_segments(segment: Segment, nodes: u32, fleet: &Fleet, findings: &mut Findings) {
    let (field, size) = ("constraints.segment_nodes", segment.nodes);
    let wanted = nodes / size;
    if !nodes.is_multiple_of(size) {
        let (fewer, more) = (wanted.saturating_mul(size), (wanted + 1).saturating_mul(size));
        let fit = if fewer == 0 { format!("{more}") } else { format!("{fewer} or {more}") };
        let message = format!(
            "the job needs {nodes} nodes, which is no multiple of its segments of {size}; ask for {fit} nodes, or for \
             other segments"
        );
        return findings.fault(field, FaultReason::Conflict, message);
    }
    if !require_named(field, segment.level, fleet, findings) {
        return;
    }
    let noun = segment.level.noun();
    let room = fleet.blocks(segment.level).map(|(_, count)| count / size);
    let room = room.fold(0, u32::saturating_add);
    if room < wanted {
        let segments = if wanted == 1 { "segment" } else { "segments" };
        let message = format!(
            "the job needs {wanted} {segments} of {size} nodes of one {noun} each, and there is room for {room} if all \
             is empty; ask for fewer nodes or smaller segments"
        );
        findings.fault(field, FaultReason::LargerThanMachine, message);
    }
}
