//! How long a pass takes on a large machine. Asserts no times; run it by hand, in release:
//! `cargo test --release -p gotgan-core --test core -- --ignored --nocapture scale`.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "measures the pass from outside and prints what it found"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_core::check;
use gotgan_core::estimate::lengths::RunLengths;
use gotgan_core::fairshare::{OrderRule, Standing, order};
use gotgan_core::ids::{Epoch, JobId, ProjectPath};
use gotgan_core::lifecycle::{Draft, commit_each};
use gotgan_core::plan::{Decision, Plan};
use gotgan_core::planner::{foresee, plan, plan_after, plan_event, plan_event_in_full};
use gotgan_core::topology::Level;

use crate::cluster::TestCluster;

const NODES: usize = 6250;
const WAITING: usize = 100_000;
const CLASSES: [&str; 6] = ["a100", "b200", "b300", "gb200", "h100", "h200"];

/// The shortest of several passes, which is the one least disturbed, with its decisions.
fn measure(cluster: &TestCluster, what: &str) -> Vec<Decision> {
    let pass = || {
        let before = Instant::now();
        let plan = plan(&cluster.world, &cluster.policy, cluster.now);
        (before.elapsed(), plan)
    };
    let (mut shortest, first) = pass();
    for _ in 0..5 {
        shortest = shortest.min(pass().0);
    }
    let (starts, waits) = (first.decisions.len(), first.report.cohorts.len());
    println!("{what}: {shortest:?}, {starts} start, {waits} cohorts wait");
    first.decisions
}

fn machine() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.policy.max_starts_per_pass = usize::MAX;
    for index in 0..NODES {
        cluster.node(&format!("node-{index:05}")).gpus(8, "b200").add();
    }
    for project in 0..1000 {
        cluster.limit(&format!("public/p{project}"), &[("b200", 40_000)]);
    }
    cluster
}

#[test]
#[ignore = "takes a while and asserts no times"]
fn cold_fill_and_full_machine() {
    let mut cluster = machine();
    for _ in 0..NODES {
        cluster.job().gpus(8, "b200").submit();
    }
    let filled = measure(&cluster, "cold fill, 6250 jobs of a whole node");
    let before = Instant::now();
    let found = check::check(&cluster.world, &filled);
    println!("check of that plan: {:?}, {found:?}", before.elapsed());
    cluster.start_all();
    for _ in 0..WAITING {
        cluster.job().gpus(8, "b200").submit();
    }
    measure(&cluster, "full machine, 100000 equal jobs wait");
    let before = Instant::now();
    let found = check::world(&cluster.world);
    println!("check of that world: {:?}, {found:?}", before.elapsed());
}

#[test]
#[ignore = "takes a while and asserts no times"]
fn full_machine_with_many_kinds_of_jobs() {
    let mut cluster = machine();
    for _ in 0..NODES {
        cluster.job().gpus(8, "b200").submit();
    }
    cluster.start_all();
    for index in 0..WAITING {
        let gpus = u32::try_from(1 + index % 8).unwrap();
        let nodes = u32::try_from(1 + index % 13).unwrap();
        let project = format!("public/p{}", index % 1000);
        let job = cluster.job().project(&project).gpus(gpus, "b200").nodes(nodes);
        job.cpus(1 + index as u64 % 5).submit();
    }
    measure(&cluster, "full machine, 100000 jobs of 520 kinds and 1000 projects wait");
    measure_look(&cluster);
}

/// How long it takes to look ahead, and to make the sketch that is looked at.
fn measure_look(cluster: &TestCluster) {
    let before = Instant::now();
    let sketch = cluster.world.sketch();
    println!("sketch of that world: {:?}", before.elapsed());
    let before = Instant::now();
    let (policy, planned) = (&cluster.policy, &cluster.planned);
    let found = foresee(&sketch, policy, planned, &RunLengths::default(), cluster.now);
    println!("look ahead: {:?}, {} jobs", before.elapsed(), found.jobs.len());
}

#[test]
#[ignore = "takes a while and asserts no times"]
fn half_empty_machine_filled_with_single_gpus_and_shares() {
    let mut cluster = machine();
    for _ in 0..25_000 {
        cluster.job().gpus(1, "b200").submit();
    }
    measure(&cluster, "25000 jobs of one GPU on an empty machine");
    cluster.start_all();
    for _ in 0..20_000 {
        cluster.job().share(250, "b200").submit();
    }
    measure(&cluster, "20000 shares beside them");
}

