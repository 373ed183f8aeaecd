//! Why one job started before another, and the check of it.

use std::cmp::Ordering;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::fairshare::{OrderRule, Part, Standing};
use gotgan_core::ids::{GpuClass, JobId, ProjectPath};
use gotgan_core::precedence::{Own, Rank, Rule, Ruling, Rung, Stage, Sums, compare};
use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    output::time,
    view::{event::BlockerView, word},
};

/// Why one job started and another did not.
#[derive(Clone, Debug, Serialize)]
pub struct OrderView {
    pub job_id: u64,
    pub before_job_id: u64,
    pub verdict: String,
    pub rule: Option<String>,
    /// On which rung fair share decided, counted from 0.
    pub deciding_level: Option<u32>,
    pub text: String,
    pub attempt: u32,
    pub at_us: Option<i64>,
    pub at: Option<String>,
    pub pass: u64,
    pub epoch: u64,
    pub quota_revision: u64,
    pub fair_share_rule: String,
    pub half_life_minutes: u32,
    pub always_s: u64,
    pub first: Option<RankView>,
    pub other: Option<RankView>,
    pub reason: Option<BlockerView>,
    pub planned_us: Option<i64>,
    pub planned: Option<String>,
    /// With `--check`: whether the same follows from the numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckView>,
}

/// A place in the order.
#[derive(Clone, Debug, Serialize)]
pub struct RankView {
    pub job_id: u64,
    pub stage: String,
    pub promised: bool,
    pub rungs: Vec<RungView>,
    pub priority: Option<i32>,
    pub queued_us: Option<i64>,
    pub queued: Option<String>,
    pub gpu_milli: Option<u64>,
}

/// One level of the quota tree.
#[derive(Clone, Debug, Serialize)]
pub struct RungView {
    pub node: Option<String>,
    pub gpu_class: Option<String>,
    pub share_milli: u32,
    pub used_gpu_milli_seconds: u64,
    pub asked: u64,
    /// Digits.
    pub level_used: String,
    /// Digits.
    pub level_shares: String,
    pub per_mille: Option<u64>,
}

/// What the numbers say when they are compared here.
#[derive(Clone, Debug, Serialize)]
pub struct CheckView {
    /// `None`: there was nothing to compare.
    pub holds: Option<bool>,
    pub text: String,
}

impl OrderView {
    /// As the API has it.
    #[must_use]
    pub fn of(order: &v1::OrderExplanation) -> Self {
        let is_share = order.rule() == v1::OrderRule::Share;
        Self {
            job_id: order.job_id,
            before_job_id: order.before_job_id,
            verdict: word::order_verdict(order.verdict),
            rule: (order.rule() != v1::OrderRule::Unspecified)
                .then(|| word::order_rule(order.rule)),
            deciding_level: is_share.then_some(order.deciding_level),
            text: order.text.clone(),
            attempt: order.attempt,
            at_us: time::set(order.at_us),
            at: time::rfc3339(order.at_us),
            pass: order.pass,
            epoch: order.epoch,
            quota_revision: order.quota_revision,
            fair_share_rule: order.fair_share_rule.clone(),
            half_life_minutes: order.half_life_minutes,
            always_s: order.always_s,
            first: order.first.as_ref().map(RankView::of),
            other: order.other.as_ref().map(RankView::of),
            reason: order.reason.as_ref().map(BlockerView::of),
            planned_us: time::set(order.planned_us),
            planned: time::rfc3339(order.planned_us),
            check: None,
        }
    }
}

impl RankView {
    fn of(rank: &v1::OrderRank) -> Self {
        let own = rank.own.as_ref();
        Self {
            job_id: rank.job_id,
            stage: word::order_stage(rank.stage),
            promised: rank.promised,
            rungs: rank.rungs.iter().map(RungView::of).collect(),
            priority: own.map(|own| own.priority),
            queued_us: own.map(|own| own.queued_us),
            queued: own.and_then(|own| time::rfc3339(own.queued_us)),
            gpu_milli: own.map(|own| own.gpu_milli),
        }
    }
}

impl RungView {
    fn of(rung: &v1::OrderRung) -> Self {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        Self {
            node: some(&rung.node),
            gpu_class: some(&rung.gpu_class),
            share_milli: rung.share_milli,
            used_gpu_milli_seconds: rung.used_gpu_milli_seconds,
            asked: rung.asked,
            level_used: rung.level_used.clone(),
            level_shares: rung.level_shares.clone(),
            per_mille: rung.per_mille,
        }
    }
}

/// Compares the two ranks here, by the same function as the scheduler, and says whether that gives its answer.
#[must_use]
pub fn check(order: &v1::OrderExplanation) -> CheckView {
    let said = |holds: Option<bool>, text: &str| CheckView { holds, text: text.to_owned() };
    let (Some(first), Some(other)) = (&order.first, &order.other) else {
        return said(None, "nothing was compared, so there is nothing to check");
    };
    let ranks = (rank(first, &order.fair_share_rule), rank(other, &order.fair_share_rule));
    let (Some(first), Some(other)) = ranks else {
        return said(Some(false), "does not hold: the record cannot be read by this version");
    };
    let ruling = compare(&first, &other);
    let expected = match order.verdict() {
        v1::OrderVerdict::First => ruling.first != Ordering::Greater,
        v1::OrderVerdict::PassedOver => ruling.first == Ordering::Greater,
        v1::OrderVerdict::Absent | v1::OrderVerdict::NotKept | v1::OrderVerdict::Unspecified => {
            false
        }
    };
    if expected && rule(ruling) == (order.rule(), order.deciding_level) {
        return said(
            Some(true),
            "holds: the numbers compared here give the same order by the same rule",
        );
    }
    said(Some(false), "does not hold: the numbers compared here give another order or another rule")
}

