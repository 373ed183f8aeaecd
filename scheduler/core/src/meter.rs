//! How an attempt is paid while it runs: a slice at a time.
//!
//! At its lease one slice is set aside. When the slice is over, or an account begins anew, or the weight of the class
//! changes, what was used is charged to the second and the next slice is set aside; so an attempt of six weeks does
//! not freeze six weeks of a budget on its first day. At the end the rest is charged, and the last hold given back.
//! Whatever the cuts, the lines of an attempt add up to what one line from its lease to its end would be.

use serde::{Deserialize, Serialize};

use crate::amount::{GpuMilli, GpuMilliSeconds, Ngh, UnixMicros};
use crate::attempt::{Attempt, Cause};
use crate::ids::{GpuClass, ProjectPath};
use crate::ledger::{CounterAccount, LedgerKind, Line, cost, is_refunded};
use crate::quota::budget::WHOLE_MILLI;
use crate::quota::{Interval, QuotaBook};

/// The most that is set aside at a time, seconds: a day. Shorter, and the ledger of a long job is mostly cuts;
/// longer, and budgets are frozen for what may never run.
pub const SLICE_S: i64 = 24 * 3600;

/// A stretch of time with one weight, in one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// From when until when.
    pub time: Interval,
    /// Beginning of the account that it counts in: of the month, or of a grant within it.
    pub account: UnixMicros,
    /// Normalised GPU-hours for an hour of one GPU, thousandths; 0 for a scavenger.
    pub weight_milli: u32,
}

/// How far an attempt is paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Paid up to here.
    pub settled: UnixMicros,
    /// What is set aside lasts until here.
    pub held_until: UnixMicros,
    /// Weight of what is set aside, thousandths.
    pub weight_milli: u32,
    /// How its use is booked, and how readily it is stopped.
    #[serde(default, alias = "overuse", deserialize_with = "read_footing")]
    pub footing: Footing,
    /// What was paid, in order; what follows on with the same weight in the same account is one.
    pub paid: Vec<Stretch>,
}

/// On what footing an attempt runs. The greater one is stopped first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Footing {
    /// Charged, within every budget that binds it.
    #[default]
    Budget,
    /// Started beyond a budget: charged as overuse.
    Overuse,
    /// A scavenger: its seconds are entered at no weight, and it holds a place nobody else wants.
    Scavenger,
}

/// As it is written, or as it was while there were only two: whether it is overuse.
fn read_footing<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Footing, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        IsOveruse(bool),
        Footing(Footing),
    }
    Ok(match Written::deserialize(from)? {
        Written::IsOveruse(true) => Footing::Overuse,
        Written::IsOveruse(false) => Footing::Budget,
        Written::Footing(footing) => footing,
    })
}

impl Default for Meter {
    /// Nothing is paid and nothing set aside.
    fn default() -> Self {
        let never = UnixMicros::default();
        Meter {
            settled: never,
            held_until: never,
            weight_milli: WHOLE_MILLI,
            footing: Footing::Budget,
            paid: Vec::new(),
        }
    }
}

impl Attempt {
    /// What is set aside for it, by the weight of its class.
    #[must_use]
    pub fn held_ngh(&self) -> Ngh {
        Ngh::of(self.hold, self.meter.weight_milli)
    }

    /// Whether it runs on what nobody else wants, and counts in no guarantee and no share.
    #[must_use]
    pub fn scavenges(&self) -> bool {
        self.meter.footing == Footing::Scavenger
    }
}

/// Seconds that are set aside at once for a job of that time limit.
#[must_use]
pub fn slice_s(time_limit_s: i64) -> i64 {
    time_limit_s.clamp(0, SLICE_S)
}

/// What is set aside when so many GPUs are held for so long.
#[must_use]
pub fn hold_for(gpus: GpuMilli, seconds: i64) -> GpuMilliSeconds {
    let gpus = i64::try_from(gpus.0).unwrap_or(i64::MAX);
    GpuMilliSeconds(gpus.saturating_mul(seconds.max(0)))
}

/// The stretches from one moment to another, cut wherever the weight of the class changes or an account begins.
#[must_use]
pub fn stretches(
    book: &QuotaBook,
    project: &ProjectPath,
    class: &GpuClass,
    time: Interval,
) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut at = time.from;
    while at < time.until {
        let account = book.account_span(project, at);
        let until = book.weight_span(class, account, at).until.min(time.until);
        let weight_milli = book.weight_milli(class, at);
        let time = Interval { from: at, until };
        stretches.push(Stretch { time, account: account.from, weight_milli });
        at = until;
    }
    stretches
}