/// 1,125 projects below 45 programmes of 3 domains, all with some use.
fn national_tree() -> BTreeMap<ProjectPath, Standing> {
    let mut tree = BTreeMap::new();
    let mut add = |name: String, number: u64| {
        let share = u32::try_from(number % 97 + 1).unwrap();
        let standing = Standing::of_use(share, number * 7_919_777 % (1 << 32));
        tree.insert(ProjectPath::new(&name).unwrap(), standing);
    };
    for domain in 0..3 {
        add(format!("d{domain}"), domain);
        for programme in 0..15 {
            add(format!("d{domain}/p{programme}"), domain * 15 + programme);
            for project in 0..25 {
                add(
                    format!("d{domain}/p{programme}/{project}"),
                    domain * 375 + programme * 25 + project,
                );
            }
        }
    }
    tree
}

#[test]
#[ignore = "takes a while and asserts no times"]
fn order_of_a_national_tree() {
    let tree = national_tree();
    for rule in [OrderRule::UsePerShare, OrderRule::FairTree] {
        let pass = || {
            let before = Instant::now();
            let leaves = order(&tree, rule).len();
            (before.elapsed(), leaves)
        };
        let (shortest, leaves) = (0..100).map(|_| pass()).min().unwrap();
        println!("{rule:?}: {shortest:?} for {leaves} leaves of {} nodes", tree.len());
    }
}

/// As the one without guarantees: half of the jobs are within one, the rest borrows.
#[test]
#[ignore = "takes a while and asserts no times"]
fn full_machine_with_many_kinds_of_jobs_and_guarantees() {
    let mut cluster = machine();
    for _ in 0..NODES {
        cluster.job().gpus(8, "b200").submit();
    }
    cluster.start_all();
    for project in 0..1000 {
        cluster.guarantee(&format!("public/p{project}"), 1 + project % 3, &[("b200", 40)]);
    }
    for index in 0..WAITING {
        let gpus = u32::try_from(1 + index % 8).unwrap();
        let nodes = u32::try_from(1 + index % 13).unwrap();
        let project = format!("public/p{}", index % 1000);
        let job = cluster.job().project(&project).gpus(gpus, "b200").nodes(nodes);
        job.cpus(1 + index as u64 % 5).submit();
    }
    measure(&cluster, "full machine, 100000 jobs of 1000 projects with guarantees wait");
    let found = check::world(&cluster.world);
    println!("{found:?}");
}

/// The whole machine is borrowed in single GPUs by many projects, and one asks for a large part of it.
#[test]
#[ignore = "takes a while and asserts no times"]
fn a_large_gang_gets_its_guarantee_back() {
    let mut cluster = machine();
    for index in 0..NODES * 8 {
        cluster.job().project(&format!("public/p{}", index % 1000)).gpus(1, "b200").submit();
    }
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(3600);
    cluster.guarantee("public/lab", 1, &[("b200", 8000)]);
    for (gpus, nodes) in [(1, 1), (8, 1), (8, 16), (8, 1000)] {
        let job = cluster.job().gpus(gpus, "b200").nodes(nodes).submit();
        let stops = measure(&cluster, &format!("{nodes} nodes with {gpus} GPUs each"));
        let (mut world, before) = (cluster.world.clone(), Instant::now());
        let mut draft = Draft::new(&mut world, &cluster.policy, Epoch(1), cluster.now);
        let refused = commit_each(&mut draft, &stops).into_iter().filter(Result::is_err).count();
        println!(
            "{} attempts stop, committed in {:?}, {refused} refused",
            stops.len(),
            before.elapsed()
        );
        cluster.status(job, |status| status.state = gotgan_core::job::JobState::Held);
    }
    cluster.check();
}

/// 347 domains of 18 nodes: gangs that keep together start, and others wait for a domain that is free.
#[test]
#[ignore = "takes a while and asserts no times"]
fn gangs_of_domains() {
    let mut cluster = TestCluster::new();
    cluster.policy.max_starts_per_pass = usize::MAX;
    for index in 0..NODES {
        let node = cluster.node(&format!("node-{index:05}")).gpus(4, "gb200");
        node.label("nvlink", &format!("domain-{:03}", index / 18)).add();
    }
    let same = |cluster: &mut TestCluster, keeps: bool, nodes: u32, jobs: u32| {
        for _ in 0..jobs {
            let job = cluster.job().gpus(4, "gb200").nodes(nodes);
            if keeps {
                job.one(Level::Nvlink).submit()
            } else {
                job.submit()
            };
        }
    };
    for keeps in [false, true] {
        let mut cluster = cluster.copy();
        same(&mut cluster, keeps, 4, 1000);
        measure(
            &cluster,
            &format!("1000 gangs of 4 nodes on an empty machine, kept together: {keeps}"),
        );
        cluster.start_all();
        same(&mut cluster, keeps, 18, 10_000);
        measure(&cluster, &format!("10000 gangs of 18 nodes wait, kept together: {keeps}"));
    }
    cluster.check();
}

