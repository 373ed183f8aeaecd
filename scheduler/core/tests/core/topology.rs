//! Gangs that keep together: in one block, in segments, or in as few blocks as possible; as the planner chooses and as
//! the check judges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::attempt::Placement;
use gotgan_core::check;
use gotgan_core::fabric;
use gotgan_core::ids::{JobId, NodeName};
use gotgan_core::node::Liveness;
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::topology::Level;
use insta::assert_snapshot;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::TestCluster;

/// Nodes of four GPUs, so many in each NVLink domain: `a1`, `a2`, … in the domain `a`.
fn domains(sizes: &[(&str, u32)]) -> TestCluster {
    let mut cluster = TestCluster::new();
    for (domain, size) in sizes {
        for number in 1..=*size {
            let node = cluster.node(&format!("{domain}{number}")).gpus(4, "gb200");
            node.label("nvlink", domain).add();
        }
    }
    cluster
}

/// A job that takes this node for itself.
fn fill(cluster: &mut TestCluster, names: &[&str]) -> Vec<JobId> {
    let job = |name: &&str| cluster.job().gpus(4, "gb200").only_on(&[name]).submit();
    let jobs = names.iter().map(job).collect();
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(3600);
    jobs
}

#[test]
fn a_gang_of_one_domain_takes_the_one_in_which_fewest_places_are_left() {
    let mut cluster = domains(&[("a", 4), ("b", 3), ("c", 4)]);
    fill(&mut cluster, &["c2"]);
    let two = cluster.job().gpus(4, "gb200").nodes(2).one(Level::Nvlink).submit();
    let three = cluster.job().gpus(4, "gb200").nodes(3).one(Level::Nvlink).submit();
    let four = cluster.job().gpus(4, "gb200").nodes(4).one(Level::Nvlink).submit();
    // The largest goes first; of two domains with three free places the smaller one is taken by the next.
    cluster.expect_on(four, &["a1", "a2", "a3", "a4"]);
    cluster.expect_on(three, &["b1", "b2", "b3"]);
    cluster.expect_on(two, &["c1", "c3"]);
    cluster.check();
}

#[test]
fn of_equally_tight_domains_the_one_with_a_drained_node_is_taken() {
    let mut cluster = domains(&[("a", 4), ("b", 4)]);
    fill(&mut cluster, &["a1"]);
    cluster.drain("b4", "a fan");
    let gang = cluster.job().gpus(4, "gb200").nodes(2).one(Level::Nvlink).submit();
    cluster.expect_on(gang, &["b1", "b2"]);
    cluster.check();
}

#[test]
fn a_drained_or_lost_node_does_not_block_its_domain() {
    let mut cluster = domains(&[("a", 4)]);
    cluster.drain("a1", "a fan");
    cluster.heard("a3", Liveness::Lost);
    let gang = cluster.job().gpus(4, "gb200").nodes(2).one(Level::Nvlink).submit();
    cluster.expect_on(gang, &["a2", "a4"]);
    cluster.check();
}

#[test]
fn a_gang_waits_for_one_domain_and_is_told_which_is_nearest() {
    let mut cluster = domains(&[("a", 4), ("b", 4)]);
    fill(&mut cluster, &["a1", "a2", "b3"]);
    let gang = cluster.job().gpus(4, "gb200").nodes(4).one(Level::Nvlink).submit();
    cluster.expect_waiting(gang);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(gang), @"needs 4 nodes with 4 free gb200 GPUs, 1 free CPU and 1 GiB free memory in one NVLink domain; the best, b, has 3 of 4");
}

#[test]
fn the_nearest_domain_is_one_that_is_large_enough() {
    let mut cluster = domains(&[("a", 4), ("b", 3)]);
    fill(&mut cluster, &["a1", "a2"]);
    let gang = cluster.job().gpus(4, "gb200").nodes(4).one(Level::Nvlink).submit();
    cluster.expect_waiting(gang);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(gang), @"needs 4 nodes with 4 free gb200 GPUs, 1 free CPU and 1 GiB free memory in one NVLink domain; the best, a, has 2 of 4");
}

#[test]
fn a_gang_larger_than_every_domain_can_never_be_of_one() {
    let mut cluster = domains(&[("a", 4), ("b", 3)]);
    let gang = cluster.job().gpus(4, "gb200").nodes(5).one(Level::Nvlink).submit();
    cluster.expect_waiting(gang);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(gang)[0].kind, BlockerKind::Constraints);
    assert_snapshot!(outcome.sentences(gang), @"needs 5 nodes with 4 gb200 GPUs, 1 CPU and 1 GiB memory in one NVLink domain within its constraints; there are only 4");
}

