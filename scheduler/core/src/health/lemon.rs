//! Lemons: nodes on which jobs fail more often than elsewhere, though no sign of the hardware says why.
//!
//! A failing end on a node is a mark there: of the user whose program failed, or of the node that was lost. The score of a
//! node is how many of these speak against it: each user counts at most once, by the part of their failures of late that was
//! here. Whose programs fail everywhere speaks against no node, and one user alone never makes a lemon. Marks fade.

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::ids::{NodeName, UserName};
use crate::world::World;

/// What one mark counts that is fresh and of this node alone; scores are in the same thousandths.
pub const WHOLE_MILLI: u64 = 1_000;
/// After so many half-lives a mark is forgotten.
const HALF_LIVES: i64 = 8;
/// Marks of one node that are kept, the youngest.
pub const MARKS_MAX: usize = 64;
/// Failures of a user here, or losses of the node, within this time are one.
const AGAIN_S: i64 = 3_600;
/// A job that failed on more nodes than these says nothing of each of them.
pub const NODES_MAX: usize = 8;

/// Against which node what speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at: UnixMicros,
    /// Whose program failed; `None`: the node or its hardware failed by itself.
    pub user: Option<UserName>,
    /// Nodes that the attempt had, one of which it may have been.
    pub nodes: u32,
}

/// How much speaks against a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// All of it, in thousandths of a user.
    pub milli: u64,
    /// Users of whom it is.
    pub users: u32,
    /// Times that the node failed by itself.
    pub losses: u32,
}

impl Mark {
    /// What it counts at `now`, thousandths: half after each half-life, in a straight line between.
    #[must_use]
    pub fn weight_milli(&self, now: UnixMicros, half_life_s: i64) -> u64 {
        let age_s = now.millis_since(self.at).max(0) / 1000;
        let halved = age_s / half_life_s.max(1);
        if halved >= HALF_LIVES {
            return 0;
        }
        let whole = (WHOLE_MILLI / u64::from(self.nodes.max(1))) >> halved;
        let part = age_s % half_life_s.max(1);
        let lost = u128::from(whole / 2) * u128::from(part.unsigned_abs());
        whole - u64::try_from(lost / u128::from(half_life_s.max(1).unsigned_abs())).unwrap_or(0)
    }
}

/// The marks with one more. The same again within an hour is no news, which `None` says.
#[must_use]
pub fn marked(marks: &[Mark], new: Mark, half_life_s: i64) -> Option<Vec<Mark>> {
    let again = |mark: &Mark| {
        mark.user == new.user && new.at.millis_since(mark.at) < AGAIN_S.saturating_mul(1000)
    };
    if marks.iter().any(again) {
        return None;
    }
    let instead = |mark: &&Mark| mark.user.is_some() && mark.user == new.user;
    let kept = marks.iter().filter(|mark| mark.weight_milli(new.at, half_life_s) > 0);
    let mut kept: Vec<Mark> = kept.filter(|mark| !instead(mark)).cloned().collect();
    kept.push(new);
    kept.sort_by_key(|mark| mark.at);
    kept.drain(..kept.len().saturating_sub(MARKS_MAX));
    Some(kept)
}

/// What speaks against a node at `now`; `all` are the marks of every node, its own among them.
#[must_use]
pub fn score<'m>(
    own: &[Mark],
    all: impl Iterator<Item = &'m Mark> + Clone,
    now: UnixMicros,
    half_life_s: i64,
) -> Score {
    let mut score = Score::default();
    for mark in own {
        let weight = mark.weight_milli(now, half_life_s);
        let Some(user) = &mark.user else {
            score.losses += u32::from(weight > 0);
            score.milli += weight;
            continue;
        };
        let theirs = all.clone().filter(|other| other.user.as_ref() == Some(user));
        let everywhere: u64 = theirs.map(|other| other.weight_milli(now, half_life_s)).sum();
        // Of all that fails for them of late, the part that failed here.
        let here = weight * weight / everywhere.max(weight).max(1);
        score.users += u32::from(here > 0);
        score.milli += here;
    }
    score
}

/// What speaks against a node of this world; `None` if there is no such node.
#[must_use]
pub fn of_node(world: &World, node: &NodeName, now: UnixMicros, half_life_s: i64) -> Option<Score> {
    let own = &world.nodes.get(node)?.health.marks;
    let all = world.nodes.values().flat_map(|node| &node.health.marks);
    Some(score(own, all, now, half_life_s))
}

/// A score in whole users, which it is held against the site's number by.
#[must_use]
pub fn rounded(milli: u64) -> u64 {
    milli.saturating_add(WHOLE_MILLI / 2) / WHOLE_MILLI
}

