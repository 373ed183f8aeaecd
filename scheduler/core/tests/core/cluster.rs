//! A small language for tests: build a cluster, submit jobs, say what each is expected to get, check.
//!
//! A cluster that is dropped without a check makes its test fail, so no test can forget to look.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::{CpuMilli, GpuMilli, GpuMilliSeconds, MemoryMib, UnixMicros};
use gotgan_core::attempt::{Attempt, AttemptState, Member, Placement, Progress};
use gotgan_core::change::Change;
use gotgan_core::check;
use gotgan_core::explain::sentence;
use gotgan_core::ids::{
    AttemptId, Epoch, GpuClass, GpuUuid, IdempotencyKey, JobId, NodeName, ProjectPath, UserName,
};
use gotgan_core::job::{Digest, Job, JobState, JobStatus};
use gotgan_core::node::{Admin, Gpu, Inventory, Liveness};
use gotgan_core::plan::{Blocker, Decision, Plan};
use gotgan_core::planner::plan;
use gotgan_core::policy::Policy;
use gotgan_core::quota::QuotaTree;
use gotgan_core::spec::{
    Constraints, Dependency, DependencyKind, GpuRequest, JobSpec, NodeRequest, TaskLayout, Work,
};
use gotgan_core::world::World;

/// Project of jobs that name none; without limits.
pub const LAB: &str = "public/lab";

pub struct TestCluster {
    pub world: World,
    pub policy: Policy,
    pub now: UnixMicros,
    expected: Vec<(JobId, Vec<String>)>,
    expected_waiting: Vec<JobId>,
    checked: bool,
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        assert!(
            self.checked || std::thread::panicking(),
            "the cluster was never checked"
        );
    }
}

impl TestCluster {
    pub fn new() -> Self {
        let mut cluster = TestCluster {
            world: World::default(),
            policy: Policy {
                drain_after_s: 0,
                ..Policy::default()
            },
            now: UnixMicros(1_000_000_000_000),
            expected: Vec::new(),
            expected_waiting: Vec::new(),
            checked: false,
        };
        cluster.limit("public", &[]);
        cluster.limit(LAB, &[]);
        cluster
    }

    /// Gives a node of the quota tree these limits in whole GPUs; `any` is the one over all classes.
    pub fn limit(&mut self, path: &str, limits: &[(&str, u32)]) {
        let mut tree = QuotaTree::clone(&self.world.quota);
        let node = tree
            .nodes
            .entry(ProjectPath::new(path).unwrap())
            .or_default();
        for (class, gpus) in limits {
            match *class {
                "any" => node.any_limit = Some(GpuMilli::whole(*gpus)),
                class => {
                    node.limits
                        .insert(GpuClass::new(class).unwrap(), GpuMilli::whole(*gpus));
                }
            }
        }
        self.world.apply(&Change::QuotaApplied(Arc::new(tree)));
    }

