//! The ledger: integer GPU time, every entry with its counter-account.
//!
//! A GPU's second belongs to whoever holds the GPU when the wall clock reaches that second. So an attempt that
//! holds `g` GPUs from `a` to `b` is charged `g * (floor(b) - floor(a))`: attempts that follow each other on one
//! GPU never share a second and never lose one, whatever their fractions. Which lines an attempt gets, and when, is
//! said in [`crate::meter`].

use serde::{Deserialize, Serialize};

use crate::amount::{GpuMilli, GpuMilliSeconds, Ngh, UnixMicros};
use crate::attempt::Cause;
use crate::ids::{AttemptId, GpuClass, ProjectPath};
use crate::meter::Stretch;

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
    /// The time that was used, set aside or given back. No line crosses a moment at which the weight of its class
    /// changes or an account begins anew.
    pub stretch: Stretch,
}

impl LedgerEntry {
    /// The amount with its weight.
    #[must_use]
    pub fn ngh(&self) -> Ngh {
        Ngh::of(self.amount, self.stretch.weight_milli)
    }

    /// What it adds to what its project has used; holds add nothing.
    #[must_use]
    pub fn used(&self) -> Ngh {
        match self.kind {
            LedgerKind::Charge | LedgerKind::Overuse => self.ngh(),
            LedgerKind::Refund => Ngh::ZERO - self.ngh(),
            LedgerKind::Hold | LedgerKind::Release => Ngh::ZERO,
        }
    }
}

/// What kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerKind {
    /// Set aside for the next slice.
    Hold,
    /// The hold given back when the slice is paid.
    Release,
    /// What was held, to the second.
    Charge,
    /// The same by an attempt that started beyond a budget.
    Overuse,
    /// Use given back.
    Refund,
}

impl LedgerKind {
    /// All kinds.
    pub const ALL: [LedgerKind; 5] = [
        LedgerKind::Hold,
        LedgerKind::Release,
        LedgerKind::Charge,
        LedgerKind::Overuse,
        LedgerKind::Refund,
    ];

    /// The word in listings and in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            LedgerKind::Hold => "hold",
            LedgerKind::Release => "release",
            LedgerKind::Charge => "charge",
            LedgerKind::Overuse => "overuse",
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

/// Whether the time of an attempt that ended for `cause` is given back to its project.
#[must_use]
pub fn is_refunded(cause: Cause) -> bool {
    match cause {
        Cause::Hardware | Cause::Node | Cause::Network | Cause::Site => true,
        Cause::User | Cause::Preempted | Cause::Limit | Cause::OutOfMemory => false,
    }
}

/// A line before it has its position and its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What kind of line.
    pub kind: LedgerKind,
    /// Always positive.
    pub amount: GpuMilliSeconds,
    /// Account on the other side.
    pub counter: CounterAccount,
    /// Which time, by which weight, in which account.
    pub stretch: Stretch,
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