#[test]
fn only_drained_nodes_of_a_domain_that_would_then_do_are_named() {
    let mut cluster = domains(&[("a", 4), ("b", 3)]);
    cluster.drain("a2", "a fan");
    cluster.drain("b1", "a leak");
    let gang = cluster.job().gpus(4, "gb200").nodes(4).one(Level::Nvlink).submit();
    cluster.expect_waiting(gang);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(gang), @"
    needs 4 nodes and 3 are free; would serve but take no work: a2 (drained by kim: a fan)
    needs 4 nodes with 4 free gb200 GPUs, 1 free CPU and 1 GiB free memory in one NVLink domain; the best, a, has 3 of 3
    ");
}

#[test]
fn nodes_that_belong_to_no_domain_serve_no_gang_that_asks_for_one() {
    let mut cluster = domains(&[("a", 2)]);
    for name in ["x1", "x2", "x3"] {
        cluster.node(name).gpus(4, "gb200").add();
    }
    let two = cluster.job().gpus(4, "gb200").nodes(2).one(Level::Nvlink).submit();
    let more = cluster.job().gpus(4, "gb200").nodes(2).one(Level::Nvlink).submit();
    cluster.expect_on(two, &["a1", "a2"]);
    cluster.expect_waiting(more);
    cluster.check();
}

#[test]
fn segments_lie_inside_domains_and_the_remainder_goes_where_it_fits_best() {
    let mut cluster = domains(&[("a", 5), ("b", 6), ("c", 3)]);
    let gang = cluster.job().gpus(4, "gb200").nodes(8).segments(2, Level::Nvlink).submit();
    cluster.expect_on(gang, &["b1", "b2", "b3", "b4", "b5", "b6", "c1", "c2"]);
    cluster.start_all();
    let more = cluster.job().gpus(4, "gb200").nodes(4).segments(2, Level::Nvlink).submit();
    cluster.expect_on(more, &["a1", "a2", "a3", "a4"]);
    cluster.start_all();
    let last = cluster.job().gpus(4, "gb200").nodes(2).segments(2, Level::Nvlink).submit();
    cluster.expect_waiting(last);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(last), @"needs 2 nodes with 4 free gb200 GPUs, 1 free CPU and 1 GiB free memory in segments of 2 nodes of one NVLink domain each; 0 of 12 have that");
}

#[test]
fn segments_that_all_fit_in_one_domain_break_no_other() {
    let mut cluster = domains(&[("a", 8), ("b", 4), ("c", 5)]);
    let gang = cluster.job().gpus(4, "gb200").nodes(4).segments(2, Level::Nvlink).submit();
    cluster.expect_on(gang, &["b1", "b2", "b3", "b4"]);
    cluster.check();
}

#[test]
fn segments_can_be_asked_for_within_one_cluster() {
    let mut cluster = TestCluster::new();
    for (name, fabric, domain) in [
        ("m1", "one", "a"),
        ("m2", "one", "a"),
        ("m3", "one", "b"),
        ("n1", "two", "c"),
        ("n2", "two", "c"),
        ("n3", "two", "d"),
        ("n4", "two", "d"),
    ] {
        let node = cluster.node(name).gpus(4, "gb200").label("cluster", fabric);
        node.label("nvlink", domain).add();
    }
    let gang = cluster.job().gpus(4, "gb200").nodes(4).same_cluster();
    let gang = gang.segments(2, Level::Nvlink).submit();
    cluster.expect_on(gang, &["n1", "n2", "n3", "n4"]);
    cluster.check();
}

#[test]
fn what_is_preferred_is_had_in_the_tightest_block_that_takes_all() {
    let mut cluster = domains(&[("a", 2), ("b", 5), ("c", 3)]);
    let gang = cluster.job().gpus(4, "gb200").nodes(3).prefer(Level::Nvlink).submit();
    cluster.expect_on(gang, &["c1", "c2", "c3"]);
    cluster.check();
}

