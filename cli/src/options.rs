//! What a job may ask for: one set of options for the command line and for directives, and the `JobSpec` they make.
//!
//! Names and meanings are Slurm's where Slurm has them. Nothing is judged here that the scheduler judges (limits,
//! projects, classes); only what contradicts itself.

mod values;

use std::collections::BTreeMap;

use clap::Args;
use gotgan_proto::v1;

use crate::{
    error::Error,
    units::{self, GpuAmount},
};

pub use values::{Deadline, Dependencies, GpuPower, NodeCount, NodeList, TasksPer};
use values::{
    count, deadline, dependencies, gpu_power, gpu_share, grace, node_count, node_list, variable,
};

/// The options of a job.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// Name shown in listings [default: that of the script or command]
    #[arg(long, short = 'J', alias = "job-name", help_heading = "Job")]
    pub name: Option<String>,
    /// Project that pays, as a path in the quota tree
    #[arg(long, short = 'A', alias = "account", value_name = "PATH", help_heading = "Job")]
    pub project: Option<String>,
    /// Wall time limit: minutes, HH:MM:SS, D-HH:MM:SS, or 30s, 10m, 2h, 7d
    #[arg(long, short = 't', value_parser = units::parse_time, value_name = "TIME", help_heading = "Job")]
    pub time: Option<i64>,
    /// Order among the project's jobs, -1000 to 1000; above 0 for operators
    #[arg(long, allow_hyphen_values = true, help_heading = "Job")]
    pub priority: Option<i32>,
    /// Jobs to wait for, as in afterok:1:2,afterany:3_7 (a task); singleton: all earlier ones of this name
    #[arg(long, short = 'd', visible_alias = "after", value_parser = dependencies, value_name = "LIST", help_heading = "Job")]
    pub dependency: Option<Dependencies>,
    /// By when it must have ended, as in +2h or 2026-11-30T18:00:00+09:00; else it never starts
    #[arg(long, value_parser = deadline, value_name = "TIME", help_heading = "Job")]
    pub deadline: Option<Deadline>,
    /// Many tasks like this, one for each index: 0-99, 0-98:2, 1,5,9; %10 behind: at most 10 at once
    #[arg(long, short = 'a', value_name = "INDEXES[%MOST]", help_heading = "Job")]
    pub array: Option<String>,
    /// At most so many tasks of the array at once
    #[arg(long, value_parser = count, value_name = "MOST", help_heading = "Job")]
    pub array_limit: Option<u32>,
    /// Do not start before `gotgan release`
    #[arg(long, short = 'H', help_heading = "Job")]
    pub hold: bool,
    /// Run for nothing on GPUs nobody else wants, and stop for anybody
    #[arg(long, help_heading = "Job")]
    pub scavenger: bool,
    /// Free text kept with the job
    #[arg(long, help_heading = "Job")]
    pub comment: Option<String>,

    /// Nodes; all start together or none. 4-16: as many of that as can be had at the start
    #[arg(long, short = 'N', value_parser = node_count, value_name = "N[-MOST]", help_heading = "Resources")]
    pub nodes: Option<NodeCount>,
    /// GPUs in all: N or CLASS:N
    #[arg(long, short = 'G', value_parser = units::parse_gpus, value_name = "[CLASS:]N", conflicts_with_all = ["gpus_per_node", "gpu_share"], help_heading = "Resources")]
    pub gpus: Option<GpuAmount>,
    /// GPUs on each node: N or CLASS:N
    #[arg(long, value_parser = units::parse_gpus, value_name = "[CLASS:]N", conflicts_with = "gpu_share", help_heading = "Resources")]
    pub gpus_per_node: Option<GpuAmount>,
    /// Part of one GPU on each node, in thousandths: 250 is a quarter
    #[arg(long, value_parser = gpu_share, value_name = "THOUSANDTHS", help_heading = "Resources")]
    pub gpu_share: Option<u32>,
    /// Most watts of each GPU, as 600, or a word of the site, as efficient
    #[arg(long, value_parser = gpu_power, value_name = "WATTS|MODE", help_heading = "Resources")]
    pub gpu_power: Option<GpuPower>,
    /// MIG instances of this profile instead of whole GPUs, as in 1g.10gb: one on each node, or so many as --gpus or
    /// --gpus-per-node say
    #[arg(long, value_name = "PROFILE", conflicts_with = "gpu_share", help_heading = "Resources")]
    pub mig: Option<String>,
    /// Class of the GPUs, as in b200
    #[arg(long, value_parser = units::parse_gpu_class, value_name = "CLASS", help_heading = "Resources")]
    pub gpu_class: Option<String>,
    /// CPUs on each node, as in 4 or 0.5
    #[arg(long, value_parser = units::parse_cpu_milli, value_name = "CPUS", help_heading = "Resources")]
    pub cpus_per_node: Option<u64>,
    /// Memory on each node: MiB, or 512M, 8G, 1T
    #[arg(long, value_parser = units::parse_memory_mib, value_name = "SIZE", help_heading = "Resources")]
    pub mem: Option<u64>,
    /// Only these nodes, as in node[1-3,7]
    #[arg(long, short = 'w', value_parser = node_list, value_name = "NODES", help_heading = "Resources")]
    pub nodelist: Option<NodeList>,
    /// Never these nodes
    #[arg(long, short = 'x', value_parser = node_list, value_name = "NODES", help_heading = "Resources")]
    pub exclude: Option<NodeList>,
    /// A label the nodes must carry; may be repeated
    #[arg(long, short = 'C', value_parser = units::parse_label, value_name = "KEY=VALUE", help_heading = "Resources")]
    pub constraint: Vec<(String, String)>,
    /// All nodes of one cluster, whichever fits; the same as --one cluster
    #[arg(long, help_heading = "Resources")]
    pub same_cluster: bool,
    /// All nodes in one block of this level, whichever fits: nvlink, rack, leaf, spine, hall or cluster
    #[arg(long, value_name = "LEVEL", help_heading = "Resources")]
    pub one: Option<String>,
    /// Nodes in as few blocks of this level as possible, without waiting for it
    #[arg(long, value_name = "LEVEL", help_heading = "Resources")]
    pub prefer: Option<String>,
    /// Made of segments of N nodes, each inside one NVLink domain
    #[arg(long, value_parser = count, value_name = "N", help_heading = "Resources")]
    pub segment: Option<u32>,
    /// Segments inside one block of this level instead
    #[arg(long, value_name = "LEVEL", help_heading = "Resources")]
    pub segment_level: Option<String>,
    /// Only nodes of this reservation, while it holds; see gotgan admin reservation
    #[arg(long, value_name = "NAME", help_heading = "Resources")]
    pub reservation: Option<String>,

    /// One task a node or one a GPU, for a command [default: node]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Tasks")]
    pub tasks_per: Option<TasksPer>,
    /// Tasks in all
    #[arg(long, short = 'n', alias = "ntasks", value_parser = count, value_name = "N", help_heading = "Tasks")]
    pub tasks: Option<u32>,
    /// Tasks on each node
    #[arg(long, alias = "ntasks-per-node", value_parser = count, value_name = "N", help_heading = "Tasks")]
    pub tasks_per_node: Option<u32>,
    /// CPUs for each task; with --tasks-per-node it gives --cpus-per-node
    #[arg(long, short = 'c', value_parser = units::parse_cpu_milli, value_name = "CPUS", help_heading = "Tasks")]
    pub cpus_per_task: Option<u64>,
    /// GPUs for each task
    #[arg(long, value_parser = units::parse_gpus, value_name = "N", help_heading = "Tasks")]
    pub gpus_per_task: Option<GpuAmount>,

    /// File for standard output on the node; %j job, %a attempt, %s step, %t rank, %N node, %A array, %i index
    #[arg(long, short = 'o', value_name = "FILE", help_heading = "Processes")]
    pub output: Option<String>,
    /// File for standard error on the node
    #[arg(long, short = 'e', value_name = "FILE", help_heading = "Processes")]
    pub error: Option<String>,
    /// Run with the files of this image: an absolute path on the nodes
    #[arg(long, value_name = "PATH", help_heading = "Processes")]
    pub image: Option<String>,
    /// Working directory; a relative one is taken from here
    #[arg(long, short = 'D', value_name = "DIR", help_heading = "Processes")]
    pub chdir: Option<String>,
    /// Adds to the environment: KEY=VALUE, or KEY for its value here; may be repeated
    #[arg(long, value_parser = variable, value_name = "KEY[=VALUE]", help_heading = "Processes")]
    pub env: Vec<(String, String)>,
    /// Signal before the end, as in B:USR1@120 (B: to the script alone)
    #[arg(long, value_parser = units::parse_warning_signal, value_name = "[B:]SIG[@S]", help_heading = "Processes")]
    pub signal: Option<v1::WarningSignal>,
    /// Time between TERM and KILL when it is stopped
    #[arg(long, value_parser = grace, value_name = "TIME", help_heading = "Processes")]
    pub grace: Option<u32>,
    /// Try again when hardware, a node, the network or the site ended it [default]
    #[arg(long, overrides_with = "no_requeue", help_heading = "Processes")]
    pub requeue: bool,
    /// Never try again
    #[arg(long, overrides_with = "requeue", help_heading = "Processes")]
    pub no_requeue: bool,
    /// Try again this often when it fails by itself, 0 to 10
    #[arg(long, value_name = "N", help_heading = "Processes")]
    pub max_retries: Option<u32>,
}

