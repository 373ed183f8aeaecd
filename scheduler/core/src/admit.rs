//! From what a client sends to a job that can be stored: checks everything, fills in every default.
//!
//! All faults are found at once, not the first alone. Who may submit for which project and with what priority, how
//! many jobs may wait, and whether the jobs named as dependencies exist is decided by the caller, who knows the
//! principal and the store; tasks of arrays that dependencies name are looked up with [`name_tasks`].

mod array;
mod depend;
mod elastic;
mod fault;
mod fleet;
mod near;
mod place;
mod power;
mod request;
mod resources;
mod terms;
mod together;
mod work;

use std::sync::Arc;

use crate::amount::UnixMicros;
use crate::ids::ProjectPath;
use crate::policy::Policy;
use crate::quota::QuotaTree;
use crate::spec::{Deadline, GpuRequest, JobSpec, NodeRequest, TaskLayout, WarningSignal, Work};

use fault::Findings;

pub use array::{index_ranges, read_array};
pub use depend::{arrays_named, name_tasks};
pub use fault::{Fault, FaultReason};
pub use fleet::{Fleet, NodeSize, Sizes};
pub use request::{
    CommandRequest, ConstraintsRequest, DependencyRequest, JobRequest, ResourcesRequest,
    ScriptRequest, WarningSignalRequest, WorkRequest,
};

/// Priorities, either way.
const PRIORITY_MAX: i64 = 1000;
/// Retries after failures of its own.
const RETRIES_MAX: i64 = 10;
/// Seconds between SIGTERM and SIGKILL.
const GRACE_MAX_S: i64 = 3600;
/// Seconds a warning may come ahead of the end.
const AHEAD_MAX_S: i64 = 86_400;
/// Classic signals; those above are real-time signals, which shells do not name alike.
const SIGNAL_MAX: i32 = 31;
/// SIGKILL and SIGSTOP: no process can take them as a warning.
const SIGNALS_NOT_CAUGHT: [i32; 2] = [9, 19];

/// What a request is checked against.
#[derive(Debug, Clone)]
pub struct AdmitContext {
    /// The quota tree in force.
    pub quota: Arc<QuotaTree>,
    /// What the machine has.
    pub fleet: Arc<Fleet>,
    /// Limits and defaults of the site.
    pub policy: Arc<Policy>,
}

/// A request that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What is stored.
    pub spec: JobSpec,
    /// What was understood but deserves a look.
    pub warnings: Vec<String>,
}

/// Checks a request and fills in its defaults.
///
/// # Errors
/// Every [`Fault`] of the request.
pub fn admit(request: JobRequest, context: &AdmitContext) -> Result<Admitted, Vec<Fault>> {
    let mut findings = Findings::default();
    work::surroundings(&request, &mut findings);
    let project = place::project(&request.project, &context.quota, &mut findings);
    let (nodes, per_node) = resources::resources(&request.resources, context, &mut findings);
    let work = work::work(request.work, &mut findings);
    let image = place::image(&request.image, &context.fleet, &mut findings);
    let gang = (nodes, image.is_some());
    let constraints = place::constraints(request.constraints, gang, &context.fleet, &mut findings);
    let gang = (nodes, &per_node);
    let nodes_max =
        elastic::nodes_max(&request.resources, gang, &constraints, context, &mut findings);
    let time_limit_s = time_limit_s(request.time_limit_s, project.as_ref(), context, &mut findings);
    if let Some(project) = &project {
        terms::judge_walltime(project, time_limit_s, &context.quota, &mut findings);
        terms::judge_gang(project, nodes, &per_node, context, &mut findings);
    }
    numbers(request.priority, request.max_retries, request.grace_s, &mut findings);
    layout_fits(&work, &per_node, &mut findings);
    if request.scavenger && per_node.gpus == GpuRequest::None {
        let text = "takes GPUs that nobody else wants; ask for some, or leave it out";
        findings.fault("scavenger", FaultReason::Conflict, text.to_owned());
    }
    let deadlines = (request.deadline_us, request.deadline_in_s);
    let deadline = deadline(deadlines, time_limit_s, &mut findings);
    let tasks_max = context.policy.max_array_tasks;
    let array = array::array(&request.array, request.array_limit, tasks_max, &mut findings);
    let name = work::name(&request.name, &work, &mut findings);
    let dependencies = depend::dependencies(&request.dependencies, array.is_some(), &mut findings);
    let warning_signal = request
        .warning_signal
        .map(|signal| warning_signal(signal, &work, time_limit_s, &mut findings));
    // The project is missing only with a fault noted; both are asked so that neither can be forgotten.
    let (Some(project), true) = (project, findings.faults.is_empty()) else {
        return Err(findings.faults);
    };
    let spec = JobSpec {
        name,
        project,
        work,
        nodes,
        nodes_max,
        per_node,
        constraints,
        time_limit_s,
        priority: request.priority,
        dependencies,
        warning_signal,
        requeue: request.requeue.unwrap_or(true),
        max_retries: request.max_retries,
        environment: request.environment,
        working_directory: request.working_directory,
        output_path: request.output_path,
        error_path: request.error_path,
        hold: request.hold,
        comment: request.comment,
        grace_s: request.grace_s.unwrap_or(context.policy.default_grace_s),
        scavenger: request.scavenger,
        array,
        singleton: request.singleton,
        deadline,
        image,
    };
    warn_of_limits(&spec, &context.quota, &mut findings);
    Ok(Admitted { spec, warnings: findings.warnings })
}

