//! How late jobs started, compared with what the look ahead said; and the range that follows for the next one.
//!
//! A **score** is by how many parts of a doubling the wait was longer than the likely one. Scores are kept by what tells
//! jobs apart, the last of each kind; a kind that is known too little is taken together with others like it. The range is
//! the shortest that has as many of these scores as are aimed at. That is a little more than eight of ten to begin with;
//! each range that fails to hold raises the aim for such jobs, and each that holds lowers it a quarter as much, so that in
//! the long run eight of ten hold whatever changes, no matter how the scores are spread. Where all scores there are would
//! not be enough, the range goes beyond them.
//!
//! As long as nothing is known the range is wide: from an eighth of the likely wait to four times the longest.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::octaves::{PARTS, place_of, wait_at};
use super::sample::Sample;
use super::{Foreseen, Held, Size, Standing, StartRange};
use crate::amount::UnixMicros;

/// A kind of job of which fewer scores are known is taken together with others.
const KNOWN_LEAST: usize = 32;

/// Part of all ranges that is to hold, thousandths.
const HELD_MILLI: i32 = 800;

/// By so much a range that did not hold raises the aim, thousandths.
const STEP_MILLI: i32 = 16;

/// The least and the most that is aimed at, thousandths.
const AIM_MILLI: (i32, i32) = (700, 1064);

/// Above the whole, a range goes so many parts of a doubling beyond all scores at either end for each thousandth.
const BEYOND: i32 = 1;

/// Of so many ranges it is remembered whether they held.
const OUTCOMES: usize = 100;

/// Doublings of the likely wait that are one kind.
const HORIZON: i32 = 2 * PARTS;

/// Jobs that are late in like ways; `None` where that does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Kind {
    size: Option<Size>,
    /// How long the likely wait is.
    horizon: Option<i32>,
    standing: Option<Standing>,
    /// Whether it has waited longer already than it is likely to wait still.
    is_old: Option<bool>,
}

/// What was learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    scores: Vec<(Kind, Sample)>,
    aims: BTreeMap<Size, BTreeMap<Standing, Aim>>,
}

/// How large a part of the scores must be in a range so that eight of ten hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Aim {
    milli: i32,
    /// Whether the last ranges held.
    outcomes: VecDeque<bool>,
}

impl Default for Aim {
    fn default() -> Self {
        Aim { milli: HELD_MILLI + 4 * STEP_MILLI, outcomes: VecDeque::new() }
    }
}

/// What was told of a job, with what is needed to learn from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// When it was told.
    pub at: UnixMicros,
    /// What was told.
    pub range: StartRange,
    pub(super) kind: Kind,
    size: Size,
    standing: Standing,
    likely: i32,
}

impl Calibration {
    /// What to tell of a job that was looked at then.
    #[must_use]
    pub fn tell(&self, foreseen: &Foreseen, at: UnixMicros) -> Told {
        let likely = place_of(seconds_between(at, foreseen.likely));
        let kind = Kind::of(foreseen, at, likely);
        let known = self.aims.get(&foreseen.size).and_then(|aims| aims.get(&foreseen.standing));
        let aim = known.cloned().unwrap_or_default();
        let (from_s, until_s) = match self.known(kind) {
            Some(scores) => shortest(scores.sorted(), aim.milli, likely),
            None => widest(foreseen, at, likely),
        };
        let until = at.plus_seconds(until_s);
        // It may be sooner than was planned, and is not later.
        let until = foreseen.by.map_or(until, |by| until.min(by.plus_seconds(1)));
        let range =
            StartRange { from: at.plus_seconds(from_s).min(until), until, held: aim.held() };
        let (size, standing) = (foreseen.size, foreseen.standing);
        Told { at, range, kind, size, standing, likely }
    }

