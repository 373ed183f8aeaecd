//! Why a job stands as it does, in words for a person.
//!
//! The reasons come from the planner's last report; this only adds what a report has not (held, running, not yet
//! looked at) and puts everything into sentences.

mod ahead;
mod arrays;
mod capacity;
pub(crate) mod deadline;
mod elastic;
mod maintenance;
mod planned;
mod power;
mod reservation;
pub mod starts;

use ahead::jobs_ahead;

use crate::amount::{GpuMilli, MemoryMib, Ngh, UnixMicros};
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::muster;
use crate::plan::{Blocker, BlockerKind, Report, Unit, spelled};
use crate::planner::budgets::OVERUSE;
use crate::planner::gang::FOR_IMAGES;
use crate::planner::limits::ANY_CLASS;
use crate::planner::order::RECALLED;
use crate::planner::standing::{GUARANTEED, SCAVENGER};
use crate::planner::terms;
use crate::quota::show_moment;
use crate::world::World;

pub(crate) use capacity::BEST;
use capacity::capacity;
pub(crate) use power::{CAPPED, PLANNED as PLANNED_POWER};

/// Why a job stands as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// How it stands.
    pub state: JobState,
    /// One sentence.
    pub summary: String,
    /// Worst first; empty if nothing blocks it or no pass has looked at it.
    pub blockers: Vec<Blocker>,
    /// Pending jobs of its project ahead of it that want the same class of GPU, or none as it does.
    pub jobs_ahead: u64,
    /// When the pass that found this ran; `None` if none has looked at the job yet.
    pub planned: Option<UnixMicros>,
}

/// Explains a job of `world` by the report of the last pass and the moment of that pass; `None` if the world has no
/// such job (it is terminal or never was).
#[must_use]
pub fn explain(
    world: &World,
    job: JobId,
    last: Option<&Report>,
    planned: Option<UnixMicros>,
) -> Option<Explanation> {
    if let Some(array) = world.arrays.get(&job) {
        return Some(arrays::explain(world, array, last, planned));
    }
    let job = world.job(job)?;
    let job: &Job = &job;
    let found = last.and_then(|report| arrays::found(world, report, job));
    Some(match job.status.state {
        JobState::Held => held(job),
        JobState::Pending => match found {
            Some(blockers) => {
                let mut blockers = blockers.to_vec();
                blockers.extend(last.and_then(|report| turn(report, job, &blockers)));
                note_recall(world, job, &mut blockers);
                blockers.extend(deadline::blocker(job));
                blockers.extend(elastic::blocker(job));
                pending(world, job, blockers, planned)
            }
            None => not_yet_planned(world, job, planned),
        },
        JobState::Starting => starting(world, job),
        JobState::Running => plain(job, running(world, job)),
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => {
            plain(job, with_detail(job.status.state.word(), job))
        }
    })
}

fn plain(job: &Job, summary: String) -> Explanation {
    let (blockers, jobs_ahead, planned) = (Vec::new(), 0, None);
    Explanation { state: job.status.state, summary, blockers, jobs_ahead, planned }
}

fn held(job: &Job) -> Explanation {
    let blocker = Blocker {
        kind: BlockerKind::Held,
        subject: job.id.to_string(),
        needed: 0,
        available: 0,
        limit: 0,
        unit: Unit::None,
        note: job.status.detail.clone(),
    };
    let summary = sentence(&blocker);
    Explanation { blockers: vec![blocker], ..plain(job, summary) }
}

/// Notes by when what others borrowed is promised back, if it is.
fn note_recall(world: &World, job: &Job, blockers: &mut [Blocker]) {
    let Some(promise) = world.quota.recall_of(job) else { return };
    for blocker in blockers.iter_mut().filter(|blocker| blocker.kind == BlockerKind::Recall) {
        blocker.note = show_moment(promise.by);
    }
}

/// Whom fair share puts before the job, if it waits for nothing but room.
fn turn(report: &Report, job: &Job, blockers: &[Blocker]) -> Option<Blocker> {
    let room = |blocker: &Blocker| match blocker.kind {
        BlockerKind::Capacity
        | BlockerKind::Power
        | BlockerKind::Order
        | BlockerKind::Tier
        | BlockerKind::Lent
        | BlockerKind::Reservation
        | BlockerKind::Maintenance
        | BlockerKind::Kept
        | BlockerKind::NodesUnavailable
        | BlockerKind::Planned => true,
        BlockerKind::Held
        | BlockerKind::Dependency
        | BlockerKind::AskedReservation
        | BlockerKind::ArrayLimit
        | BlockerKind::Deadline
        | BlockerKind::Elastic
        | BlockerKind::ProjectLimit
        | BlockerKind::ParentLimit
        | BlockerKind::Budget
        | BlockerKind::Term
        | BlockerKind::Constraints
        | BlockerKind::Recall
        | BlockerKind::RetryDelay
        | BlockerKind::FairShare => false,
    };
    let gpus = &job.spec.per_node.gpus;
    let waits_for_room = !gpus.amount().is_zero() && blockers.iter().all(room);
    let turn = || report.shares.turn(&job.spec.project, gpus.class());
    waits_for_room.then(turn).flatten()
}