/// A project of the national tree: 3 domains of 15 programmes of 25.
fn national_project(index: usize) -> String {
    format!("d{}/p{}/{}", index % 3, index / 3 % 15, index / 45 % 25)
}

/// Every node of that tree.
fn national_paths() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for project in (0..1125).map(national_project) {
        let ends = project.match_indices('/').map(|(at, _)| at).chain([project.len()]);
        paths.extend(ends.map(|end| project[..end].to_owned()));
    }
    paths
}

/// GPUs on each node, nodes and time limit in hours of a job of the national mix.
fn national_job(index: usize) -> (u32, u32, i64) {
    // A step that visits all of 10,000 in an order without a pattern.
    let per_myriad = index * 7_919 % 10_000;
    let (gpus, nodes) = match per_myriad {
        0..6_000 => (1, 1),
        6_000..7_000 => (2, 1),
        7_000..7_800 => (4, 1),
        7_800..9_200 => (8, 1),
        9_200..9_600 => (8, 2 + u32::try_from(index % 3).unwrap()),
        9_600..9_850 => (8, 8 + 8 * u32::try_from(index % 2).unwrap()),
        9_850..9_970 => (8, 32),
        9_970..9_995 => (8, 128),
        _ => (8, 512),
    };
    let hours = [1, 4, 4, 12, 12, 24, 48, 96, 168][index / 13 % 9];
    (gpus, nodes, hours)
}

/// Nodes of six classes in racks, full, and so many waiting jobs of 1,125 projects with fair share.
fn nation(nodes: usize, waiting: usize) -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.policy.max_starts_per_pass = usize::MAX;
    cluster.policy.planned_gangs_per_project = 2;
    (cluster.policy.planned_gangs_after_s, cluster.policy.planned_after_s) = (0, 0);
    for index in 0..nodes {
        let class = CLASSES[index * CLASSES.len() / nodes];
        let node = cluster.node(&format!("node-{index:05}")).gpus(8, class);
        node.label("rack", &format!("rack-{:04}", index / 18)).add();
    }
    for path in national_paths() {
        cluster.limit(&path, &[]);
    }
    let submit = |cluster: &mut TestCluster, index: usize, nodes_max: u32| {
        cluster.later(i64::from(index.is_multiple_of(10)));
        let (gpus, nodes, hours) = national_job(index);
        let class = CLASSES[index / 7 % CLASSES.len()];
        let job = cluster.job().project(&national_project(index)).hours(hours);
        let job = job.gpus(gpus, class).nodes(nodes.min(nodes_max));
        if nodes > 1 && nodes < 16 && index.is_multiple_of(4) {
            job.one(Level::Rack).submit()
        } else {
            job.submit()
        };
    };
    (0..nodes * 24 / 5).for_each(|index| submit(&mut cluster, index, 4));
    cluster.run_all();
    (0..waiting).for_each(|index| submit(&mut cluster, index, 512));
    cluster.run_all();
    cluster
}

/// Times of passes one second apart, in order, after some of which nothing is told.
fn passes(cluster: &mut TestCluster, before: usize, count: usize) -> (Vec<Duration>, Plan) {
    let (mut took, mut last) = (Vec::new(), None);
    for pass in 0..before + count {
        let began = Instant::now();
        let plan = plan_after(&cluster.planned, &cluster.world, &cluster.policy, cluster.now);
        if pass >= before {
            took.push(began.elapsed());
        }
        cluster.planned = Arc::clone(&plan.report.planned);
        cluster.later(1);
        last = Some(plan);
    }
    took.sort_unstable();
    (took, last.unwrap())
}

/// Waiting jobs, and cohorts of which the last pass said something of their own.
fn told(cluster: &TestCluster, plan: &Plan) -> String {
    let (running, waiting) = (cluster.world.attempts.len(), cluster.world.queue.len());
    let ([cohorts, ..], planned) = (cluster.world.cohorts.sizes(), cluster.planned.len());
    let told = plan.report.cohorts.len();
    format!(
        "{running} run, {waiting} wait in {cohorts} cohorts, {planned} starts planned, {told} lists"
    )
}

/// 6,250 nodes, 100,000 waiting jobs, hundreds of planned starts, with the reasons of every job.
#[test]
#[ignore = "takes a while and asserts no times"]
fn a_nation_waits() {
    let mut cluster = nation(NODES, WAITING);
    let (took, plan) = passes(&mut cluster, 300, 100);
    println!("{}: p50 {:?}, p99 {:?}", told(&cluster, &plan), took[50], took[99]);
}

