//! The experiment on fragmentation once more, by the planner itself: all tasks wait in one queue, and one pass is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, MemoryMib, UnixMicros};
use gotgan_core::change::Change;
use gotgan_core::fragmentation::{ClassNumber, ClassSet, GpuShape, Shape};
use gotgan_core::ids::{GpuClass, GpuUuid, IdempotencyKey, JobId, NodeName, ProjectPath, UserName};
use gotgan_core::job::{Job, JobState, JobStatus};
use gotgan_core::node::{Gpu, Inventory, Liveness};
use gotgan_core::plan::Decision;
use gotgan_core::planner::plan;
use gotgan_core::policy::Policy as SitePolicy;
use gotgan_core::quota::QuotaTree;
use gotgan_core::spec::{Constraints, GpuRequest, JobSpec, NodeRequest, TaskLayout, Work};
use gotgan_core::world::World;
use gotgan_sim::pack::board::Host;
use gotgan_sim::pack::{Experiment, arrivals, read};

use crate::pack::tables;

const NOW: UnixMicros = UnixMicros(1_000_000_000_000);

fn class(number: ClassNumber) -> GpuClass {
    GpuClass::new(&format!("model-{:02}", number.0)).unwrap()
}

fn inventory(host: &Host) -> Inventory {
    let gpu = |index: u32| Gpu {
        uuid: GpuUuid::new(&format!("GPU-{}-{index}", host.name)).unwrap(),
        index,
        name: "gpu".to_owned(),
        class: class(host.room.class),
        pci_bus_id: String::new(),
        memory_mib: MemoryMib(1),
        serial: String::new(),
        nvlink_domain: String::new(),
        cap_range: None,
        mig: gotgan_core::mig::Mig::Off,
    };
    Inventory {
        node: NodeName::new(&host.name).unwrap(),
        address: "127.0.0.1:1".to_owned(),
        boot_id: "boot".to_owned(),
        journal_id: String::new(),
        worker_version: "0".to_owned(),
        os: "os".to_owned(),
        kernel: "kernel".to_owned(),
        driver_version: String::new(),
        cuda_version: String::new(),
        cpu_milli: host.room.cpu_milli,
        memory_mib: host.room.memory_mib,
        gpus: (0..u32::try_from(host.room.gpus.len()).unwrap()).map(gpu).collect(),
        labels: BTreeMap::new(),
        simulated: true,
        confinement: None,
        images: None,
        caps: None,
        checks_hardware: false,
        imex: None,
    }
}

/// A list in which every task may have any model.
fn request(shape: &Shape) -> NodeRequest {
    assert_eq!(shape.classes, ClassSet::ANY);
    let gpus = match shape.gpus {
        GpuShape::None => GpuRequest::None,
        GpuShape::Whole(count) => GpuRequest::Whole { count, class: None },
        GpuShape::Share(milli) => {
            GpuRequest::Share { milli: u32::try_from(milli.0).unwrap(), class: None }
        }
    };
    let (cpu_milli, memory_mib) = (shape.cpu_milli, shape.memory_mib);
    NodeRequest { gpus, cpu_milli, memory_mib, gpu_cap_watts: None }
}

fn spec(shape: &Shape) -> JobSpec {
    JobSpec {
        name: "task".to_owned(),
        project: ProjectPath::new("lab").unwrap(),
        work: Work::Command { argv: vec!["true".to_owned()], layout: TaskLayout::PerNode },
        nodes: 1,
        nodes_max: None,
        per_node: request(shape),
        constraints: Constraints::default(),
        time_limit_s: 3600,
        priority: 0,
        dependencies: Vec::new(),
        warning_signal: None,
        requeue: true,
        max_retries: 0,
        environment: BTreeMap::new(),
        working_directory: String::new(),
        output_path: String::new(),
        error_path: String::new(),
        hold: false,
        comment: String::new(),
        grace_s: 30,
        scavenger: false,
        array: None,
        singleton: false,
        deadline: None,
        image: None,
    }
}

fn job(number: u64, shape: &Shape) -> Job {
    let id = JobId(number);
    Job {
        id,
        owner: UserName::new("lee").unwrap(),
        key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
        digest: gotgan_core::digest::Digest("".into()),
        submitted: NOW,
        spec: Arc::new(spec(shape)),
        status: JobStatus {
            state: JobState::Pending,
            detail: String::new(),
            queued: NOW,
            not_before: NOW,
            started: None,
            ended: None,
            attempt: 0,
            failures: 0,
            losses: 0,
            waits_for: Vec::new(),
            avoid: BTreeSet::new(),
            pending_action: None,
            promised: BTreeSet::new(),
            cause: None,
            exit: None,
            tasks: None,
        },
        array: None,
    }
}

fn world(experiment: &Experiment, arrivals: &[Shape]) -> World {
    let mut world = World::default();
    let mut tree = QuotaTree::default();
    tree.nodes.entry(ProjectPath::new("lab").unwrap()).or_default();
    world.apply(&Change::QuotaApplied { book: Arc::new(tree.into()), at: UnixMicros(0) });
    for host in &experiment.hosts {
        let inventory = inventory(host);
        let node = inventory.node.clone();
        world.apply(&Change::NodeRegistered(Arc::new(inventory)));
        world.apply(&Change::NodeHeard { node, liveness: Liveness::Ready, at: NOW });
    }
    for (number, shape) in (1..).zip(arrivals) {
        world.apply(&Change::JobSubmitted(Arc::new(job(number, shape))));
    }
    world
}

#[test]
fn the_planner_gives_away_nearly_as_much_as_the_best_policy_of_the_experiment() {
    let Some(folder) = tables() else { return };
    let nodes = folder.join("openb_node_list_all_node.csv");
    for (list, least_milli) in [("default", 94_500), ("multigpu20", 95_000)] {
        let tasks = folder.join(format!("openb_pod_list_{list}.csv.gz"));
        let experiment = read::read(&nodes, &tasks).unwrap();
        let arrivals = arrivals::of(&experiment.tasks, experiment.capacity(), 42);
        let world = world(&experiment, &arrivals);
        let policy = SitePolicy { max_starts_per_pass: usize::MAX, ..SitePolicy::default() };
        let given: GpuMilli = plan(&world, &policy, NOW)
            .decisions
            .iter()
            .map(|decision| match decision {
                Decision::Start { placement, .. } => placement.gpus(),
                Decision::Preempt { .. } => GpuMilli::ZERO,
            })
            .sum();
        let milli = given.0 * 100_000 / experiment.capacity().0;
        println!("{list}: {milli} thousandths of a percent");
        assert!(milli >= least_milli, "{list}: {milli}");
    }
}
