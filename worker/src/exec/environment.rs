//! What a task finds in its environment. Pure: the daemon's own environment is an argument.

use std::collections::BTreeMap;

use gotgan_proto::v1::{
    GangNode, GpuAllocation, RunAttempt, StartTasks, TaskStart, job_spec::Work,
};

use super::NodeContext;
use crate::inventory::cards::Cards;

/// A task's environment.
pub type Environment = BTreeMap<String, String>;

/// GPU memory that an attempt may use of each of its GPUs.
const GPU_MEMORY: &str = "GOTGAN_GPU_MEMORY_MIB";
/// Names what belongs to an attempt: set in every process of it, and not to be overridden, because what a dead shim
/// has left is found by it.
pub const ATTEMPT_DIRECTORY: &str = "GOTGAN_ATTEMPT_DIR";

/// Variables of the daemon that tasks see as well.
const PASSED_THROUGH: [&str; 8] =
    ["HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ"];
/// Those of them that are a user's own.
pub const OF_A_USER: [&str; 4] = ["HOME", "USER", "LOGNAME", "SHELL"];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Picks from the daemon's environment what tasks see.
pub fn passed_through(daemon: impl Iterator<Item = (String, String)>) -> Environment {
    let mut environment: Environment =
        daemon.filter(|(name, _)| PASSED_THROUGH.contains(&name.as_str())).collect();
    environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    environment.entry("LANG".into()).or_insert_with(|| "C.UTF-8".into());
    environment.entry("HOME".into()).or_insert_with(|| "/".into());
    environment
}

/// What the tasks of step 0 share.
pub fn of_first_step(context: &NodeContext, order: &RunAttempt) -> Environment {
    let mut environment = of_attempt(context, order);
    environment.insert("GOTGAN_STEP".into(), "0".into());
    if is_batch(order) {
        environment.extend(of_script(order));
    }
    overlay_user(&mut environment, order, &[]);
    environment
}

/// What the tasks of a further step share.
pub fn of_further_step(
    context: &NodeContext,
    order: &RunAttempt,
    tasks: &StartTasks,
) -> Environment {
    let mut environment = of_attempt(context, order);
    environment.insert("GOTGAN_STEP".into(), tasks.step.to_string());
    let own: Vec<_> =
        tasks.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    overlay_user(&mut environment, order, &own);
    environment
}

/// What one task has beside its step's environment; nothing that its user has set is touched.
pub fn of_task(
    order: &RunAttempt,
    task: &TaskStart,
    world_size: u32,
    shared: &Environment,
) -> Environment {
    let mut environment = gpus(&task.gpu_uuids);
    if !is_batch(order) || shared.get("GOTGAN_STEP").is_some_and(|step| step != "0") {
        let numbers = [
            ("RANK", task.rank),
            ("LOCAL_RANK", task.local_rank),
            ("WORLD_SIZE", world_size),
            ("LOCAL_WORLD_SIZE", task.local_world_size),
        ];
        environment.extend(numbers.map(|(name, value)| (name.to_owned(), value.to_string())));
    }
    environment.retain(|name, _| !shared.contains_key(name));
    environment
}

/// Whether step 0 is a script.
pub fn is_batch(order: &RunAttempt) -> bool {
    let work = order.spec.as_ref().and_then(|spec| spec.work.as_ref());
    matches!(work, Some(Work::Script(_)))
}

