//! What is told of a job that a term of the quota tree beside limits and budgets keeps waiting, and how it is said.

use super::ceiling::Ceiling;
use crate::amount::GpuMilli;
use crate::explain::gpu_word;
use crate::ids::GpuClass;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::quota::duration;

/// What a blocker calls the most that a node may borrow.
const BORROW: &str = "borrow.max";
/// What a blocker calls the most GPUs of one job.
const GANG: &str = "max_gang";
/// What a blocker calls the most jobs at once.
const JOBS: &str = "max_jobs";
/// What a blocker calls the longest time limit.
const WALLTIME: &str = "max_walltime";

/// The note has the class, what is left of the guarantee, and what is held.
pub(super) fn borrow_blocker(
    path: &str,
    class: &GpuClass,
    gpus: GpuMilli,
    held: GpuMilli,
    ceiling: Ceiling,
) -> Blocker {
    Blocker {
        kind: BlockerKind::Term,
        subject: path.to_owned(),
        needed: gpus.0,
        available: ceiling.most().saturating_sub(held).0,
        limit: ceiling.borrow.0,
        unit: Unit::GpuMilli,
        note: format!("{BORROW} {class} {} {held}", ceiling.guarantee),
    }
}

/// The note has the class.
pub(super) fn gang_blocker(
    path: &str,
    class: &GpuClass,
    gpus: GpuMilli,
    most: GpuMilli,
) -> Blocker {
    Blocker {
        kind: BlockerKind::Term,
        subject: path.to_owned(),
        needed: gpus.0,
        available: most.0,
        limit: most.0,
        unit: Unit::GpuMilli,
        note: format!("{GANG} {class}"),
    }
}

pub(super) fn jobs_blocker(path: &str, jobs: u64, most: u64) -> Blocker {
    Blocker {
        kind: BlockerKind::Term,
        subject: path.to_owned(),
        needed: 1,
        available: most.saturating_sub(jobs),
        limit: most,
        unit: Unit::Job,
        note: format!("{JOBS} {jobs}"),
    }
}

/// In milliseconds.
pub(super) fn walltime_blocker(path: &str, seconds: i64, most: i64) -> Blocker {
    let millis = |seconds: i64| seconds.unsigned_abs().saturating_mul(1000);
    Blocker {
        kind: BlockerKind::Term,
        subject: path.to_owned(),
        needed: millis(seconds),
        available: millis(most),
        limit: millis(most),
        unit: Unit::Millis,
        note: WALLTIME.to_owned(),
    }
}

/// A term that binds, in words.
pub(crate) fn sentence(blocker: &Blocker) -> String {
    let Blocker { subject, needed, limit, note, .. } = blocker;
    let mut words = note.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (term, class) = (word(), word());
    let (most, gpus) = (GpuMilli(*limit), GpuMilli(*needed));
    match term {
        BORROW => format!(
            "{subject} may hold {most} {class} {} beyond its guarantee of {} and holds {}; this job needs {gpus} more",
            gpu_word(most),
            word(),
            word()
        ),
        GANG => format!(
            "a job of {subject} may have {most} {class} {}; this one needs {gpus}",
            gpu_word(most)
        ),
        JOBS => format!("{limit} jobs of {subject} may run at once and {class} do"),
        _ => {
            let time =
                |millis: u64| duration::show(i64::try_from(millis / 1000).unwrap_or(i64::MAX));
            format!(
                "a job of {subject} may take {}; this one may take {}",
                time(*limit),
                time(*needed)
            )
        }
    }
}

/// What would change it.
pub(crate) fn hint(blocker: &Blocker) -> String {
    let term = blocker.note.split(' ').next().unwrap_or_default();
    match term {
        GANG => "cancel it and submit it with fewer GPUs, or ask the allocation office",
        WALLTIME => {
            "cancel it and submit it with a shorter time limit, or ask the allocation office"
        }
        _ => "wait for the project's own jobs, cancel one, or ask the allocation office",
    }
    .to_owned()
}

/// The note has the class and how many others keep.
pub(crate) fn kept_sentence(blocker: &Blocker) -> String {
    let Blocker { subject, needed, available, limit, note, .. } = blocker;
    let (class, others) = note.split_once(' ').unwrap_or((note, "0"));
    let others = match others {
        "0" => String::new(),
        "1" => " and 1 other node".to_owned(),
        more => format!(" and {more} other nodes"),
    };
    let (needed, free, kept) = (GpuMilli(*needed), GpuMilli(*available), GpuMilli(*limit));
    format!(
        "needs {needed} {class} {} beyond its guarantee; of those free {kept} are kept by {subject}{others} for their own, \
         which leaves {free}",
        gpu_word(needed)
    )
}