fn pending(
    world: &World,
    job: &Job,
    blockers: Vec<Blocker>,
    planned: Option<UnixMicros>,
) -> Explanation {
    let summary = match blockers.as_slice() {
        [] => "could start in the next pass".to_owned(),
        [one] => sentence(one),
        [worst, rest @ ..] => format!("{}, and {} more reasons", sentence(worst), rest.len()),
    };
    let summary = summary.replace("and 1 more reasons", "and 1 more reason");
    Explanation {
        state: job.status.state,
        summary,
        blockers,
        jobs_ahead: jobs_ahead(world, job),
        planned,
    }
}

fn not_yet_planned(world: &World, job: &Job, planned: Option<UnixMicros>) -> Explanation {
    let count = muster::count(world);
    // Before the first pass of a scheduler its nodes come back.
    let summary = if planned.is_none() && count.heard < count.known {
        format!(
            "waits; this scheduler has just begun to lead and {} of {} nodes have reported so far",
            count.heard, count.known
        )
    } else {
        "waits; no planning pass has looked at it yet".to_owned()
    };
    Explanation { jobs_ahead: jobs_ahead(world, job), ..plain(job, summary) }
}

fn starting(world: &World, job: &Job) -> Explanation {
    let nodes = nodes_of(world, job);
    plain(job, format!("starts in attempt {} on {nodes}", job.status.attempt))
}

fn running(world: &World, job: &Job) -> String {
    format!("runs in attempt {} on {}", job.status.attempt, nodes_of(world, job))
}

fn nodes_of(world: &World, job: &Job) -> String {
    const NAMED_MAX: usize = 4;
    let id = crate::ids::AttemptId { job: job.id, number: job.status.attempt };
    let Some(attempt) = world.attempts.get(&id) else {
        return "its nodes".to_owned();
    };
    let nodes = &attempt.placement.nodes;
    spelled(nodes.iter().map(|allocation| allocation.node.as_str()), NAMED_MAX)
}

fn with_detail(word: &str, job: &Job) -> String {
    if job.status.detail.is_empty() {
        return word.to_owned();
    }
    format!("{word}: {}", job.status.detail)
}

/// The blocker as a sentence with its numbers, without a full stop.
#[must_use]
pub fn sentence(blocker: &Blocker) -> String {
    match blocker.kind {
        BlockerKind::Held if blocker.note.is_empty() => {
            "is held until somebody releases it".to_owned()
        }
        BlockerKind::Held => format!("is held until somebody releases it: {}", blocker.note),
        BlockerKind::Dependency => dependency(blocker),
        BlockerKind::ArrayLimit => arrays::limit(blocker),
        BlockerKind::Deadline => deadline::sentence(blocker),
        BlockerKind::Elastic => elastic::sentence(blocker),
        BlockerKind::ProjectLimit => limit("project", "", blocker),
        BlockerKind::ParentLimit => limit("all of", " together", blocker),
        BlockerKind::Budget => budget(blocker, &blocker.note),
        BlockerKind::Term => terms::sentence(blocker),
        BlockerKind::Kept => terms::kept_sentence(blocker),
        BlockerKind::Constraints => constraints(blocker),
        BlockerKind::NodesUnavailable => nodes_unavailable(blocker),
        BlockerKind::AskedReservation => reservation::asked(blocker),
        BlockerKind::Reservation => reservation::sentence(blocker),
        BlockerKind::Maintenance => maintenance::sentence(blocker),
        BlockerKind::Recall => recall(blocker),
        BlockerKind::Lent => lent(blocker),
        BlockerKind::Tier => tier(blocker),
        BlockerKind::FairShare => fair_share(blocker),
        BlockerKind::Capacity => capacity(blocker),
        BlockerKind::Power => power::sentence(blocker),
        BlockerKind::Order if blocker.note == RECALLED => format!(
            "job {} of the same project goes first, since others stop to give it what is guaranteed",
            blocker.subject
        ),
        BlockerKind::Order if blocker.note == OVERUSE => format!(
            "job {} goes first, since it is within its budget and wants the same GPUs",
            blocker.subject
        ),
        BlockerKind::Order => planned::behind(blocker),
        BlockerKind::Planned => planned::own(blocker),
        BlockerKind::RetryDelay => {
            format!("failed a moment ago and is tried again in {}", seconds(blocker.needed))
        }
    }
}

