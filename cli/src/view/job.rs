//! Jobs, attempts, steps and tasks.

use std::collections::BTreeMap;

use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    output::{table::Tone, time},
    units,
    view::{
        amount, blocks::BlockTermsView, dependency::DependencyView, measured::MeasuredView,
        starts::StartView, step::StepView, word,
    },
};

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExitView {
    /// Absent where a signal ended it.
    pub code: Option<i32>,
    /// Absent where it exited by itself.
    pub signal: Option<i32>,
}

impl ExitView {
    /// As the API has it; none where it has none.
    #[must_use]
    pub fn of(exit: Option<&v1::ExitStatus>) -> Option<Self> {
        exit.map(|exit| match exit.signal {
            0 => Self { code: Some(exit.code), signal: None },
            signal => Self { code: None, signal: Some(signal) },
        })
    }

    /// As in "exit 1" or "SIGKILL".
    #[must_use]
    pub fn text(&self) -> String {
        match (self.signal, self.code) {
            (Some(signal), _) => units::signal_name(signal),
            (None, code) => format!("exit {}", code.unwrap_or_default()),
        }
    }

    /// As a shell has it: the code, or 128 and the signal.
    #[must_use]
    pub fn shell_code(&self) -> u8 {
        match (self.signal, self.code) {
            (Some(signal), _) => u8::try_from(128 + signal).unwrap_or(255),
            (None, code) => u8::try_from(code.unwrap_or_default()).unwrap_or(255),
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResourcesView {
    pub nodes: u32,
    /// Of an elastic job the most; `nodes` are the fewest then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_max: Option<u32>,
    pub gpus_per_node: u32,
    pub gpus_total: u32,
    pub gpu_share_milli: u32,
    /// Profile of the MIG instances that the numbers of GPUs count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
    pub gpu_class: Option<String>,
    pub cpu_milli_per_node: u64,
    pub memory_mib_per_node: u64,
    /// What it asks its GPUs to be capped at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_cap_watts: Option<u32>,
}

/// A job as listings have it.
#[derive(Clone, Debug, Serialize)]
pub struct JobView {
    pub job_id: u64,
    pub name: String,
    pub project: String,
    pub owner: String,
    pub state: String,
    pub detail: String,
    pub work: &'static str,
    pub argv: Vec<String>,
    pub resources: ResourcesView,
    pub time_limit_s: i64,
    pub priority: i32,
    pub comment: String,
    /// Path of the image that it runs in; empty: none.
    pub image: String,
    pub dependencies: Vec<DependencyView>,
    pub attempt: u32,
    pub nodes: Vec<String>,
    pub simulated: bool,
    pub cause: Option<String>,
    pub exit: Option<ExitView>,
    pub submitted_us: Option<i64>,
    pub submitted: Option<String>,
    pub queued_us: Option<i64>,
    pub queued: Option<String>,
    pub started_us: Option<i64>,
    pub started: Option<String>,
    pub ended_us: Option<i64>,
    pub ended: Option<String>,
    pub paid_gpu_milli_seconds: i64,
    pub blocks: BlockTermsView,
    /// The reservation whose nodes alone it may have.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reservation: String,
    /// Until when it may start, of a job with a deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_by_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<StartView>,
    /// Of an array: its indexes as asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Of an array: how its tasks stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array_tasks: Option<ArrayTasksView>,
    /// The array that it is a task of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array_job_id: Option<u64>,
    /// Its index there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_index: Option<u32>,
    /// What the GPUs of its latest attempt did, of the nodes on which that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredView>,
    /// When its owner was told that the GPUs of its latest attempt, which runs, do nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_told_us: Option<i64>,
}

/// How many tasks of an array are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArrayTasksView {
    pub held: u32,
    pub pending: u32,
    pub starting: u32,
    pub running: u32,
    pub completed: u32,
    pub failed: u32,
    pub cancelled: u32,
    pub timed_out: u32,
}

impl ArrayTasksView {
    fn of(tasks: &v1::ArrayTasks) -> Self {
        Self {
            held: tasks.held,
            pending: tasks.pending,
            starting: tasks.starting,
            running: tasks.running,
            completed: tasks.completed,
            failed: tasks.failed,
            cancelled: tasks.cancelled,
            timed_out: tasks.timed_out,
        }
    }

    /// As in "pending 99,990 running 10"; what none is in is left out.
    #[must_use]
    pub fn text(&self) -> String {
        let counts = [
            ("held", self.held),
            ("pending", self.pending),
            ("starting", self.starting),
            ("running", self.running),
            ("completed", self.completed),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("timed out", self.timed_out),
        ];
        let there = counts.iter().filter(|(_, count)| *count > 0);
        let parts: Vec<String> = there
            .map(|(word, count)| format!("{word} {}", amount::grouped((*count).into())))
            .collect();
        parts.join(" ")
    }
}

impl JobView {
    /// As the API has it.
    #[must_use]
    pub fn of(job: &v1::Job) -> Self {
        let (no_spec, no_constraints) = (v1::JobSpec::default(), v1::Constraints::default());
        let spec = job.spec.as_ref().unwrap_or(&no_spec);
        let constraints = spec.constraints.as_ref().unwrap_or(&no_constraints);
        let (work, argv) = work_of(spec);
        Self {
            job_id: job.job_id,
            name: spec.name.clone(),
            project: spec.project.clone(),
            owner: job.owner.clone(),
            state: word::job_state(job.state),
            detail: job.detail.clone(),
            work,
            argv,
            resources: resources_of(spec),
            time_limit_s: spec.time_limit_s,
            priority: spec.priority,
            comment: spec.comment.clone(),
            image: spec.image.clone(),
            dependencies: spec.dependencies.iter().map(DependencyView::of).collect(),
            attempt: job.attempt,
            nodes: job.nodes.clone(),
            simulated: job.simulated,
            cause: word::cause_if_any(job.cause),
            exit: ExitView::of(job.exit.as_ref()),
            submitted_us: time::set(job.submitted_us),
            submitted: time::rfc3339(job.submitted_us),
            queued_us: time::set(job.queued_us),
            queued: time::rfc3339(job.queued_us),
            started_us: time::set(job.started_us),
            started: time::rfc3339(job.started_us),
            ended_us: time::set(job.ended_us),
            ended: time::rfc3339(job.ended_us),
            paid_gpu_milli_seconds: job.paid_gpu_milli_seconds,
            blocks: BlockTermsView::of(constraints),
            reservation: constraints.reservation.clone(),
            start_by_us: time::set(job.start_by_us),
            start: job.start.as_ref().map(StartView::of),
            array: job.array_tasks.map(|_| spec.array.clone()),
            array_tasks: job.array_tasks.as_ref().map(ArrayTasksView::of),
            array_job_id: (job.array_job_id != 0).then_some(job.array_job_id),
            task_index: (job.array_job_id != 0).then_some(job.task_index),
            measured: job.measured.as_ref().map(MeasuredView::of),
            idle_told_us: time::set(job.idle_told_us),
        }
    }

    /// As people name it: a task of an array by the array and its index.
    #[must_use]
    pub fn label(&self) -> String {
        match (self.array_job_id, self.task_index) {
            (Some(array), Some(index)) => format!("{array}_{index}"),
            _ => self.job_id.to_string(),
        }
    }

    /// The GPUs over all nodes: "16 b200", "0.25", "-"; of an elastic job that has no nodes yet "32-128 b200"; of
    /// instances "2x1g.10gb".
    #[must_use]
    pub fn gpus_text(&self) -> String {
        let asked = &self.resources;
        let per_node = u64::from(asked.gpus_per_node) * 1000 + u64::from(asked.gpu_share_milli);
        let total =
            |nodes: u32| u64::from(asked.gpus_total) * 1000 + per_node * u64::from(nodes.max(1));
        let (least, most) = self.nodes_between();
        let gpus = match (total(least), total(most)) {
            (0, _) => return "-".to_owned(),
            (least, most) if least == most => amount::milli(least),
            (least, most) => format!("{}-{}", amount::milli(least), amount::milli(most)),
        };
        let gpus = match &asked.mig_profile {
            None => gpus,
            Some(profile) => format!("{gpus}x{profile}"),
        };
        asked.gpu_class.as_ref().map_or(gpus.clone(), |class| format!("{gpus} {class}"))
    }

    /// The fewest and the most nodes that it asks for; if it is elastic and has some, these.
    fn nodes_between(&self) -> (u32, u32) {
        let held = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        match self.resources.nodes_max {
            Some(_) if held > 0 => (held, held),
            Some(most) => (self.resources.nodes, most),
            None => (self.resources.nodes, self.resources.nodes),
        }
    }

    /// Nodes it has, or asks for where that is known.
    #[must_use]
    pub fn node_count(&self) -> String {
        match (self.nodes.len(), self.nodes_between()) {
            (0, (0, _)) => "1".to_owned(),
            (0, (least, most)) if least < most => format!("{least}-{most}"),
            (0, (asked, _)) => asked.to_string(),
            (held, _) => held.to_string(),
        }
    }

    /// How long it ran or runs; empty before its start.
    #[must_use]
    pub fn run_time(&self, now_us: i64) -> String {
        match (self.started_us, self.ended_us) {
            (Some(started), Some(ended)) if ended >= started => time::span(ended - started),
            (Some(started), None) if self.state == "running" => time::span(now_us - started),
            _ => String::new(),
        }
    }
}

fn work_of(spec: &v1::JobSpec) -> (&'static str, Vec<String>) {
    match &spec.work {
        Some(v1::job_spec::Work::Script(script)) => ("script", script.arguments.clone()),
        Some(v1::job_spec::Work::Command(command)) => ("command", command.argv.clone()),
        None => ("unknown", Vec::new()),
    }
}

fn resources_of(spec: &v1::JobSpec) -> ResourcesView {
    let Some(asked) = &spec.resources else {
        return ResourcesView::default();
    };
    ResourcesView {
        nodes: asked.nodes,
        nodes_max: (asked.nodes_max > asked.nodes).then_some(asked.nodes_max),
        gpus_per_node: asked.gpus_per_node,
        gpus_total: asked.gpus_total,
        gpu_share_milli: asked.gpu_share_milli,
        mig_profile: (!asked.mig_profile.is_empty()).then(|| asked.mig_profile.clone()),
        gpu_class: (!asked.gpu_class.is_empty()).then(|| asked.gpu_class.clone()),
        cpu_milli_per_node: asked.cpu_milli_per_node,
        memory_mib_per_node: asked.memory_mib_per_node,
        gpu_cap_watts: (asked.gpu_cap_watts > 0).then_some(asked.gpu_cap_watts),
    }
}

/// A job with everything that is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct JobDetail {
    #[serde(flatten)]
    pub job: JobView,
    pub environment: BTreeMap<String, String>,
    pub attempts: Vec<AttemptView>,
}

impl JobDetail {
    /// As the API has it.
    #[must_use]
    pub fn of(job: &v1::Job) -> Self {
        let environment =
            job.spec.as_ref().map(|spec| spec.environment.clone()).unwrap_or_default();
        Self {
            job: JobView::of(job),
            environment: environment.into_iter().collect(),
            attempts: job.attempts.iter().map(AttemptView::of).collect(),
        }
    }
}

/// One try of a job.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptView {
    pub attempt: u32,
    pub state: String,
    pub cause: Option<String>,
    pub detail: String,
    pub exit: Option<ExitView>,
    pub leased_us: Option<i64>,
    pub leased: Option<String>,
    pub started_us: Option<i64>,
    pub started: Option<String>,
    pub ended_us: Option<i64>,
    pub ended: Option<String>,
    pub charged_gpu_milli_seconds: i64,
    pub refunded_gpu_milli_seconds: i64,
    /// What its GPUs did: so far, until it has ended.
    pub measured: Option<MeasuredView>,
    /// Since how long all of them have done nothing; 0 if one does something.
    pub idle_ms: u64,
    pub idle_told_us: Option<i64>,
    pub idle_told: Option<String>,
    /// What its GPUs are capped at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_cap_watts: Option<u32>,
    pub allocation: Vec<AllocationView>,
    pub steps: Vec<StepView>,
}

