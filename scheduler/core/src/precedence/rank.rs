//! The place of a job in the order of a pass, and who of two comes first.

use std::cmp::{Ordering, Reverse};

use serde::{Deserialize, Serialize};

use crate::amount::{GpuMilli, UnixMicros};
use crate::fairshare::order::{Burden, Level};
use crate::fairshare::{OrderRule, Standing};
use crate::ids::{GpuClass, JobId, ProjectPath};

/// The part of a pass in which a job has its turn; the earlier goes first, whatever else is true of two jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// On nodes that the quota tree reserves for its project.
    Reserved,
    /// On nodes that were kept for it, since its planned start has come.
    Planned,
    /// Within the guarantee of its project.
    Guaranteed,
    /// Beyond it, or where nothing is guaranteed to anybody.
    Borrowed,
    /// Beyond a budget.
    Overuse,
    /// A scavenger.
    Scavenger,
}

/// A job's place in the order of a pass, at one moment of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    /// In which part of the pass it has its turn.
    pub stage: Stage,
    /// Whether others had stopped to make room for it, which puts it first within a guarantee.
    pub promised: bool,
    /// What decides between its project and others, level by level from the top of the quota tree.
    pub rungs: Vec<Rung>,
    /// What decides between jobs of equal projects; `None` where the reader is not told.
    pub own: Option<Own>,
}

/// What a job comes with itself. Compared in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Higher first.
    pub priority: i32,
    /// Since when it waits; earlier first.
    pub queued: UnixMicros,
    /// GPUs of all its nodes; more first.
    pub gpus: GpuMilli,
    /// Lower first.
    pub job: JobId,
}

/// One level of the quota tree as fair share sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// The node of the tree on that level; `None` where the reader is not told.
    pub node: Option<ProjectPath>,
    /// By which GPUs the nodes are compared; `None`: all together.
    pub class: Option<GpuClass>,
    /// What it has a right to, and what it used and holds.
    pub standing: Standing,
    /// Over all nodes of the level.
    pub sums: Sums,
}

/// What the nodes of one level have together, as a pass found it at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// By which rule they are compared.
    pub rule: OrderRule,
    /// What they used.
    pub used: u128,
    /// Their shares; by use for each share, each times the part of the past in which its node asked, in 2^-32.
    pub shares: u128,
}

/// Who of two comes first, and what decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// `Less`: the one comes before the other. `Equal`: the records do not tell.
    pub first: Ordering,
    /// What decided.
    pub rule: Rule,
}

/// What decides between two jobs: the first of these by which they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The part of the pass.
    Stage,
    /// That others had stopped for one of them.
    Promise,
    /// Fair share, on that level from the top, counted from 0.
    Share(usize),
    /// Equal as far as both go, and one project lies nearer to the top.
    Depth,
    /// Priority.
    Priority,
    /// Who waits longer.
    Age,
    /// Who asks for more GPUs.
    Size,
    /// The lower number.
    Number,
    /// Nothing: in this part of the pass jobs are served by a rule of its own, which ranks do not tell.
    Rounds,
    /// Nothing that the reader is told.
    Untold,
}

impl Rule {
    /// Whether it decides by what is compared before the last level of the tree: what is kept of the levels above is enough
    /// then.
    pub(super) fn is_by_project(self) -> bool {
        match self {
            Rule::Stage | Rule::Promise | Rule::Share(_) | Rule::Rounds => true,
            Rule::Depth | Rule::Priority | Rule::Age | Rule::Size | Rule::Number | Rule::Untold => {
                false
            }
        }
    }
}

impl Sums {
    /// As a pass has them.
    pub(crate) fn of(level: Level) -> Self {
        let (rule, used, shares) = match level {
            Level::UsePerShare { used, share_asked } | Level::Past { used, share_asked } => {
                (OrderRule::UsePerShare, used, share_asked)
            }
            Level::FairTree { used, share } => (OrderRule::FairTree, used, share),
        };
        Sums { rule, used, shares }
    }

    fn level(self) -> Level {
        let Sums { rule, used, shares } = self;
        match rule {
            OrderRule::UsePerShare => Level::Past { used, share_asked: shares },
            OrderRule::FairTree => Level::FairTree { used, share: shares },
        }
    }
}

impl Rung {
    /// How far its node is from its turn.
    fn burden(&self) -> Burden {
        self.sums.level().burden(self.standing)
    }

    /// What its node used and holds for its share, with what counts as used while it did not ask, in thousandths: by use
    /// for each share of a share that was held for as long as what is held counts, `always_s` seconds; by the Fair Tree
    /// rule of what is usual on its level. `None` without a share.
    #[must_use]
    pub fn per_mille(&self, always_s: u64) -> Option<u64> {
        let unit = match self.sums.rule {
            OrderRule::UsePerShare => u128::from(always_s.max(1)),
            OrderRule::FairTree => 1,
        };
        match self.burden() {
            Burden::Of(fraction) => Some(fraction.per_mille_of(unit)),
            Burden::NoShare => None,
        }
    }
}

impl Rank {
    /// The same for a reader who may know of it only what decided: no names, and nothing below the level that did.
    #[must_use]
    pub fn told_for(&self, rule: Rule) -> Rank {
        let levels = match rule {
            Rule::Stage | Rule::Promise | Rule::Rounds => 0,
            Rule::Share(level) => level + 1,
            Rule::Depth | Rule::Priority | Rule::Age | Rule::Size | Rule::Number | Rule::Untold => {
                self.rungs.len()
            }
        };
        let own = match rule {
            Rule::Priority | Rule::Age | Rule::Size | Rule::Number => self.own,
            Rule::Stage
            | Rule::Promise
            | Rule::Share(_)
            | Rule::Depth
            | Rule::Rounds
            | Rule::Untold => None,
        };
        let nameless = |rung: &Rung| Rung { node: None, ..rung.clone() };
        Rank { rungs: self.rungs.iter().take(levels).map(nameless).collect(), own, ..*self }
    }
}

