//! Is what was found what was expected?

use std::collections::BTreeMap;
use std::fmt;

use gotgan_core::quota::show_moment;

use crate::record::Origin;
use crate::scenario::{
    ExpectFile, Ledger, MovedVerdict, NodeClass, Query, Scalar, Selection, TellingOf,
};
use crate::units::Moment;

/// What was found at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A number.
    Number(i64),
    /// A word.
    Word(String),
    /// In which second every job first started, if it did; compared with the counterfactual's.
    Starts(BTreeMap<Origin, Option<i64>>),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Number(number) => write!(f, "{number}"),
            Found::Word(word) => f.write_str(word),
            Found::Starts(starts) => write!(f, "{} jobs", starts.len()),
        }
    }
}

/// An expectation with what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was looked at, in words.
    pub name: String,
    /// When.
    pub at: Moment,
    /// What was expected, in words.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Whether that is so.
    pub met: bool,
}

/// Judges one expectation by what was found, also in the counterfactual if there is one.
#[must_use]
pub fn judge(
    expect: &ExpectFile,
    until: Moment,
    found: Option<&Found>,
    other: Option<&Found>,
) -> Verdict {
    let name = expect.name.clone().unwrap_or_else(|| describe(&expect.value));
    let found = match (found, other) {
        (Some(Found::Starts(here)), Some(Found::Starts(there))) => {
            Some(Found::Number(moved(here, there)))
        }
        (found, _) => found.cloned(),
    };
    let bounds = bounds(expect, other);
    let met = found.as_ref().is_some_and(|found| bounds.iter().all(|bound| bound.admits(found)));
    let expected: Vec<String> = bounds.iter().map(ToString::to_string).collect();
    Verdict {
        name,
        at: expect.at.unwrap_or(until),
        expected: expected.join(" and "),
        found: found.map_or_else(|| "nothing".to_owned(), |found| found.to_string()),
        met,
    }
}

/// Jobs of either run whose first start is not in the same second in both.
fn moved(here: &BTreeMap<Origin, Option<i64>>, there: &BTreeMap<Origin, Option<i64>>) -> i64 {
    let differs = here.iter().filter(|(origin, start)| there.get(origin) != Some(start)).count();
    let missing = there.keys().filter(|origin| !here.contains_key(origin)).count();
    i64::try_from(differs + missing).unwrap_or(i64::MAX)
}

/// One bound.
enum Bound {
    Is(Scalar),
    AtMost(i64),
    AtLeast(i64),
    /// The counterfactual's.
    AsThere(Option<Found>),
    /// So many thousandths of the counterfactual's.
    AtMostThere(i64, Option<Found>),
}

fn bounds(expect: &ExpectFile, other: Option<&Found>) -> Vec<Bound> {
    let is = expect.equals.clone().map(Bound::Is);
    let most = expect.at_most.map(Bound::AtMost);
    let least = expect.at_least.map(Bound::AtLeast);
    let same = expect.equals_counterfactual.then(|| Bound::AsThere(other.cloned()));
    let milli = expect.at_most_counterfactual_milli;
    let milli = milli.map(|milli| Bound::AtMostThere(milli, other.cloned()));
    [is, most, least, same, milli].into_iter().flatten().collect()
}