impl JobOptions {
    /// These options where `over` says nothing, else what `over` says.
    #[must_use]
    pub fn overridden_by(mut self, over: Self) -> Self {
        if over.asks_for_gpus() {
            (self.gpus, self.gpus_per_node, self.gpu_share) = (None, None, None);
            self.mig = None;
        }
        if over.requeue || over.no_requeue {
            (self.requeue, self.no_requeue) = (false, false);
        }
        let env = self.env.into_iter().chain(over.env).collect();
        let constraint = if over.constraint.is_empty() { self.constraint } else { over.constraint };
        Self {
            name: over.name.or(self.name),
            project: over.project.or(self.project),
            time: over.time.or(self.time),
            priority: over.priority.or(self.priority),
            dependency: over.dependency.or(self.dependency),
            deadline: over.deadline.or(self.deadline),
            array: over.array.or(self.array),
            array_limit: over.array_limit.or(self.array_limit),
            hold: over.hold || self.hold,
            scavenger: over.scavenger || self.scavenger,
            comment: over.comment.or(self.comment),
            nodes: over.nodes.or(self.nodes),
            gpus: over.gpus.or(self.gpus),
            gpus_per_node: over.gpus_per_node.or(self.gpus_per_node),
            gpu_share: over.gpu_share.or(self.gpu_share),
            gpu_power: over.gpu_power.or(self.gpu_power),
            mig: over.mig.or(self.mig),
            gpu_class: over.gpu_class.or(self.gpu_class),
            cpus_per_node: over.cpus_per_node.or(self.cpus_per_node),
            mem: over.mem.or(self.mem),
            nodelist: over.nodelist.or(self.nodelist),
            exclude: over.exclude.or(self.exclude),
            constraint,
            same_cluster: over.same_cluster || self.same_cluster,
            one: over.one.or(self.one),
            prefer: over.prefer.or(self.prefer),
            segment: over.segment.or(self.segment),
            segment_level: over.segment_level.or(self.segment_level),
            reservation: over.reservation.or(self.reservation),
            tasks_per: over.tasks_per.or(self.tasks_per),
            tasks: over.tasks.or(self.tasks),
            tasks_per_node: over.tasks_per_node.or(self.tasks_per_node),
            cpus_per_task: over.cpus_per_task.or(self.cpus_per_task),
            gpus_per_task: over.gpus_per_task.or(self.gpus_per_task),
            output: over.output.or(self.output),
            error: over.error.or(self.error),
            image: over.image.or(self.image),
            chdir: over.chdir.or(self.chdir),
            env,
            signal: over.signal.or(self.signal),
            grace: over.grace.or(self.grace),
            requeue: over.requeue || self.requeue,
            no_requeue: over.no_requeue || self.no_requeue,
            max_retries: over.max_retries.or(self.max_retries),
        }
    }