#[test]
fn what_is_only_preferred_is_never_waited_for() {
    let mut cluster = domains(&[("a", 2), ("b", 4), ("c", 3)]);
    cluster.node("x1").gpus(4, "gb200").add();
    let six = cluster.job().gpus(4, "gb200").nodes(6).prefer(Level::Nvlink).submit();
    cluster.expect_on(six, &["a1", "a2", "b1", "b2", "b3", "b4"]);
    cluster.start_all();
    let four = cluster.job().gpus(4, "gb200").nodes(4).prefer(Level::Nvlink).submit();
    cluster.expect_on(four, &["x1", "c1", "c2", "c3"]);
    cluster.check();
}

#[test]
fn a_preference_gives_way_to_segments_that_would_not_fit_because_of_it() {
    let mut cluster = TestCluster::new();
    for (name, leaf, domain) in
        [("m1", "l1", "a"), ("m2", "l2", "a"), ("m3", "l1", "b"), ("m4", "l2", "b")]
    {
        let node = cluster.node(name).gpus(4, "gb200").label("leaf", leaf);
        node.label("nvlink", domain).add();
    }
    let gang = cluster.job().gpus(4, "gb200").nodes(4).segments(2, Level::Nvlink);
    let gang = gang.prefer(Level::Leaf).submit();
    cluster.expect_on(gang, &["m1", "m2", "m3", "m4"]);
    cluster.check();
}

#[test]
fn nodes_of_one_block_are_neighbours_in_the_order_of_ranks() {
    let mut cluster = TestCluster::new();
    for (name, spine, leaf) in
        [("n1", "s2", "l3"), ("n2", "s1", "l2"), ("n3", "s1", "l1"), ("n4", "s1", "l2")]
    {
        cluster.node(name).gpus(4, "gb200").label("spine", spine).label("leaf", leaf).add();
    }
    let gang = cluster.job().gpus(4, "gb200").nodes(4).submit();
    cluster.expect_on(gang, &["n3", "n2", "n4", "n1"]);
    cluster.check();
}

#[test]
fn the_nodes_of_a_segment_have_neighbouring_ranks_though_another_level_lies_across() {
    let mut cluster = TestCluster::new();
    for (name, leaf, domain) in
        [("n1", "l1", "a"), ("n2", "l2", "a"), ("n3", "l1", "b"), ("n4", "l2", "b")]
    {
        let node = cluster.node(name).gpus(4, "gb200").label("leaf", leaf);
        node.label("nvlink", domain).add();
    }
    let gang = cluster.job().gpus(4, "gb200").nodes(4).segments(2, Level::Nvlink).submit();
    cluster.expect_on(gang, &["n1", "n2", "n3", "n4"]);
    cluster.check();
}

/// Every node of two domains is borrowed, the younger jobs in turn on both; a gang within its guarantee asks for one.
fn borrowed() -> (TestCluster, BTreeMap<JobId, String>) {
    let mut cluster = domains(&[("a", 3), ("b", 3)]);
    cluster.limit("public/c", &[]);
    cluster.guarantee("public/own", 1, &[("gb200", 24)]);
    let mut jobs = BTreeMap::new();
    for name in ["a1", "b1", "a2", "b2", "a3", "b3"] {
        let job = cluster.job().project("public/c").gpus(4, "gb200").only_on(&[name]).submit();
        cluster.start_all();
        cluster.now = cluster.now.plus_seconds(100);
        jobs.insert(job, name.to_owned());
    }
    (cluster, jobs)
}

#[test]
fn a_gang_that_is_called_back_for_frees_one_domain_and_not_scattered_nodes() {
    let (mut cluster, jobs) = borrowed();
    let gang = cluster.job().project("public/own").gpus(4, "gb200").nodes(3);
    let gang = gang.one(Level::Nvlink).submit();
    let victims = cluster.start_all().victims();
    let freed: Vec<&str> = victims.iter().map(|(job, _)| jobs[job].as_str()).collect();
    assert_eq!(BTreeSet::from_iter(freed), BTreeSet::from(["a1", "a2", "a3"]));
    cluster.let_go();
    cluster.expect_on(gang, &["a1", "a2", "a3"]);
    cluster.start_all();
}

#[test]
fn a_domain_that_is_nearly_free_is_freed_before_another() {
    let (mut cluster, jobs) = borrowed();
    let on = |node: &str| *jobs.iter().find(|(_, name)| *name == node).unwrap().0;
    cluster.end(on("b2"));
    let gang = cluster.job().project("public/own").gpus(4, "gb200").nodes(2);
    let gang = gang.one(Level::Nvlink).submit();
    assert_eq!(cluster.start_all().victims(), [(on("b3"), gang)]);
    let meanwhile = cluster.check();
    assert_eq!(meanwhile.victims(), [], "nobody else is asked while they stop");
    cluster.let_go();
    cluster.expect_on(gang, &["b2", "b3"]);
    cluster.start_all();
}

