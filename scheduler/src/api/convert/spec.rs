//! Job specifications.

use std::collections::BTreeMap;

use gotgan_core::admit::{
    CommandRequest, ConstraintsRequest, DependencyRequest, JobRequest, ResourcesRequest,
    ScriptRequest, WarningSignalRequest, WorkRequest,
};
use gotgan_core::spec::{
    Constraints, Deadline, Dependency, DependencyKind, GpuRequest, JobSpec, TaskLayout,
    WarningSignal, Work,
};
use gotgan_core::topology::{BlockTerms, Level};
use gotgan_proto::v1;

/// A request as it came, nothing checked.
#[must_use]
pub fn job_request(spec: v1::JobSpec) -> JobRequest {
    JobRequest {
        name: spec.name,
        project: spec.project,
        work: spec.work.map(work_request),
        resources: spec.resources.map(resources_request).unwrap_or_default(),
        constraints: spec.constraints.map(constraints_request).unwrap_or_default(),
        time_limit_s: spec.time_limit_s,
        priority: spec.priority,
        dependencies: spec.dependencies.into_iter().map(dependency_request).collect(),
        warning_signal: spec.warning_signal.map(|signal| WarningSignalRequest {
            signal: signal.signal,
            ahead_s: signal.ahead_s,
            batch_only: signal.batch_only,
        }),
        requeue: spec.requeue,
        max_retries: spec.max_retries,
        environment: spec.environment.into_iter().collect(),
        working_directory: spec.working_directory,
        output_path: spec.output_path,
        error_path: spec.error_path,
        hold: spec.hold,
        comment: spec.comment,
        grace_s: spec.grace_s,
        scavenger: spec.scavenger,
        array: spec.array,
        array_limit: spec.array_limit,
        singleton: spec.singleton,
        deadline_us: spec.deadline_us,
        deadline_in_s: spec.deadline_in_s,
        image: spec.image,
    }
}

fn work_request(work: v1::job_spec::Work) -> WorkRequest {
    match work {
        v1::job_spec::Work::Script(script) => {
            WorkRequest::Script(ScriptRequest { text: script.text, arguments: script.arguments })
        }
        v1::job_spec::Work::Command(command) => {
            let layout = match command.layout() {
                v1::TaskLayout::Unspecified | v1::TaskLayout::PerNode => TaskLayout::PerNode,
                v1::TaskLayout::PerGpu => TaskLayout::PerGpu,
            };
            let known = v1::TaskLayout::try_from(command.layout).is_ok();
            WorkRequest::Command(CommandRequest {
                argv: command.argv,
                layout: known.then_some(layout),
            })
        }
    }
}

fn resources_request(resources: v1::Resources) -> ResourcesRequest {
    ResourcesRequest {
        nodes: resources.nodes,
        nodes_max: resources.nodes_max,
        gpus_per_node: resources.gpus_per_node,
        gpus_total: resources.gpus_total,
        gpu_share_milli: resources.gpu_share_milli,
        mig_profile: resources.mig_profile,
        gpu_class: resources.gpu_class,
        cpu_milli_per_node: resources.cpu_milli_per_node,
        memory_mib_per_node: resources.memory_mib_per_node,
        gpu_cap_watts: resources.gpu_cap_watts,
        gpu_power_mode: resources.gpu_power_mode,
    }
}

fn constraints_request(constraints: v1::Constraints) -> ConstraintsRequest {
    ConstraintsRequest {
        nodes: constraints.nodes,
        exclude_nodes: constraints.exclude_nodes,
        labels: constraints.labels.into_iter().collect(),
        same_cluster: constraints.same_cluster,
        one: constraints.one,
        prefer: constraints.prefer,
        segment_nodes: constraints.segment_nodes,
        segment_level: constraints.segment_level,
        reservation: constraints.reservation,
    }
}

fn dependency_request(dependency: v1::Dependency) -> DependencyRequest {
    let kind = match dependency.kind() {
        v1::DependencyKind::Unspecified => None,
        v1::DependencyKind::After => Some(DependencyKind::After),
        v1::DependencyKind::AfterOk => Some(DependencyKind::AfterOk),
        v1::DependencyKind::AfterNotOk => Some(DependencyKind::AfterNotOk),
        v1::DependencyKind::AfterAny => Some(DependencyKind::AfterAny),
        v1::DependencyKind::AfterCorr => Some(DependencyKind::AfterCorr),
    };
    DependencyRequest { kind, job_id: dependency.job_id, task_index: dependency.task_index }
}

/// An admitted specification as the API's.
#[must_use]
pub fn job_spec(spec: &JobSpec) -> v1::JobSpec {
    let mut whole = job_spec_brief(spec);
    whole.environment = spec.environment.clone().into_iter().collect();
    if let Work::Script { text, arguments } = &spec.work {
        whole.work = Some(script(text, arguments));
    }
    whole
}

