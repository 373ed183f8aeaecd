//! Do the nodes of a start keep together as the job asks? Counted anew from the labels.

use crate::attempt::{NodeAllocation, Placement};
use crate::job::Job;
use crate::topology::Level;
use crate::world::World;

/// All that is wrong with where the nodes of a start lie beside each other.
pub(super) fn judge(world: &World, job: &Job, placement: &Placement) -> Vec<String> {
    let terms = job.spec.constraints.blocks;
    let mut wrong = Vec::new();
    if let Some(level) = terms.one
        && !are_of_one(world, &placement.nodes, level)
    {
        wrong.push(format!("needs nodes of one {} and gets others", level.noun()));
    }
    if let Some(segment) = terms.segment {
        let size = segment.nodes.max(1) as usize;
        for (number, nodes) in placement.nodes.chunks(size).enumerate() {
            if nodes.len() < size || !are_of_one(world, nodes, segment.level) {
                let noun = segment.level.noun();
                wrong.push(format!("segment {number} is not {size} nodes of one {noun}"));
            }
        }
    }
    wrong
}

/// Whether all of them carry the same label, and one that names something.
fn are_of_one(world: &World, nodes: &[NodeAllocation], level: Level) -> bool {
    let mut names = nodes.iter().map(|given| {
        let node = world.nodes.get(&given.node)?;
        node.inventory.labels.get(level.word()).filter(|name| !name.is_empty())
    });
    let first = names.next().flatten();
    first.is_some() && names.all(|name| name == first)
}
