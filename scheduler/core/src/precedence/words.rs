//! An order of two jobs in words.

use std::cmp::Ordering;

use super::order::Verdict;
use super::rank::{Own, Rank, Rule, Ruling, Rung, Stage};
use super::sheet::Passed;
use super::stood::Absence;
use crate::amount::UnixMicros;
use crate::explain;
use crate::fairshare::OrderRule;
use crate::ids::JobId;
use crate::quota::show_moment;

/// The two, as far as the reader is told of them.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// That started.
    pub first: (JobId, &'a Rank),
    /// That did not; without a rank if none is known.
    pub other: (JobId, Option<&'a Rank>),
    /// What is held now counts as if it had been held for so many seconds.
    pub always_s: u64,
}

/// What decided, as a sentence without a full stop.
#[must_use]
pub fn sentence(sides: Sides<'_>, verdict: &Verdict) -> String {
    let (first, other) = (sides.first.0, sides.other.0);
    match verdict {
        Verdict::Absent(absence) => format!("job {other} {}", absent(*absence)),
        Verdict::First(ruling) => decided(sides, *ruling),
        Verdict::PassedOver(ruling, passed) => {
            let why = decided(sides, *ruling);
            format!(
                "the turn of job {other} came first ({why}), {}",
                passed_over(passed.as_ref(), first)
            )
        }
        Verdict::NotKept => format!(
            "the turn of job {first} had come; of job {other} no rank was kept, since too many projects waited"
        ),
    }
}

fn absent(absence: Absence) -> String {
    let until = |until: Option<UnixMicros>, still: &str| match until {
        Some(until) => format!("until {}", show_moment(until)),
        None => format!("and still {still}"),
    };
    match absence {
        Absence::NotSubmitted { at } => format!("was submitted later, {}", show_moment(at)),
        Absence::Held { until: end } => format!("was held {}", until(end, "is")),
        Absence::Dependent { until: end } => {
            format!("waited for another job {}", until(end, "does"))
        }
        Absence::Delayed { until } => {
            format!("had failed and was to wait until {} before its next try", show_moment(until))
        }
        Absence::Running => "held resources in an earlier attempt".to_owned(),
        Absence::Ended => "had ended".to_owned(),
    }
}

fn passed_over(passed: Option<&Passed>, first: JobId) -> String {
    let Some(passed) = passed else {
        return "but it could not start then".to_owned();
    };
    let why = explain::sentence(&passed.reason);
    let planned = match passed.planned {
        Some(at) => {
            format!(
                "; a start was planned for it by {}, which job {first} does not put off",
                show_moment(at)
            )
        }
        None => String::new(),
    };
    format!("but it could not start: {why}{planned}")
}

fn decided(sides: Sides<'_>, ruling: Ruling) -> String {
    let ((first, one), (other, Some(two))) = (sides.first, sides.other) else {
        return "its turn had come".to_owned();
    };
    let (a, b) = match ruling.first {
        Ordering::Less | Ordering::Equal => ((first, one), (other, two)),
        Ordering::Greater => ((other, two), (first, one)),
    };
    match ruling.rule {
        Rule::Stage => {
            format!("job {} {}, job {} {}", a.0, stage(a.1.stage), b.0, stage(b.1.stage))
        }
        Rule::Promise => format!("others had stopped to make room for job {}", a.0),
        Rule::Share(level) => share(a, b, level, sides.always_s),
        Rule::Depth => format!("the project of job {} is nearer to the top of the quota tree", a.0),
        Rule::Priority | Rule::Age | Rule::Size | Rule::Number => own(a, b, ruling.rule),
        Rule::Rounds => {
            format!("job {first} {}, where jobs are served round by round", stage(one.stage))
        }
        Rule::Untold => "nothing that you may see".to_owned(),
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Reserved => "started on nodes reserved for its project, before all turns",
        Stage::Planned => "started on nodes kept for it, since its planned start had come",
        Stage::Guaranteed => "was within its project's guarantee",
        Stage::Borrowed => "was not within a guarantee",
        Stage::Overuse => "was beyond a budget",
        Stage::Scavenger => "is a scavenger",
    }
}

fn share(a: (JobId, &Rank), b: (JobId, &Rank), level: usize, always_s: u64) -> String {
    let (Some(one), Some(two)) = (a.1.rungs.get(level), b.1.rungs.get(level)) else {
        return "fair share".to_owned();
    };
    let above = [one, two].into_iter().find_map(|rung| rung.node.as_ref()?.parent());
    let place = match above {
        Some(above) => format!("below {above}"),
        None => format!("on level {} of the quota tree", level + 1),
    };
    let of = match one.sums.rule {
        OrderRule::UsePerShare => "of its share",
        OrderRule::FairTree => "of what is usual for its share",
    };
    let [used, others] = [one, two].map(|rung| used(rung, always_s));
    format!(
        "by fair share {place}: {} had used {used} {of}, {} {others}",
        side(a.0, one),
        side(b.0, two)
    )
}

fn side(job: JobId, rung: &Rung) -> String {
    match &rung.node {
        Some(node) => format!("{node} (job {job})"),
        None => format!("that of job {job}"),
    }
}

fn used(rung: &Rung, always_s: u64) -> String {
    match rung.per_mille(always_s) {
        Some(part) => format!("{}.{} %", part / 10, part % 10),
        None => "without having one".to_owned(),
    }
}

fn own(a: (JobId, &Rank), b: (JobId, &Rank), rule: Rule) -> String {
    let (Some(one), Some(two)) = (a.1.own, b.1.own) else { return "its own place".to_owned() };
    let Own { priority, queued, gpus, .. } = one;
    let why = match rule {
        Rule::Priority => format!("has the higher priority, {priority} against {}", two.priority),
        Rule::Age if show_moment(queued) == show_moment(two.queued) => {
            "was submitted first, within one second".to_owned()
        }
        Rule::Age => {
            format!(
                "was submitted first, {} against {}",
                show_moment(queued),
                show_moment(two.queued)
            )
        }
        Rule::Size => format!("asks for more GPUs, {gpus} against {}", two.gpus),
        Rule::Number
        | Rule::Stage
        | Rule::Promise
        | Rule::Share(_)
        | Rule::Depth
        | Rule::Rounds
        | Rule::Untold => "has the lower number".to_owned(),
    };
    format!("with equal shares, job {} {why}", a.0)
}
