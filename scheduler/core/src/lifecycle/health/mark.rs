//! Ends that speak against the nodes they happened on, and nodes that become lemons by it.

use super::sign::{self, Sign};
use super::{change, is_to_blame};
use crate::attempt::{Attempt, Cause, MemberEnd, Outcome, Progress};
use crate::health::lemon::{self, Mark, Score};
use crate::health::{Signal, State};
use crate::ids::{NodeName, UserName};
use crate::lifecycle::Draft;

/// Notes an attempt's end against its nodes, if it speaks against any.
pub(in super::super) fn mark(draft: &mut Draft<'_>, attempt: &Attempt, outcome: &Outcome) {
    if draft.policy.health.lemon_score == 0 {
        return;
    }
    let failed = outcome.exit.is_some_and(|exit| !exit.is_success());
    let owner = draft.world.jobs.get(&attempt.id.job).map(|job| job.owner.clone());
    let (nodes, user) = match outcome.cause {
        Cause::User if failed => (all_nodes(attempt), owner),
        Cause::Node | Cause::Hardware | Cause::Network => (lost_nodes(draft, attempt), None),
        Cause::User | Cause::Site | Cause::Preempted | Cause::Limit | Cause::OutOfMemory => return,
    };
    if nodes.len() > lemon::NODES_MAX {
        return;
    }
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    for node in nodes {
        mark_node(draft, &node, user.clone(), count);
    }
}

fn all_nodes(attempt: &Attempt) -> Vec<NodeName> {
    attempt.placement.nodes.iter().map(|place| place.node.clone()).collect()
}

/// Those of the attempt that failed by themselves.
fn lost_nodes(draft: &Draft<'_>, attempt: &Attempt) -> Vec<NodeName> {
    let lost = |end: &MemberEnd| {
        end.own && matches!(end.cause, Cause::Node | Cause::Hardware | Cause::Network)
    };
    let members = attempt.members.iter().zip(&attempt.placement.nodes);
    let own = members.filter(|(member, place)| {
        matches!(&member.progress, Progress::Ended(end) if lost(end))
            || is_to_blame(draft, &place.node, attempt.id)
    });
    own.map(|(_, place)| place.node.clone()).collect()
}

fn mark_node(draft: &mut Draft<'_>, node: &NodeName, user: Option<UserName>, nodes: u32) {
    let half_life_s = draft.policy.health.lemon_half_life_s;
    let Some(known) = draft.world.nodes.get(node) else { return };
    let new = Mark { at: draft.now, user, nodes };
    let Some(marks) = lemon::marked(&known.health.marks, new, half_life_s) else { return };
    change(draft, node, |health| health.marks = marks);
    let Some(score) = lemon_score(draft, node) else { return };
    let Score { milli, users, losses } = score;
    let detail = format!(
        "score {}.{} of {}: {users} users whose jobs failed here and hardly elsewhere, {losses} \
         losses of the node, lately",
        milli / 1000,
        milli % 1000 / 100,
        draft.policy.health.lemon_score
    );
    let sign =
        Sign { node, gpu: None, signal: Signal::Lemon, detail: &detail, attempts: Some(&[]) };
    sign::take_in(draft, &sign);
}

/// The score of a node that is a lemon from now on; `None` if it is none, or is watched or out already.
fn lemon_score(draft: &Draft<'_>, node: &NodeName) -> Option<Score> {
    let terms = &draft.policy.health;
    let known = draft.world.nodes.get(node)?;
    if known.health.node.state != State::Ok {
        return None;
    }
    let (own, now) = (&known.health.marks, draft.now);
    // Marks fade while others come: three within some hours are three.
    let reaches = |milli: u64| lemon::rounded(milli) >= u64::from(terms.lemon_score);
    if !reaches(lemon::most_milli(own, now, terms.lemon_half_life_s)) {
        return None;
    }
    let score = lemon::of_node(draft.world, node, now, terms.lemon_half_life_s)?;
    reaches(score.milli).then_some(score)
}