impl Bound {
    fn admits(&self, found: &Found) -> bool {
        match (self, found) {
            (Bound::Is(Scalar::Number(number)), Found::Number(found)) => number == found,
            (Bound::Is(Scalar::Word(word)), Found::Word(found)) => word == found,
            (Bound::Is(_), _) => false,
            (Bound::AtMost(most), Found::Number(found)) => found <= most,
            (Bound::AtLeast(least), Found::Number(found)) => found >= least,
            (Bound::AsThere(there), found) => there.as_ref() == Some(found),
            (Bound::AtMostThere(milli, Some(Found::Number(there))), Found::Number(found)) => {
                i128::from(*found) * 1000 <= i128::from(*milli) * i128::from(*there)
            }
            (Bound::AtMost(_) | Bound::AtLeast(_) | Bound::AtMostThere(..), _) => false,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = |there: &Option<Found>| there.as_ref().map_or("?".to_owned(), Found::to_string);
        match self {
            Bound::Is(Scalar::Number(number)) => write!(f, "{number}"),
            Bound::Is(Scalar::Word(word)) => f.write_str(word),
            Bound::AtMost(most) => write!(f, "at most {most}"),
            Bound::AtLeast(least) => write!(f, "at least {least}"),
            Bound::AsThere(found) => write!(f, "{} as in the counterfactual", there(found)),
            Bound::AtMostThere(milli, found) => {
                write!(f, "at most {milli}/1000 of the counterfactual's {}", there(found))
            }
        }
    }
}

/// What is looked at, in words.
fn describe(query: &Query) -> String {
    let of = |what: &str, of: &NodeClass| format!("{what} {} {}", of.node, of.class);
    let by = |what: &str, of: &Selection| format!("{what}{}", selected(of));
    match query {
        Query::Guaranteed(node) => of("guaranteed", node),
        Query::Entitled(node) => of("entitled", node),
        Query::Held(node) => of("held", node),
        Query::Running(jobs) => by("running", jobs),
        Query::Waiting(jobs) => by("waiting", jobs),
        Query::Starts(jobs) => by("starts", jobs),
        Query::StartDelayMs(delay) => {
            format!("start delay, {} % of{}, ms", delay.percentile, selected(&delay.of))
        }
        Query::RestartDelayMs(jobs) => by("longest wait for a restart, ms", jobs),
        Query::Preempted(jobs) => by("preempted", jobs),
        Query::Stopped(jobs) => by("stopped", jobs),
        Query::MovedStarts(jobs) => by("starts in another second", jobs),
        Query::ChargedGpuS(ledger) => booked("charged", ledger),
        Query::OveruseGpuS(ledger) => booked("beyond a budget", ledger),
        Query::RefundedGpuS(ledger) => booked("refunded", ledger),
        Query::LostWorkGpuMs(jobs) => by("work lost, GPU-ms", jobs),
        Query::IdleGpuMs(since) => format!("idle {}, GPU-ms", since.class),
        Query::IdleShareMilli(since) => format!("idle {}, thousandths", since.class),
        Query::ReservedIdleGpuMs(of) => format!("reserved and not used, {}", of.class),
        Query::LentGpuS(of) => format!("lent by {} {}", of.lender, of.class),
        Query::ReservedGpuS(of) => format!("reserved by {}", of.reservation),
        Query::OwnGpuS(of) => format!("own of {}", of.reservation),
        Query::State(job) => format!("state of {}", job.job),
        Query::Associations(of) => match of.verdict {
            None => "associations moved in".to_owned(),
            Some(MovedVerdict::Taken) => "associations taken as they are".to_owned(),
            Some(MovedVerdict::Mapped) => "associations taken in other words".to_owned(),
            Some(MovedVerdict::Refused) => "associations not taken whole".to_owned(),
        },
        Query::MovedInGpuS(of) => format!("used before, GPU-seconds, {}", of.node),
        Query::Changed(of) => format!("changed by {}", of.event),
        Query::Drift(_) => "differs from the files".to_owned(),
        Query::Alerts(of) => told(of),
    }
}

fn booked(what: &str, ledger: &Ledger) -> String {
    let class = ledger.class.as_ref().map(|class| format!(" {class}")).unwrap_or_default();
    format!("{what}, GPU-seconds,{class}{}", selected(&ledger.of))
}

fn told(of: &TellingOf) -> String {
    let percent = of.percent.map(|percent| format!(" at {percent} %")).unwrap_or_default();
    format!("alerts of {}{percent}{}", of.node, between(of.from, of.until))
}

fn between(from: Option<Moment>, until: Option<Moment>) -> String {
    let from = from.map(|from| format!(" from {}", show_moment(from.0)));
    let until = until.map(|until| format!(" until {}", show_moment(until.0)));
    [from, until].into_iter().flatten().collect()
}

fn selected(of: &Selection) -> String {
    let job = of.job.as_ref().map(|job| format!(" job {job}"));
    let stream = of.stream.as_ref().map(|stream| format!(" stream {stream}"));
    let node = of.node.as_ref().map(|node| format!(" {node}"));
    let time = Some(between(of.from, of.until));
    let said: String = [job, stream, node, time].into_iter().flatten().collect();
    if said.is_empty() { " all jobs".to_owned() } else { said }
}