#[test]
fn what_stops_for_segments_makes_whole_ones() {
    let (mut cluster, jobs) = borrowed();
    let gang = cluster.job().project("public/own").gpus(4, "gb200").nodes(4);
    let gang = gang.segments(2, Level::Nvlink).submit();
    let victims = cluster.start_all().victims();
    let freed: Vec<&str> = victims.iter().map(|(job, _)| &jobs[job][..1]).collect();
    assert_eq!(freed.iter().filter(|domain| **domain == "a").count(), 2);
    assert_eq!(freed.iter().filter(|domain| **domain == "b").count(), 2);
    cluster.let_go();
    assert_eq!(cluster.start_all().nodes_of(gang).map(|nodes| nodes.len()), Some(4));
}

#[test]
fn the_check_refuses_a_gang_that_is_scattered() {
    let mut cluster = domains(&[("a", 4), ("b", 4)]);
    let one = cluster.job().gpus(4, "gb200").nodes(4).one(Level::Nvlink).submit();
    let segments = cluster.job().gpus(4, "gb200").nodes(4).segments(2, Level::Nvlink).submit();
    let outcome = cluster.check();
    let found = |job: JobId, names: [&str; 4]| {
        let mut placement: Placement = outcome.placement(job).unwrap().clone();
        for (given, name) in placement.nodes.iter_mut().zip(names) {
            given.node = NodeName::new(name).unwrap();
            for (index, gpu) in given.gpus.iter_mut().enumerate() {
                let uuid = format!("GPU-{name}-{index}");
                gpu.uuid = gotgan_core::ids::GpuUuid::new(&uuid).unwrap();
            }
        }
        let decision = Decision::Start { job, placement: Arc::new(placement) };
        let judged = check::decision(&cluster.world, &decision, cluster.now);
        judged.map_err(|refusal| refusal.reason)
    };
    assert_eq!(found(one, ["a1", "a2", "a3", "a4"]), Ok(()));
    assert_snapshot!(found(one, ["a1", "a2", "a3", "b4"]).unwrap_err(), @"needs nodes of one NVLink domain and gets others");
    assert_eq!(found(segments, ["a1", "a2", "b3", "b4"]), Ok(()));
    assert_snapshot!(found(segments, ["a1", "b2", "a3", "b4"]).unwrap_err(), @"segment 0 is not 2 nodes of one NVLink domain");
}

#[test]
fn a_spare_node_of_the_same_domain_stands_in_before_others() {
    let mut cluster = TestCluster::new();
    for (name, domain, spare) in [
        ("a1", "a", "false"),
        ("a2", "a", "true"),
        ("b1", "b", "false"),
        ("b2", "b", "false"),
        ("b3", "b", "true"),
    ] {
        let node = cluster.node(name).gpus(4, "gb200").label("cluster", "one");
        node.label("nvlink", domain).label("spare", spare).add();
    }
    let mut standby = |lost: &[&str]| {
        for name in lost {
            cluster.heard(name, Liveness::Lost);
        }
        cluster.check();
        let standby = fabric::standby(&cluster.world).into_iter().map(ToString::to_string);
        standby.collect::<Vec<_>>()
    };
    assert_eq!(standby(&[]), ["a2", "b3"]);
    assert_eq!(standby(&["b1"]), ["a2"], "the spare one of b, though a2 comes first by name");
    assert_eq!(standby(&["b2"]), [""; 0], "b has none left, so a2 stands in");
}

/// Sizes of gangs and what they ask for, on nodes of which each is in some domain and below some leaf, or in none.
#[derive(Debug, Clone)]
struct Gangs {
    /// By node: its domain, its leaf, and whether it is drained; 0: none.
    nodes: Vec<(usize, usize, bool)>,
    /// Nodes that are taken already.
    taken: Vec<usize>,
    /// Size in units, unit, and which of the terms are asked for.
    jobs: Vec<(u32, u32, u8)>,
}

fn gangs() -> impl Strategy<Value = Gangs> {
    let nodes = vec((0..4_usize, 0..3_usize, proptest::bool::weighted(0.1)), 1..13);
    let (taken, jobs) = (vec(0..13_usize, 0..5), vec((1..5_u32, 1..4_u32, 0..8_u8), 1..5));
    (nodes, taken, jobs).prop_map(|(nodes, taken, jobs)| Gangs { nodes, taken, jobs })
}

