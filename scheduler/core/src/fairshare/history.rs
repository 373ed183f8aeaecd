//! What every node of the quota tree used, and when it asked: the memory that fair share decides from.
//!
//! It is kept with the world, by the attempts that came and went, and rebuilt from the store at a start. All of it is
//! sums of whole numbers and sets of ticks, so it is the same in whatever order attempts ended, and a restart changes
//! no number. Time that is given back, because hardware or the site took it, is no use. It still shows that the
//! project asked, which is what the hardware owes it nothing for.
//!
//! What runs is not counted second by second: an attempt that began in some second counts as all of its era's seconds
//! from then on, so that what is kept is how many GPUs began in each tick and the weights of the time before.

use std::collections::BTreeMap;

use super::Part;
use super::decay::{DecayedUse, HalfLife, Moment};
use super::spans::Spans;
use crate::amount::{GpuMilli, GpuMilliSeconds, UnixMicros};
use crate::attempt::Attempt;
use crate::ids::{GpuClass, ProjectPath};
use crate::ledger::is_refunded;

/// GPUs of a class that a project held for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldFor {
    /// Who pays.
    pub project: ProjectPath,
    /// Of which class.
    pub class: GpuClass,
    /// How many.
    pub gpus: GpuMilli,
    /// When it was given them.
    pub from: UnixMicros,
    /// When nothing of it was left.
    pub until: UnixMicros,
    /// The time was given back.
    pub refunded: bool,
}

/// Use by path and class, each summed over everything below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    half_life: HalfLife,
    by_path: BTreeMap<String, BTreeMap<GpuClass, Record>>,
}

/// What one node used of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    /// By attempts that ended.
    settled: DecayedUse,
    /// When they held something, refunded or not.
    asked: Spans,
    /// Attempts that hold something, by the tick in which they began.
    open: BTreeMap<i64, Open>,
}

/// Attempts that began in one tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Open {
    attempts: u64,
    gpus: GpuMilli,
    /// Of their era: thousandths of GPU-seconds before they began, each times its weight.
    before: u128,
}

impl HeldFor {
    /// What an attempt that ended held; `None` for one without GPUs or without an end, and for a scavenger, which
    /// took nothing from anybody.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Option<Self> {
        let (Some(class), Some(until)) = (&attempt.placement.class, attempt.ended) else {
            return None;
        };
        if attempt.scavenges() {
            return None;
        }
        Some(HeldFor {
            project: attempt.project.clone(),
            class: class.clone(),
            gpus: attempt.gpus(),
            from: attempt.leased,
            until,
            refunded: attempt.outcome.as_ref().is_some_and(|outcome| is_refunded(outcome.cause)),
        })
    }
}

impl History {
    /// Nobody used anything yet.
    #[must_use]
    pub fn new(half_life: HalfLife) -> Self {
        History { half_life, by_path: BTreeMap::new() }
    }

    /// How use fades.
    #[must_use]
    pub fn half_life(&self) -> HalfLife {
        self.half_life
    }

    /// The moment that values are taken for.
    #[must_use]
    pub fn moment(&self, now: UnixMicros) -> Moment {
        Moment::of(self.half_life, now)
    }

    /// An attempt began to hold something.
    pub(crate) fn begin(&mut self, attempt: &Attempt) {
        self.change_open(attempt, |open, gpus, before| Open {
            attempts: open.attempts + 1,
            gpus: open.gpus + gpus,
            before: open.before.saturating_add(before),
        });
    }

    /// An attempt that ended holds nothing any more. Without a moment at which it ended it used nothing.
    pub(crate) fn end(&mut self, attempt: &Attempt) {
        self.change_open(attempt, |open, gpus, before| Open {
            attempts: open.attempts.saturating_sub(1),
            gpus: open.gpus.saturating_sub(gpus),
            before: open.before.saturating_sub(before),
        });
        if let Some(held) = HeldFor::of(attempt) {
            self.add(&held);
        }
    }

    /// Counts what an attempt held that has ended.
    pub fn add(&mut self, held: &HeldFor) {
        let (from, until) = (held.from.whole_seconds(), held.until.whole_seconds());
        if until <= from || held.gpus.is_zero() {
            return;
        }
        let ticks = (self.half_life.tick(from + 1), self.half_life.tick(until));
        self.each_level(&held.project, &held.class, |record| {
            record.asked.add(ticks.0, ticks.1);
            if !held.refunded {
                record.settled.add(held.gpus, held.from, held.until);
            }
        });
    }