/// The note has the moment by which it is promised, if it is.
fn recall(blocker: &Blocker) -> String {
    let gpus = GpuMilli(blocker.needed);
    let by = match blocker.note.as_str() {
        "" => String::new(),
        moment => format!(", recalled by {moment}"),
    };
    format!(
        "waits until jobs that stop have freed the {gpus} {} it is guaranteed{by}",
        gpu_word(gpus)
    )
}

fn dependency(blocker: &Blocker) -> String {
    let (kind, state) = blocker.note.split_once(' ').unwrap_or((&blocker.note, ""));
    let event = match kind {
        "after" => "to start",
        "afterok" | "aftercorr" => "to complete",
        "afternotok" => "to fail",
        _ => "to end",
    };
    let state = if state.is_empty() { String::new() } else { format!(", which is {state}") };
    format!("waits for job {} {event}{state}", blocker.subject)
}

fn limit(who: &str, together: &str, blocker: &Blocker) -> String {
    let subject = &blocker.subject;
    if blocker.unit == Unit::None {
        return format!("{who} {subject} is {}", blocker.note);
    }
    let (class, over) = blocker.note.split_once(' ').unwrap_or((&blocker.note, ""));
    let class = if class == ANY_CLASS { String::new() } else { format!("{class} ") };
    let held = match over.strip_prefix("holding ") {
        Some(held) => held.to_owned(),
        None => GpuMilli(blocker.limit.saturating_sub(blocker.available)).to_string(),
    };
    let limit = GpuMilli(blocker.limit);
    let needed = GpuMilli(blocker.needed);
    let gpus = gpu_word(limit);
    if blocker.needed > blocker.limit {
        return format!(
            "{who} {subject} may hold {limit} {class}{gpus}{together}; this job alone needs {needed}"
        );
    }
    format!(
        "{who} {subject} may hold {limit} {class}{gpus}{together} and holds {held}; this job needs {needed} more"
    )
}

/// The note has the class, the project whose guarantee it is, and how many others borrow.
fn lent(blocker: &Blocker) -> String {
    let mut words = blocker.note.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (class, owner, others) = (word(), word(), word());
    let (holder, excess) = (&blocker.subject, GpuMilli(blocker.limit));
    let gpus = gpu_word(excess);
    let others = match others {
        "" | "0" => String::new(),
        "1" => ", and 1 other project borrows too".to_owned(),
        more => format!(", and {more} other projects borrow too"),
    };
    format!(
        "is within the guarantee of {owner}, which is lent out: {holder} holds {excess} {class} {gpus} beyond its own{others}"
    )
}

/// The note has what was used, set aside and carried, the cap, and the period.
fn budget(blocker: &Blocker, note: &str) -> String {
    let mut words = note.splitn(5, ' ');
    let mut amount =
        || Ngh::thousandths(words.next().and_then(|word| word.parse().ok()).unwrap_or(0));
    let [used, held, carried, cap] = [amount(), amount(), amount(), amount()];
    let period = words.next().unwrap_or_default();
    let [limit, needed] = [blocker.limit, blocker.needed].map(Ngh::thousandths);
    let own = limit - carried;
    let carried = match carried {
        Ngh::ZERO => String::new(),
        carried => format!(" and {carried} carried over"),
    };
    let most = if cap > limit { format!(", up to {cap} with overuse") } else { String::new() };
    format!(
        "budget of {} for {period}: {own} NGH{carried}{most}, {used} used, {held} held; this job needs {needed}",
        blocker.subject
    )
}

/// The note has the word of the tier and the class, or what is said of a budget.
fn tier(blocker: &Blocker) -> String {
    let Blocker { subject, limit, available, note, .. } = blocker;
    let (word, class) = note.split_once(' ').unwrap_or((note, ""));
    if word == SCAVENGER {
        return "is a scavenger: it starts where nobody else can, costs nothing, and stops for anybody"
            .to_owned();
    }
    if word == OVERUSE {
        return format!(
            "starts last, where nobody else wants the GPUs: {}",
            budget(blocker, class)
        );
    }
    let (limit, needed) = (GpuMilli(*limit), GpuMilli(blocker.needed));
    let held = limit.saturating_sub(GpuMilli(*available));
    let gpus = gpu_word(limit);
    match (word, limit.is_zero()) {
        (GUARANTEED, _) => format!(
            "is within the guarantee of {subject}, {limit} {class} {gpus}, and goes before jobs that borrow"
        ),
        (_, true) => format!(
            "borrows, since {subject} has no guarantee of {class} GPUs; jobs within a guarantee go first"
        ),
        (_, false) => format!(
            "borrows, since {subject} holds {held} of the {limit} {class} {gpus} guaranteed to it and this job needs \
             {needed}; jobs within a guarantee go first"
        ),
    }
}

