//! Nodes and jobs for a [`TestCluster`], a word at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::{CpuMilli, MemoryMib, UnixMicros};
use gotgan_core::array::{ArraySpec, ArrayTasks};
use gotgan_core::change::Change;
use gotgan_core::ids::{
    GpuClass, GpuUuid, IdempotencyKey, JobId, NodeName, ProjectPath, ReservationName, UserName,
};
use gotgan_core::image::{ImagePath, Images};
use gotgan_core::imex::Imex;
use gotgan_core::job::{Digest, Job, JobState, JobStatus};
use gotgan_core::mig::{Mig, MigCut, MigInstance, MigProfile};
use gotgan_core::node::{Gpu, Inventory, Liveness};
use gotgan_core::power::caps::{CapRange, Caps};
use gotgan_core::spec::{
    Constraints, Deadline, Dependency, DependencyKind, GpuRequest, JobSpec, NodeRequest,
    TaskLayout, Work,
};
use gotgan_core::topology::{Level, Segment};

use crate::cluster::{LAB, TestCluster};

pub struct NodeBuilder<'a> {
    cluster: &'a mut TestCluster,
    name: NodeName,
    gpus: Vec<(String, u32)>,
    cpus: Option<u32>,
    memory_gib: Option<u64>,
    labels: BTreeMap<String, String>,
    nvlink_domains: Vec<String>,
    images: Option<Images>,
    caps: Option<Caps>,
    cap_range: Option<CapRange>,
    cuts: Vec<(usize, Vec<&'static str>)>,
    imex: Option<Imex>,
}

impl<'a> NodeBuilder<'a> {
    /// A node with 16 CPUs and 64 GiB a GPU, or 64 CPUs and 256 GiB if it has none.
    pub fn of(cluster: &'a mut TestCluster, name: &str) -> Self {
        NodeBuilder {
            cluster,
            name: NodeName::new(name).unwrap(),
            gpus: Vec::new(),
            cpus: None,
            memory_gib: None,
            labels: BTreeMap::new(),
            nvlink_domains: Vec::new(),
            images: None,
            caps: None,
            cap_range: None,
            cuts: Vec::new(),
            imex: None,
        }
    }

