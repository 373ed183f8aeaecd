//! Bugs on purpose, one of them at a time, by which those who look for bugs are tried: whoever never found one is not to be
//! trusted. `gotgan-torment --planted all` tries each.
//!
//! Only programs built for development have them, and only with [`VARIABLE`] set; a release knows nothing of it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use gotgan_core::attempt::AttemptState;
use gotgan_core::change::Change;
use gotgan_core::ids::NodeName;
use gotgan_core::ledger::LedgerKind;
use gotgan_proto::v1::scheduler_message::Message;
use gotgan_proto::v1::{self, SchedulerMessage};
use gotgan_store::Round;

/// Names the bug.
pub const VARIABLE: &str = "GOTGAN_PLANTED_BUG";

/// A bug, with the promise that it breaks (docs/torment.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// 1: an attempt is told to use the first GPU of its node, whoever has it.
    GpuTwice,
    /// 2: a GPU is counted as free and as allocated.
    GpuCountedTwice,
    /// 3: a limit is acknowledged and not applied.
    LimitIgnored,
    /// 4: a submission is acknowledged and not stored.
    AcknowledgedUnstored,
    /// 5: an attempt is started on another node as well.
    StartedElsewhere,
    /// 6: one node of a gang is not told to start.
    GangInPart,
    /// 7: a job that has ended is said to run.
    Revived,
    /// 8: a charge is not written.
    ChargeLost,
    /// 9: a start is promised for earlier than it is planned.
    PromisedTooEarly,
    /// 10: one's guarantee is acknowledged and given to another.
    GuaranteeIgnored,
    /// 11: the end of an attempt is told and not stored.
    EndUnstored,
    /// 12: some jobs are never told to run.
    Starved,
}

/// Bugs by their names.
const BUGS: [(&str, Bug); 12] = [
    ("gpu-twice", Bug::GpuTwice),
    ("gpu-counted-twice", Bug::GpuCountedTwice),
    ("limit-ignored", Bug::LimitIgnored),
    ("acknowledged-unstored", Bug::AcknowledgedUnstored),
    ("started-elsewhere", Bug::StartedElsewhere),
    ("gang-in-part", Bug::GangInPart),
    ("revived", Bug::Revived),
    ("charge-lost", Bug::ChargeLost),
    ("promised-too-early", Bug::PromisedTooEarly),
    ("guarantee-ignored", Bug::GuaranteeIgnored),
    ("end-unstored", Bug::EndUnstored),
    ("starved", Bug::Starved),
];

/// A bug that is there from the first moment would be found by anybody.
const ONE_IN: u64 = 40;
/// By how much a promise is too early, in microseconds.
const TOO_EARLY_US: i64 = 10_000_000;

/// Bugs of one thread alone.
#[cfg(feature = "simulation")]
mod here {
    use std::cell::Cell;

    use super::{BUGS, Bug};

    thread_local! {
        pub(super) static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        pub(super) static CHANCES: Cell<u64> = const { Cell::new(0) };
    }

    /// Plants the bug of that name in this thread alone, or none; false if there is no such bug.
    pub fn plant(name: Option<&str>) -> bool {
        let found = BUGS.iter().find(|(known, _)| Some(*known) == name).map(|(_, bug)| *bug);
        PLANTED.set(found);
        CHANCES.set(0);
        found.is_some() || name.is_none()
    }

    /// Names of all bugs, with the promise that each breaks.
    pub fn names() -> impl Iterator<Item = (u8, &'static str)> {
        (1..).zip(BUGS.iter().map(|(name, _)| *name))
    }
}

#[cfg(feature = "simulation")]
pub use here::{names, plant};

/// The bug that is planted in this process.
fn planted() -> Option<Bug> {
    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return None;
    }
    #[cfg(feature = "simulation")]
    if let Some(bug) = here::PLANTED.get() {
        return Some(bug);
    }
    *PLANTED.get_or_init(|| {
        let wanted = std::env::var(VARIABLE).ok()?;
        let found = BUGS.iter().find(|(name, _)| *name == wanted).map(|(_, bug)| *bug);
        tracing::error!(
            bug = wanted,
            known = found.is_some(),
            "A BUG IS PLANTED in this scheduler"
        );
        found
    })
}

fn is(bug: Bug) -> bool {
    planted() == Some(bug)
}

