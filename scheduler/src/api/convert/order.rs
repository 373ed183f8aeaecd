//! The order of two jobs.

use gotgan_core::fairshare::OrderRule;
use gotgan_core::ids::JobId;
use gotgan_core::precedence::{Own, Rank, Rule, Rung, Stage, Verdict};
use gotgan_proto::v1;

/// A verdict as the API's.
#[must_use]
pub fn order_verdict(verdict: &Verdict) -> v1::OrderVerdict {
    match verdict {
        Verdict::First(_) => v1::OrderVerdict::First,
        Verdict::PassedOver(..) => v1::OrderVerdict::PassedOver,
        Verdict::Absent(_) => v1::OrderVerdict::Absent,
        Verdict::NotKept => v1::OrderVerdict::NotKept,
    }
}

/// A rule as the API's.
#[must_use]
pub fn order_rule(rule: Rule) -> v1::OrderRule {
    match rule {
        Rule::Stage => v1::OrderRule::Stage,
        Rule::Promise => v1::OrderRule::Promise,
        Rule::Share(_) => v1::OrderRule::Share,
        Rule::Depth => v1::OrderRule::Depth,
        Rule::Priority => v1::OrderRule::Priority,
        Rule::Age => v1::OrderRule::Age,
        Rule::Size => v1::OrderRule::Size,
        Rule::Number => v1::OrderRule::Number,
        Rule::Rounds => v1::OrderRule::Rounds,
        Rule::Untold => v1::OrderRule::Unspecified,
    }
}

/// The word of the rule by which projects take turns.
#[must_use]
pub fn fair_share_rule(rule: OrderRule) -> &'static str {
    match rule {
        OrderRule::UsePerShare => "use_per_share",
        OrderRule::FairTree => "fair_tree",
    }
}

/// A rank as the API's.
#[must_use]
pub fn order_rank(job: JobId, rank: &Rank, always_s: u64) -> v1::OrderRank {
    v1::OrderRank {
        job_id: job.0,
        stage: stage(rank.stage).into(),
        promised: rank.promised,
        rungs: rank.rungs.iter().map(|rung| order_rung(rung, always_s)).collect(),
        own: rank.own.map(own),
    }
}

fn own(own: Own) -> v1::OrderOwn {
    v1::OrderOwn { priority: own.priority, queued_us: own.queued.0, gpu_milli: own.gpus.0 }
}

fn stage(stage: Stage) -> v1::OrderStage {
    match stage {
        Stage::Reserved => v1::OrderStage::Reserved,
        Stage::Planned => v1::OrderStage::Planned,
        Stage::Guaranteed => v1::OrderStage::Guaranteed,
        Stage::Borrowed => v1::OrderStage::Borrowed,
        Stage::Overuse => v1::OrderStage::Overuse,
        Stage::Scavenger => v1::OrderStage::Scavenger,
    }
}

fn order_rung(rung: &Rung, always_s: u64) -> v1::OrderRung {
    let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
    v1::OrderRung {
        node: text(rung.node.as_ref().map(|node| node.as_str())),
        gpu_class: text(rung.class.as_ref().map(|class| class.as_str())),
        share_milli: rung.standing.share,
        used_gpu_milli_seconds: rung.standing.used,
        asked: rung.standing.asked.0,
        level_used: rung.sums.used.to_string(),
        level_shares: rung.sums.shares.to_string(),
        per_mille: rung.per_mille(always_s),
    }
}