/// Who of the two comes first in a pass.
#[must_use]
pub fn compare(one: &Rank, other: &Rank) -> Ruling {
    let decided =
        |first: Ordering, rule| (first != Ordering::Equal).then_some(Ruling { first, rule });
    decided(one.stage.cmp(&other.stage), Rule::Stage)
        .or_else(|| in_rounds(one.stage))
        .or_else(|| decided(Reverse(one.promised).cmp(&Reverse(other.promised)), Rule::Promise))
        .or_else(|| by_share(&one.rungs, &other.rungs))
        .or_else(|| decided(one.rungs.len().cmp(&other.rungs.len()), Rule::Depth))
        .or_else(|| by_own(one.own?, other.own?))
        .unwrap_or(Ruling { first: Ordering::Equal, rule: Rule::Untold })
}

/// Jobs that come before all turns stand in the order of the queue or of the plans, and what comes after all turns is
/// given round by round.
fn in_rounds(stage: Stage) -> Option<Ruling> {
    match stage {
        Stage::Guaranteed | Stage::Borrowed => None,
        Stage::Reserved | Stage::Planned | Stage::Overuse | Stage::Scavenger => {
            Some(Ruling { first: Ordering::Equal, rule: Rule::Rounds })
        }
    }
}

fn by_share(one: &[Rung], other: &[Rung]) -> Option<Ruling> {
    let mut levels = one.iter().zip(other).enumerate();
    levels.find_map(|(level, (one, other))| {
        let first = one.burden().cmp(&other.burden());
        (first != Ordering::Equal).then_some(Ruling { first, rule: Rule::Share(level) })
    })
}

fn by_own(one: Own, other: Own) -> Option<Ruling> {
    let parts = [
        (other.priority.cmp(&one.priority), Rule::Priority),
        (one.queued.cmp(&other.queued), Rule::Age),
        (other.gpus.cmp(&one.gpus), Rule::Size),
        (one.job.cmp(&other.job), Rule::Number),
    ];
    let decides = parts.into_iter().find(|(first, _)| *first != Ordering::Equal);
    decides.map(|(first, rule)| Ruling { first, rule })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairshare::Part;

    fn rung(share: u32, used: u64) -> Rung {
        let standing = Standing { share, used, asked: Part::WHOLE };
        let sums = Sums {
            rule: OrderRule::UsePerShare,
            used: 40_000,
            shares: 4_000 * u128::from(Part::WHOLE.0),
        };
        Rung { node: None, class: None, standing, sums }
    }

    fn rank(stage: Stage, rungs: Vec<Rung>, priority: i32, job: u64) -> Rank {
        let (queued, gpus, job) = (UnixMicros(7), GpuMilli(1000), JobId(job));
        let own = Some(Own { priority, queued, gpus, job });
        Rank { stage, promised: false, rungs, own }
    }

    #[test]
    fn the_part_of_the_pass_goes_before_shares_and_shares_before_priority() {
        let within = rank(Stage::Guaranteed, vec![rung(1000, 9)], 0, 2);
        let beyond = rank(Stage::Borrowed, vec![rung(1000, 1)], 9, 1);
        assert_eq!(compare(&within, &beyond).rule, Rule::Stage);
        let (less, more) = (rank(Stage::Borrowed, vec![rung(1000, 1)], 0, 2), beyond);
        assert_eq!(compare(&less, &more).rule, Rule::Priority);
        let more = rank(Stage::Borrowed, vec![rung(1000, 1), rung(1000, 3)], 9, 1);
        let less = rank(Stage::Borrowed, vec![rung(1000, 1), rung(1000, 2)], 0, 2);
        let ruling = compare(&less, &more);
        assert_eq!(ruling, Ruling { first: Ordering::Less, rule: Rule::Share(1) });
    }

    #[test]
    fn the_same_ruling_follows_from_what_a_stranger_is_told() {
        let ranks = [
            rank(Stage::Borrowed, vec![rung(1000, 1), rung(1000, 2)], 0, 2),
            rank(Stage::Borrowed, vec![rung(1000, 1), rung(2000, 4)], 0, 3),
            rank(Stage::Borrowed, vec![rung(1000, 5)], 3, 4),
            rank(Stage::Guaranteed, Vec::new(), 0, 5),
            rank(Stage::Borrowed, vec![rung(1000, 1)], 0, 6),
        ];
        for (one, other) in ranks.iter().flat_map(|one| ranks.iter().map(move |other| (one, other)))
        {
            let ruling = compare(one, other);
            assert_eq!(compare(one, &other.told_for(ruling.rule)), ruling, "{one:?} {other:?}");
            assert_eq!(compare(&one.told_for(ruling.rule), other), ruling, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_rank_is_the_same_after_it_was_written_and_read() {
        let mut rank = rank(Stage::Planned, vec![rung(u32::MAX, u64::MAX)], -3, 2);
        rank.rungs[0].sums.used = u128::MAX;
        let text = serde_json::to_string(&rank).unwrap();
        assert_eq!(serde_json::from_str::<Rank>(&text).unwrap(), rank);
    }

    #[test]
    fn use_is_told_for_the_share() {
        // A share of 8 GPUs for 1,000 s, of which a quarter was used.
        assert_eq!(rung(8_000, 2_000_000).per_mille(1_000), Some(250));
        assert_eq!(rung(0, 5).per_mille(1_000), None);
    }
}