fn of_attempt(context: &NodeContext, order: &RunAttempt) -> Environment {
    let mut environment = context.passed_through.clone();
    let spec = order.spec.clone().unwrap_or_default();
    let gpu_count = order.gpus.len();
    let values = [
        ("GOTGAN_JOB_ID", order.job_id.to_string()),
        ("GOTGAN_ATTEMPT", order.attempt.to_string()),
        ("GOTGAN_JOB_NAME", job_name(order)),
        ("GOTGAN_PROJECT", spec.project),
        ("GOTGAN_NODE", context.node.clone()),
        ("GOTGAN_NODE_RANK", order.node_rank.to_string()),
        ("GOTGAN_NODELIST", node_list(&order.gang)),
        ("GOTGAN_NNODES", order.gang.len().max(1).to_string()),
        ("GOTGAN_GPUS_PER_NODE", gpu_count.to_string()),
        ("GOTGAN_SERVER", context.server.clone()),
        ("GOTGAN_CA", context.ca_path.clone()),
        ("GOTGAN_TOKEN", order.job_token.clone()),
        (ATTEMPT_DIRECTORY, context.attempt_directory(order)),
        ("MASTER_ADDR", order.gang.first().map_or("127.0.0.1", |node| &node.address).to_owned()),
        ("MASTER_PORT", order.master_port.to_string()),
        ("NODE_RANK", order.node_rank.to_string()),
    ];
    environment.extend(values.map(|(name, value)| (name.to_owned(), value)));
    let segment = spec.constraints.map_or(0, |constraints| constraints.segment_nodes);
    if segment > 0 {
        environment.insert("GOTGAN_SEGMENT_NODES".into(), segment.to_string());
    }
    if order.gpu_cap_watts > 0 {
        environment.insert("GOTGAN_GPU_CAP_WATTS".into(), order.gpu_cap_watts.to_string());
    }
    if order.imex_channel > 0 {
        // The second is how NVIDIA's own container tools are told which to inject.
        for name in ["GOTGAN_IMEX_CHANNEL", "NVIDIA_IMEX_CHANNELS"] {
            environment.insert(name.into(), order.imex_channel.to_string());
        }
    }
    let memory = gpu_memory_mib(&context.confining.cards, &order.gpus);
    environment.extend(memory.map(|mib| (GPU_MEMORY.to_owned(), mib.to_string())));
    environment.extend(of_array_task(order));
    environment
}

/// Memory that it has of each of its GPUs or instances, MiB, the least if they differ; of a share its part of the GPU's,
/// which the driver does not enforce. `None` without GPUs, or where the driver does not tell.
fn gpu_memory_mib(cards: &Cards, gpus: &[GpuAllocation]) -> Option<u64> {
    let own = |gpu: &GpuAllocation| {
        let all = cards.memory_mib(&gpu.uuid).filter(|memory_mib| *memory_mib > 0)?;
        let whole = cards.milli(&gpu.uuid)?.max(gpu.milli).max(1);
        Some(all.saturating_mul(gpu.milli.into()) / u64::from(whole))
    };
    gpus.iter().map(own).min().flatten()
}