/// When the attempt must be settled next; never if it has no GPUs.
#[must_use]
pub fn due(book: &QuotaBook, attempt: &Attempt) -> Option<UnixMicros> {
    let class = attempt.placement.class.as_ref()?;
    let settled = attempt.meter.settled;
    let account = book.account_span(&attempt.project, settled);
    Some(book.weight_span(class, account, settled).until.min(attempt.meter.held_until))
}

/// Sets aside the first slice of an attempt with GPUs of the class, at its lease.
pub fn begin(
    attempt: &mut Attempt,
    book: &QuotaBook,
    class: &GpuClass,
    time_limit_s: i64,
) -> Vec<Line> {
    attempt.meter.settled = attempt.leased;
    hold(attempt, book, class, time_limit_s).into_iter().collect()
}

/// Charges what was used until `now`, and sets aside the next slice.
pub fn renew(
    attempt: &mut Attempt,
    book: &QuotaBook,
    class: &GpuClass,
    time_limit_s: i64,
    now: UnixMicros,
) -> Vec<Line> {
    let mut lines: Vec<Line> = release(attempt, book).into_iter().collect();
    lines.extend(charge(attempt, book, class, now));
    lines.extend(hold(attempt, book, class, time_limit_s));
    lines
}

/// Charges the rest of an attempt that ended at `ended` for `cause`, or gives back what was charged too far; and all
/// of it if the cause was none of its own.
pub fn end(
    attempt: &mut Attempt,
    book: &QuotaBook,
    class: &GpuClass,
    ended: UnixMicros,
    cause: Cause,
) -> Vec<Line> {
    let mut lines: Vec<Line> = release(attempt, book).into_iter().collect();
    lines.extend(charge(attempt, book, class, ended));
    lines.extend(take_back(attempt, ended));
    if is_refunded(cause) {
        let counter = CounterAccount::Loss(cause);
        let paid = attempt.meter.paid.iter();
        lines.extend(paid.filter_map(|paid| line(attempt, LedgerKind::Refund, counter, *paid)));
    }
    lines
}

/// Sets aside what is left of the time limit, at most a slice. One that has outlived its limit is settled on, and
/// nothing more is set aside for it.
fn hold(
    attempt: &mut Attempt,
    book: &QuotaBook,
    class: &GpuClass,
    time_limit_s: i64,
) -> Option<Line> {
    let from = attempt.meter.settled;
    let limit = attempt.started.unwrap_or(attempt.leased).plus_seconds(time_limit_s);
    let left_s = slice_s(limit.whole_seconds().saturating_sub(from.whole_seconds()));
    let gpus = if attempt.scavenges() { GpuMilli::ZERO } else { attempt.gpus() };
    attempt.hold = hold_for(gpus, left_s);
    attempt.meter.held_until = from.plus_seconds(if left_s > 0 { left_s } else { SLICE_S });
    attempt.meter.weight_milli =
        if attempt.scavenges() { 0 } else { book.weight_milli(class, from) };
    held_line(attempt, book, LedgerKind::Hold)
}

fn release(attempt: &mut Attempt, book: &QuotaBook) -> Option<Line> {
    let line = held_line(attempt, book, LedgerKind::Release);
    attempt.hold = GpuMilliSeconds::default();
    line
}

/// A line of what is set aside now.
fn held_line(attempt: &Attempt, book: &QuotaBook, kind: LedgerKind) -> Option<Line> {
    let Meter { settled, held_until, weight_milli, .. } = attempt.meter;
    let time = Interval { from: settled, until: held_until };
    let account = book.account_span(&attempt.project, settled).from;
    let stretch = Stretch { time, account, weight_milli };
    let (amount, counter) = (attempt.hold, CounterAccount::Holds);
    (amount.0 != 0).then_some(Line { kind, amount, counter, stretch })
}

/// Charges what was used since it was settled last; nothing if `until` is before that.
fn charge(
    attempt: &mut Attempt,
    book: &QuotaBook,
    class: &GpuClass,
    until: UnixMicros,
) -> Vec<Line> {
    let time = Interval { from: attempt.meter.settled, until };
    let mut used = stretches(book, &attempt.project, class, time);
    let kind = match attempt.meter.footing {
        Footing::Budget => LedgerKind::Charge,
        Footing::Overuse => LedgerKind::Overuse,
        Footing::Scavenger => {
            used.iter_mut().for_each(|used| used.weight_milli = 0);
            LedgerKind::Charge
        }
    };
    let lines = used.iter().filter_map(|used| line(attempt, kind, CounterAccount::Pool, *used));
    let lines = lines.collect();
    attempt.meter.settled = until.max(attempt.meter.settled);
    used.into_iter().for_each(|used| pay(&mut attempt.meter.paid, used));
    lines
}

