//! From the scheduler's orders to what a shim is told: arguments, directories, output files, environments.

use std::path::Path;

use gotgan_proto::v1::{JobSpec, RunAttempt, StartTasks, TaskStart, job_spec::Work};

use super::NodeContext;
use super::environment::{self, Environment, is_batch};
use crate::confine::spec::Confinement;
use crate::shim::protocol::{ShimSpec, StepSpec, TaskSpec, VERSION, Warning};

/// Name of the script's file in the attempt's directory.
pub const SCRIPT: &str = "script";
/// Name of the working directory of an attempt whose user named none.
pub const WORK: &str = "work";

/// What the shim of an attempt is told at its start, but for what confines it.
pub fn shim_spec(context: &NodeContext, order: &RunAttempt) -> ShimSpec {
    let spec = order.spec.as_ref();
    let warning = spec.and_then(|spec| spec.warning_signal.as_ref()).map(|wanted| Warning {
        signal: wanted.signal,
        ahead_ms: u64::from(wanted.ahead_s) * 1000,
        batch_only: wanted.batch_only,
    });
    ShimSpec {
        version: VERSION,
        time_limit_ms: u64::try_from(order.time_limit_s).unwrap_or(0).saturating_mul(1000),
        grace_ms: u64::from(order.grace_s) * 1000,
        warning,
        batch: is_batch(order),
        step: first_step(context, order),
        confinement: Confinement::default(),
        container: None,
    }
}

/// Tasks of a further step.
pub fn further_step(context: &NodeContext, order: &RunAttempt, tasks: &StartTasks) -> StepSpec {
    let shared = environment::of_further_step(context, order, tasks);
    let directory = match tasks.working_directory.as_str() {
        "" => working_directory(context, order),
        other => other.to_owned(),
    };
    let plan = StepPlan { context, order, step: tasks.step, directory };
    let starts =
        tasks.tasks.iter().map(|task| plan.task(task, tasks.world_size, &shared)).collect();
    StepSpec {
        step: tasks.step,
        environment: shared,
        argv: tasks.argv.clone(),
        tasks: starts,
        ..StepSpec::default()
    }
}

fn first_step(context: &NodeContext, order: &RunAttempt) -> StepSpec {
    let shared = environment::of_first_step(context, order);
    let argv = first_argv(context, order);
    let directory = working_directory(context, order);
    let plan = StepPlan { context, order, step: 0, directory };
    let tasks = order.tasks.iter().map(|task| plan.task(task, task.world_size, &shared)).collect();
    StepSpec { step: 0, environment: shared, argv, tasks, ..StepSpec::default() }
}

fn first_argv(context: &NodeContext, order: &RunAttempt) -> Vec<String> {
    match order.spec.as_ref().and_then(|spec| spec.work.as_ref()) {
        Some(Work::Script(script)) => {
            let path = format!("{}/{SCRIPT}", context.attempt_directory(order));
            std::iter::once(path).chain(script.arguments.iter().cloned()).collect()
        }
        Some(Work::Command(command)) => command.argv.clone(),
        None => Vec::new(),
    }
}

/// Where tasks start whose step names no place of its own.
pub fn working_directory(context: &NodeContext, order: &RunAttempt) -> String {
    match order.spec.as_ref().map(|spec| spec.working_directory.as_str()) {
        None | Some("") => format!("{}/{WORK}", context.attempt_directory(order)),
        Some(directory) => directory.to_owned(),
    }
}

struct StepPlan<'a> {
    context: &'a NodeContext,
    order: &'a RunAttempt,
    step: u32,
    directory: String,
}