    fn asks_for_gpus(&self) -> bool {
        let amounts = [self.gpus.is_some(), self.gpus_per_node.is_some()];
        amounts.contains(&true) || self.gpu_share.is_some() || self.mig.is_some()
    }

    /// The job these options make of this work.
    ///
    /// # Errors
    /// When options contradict each other.
    pub fn into_spec(
        self,
        work: v1::job_spec::Work,
        default_name: &str,
    ) -> Result<v1::JobSpec, Error> {
        self.count_tasks_by_node()?;
        let work = self.with_layout(work)?;
        let resources = self.resources()?;
        Ok(v1::JobSpec {
            name: self.name.unwrap_or_else(|| default_name.to_owned()),
            project: self.project.unwrap_or_default(),
            work: Some(work),
            resources: Some(resources),
            constraints: Some(v1::Constraints {
                nodes: self.nodelist.map(|list| list.0).unwrap_or_default(),
                exclude_nodes: self.exclude.map(|list| list.0).unwrap_or_default(),
                labels: self.constraint.into_iter().collect(),
                same_cluster: self.same_cluster,
                one: self.one.unwrap_or_default(),
                prefer: self.prefer.unwrap_or_default(),
                segment_nodes: self.segment.unwrap_or_default(),
                segment_level: self.segment_level.unwrap_or_default(),
                reservation: self.reservation.unwrap_or_default(),
            }),
            time_limit_s: self.time.unwrap_or_default(),
            priority: self.priority.unwrap_or_default(),
            singleton: self.dependency.as_ref().is_some_and(|list| list.singleton),
            deadline_us: match self.deadline {
                Some(Deadline::AtUs(moment)) => moment,
                Some(Deadline::WithinS(_)) | None => 0,
            },
            deadline_in_s: match self.deadline {
                Some(Deadline::WithinS(seconds)) => seconds,
                Some(Deadline::AtUs(_)) | None => 0,
            },
            dependencies: self.dependency.map(|list| list.jobs).unwrap_or_default(),
            warning_signal: self.signal,
            requeue: (self.requeue || self.no_requeue).then_some(!self.no_requeue),
            max_retries: self.max_retries.unwrap_or_default(),
            environment: self.env.into_iter().collect(),
            working_directory: absolute_directory(self.chdir)?,
            output_path: self.output.unwrap_or_default(),
            error_path: self.error.unwrap_or_default(),
            hold: self.hold,
            scavenger: self.scavenger,
            comment: self.comment.unwrap_or_default(),
            grace_s: self.grace,
            array: self.array.unwrap_or_default(),
            array_limit: self.array_limit.unwrap_or_default(),
            image: self.image.unwrap_or_default(),
        })
    }

