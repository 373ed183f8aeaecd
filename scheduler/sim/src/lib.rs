//! Scenarios: what would the scheduler do?
//!
//! A scenario is a file: quota files, a machine, streams of jobs, events, and what is expected of it. It is run with
//! virtual time by the scheduler's own core: the same world, commands, planner, checks and ledger as in production, and
//! no rule written twice. What is played here are the workers ([`worker`]) and the people ([`engine`]).
//!
//! Reading order: [`scenario`] (the file), [`setup`] (read and checked), [`engine`] (the run), [`meter`] (does it add
//! up?), [`expect`] (is it what was expected?), [`report`].

pub mod books;
pub mod draw;
pub mod engine;
pub mod expect;
pub mod fault;
pub mod fleet;
pub mod meter;
pub mod moving;
pub mod pack;
pub mod record;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod setup;
pub mod table;
pub mod units;
pub mod worker;

use std::collections::BTreeSet;
use std::path::Path;

use report::ScenarioReport;
use setup::SetupError;

/// Reads and runs the scenario in the file at `path`, and its counterfactual if it has one.
///
/// # Errors
/// [`SetupError`] if it cannot be run at all.
pub fn run(path: &Path) -> Result<ScenarioReport, SetupError> {
    let setup = setup::read(path)?;
    let outcome = engine::run(&setup, &setup.books, &BTreeSet::new());
    let other = setup.counterfactual.as_ref();
    let other = other.map(|(left_out, books)| engine::run(&setup, books, left_out));
    Ok(ScenarioReport::of(&setup, &outcome, other.as_ref()))
}
