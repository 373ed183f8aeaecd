//! Job requests in a few words, small enough for any machine.

use std::time::Duration;

use gotgan_proto::v1::{self, JobSpec, job_spec::Work};

/// Projects of the tree that a cluster starts with.
pub const ALPHA: &str = "centre/alpha";
/// A second project, whose people have nothing to do with the first.
pub const BETA: &str = "centre/beta";

/// The tree that a cluster starts with: two projects without limits of their own.
pub const QUOTA: &str = r#"
[node."centre"]
title = "Test centre"

[node."centre/alpha"]
title = "Alpha"

[node."centre/beta"]
title = "Beta"
"#;

/// Little enough that dozens of jobs fit on a laptop.
const CPU_MILLI: u64 = 10;
const MEMORY_MIB: u64 = 16;
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// A job that runs a command.
#[must_use]
pub fn command(argv: &[&str]) -> JobSpec {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    of(Work::Command(v1::Command { argv, layout: v1::TaskLayout::PerNode.into() }))
}

/// A job that runs a line of shell as its command.
#[must_use]
pub fn shell(line: &str) -> JobSpec {
    command(&["/bin/sh", "-c", line])
}

/// A job that runs a script of shell, once.
#[must_use]
pub fn script(body: &str) -> JobSpec {
    of(Work::Script(v1::Script { text: format!("#!/bin/sh\n{body}\n"), arguments: Vec::new() }))
}

fn of(work: Work) -> JobSpec {
    JobSpec {
        project: ALPHA.into(),
        work: Some(work),
        resources: Some(v1::Resources {
            cpu_milli_per_node: CPU_MILLI,
            memory_mib_per_node: MEMORY_MIB,
            ..Default::default()
        }),
        time_limit_s: i64::try_from(TIME_LIMIT.as_secs()).unwrap_or(i64::MAX),
        ..Default::default()
    }
}

/// Changes to a job request that read like a sentence.
pub trait Shape: Sized {
    /// Paid by another project.
    #[must_use]
    fn project(self, path: &str) -> Self;
    /// A gang of that many nodes.
    #[must_use]
    fn nodes(self, nodes: u32) -> Self;
    /// Whole GPUs on each node.
    #[must_use]
    fn gpus(self, per_node: u32) -> Self;
    /// Half a GPU.
    #[must_use]
    fn half_a_gpu(self) -> Self;
    /// Of this class.
    #[must_use]
    fn class(self, class: &str) -> Self;
    /// On this node alone.
    #[must_use]
    fn on(self, node: &str) -> Self;
    /// Stopped after that many seconds.
    #[must_use]
    fn limit(self, seconds: i64) -> Self;
    /// Not started before its release.
    #[must_use]
    fn held(self) -> Self;
    /// After another job.
    #[must_use]
    fn after(self, kind: v1::DependencyKind, job_id: u64) -> Self;
    /// That long between TERM and KILL.
    #[must_use]
    fn grace(self, seconds: u32) -> Self;
    /// With a variable in its environment.
    #[must_use]
    fn env(self, name: &str, value: &str) -> Self;
}

impl Shape for JobSpec {
    fn project(mut self, path: &str) -> Self {
        self.project = path.to_owned();
        self
    }

    fn nodes(mut self, nodes: u32) -> Self {
        self.resources.get_or_insert_default().nodes = nodes;
        self
    }

    fn gpus(mut self, per_node: u32) -> Self {
        self.resources.get_or_insert_default().gpus_per_node = per_node;
        self
    }

    fn half_a_gpu(mut self) -> Self {
        self.resources.get_or_insert_default().gpu_share_milli = 500;
        self
    }

    fn class(mut self, class: &str) -> Self {
        self.resources.get_or_insert_default().gpu_class = class.to_owned();
        self
    }

    fn on(mut self, node: &str) -> Self {
        self.constraints.get_or_insert_default().nodes = vec![node.to_owned()];
        self
    }

    fn limit(mut self, seconds: i64) -> Self {
        self.time_limit_s = seconds;
        self
    }

    fn held(mut self) -> Self {
        self.hold = true;
        self
    }

    fn after(mut self, kind: v1::DependencyKind, job_id: u64) -> Self {
        self.dependencies.push(v1::Dependency { kind: kind.into(), job_id, task_index: None });
        self
    }

    fn grace(mut self, seconds: u32) -> Self {
        self.grace_s = Some(seconds);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }
}