    /// Scores of the narrowest kind of which enough are known.
    fn known(&self, kind: Kind) -> Option<&Sample> {
        let known = kind.widening().into_iter().filter_map(|kind| self.scores_of(kind));
        known.into_iter().find(|sample| sample.len() >= KNOWN_LEAST)
    }

    fn scores_of(&self, kind: Kind) -> Option<&Sample> {
        let found = self.scores.binary_search_by_key(&kind, |(kind, _)| *kind).ok()?;
        self.scores.get(found).map(|(_, sample)| sample)
    }

    /// Learns by how much a job that started then was late.
    pub fn learn(&mut self, told: &Told, started: UnixMicros) {
        let score = place_of(seconds_between(told.at, started)) - told.likely;
        for kind in told.kind.widening() {
            let at = self.scores.binary_search_by_key(&kind, |(kind, _)| *kind);
            let at = at.unwrap_or_else(|at| {
                self.scores.insert(at, (kind, Sample::default()));
                at
            });
            self.scores[at].1.add(score);
        }
    }

    /// Learns whether what was told held.
    pub fn judge(&mut self, told: &Told, held: bool) {
        let aims = self.aims.entry(told.size).or_default();
        let aim = aims.entry(told.standing).or_default();
        let step = if held { STEP_MILLI * (HELD_MILLI - 1000) / HELD_MILLI } else { STEP_MILLI };
        aim.milli = (aim.milli + step).clamp(AIM_MILLI.0, AIM_MILLI.1);
        aim.outcomes.push_back(held);
        if aim.outcomes.len() > OUTCOMES {
            aim.outcomes.pop_front();
        }
    }
}

impl Kind {
    fn of(foreseen: &Foreseen, at: UnixMicros, likely: i32) -> Self {
        let waited = place_of(seconds_between(foreseen.queued, at));
        Kind {
            size: Some(foreseen.size),
            horizon: Some(likely.div_euclid(HORIZON)),
            standing: Some(foreseen.standing),
            is_old: Some(waited > likely),
        }
    }

    /// Itself, and ever more others with it.
    fn widening(self) -> [Kind; 5] {
        let without_age = Kind { is_old: None, ..self };
        let without_horizon = Kind { horizon: None, ..without_age };
        let of_size = Kind { standing: None, ..without_horizon };
        [self, without_age, without_horizon, of_size, Kind { size: None, ..of_size }]
    }
}

impl Aim {
    fn held(&self) -> Held {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let inside = self.outcomes.iter().filter(|held| **held).count();
        Held { of: count(self.outcomes.len()), inside: count(inside) }
    }
}

/// The shortest range that has so many thousandths of the scores, in seconds from now. One score stands for what is
/// still to come, as likely beyond all others as anywhere.
fn shortest(scores: &[i32], aim_milli: i32, likely: i32) -> (i64, i64) {
    let count = scores.len();
    let aim = usize::try_from(aim_milli.min(1000)).unwrap_or(0);
    let beyond = (aim_milli - 1000).max(0) * BEYOND;
    let inside = ((count + 1) * aim).div_ceil(1000).clamp(1, count.max(1));
    let ends = |window: &[i32]| {
        let (first, last) = (window.first().copied()?, window.last().copied()?);
        let (first, last) = (likely + first - beyond, likely + last + beyond);
        Some((wait_at(first), wait_at(last + 1) + 1))
    };
    let ranges = scores.windows(inside).filter_map(ends);
    ranges.min_by_key(|(from, until)| until - from).unwrap_or((0, 0))
}

/// Where nothing is known.
fn widest(foreseen: &Foreseen, at: UnixMicros, likely: i32) -> (i64, i64) {
    let latest = foreseen.latest.map_or(likely, |latest| place_of(seconds_between(at, latest)));
    (wait_at(likely - 3 * PARTS), wait_at(latest.max(likely) + 2 * PARTS))
}

fn seconds_between(from: UnixMicros, until: UnixMicros) -> i64 {
    until.whole_seconds().saturating_sub(from.whole_seconds()).max(0)
}