    /// A node with 16 CPUs and 64 GiB a GPU, or 64 CPUs and 256 GiB if it has none.
    pub fn node(&mut self, name: &str) -> NodeBuilder<'_> {
        NodeBuilder {
            cluster: self,
            name: NodeName::new(name).unwrap(),
            gpus: Vec::new(),
            cpus: None,
            memory_gib: None,
            labels: BTreeMap::new(),
        }
    }

    pub fn drain(&mut self, name: &str, reason: &str) {
        let (by, since) = ("kim".to_owned(), self.now);
        let admin = Admin::Drain {
            by,
            reason: reason.to_owned(),
            since,
        };
        let node = NodeName::new(name).unwrap();
        self.world.apply(&Change::NodeAdministered { node, admin });
    }

    pub fn heard(&mut self, name: &str, liveness: Liveness) {
        let node = NodeName::new(name).unwrap();
        self.world.apply(&Change::NodeHeard { node, liveness });
    }

    /// A job on one node with 1 CPU and 1 GiB, submitted now, after all others.
    pub fn job(&mut self) -> JobBuilder<'_> {
        let id = JobId(self.world.sequences.next_job);
        let queued = self.now;
        JobBuilder {
            cluster: self,
            job: plain_job(id, queued),
        }
    }

    pub fn expect_on(&mut self, job: JobId, nodes: &[&str]) {
        self.expected
            .push((job, nodes.iter().map(ToString::to_string).collect()));
    }

    pub fn expect_waiting(&mut self, job: JobId) {
        self.expected_waiting.push(job);
    }

    /// Plans, checks plan and expectations, and changes nothing.
    pub fn check(&mut self) -> Outcome {
        self.checked = true;
        let plan = plan(&self.world, &self.policy, self.now);
        let again = gotgan_core::planner::plan(&self.world.clone(), &self.policy, self.now);
        assert_eq!(plan, again, "the same inputs gave another plan");
        assert_eq!(check::plan(&self.world, &plan), []);
        assert_eq!(check::world(&self.world), []);
        let outcome = Outcome { plan };
        for (job, nodes) in &self.expected {
            let why = outcome.sentences(*job);
            assert_eq!(
                outcome.nodes_of(*job).as_ref(),
                Some(nodes),
                "job {job}: {why}"
            );
        }
        for job in &self.expected_waiting {
            assert_eq!(outcome.nodes_of(*job), None, "job {job} was to wait");
            assert_ne!(
                outcome.blockers(*job),
                [],
                "job {job} waits without a reason"
            );
        }
        outcome
    }

    /// Checks as [`TestCluster::check`] and lets everything start that can.
    pub fn start_all(&mut self) -> Outcome {
        let outcome = self.check();
        self.expected.clear();
        self.expected_waiting.clear();
        for Decision::Start { job, placement } in &outcome.plan.decisions {
            self.start(*job, placement);
        }
        assert_eq!(check::world(&self.world), []);
        outcome
    }

    fn start(&mut self, id: JobId, placement: &Arc<Placement>) {
        let job = &self.world.jobs[&id];
        let number = job.status.attempt + 1;
        let attempt = Attempt {
            id: AttemptId { job: id, number },
            project: job.spec.project.clone(),
            placement: Arc::clone(placement),
            epoch: Epoch(1),
            leased: self.now,
            hold: GpuMilliSeconds(0),
            state: AttemptState::Leased,
            started: None,
            ended: None,
            members: vec![
                Member {
                    last_seq: 0,
                    progress: Progress::Leased
                };
                placement.nodes.len()
            ],
            stop: None,
            outcome: None,
            next_step: 1,
        };
        let status = JobStatus {
            state: JobState::Starting,
            attempt: number,
            ..job.status.clone()
        };
        self.world.apply(&Change::AttemptLeased(Arc::new(attempt)));
        self.world.apply(&Change::JobMoved {
            id,
            status: Arc::new(status),
        });
    }

    /// Ends the attempt of a job, and the job with it.
    pub fn end(&mut self, id: JobId) {
        let job = &self.world.jobs[&id];
        let attempt_id = AttemptId {
            job: id,
            number: job.status.attempt,
        };
        let status = JobStatus {
            state: JobState::Completed,
            ..job.status.clone()
        };
        let attempt = Attempt::clone(&self.world.attempts[&attempt_id]);
        let ended = Attempt {
            state: AttemptState::Ended,
            ..attempt
        };
        self.world.apply(&Change::AttemptMoved(Arc::new(ended)));
        self.world.apply(&Change::JobMoved {
            id,
            status: Arc::new(status),
        });
    }

    pub fn status(&mut self, id: JobId, change: impl FnOnce(&mut JobStatus)) {
        let mut status = self.world.jobs[&id].status.clone();
        change(&mut status);
        self.world.apply(&Change::JobMoved {
            id,
            status: Arc::new(status),
        });
    }
}

/// What one check found.
pub struct Outcome {
    pub plan: Plan,
}

impl Outcome {
    pub fn placement(&self, wanted: JobId) -> Option<&Placement> {
        self.plan
            .decisions
            .iter()
            .find_map(|Decision::Start { job, placement }| {
                (*job == wanted).then_some(placement.as_ref())
            })
    }

    pub fn nodes_of(&self, job: JobId) -> Option<Vec<String>> {
        let placement = self.placement(job)?;
        Some(
            placement
                .nodes
                .iter()
                .map(|allocation| allocation.node.to_string())
                .collect(),
        )
    }

    pub fn blockers(&self, job: JobId) -> &[Blocker] {
        self.plan
            .report
            .waiting
            .get(&job)
            .map_or(&[], |list| list.as_slice())
    }

    /// Every reason on a line of its own.
    pub fn sentences(&self, job: JobId) -> String {
        let lines: Vec<_> = self.blockers(job).iter().map(sentence).collect();
        lines.join("\n")
    }
}

pub struct NodeBuilder<'a> {
    cluster: &'a mut TestCluster,
    name: NodeName,
    gpus: Vec<(String, u32)>,
    cpus: Option<u32>,
    memory_gib: Option<u64>,
    labels: BTreeMap<String, String>,
}

