//! What must hold in every world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::GpuMilli;
use gotgan_core::change::Change;
use gotgan_core::ids::JobId;
use gotgan_core::job::Job;
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::planner::plan;
use gotgan_core::spec::JobSpec;
use gotgan_core::world::World;
use proptest::prelude::*;

use crate::cluster::{Outcome, TestCluster};
use crate::naive;
use crate::sketch::sketch;

/// The planner's starts in the words of the naive one.
fn starts(cluster: &TestCluster, decisions: &[Decision]) -> BTreeMap<u64, naive::Start> {
    let start = |decision: &Decision| {
        let Decision::Start { job, placement } = decision else {
            panic!("stops what is too young: {decision:?}");
        };
        let nodes = placement.nodes.iter().map(|allocation| {
            let node = &cluster.world.nodes[&allocation.node];
            let index = |uuid| node.gpu_index(uuid).unwrap();
            (allocation.node.clone(), allocation.gpus.iter().map(|gpu| index(&gpu.uuid)).collect())
        });
        (job.0, nodes.collect())
    };
    decisions.iter().map(start).collect()
}

/// What each path holds of each class, counted from the attempts alone; class `""` is all together.
fn held(world: &World) -> BTreeMap<(String, String), GpuMilli> {
    let mut held: BTreeMap<(String, String), GpuMilli> = BTreeMap::new();
    for attempt in world.attempts.values() {
        let Some(class) = &attempt.placement.class else {
            continue;
        };
        for path in attempt.project.self_and_ancestors() {
            *held.entry((path.to_owned(), class.to_string())).or_default() += attempt.gpus();
            *held.entry((path.to_owned(), String::new())).or_default() += attempt.gpus();
        }
    }
    held
}

fn limit(world: &World, path: &str, class: &str) -> GpuMilli {
    let node = &world.quota.nodes[path];
    let limit = if class.is_empty() { node.any_limit } else { node.limits.get(class).copied() };
    limit.unwrap_or(GpuMilli(u64::MAX))
}