impl Gangs {
    fn build(&self) -> (TestCluster, Vec<JobId>) {
        let mut cluster = TestCluster::new();
        for (number, (domain, leaf, _)) in self.nodes.iter().enumerate() {
            let mut node = cluster.node(&format!("n{number:02}")).gpus(4, "gb200");
            if *domain > 0 {
                node = node.label("nvlink", &format!("d{domain}"));
            }
            if *leaf > 0 {
                node = node.label("leaf", &format!("l{leaf}"));
            }
            node.add();
        }
        for taken in self.taken.iter().filter(|taken| **taken < self.nodes.len()) {
            cluster.job().gpus(4, "gb200").only_on(&[&format!("n{taken:02}")]).submit();
        }
        cluster.start_all();
        for (number, (_, _, drained)) in self.nodes.iter().enumerate() {
            if *drained {
                cluster.drain(&format!("n{number:02}"), "a fan");
            }
        }
        let jobs = self.jobs.iter().map(|(units, unit, asked)| {
            let segments = asked & 4 != 0;
            let nodes = if segments { units * unit } else { *units };
            let mut job = cluster.job().gpus(4, "gb200").nodes(nodes);
            job = if asked & 1 != 0 { job.one(Level::Leaf) } else { job };
            job = if asked & 2 != 0 { job.prefer(Level::Leaf) } else { job };
            job = if segments { job.segments(*unit, Level::Nvlink) } else { job };
            job.submit()
        });
        let jobs = jobs.collect();
        (cluster, jobs)
    }
}

/// The names of the blocks of a node.
fn place(cluster: &TestCluster, node: &str, level: Level) -> Option<String> {
    cluster.world.nodes[node].inventory.labels.get(level.word()).cloned()
}

/// Whether these nodes are what the job asks for, said as plainly as can be: any order of them will do.
fn keeps_together(cluster: &TestCluster, job: JobId, nodes: &[String]) -> bool {
    let terms = cluster.world.jobs[&job].spec.constraints.blocks;
    let one = terms.one.is_none_or(|level| {
        let blocks: BTreeSet<_> = nodes.iter().map(|node| place(cluster, node, level)).collect();
        blocks.len() == 1 && !blocks.contains(&None)
    });
    let whole = terms.segment.is_none_or(|segment| {
        let mut counts: BTreeMap<Option<String>, u32> = BTreeMap::new();
        for node in nodes {
            *counts.entry(place(cluster, node, segment.level)).or_default() += 1;
        }
        counts.iter().all(|(block, count)| block.is_some() && count % segment.nodes == 0)
    });
    one && whole
}

/// Every set of `size` of these nodes.
fn sets(nodes: &[String], size: usize) -> Vec<Vec<String>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let Some((first, rest)) = nodes.split_first() else { return Vec::new() };
    let mut with = sets(rest, size - 1);
    with.iter_mut().for_each(|set| set.insert(0, first.clone()));
    with.extend(sets(rest, size));
    with
}