    pub fn gpus(mut self, count: u32, class: &str) -> Self {
        self.gpus.push((class.to_owned(), count));
        self
    }

    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = Some(cpus);
        self
    }

    pub fn memory_gib(mut self, memory_gib: u64) -> Self {
        self.memory_gib = Some(memory_gib);
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Whether jobs with an image can run there.
    pub fn images(mut self, images: Images) -> Self {
        self.images = Some(images);
        self
    }

    /// Its GPUs can be capped, at so many watts or more.
    pub fn caps(mut self, min_watts: u32) -> Self {
        self.caps = Some(Caps::Able);
        self.cap_range = Some(CapRange { min_watts, max_watts: 1_000 });
        self
    }

    /// NVLink domains that its GPUs name, one after the other.
    pub fn nvlink_domains(mut self, domains: &[&str]) -> Self {
        self.nvlink_domains = domains.iter().map(|&domain| domain.to_owned()).collect();
        self
    }

    /// Its driver has so many IMEX channels.
    pub fn imex_channels(mut self, count: u32) -> Self {
        self.imex = Some(Imex::Able(count));
        self
    }

    /// Cuts the GPU at that position into instances of these profiles, of a card with 7 compute slices.
    pub fn cut(mut self, gpu: usize, profiles: &[&'static str]) -> Self {
        self.cuts.push((gpu, profiles.to_vec()));
        self
    }

    /// Adds the node, heard and ready.
    pub fn add(self) {
        let count: u32 = self.gpus.iter().map(|(_, count)| count).sum();
        let parts = if count == 0 { 4 } else { count };
        let mut gpus = gpus(&self.name, &self.gpus);
        for (gpu, domain) in gpus.iter_mut().zip(self.nvlink_domains) {
            gpu.nvlink_domain = domain;
        }
        gpus.iter_mut().for_each(|gpu| gpu.cap_range = self.cap_range);
        for (gpu, profiles) in self.cuts {
            gpus[gpu].mig = Mig::Cut(cut(&gpus[gpu].uuid, &profiles));
        }
        let inventory = Inventory {
            node: self.name.clone(),
            address: "127.0.0.1:1".to_owned(),
            boot_id: "boot".to_owned(),
            journal_id: String::new(),
            worker_version: "0".to_owned(),
            os: "os".to_owned(),
            kernel: "kernel".to_owned(),
            driver_version: String::new(),
            cuda_version: String::new(),
            cpu_milli: CpuMilli(1000).times(self.cpus.unwrap_or(parts * 16).into()),
            memory_mib: MemoryMib(1024).times(self.memory_gib.unwrap_or(u64::from(parts) * 64)),
            gpus,
            labels: self.labels,
            simulated: true,
            confinement: None,
            images: self.images,
            caps: self.caps,
            checks_hardware: false,
            imex: self.imex,
        };
        self.cluster.apply(&Change::NodeRegistered(Arc::new(inventory)));
        let (node, liveness) = (self.name, Liveness::Ready);
        self.cluster.apply(&Change::NodeHeard { node, liveness, at: UnixMicros::default() });
    }
}

fn gpus(node: &NodeName, counts: &[(String, u32)]) -> Vec<Gpu> {
    let classes = counts.iter().flat_map(|(class, count)| (0..*count).map(move |_| class));
    let gpu = |(index, class): (u32, &String)| Gpu {
        uuid: GpuUuid::new(&format!("GPU-{node}-{index}")).unwrap(),
        index,
        name: class.clone(),
        class: GpuClass::new(class).unwrap(),
        pci_bus_id: String::new(),
        memory_mib: MemoryMib(1),
        serial: String::new(),
        nvlink_domain: String::new(),
        cap_range: None,
        mig: Mig::Off,
    };
    (0..).zip(classes).map(gpu).collect()
}

/// What a GPU with 7 compute slices is cut into.
pub fn cut(card: &GpuUuid, profiles: &[&str]) -> MigCut {
    let instance = |(number, profile): (u32, &&str)| MigInstance {
        uuid: GpuUuid::new(&format!("MIG-{card}-{number}")).unwrap(),
        profile: MigProfile::new(profile).unwrap(),
        slices: profile.split('g').next().unwrap().parse().unwrap(),
        memory_mib: MemoryMib(1),
        gpu_instance: number,
        compute_instance: 0,
    };
    MigCut::new(7, (0..).zip(profiles).map(instance).collect())
}

fn plain_job(id: JobId, queued: UnixMicros) -> Job {
    Job {
        id,
        owner: UserName::new("lee").unwrap(),
        key: IdempotencyKey::new(&format!("key-{id}")).unwrap(),
        digest: Digest("".into()),
        submitted: queued,
        spec: Arc::new(plain_spec()),
        status: JobStatus {
            state: JobState::Pending,
            detail: String::new(),
            queued,
            not_before: queued,
            started: None,
            ended: None,
            attempt: 0,
            failures: 0,
            losses: 0,
            waits_for: Vec::new(),
            avoid: std::collections::BTreeSet::new(),
            pending_action: None,
            promised: std::collections::BTreeSet::new(),
            cause: None,
            exit: None,
            tasks: None,
        },
        array: None,
    }
}

fn plain_spec() -> JobSpec {
    JobSpec {
        name: "job".to_owned(),
        project: ProjectPath::new(LAB).unwrap(),
        work: Work::Command { argv: vec!["true".to_owned()], layout: TaskLayout::PerNode },
        nodes: 1,
        nodes_max: None,
        per_node: NodeRequest {
            gpus: GpuRequest::None,
            cpu_milli: CpuMilli(1000),
            memory_mib: MemoryMib(1024),
            gpu_cap_watts: None,
        },
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

pub struct JobBuilder<'a> {
    cluster: &'a mut TestCluster,
    job: Job,
}

impl<'a> JobBuilder<'a> {
    /// A job on one node with 1 CPU and 1 GiB, submitted now, after all others.
    pub fn of(cluster: &'a mut TestCluster) -> Self {
        let job = plain_job(JobId(cluster.world.sequences.next_job), cluster.now);
        JobBuilder { cluster, job }
    }

    fn spec(mut self, change: impl FnOnce(&mut JobSpec)) -> Self {
        change(Arc::make_mut(&mut self.job.spec));
        self
    }

    pub fn project(self, path: &str) -> Self {
        self.spec(|spec| spec.project = ProjectPath::new(path).unwrap())
    }

    pub fn owner(mut self, owner: &str) -> Self {
        self.job.owner = UserName::new(owner).unwrap();
        self
    }

    pub fn nodes(self, nodes: u32) -> Self {
        self.spec(|spec| spec.nodes = nodes)
    }

    /// At least and at most so many nodes.
    pub fn between(self, least: u32, most: u32) -> Self {
        self.spec(|spec| (spec.nodes, spec.nodes_max) = (least, Some(most)))
    }

    /// Whole GPUs on each node; class `""` for any.
    pub fn gpus(self, count: u32, class: &str) -> Self {
        let class = GpuClass::new(class).ok();
        self.spec(|spec| spec.per_node.gpus = GpuRequest::Whole { count, class })
    }

    /// A share of one GPU on each node; class `""` for any.
    pub fn share(self, milli: u32, class: &str) -> Self {
        let class = GpuClass::new(class).ok();
        self.spec(|spec| spec.per_node.gpus = GpuRequest::Share { milli, class })
    }

    /// Its GPUs capped at so many watts.
    pub fn cap(self, watts: u32) -> Self {
        self.spec(|spec| spec.per_node.gpu_cap_watts = Some(watts))
    }

    /// Instances of a card with 7 compute slices on each node; class `""` for any.
    pub fn mig(self, count: u32, profile: &str, class: &str) -> Self {
        let class = GpuClass::new(class).ok();
        let slices: u32 = profile.split('g').next().unwrap().parse().unwrap();
        let (profile, milli) = (MigProfile::new(profile).unwrap(), slices * 1000 / 7);
        self.spec(|spec| spec.per_node.gpus = GpuRequest::Mig { count, profile, milli, class })
    }

    pub fn cpus(self, cpus: u64) -> Self {
        self.spec(|spec| spec.per_node.cpu_milli = CpuMilli(1000).times(cpus))
    }

    pub fn memory_gib(self, memory: u64) -> Self {
        self.spec(|spec| spec.per_node.memory_mib = MemoryMib(1024).times(memory))
    }

    pub fn one(self, level: Level) -> Self {
        self.spec(|spec| spec.constraints.blocks.one = Some(level))
    }

    pub fn prefer(self, level: Level) -> Self {
        self.spec(|spec| spec.constraints.blocks.prefer = Some(level))
    }

    pub fn segments(self, nodes: u32, level: Level) -> Self {
        self.spec(|spec| spec.constraints.blocks.segment = Some(Segment { nodes, level }))
    }

    pub fn same_cluster(self) -> Self {
        self.one(Level::Cluster)
    }

    pub fn hours(self, hours: i64) -> Self {
        self.spec(|spec| spec.time_limit_s = hours * 3600)
    }

    pub fn minutes(self, minutes: i64) -> Self {
        self.spec(|spec| spec.time_limit_s = minutes * 60)
    }

    pub fn scavenger(self) -> Self {
        self.spec(|spec| spec.scavenger = true)
    }

    pub fn grace_s(self, grace_s: u32) -> Self {
        self.spec(|spec| spec.grace_s = grace_s)
    }

    pub fn max_retries(self, max_retries: u32) -> Self {
        self.spec(|spec| spec.max_retries = max_retries)
    }

    pub fn priority(self, priority: i32) -> Self {
        self.spec(|spec| spec.priority = priority)
    }

    pub fn label(self, key: &str, value: &str) -> Self {
        self.spec(|spec| {
            spec.constraints.labels.insert(key.to_owned(), value.to_owned());
        })
    }

    pub fn only_on(self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| NodeName::new(name).unwrap());
        self.spec(|spec| spec.constraints.nodes.extend(names))
    }

    pub fn image(self, path: &str) -> Self {
        let image = ImagePath::new(path).unwrap();
        self.spec(|spec| {
            spec.constraints.images = true;
            spec.image = Some(image);
        })
    }

    pub fn never_on(self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| NodeName::new(name).unwrap());
        self.spec(|spec| spec.constraints.exclude_nodes.extend(names))
    }

    /// Only on nodes of the reservation by command of that name.
    pub fn reservation(self, name: &str) -> Self {
        self.spec(|spec| spec.constraints.reservation = Some(ReservationName::new(name).unwrap()))
    }

    pub fn avoiding(mut self, names: &[&str]) -> Self {
        self.job.status.avoid.extend(names.iter().map(|name| NodeName::new(name).unwrap()));
        self
    }

    pub fn after(mut self, kind: DependencyKind, job: JobId) -> Self {
        self.job.status.waits_for.push(Dependency::on(kind, job));
        self
    }

    pub fn waiting_since_s(mut self, seconds: i64) -> Self {
        self.job.status.queued = self.cluster.now.plus_seconds(-seconds);
        self.job.status.not_before = self.job.status.queued;
        self
    }

    pub fn not_before_ms(mut self, millis: i64) -> Self {
        self.job.status.not_before = self.cluster.now.plus_millis(millis);
        self
    }

    /// So many tasks like this, at most `at_once` of them at once.
    pub fn array(mut self, tasks: u32, at_once: Option<u32>) -> Self {
        self.job.status.tasks = Some(Arc::new(ArrayTasks::new(tasks, false)));
        self.spec(|spec| spec.array = Some(ArraySpec::new(0..tasks, at_once)))
    }

    /// Must have ended so many seconds from now.
    pub fn deadline_in_s(self, seconds: i64) -> Self {
        let deadline = Some(Deadline::At(self.cluster.now.plus_seconds(seconds)));
        self.spec(|spec| spec.deadline = deadline)
    }

    pub fn held(mut self, detail: &str) -> Self {
        self.job.status.state = JobState::Held;
        self.job.status.detail = detail.to_owned();
        self
    }

    pub fn name(self, name: &str) -> Self {
        self.spec(|spec| spec.name = name.to_owned())
    }

    pub fn singleton(self) -> Self {
        self.spec(|spec| spec.singleton = true)
    }

    /// What it asks for, not submitted.
    pub fn into_spec(self) -> Arc<JobSpec> {
        self.job.spec
    }

    pub fn submit(self) -> JobId {
        let id = self.job.id;
        self.cluster.apply(&Change::JobSubmitted(Arc::new(self.job)));
        id
    }
}