/// What the planner decides, and what the naive one does.
fn as_the_naive_one(cluster: &mut TestCluster) -> Result<(), TestCaseError> {
    let outcome = cluster.check();
    let naive = naive::plan(&cluster.world, cluster.now);
    let naive: BTreeMap<u64, naive::Start> =
        naive.into_iter().map(|(job, start)| (job.0, start)).collect();
    prop_assert_eq!(starts(cluster, &outcome.plan.decisions), naive);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_planner_decides_exactly_as_the_naive_one(sketch in sketch()) {
        let mut cluster = sketch.build();
        as_the_naive_one(&mut cluster)?;
    }

    #[test]
    fn where_all_are_of_one_project_it_decides_exactly_as_the_naive_one_too(sketch in sketch()) {
        let mut cluster = sketch.of_one_project().build();
        as_the_naive_one(&mut cluster)?;
    }

    #[test]
    fn with_instances_it_decides_exactly_as_the_naive_one_too(
        sketch in sketch(), cuts in any::<[u32; 4]>(),
    ) {
        let mut cluster = sketch.with_instances(cuts).build();
        as_the_naive_one(&mut cluster)?;
    }

    #[test]
    fn with_instances_and_guarantees_it_decides_exactly_as_the_naive_one_too(
        sketch in sketch(), cuts in any::<[u32; 4]>(), guarantees in any::<[u32; 8]>(),
    ) {
        let mut cluster = sketch.with_instances(cuts).build_guaranteed(guarantees);
        as_the_naive_one(&mut cluster)?;
    }

    #[test]
    fn instances_are_given_out_as_a_whole_and_cards_never_come_to_more_than_they_are(
        sketch in sketch(), cuts in any::<[u32; 4]>(),
    ) {
        let mut cluster = sketch.with_instances(cuts).build();
        cluster.start_all();
        let mut given: BTreeMap<String, u64> = BTreeMap::new();
        for attempt in cluster.world.attempts.values() {
            let asked = &cluster.world.jobs[&attempt.id.job].spec.per_node.gpus;
            prop_assert_eq!(attempt.gpus(), asked.amount().times(attempt.placement.nodes.len() as u64));
            for place in &attempt.placement.nodes {
                for held in &place.gpus {
                    let card = cluster.world.nodes[&place.node].card_of(&held.uuid).unwrap();
                    prop_assert_eq!(card.uuid == held.uuid, asked.kind().is_none());
                    *given.entry(card.uuid.to_string()).or_default() += held.milli.0;
                }
            }
        }
        prop_assert!(given.values().all(|milli| *milli <= 1000), "{:?}", given);
        let second = cluster.check();
        prop_assert!(second.plan.decisions.is_empty(), "{:?}", second.plan.decisions);
    }

    #[test]
    fn with_guarantees_it_decides_exactly_as_the_naive_one_too(
        sketch in sketch(), guarantees in any::<[u32; 8]>(),
    ) {
        let mut cluster = sketch.build_guaranteed(guarantees);
        as_the_naive_one(&mut cluster)?;
    }

    #[test]
    fn with_power_limits_it_decides_exactly_as_the_naive_one_too(
        sketch in sketch(), power in any::<[u32; 6]>(),
    ) {
        let mut cluster = sketch.with_power(power).build();
        as_the_naive_one(&mut cluster)?;
    }

    #[test]
    fn with_power_limits_every_job_starts_or_has_a_reason_and_a_second_pass_starts_nothing(
        sketch in sketch(), power in any::<[u32; 6]>(), guarantees in any::<[u32; 8]>(),
    ) {
        let mut cluster = sketch.with_power(power).with_elastic().build_guaranteed(guarantees);
        let outcome = cluster.start_all();
        for job in cluster.world.queue.iter().map(|key| key.job) {
            prop_assert!(!outcome.blockers(job).is_empty(), "job {}", job);
        }
        let second = cluster.check();
        prop_assert!(second.plan.decisions.is_empty(), "{:?}", second.plan.decisions);
    }

    #[test]
    fn with_guarantees_every_job_starts_or_has_a_reason_and_a_second_pass_starts_nothing(
        sketch in sketch(), guarantees in any::<[u32; 8]>(),
    ) {
        let mut cluster = sketch.build_guaranteed(guarantees);
        let outcome = cluster.start_all();
        for job in cluster.world.queue.iter().map(|key| key.job) {
            prop_assert!(!outcome.blockers(job).is_empty(), "job {}", job);
        }
        let second = cluster.check();
        prop_assert!(second.plan.decisions.is_empty(), "{:?}", second.plan.decisions);
    }

    #[test]
    fn what_is_said_only_to_join_the_queue_does_not_start(
        sketch in sketch(), guarantees in any::<[u32; 8]>(), other in any::<prop::sample::Index>(),
    ) {
        let mut cluster = sketch.build_guaranteed(guarantees);
        let report = cluster.start_all().plan.report;
        let waiting: Vec<_> = cluster.world.queue.iter().map(|key| key.job).collect();
        let waiting: Vec<_> = waiting.iter().map(|id| cluster.world.jobs[id].clone()).collect();
        prop_assume!(!waiting.is_empty());
        let project = other.get(&waiting).spec.project.clone();
        for (number, like) in (1_000_000..).zip(waiting) {
            let spec = JobSpec { project: project.clone(), ..JobSpec::clone(&like.spec) };
            let job = Job { id: JobId(number), spec: Arc::new(spec), ..Job::clone(&like) };
            if !report.joins_queue(&job) {
                continue;
            }
            let mut with_it = cluster.copy();
            let id = job.id;
            with_it.apply(&Change::JobSubmitted(Arc::new(job)));
            let plan = plan(&with_it.world, &with_it.policy, with_it.now);
            let starts = plan.decisions.iter().any(
                |decision| matches!(decision, Decision::Start { job, .. } if *job == id),
            );
            prop_assert!(!starts, "job {} starts", id);
        }
    }

    #[test]
    fn no_path_ever_holds_more_than_its_limit(sketch in sketch()) {
        let mut cluster = sketch.build();
        cluster.start_all();
        for ((path, class), held) in held(&cluster.world) {
            prop_assert!(held <= limit(&cluster.world, &path, &class), "{} {}", path, class);
        }
    }

    #[test]
    fn no_gpu_is_given_out_twice_and_every_gang_is_whole(sketch in sketch()) {
        let mut cluster = sketch.build();
        cluster.start_all();
        let mut given: BTreeMap<String, u64> = BTreeMap::new();
        for attempt in cluster.world.attempts.values() {
            let job = &cluster.world.jobs[&attempt.id.job];
            let names: BTreeSet<_> = attempt.placement.nodes.iter().map(|n| &n.node).collect();
            prop_assert_eq!(names.len(), job.spec.nodes as usize);
            for gpu in attempt.placement.nodes.iter().flat_map(|node| &node.gpus) {
                *given.entry(gpu.uuid.to_string()).or_default() += gpu.milli.0;
            }
        }
        prop_assert!(given.values().all(|milli| *milli <= 1000), "{:?}", given);
    }

    #[test]
    fn every_job_that_was_looked_at_starts_or_has_a_reason(sketch in sketch()) {
        let mut cluster = sketch.build();
        let outcome = cluster.check();
        for key in &cluster.world.queue {
            let starts = outcome.placement(key.job).is_some();
            let reasons = outcome.blockers(key.job);
            prop_assert!(starts == reasons.is_empty(), "job {}: {:?}", key.job, reasons);
            for blocker in reasons.iter().filter(|b| b.kind != BlockerKind::RetryDelay) {
                prop_assert!(
                    blocker.available < blocker.needed.max(1) || blocker.kind == BlockerKind::Order,
                    "job {}: {:?}", key.job, blocker
                );
            }
        }
    }

    /// Nothing that could have started was left, and what was said of the rest stays true.
    #[test]
    fn planning_again_after_a_plan_starts_nothing_and_says_the_same(sketch in sketch()) {
        let mut cluster = sketch.build();
        let first = cluster.start_all();
        let second = cluster.check();
        prop_assert!(second.plan.decisions.is_empty(), "{:?}", second.plan.decisions);
        // A dependency's note has the other job's state, and that job may just have started.
        let lists = |outcome: &Outcome| {
            let mut waiting = outcome.waiting.clone();
            waiting.retain(|_, list| list.iter().all(|one| one.kind != BlockerKind::Dependency));
            waiting
        };
        prop_assert_eq!(lists(&first), lists(&second));
    }

    #[test]
    fn small_passes_of_one_project_end_where_one_large_one_does(sketch in sketch()) {
        let sketch = sketch.of_one_project();
        let mut small = sketch.build();
        let mut large = sketch.build();
        small.policy.max_starts_per_pass = 1;
        large.start_all();
        while !small.start_all().plan.decisions.is_empty() {}
        let placed = |cluster: &TestCluster| -> Vec<_> {
            cluster.world.attempts.values().map(|a| (a.id, a.placement.clone())).collect()
        };
        prop_assert_eq!(placed(&small), placed(&large));
    }
}