    /// Tasks in all cannot be spread over nodes whose number is found at the start.
    fn count_tasks_by_node(&self) -> Result<(), Error> {
        let elastic = self.nodes.and_then(|nodes| nodes.most).is_some();
        if elastic && self.tasks.is_some() {
            return Err(Error::invalid(
                "--tasks counts tasks in all, and how many nodes there are is found at the start",
                "say how many there are on each node: --tasks-per-node",
            ));
        }
        Ok(())
    }

    /// A command with the layout of its tasks; a script as it is.
    fn with_layout(&self, work: v1::job_spec::Work) -> Result<v1::job_spec::Work, Error> {
        let v1::job_spec::Work::Command(mut command) = work else {
            if self.tasks_per.is_some() {
                return Err(Error::invalid(
                    "--tasks-per is for commands; a script runs once, on the first node",
                    "start the tasks in the script: gotgan run --tasks-per-node 8 -- command",
                ));
            }
            return Ok(work);
        };
        let layout = match (self.tasks_per, self.layout_of_counts()?) {
            (Some(TasksPer::Node), _) => v1::TaskLayout::PerNode,
            (Some(TasksPer::Gpu), _) => v1::TaskLayout::PerGpu,
            (None, layout) => layout,
        };
        command.layout = layout.into();
        Ok(v1::job_spec::Work::Command(command))
    }

    /// The layout that numbers of tasks ask for; a command has one task a node or one a GPU, nothing between.
    fn layout_of_counts(&self) -> Result<v1::TaskLayout, Error> {
        let nodes = self.least_nodes();
        let per_node = match (self.tasks_per_node, self.tasks) {
            (Some(per_node), _) => Some(per_node),
            (None, Some(tasks)) => Some(tasks.div_ceil(nodes)),
            (None, None) => None,
        };
        let gpus = self.gpus_on_each_node();
        let gpus_per_task = self.gpus_per_task.as_ref().map(|amount| amount.count);
        match (per_node, gpus_per_task) {
            (None | Some(1), None) => Ok(v1::TaskLayout::PerNode),
            (Some(1), Some(wanted)) if Some(wanted) == gpus => Ok(v1::TaskLayout::PerNode),
            (None, Some(1)) => Ok(v1::TaskLayout::PerGpu),
            (Some(wanted), None | Some(1)) if Some(wanted) == gpus => Ok(v1::TaskLayout::PerGpu),
            _ => Err(Error::invalid(
                "a command runs one task a node or one task a GPU; these numbers of tasks are neither",
                "use --tasks-per node or --tasks-per gpu, or a script that calls `gotgan run` with them",
            )),
        }
    }

    fn least_nodes(&self) -> u32 {
        self.nodes.map_or(1, |nodes| nodes.least)
    }

