//! The file of a scenario as it is written; a key that is not known here is refused.
//!
//! [`crate::setup`] makes of it what a run needs and finds what contradicts itself. `docs/scenarios.md` is for those
//! who write them.

mod query;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use gotgan_core::ids::{ClusterName, GpuClass, LotName, NodeName, ProjectPath};
use gotgan_core::policy::Policy;
use gotgan_core::topology::Level;
use serde::Deserialize;
use toml::Spanned;

use crate::units::{Moment, Span};

pub use query::{
    About, Delay, EventOnly, JobOnly, Ledger, Lent, NodeClass, Query, ReservationOnly, Selection,
    Since,
};
pub use query::{Moved, MovedVerdict, TellingOf};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// One line for the report.
    pub title: String,
    /// The first moment; the machine is empty.
    pub from: Moment,
    /// The last moment.
    pub until: Moment,
    /// What the draws of streams begin with.
    #[serde(default)]
    pub seed: u64,
    /// The quota book at the beginning.
    pub quota: QuotaFiles,
    /// Numbers of the site, as in the scheduler's configuration.
    #[serde(default)]
    pub policy: Policy,
    /// How fast workers are.
    #[serde(default)]
    pub worker: WorkerPace,
    /// What there is.
    pub cluster: Vec<ClusterFile>,
    /// Jobs that come by a rule.
    #[serde(default)]
    pub stream: Vec<Spanned<StreamFile>>,
    /// What happens at a moment.
    #[serde(default)]
    pub event: Vec<Spanned<EventFile>>,
    /// What is left out for the counterfactual.
    pub compare: Option<CompareFile>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Vec<Spanned<ExpectFile>>,
}

/// Quota files. A folder stands for all of its files and replaces what was there; single files and texts replace
/// those of the same name and leave the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaFiles {
    /// Path of a folder, from the scenario's own.
    pub folder: Option<String>,
    /// Paths of files, likewise.
    pub files: Vec<String>,
    /// Files written right here, by name.
    pub text: BTreeMap<String, String>,
    /// Files made of what another scheduler has.
    pub slurm: Option<SlurmFiles>,
}

/// What Slurm wrote of its own, to be moved in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlurmFiles {
    /// Path of what `sacctmgr dump` wrote, from the scenario's own.
    pub dump: String,
    /// Path of what `sacct` listed, likewise.
    pub usage: Option<String>,
    /// Node above all accounts.
    pub root: ProjectPath,
}

/// How fast workers are, and how long a silent one is waited for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerPace {
    /// From the lease until a worker has confirmed it.
    pub accept: Span,
    /// From the order to start until the first process is there.
    pub start: Span,
    /// From the order to stop until nothing is left, if the job's grace is not shorter.
    pub stop: Span,
    /// A silent node gets no new work after this.
    pub suspect_after: Span,
    /// A silent node is given up after this.
    pub lost_after: Span,
}

impl Default for WorkerPace {
    /// A worker that is quick, and the scheduler's own patience.
    fn default() -> Self {
        WorkerPace {
            accept: Span::millis(500),
            start: Span::millis(2_000),
            stop: Span::millis(5_000),
            suspect_after: Span::millis(15_000),
            lost_after: Span::millis(120_000),
        }
    }
}

/// Nodes alike, on one fabric. They carry the label `cluster` with its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Name of the cluster; its nodes are NAME-0001 and so on.
    pub name: ClusterName,
    /// Class of its GPUs.
    pub class: GpuClass,
    /// Nodes that take work.
    pub nodes: u32,
    /// GPUs of each.
    pub gpus_per_node: u32,
    /// Nodes beside them, numbered on, that stand by until others are down.
    #[serde(default)]
    pub spare_nodes: u32,
    /// Nodes of each block, by level: the first so many are of the first block, and so on. Spare ones are dealt out to
    /// the blocks in turn.
    #[serde(default)]
    pub blocks: BTreeMap<Level, NonZeroU32>,
}

/// Jobs that come by a rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamFile {
    /// Its name.
    pub name: String,
    /// The project whose jobs they are.
    pub project: Option<ProjectPath>,
    /// Or each project below this node, with draws of its own.
    pub below: Option<ProjectPath>,
    /// How they come.
    pub arrive: Arrival,
    /// First moment, else the scenario's.
    pub from: Option<Moment>,
    /// No more from then on, else to the scenario's end.
    pub until: Option<Moment>,
    /// Sizes to choose from.
    pub size: Vec<SizeFile>,
    /// How long the work takes.
    pub duration: Duration,
    /// What each job asks for.
    #[serde(default)]
    pub job: JobTerms,
}

/// How the jobs of a stream come.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// So many at the stream's first moment.
    Once(u32),
    /// One after each such stretch.
    Every(Span),
    /// One after waits with this mean, as if each moment were alike.
    Poisson(Wait),
    /// As many as keep what they hold and ask for together at so many GPUs.
    FillGpus(u32),
    /// The same for thousandths of what the project is guaranteed of the jobs' class.
    FillGuaranteeMilli(u32),
}

/// Waits of a Poisson-like arrival.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Mean of the waits.
    pub mean: Span,
    /// Waits are multiples of this.
    #[serde(default = "one_second")]
    pub step: Span,
}

fn one_second() -> Span {
    Span::millis(1000)
}