    fn change_open(&mut self, attempt: &Attempt, change: impl Fn(Open, GpuMilli, u128) -> Open) {
        let class = attempt.placement.class.as_ref().filter(|_| !attempt.scavenges());
        let Some(class) = class else { return };
        let first = attempt.leased.whole_seconds() + 1;
        let (tick, gpus) = (self.half_life.tick(first), attempt.gpus());
        let (_, phase) = self.half_life.era_and_phase(first);
        let before = self.half_life.weights_until(phase).saturating_mul(u128::from(gpus.0));
        self.each_level(&attempt.project, class, |record| {
            let open = change(record.open.remove(&tick).unwrap_or_default(), gpus, before);
            if open.attempts > 0 {
                record.open.insert(tick, open);
            }
        });
    }

    /// Changes what is known of a project and of every node above it; what says nothing any more is forgotten.
    fn each_level(
        &mut self,
        project: &ProjectPath,
        class: &GpuClass,
        change: impl Fn(&mut Record),
    ) {
        for path in project.self_and_ancestors() {
            if !self.by_path.contains_key(path) {
                self.by_path.insert(path.to_owned(), BTreeMap::new());
            }
            let Some(classes) = self.by_path.get_mut(path) else { continue };
            let record =
                classes.entry(class.clone()).or_insert_with(|| Record::new(self.half_life));
            change(record);
            if *record == Record::new(self.half_life) {
                classes.remove(class);
            }
            if classes.is_empty() {
                self.by_path.remove(path);
            }
        }
    }

    /// Decayed use of a node, with what it holds counted up to the moment.
    #[must_use]
    pub fn used(&self, path: &str, class: &GpuClass, moment: Moment) -> GpuMilliSeconds {
        let units = self.record(path, class).map_or(0, |record| record.used(moment));
        GpuMilliSeconds(i64::try_from(units).unwrap_or(i64::MAX))
    }

    /// In which part of the time, fading, a node held something, or has been waiting for it since `waits`.
    #[must_use]
    pub fn asked(
        &self,
        path: &str,
        class: &GpuClass,
        moment: Moment,
        waits: Option<UnixMicros>,
    ) -> Part {
        let record = self.record(path, class);
        let runs = record.and_then(|record| record.open.first_key_value()).map(|(tick, _)| *tick);
        let waits = waits.map(|since| self.half_life.tick(since.whole_seconds() + 1));
        let since = runs.into_iter().chain(waits).min().unwrap_or(i64::MAX);
        let seconds = |tick| self.half_life.tick_begins(tick);
        let past = record.into_iter().flat_map(|record| record.asked.until(since));
        let past = past.map(|(first, end)| (seconds(first), seconds(end)));
        moment.part(past.chain([(seconds(since), i64::MAX)]))
    }

    /// In which part of the time something has been waiting since then.
    #[must_use]
    pub fn waited(&self, moment: Moment, since: UnixMicros) -> Part {
        let tick = self.half_life.tick(since.whole_seconds() + 1);
        moment.part([(self.half_life.tick_begins(tick), i64::MAX)].into_iter())
    }

    fn record(&self, path: &str, class: &GpuClass) -> Option<&Record> {
        self.by_path.get(path)?.get(class)
    }
}

impl Record {
    fn new(half_life: HalfLife) -> Self {
        let settled = DecayedUse::new(half_life);
        Record { settled, asked: Spans::default(), open: BTreeMap::new() }
    }

    /// In thousandths of GPU-seconds.
    fn used(&self, moment: Moment) -> u128 {
        let open = self.open.iter().map(|(tick, open)| open.weighted_at(*tick, moment));
        moment.worth(open.fold(self.settled.weighted_at(moment), u128::saturating_add))
    }
}

impl Open {
    /// Use since they began, weighted for the era of the moment.
    fn weighted_at(&self, tick: i64, moment: Moment) -> u128 {
        let half_life = moment.half_life();
        let (begun, _) = half_life.era_and_phase(half_life.tick_begins(tick));
        let gpus = u128::from(self.gpus.0);
        let in_era = |era: i64| {
            let all = gpus.saturating_mul(moment.passed_of(era));
            moment.fade(era, if era == begun { all.saturating_sub(self.before) } else { all })
        };
        let oldest = begun.max(moment.era() - super::decay::REMEMBERED_ERAS);
        (oldest..=moment.era()).map(in_era).fold(0, u128::saturating_add)
    }
}

#[cfg(test)]
mod tests;
