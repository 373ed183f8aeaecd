//! What expectations look at, and what each query is about.

use gotgan_core::ids::{GpuClass, ProjectPath, ReservationName};
use serde::Deserialize;

use crate::units::Moment;

/// What a query is about.
#[derive(Debug, Clone, Copy)]
pub enum About<'a> {
    /// A node of the tree, and a class.
    Node(&'a NodeClass),
    /// Jobs.
    Jobs(&'a Selection),
    /// A class over a time.
    Since(&'a Since),
    /// One job.
    Job(&'a JobOnly),
    /// An event that applies quota files.
    Event(&'a EventOnly),
    /// Quota files as a whole.
    Book,
    /// What people were told of budgets.
    Told(&'a TellingOf),
    /// What is lent.
    Loans(&'a Lent),
    /// One reservation.
    Reservation(&'a ReservationOnly),
}

/// What can be looked at. Times are in milliseconds, amounts in whole GPUs and GPU-seconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// GPUs guaranteed to a node, scaled to what is there.
    Guaranteed(NodeClass),
    /// GPUs a node is entitled to, by what it asks for.
    Entitled(NodeClass),
    /// GPUs a node holds.
    Held(NodeClass),
    /// Jobs that start or run.
    Running(Selection),
    /// Jobs that wait.
    Waiting(Selection),
    /// Attempts that began to run.
    Starts(Selection),
    /// From the submission to the first process; a job that waits counts with what it has waited.
    StartDelayMs(Delay),
    /// Longest time from a stop or loss of a job until it ran again, or as long as it has waited.
    RestartDelayMs(Selection),
    /// Attempts that were stopped for a better claim.
    Preempted(Selection),
    /// Attempts that ended by what was not their user's doing, whatever it was.
    Stopped(Selection),
    /// Jobs whose first start is not in the same second as in the counterfactual.
    MovedStarts(Selection),
    /// GPU-seconds charged for jobs.
    ChargedGpuS(Ledger),
    /// Of what was charged, GPU-seconds of jobs that started beyond a budget.
    OveruseGpuS(Ledger),
    /// GPU-seconds given back for jobs.
    RefundedGpuS(Ledger),
    /// GPU-milliseconds of work that was done and lost, over all attempts that ended.
    LostWorkGpuMs(Selection),
    /// GPU-milliseconds of a class that were idle.
    IdleGpuMs(Since),
    /// GPU-milliseconds of a class that were reserved and not used.
    ReservedIdleGpuMs(Since),
    /// GPU-seconds that a node, with all below it, lends: GPUs for as long as each loan holds.
    LentGpuS(Lent),
    /// GPU-seconds of a reservation: its GPUs for as long as it holds.
    ReservedGpuS(ReservationOnly),
    /// Of those, what is the holder's own and not lent to it.
    OwnGpuS(ReservationOnly),
    /// Thousandths of the capacity that were idle.
    IdleShareMilli(Since),
    /// State of a job, a word.
    State(JobOnly),
    /// Associations that were moved in from Slurm, over all events so far.
    Associations(Moved),
    /// GPU-seconds that Slurm's jobs used, by the accounts that were moved to a node or below it.
    MovedInGpuS(NodeOnly),
    /// Things that were changed when an event applied its quota files; 0 if it found all of it in force.
    Changed(EventOnly),
    /// Things in which the book in force is not what the files applied last say.
    Drift(Everything),
    /// How often people were told that a part of a budget is used.
    Alerts(TellingOf),
}

impl Query {
    /// What it is about.
    #[must_use]
    pub fn about(&self) -> About<'_> {
        match self {
            Query::Guaranteed(of) | Query::Entitled(of) | Query::Held(of) => About::Node(of),
            Query::Running(of)
            | Query::Waiting(of)
            | Query::Starts(of)
            | Query::RestartDelayMs(of)
            | Query::Preempted(of)
            | Query::Stopped(of)
            | Query::MovedStarts(of)
            | Query::LostWorkGpuMs(of) => About::Jobs(of),
            Query::StartDelayMs(delay) => About::Jobs(&delay.of),
            Query::ChargedGpuS(ledger)
            | Query::OveruseGpuS(ledger)
            | Query::RefundedGpuS(ledger) => About::Jobs(&ledger.of),
            Query::IdleGpuMs(since)
            | Query::ReservedIdleGpuMs(since)
            | Query::IdleShareMilli(since) => About::Since(since),
            Query::LentGpuS(of) => About::Loans(of),
            Query::ReservedGpuS(of) | Query::OwnGpuS(of) => About::Reservation(of),
            Query::State(job) => About::Job(job),
            Query::Changed(event) => About::Event(event),
            Query::Associations(_) | Query::MovedInGpuS(_) | Query::Drift(_) => About::Book,
            Query::Alerts(of) => About::Told(of),
        }
    }
}

/// A node of the quota tree and a class.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeClass {
    /// The node, with all below it.
    pub node: ProjectPath,
    /// The class.
    pub class: GpuClass,
}

/// Lines of the ledger.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// Of one class, else of all.
    pub class: Option<GpuClass>,
    /// For which jobs.
    pub of: Selection,
}

/// A class over some time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// The class.
    pub class: GpuClass,
    /// From then on, else from the beginning.
    pub from: Option<Moment>,
}

/// Loans of a node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lent {
    /// Who lends, with all below it.
    pub lender: ProjectPath,
    /// Of this class.
    pub class: GpuClass,
}

/// A reservation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationOnly {
    /// Its id in the quota files.
    pub reservation: ReservationName,
}

/// A job.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOnly {
    /// Its name, as the event that submits it has it.
    pub job: String,
}

/// An event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventOnly {
    /// Its name.
    pub event: String,
}

/// Nothing is chosen.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Everything {}

/// A node of the quota tree.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeOnly {
    /// The node, with all below it.
    pub node: ProjectPath,
}

/// Associations of Slurm.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Moved {
    /// Only those of which this became.
    pub verdict: Option<MovedVerdict>,
}

/// What became of an association, as `gotgan quota import` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovedVerdict {
    /// All of it is in the files.
    Taken,
    /// In other words.
    Mapped,
    /// Not all of it is.
    Refused,
}

/// Alerts: those to which all that is said applies.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TellingOf {
    /// Of the budget of that node alone.
    pub node: ProjectPath,
    /// That so many hundredths of it are used, else of any part.
    pub percent: Option<u32>,
    /// Told then or later.
    pub from: Option<Moment>,
    /// And before then.
    pub until: Option<Moment>,
}

/// Jobs: those to which all that is said applies.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Of that name.
    pub job: Option<String>,
    /// Of that stream.
    pub stream: Option<String>,
    /// Of projects at or below that node.
    pub node: Option<ProjectPath>,
    /// What is counted happened then or later; of delays and amounts, the submission.
    pub from: Option<Moment>,
    /// And before then.
    pub until: Option<Moment>,
}

/// A delay among many.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// The delay that so many of a hundred jobs do not exceed; 100: the longest.
    pub percentile: u32,
    /// Of which jobs.
    #[serde(default)]
    pub of: Selection,
}
