//! The ledger: integer GPU time, every entry with its counter-account.
//!
//! A GPU's second belongs to whoever holds the GPU when the wall clock reaches that second. So an attempt that
//! holds `g` GPUs from `a` to `b` is charged `g * (floor(b) - floor(a))`: attempts that follow each other on one
//! GPU never share a second and never lose one, whatever their fractions.

use serde::{Deserialize, Serialize};

use crate::amount::{GpuMilli, GpuMilliSeconds, UnixMicros};
use crate::attempt::{Attempt, Cause};
use crate::ids::{AttemptId, GpuClass, ProjectPath};

/// One line of the ledger; never changed once written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Position, without gaps.
    pub seq: u64,
    /// When it was written.
    pub at: UnixMicros,
    /// What kind of line.
    pub kind: LedgerKind,
    /// Leaf that pays or is paid.
    pub project: ProjectPath,
    /// Class of the GPUs.
    pub class: GpuClass,
    /// Always positive; the kind says the direction.
    pub amount: GpuMilliSeconds,
    /// For which attempt.
    pub attempt: AttemptId,
    /// Account on the other side.
    pub counter: CounterAccount,
}

/// What kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerKind {
    /// Set aside at the lease.
    Hold,
    /// The hold given back at the end.
    Release,
    /// What was held, to the second.
    Charge,
    /// A charge given back.
    Refund,
}

impl LedgerKind {
    /// All kinds.
    pub const ALL: [LedgerKind; 4] =
        [LedgerKind::Hold, LedgerKind::Release, LedgerKind::Charge, LedgerKind::Refund];

    /// The word in listings and in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            LedgerKind::Hold => "hold",
            LedgerKind::Release => "release",
            LedgerKind::Charge => "charge",
            LedgerKind::Refund => "refund",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Account on the other side of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterAccount {
    /// Time set aside for running attempts.
    Holds,
    /// The GPUs of the centre.
    Pool,
    /// Time lost to what is not the user's doing.
    Loss(Cause),
}

impl CounterAccount {
    /// As written in the store and in listings.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            CounterAccount::Holds => "holds".to_owned(),
            CounterAccount::Pool => "pool".to_owned(),
            CounterAccount::Loss(cause) => format!("loss/{}", cause.word()),
        }
    }

    /// The account of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "holds" => Some(CounterAccount::Holds),
            "pool" => Some(CounterAccount::Pool),
            _ => word.strip_prefix("loss/").and_then(Cause::from_word).map(CounterAccount::Loss),
        }
    }
}

/// What holding `gpus` from `from` to `until` costs.
#[must_use]
pub fn cost(gpus: GpuMilli, from: UnixMicros, until: UnixMicros) -> GpuMilliSeconds {
    let seconds = until.whole_seconds().saturating_sub(from.whole_seconds()).max(0);
    let gpus = i64::try_from(gpus.0).unwrap_or(i64::MAX);
    GpuMilliSeconds(gpus.saturating_mul(seconds))
}

/// What is set aside for an attempt at its lease.
#[must_use]
pub fn hold_for(gpus: GpuMilli, time_limit_s: i64) -> GpuMilliSeconds {
    let gpus = i64::try_from(gpus.0).unwrap_or(i64::MAX);
    GpuMilliSeconds(gpus.saturating_mul(time_limit_s.max(0)))
}

/// Whether the time of an attempt that ended for `cause` is given back to its project.
#[must_use]
pub fn is_refunded(cause: Cause) -> bool {
    match cause {
        Cause::Hardware | Cause::Node | Cause::Network | Cause::Site => true,
        Cause::User | Cause::Preempted | Cause::Limit => false,
    }
}

/// A line without its position, which the world assigns.
type Line = (LedgerKind, GpuMilliSeconds, CounterAccount);

/// Lines at the lease of `attempt`; none for one without GPUs.
#[must_use]
pub fn lines_at_lease(attempt: &Attempt) -> Vec<Line> {
    if attempt.hold.0 == 0 {
        return Vec::new();
    }
    vec![(LedgerKind::Hold, attempt.hold, CounterAccount::Holds)]
}

/// Lines at the end of `attempt`, which ended at `ended` for `cause`.
#[must_use]
pub fn lines_at_end(attempt: &Attempt, ended: UnixMicros, cause: Cause) -> Vec<Line> {
    let mut lines = Vec::new();
    if attempt.hold.0 != 0 {
        lines.push((LedgerKind::Release, attempt.hold, CounterAccount::Holds));
    }
    let charge = cost(attempt.gpus(), attempt.leased, ended);
    if charge.0 == 0 {
        return lines;
    }
    lines.push((LedgerKind::Charge, charge, CounterAccount::Pool));
    if is_refunded(cause) {
        lines.push((LedgerKind::Refund, charge, CounterAccount::Loss(cause)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn attempts_that_follow_each_other_pay_exactly_what_one_long_attempt_would(
            start in 0..10_i64.pow(12),
            lengths in proptest::collection::vec(0..10_i64.pow(8), 1..20),
            gpus in 1..8000_u64,
        ) {
            let mut total = GpuMilliSeconds::default();
            let mut at = start;
            for length in lengths {
                total += cost(GpuMilli(gpus), UnixMicros(at), UnixMicros(at + length));
                at += length;
            }
            prop_assert_eq!(total, cost(GpuMilli(gpus), UnixMicros(start), UnixMicros(at)));
        }
    }

    #[test]
    fn a_clock_that_steps_back_charges_nothing() {
        assert_eq!(cost(GpuMilli(1000), UnixMicros(5_000_000), UnixMicros(0)).0, 0);
    }
}