    fn gpus_on_each_node(&self) -> Option<u32> {
        let total = self.gpus.as_ref().map(|amount| amount.count.div_ceil(self.least_nodes()));
        self.gpus_per_node.as_ref().map(|amount| amount.count).or(total)
    }

    fn resources(&self) -> Result<v1::Resources, Error> {
        let per_node = match (&self.gpus_per_node, &self.gpus, self.gpu_share, &self.gpus_per_task)
        {
            (None, None, None, Some(task)) => self.times_tasks(u64::from(task.count)),
            (per_node, ..) => per_node.as_ref().map(|amount| u64::from(amount.count)),
        };
        let gpus_per_node = per_node.map_or(Ok(0), |count| {
            u32::try_from(count).map_err(|_| Error::invalid("--gpus-per-task: too many GPUs", ""))
        })?;
        let cpus = self
            .cpus_per_node
            .or_else(|| self.cpus_per_task.and_then(|milli| self.times_tasks(milli)));
        Ok(v1::Resources {
            nodes: self.nodes.map_or(0, |nodes| nodes.least),
            nodes_max: self.nodes.and_then(|nodes| nodes.most).unwrap_or_default(),
            gpus_per_node,
            gpus_total: self.gpus.as_ref().map_or(0, |amount| amount.count),
            gpu_share_milli: self.gpu_share.unwrap_or_default(),
            mig_profile: self.mig.clone().unwrap_or_default(),
            gpu_class: self.one_gpu_class()?,
            cpu_milli_per_node: cpus.unwrap_or_default(),
            memory_mib_per_node: self.mem.unwrap_or_default(),
            gpu_cap_watts: self.gpu_power.as_ref().map_or(0, GpuPower::watts),
            gpu_power_mode: self.gpu_power.as_ref().map_or_else(String::new, GpuPower::mode),
        })
    }

    /// An amount a task, for the tasks of one node.
    fn times_tasks(&self, amount: u64) -> Option<u64> {
        let spread = self.tasks.map(|tasks| tasks.div_ceil(self.least_nodes()));
        amount.checked_mul(u64::from(self.tasks_per_node.or(spread).unwrap_or(1)))
    }

    fn one_gpu_class(&self) -> Result<String, Error> {
        let of_amount = |amount: &Option<GpuAmount>| {
            amount.as_ref().and_then(|amount| amount.gpu_class.clone())
        };
        let named = [
            self.gpu_class.clone(),
            of_amount(&self.gpus),
            of_amount(&self.gpus_per_node),
            of_amount(&self.gpus_per_task),
        ];
        let mut classes: Vec<String> = named.into_iter().flatten().collect();
        classes.dedup();
        match classes.len() {
            0 => Ok(String::new()),
            1 => Ok(classes.remove(0)),
            _ => Err(Error::invalid(
                format!("two GPU classes are named: {} and {}", classes[0], classes[1]),
                "a job has one class; name it once, with --gpu-class",
            )),
        }
    }
}

/// The directory as an absolute path; empty if none was asked for.
///
/// # Errors
/// When the present directory is not known or not UTF-8.
pub fn absolute_directory(directory: Option<String>) -> Result<String, Error> {
    let Some(directory) = directory else {
        return Ok(String::new());
    };
    let absolute = std::path::absolute(&directory)
        .map_err(|source| Error::File { path: directory.clone(), source })?;
    absolute.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid("--chdir: the directory's path is not UTF-8", "name an absolute path")
    })
}