fn rank(rank: &v1::OrderRank, by: &str) -> Option<Rank> {
    let own = rank.own.map(|own| Own {
        priority: own.priority,
        queued: UnixMicros(own.queued_us),
        gpus: GpuMilli(own.gpu_milli),
        job: JobId(rank.job_id),
    });
    let rungs = rank.rungs.iter().map(|it| rung(it, by)).collect::<Option<_>>()?;
    Some(Rank { stage: stage(rank.stage())?, promised: rank.promised, rungs, own })
}

fn stage(stage: v1::OrderStage) -> Option<Stage> {
    match stage {
        v1::OrderStage::Unspecified => None,
        v1::OrderStage::Reserved => Some(Stage::Reserved),
        v1::OrderStage::Planned => Some(Stage::Planned),
        v1::OrderStage::Guaranteed => Some(Stage::Guaranteed),
        v1::OrderStage::Borrowed => Some(Stage::Borrowed),
        v1::OrderStage::Overuse => Some(Stage::Overuse),
        v1::OrderStage::Scavenger => Some(Stage::Scavenger),
    }
}

fn rung(rung: &v1::OrderRung, by: &str) -> Option<Rung> {
    let rule = match by {
        "use_per_share" => OrderRule::UsePerShare,
        "fair_tree" => OrderRule::FairTree,
        _ => return None,
    };
    let (used, shares) = (rung.level_used.parse().ok()?, rung.level_shares.parse().ok()?);
    Some(Rung {
        node: ProjectPath::new(&rung.node).ok(),
        class: GpuClass::new(&rung.gpu_class).ok(),
        standing: Standing {
            share: rung.share_milli,
            used: rung.used_gpu_milli_seconds,
            asked: Part(rung.asked),
        },
        sums: Sums { rule, used, shares },
    })
}

fn rule(ruling: Ruling) -> (v1::OrderRule, u32) {
    let rule = match ruling.rule {
        Rule::Stage => v1::OrderRule::Stage,
        Rule::Promise => v1::OrderRule::Promise,
        Rule::Share(level) => {
            return (v1::OrderRule::Share, u32::try_from(level).unwrap_or(u32::MAX));
        }
        Rule::Depth => v1::OrderRule::Depth,
        Rule::Priority => v1::OrderRule::Priority,
        Rule::Age => v1::OrderRule::Age,
        Rule::Size => v1::OrderRule::Size,
        Rule::Number => v1::OrderRule::Number,
        Rule::Rounds => v1::OrderRule::Rounds,
        Rule::Untold => v1::OrderRule::Unspecified,
    };
    (rule, 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told() -> v1::OrderExplanation {
        let rung = |node: &str, used| v1::OrderRung {
            node: node.to_owned(),
            gpu_class: "b200".to_owned(),
            share_milli: 8_000,
            used_gpu_milli_seconds: used,
            asked: 1 << 32,
            level_used: "400".to_owned(),
            level_shares: "34359738368000".to_owned(),
            per_mille: Some(used / 8_000),
        };
        let rank = |job_id, rung| v1::OrderRank {
            job_id,
            stage: v1::OrderStage::Borrowed.into(),
            rungs: vec![rung],
            ..Default::default()
        };
        v1::OrderExplanation {
            job_id: 5,
            before_job_id: 7,
            verdict: v1::OrderVerdict::First.into(),
            rule: v1::OrderRule::Share.into(),
            text: "by fair share".to_owned(),
            first: Some(rank(5, rung("public/a", 2_496_000))),
            other: Some(rank(7, rung("", 7_040_000))),
            fair_share_rule: "use_per_share".to_owned(),
            always_s: 1_000,
            at_us: 1_000_000,
            ..Default::default()
        }
    }

    #[test]
    fn the_check_compares_what_was_told() {
        assert_eq!(check(&told()).holds, Some(true));
    }

    #[test]
    fn a_scheduler_that_tells_another_order_is_found_out() {
        let mut lie = told();
        std::mem::swap(&mut lie.first, &mut lie.other);
        assert_eq!(check(&lie).holds, Some(false));
        let other_rule = v1::OrderExplanation { rule: v1::OrderRule::Age.into(), ..told() };
        assert_eq!(check(&other_rule).holds, Some(false));
        let mut garbled = told();
        garbled.first.as_mut().unwrap().rungs[0].level_used = "much".to_owned();
        assert_eq!(check(&garbled).holds, Some(false));
        let absent = v1::OrderExplanation { other: None, ..told() };
        assert_eq!(check(&absent).holds, None);
    }
}
