//! Jobs that a job waits for. Tasks of arrays are named by their index and found once the array is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fault::{Fault, FaultReason, Findings};
use super::request::DependencyRequest;
use crate::array::{self, ArraySpec, TaskSet};
use crate::ids::JobId;
use crate::spec::{Dependency, DependencyKind, JobSpec, TaskName};

/// Jobs one job may wait for.
const DEPENDENCIES_MAX: usize = 64;

/// The dependencies asked for, each once.
pub(super) fn dependencies(
    asked: &[DependencyRequest],
    is_array: bool,
    findings: &mut Findings,
) -> Vec<Dependency> {
    findings.require_at_most("dependencies", asked.len(), DEPENDENCIES_MAX, "jobs");
    let mut seen = BTreeSet::new();
    let mut dependencies = Vec::new();
    for (index, one) in asked.iter().take(DEPENDENCIES_MAX).enumerate() {
        let field = format!("dependencies[{index}]");
        if one.job_id == 0 {
            let message = "names no job; give the number that submit answered";
            findings.fault(&format!("{field}.job_id"), FaultReason::Missing, message);
        }
        let Some(kind) = one.kind else {
            let message = "names no kind; use after, afterok, afternotok, afterany or aftercorr";
            findings.fault(&format!("{field}.kind"), FaultReason::Missing, message);
            continue;
        };
        let job = JobId(one.job_id);
        let task = one.task_index.map(|index| TaskName { array: job, index });
        if seen.insert((job, task, kind.word())) {
            dependencies.push(Dependency { kind, job, task });
        }
    }
    judge_corresponding(&dependencies, is_array, findings);
    for one in dependencies.iter().filter(|one| one.kind == DependencyKind::AfterOk) {
        if seen.contains(&(one.job, one.task, DependencyKind::AfterNotOk.word())) {
            let named = one.named();
            let message = format!("waits for job {named} both to succeed and to fail; keep one");
            findings.fault("dependencies", FaultReason::Conflict, message);
        }
    }
    dependencies
}

/// Tasks wait one by one for those of one whole array.
fn judge_corresponding(dependencies: &[Dependency], is_array: bool, findings: &mut Findings) {
    let corresponding = dependencies.iter().filter(|one| one.kind == DependencyKind::AfterCorr);
    let of: Vec<&Dependency> = corresponding.collect();
    let (Some(first), conflict) = (of.first(), FaultReason::Conflict) else { return };
    if !is_array {
        let message = "has aftercorr, by which the tasks of an array wait, and the job is none; use afterok, \
                       or give spec.array";
        findings.fault("dependencies", conflict, message);
    }
    if of.len() > 1 {
        findings.fault("dependencies", conflict, "has aftercorr more than once; name one array");
    }
    if let Some(task) = first.task {
        let message = format!("aftercorr:{task} names one task; name the array, {}", task.array);
        findings.fault("dependencies", conflict, message);
    }
}

/// Arrays whose tasks must be known before the job can be stored: those of which dependencies name single tasks, and one
/// that it waits for task by task.
#[must_use]
pub fn arrays_named(spec: &JobSpec) -> BTreeSet<JobId> {
    let named = |one: &Dependency| match one.kind {
        DependencyKind::AfterCorr => Some(one.job),
        DependencyKind::After
        | DependencyKind::AfterOk
        | DependencyKind::AfterNotOk
        | DependencyKind::AfterAny => Some(one.task?.array),
    };
    spec.dependencies.iter().filter_map(named).collect()
}

/// Finds the job numbers of the tasks that dependencies name, and sees that an array which waits for another task by task
/// has the same indexes; `known` has the specifications of those [`arrays_named`] that there are. What waits for a job
/// that is not known is left as it is.
///
/// # Errors
/// A [`Fault`] for every dependency on a task that its job has not.
pub fn name_tasks(
    spec: &mut JobSpec,
    known: &BTreeMap<JobId, Arc<JobSpec>>,
) -> Result<(), Vec<Fault>> {
    let mut findings = Findings::default();
    let own = spec.array.as_ref().map(all_indexes).unwrap_or_default();
    for one in &mut spec.dependencies {
        let other = known.get(&one.job).filter(|_| one.kind == DependencyKind::AfterCorr);
        if let Some(why) = other.and_then(|other| differs(&own, one.job, other.array.as_ref())) {
            let message = format!("{}:{}: {why}", one.kind.word(), one.job);
            findings.fault("dependencies", FaultReason::Conflict, message);
        }
        let Some((task, of)) = one.task.and_then(|task| Some((task, known.get(&task.array)?)))
        else {
            continue;
        };
        match number_of(task, of.array.as_ref()) {
            Ok(number) => one.job = number,
            Err(why) => {
                let message = format!("{}:{task}: {why}", one.kind.word());
                findings.fault("dependencies", FaultReason::UnknownTask, message);
            }
        }
    }
    if findings.faults.is_empty() { Ok(()) } else { Err(findings.faults) }
}

fn all_indexes(array: &ArraySpec) -> String {
    array.show(&TaskSet::all(array.len()))
}

/// Why tasks with these indexes cannot wait for those of that job one by one.
fn differs(own: &str, job: JobId, other: Option<&ArraySpec>) -> Option<String> {
    let Some(other) = other.map(all_indexes) else {
        return Some(format!("job {job} is no array; use afterok"));
    };
    let text =
        format!("array {job} has the tasks {other} and this one {own}; both must have the same");
    (own != other).then_some(text)
}

fn number_of(task: TaskName, of: Option<&ArraySpec>) -> Result<JobId, String> {
    let TaskName { array, index } = task;
    let Some(of) = of else {
        return Err(format!("job {array} is no array; wait for the job itself, {array}"));
    };
    let place = of.place_of(index).ok_or_else(|| {
        let indexes = all_indexes(of);
        format!(
            "array {array} has the tasks {indexes}; name one of them, or all of them by {array}"
        )
    })?;
    Ok(array::task_id(array, place))
}