/// Which task of which array it is, if it is one.
fn of_array_task(order: &RunAttempt) -> Environment {
    let Some(task) = &order.array_task else { return Environment::new() };
    let values = [
        ("GOTGAN_ARRAY_JOB_ID", task.array_job_id.to_string()),
        ("GOTGAN_ARRAY_TASK_ID", task.index.to_string()),
        ("GOTGAN_ARRAY_TASK_COUNT", task.count.to_string()),
        ("GOTGAN_ARRAY_TASK_MIN", task.min.to_string()),
        ("GOTGAN_ARRAY_TASK_MAX", task.max.to_string()),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

/// A script is no rank itself: it sees how many ranks a launcher of its own would start, one a GPU.
fn of_script(order: &RunAttempt) -> Environment {
    let gpus: u32 = order.gang.iter().map(|node| node.gpus).sum();
    let nodes = u32::try_from(order.gang.len().max(1)).unwrap_or(u32::MAX);
    let here = order.gang.get(order.node_rank as usize).map_or(0, |node| node.gpus).max(1);
    let world_size = if gpus > 0 { gpus } else { nodes };
    let values = [("WORLD_SIZE", world_size), ("LOCAL_WORLD_SIZE", here)];
    values.map(|(name, value)| (name.to_owned(), value.to_string())).into()
}

fn overlay_user(environment: &mut Environment, order: &RunAttempt, own: &[(String, String)]) {
    let of_job = order.spec.iter().flat_map(|spec| &spec.environment);
    let of_job = of_job.map(|(name, value)| (name.clone(), value.clone()));
    let allowed = |(name, value): &(String, String)| {
        // A name or value that no environment can hold would keep every task from starting.
        name != ATTEMPT_DIRECTORY
            && !name.is_empty()
            && !name.contains(['=', '\0'])
            && !value.contains('\0')
    };
    environment.extend(of_job.chain(own.iter().cloned()).filter(allowed));
}

fn gpus(uuids: &[String]) -> Environment {
    let visible = uuids.join(",");
    let for_containers = if uuids.is_empty() { "void".to_owned() } else { visible.clone() };
    Environment::from([
        ("CUDA_VISIBLE_DEVICES".into(), visible),
        ("NVIDIA_VISIBLE_DEVICES".into(), for_containers),
    ])
}

/// The UUIDs of an allocation, in its order.
pub fn uuids(gpus: &[GpuAllocation]) -> Vec<String> {
    gpus.iter().map(|gpu| gpu.uuid.clone()).collect()
}

fn node_list(gang: &[GangNode]) -> String {
    let names: Vec<&str> = gang.iter().map(|node| node.node.as_str()).collect();
    names.join(",")
}

fn job_name(order: &RunAttempt) -> String {
    let Some(spec) = &order.spec else {
        return String::new();
    };
    match &spec.work {
        _ if !spec.name.is_empty() => spec.name.clone(),
        Some(Work::Command(command)) => {
            let program = command.argv.first().map_or("", String::as_str);
            program.rsplit('/').next().unwrap_or(program).to_owned()
        }
        Some(Work::Script(_)) | None => "script".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_proto::v1::{Command, Constraints, JobSpec, Script};

    use super::*;

    fn order(work: Work) -> RunAttempt {
        let node = |name: &str, gpus| GangNode {
            node: name.into(),
            address: format!("10.0.0.{gpus}"),
            gpus,
        };
        let environment = [("NAME".to_owned(), "value".to_owned())].into();
        RunAttempt {
            job_id: 7,
            attempt: 1,
            gang: vec![node("a", 8), node("b", 8)],
            master_port: 29500,
            spec: Some(JobSpec { work: Some(work), environment, ..Default::default() }),
            ..Default::default()
        }
    }

    fn command() -> Work {
        Work::Command(Command { argv: vec!["/bin/train".into()], layout: 2 })
    }

    fn task(gpu_uuids: Vec<String>) -> TaskStart {
        TaskStart { rank: 9, local_rank: 1, local_world_size: 8, gpu_uuids, world_size: 16 }
    }

    #[test]
    fn a_rank_of_a_command_knows_its_place_and_its_gpu() {
        let order = order(command());
        let shared = of_first_step(&NodeContext::for_tests(), &order);
        let own = of_task(&order, &task(vec!["GPU-1".into()]), 16, &shared);
        assert_eq!(shared["MASTER_ADDR"], "10.0.0.8");
        assert_eq!(shared["GOTGAN_NODELIST"], "a,b");
        assert_eq!(shared["GOTGAN_JOB_NAME"], "train");
        assert_eq!(shared["NAME"], "value");
        assert_eq!((own["RANK"].as_str(), own["WORLD_SIZE"].as_str()), ("9", "16"));
        assert_eq!(own["CUDA_VISIBLE_DEVICES"], "GPU-1");
    }

    #[test]
    fn a_script_sees_the_size_of_its_allocation_but_no_rank() {
        let order = order(Work::Script(Script::default()));
        let shared = of_first_step(&NodeContext::for_tests(), &order);
        let own = of_task(&order, &task(Vec::new()), 1, &shared);
        assert_eq!(shared["WORLD_SIZE"], "16");
        assert_eq!(shared["LOCAL_WORLD_SIZE"], "8");
        assert!(!own.contains_key("RANK"));
        assert_eq!(own["CUDA_VISIBLE_DEVICES"], "");
        assert_eq!(own["NVIDIA_VISIBLE_DEVICES"], "void");
    }

    #[test]
    fn a_gang_of_segments_knows_how_many_neighbours_are_close() {
        let mut order = order(command());
        let name = "GOTGAN_SEGMENT_NODES";
        assert!(!of_first_step(&NodeContext::for_tests(), &order).contains_key(name));
        let constraints = Constraints { segment_nodes: 2, ..Default::default() };
        order.spec.as_mut().unwrap().constraints = Some(constraints);
        assert_eq!(of_first_step(&NodeContext::for_tests(), &order)[name], "2");
    }

    #[test]
    fn what_the_user_sets_wins_but_for_the_mark_of_the_attempt() {
        let mut order = order(command());
        let spec = order.spec.as_mut().unwrap();
        spec.environment.insert("CUDA_VISIBLE_DEVICES".into(), "mine".into());
        spec.environment.insert(ATTEMPT_DIRECTORY.into(), "elsewhere".into());
        spec.environment.insert("bad=name".into(), "x".into());
        let shared = of_first_step(&NodeContext::for_tests(), &order);
        let own = of_task(&order, &task(vec!["GPU-1".into()]), 16, &shared);
        assert_eq!(shared["CUDA_VISIBLE_DEVICES"], "mine");
        assert!(!own.contains_key("CUDA_VISIBLE_DEVICES"));
        assert_ne!(shared[ATTEMPT_DIRECTORY], "elsewhere");
        assert!(!shared.contains_key("bad=name"));
    }
}