impl NodeBuilder<'_> {
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

    /// Adds the node, heard and ready.
    pub fn add(self) {
        let count: u32 = self.gpus.iter().map(|(_, count)| count).sum();
        let parts = if count == 0 { 4 } else { count };
        let inventory = Inventory {
            node: self.name.clone(),
            address: "127.0.0.1:1".to_owned(),
            boot_id: "boot".to_owned(),
            worker_version: "0".to_owned(),
            os: "os".to_owned(),
            kernel: "kernel".to_owned(),
            driver_version: String::new(),
            cuda_version: String::new(),
            cpu_milli: CpuMilli(1000).times(self.cpus.unwrap_or(parts * 16).into()),
            memory_mib: MemoryMib(1024).times(self.memory_gib.unwrap_or(u64::from(parts) * 64)),
            gpus: gpus(&self.name, &self.gpus),
            labels: self.labels,
            simulated: true,
        };
        self.cluster
            .world
            .apply(&Change::NodeRegistered(Arc::new(inventory)));
        let (node, liveness) = (self.name, Liveness::Ready);
        self.cluster
            .world
            .apply(&Change::NodeHeard { node, liveness });
    }
}

fn gpus(node: &NodeName, counts: &[(String, u32)]) -> Vec<Gpu> {
    let classes = counts
        .iter()
        .flat_map(|(class, count)| (0..*count).map(move |_| class));
    let gpu = |(index, class): (u32, &String)| Gpu {
        uuid: GpuUuid::new(&format!("GPU-{node}-{index}")).unwrap(),
        index,
        name: class.clone(),
        class: GpuClass::new(class).unwrap(),
        pci_bus_id: String::new(),
        memory_mib: MemoryMib(1),
    };
    (0..).zip(classes).map(gpu).collect()
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
            cause: None,
            exit: None,
        },
    }
}

fn plain_spec() -> JobSpec {
    JobSpec {
        name: "job".to_owned(),
        project: ProjectPath::new(LAB).unwrap(),
        work: Work::Command {
            argv: vec!["true".to_owned()],
            layout: TaskLayout::PerNode,
        },
        nodes: 1,
        per_node: NodeRequest {
            gpus: GpuRequest::None,
            cpu_milli: CpuMilli(1000),
            memory_mib: MemoryMib(1024),
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
    }
}

pub struct JobBuilder<'a> {
    cluster: &'a mut TestCluster,
    job: Job,
}

impl JobBuilder<'_> {
    fn spec(mut self, change: impl FnOnce(&mut JobSpec)) -> Self {
        change(Arc::make_mut(&mut self.job.spec));
        self
    }

    pub fn project(self, path: &str) -> Self {
        self.spec(|spec| spec.project = ProjectPath::new(path).unwrap())
    }

    pub fn nodes(self, nodes: u32) -> Self {
        self.spec(|spec| spec.nodes = nodes)
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

    pub fn cpus(self, cpus: u64) -> Self {
        self.spec(|spec| spec.per_node.cpu_milli = CpuMilli(1000).times(cpus))
    }

    pub fn memory_gib(self, memory: u64) -> Self {
        self.spec(|spec| spec.per_node.memory_mib = MemoryMib(1024).times(memory))
    }

    pub fn priority(self, priority: i32) -> Self {
        self.spec(|spec| spec.priority = priority)
    }

    pub fn label(self, key: &str, value: &str) -> Self {
        self.spec(|spec| {
            spec.constraints
                .labels
                .insert(key.to_owned(), value.to_owned());
        })
    }

    pub fn only_on(self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| NodeName::new(name).unwrap());
        self.spec(|spec| spec.constraints.nodes.extend(names))
    }

    pub fn never_on(self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| NodeName::new(name).unwrap());
        self.spec(|spec| spec.constraints.exclude_nodes.extend(names))
    }

    pub fn avoiding(mut self, names: &[&str]) -> Self {
        self.job
            .status
            .avoid
            .extend(names.iter().map(|name| NodeName::new(name).unwrap()));
        self
    }

    pub fn after(mut self, kind: DependencyKind, job: JobId) -> Self {
        self.job.status.waits_for.push(Dependency { kind, job });
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

    pub fn held(mut self, detail: &str) -> Self {
        self.job.status.state = JobState::Held;
        self.job.status.detail = detail.to_owned();
        self
    }

    pub fn submit(self) -> JobId {
        let id = self.job.id;
        self.cluster
            .world
            .apply(&Change::JobSubmitted(Arc::new(self.job)));
        id
    }
}
