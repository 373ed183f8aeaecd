//! Small random worlds: few nodes, few classes, tight limits, so that everything that can go wrong does.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use gotgan_core::ids::GpuClass;
use gotgan_core::node::Liveness;
use gotgan_core::power::{PowerLimits, PowerTerms};
use gotgan_core::spec::DependencyKind;

use crate::cluster::TestCluster;

#[derive(Debug, Clone)]
pub struct NodeSketch {
    a100: u32,
    b200: u32,
    cpus: u32,
    memory_gib: u64,
    hall: bool,
    state: u8,
    /// Which of its GPUs are cut into what.
    cuts: Vec<usize>,
}

#[derive(Debug, Clone)]
pub struct JobSketch {
    project: usize,
    nodes: u32,
    kind: u8,
    gpus: u32,
    milli: u32,
    class: usize,
    cpus: u64,
    memory_gib: u64,
    priority: i32,
    place: u8,
    trouble: u8,
    scavenges: bool,
    /// Nodes that it could use beyond the fewest.
    more: u32,
    /// What its GPUs are to be capped at, if it asks for whole ones.
    cap: Option<u32>,
    /// The profile of the instances that it asks for.
    profile: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub struct Sketch {
    nodes: Vec<NodeSketch>,
    limits: [u32; 4],
    /// Started first, and some of them ended, so that what is free lies scattered.
    before: Vec<(JobSketch, bool)>,
    jobs: Vec<JobSketch>,
    /// What power limits are made of; `None`: there are none.
    power: Option<[u32; 6]>,
}

const PROJECTS: [&str; 4] = ["public/a/x", "public/a/y", "public/b", "public/lab"];
/// What a GPU is cut into.
const CUTS: [&[&str]; 4] = [&["1g.10gb"; 7], &["3g.40gb", "2g.20gb", "2g.20gb"], &[], &["7g.80gb"]];
const PROFILES: [&str; 4] = ["1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb"];
const CLASSES: [&str; 3] = ["a100", "b200", ""];

pub fn sketch() -> impl Strategy<Value = Sketch> {
    let before = vec((job(), any::<bool>()), 0..12);
    (vec(node(), 1..7), any::<[u32; 4]>(), before, vec(job(), 1..14)).prop_map(
        |(nodes, limits, before, jobs)| Sketch { nodes, limits, before, jobs, power: None },
    )
}

fn node() -> impl Strategy<Value = NodeSketch> {
    (0..3_u32, 0..5_u32, 1..24_u32, 1..24_u64, any::<bool>(), 0..8_u8).prop_map(
        |(a100, b200, cpus, memory_gib, hall, state)| {
            // Most nodes are of one class.
            let a100 = if hall && b200 > 0 { 0 } else { a100 };
            NodeSketch { a100, b200, cpus, memory_gib, hall, state, cuts: Vec::new() }
        },
    )
}

fn job() -> impl Strategy<Value = JobSketch> {
    let size = (0..4_usize, 1..4_u32, 0..6_u8, 1..5_u32, 1..1000_u32, 0..3_usize);
    let rest = (0..6_u64, 0..6_u64, -1..2_i32, 0..10_u8, 0..12_u8);
    (size, rest).prop_map(|(size, rest)| {
        let (project, nodes, kind, gpus, milli, class) = size;
        let (cpus, memory_gib, priority, place, trouble) = rest;
        JobSketch {
            project,
            nodes,
            kind,
            gpus,
            milli,
            class,
            cpus,
            memory_gib,
            priority,
            place,
            trouble,
            scavenges: false,
            more: 0,
            cap: None,
            profile: None,
        }
    })
}

impl Sketch {
    /// The cluster that was sketched, without guarantees.
    pub fn build(&self) -> TestCluster {
        self.build_with(None)
    }

    /// The same with all jobs in one project.
    pub fn of_one_project(mut self) -> Self {
        let before = self.before.iter_mut().map(|(job, _)| job);
        self.jobs.iter_mut().chain(before).for_each(|job| job.project = PROJECTS.len() - 1);
        self
    }

    /// The same where every second job that asks for GPUs is a scavenger, of those that run as of those that wait; all
    /// ask for GPUs.
    pub fn with_scavengers(mut self) -> Self {
        let before = self.before.iter_mut().map(|(job, _)| job);
        for (at, job) in before.chain(&mut self.jobs).enumerate() {
            job.kind = job.kind.max(1);
            job.scavenges = at % 2 == 0;
        }
        self
    }

    /// The same where most jobs can do with more nodes.
    pub fn with_elastic(mut self) -> Self {
        let before = self.before.iter_mut().map(|(job, _)| job);
        for (job, more) in before.chain(&mut self.jobs).zip((0..4).cycle()) {
            job.more = more;
        }
        self
    }

    /// The same where power is limited at every level, and some jobs ask for caps.
    pub fn with_power(mut self, numbers: [u32; 6]) -> Self {
        self.power = Some(numbers);
        let before = self.before.iter_mut().map(|(job, _)| job);
        for (job, number) in before.chain(&mut self.jobs).zip(numbers.into_iter().cycle()) {
            job.cap = (number % 3 == 0).then_some(300 + number % 5 * 100);
        }
        self
    }

    /// The same where two GPUs of three are cut, if these numbers want it, and every second job that asks for whole GPUs
    /// asks for instances, of those that run as of those that wait.
    pub fn with_instances(mut self, numbers: [u32; 4]) -> Self {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let number = |gpu: u32| numbers[at % 4] as usize / 7_usize.pow(gpu) % 6;
            node.cuts = (0..node.a100 + node.b200).map(number).collect();
        }
        let before = self.before.iter_mut().map(|(job, _)| job);
        for (at, job) in before.chain(&mut self.jobs).enumerate() {
            let profile = PROFILES[numbers[at % 4] as usize / 4_usize.pow(at as u32 % 5) % 4];
            job.profile = (at % 2 == 0).then_some(profile);
        }
        self
    }