/// A size and how often it is chosen.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeFile {
    /// Nodes of the gang.
    #[serde(default = "one")]
    pub nodes: u32,
    /// GPUs of each.
    pub gpus: u32,
    /// How often, beside the others.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// How long the work of a job takes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duration {
    /// Always as long.
    Fixed(Span),
    /// All lengths alike.
    Uniform(Between),
    /// Many short ones and few long ones.
    Exponential(Capped),
}

/// Lengths between two.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// The shortest.
    pub least: Span,
    /// The longest.
    pub most: Span,
    /// Lengths are multiples of this.
    #[serde(default = "one_second")]
    pub step: Span,
}

/// Lengths with a mean.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capped {
    /// Mean, before the longest are cut.
    pub mean: Span,
    /// The longest.
    pub most: Span,
    /// Lengths are multiples of this, at least one.
    #[serde(default = "one_second")]
    pub step: Span,
}

/// What a job asks for beside its size.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobTerms {
    /// Class of its GPUs, else any one.
    pub class: Option<GpuClass>,
    /// The cluster it must run on: it asks for the label.
    pub cluster: Option<ClusterName>,
    /// All of its nodes must be of one cluster, whichever.
    pub same_cluster: bool,
    /// Wall time of an attempt, else the site's default.
    pub time_limit: Option<Span>,
    /// Higher first.
    pub priority: i32,
    /// Between TERM and KILL, else the site's default.
    pub grace: Option<Span>,
    /// Whether a lost or stopped attempt is followed by another; yes if nothing is said.
    pub requeue: Option<bool>,
    /// Work is saved each time so much of it is done, and the next attempt goes on from there; else it begins anew.
    pub checkpoint: Option<Span>,
    /// Runs on what nobody else wants.
    #[serde(default)]
    pub scavenger: bool,
    /// It is elastic and can do with so many nodes at most; else it has exactly as many as its size says.
    pub nodes_max: Option<NonZeroU32>,
    /// All of its nodes must be in one block of this level.
    pub one: Option<Level>,
    /// Its nodes should be in as few blocks of this level as possible.
    pub prefer: Option<Level>,
    /// It is made of segments of so many nodes, each inside one block.
    pub segment: Option<NonZeroU32>,
    /// Level of those blocks, else NVLink domains.
    pub segment_level: Option<Level>,
}

/// What happens at a moment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventFile {
    /// When.
    pub at: Moment,
    /// For `compare`.
    pub name: Option<String>,
    /// What.
    #[serde(rename = "do")]
    pub action: EventAction,
}

/// What can happen.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventAction {
    /// A job is submitted.
    Submit(SubmitFile),
    /// A job of that name is cancelled.
    Cancel(String),
    /// Quota files are applied.
    Apply(ApplyFile),
    /// Quota files are planned and not applied.
    Plan(PlanFile),
    /// A batch of a delivery is accepted.
    Accept(AcceptFile),
    /// A node falls silent with all that runs there.
    Lose(NodeName),
    /// A silent node is back, with nothing left on it.
    Return(NodeName),
    /// No new work on a node.
    Drain(NodeName),
    /// New work on a node again.
    Resume(NodeName),
    /// Maintenance of nodes is planned.
    Maintain(MaintainFile),
    /// The scheduler is started again from what the store knows.
    Restart,
}

/// Maintenance of nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintainFile {
    /// Which.
    pub nodes: Vec<NodeName>,
    /// When it begins, else at once.
    pub from: Option<Moment>,
    /// How long it takes.
    pub duration: Span,
    /// What still runs there then is stopped.
    #[serde(default)]
    pub stop_running: bool,
}

/// A job with a name of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitFile {
    /// Its name.
    pub name: String,
    /// Whose.
    pub project: ProjectPath,
    /// Nodes of the gang.
    #[serde(default = "one")]
    pub nodes: u32,
    /// GPUs of each.
    pub gpus: u32,
    /// How long its work takes.
    pub duration: Span,
    /// What else it asks for.
    #[serde(default)]
    pub job: JobTerms,
}

/// Quota files that are applied.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApplyFile {
    /// Which.
    pub quota: QuotaFiles,
    /// Jobs that run may be stopped because of them; else they are refused if any would be.
    pub allow_stop: bool,
    /// As the files are: without the batches accepted meanwhile, and without consent to put back what a command did.
    pub as_written: bool,
    /// They must be refused; in words that the refusal has.
    pub refused: Option<String>,
}

/// Quota files that are planned: whether they would be accepted, and what must be said of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanFile {
    /// Which.
    pub quota: QuotaFiles,
    /// They must be refused with faults that say all of this; without any of it they must be accepted and stop nobody.
    pub refused: Vec<String>,
}

/// A batch that is accepted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptFile {
    /// Of which lot.
    pub lot: LotName,
    /// Which of it, from 1.
    pub batch: usize,
}

/// What the counterfactual leaves out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareFile {
    /// Names of events.
    pub without: Vec<String>,
}

/// Something that must be so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectFile {
    /// In words, for the report.
    pub name: Option<String>,
    /// When it is looked at, after everything that happens at that moment; else at the end.
    pub at: Option<Moment>,
    /// What is looked at.
    pub value: Query,
    /// It is just this.
    pub equals: Option<Scalar>,
    /// It is no more.
    pub at_most: Option<i64>,
    /// It is no less.
    pub at_least: Option<i64>,
    /// It is no more than so many thousandths of the counterfactual's.
    pub at_most_counterfactual_milli: Option<i64>,
    /// It is the counterfactual's.
    #[serde(default)]
    pub equals_counterfactual: bool,
}

/// A number or a word.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A number.
    Number(i64),
    /// A word.
    Word(String),
}