/// What an attempt holds on one node.
#[derive(Clone, Debug, Serialize)]
pub struct AllocationView {
    pub node: String,
    pub simulated: bool,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub gpus: Vec<GpuHeld>,
    /// Through which it shares memory of its GPUs with its other nodes of that NVLink domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imex_channel: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub imex_domain: String,
}

/// A GPU, or a part of one, that is held.
#[derive(Clone, Debug, Serialize)]
pub struct GpuHeld {
    pub uuid: String,
    pub gpu_milli: u32,
}

impl AttemptView {
    fn of(attempt: &v1::Attempt) -> Self {
        Self {
            attempt: attempt.number,
            state: word::attempt_state(attempt.state),
            cause: word::cause_if_any(attempt.cause),
            detail: attempt.detail.clone(),
            exit: ExitView::of(attempt.exit.as_ref()),
            leased_us: time::set(attempt.leased_us),
            leased: time::rfc3339(attempt.leased_us),
            started_us: time::set(attempt.started_us),
            started: time::rfc3339(attempt.started_us),
            ended_us: time::set(attempt.ended_us),
            ended: time::rfc3339(attempt.ended_us),
            charged_gpu_milli_seconds: attempt.charged_gpu_milli_seconds,
            refunded_gpu_milli_seconds: attempt.refunded_gpu_milli_seconds,
            measured: attempt.measured.as_ref().map(MeasuredView::of),
            idle_ms: attempt.idle_ms,
            idle_told_us: time::set(attempt.idle_told_us),
            idle_told: time::rfc3339(attempt.idle_told_us),
            gpu_cap_watts: (attempt.gpu_cap_watts > 0).then_some(attempt.gpu_cap_watts),
            allocation: attempt.allocation.iter().map(AllocationView::of).collect(),
            steps: attempt.steps.iter().map(StepView::of).collect(),
        }
    }
}