/// The default is no longer than what the project's jobs may take.
fn time_limit_s(
    asked: i64,
    project: Option<&ProjectPath>,
    context: &AdmitContext,
    findings: &mut Findings,
) -> i64 {
    let most = context.policy.max_time_limit_s;
    if asked == 0 {
        let walltime = project.and_then(|project| terms::walltime(project, &context.quota));
        let default_s = context.policy.default_time_limit_s.min(most);
        return walltime.map_or(default_s, |(_, seconds)| default_s.min(seconds));
    }
    findings.require_range("time_limit_s", asked, 1, most, "seconds");
    asked
}

/// Whether a moment can still be kept is seen when the job is stored, which knows the time.
fn deadline(
    (moment, seconds): (i64, i64),
    time_limit_s: i64,
    findings: &mut Findings,
) -> Option<Deadline> {
    if moment != 0 && seconds != 0 {
        let text = "is given beside spec.deadline_us; keep one";
        findings.fault("deadline_in_s", FaultReason::Conflict, text);
    }
    if seconds != 0 && seconds < time_limit_s {
        let message =
            format!("is {seconds} s, less than the time limit of {time_limit_s} s; give more time");
        findings.fault("deadline_in_s", FaultReason::OutOfRange, message);
    }
    match (moment, seconds) {
        (0, 0) => None,
        (0, seconds) => Some(Deadline::WithinS(seconds)),
        (moment, _) => Some(Deadline::At(UnixMicros(moment))),
    }
}

fn numbers(priority: i32, max_retries: u32, grace_s: Option<u32>, findings: &mut Findings) {
    findings.require_range("priority", priority.into(), -PRIORITY_MAX, PRIORITY_MAX, "");
    findings.require_range("max_retries", max_retries.into(), 0, RETRIES_MAX, "retries");
    let grace_s = grace_s.map_or(0, i64::from);
    findings.require_range("grace_s", grace_s, 0, GRACE_MAX_S, "seconds");
}

fn layout_fits(work: &Work, per_node: &NodeRequest, findings: &mut Findings) {
    let per_gpu = matches!(work, Work::Command { layout: TaskLayout::PerGpu, .. });
    let whole = matches!(per_node.gpus, GpuRequest::Whole { .. } | GpuRequest::Mig { .. });
    if per_gpu && !whole {
        let message =
            "one task a GPU needs whole GPUs; add resources.gpus_per_node or use one task a node";
        findings.fault("command.layout", FaultReason::Conflict, message);
    }
}

fn warning_signal(
    asked: WarningSignalRequest,
    work: &Work,
    time_limit_s: i64,
    findings: &mut Findings,
) -> WarningSignal {
    let WarningSignalRequest { signal, ahead_s, batch_only } = asked;
    if !(1..=SIGNAL_MAX).contains(&signal) || SIGNALS_NOT_CAUGHT.contains(&signal) {
        let message = format!(
            "is {signal}; give a signal number of 1 to {SIGNAL_MAX}, not 9 or 19, as 10 for USR1"
        );
        findings.fault("warning_signal.signal", FaultReason::OutOfRange, message);
    }
    findings.require_range("warning_signal.ahead_s", ahead_s.into(), 1, AHEAD_MAX_S, "seconds");
    if batch_only && matches!(work, Work::Command { .. }) {
        let message = "is for scripts and the job is a command; leave it out";
        findings.fault("warning_signal.batch_only", FaultReason::Conflict, message);
    }
    if i64::from(ahead_s) >= time_limit_s {
        findings.warn(format!(
            "the warning signal comes {ahead_s} s before a time limit of {time_limit_s} s: at once"
        ));
    }
    WarningSignal { signal, ahead_s, batch_only }
}

/// A limit may be raised while the job waits, so this is no fault.
fn warn_of_limits(spec: &JobSpec, quota: &QuotaTree, findings: &mut Findings) {
    let total = spec.total_gpus();
    let class = spec.per_node.gpus.class();
    for path in spec.project.self_and_ancestors() {
        let Some(node) = quota.nodes.get(path) else {
            continue;
        };
        let of_class = class.and_then(|class| Some((class.as_str(), *node.limits.get(class)?)));
        let of_any = node.any_limit.map(|limit| ("all", limit));
        for (word, limit) in of_class.into_iter().chain(of_any) {
            if total > limit {
                findings.warn(format!(
                    "{path} may hold {limit} {word} GPUs and the job needs {total}: it waits until the \
                     limit is raised"
                ));
            }
        }
    }
}
