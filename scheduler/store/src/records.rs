//! What goes into the store and comes out of it beside the types of the core.

use std::sync::Arc;

use gotgan_core::amount::{GpuMilliSeconds, UnixMicros};
use gotgan_core::attempt::Attempt;
use gotgan_core::change::Change;
use gotgan_core::ids::{Epoch, GpuClass, IdempotencyKey, JobId, NodeName, ProjectPath, UserName};
use gotgan_core::job::{Digest, Job, JobState};
use gotgan_core::precedence::{PassSheet, StartTurn};
use gotgan_core::step::Step;

/// Which database a store is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// Embedded.
    Sqlite,
    /// A server.
    Postgres,
}

impl DatabaseKind {
    /// The word in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "postgres",
        }
    }
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Number of the leadership.
    pub epoch: Epoch,
    /// Name of the process that leads.
    pub holder: String,
    /// Where clients and workers reach it.
    pub address: String,
    /// When the lease runs out.
    pub expires: UnixMicros,
}

/// By what right somebody would lead, and for how long. Whoever led under the same name before may at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// A lease that runs until no later than this is over.
    pub over: UnixMicros,
    /// So is one that is still the one of this epoch that runs until then: whoever asks has waited for its length without
    /// seeing it renewed, and knows so without any clock that others have.
    pub unless_renewed: Option<(Epoch, UnixMicros)>,
    /// Until when the new lease runs.
    pub until: UnixMicros,
}

/// What is seen of the process that leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It has a session with the database.
    There,
    /// It had one, and has none now.
    Gone,
    /// It was not seen before, or this database cannot tell.
    Unknown,
}

/// Everything one transaction writes.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Changes of the world, in order.
    pub changes: Vec<Change>,
    /// Tokens made or changed.
    pub tokens: Vec<TokenRecord>,
    /// Join tokens made or used.
    pub join_tokens: Vec<JoinTokenRecord>,
    /// Answers to remember under their keys.
    pub answered: Vec<AnsweredRequest>,
}

impl Round {
    /// Whether there is nothing to write. Changes that are not stored count as nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
            && self.join_tokens.is_empty()
            && self.answered.is_empty()
            && !self.changes.iter().any(is_stored)
    }
}

/// Whether a change leaves a trace in the store.
#[must_use]
pub fn is_stored(change: &Change) -> bool {
    match change {
        Change::NodeHeard { .. } | Change::NodeLeftovers { .. } | Change::QuotaTurned { .. } => {
            false
        }
        Change::JobSubmitted(_)
        | Change::JobMoved { .. }
        | Change::AttemptLeased(_)
        | Change::AttemptMoved(_)
        | Change::StepCreated(_)
        | Change::TaskMoved { .. }
        | Change::PassRecorded(_)
        | Change::Booked(_)
        | Change::NodeRegistered(_)
        | Change::NodeAdministered { .. }
        | Change::NodeHealth { .. }
        | Change::BreakerMoved(_)
        | Change::WindowMoved(_)
        | Change::QuotaApplied { .. }
        | Change::QuotaAudited(_)
        | Change::QuotaApproved(_)
        | Change::QuotaAlerted(_)
        | Change::Happened(_) => true,
    }
}

/// A bearer token of a person or a program; only a hash of its secret is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Shown in listings and part of the token.
    pub id: String,
    /// SHA-256 of the secret part, in hexadecimal.
    pub secret_sha256: String,
    /// Who it speaks for.
    pub subject: UserName,
    /// Role, as its word.
    pub role: String,
    /// Projects of a member.
    pub projects: Vec<ProjectPath>,
    /// When it was made.
    pub created: UnixMicros,
    /// When it runs out.
    pub expires: Option<UnixMicros>,
    /// When it was revoked.
    pub revoked: Option<UnixMicros>,
}

/// A token with which one worker may join once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// SHA-256 of the token, in hexadecimal.
    pub secret_sha256: String,
    /// Only for this node.
    pub node: Option<NodeName>,
    /// When it runs out.
    pub expires: UnixMicros,
    /// When it was used, and by which node.
    pub used: Option<(UnixMicros, NodeName)>,
}

/// A request other than a submission, with the answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredRequest {
    /// Who asked.
    pub owner: UserName,
    /// Under which key.
    pub key: IdempotencyKey,
    /// What kind of request, with its body, as a digest.
    pub digest: Digest,
    /// The encoded answer, in hexadecimal or JSON, as the API layer chooses.
    pub answer: String,
    /// When.
    pub at: UnixMicros,
}