/// The same without what listings leave out: texts of scripts and environments, which may be long and are not read there.
#[must_use]
pub fn job_spec_brief(spec: &JobSpec) -> v1::JobSpec {
    v1::JobSpec {
        name: spec.name.clone(),
        project: spec.project.to_string(),
        work: Some(match &spec.work {
            Work::Script { arguments, .. } => script("", arguments),
            Work::Command { argv, layout } => command(argv, *layout),
        }),
        resources: Some(resources(spec)),
        constraints: Some(constraints(&spec.constraints)),
        time_limit_s: spec.time_limit_s,
        priority: spec.priority,
        dependencies: spec.dependencies.iter().map(dependency).collect(),
        warning_signal: spec.warning_signal.map(warning_signal),
        requeue: Some(spec.requeue),
        max_retries: spec.max_retries,
        environment: BTreeMap::new(),
        working_directory: spec.working_directory.clone(),
        output_path: spec.output_path.clone(),
        error_path: spec.error_path.clone(),
        hold: spec.hold,
        comment: spec.comment.clone(),
        grace_s: Some(spec.grace_s),
        scavenger: spec.scavenger,
        array: spec.array.as_ref().map(ToString::to_string).unwrap_or_default(),
        array_limit: spec.array.as_ref().and_then(|array| array.at_once).unwrap_or_default(),
        singleton: spec.singleton,
        deadline_us: match spec.deadline {
            Some(Deadline::At(moment)) => moment.0,
            Some(Deadline::WithinS(_)) | None => 0,
        },
        deadline_in_s: match spec.deadline {
            Some(Deadline::WithinS(seconds)) => seconds,
            Some(Deadline::At(_)) | None => 0,
        },
        image: spec.image.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn constraints(constraints: &Constraints) -> v1::Constraints {
    let BlockTerms { one, prefer, segment } = constraints.blocks;
    let word =
        |level: Option<Level>| level.map_or_else(String::new, |level| level.word().to_owned());
    v1::Constraints {
        nodes: constraints.nodes.iter().map(ToString::to_string).collect(),
        exclude_nodes: constraints.exclude_nodes.iter().map(ToString::to_string).collect(),
        labels: constraints.labels.clone().into_iter().collect(),
        same_cluster: one == Some(Level::Cluster),
        one: word(one),
        prefer: word(prefer),
        segment_nodes: segment.map_or(0, |segment| segment.nodes),
        segment_level: word(segment.map(|segment| segment.level)),
        reservation: constraints.reservation.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn script(text: &str, arguments: &[String]) -> v1::job_spec::Work {
    let (text, arguments) = (text.to_owned(), arguments.to_vec());
    v1::job_spec::Work::Script(v1::Script { text, arguments })
}

fn command(argv: &[String], layout: TaskLayout) -> v1::job_spec::Work {
    let layout = match layout {
        TaskLayout::PerNode => v1::TaskLayout::PerNode,
        TaskLayout::PerGpu => v1::TaskLayout::PerGpu,
    };
    v1::job_spec::Work::Command(v1::Command { argv: argv.to_vec(), layout: layout.into() })
}

fn resources(spec: &JobSpec) -> v1::Resources {
    let (gpus_per_node, gpu_share_milli) = match &spec.per_node.gpus {
        GpuRequest::None => (0, 0),
        GpuRequest::Whole { count, .. } => (*count, 0),
        GpuRequest::Share { milli, .. } => (0, *milli),
        GpuRequest::Mig { count, .. } => (*count, 0),
    };
    let kind = spec.per_node.gpus.kind();
    v1::Resources {
        nodes: spec.nodes,
        gpus_per_node,
        gpus_total: 0,
        gpu_share_milli,
        gpu_class: spec.per_node.gpus.class().map(ToString::to_string).unwrap_or_default(),
        cpu_milli_per_node: spec.per_node.cpu_milli.0,
        memory_mib_per_node: spec.per_node.memory_mib.0,
        nodes_max: spec.nodes_max.unwrap_or_default(),
        gpu_cap_watts: spec.per_node.gpu_cap_watts.unwrap_or_default(),
        gpu_power_mode: String::new(),
        mig_profile: kind.map(|kind| kind.profile.to_string()).unwrap_or_default(),
    }
}

fn dependency(dependency: &Dependency) -> v1::Dependency {
    let kind = match dependency.kind {
        DependencyKind::After => v1::DependencyKind::After,
        DependencyKind::AfterOk => v1::DependencyKind::AfterOk,
        DependencyKind::AfterNotOk => v1::DependencyKind::AfterNotOk,
        DependencyKind::AfterAny => v1::DependencyKind::AfterAny,
        DependencyKind::AfterCorr => v1::DependencyKind::AfterCorr,
    };
    // A task as it was named, so that it is told from a job.
    let job = dependency.task.map_or(dependency.job, |task| task.array);
    let task_index = dependency.task.map(|task| task.index);
    v1::Dependency { kind: kind.into(), job_id: job.0, task_index }
}

fn warning_signal(signal: WarningSignal) -> v1::WarningSignal {
    v1::WarningSignal {
        signal: signal.signal,
        ahead_s: signal.ahead_s,
        batch_only: signal.batch_only,
    }
}
