//! IMEX channels: who gets one, and that nobody else has it at the same time.

use std::collections::BTreeSet;

use gotgan_core::change::Change;
use gotgan_core::check;
use gotgan_core::ids::{Epoch, JobId};
use gotgan_core::lifecycle::{Draft, commit};
use gotgan_core::world::{Snapshot, World};

use crate::cluster::TestCluster;

/// A tray of a rack: four GPUs of this NVLink domain, whose driver has so many channels.
fn tray(cluster: &mut TestCluster, name: &str, domain: &str, channels: u32) {
    let node = cluster.node(name).gpus(4, "gb200").imex_channels(channels);
    node.nvlink_domains(&[domain; 4]).add();
}

/// Starts what can, as the scheduler does. What happened, in words.
fn start(cluster: &mut TestCluster) -> Vec<String> {
    let decisions = cluster.check().plan.decisions;
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    decisions.iter().for_each(|decision| commit(&mut draft, decision).unwrap());
    let changes = draft.into_changes();
    assert_eq!(check::world(&cluster.world), []);
    let text = |change: &Change| match change {
        Change::Happened(event) => Some(event.text.clone()),
        _ => None,
    };
    changes.iter().filter_map(text).collect()
}

/// Domain and channel of a job on each of its nodes, in the order of their names.
fn channels(world: &World, job: JobId) -> Vec<Option<(String, u32)>> {
    let attempt = world.attempts.values().find(|attempt| attempt.id.job == job).unwrap();
    let mut nodes: Vec<_> = attempt.placement.nodes.iter().collect();
    nodes.sort_by_key(|held| &held.node);
    let lease = |held: &&gotgan_core::attempt::NodeAllocation| {
        held.imex.as_ref().map(|lease| (lease.domain.clone(), lease.channel))
    };
    nodes.iter().map(lease).collect()
}

#[test]
fn a_gang_has_one_channel_on_all_its_nodes_of_a_domain_and_one_in_each_domain() {
    let cluster = &mut TestCluster::new();
    for (name, domain) in [("a1", "f.1"), ("a2", "f.1"), ("b1", "f.2")] {
        tray(cluster, name, domain, 2_048);
    }
    let gang = cluster.job().gpus(4, "gb200").nodes(3).submit();
    start(cluster);
    let found = channels(&cluster.world, gang);
    let [Some(first), second, Some(other)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(second.as_ref(), Some(first));
    assert_eq!((first.0.as_str(), other.0.as_str()), ("f.1", "f.2"));
    // Channel 0 is everybody's.
    assert!((1..2_048).contains(&first.1) && (1..2_048).contains(&other.1));
}

#[test]
fn no_two_attempts_of_a_domain_have_the_same_channel_and_one_that_ended_gives_its_own_back() {
    let cluster = &mut TestCluster::new();
    // As many as there are GPUs, beside channel 0.
    tray(cluster, "a1", "f.1", 9);
    tray(cluster, "a2", "f.1", 9);
    let jobs: Vec<JobId> = (0..8).map(|_| cluster.job().gpus(1, "gb200").submit()).collect();
    start(cluster);
    let of = |world: &World| -> BTreeSet<u32> {
        let all = jobs.iter().flat_map(|job| channels(world, *job));
        all.map(|lease| lease.unwrap().1).collect()
    };
    assert_eq!(of(&cluster.world), (1..9).collect());
    let given_back = channels(&cluster.world, jobs[3]);
    cluster.end(jobs[3]);
    assert_eq!(cluster.world.imex.held(), 7);
    let next = cluster.job().gpus(1, "gb200").submit();
    start(cluster);
    assert_eq!(channels(&cluster.world, next), given_back);
    // A world that is loaded anew knows who holds what.
    let attempts = cluster.world.attempts.values().map(|attempt| attempt.as_ref().clone());
    let snapshot = Snapshot { attempts: attempts.collect(), ..Snapshot::default() };
    let loaded = World::restore(snapshot, cluster.now);
    assert_eq!(loaded.imex, cluster.world.imex);
}

#[test]
fn a_channel_that_was_given_back_is_not_the_next_to_be_leased_while_others_are_free() {
    let cluster = &mut TestCluster::new();
    tray(cluster, "a1", "f.1", 2_048);
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let job = cluster.job().gpus(4, "gb200").submit();
        start(cluster);
        assert!(seen.insert(channels(&cluster.world, job)), "{seen:?}");
        cluster.end(job);
    }
}

#[test]
fn where_all_are_held_an_attempt_starts_without_one_and_that_is_told() {
    let cluster = &mut TestCluster::new();
    tray(cluster, "a1", "f.1", 2);
    let first = cluster.job().gpus(2, "gb200").submit();
    start(cluster);
    assert_eq!(channels(&cluster.world, first), [Some(("f.1".to_owned(), 1))]);
    let second = cluster.job().gpus(2, "gb200").submit();
    let told = start(cluster);
    assert_eq!(channels(&cluster.world, second), [None]);
    assert!(told[0].ends_with(", without an IMEX channel of f.1: all are held"), "{told:?}");
}

#[test]
fn who_cannot_reach_beyond_the_node_has_no_channel() {
    let cluster = &mut TestCluster::new();
    tray(cluster, "a1", "f.1", 2_048);
    let plain = cluster.node("b1").gpus(4, "b200").imex_channels(2_048);
    plain.add();
    let unable = cluster.node("c1").gpus(4, "h200").nvlink_domains(&["f.3"; 4]);
    unable.add();
    let mixed = cluster.node("d1").gpus(2, "l40s").imex_channels(2_048);
    mixed.nvlink_domains(&["f.4", ""]).add();
    let share = cluster.job().share(500, "gb200").submit();
    let jobs = [("b200", 4), ("h200", 4), ("l40s", 2)];
    let jobs = jobs.map(|(class, gpus)| cluster.job().gpus(gpus, class).submit());
    start(cluster);
    for job in jobs.into_iter().chain([share]) {
        assert_eq!(channels(&cluster.world, job), [None], "{job}");
    }
    assert_eq!(cluster.world.imex.held(), 0);
}