/// Remembers a stretch as paid.
fn pay(paid: &mut Vec<Stretch>, next: Stretch) {
    match paid.last_mut() {
        Some(last)
            if (last.account, last.weight_milli) == (next.account, next.weight_milli)
                && last.time.until == next.time.from =>
        {
            last.time.until = next.time.until;
        }
        Some(_) | None => paid.push(next),
    }
}

/// Gives back what was charged beyond `ended`: a worker that was cut off tells late of an end.
fn take_back(attempt: &mut Attempt, ended: UnixMicros) -> Vec<Line> {
    let paid = std::mem::take(&mut attempt.meter.paid);
    let mut lines = Vec::new();
    for mut stretch in paid {
        let from = stretch.time.from.max(ended);
        let too_far = Stretch { time: Interval { from, ..stretch.time }, ..stretch };
        if from < stretch.time.until {
            lines.extend(line(attempt, LedgerKind::Refund, CounterAccount::Pool, too_far));
        }
        stretch.time.until = stretch.time.until.min(ended);
        if stretch.time.from < stretch.time.until {
            attempt.meter.paid.push(stretch);
        }
    }
    attempt.meter.settled = attempt.meter.settled.min(ended);
    lines
}

/// A line of what the attempt's GPUs cost in a stretch; none if no second passed.
fn line(
    attempt: &Attempt,
    kind: LedgerKind,
    counter: CounterAccount,
    stretch: Stretch,
) -> Option<Line> {
    let amount = cost(attempt.gpus(), stretch.time.from, stretch.time.until);
    (amount.0 != 0).then_some(Line { kind, amount, counter, stretch })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::amount::{CpuMilli, GpuMilli, MemoryMib};
    use crate::attempt::{AttemptState, GpuAllocation, NodeAllocation, Placement};
    use crate::ids::{AttemptId, Epoch, GpuUuid, JobId, NodeName};
    use crate::quota::{parse, read_moment};

    /// A month's edge at each end of January, two weights, and a grant that ends in the middle.
    const QUOTA: &str = r#"
[class.b200]
weight_milli = [{ value = 2000 }, { value = 2500, from = "2026-01-10T12:00:00.5+09:00" }]
[node.public]
[node."public/lab"]
until = "2026-01-20"
budget = { period = "grant", ngh = 1000 }
"#;

    fn at(text: &str) -> UnixMicros {
        read_moment(text).unwrap()
    }

    fn book() -> QuotaBook {
        parse(&[("quota.toml".to_owned(), QUOTA.to_owned())]).unwrap()
    }

    fn class() -> GpuClass {
        GpuClass::new("b200").unwrap()
    }

    fn attempt(leased: UnixMicros, milli: u64) -> Attempt {
        let gpu = GpuAllocation { uuid: GpuUuid::new("GPU-1").unwrap(), milli: GpuMilli(milli) };
        let node = NodeAllocation {
            node: NodeName::new("n1").unwrap(),
            gpus: vec![gpu],
            cpu_milli: CpuMilli(1),
            memory_mib: MemoryMib(1),
            imex: None,
        };
        Attempt {
            id: AttemptId { job: JobId(1), number: 1 },
            project: ProjectPath::new("public/lab").unwrap(),
            placement: Arc::new(Placement {
                class: Some(class()),
                nodes: vec![node],
                gpu_cap_watts: None,
            }),
            epoch: Epoch(1),
            leased,
            hold: GpuMilliSeconds(0),
            meter: Meter::default(),
            state: AttemptState::Leased,
            started: None,
            ended: None,
            members: Vec::new(),
            stop: None,
            outcome: None,
            next_step: 1,
            measured: None,
            idle_told: None,
        }
    }

    /// Use by account and weight.
    fn sums(lines: &[Line]) -> std::collections::BTreeMap<(UnixMicros, u32), i64> {
        let mut sums = std::collections::BTreeMap::new();
        for line in lines {
            let sign = match line.kind {
                LedgerKind::Charge | LedgerKind::Overuse => 1,
                LedgerKind::Refund => -1,
                LedgerKind::Hold | LedgerKind::Release => 0,
            };
            let key = (line.stretch.account, line.stretch.weight_milli);
            *sums.entry(key).or_insert(0) += sign * line.amount.0;
        }
        sums.retain(|_, sum| *sum != 0);
        sums
    }

    #[test]
    fn a_line_ends_where_a_month_a_grant_or_a_weight_does() {
        let time = Interval { from: at("2025-12-31T23:00"), until: at("2026-02-01T01:00") };
        let cuts = stretches(&book(), &attempt(time.from, 1).project, &class(), time);
        let cuts: Vec<_> = cuts.iter().map(|cut| (cut.time.until, cut.weight_milli)).collect();
        let expected = [
            (at("2026-01-01"), 2000),
            (at("2026-01-10T12:00:00.5+09:00"), 2000),
            (at("2026-01-20"), 2500),
            (at("2026-02-01"), 2500),
            (time.until, 2500),
        ];
        assert_eq!(cuts, expected);
    }

    #[test]
    fn six_weeks_set_aside_a_day_at_a_time() {
        let (book, leased, six_weeks_s) = (book(), at("2026-02-02"), 42 * 24 * 3600);
        let mut attempt = attempt(leased, 1000);
        begin(&mut attempt, &book, &class(), six_weeks_s);
        assert_eq!(attempt.hold, GpuMilliSeconds(1000 * SLICE_S));
        assert_eq!(due(&book, &attempt), Some(leased.plus_seconds(SLICE_S)));
        let last_day = leased.plus_seconds(six_weeks_s - 3600);
        renew(&mut attempt, &book, &class(), six_weeks_s, last_day);
        assert_eq!(attempt.hold, GpuMilliSeconds(1000 * 3600), "what is left of the limit");
        renew(&mut attempt, &book, &class(), six_weeks_s, last_day.plus_seconds(7200));
        assert_eq!(attempt.hold, GpuMilliSeconds(0), "it has outlived its limit");
    }

    #[test]
    fn what_was_charged_beyond_an_end_that_is_told_late_is_given_back() {
        let (book, leased) = (book(), at("2026-02-02"));
        let mut attempt = attempt(leased, 1000);
        begin(&mut attempt, &book, &class(), 3600);
        let mut lines = renew(&mut attempt, &book, &class(), 3600, leased.plus_seconds(3600));
        let ended = leased.plus_seconds(100);
        lines.extend(end(&mut attempt, &book, &class(), ended, Cause::User));
        assert_eq!(sums(&lines).into_values().sum::<i64>(), 100 * 1000);
    }

    proptest! {
        #[test]
        fn settled_in_slices_is_settled_at_once(
            start in 0..40 * 86_400_000_000_i64,
            lengths in proptest::collection::vec(0..5 * 86_400_000_000_i64, 1..12),
            milli in 1..8000_u64,
        ) {
            let (book, class) = (book(), class());
            let leased = UnixMicros(at("2025-12-20").0 + start);
            let ended = UnixMicros(leased.0 + lengths.iter().sum::<i64>());
            let (mut once, mut sliced) = (attempt(leased, milli), attempt(leased, milli));
            let mut at_once = begin(&mut once, &book, &class, 3600);
            at_once.extend(end(&mut once, &book, &class, ended, Cause::User));
            let mut lines = begin(&mut sliced, &book, &class, 3600);
            let mut now = leased;
            for length in lengths {
                now = UnixMicros(now.0 + length);
                lines.extend(renew(&mut sliced, &book, &class, 3600, now));
            }
            lines.extend(end(&mut sliced, &book, &class, ended, Cause::User));
            prop_assert_eq!(sums(&lines), sums(&at_once));
            prop_assert_eq!(&sliced.meter.paid, &once.meter.paid);
            prop_assert_eq!(sums(&lines).into_values().sum::<i64>(), cost(GpuMilli(milli), leased, ended).0);
            let holds = |kind| lines.iter().filter(|line| line.kind == kind).map(|line| line.amount.0).sum::<i64>();
            prop_assert_eq!(holds(LedgerKind::Hold), holds(LedgerKind::Release));
        }

        #[test]
        fn a_refund_restores_every_account(
            lengths in proptest::collection::vec(0..9 * 86_400_000_000_i64, 1..8),
            early in 0..9 * 86_400_000_000_i64,
        ) {
            let (book, class) = (book(), class());
            let leased = at("2025-12-29T13:00");
            let mut attempt = attempt(leased, 1500);
            let mut lines = begin(&mut attempt, &book, &class, 3600);
            let mut now = leased;
            for length in lengths {
                now = UnixMicros(now.0 + length);
                lines.extend(renew(&mut attempt, &book, &class, 3600, now));
            }
            let ended = UnixMicros((now.0 - early).max(leased.0));
            lines.extend(end(&mut attempt, &book, &class, ended, Cause::Hardware));
            prop_assert_eq!(sums(&lines), Default::default());
        }
    }
}