/// Now and then.
fn strikes(bug: Bug) -> bool {
    is(bug) && chance() % ONE_IN == ONE_IN - 1
}

/// How often that was asked before.
fn chance() -> u64 {
    static CHANCES: AtomicU64 = AtomicU64::new(0);
    #[cfg(feature = "simulation")]
    if here::PLANTED.get().is_some() {
        return here::CHANCES.replace(here::CHANCES.get() + 1);
    }
    CHANCES.fetch_add(1, Ordering::Relaxed)
}

/// An order on its way to a node; `None`: it is not sent.
pub fn order(mut message: SchedulerMessage) -> Option<SchedulerMessage> {
    match &mut message.message {
        Some(Message::RunAttempt(order)) if is(Bug::Starved) && order.job_id % ONE_IN == 0 => None,
        Some(Message::RunAttempt(order)) if strikes(Bug::GpuTwice) => {
            if let Some(gpu) = order.gpus.first_mut()
                && let Some((node, _)) = gpu.uuid.rsplit_once('-')
            {
                gpu.uuid = format!("{node}-0");
            }
            Some(message)
        }
        Some(Message::StartAttempt(_)) if strikes(Bug::GangInPart) => None,
        Some(_) | None => Some(message),
    }
}

/// Another node that gets the same order.
pub fn also<'a>(
    message: &SchedulerMessage,
    node: &NodeName,
    others: impl DoubleEndedIterator<Item = &'a NodeName>,
) -> Option<NodeName> {
    let is_run = matches!(message.message, Some(Message::RunAttempt(_)));
    if !is_run || !strikes(Bug::StartedElsewhere) {
        return None;
    }
    others.rev().find(|other| *other != node).cloned()
}

/// What is about to be stored.
pub fn round(round: &mut Round) {
    // Rounds are long, and every one comes by here.
    if planted().is_none() {
        return;
    }
    let is_charge = |change: &Change| matches!(change, Change::Booked(entry) if entry.kind == LedgerKind::Charge);
    if round.changes.iter().any(is_charge) && strikes(Bug::ChargeLost) {
        round.changes.retain(|change| !is_charge(change));
    }
    let is_end = |change: &Change| matches!(change, Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended);
    if round.changes.iter().any(is_end) && strikes(Bug::EndUnstored) {
        let is_move = |change: &Change| matches!(change, Change::JobMoved { .. }) || is_end(change);
        round.changes.retain(|change| !is_move(change));
    }
}

/// What a client is told of the whole.
pub fn status(status: &mut v1::ClusterStatus) {
    if strikes(Bug::GpuCountedTwice) {
        status.classes.iter_mut().for_each(|class| class.free_gpu_milli += 1000);
    }
}

/// What a client is told of jobs.
pub fn jobs(jobs: &mut [v1::Job]) {
    for job in jobs {
        if job.state() == v1::JobState::Completed && strikes(Bug::Revived) {
            job.set_state(v1::JobState::Running);
        }
    }
}

/// The answer to a submission that is forgotten.
pub fn submission() -> Option<v1::SubmitResponse> {
    let forgotten = v1::SubmitResponse { job_id: u32::MAX.into(), ..Default::default() };
    strikes(Bug::AcknowledgedUnstored).then_some(forgotten)
}

/// What a client is told of why a job waits.
pub fn explanation(mut told: v1::Explanation) -> v1::Explanation {
    for blocker in &mut told.blockers {
        if is(Bug::PromisedTooEarly)
            && blocker.kind() == v1::BlockerKind::Planned
            && let Ok(planned_us) = blocker.subject.parse::<i64>()
        {
            blocker.subject = (planned_us - TOO_EARLY_US).to_string();
        }
    }
    told
}

/// A quota file, as it is applied.
pub fn quota(text: &str) -> String {
    // What is left of a line is a remark.
    match planted() {
        Some(Bug::LimitIgnored) => text.replace("limit =", "#"),
        Some(Bug::GuaranteeIgnored) => {
            text.replace("b200 = 28 }", "b200 = 0 }").replace("b200 = 4 }", "b200 = 32 }")
        }
        Some(_) | None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_unless_it_is_asked_for() {
        assert_eq!(planted(), None);
        let message = SchedulerMessage::default();
        assert_eq!(order(message.clone()), Some(message));
        assert_eq!(submission(), None);
    }
}