/// A nation where every project, programme and domain is guaranteed some GPUs of every class.
fn guaranteed_nation() -> TestCluster {
    let mut cluster = nation(NODES, WAITING);
    for path in national_paths() {
        let gpus = [2000, 100, 4][path.matches('/').count()];
        cluster.guarantee(&path, 1, &CLASSES.map(|class| (class, gpus)));
    }
    cluster
}

/// The guarantees come all at once, and are taken: what stops for somebody ends ten seconds later, and a few jobs end by
/// themselves every second.
#[test]
#[ignore = "takes a while and asserts no times"]
fn a_nation_with_guarantees_waits() {
    let mut cluster = guaranteed_nation();
    let (mut took, mut recalled) = (Vec::new(), VecDeque::new());
    for second in 0..60 {
        let began = Instant::now();
        let plan = plan_after(&cluster.planned, &cluster.world, &cluster.policy, cluster.now);
        took.push(began.elapsed());
        let stops = plan.decisions.iter().filter_map(|decision| match decision {
            Decision::Preempt { attempt, .. } => Some(attempt.job),
            Decision::Start { .. } => None,
        });
        let stops: BTreeSet<JobId> = stops.collect();
        let starts = plan.decisions.len() - stops.len();
        println!("{second:2} s: {:?}, {} recalls, {starts} starts", took[second], stops.len());
        recalled.push_back(stops);
        cluster.planned = Arc::clone(&plan.report.planned);
        cluster.take(&plan);
        cluster.later(1);
        if recalled.len() == 10 {
            recalled.pop_front().unwrap().into_iter().for_each(|job| cluster.end(job));
        }
        for at in 0..5 {
            let at = (second * 7_919 + at * 1_009) % cluster.world.attempts.len();
            let attempt = cluster.world.attempts.values().nth(at).unwrap();
            if attempt.stop.is_none() {
                let job = attempt.id.job;
                cluster.end(job);
            }
        }
    }
    took.sort_unstable();
    println!("p50 {:?}, at most {:?}", took[30], took[59]);
}

/// Jobs of a nation end one after the other, and others start: how long a pass for each event takes, the changes of the
/// world left out; beside it what the full passes in between take.
fn events(cluster: &mut TestCluster, count: usize) -> (Vec<Duration>, usize) {
    let (mut took, mut starts) = (Vec::new(), 0);
    for event in 0..count {
        if event % 50 == 0 {
            cluster.start_unchecked();
        }
        let at = event * 7_919 % cluster.world.attempts.len();
        let job = cluster.world.attempts.keys().nth(at).unwrap().job;
        cluster.later(1);
        cluster.end(job);
        let began = Instant::now();
        let plan = {
            let TestCluster { bearings, world, policy, now, .. } = &mut *cluster;
            plan_event(bearings, world, policy, *now).unwrap()
        };
        took.push(began.elapsed());
        // Right before a full pass, so that what it does to the caches is not measured with the next event.
        if event % 100 == 49 {
            let TestCluster { bearings, world, policy, now, .. } = &*cluster;
            let long = plan_event_in_full(bearings, world, policy, *now).unwrap();
            assert_eq!(plan.decisions, long.decisions);
        }
        starts += plan.decisions.len();
        cluster.take(&plan);
    }
    took.sort_unstable();
    (took, starts)
}

/// One event after the other beside 100,000 waiting jobs on 6,250 full nodes.
#[test]
#[ignore = "takes a while and asserts no times"]
fn events_of_a_nation() {
    let mut cluster = nation(NODES, WAITING);
    _ = passes(&mut cluster, 200, 1);
    let (took, starts) = events(&mut cluster, 1_000);
    let (half, most, last) = (took[500], took[990], took[999]);
    println!("1,000 events, {starts} starts: p50 {half:?}, p99 {most:?}, at most {last:?}");
}

/// How the cost of a pass grows with what waits and with the machine.
#[test]
#[ignore = "takes minutes and asserts no times"]
fn passes_as_a_nation_grows() {
    let sizes = [
        (NODES / 10, WAITING),
        (NODES, WAITING),
        (10 * NODES, WAITING),
        (NODES, 1_000),
        (NODES, 10_000),
        (NODES, 10 * WAITING),
    ];
    for (nodes, waiting) in sizes {
        let mut cluster = nation(nodes, waiting);
        let (took, plan) = passes(&mut cluster, 20, 20);
        println!(
            "{nodes} nodes, {waiting} jobs: p50 {:?}, at most {:?}; {}",
            took[10],
            took[19],
            told(&cluster, &plan)
        );
    }
}