impl AllocationView {
    fn of(allocation: &v1::NodeAllocation) -> Self {
        let held =
            |gpu: &v1::GpuAllocation| GpuHeld { uuid: gpu.uuid.clone(), gpu_milli: gpu.milli };
        Self {
            node: allocation.node.clone(),
            simulated: allocation.simulated,
            cpu_milli: allocation.cpu_milli,
            memory_mib: allocation.memory_mib,
            gpus: allocation.gpus.iter().map(held).collect(),
            imex_channel: Some(allocation.imex_channel).filter(|channel| *channel > 0),
            imex_domain: allocation.imex_domain.clone(),
        }
    }
}

/// Whether a job in this state never changes again.
#[must_use]
pub fn is_terminal(state: i32) -> bool {
    use v1::JobState::{Cancelled, Completed, Failed, TimedOut};
    [Completed, Failed, Cancelled, TimedOut].iter().any(|terminal| i32::from(*terminal) == state)
}

/// The tone of a job's or attempt's state.
#[must_use]
pub fn tone_of_state(state: &str) -> Tone {
    match state {
        "running" | "completed" => Tone::Good,
        "failed" | "timed_out" | "lost" => Tone::Bad,
        "held" | "cancelled" | "suspect" | "draining" => Tone::Warning,
        _ => Tone::Plain,
    }
}
