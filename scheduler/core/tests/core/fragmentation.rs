//! Fragmentation: the measure, and that the planner places by it.

use gotgan_core::amount::{CpuMilli, GpuMilli, MemoryMib};
use gotgan_core::fragmentation::{
    ClassNumber, ClassSet, Counts, Fragments, GpuShape, Mix, Room, Shape,
};
use proptest::prelude::*;

use crate::cluster::TestCluster;

fn shapes() -> impl Strategy<Value = Shape> {
    let gpus = prop_oneof![
        Just(GpuShape::None),
        (1_u64..1000).prop_map(|milli| GpuShape::Share(GpuMilli(milli))),
        (1_u32..9).prop_map(GpuShape::Whole),
    ];
    let classes = prop_oneof![Just(ClassSet::ANY), Just(ClassSet::only(ClassNumber(1)))];
    (gpus, classes, 0_u64..16_000, 0_u64..65_536).prop_map(|(gpus, classes, cpu, memory)| Shape {
        gpus,
        classes,
        cpu_milli: CpuMilli(cpu),
        memory_mib: MemoryMib(memory),
    })
}

fn rooms() -> impl Strategy<Value = Room> {
    let gpus = proptest::collection::vec(prop_oneof![Just(1000_u64), 0_u64..=1000], 0..9);
    (0_u16..2, 0_u64..128_000, 0_u64..524_288, gpus).prop_map(|(class, cpu, memory, gpus)| Room {
        class: ClassNumber(class),
        cpu_milli: CpuMilli(cpu),
        memory_mib: MemoryMib(memory),
        gpus: gpus.into_iter().map(GpuMilli).collect(),
    })
}

fn mixes() -> impl Strategy<Value = Mix> {
    let counts = proptest::collection::btree_map(shapes(), 1_u64..1000, 0..80);
    counts.prop_map(|counts: Counts| Mix::of(&counts))
}

proptest! {
    #[test]
    fn no_more_is_lost_than_is_free(room in rooms(), mix in mixes()) {
        prop_assert!(mix.fragments(&room) <= Fragments(room.free().times(mix.jobs()).0));
    }

    #[test]
    fn a_choice_takes_exactly_what_is_asked(room in rooms(), mix in mixes(), shape in shapes()) {
        let choice = mix.choose(&room, mix.fragments(&room), &shape);
        prop_assert_eq!(choice.is_some(), room.fits(&shape));
        let mut after = room.clone();
        let gpu = choice.and_then(|choice| choice.gpu);
        prop_assert_eq!(after.take(&shape, gpu), choice.is_some());
        if choice.is_some() {
            prop_assert_eq!(after.free() + shape.gpus.milli(), room.free());
            prop_assert_eq!(after.cpu_milli + shape.cpu_milli, room.cpu_milli);
            prop_assert_eq!(after.memory_mib + shape.memory_mib, room.memory_mib);
            let broken = |(now, before): (&GpuMilli, &GpuMilli)| now > before;
            prop_assert!(!after.gpus.iter().zip(&room.gpus).any(broken));
        } else {
            prop_assert_eq!(after, room);
        }
    }

    #[test]
    fn a_choice_is_the_cheapest_of_all_gpus(room in rooms(), mix in mixes(), milli in 1_u64..1000) {
        let shape = Shape {
            gpus: GpuShape::Share(GpuMilli(milli)),
            classes: ClassSet::ANY,
            cpu_milli: CpuMilli(1000),
            memory_mib: MemoryMib::ZERO,
        };
        let before = mix.fragments(&room);
        let all = (0..room.gpus.len()).filter_map(|gpu| mix.weigh(&room, before, &shape, Some(gpu)));
        prop_assert_eq!(mix.choose(&room, before, &shape), all.min());
    }

    #[test]
    fn an_untouched_node_that_any_shape_can_fill_has_lost_nothing(
        counts in proptest::collection::btree_map(shapes(), 1_u64..1000, 0..80),
    ) {
        let fits = |(mut shape, jobs): (Shape, u64)| {
            shape.classes = ClassSet::ANY;
            (shape, jobs)
        };
        let mix = Mix::of(&counts.into_iter().map(fits).collect());
        let room = Room {
            class: ClassNumber(0),
            cpu_milli: CpuMilli(8 * 1000 * 16_000),
            memory_mib: MemoryMib(8 * 1000 * 65_536),
            gpus: vec![GpuMilli::WHOLE; 8],
        };
        prop_assert_eq!(mix.fragments(&room), Fragments::default());
    }
}

#[test]
fn a_light_job_takes_a_gpu_whose_memory_is_gone_and_leaves_the_complete_node() {
    let mut cluster = TestCluster::new();
    // By free CPUs alone it would be the other way round.
    cluster.node("complete").gpus(4, "b200").cpus(64).memory_gib(256).add();
    cluster.node("short").gpus(4, "b200").cpus(66).memory_gib(80).add();
    for _ in 0..20 {
        cluster.job().gpus(1, "b200").cpus(16).memory_gib(64).held("later").submit();
    }
    let light = cluster.job().gpus(1, "b200").submit();
    cluster.expect_on(light, &["short"]);
    cluster.check();
}

#[test]
fn a_share_leaves_a_half_to_jobs_that_ask_for_halves() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(2, "b200").add();
    cluster.job().share(500, "b200").submit();
    cluster.start_all();
    for _ in 0..20 {
        cluster.job().share(500, "b200").held("later").submit();
    }
    let job = cluster.job().share(200, "b200").submit();
    let outcome = cluster.check();
    let gpus = &outcome.placement(job).unwrap().nodes[0].gpus;
    assert_eq!(gpus[0].uuid.to_string(), "GPU-n1-1");
}

#[test]
fn a_job_for_any_class_goes_where_it_costs_others_least() {
    let mut cluster = TestCluster::new();
    cluster.node("a").gpus(8, "a100").add();
    cluster.node("b").gpus(8, "b200").add();
    cluster.job().gpus(4, "b200").submit();
    cluster.start_all();
    for _ in 0..20 {
        cluster.job().gpus(8, "a100").held("later").submit();
    }
    let job = cluster.job().gpus(4, "").submit();
    cluster.expect_on(job, &["b"]);
    cluster.check();
}

#[test]
fn a_job_without_gpus_keeps_off_cpus_that_gpus_need() {
    let mut cluster = TestCluster::new();
    // The smaller node would be first, but there a typical job would lose its last GPU.
    cluster.node("even").gpus(2, "b200").cpus(32).add();
    cluster.node("rich").gpus(4, "b200").cpus(96).add();
    for _ in 0..20 {
        cluster.job().gpus(1, "b200").cpus(16).held("later").submit();
    }
    let job = cluster.job().cpus(8).submit();
    cluster.expect_on(job, &["rich"]);
    cluster.check();
}