/// The most that marks could count: what is below the threshold needs no look at other nodes.
#[must_use]
pub fn most_milli(own: &[Mark], now: UnixMicros, half_life_s: i64) -> u64 {
    own.iter().map(|mark| mark.weight_milli(now, half_life_s)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF_LIFE_S: i64 = 86_400;

    fn at(seconds: i64) -> UnixMicros {
        UnixMicros(1_000_000_000_000_000).plus_seconds(seconds)
    }

    fn mark(user: &str, seconds: i64) -> Mark {
        let user = (!user.is_empty()).then(|| UserName::new(user).unwrap());
        Mark { at: at(seconds), user, nodes: 1 }
    }

    fn milli(own: &[Mark], others: &[Mark], seconds: i64) -> u64 {
        score(own, own.iter().chain(others), at(seconds), HALF_LIFE_S).milli
    }

    #[test]
    fn a_mark_counts_half_after_each_half_life_and_is_forgotten_at_last() {
        let one = mark("lee", 0);
        let weights = [0, HALF_LIFE_S / 2, HALF_LIFE_S, 2 * HALF_LIFE_S, 8 * HALF_LIFE_S]
            .map(|seconds| one.weight_milli(at(seconds), HALF_LIFE_S));
        assert_eq!(weights, [1000, 750, 500, 250, 0]);
        assert_eq!(Mark { nodes: 4, ..one }.weight_milli(at(0), HALF_LIFE_S), 250);
    }

    #[test]
    fn users_count_once_and_those_who_fail_everywhere_next_to_nothing() {
        let own = [mark("kim", 0), mark("lee", 0), mark("park", 0)];
        assert_eq!(milli(&own, &[], 0), 3000);
        let everywhere: Vec<Mark> = (0..9).map(|_| mark("lee", 0)).collect();
        assert_eq!(milli(&own, &everywhere, 0), 2100);
        assert_eq!(marked(&own, mark("lee", 60), HALF_LIFE_S), None, "the same again at once");
        let again = marked(&own, mark("lee", 7200), HALF_LIFE_S).unwrap();
        assert_eq!(again.len(), 3);
        let losses = [mark("", 0), mark("", 7200)];
        assert_eq!(score(&losses, losses.iter(), at(7200), HALF_LIFE_S).losses, 2);
    }

    fn marks() -> impl Strategy<Value = Vec<Mark>> {
        let one = (0..6_usize, 0..10 * HALF_LIFE_S, 1..8_u32).prop_map(|(user, seconds, nodes)| {
            let user = ["kim", "lee", "park", "choi", "jung", ""][user];
            Mark { nodes, ..mark(user, seconds) }
        });
        prop::collection::vec(one, 0..12).prop_map(|marks| {
            marks.into_iter().fold(Vec::new(), |kept: Vec<Mark>, new| {
                let now = kept.iter().map(|mark| mark.at).max().unwrap_or(new.at).max(new.at);
                let new = Mark { at: now, ..new };
                marked(&kept, new, HALF_LIFE_S).unwrap_or(kept)
            })
        })
    }

    proptest! {
        #[test]
        fn one_user_speaks_against_all_nodes_together_no_more_than_once(
            nodes in prop::collection::vec(marks(), 1..5), later in 0..HALF_LIFE_S,
        ) {
            let now = at(10 * HALF_LIFE_S + later);
            let lee = UserName::new("lee").unwrap();
            let of_lee = |mark: &&Mark| mark.user.as_ref() == Some(&lee);
            let all: Vec<&Mark> = nodes.iter().flatten().filter(of_lee).collect();
            let sum: u64 = nodes.iter().map(|own| {
                let own: Vec<Mark> = own.iter().filter(of_lee).cloned().collect();
                score(&own, all.iter().copied(), now, HALF_LIFE_S).milli
            }).sum();
            prop_assert!(sum <= WHOLE_MILLI, "{sum}");
        }

        #[test]
        fn a_score_fades_stays_below_what_its_marks_count_and_needs_no_order(
            own in marks(), others in marks(), later in 0..HALF_LIFE_S,
        ) {
            let now = 10 * HALF_LIFE_S;
            let (early, late) = (milli(&own, &[], now), milli(&own, &[], now + later));
            prop_assert!(late <= early);
            prop_assert!(milli(&own, &others, now) <= most_milli(&own, at(now), HALF_LIFE_S));
            prop_assert!(milli(&own, &others, now) <= early);
            let turned: Vec<Mark> = own.iter().rev().cloned().collect();
            prop_assert_eq!(milli(&turned, &others, now), milli(&own, &others, now));
        }

        #[test]
        fn marks_are_few_and_of_each_user_one(own in marks()) {
            prop_assert!(own.len() <= MARKS_MAX);
            let mut users: Vec<_> = own.iter().filter_map(|mark| mark.user.as_ref()).collect();
            let all = users.len();
            users.sort();
            users.dedup();
            prop_assert_eq!(users.len(), all);
        }
    }
}
