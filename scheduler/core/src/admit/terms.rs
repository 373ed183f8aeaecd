//! What nodes of the quota tree say of a job whatever else runs: how large and how long it may be. It would never start,
//! so it is refused.

use super::AdmitContext;
use super::fault::{FaultReason, Findings};
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};
use crate::quota::{QuotaTree, duration};
use crate::spec::NodeRequest;

/// The shortest time that a job of the project may be limited to, seconds, with the nearest node that says so.
pub(super) fn walltime<'a>(project: &'a ProjectPath, quota: &QuotaTree) -> Option<(&'a str, i64)> {
    let said = project
        .self_and_ancestors()
        .filter_map(|path| Some((path, quota.nodes.get(path)?.bounds.max_walltime_s?)));
    said.min_by_key(|(_, seconds)| *seconds)
}

/// A fault if the project may not have jobs that take so long.
pub(super) fn judge_walltime(
    project: &ProjectPath,
    time_limit_s: i64,
    quota: &QuotaTree,
    findings: &mut Findings,
) {
    let Some((path, most)) = walltime(project, quota).filter(|(_, most)| time_limit_s > *most)
    else {
        return;
    };
    let message = format!(
        "is {}, and max_walltime of {path} is {}; ask for less",
        duration::show(time_limit_s),
        duration::show(most)
    );
    findings.fault("time_limit_s", FaultReason::BeyondTerm, message);
}

/// A fault if the project may not have jobs with so many GPUs, of any class that would serve.
pub(super) fn judge_gang(
    project: &ProjectPath,
    nodes: u32,
    per_node: &NodeRequest,
    context: &AdmitContext,
    findings: &mut Findings,
) {
    let gpus = per_node.gpus.amount().times(nodes.into());
    let classes: Vec<&GpuClass> = match per_node.gpus.class() {
        Some(class) => vec![class],
        None => context.fleet.classes().map(|(class, _)| class).collect(),
    };
    let passed = classes.into_iter().map(|class| {
        let (path, most) = gang(project, class, &context.quota)?;
        (gpus > most).then_some((path, class, most))
    });
    // Of the classes that would serve, the one with the most room is told of.
    let passed: Option<Vec<_>> = passed.collect();
    if let Some((path, class, most)) =
        passed.and_then(|passed| passed.into_iter().max_by_key(|(_, _, most)| *most))
    {
        let message =
            format!("ask for {gpus} {class} GPUs, and max_gang of {path} is {most}; ask for fewer");
        findings.fault("resources", FaultReason::BeyondTerm, message);
    }
}

fn gang<'a>(
    project: &'a ProjectPath,
    class: &GpuClass,
    quota: &QuotaTree,
) -> Option<(&'a str, GpuMilli)> {
    let said = project.self_and_ancestors().filter_map(|path| {
        let most = quota.nodes.get(path)?.bounds.max_gang.as_ref()?.of(class)?;
        Some((path, most))
    });
    said.min_by_key(|(_, most)| *most)
}