/// The note has how many are before it.
fn fair_share(blocker: &Blocker) -> String {
    let Blocker { subject, available, limit, note, .. } = blocker;
    let goes = if note == "1" { "goes" } else { "go" };
    format!(
        "{note} of those beside {subject} that wait for the same {goes} first by fair share: {subject} has {} of the \
         shares there and {} of the use that counts",
        percent(*limit),
        percent(*available)
    )
}

fn percent(per_mille: u64) -> String {
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

fn constraints(blocker: &Blocker) -> String {
    let Blocker { needed, available, note, .. } = blocker;
    if *available == 0 {
        return format!("no node has {note}, in use or not");
    }
    format!("needs {} with {note}; there are only {available}", nodes_word(*needed))
}

fn nodes_unavailable(blocker: &Blocker) -> String {
    let free = match blocker.available {
        0 => "none is".to_owned(),
        1 => "1 is".to_owned(),
        more => format!("{more} are"),
    };
    let needed = nodes_word(blocker.needed);
    format!("needs {needed} and {free} free; would serve but take no work: {}", blocker.note)
}

pub(crate) fn gpu_word(gpus: GpuMilli) -> &'static str {
    if gpus == GpuMilli::WHOLE { "GPU" } else { "GPUs" }
}

fn nodes_word(nodes: u64) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

/// In GiB where that is exact.
pub(crate) fn memory_words(memory: MemoryMib) -> String {
    if memory.0 >= 1024 && memory.0.is_multiple_of(1024) {
        return format!("{} GiB", memory.0 / 1024);
    }
    memory.to_string()
}

/// Rounded up to whole seconds.
fn seconds(millis: u64) -> String {
    format!("{} s", millis.div_ceil(1000))
}

/// What would change it; empty if the caller can do nothing about it.
#[must_use]
pub fn hint(blocker: &Blocker) -> String {
    let subject = &blocker.subject;
    match blocker.kind {
        BlockerKind::Held => format!("gotgan release {subject}"),
        BlockerKind::Dependency => format!("gotgan why {subject}"),
        BlockerKind::ArrayLimit => "wait for the tasks that run".to_owned(),
        BlockerKind::ProjectLimit | BlockerKind::ParentLimit if blocker.needed > blocker.limit => {
            "ask for fewer GPUs, or ask the allocation office to raise the limit".to_owned()
        }
        BlockerKind::ProjectLimit => {
            "wait for the project's own jobs, cancel one, or ask the allocation office".to_owned()
        }
        BlockerKind::ParentLimit => {
            "wait for jobs of other projects below it, or ask the allocation office".to_owned()
        }
        BlockerKind::Budget if blocker.needed > blocker.limit => {
            "ask for fewer GPUs or a shorter time limit, or ask the allocation office for a larger budget"
                .to_owned()
        }
        BlockerKind::Budget => {
            "wait for the next period, ask for fewer GPUs or a shorter time limit, or ask the allocation office for a \
             supplement"
                .to_owned()
        }
        BlockerKind::Constraints if blocker.note.contains(FOR_IMAGES) => {
            "submit it without --image, or ask the operators for nodes that run images".to_owned()
        }
        BlockerKind::Constraints if blocker.note.contains(CAPPED) => {
            "ask for a higher --gpu-power or none, or ask the operators for nodes that cap GPUs"
                .to_owned()
        }
        BlockerKind::Constraints => {
            "cancel it and submit it with less on each node, fewer nodes or other constraints"
                .to_owned()
        }
        BlockerKind::NodesUnavailable => "ask the operators of the nodes named".to_owned(),
        BlockerKind::AskedReservation => reservation::asked_hint(blocker),
        BlockerKind::Reservation => reservation::shorter(blocker),
        BlockerKind::Maintenance => maintenance::shorter(blocker),
        BlockerKind::Capacity => match blocker.unit {
            Unit::CpuMilli | Unit::MemoryMib => "ask for less beside the GPUs".to_owned(),
            Unit::GpuMilli
            | Unit::Instances
            | Unit::NghMilli
            | Unit::Nodes
            | Unit::Job
            | Unit::Millis
            | Unit::PerMille
            | Unit::Watts
            | Unit::None => String::new(),
        },
        BlockerKind::Power => power::hint(blocker),
        BlockerKind::Term => terms::hint(blocker),
        BlockerKind::Recall
        | BlockerKind::Lent
        | BlockerKind::Kept
        | BlockerKind::RetryDelay
        | BlockerKind::Deadline
        | BlockerKind::Elastic
        | BlockerKind::Tier
        | BlockerKind::FairShare
        | BlockerKind::Planned => String::new(),
        BlockerKind::Order => planned::shorter(blocker),
    }
}
