//! The checker finds what was planted.

use std::sync::Arc;

use gotgan_core::amount::{CpuMilli, GpuMilli, MemoryMib};
use gotgan_core::attempt::Placement;
use gotgan_core::check;
use gotgan_core::ids::{GpuClass, GpuUuid, JobId, NodeName};
use gotgan_core::job::JobState;
use gotgan_core::node::Liveness;
use gotgan_core::plan::Decision;
use gotgan_core::spec::DependencyKind;
use gotgan_core::world::QueueKey;

use crate::cluster::TestCluster;

/// What is said of it, and how to bring it about.
type Way<F> = (&'static str, F);
type Happening = fn(&mut TestCluster, JobId);

/// Two nodes, a gang of both with 4 GPUs each that is about to start, and another job that could.
fn cluster() -> (TestCluster, JobId, Placement) {
    let mut cluster = TestCluster::new();
    cluster.limit("public/tight", &[("b200", 9)]);
    cluster.node("n1").gpus(8, "b200").label("hall", "a").add();
    cluster.node("n2").gpus(8, "b200").label("hall", "a").add();
    cluster.node("n3").gpus(8, "h200").add();
    let job =
        cluster.job().project("public/tight").gpus(4, "b200").nodes(2).label("hall", "a").submit();
    cluster.job().gpus(1, "b200").submit();
    let placement = cluster.check().placement(job).unwrap().clone();
    (cluster, job, placement)
}

fn found(cluster: &TestCluster, job: JobId, placement: Placement) -> String {
    let decision = Decision::Start { job, placement: Arc::new(placement) };
    match check::decision(&cluster.world, &decision, cluster.now) {
        Ok(()) => "nothing".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn a_sound_decision_is_not_refused() {
    let (cluster, job, placement) = cluster();
    assert_eq!(found(&cluster, job, placement), "nothing");
}

#[test]
fn every_way_to_spoil_a_placement_is_found() {
    let ways: [Way<fn(&mut Placement)>; 14] = [
        ("gets 1", |p| p.nodes.truncate(1)),
        ("a node twice", |p| p.nodes[1] = p.nodes[0].clone()),
        ("is not known", |p| p.nodes[0].node = NodeName::new("n9").unwrap()),
        ("has no GPU", |p| p.nodes[0].gpus[0].uuid = GpuUuid::new("GPU-n2-7").unwrap()),
        ("thousandths free", |p| p.nodes[0].gpus[1] = p.nodes[0].gpus[0].clone()),
        ("thousandths of GPUs", |p| p.nodes[0].gpus.truncate(3)),
        ("thousandths of GPUs", |p| p.nodes[0].gpus[0].milli = GpuMilli(500)),
        ("other CPUs", |p| p.nodes[0].cpu_milli = CpuMilli(1)),
        ("other CPUs", |p| p.nodes[0].memory_mib = MemoryMib(1)),
        ("too few free CPUs", |p| p.nodes[0].cpu_milli = CpuMilli(999_000)),
        ("too little free memory", |p| p.nodes[0].memory_mib = MemoryMib(1 << 30)),
        ("another class", |p| p.class = Some(GpuClass::new("h200").unwrap())),
        ("without a class", |p| p.class = None),
        ("does not carry", |p| p.nodes[0].node = NodeName::new("n3").unwrap()),
    ];
    for (expected, spoil) in ways {
        let (cluster, job, mut placement) = cluster();
        spoil(&mut placement);
        let decision = Decision::Start { job, placement: Arc::new(placement) };
        let found = check::check(&cluster.world, &[decision]);
        assert!(found.iter().any(|one| one.text.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn every_way_the_world_may_have_moved_on_is_found() {
    let ways: [Way<Happening>; 9] = [
        ("is held", |c, job| c.status(job, |status| status.state = JobState::Held)),
        ("waits before", |c, job| {
            let later = c.now.plus_seconds(1);
            c.status(job, |status| status.not_before = later);
        }),
        ("drained by kim: fan", |c, _| c.drain("n1", "fan")),
        ("not heard lately", |c, _| c.heard("n2", Liveness::Suspect)),
        ("above its limit", |c, _| c.limit("public/tight", &[("b200", 7)])),
        ("above its limit", |c, _| c.limit("public", &[("any", 7)])),
        ("is not known", |c, job| c.status(job, |status| status.state = JobState::Cancelled)),
        ("thousandths free", |c, _| {
            c.job().gpus(8, "b200").only_on(&["n1"]).priority(9).submit();
            c.start_all();
        }),
        ("is starting", |c, _| {
            c.start_all();
        }),
    ];
    for (expected, happen) in ways {
        let (mut cluster, job, placement) = cluster();
        happen(&mut cluster, job);
        let found = found(&cluster, job, placement);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn a_dependency_that_is_not_met_is_found() {
    let (mut cluster, job, placement) = cluster();
    let other = cluster.job().submit();
    cluster.status(job, |status| {
        let kind = DependencyKind::AfterOk;
        status.waits_for.push(gotgan_core::spec::Dependency::on(kind, other));
    });
    assert!(found(&cluster, job, placement).contains("waits for job 3"));
}

#[test]
fn decisions_are_judged_by_what_those_before_them_took() {
    let (cluster, job, placement) = cluster();
    let decision = Decision::Start { job, placement: Arc::new(placement) };
    let found = check::check(&cluster.world, &[decision.clone(), decision]);
    let texts: Vec<_> = found.iter().map(|one| one.text.as_str()).collect();
    assert!(texts.contains(&"is started twice by the same plan"), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("above its limit")), "{texts:?}");
    assert!(
        texts.iter().any(|text| text.contains("thousandths free, 2000 are taken")),
        "{texts:?}"
    );
}

#[test]
fn a_world_that_does_not_add_up_is_found() {
    let ways: [Way<Happening>; 7] = [
        ("thousandths", |c, _| node(c, "n1").free.gpus[0] = GpuMilli(500)),
        ("CPUs free", |c, _| node(c, "n1").free.cpu_milli = CpuMilli(1)),
        ("lists attempts", |c, _| node(c, "n1").attempts.clear()),
        ("is not queued", |c, _| {
            let key = *c.world.queue.first().unwrap();
            c.world.queue.remove(&key);
        }),
        ("not its own", |c, _| {
            let key = *c.world.queue.first().unwrap();
            c.world.queue.remove(&key);
            c.world.queue.insert(QueueKey { queued: gotgan_core::amount::UnixMicros(0), ..key });
        }),
        ("counts", |c, _| c.world.usage = gotgan_core::world::Usage::default()),
        ("holds resources", |c, job| c.status(job, |status| status.state = JobState::Held)),
    ];
    for (expected, spoil) in ways {
        let (mut cluster, job, _) = cluster();
        cluster.start_all();
        cluster.job().submit();
        spoil(&mut cluster, job);
        let found = check::world(&cluster.world);
        assert!(found.iter().any(|one| one.text.contains(expected)), "{expected}: {found:?}");
    }
}

fn node<'a>(cluster: &'a mut TestCluster, name: &str) -> &'a mut gotgan_core::world::Node {
    cluster.world.nodes.get_mut(name).unwrap()
}