/// Nodes that are free and take work.
fn free(cluster: &TestCluster) -> Vec<String> {
    let open =
        cluster.world.nodes.iter().filter(|(_, node)| {
            node.takes_work() && node.free.gpus.iter().all(|free| !free.is_zero())
        });
    open.map(|(name, _)| name.to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_starts_keeps_together_and_every_second_pass_starts_nothing(gangs in gangs()) {
        let (mut cluster, jobs) = gangs.build();
        let outcome = cluster.start_all();
        for job in jobs {
            match outcome.nodes_of(job) {
                Some(nodes) => prop_assert!(keeps_together(&cluster, job, &nodes), "{nodes:?}"),
                None => prop_assert!(!outcome.blockers(job).is_empty()),
            }
        }
        prop_assert!(cluster.check().plan.decisions.is_empty());
    }

    #[test]
    fn a_gang_starts_exactly_where_some_set_of_nodes_would_do(gangs in gangs()) {
        let one = Gangs { jobs: gangs.jobs[..1].to_vec(), ..gangs };
        let (mut cluster, jobs) = one.build();
        let size = cluster.world.jobs[&jobs[0]].spec.nodes as usize;
        let could = sets(&free(&cluster), size);
        let could = could.iter().any(|set| keeps_together(&cluster, jobs[0], set));
        prop_assert_eq!(cluster.check().nodes_of(jobs[0]).is_some(), could);
    }

    #[test]
    fn others_stop_exactly_where_that_makes_room_and_for_one_block_as_few_as_can_be(
        sizes in vec(1..5_u32, 1..5), over in vec(0..16_usize, 0..6), units in 1..4_u32, segments in any::<bool>(),
    ) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let sizes: Vec<_> = NAMES.into_iter().zip(sizes).collect();
        let mut cluster = domains(&sizes);
        cluster.limit("public/c", &[]);
        cluster.guarantee("public/own", 1, &[("gb200", 64)]);
        let names: Vec<String> = cluster.world.nodes.keys().map(ToString::to_string).collect();
        let borrow = |name: &String| cluster.job().project("public/c").gpus(4, "gb200").only_on(&[name]).submit();
        let jobs: Vec<JobId> = names.iter().map(borrow).collect();
        cluster.start_all();
        cluster.now = cluster.now.plus_seconds(100);
        let over: BTreeSet<usize> = over.into_iter().filter(|at| *at < jobs.len()).collect();
        over.iter().for_each(|at| cluster.end(jobs[*at]));
        let nodes = if segments { units * 2 } else { units };
        let gang = cluster.job().project("public/own").gpus(4, "gb200").nodes(nodes);
        let gang = if segments { gang.segments(2, Level::Nvlink) } else { gang.one(Level::Nvlink) };
        let gang = gang.submit();
        let free = free(&cluster);
        let stops = |set: &Vec<String>| set.iter().filter(|node| !free.contains(node)).count();
        let could = sets(&names, nodes as usize).into_iter();
        let could = could.filter(|set| keeps_together(&cluster, gang, set));
        let fewest = could.map(|set| stops(&set)).min();
        let outcome = cluster.start_all();
        let victims = outcome.victims().len();
        prop_assert_eq!(outcome.nodes_of(gang).is_some(), fewest == Some(0));
        prop_assert_eq!(victims > 0, fewest.is_some_and(|fewest| fewest > 0));
        prop_assert!(segments || victims == fewest.unwrap_or(0), "{victims} {fewest:?}");
        if victims > 0 {
            cluster.let_go();
            let nodes = cluster.start_all().nodes_of(gang);
            prop_assert!(nodes.is_some_and(|nodes| keeps_together(&cluster, gang, &nodes)));
        }
    }

    #[test]
    fn no_single_block_would_be_tighter_and_no_choice_needs_fewer_blocks(gangs in gangs()) {
        let (units, _, asked) = gangs.jobs[0];
        let level = if asked & 1 == 0 { Level::Nvlink } else { Level::Leaf };
        let (mut cluster, _) = Gangs { jobs: Vec::new(), ..gangs }.build();
        let free = free(&cluster);
        let room = |block: &Option<String>| {
            free.iter().filter(|node| place(&cluster, node, level) == *block).count()
        };
        let blocks: BTreeSet<_> = free.iter().map(|node| place(&cluster, node, level)).collect();
        let rooms: BTreeMap<_, _> = blocks.into_iter().map(|block| (block.clone(), room(&block))).collect();
        let in_blocks = |nodes: &[String]| {
            let used = nodes.iter().map(|node| place(&cluster, node, level));
            let loose = used.clone().filter(Option::is_none).count();
            loose + used.flatten().collect::<BTreeSet<_>>().len()
        };
        let fewest = sets(&free, units as usize).iter().map(|set| in_blocks(set)).min();
        let tightest = rooms.iter().filter(|(block, room)| block.is_some() && **room >= units as usize);
        let tightest = tightest.map(|(_, room)| *room).min();
        for hard in [true, false] {
            let mut cluster = cluster.copy();
            let job = cluster.job().gpus(4, "gb200").nodes(units);
            let job = if hard { job.one(level).submit() } else { job.prefer(level).submit() };
            let nodes = cluster.check().nodes_of(job);
            if hard {
                let chosen = nodes.as_ref().map(|nodes| rooms[&place(&cluster, &nodes[0], level)]);
                prop_assert_eq!(chosen, tightest);
            } else {
                prop_assert_eq!(nodes.as_ref().map(|nodes| in_blocks(nodes)), fewest);
                let single = fewest == Some(1) && tightest.is_some();
                let chosen = nodes.filter(|_| single);
                let chosen = chosen.map(|nodes| rooms[&place(&cluster, &nodes[0], level)]);
                prop_assert!(!single || chosen == tightest, "{chosen:?} {tightest:?}");
            }
        }
        cluster.check();
    }
}