    /// The same without jobs that come last.
    pub fn without_new(mut self) -> Self {
        self.jobs.clear();
        self
    }

    /// The same with guarantees and weights made of these numbers.
    pub fn build_guaranteed(&self, numbers: [u32; 8]) -> TestCluster {
        self.build_with(Some(numbers))
    }

    fn build_with(&self, guarantees: Option<[u32; 8]>) -> TestCluster {
        let mut cluster = TestCluster::new();
        self.power.into_iter().for_each(|numbers| cluster.power(power(numbers)));
        let [public, a, x, b] = self.limits.map(|limit| limit % 12);
        cluster.limit("public", &[("b200", 6 + public)]);
        cluster.limit("public/a", &[("any", a), ("a100", 4)]);
        cluster.limit("public/a/x", &[("b200", x)]);
        cluster.limit("public/a/y", &[]);
        cluster.limit("public/b", &[("b200", b), ("any", 9)]);
        let paths = PROJECTS.iter().zip(guarantees.iter().flat_map(|numbers| numbers.chunks(2)));
        for (path, numbers) in paths {
            let [a100, b200] = [numbers[0] % 4, numbers[1] % 7];
            cluster.guarantee(path, 1 + numbers[0] % 3, &[("a100", a100), ("b200", b200)]);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            node.add(&mut cluster, index);
        }
        let started: Vec<_> = self.before.iter().map(|(job, _)| job.submit(&mut cluster)).collect();
        cluster.start_all();
        for (id, (_, ends)) in started.into_iter().zip(&self.before) {
            if *ends && cluster.world.jobs[&id].status.state.is_active() {
                cluster.end(id);
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            node.befall(&mut cluster, &format!("n{index}"));
        }
        for job in &self.jobs {
            job.submit(&mut cluster);
        }
        cluster
    }
}

/// Limits of which some bind: nodes of a few hundred watts beside GPUs of 400 and 1,000.
fn power(numbers: [u32; 6]) -> PowerTerms {
    let class = |name: &str| GpuClass::new(name).unwrap();
    let [site, hall, rack, node, order, own] = numbers;
    let watts = |number: u32, least: u64, most: u64| least + u64::from(number) % (most - least);
    let some = |number: u32, least, most| {
        (!number.is_multiple_of(4)).then_some(watts(number, least, most))
    };
    let named = |name: &str, watts: Option<u64>| {
        watts.map(|watts| (name.to_owned(), watts)).into_iter().collect()
    };
    let ordered = (order % 2 == 0).then_some((class("b200"), 500 + order % 400));
    PowerTerms {
        gpu_watts: BTreeMap::from([(class("a100"), 400), (class("b200"), 1_000)]),
        idle_percent: 10,
        node_watts: own % 300,
        cap_watts: ordered.into_iter().collect(),
        limits: PowerLimits {
            site_watts: some(site, 1_000, 9_000),
            hall_watts: named("a", some(hall, 500, 5_000)),
            rack_watts: named("b1", some(rack, 500, 4_000)),
            node_watts: named("*", some(node, 500, 4_000)),
        },
        ..PowerTerms::default()
    }
}

impl NodeSketch {
    fn add(&self, cluster: &mut TestCluster, index: usize) {
        let hall = if self.hall { "a" } else { "b" };
        let rack = format!("{hall}{}", index % 2);
        let node = cluster.node(&format!("n{index}"));
        let mut node = node.gpus(self.a100, "a100").gpus(self.b200, "b200").caps(100);
        for (gpu, cut) in self.cuts.iter().enumerate() {
            node = match CUTS.get(*cut) {
                Some(cut) => node.cut(gpu, cut),
                None => node,
            };
        }
        let node = node.cpus(self.cpus).memory_gib(self.memory_gib);
        node.label("hall", hall).label("rack", &rack).add();
    }

    fn befall(&self, cluster: &mut TestCluster, name: &str) {
        match self.state {
            0 => cluster.drain(name, "fan"),
            1 => cluster.heard(name, Liveness::Lost),
            _ => {}
        }
    }
}

impl JobSketch {
    fn submit(&self, cluster: &mut TestCluster) -> gotgan_core::ids::JobId {
        let now_s = i64::from(self.trouble);
        let job = cluster.job().project(PROJECTS[self.project]).nodes(self.nodes);
        let job = job.cpus(self.cpus).memory_gib(self.memory_gib).priority(self.priority);
        let job = job.waiting_since_s(now_s);
        let class = CLASSES[self.class];
        let job = match (self.kind, self.profile, self.cap) {
            (0, _, _) => job,
            (1 | 2, _, _) => job.share(self.milli, class),
            (_, Some(profile), _) => job.mig(self.gpus, profile, class),
            (_, None, Some(watts)) => job.gpus(self.gpus, class).cap(watts),
            (_, None, None) => job.gpus(self.gpus, class),
        };
        let job = match self.place {
            0 => job.label("hall", "a"),
            1 => job.only_on(&["n0", "n1", "n2"]),
            2 => job.never_on(&["n1"]),
            3 | 4 => job.avoiding(&["n0", "n2"]),
            _ => job,
        };
        let job = if self.scavenges { job.scavenger() } else { job };
        let most = self.nodes + self.more;
        let job = if self.more > 0 { job.between(self.nodes, most) } else { job };
        match self.trouble {
            0 => job.not_before_ms(10),
            1 => job.after(DependencyKind::AfterAny, gotgan_core::ids::JobId(1)),
            _ => job,
        }
        .submit()
    }
}