/// A submission that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedSubmission {
    /// Who submitted.
    pub owner: UserName,
    /// Under which key.
    pub key: IdempotencyKey,
    /// Digest of the body.
    pub digest: Digest,
    /// The job it became.
    pub job: JobId,
}

/// By what order an attempt started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRecord {
    /// Number of the record of the pass.
    pub pass: u64,
    /// Leadership under which it was committed.
    pub epoch: Epoch,
    /// What the pass knew.
    pub sheet: PassSheet,
    /// The start.
    pub start: StartTurn,
}

/// A job with what happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDetail {
    /// The job.
    pub job: Job,
    /// Oldest first; in listings only the latest.
    pub attempts: Vec<Attempt>,
    /// By attempt and number; empty in listings.
    pub steps: Vec<Arc<Step>>,
    /// Charges by attempt number; empty in listings.
    pub charged: Vec<(u32, GpuMilliSeconds)>,
    /// Refunds by attempt number; empty in listings.
    pub refunded: Vec<(u32, GpuMilliSeconds)>,
    /// Charges less refunds of the whole job, also in listings.
    pub paid: GpuMilliSeconds,
}

impl JobDetail {
    /// A job to which nothing has happened.
    #[must_use]
    pub fn of(job: Job) -> Self {
        let (attempts, steps, charged, refunded) = Default::default();
        JobDetail { job, attempts, steps, charged, refunded, paid: GpuMilliSeconds::default() }
    }
}

/// Which jobs are wanted; everything that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Any of these; empty: all.
    pub states: Vec<JobState>,
    /// Any of these paths and what is below; empty: all.
    pub within: Vec<ProjectPath>,
    /// This path and what is below; beside `within`, so that a member's view can be narrowed further.
    pub project: Option<ProjectPath>,
    /// This owner's.
    pub owner: Option<UserName>,
    /// Exactly this name.
    pub name: Option<String>,
    /// Any of these; empty: all.
    pub ids: Vec<JobId>,
    /// Which tasks of arrays.
    pub tasks: TaskFilter,
}

/// Which tasks of arrays are wanted, of those that are jobs of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TaskFilter {
    /// All, beside the arrays and other jobs.
    #[default]
    Beside,
    /// None: an array stands for its tasks.
    Without,
    /// Those of one array, and nothing else.
    Of(JobId),
}

/// Which entries of the ledger are wanted.
#[derive(Debug, Clone, Default)]
pub struct LedgerFilter {
    /// Any of these paths and what is below; empty: all.
    pub within: Vec<ProjectPath>,
    /// Only this job.
    pub job: Option<JobId>,
}

/// A page of a listing.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Most rows.
    pub size: u32,
    /// Number of the last row of the page before (a job's id, an entry's position).
    pub after: Option<u64>,
}

/// Sums of the ledger for one project and class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Which project.
    pub project: ProjectPath,
    /// Which class.
    pub class: GpuClass,
    /// Everything that was used.
    pub charged: GpuMilliSeconds,
    /// Of that, by attempts that started beyond a budget.
    pub overuse: GpuMilliSeconds,
    /// All refunds.
    pub refunded: GpuMilliSeconds,
    /// Holds less releases.
    pub held: GpuMilliSeconds,
}

/// Whether the ledger agrees with the attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerAudit {
    /// Attempts compared.
    pub attempts: u64,
    /// What differs, one line each, at most [`LedgerAudit::DIFFERENCES_MAX`].
    pub differences: Vec<String>,
}

/// Whether what is stored agrees with itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Attempts compared with the ledger.
    pub attempts: u64,
    /// Attempts that live.
    pub live_attempts: u64,
    /// GPUs they hold.
    pub gpus: u64,
    /// Entries of the audit chain that follow each other.
    pub audit_entries: u64,
    /// Quota trees compared with the chain.
    pub revisions: u64,
    /// What differs, one line each, at most [`Verification::DIFFERENCES_MAX`].
    pub differences: Vec<String>,
}

impl Verification {
    /// Most differences listed.
    pub const DIFFERENCES_MAX: usize = 100;

    pub(crate) fn differ(&mut self, text: String) {
        if self.differences.len() < Self::DIFFERENCES_MAX {
            self.differences.push(text);
        }
    }
}

impl LedgerAudit {
    /// Most differences listed; one is enough to act, a few show the pattern.
    pub const DIFFERENCES_MAX: usize = 20;
}