/// The environment of a list of variables; the last of a name wins.
#[must_use]
pub fn environment(variables: Vec<(String, String)>) -> BTreeMap<String, String> {
    variables.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Only {
        #[command(flatten)]
        options: JobOptions,
    }

    fn options(words: &str) -> JobOptions {
        Only::try_parse_from(format!("x {words}").split_whitespace()).unwrap().options
    }

    fn command() -> v1::job_spec::Work {
        v1::job_spec::Work::Command(v1::Command { argv: vec!["true".to_owned()], layout: 0 })
    }

    fn script() -> v1::job_spec::Work {
        v1::job_spec::Work::Script(v1::Script { text: "#!/bin/sh\n".to_owned(), arguments: vec![] })
    }

    fn layout(words: &str) -> Result<i32, String> {
        match options(words).into_spec(command(), "x").map(|spec| spec.work.unwrap()) {
            Ok(v1::job_spec::Work::Command(command)) => Ok(command.layout),
            Ok(v1::job_spec::Work::Script(_)) => Err("a script".to_owned()),
            Err(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn the_command_line_replaces_another_way_of_asking_for_gpus() {
        let merged = options("--gpus 8 --time 1h").overridden_by(options("--gpu-share 250"));
        assert_eq!((merged.gpus, merged.gpu_share, merged.time), (None, Some(250), Some(3600)));
    }

    #[test]
    fn a_cap_is_watts_or_a_word() {
        let asked = |words: &str| {
            let spec = options(words).into_spec(script(), "x").unwrap();
            let resources = spec.resources.unwrap();
            (resources.gpu_cap_watts, resources.gpu_power_mode)
        };
        assert_eq!(asked("--gpus 1"), (0, String::new()));
        assert_eq!(asked("--gpu-power 600"), (600, String::new()));
        assert_eq!(asked("--gpu-power 600W"), (600, String::new()));
        assert_eq!(asked("--gpu-power efficient"), (0, "efficient".to_owned()));
        for bad in ["0", "6OO", "600.5"] {
            let found = Only::try_parse_from(["x", "--gpu-power", bad]).unwrap_err();
            assert!(found.to_string().contains("not a number of watts"), "{found}");
        }
    }

    #[test]
    fn no_requeue_wins_over_requeue_of_the_script() {
        let merged = options("--requeue").overridden_by(options("--no-requeue"));
        assert_eq!(merged.into_spec(script(), "x").unwrap().requeue, Some(false));
    }

    #[test]
    fn variables_of_both_are_kept_and_the_later_wins() {
        let merged = options("--env A=1 --env B=2").overridden_by(options("--env B=3"));
        let spec = merged.into_spec(script(), "x").unwrap();
        let found: BTreeMap<_, _> = spec.environment.into_iter().collect();
        assert_eq!(found, environment(vec![("A".into(), "1".into()), ("B".into(), "3".into())]));
    }

    #[test]
    fn cpus_of_tasks_add_up_to_those_of_a_node() {
        let spec = options("-N2 --ntasks 8 -c 4").into_spec(script(), "x").unwrap();
        assert_eq!(spec.resources.unwrap().cpu_milli_per_node, 16_000);
        let spec = options("-N2 --ntasks-per-node 2 -c 0.5").into_spec(script(), "x").unwrap();
        assert_eq!(spec.resources.unwrap().cpu_milli_per_node, 1000);
    }

    #[test]
    fn nodes_are_a_number_or_the_fewest_and_the_most() {
        let nodes = |words: &str| {
            let resources = options(words).into_spec(script(), "x").unwrap().resources.unwrap();
            (resources.nodes, resources.nodes_max)
        };
        assert_eq!(
            [nodes("-N 4"), nodes("--nodes=4-16"), nodes("-N 3-3")],
            [(4, 0), (4, 16), (3, 0)]
        );
        for words in ["-N 0-2", "-N 4-", "-N -4", "-N 5-4", "-N a-b"] {
            assert!(
                Only::try_parse_from(format!("x {words}").split_whitespace()).is_err(),
                "{words}"
            );
        }
        assert!(options("-N 1-4 --tasks 8").into_spec(script(), "x").is_err());
    }

    #[test]
    fn two_gpu_classes_contradict_each_other() {
        assert!(options("--gpus b200:8 --gpu-class h200").into_spec(script(), "x").is_err());
        let spec = options("--gpus b200:8 --gpu-class b200").into_spec(script(), "x").unwrap();
        assert_eq!(spec.resources.unwrap().gpu_class, "b200");
    }

    #[test]
    fn a_command_has_one_task_a_node_or_one_a_gpu() {
        let (per_node, per_gpu) = (v1::TaskLayout::PerNode as i32, v1::TaskLayout::PerGpu as i32);
        assert_eq!(layout("-N2"), Ok(per_node));
        assert_eq!(layout("-N2 --tasks-per gpu --gpus-per-node 8"), Ok(per_gpu));
        assert_eq!(layout("-N2 --tasks-per-node 8 --gpus-per-node 8"), Ok(per_gpu));
        assert!(layout("-N2 --tasks-per-node 3 --gpus-per-node 8").is_err());
    }

    #[test]
    fn a_relative_directory_is_taken_from_here() {
        let directory = absolute_directory(Some("x".to_owned())).unwrap();
        assert!(directory.starts_with('/') && directory.ends_with("/x"), "{directory}");
    }
}
