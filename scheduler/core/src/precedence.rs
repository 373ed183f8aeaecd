//! Which of two jobs comes first in a pass, from what was written down of it alone.
//!
//! A pass that starts something leaves a record: of every start the [`Rank`] that it started with, and on a [`PassSheet`]
//! what is needed to find the rank that any job had which waited then. [`compare`] decides between two ranks as the
//! planner did, by the same integers, so that whoever may read a record can check the decision and need not believe it.
//!
//! ```text
//!   pass ──► sheet: standings of what waits, what was given, who was passed over and why ─┐
//!        └─► starts: a rank each ──────────────────────────────► rank of A ──┐            │
//!                                              job B ──► rank of B ◄─────────┼────────────┘
//!                                                              └── compare ──┴──► ruling ──► words
//! ```
//!
//! Nothing here decides what starts: that is the planner's, and a test holds every start of every tested pass against the
//! record that it leaves.

mod order;
mod rank;
mod sheet;
mod stood;
mod words;

pub use order::{Facts, OrderOf, Verdict, judge};
pub use rank::{Own, Rank, Rule, Ruling, Rung, Stage, Sums, compare};
pub use sheet::{
    Guaranteed, LevelSheet, PASSED_MAX, PassSheet, PassTurns, Passed, RUNGS_MAX, StartTurn, Take,
    WHOLE_MAX,
};
pub use stood::{Absence, absence};
pub use words::{Sides, sentence};