impl StepPlan<'_> {
    fn task(&self, task: &TaskStart, world_size: u32, shared: &Environment) -> TaskSpec {
        // A script's GPUs are all of this node's.
        let mut task = task.clone();
        if self.step == 0 && is_batch(self.order) && task.gpu_uuids.is_empty() {
            task.gpu_uuids = environment::uuids(&self.order.gpus);
        }
        let (stdout, stderr) = self.outputs(task.rank);
        TaskSpec {
            rank: task.rank,
            argv: Vec::new(),
            environment: environment::of_task(self.order, &task, world_size, shared),
            directory: self.directory.clone(),
            stdout,
            stderr,
        }
    }

    /// Files the user named, or nothing. Further steps use them only where the pattern tells steps apart: `gotgan
    /// run` shows their output in the script's own, and it would be there twice.
    fn outputs(&self, rank: u32) -> (String, String) {
        let spec = self.order.spec.clone().unwrap_or_default();
        let JobSpec { output_path, mut error_path, .. } = spec;
        if error_path.is_empty() && !output_path.is_empty() {
            error_path = format!("{output_path}.stderr");
        }
        let fill = |pattern: &str| {
            let wanted = !pattern.is_empty() && (self.step == 0 || pattern.contains("%s"));
            if wanted { self.fill(pattern, rank) } else { String::new() }
        };
        (fill(&output_path), fill(&error_path))
    }

    /// Of a job that is no task of an array, its own number.
    fn array_number(&self) -> u64 {
        self.order.array_task.map_or(self.order.job_id, |task| task.array_job_id)
    }

    fn task_index(&self) -> u32 {
        self.order.array_task.map_or(0, |task| task.index)
    }

    fn fill(&self, pattern: &str, rank: u32) -> String {
        let mut filled = String::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                filled.push(character);
                continue;
            }
            match characters.next() {
                Some('j') => filled.push_str(&self.order.job_id.to_string()),
                Some('a') => filled.push_str(&self.order.attempt.to_string()),
                Some('A') => filled.push_str(&self.array_number().to_string()),
                Some('i') => filled.push_str(&self.task_index().to_string()),
                Some('s') => filled.push_str(&self.step.to_string()),
                Some('t') => filled.push_str(&rank.to_string()),
                Some('N') => filled.push_str(&self.context.node),
                Some('%') | None => filled.push('%'),
                Some(other) => filled.extend(['%', other]),
            }
        }
        Path::new(&self.directory).join(filled).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_proto::v1::{ArrayTask, Command, Script};

    use super::*;

    fn order(work: Work, output_path: &str) -> RunAttempt {
        let spec = JobSpec {
            work: Some(work),
            output_path: output_path.into(),
            working_directory: "/data".into(),
            ..Default::default()
        };
        let tasks = vec![TaskStart { rank: 3, ..Default::default() }];
        RunAttempt { job_id: 7, attempt: 2, spec: Some(spec), tasks, ..Default::default() }
    }

    #[test]
    fn output_patterns_are_filled_and_seen_from_the_working_directory() {
        let command = Work::Command(Command { argv: vec!["true".into()], layout: 0 });
        let spec =
            shim_spec(&NodeContext::for_tests(), &order(command, "out/%j.%a-%s-%t@%N 100%%"));
        let task = &spec.step.tasks[0];
        assert_eq!(task.stdout, "/data/out/7.2-0-3@n1 100%");
        assert_eq!(task.stderr, "/data/out/7.2-0-3@n1 100%.stderr");
        assert_eq!(spec.step.argv, ["true"]);
    }

    #[test]
    fn the_files_of_an_arrays_tasks_are_told_apart_by_array_and_index() {
        let command = Work::Command(Command { argv: vec!["true".into()], layout: 0 });
        let array_task = Some(ArrayTask { array_job_id: 5, index: 40, ..Default::default() });
        let order = RunAttempt { array_task, ..order(command, "%A_%i.out") };
        let task = shim_spec(&NodeContext::for_tests(), &order);
        assert_eq!(task.step.tasks[0].stdout, "/data/5_40.out");
        let environment = &task.step.environment;
        assert_eq!(environment["GOTGAN_ARRAY_TASK_ID"], "40");
        assert_eq!(environment["GOTGAN_ARRAY_JOB_ID"], "5");
    }

    #[test]
    fn a_script_is_run_with_its_arguments_from_the_directory_of_the_attempt() {
        let script = Script { text: "#!/bin/sh\n".into(), arguments: vec!["x".into()] };
        let context = NodeContext::for_tests();
        let order = order(Work::Script(script), "");
        let spec = shim_spec(&context, &order);
        let path = format!("{}/script", context.attempt_directory(&order));
        assert!(spec.batch);
        assert_eq!(spec.step.argv, [path, "x".into()]);
        assert_eq!(spec.step.tasks[0].stdout, "");
    }

    #[test]
    fn a_further_step_writes_to_the_users_file_only_where_the_pattern_names_the_step() {
        let context = NodeContext::for_tests();
        let tasks = StartTasks { step: 2, tasks: vec![TaskStart::default()], ..Default::default() };
        let stdout = |pattern: &str| {
            let order = order(Work::Script(Script::default()), pattern);
            further_step(&context, &order, &tasks).tasks[0].stdout.clone()
        };
        assert_eq!(stdout("out"), "");
        assert_eq!(stdout("out-%s"), "/data/out-2");
    }
}
