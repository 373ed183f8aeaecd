//! What workers measured comes to the attempt once, and owners are told once of GPUs that do nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::GpuMilliSeconds;
use gotgan_core::attempt::{Attempt, AttemptState, Cause, ExitStatus};
use gotgan_core::change::{Change, EventKind};
use gotgan_core::ids::{AttemptId, Epoch, JobId, NodeName};
use gotgan_core::lifecycle::{Draft, Folded, MemberEvent, Report, fold_measured, tell_idle};
use gotgan_core::measured::{IdleBeats, MeasuredUse};

use crate::cluster::TestCluster;

fn measured(busy: i64) -> MeasuredUse {
    MeasuredUse {
        nodes: 1,
        observed: GpuMilliSeconds(10_000),
        busy: Some(GpuMilliSeconds(busy)),
        energy_mj: Some(5),
        peak_memory: None,
        longest_idle_ms: Some(7),
        estimated: false,
    }
}

/// What a node says, and what the whole round then changes.
fn says(
    cluster: &mut TestCluster,
    (id, node, seq): (AttemptId, &str, u64),
    event: MemberEvent,
    measured: Option<MeasuredUse>,
) -> (Folded, Vec<Change>) {
    let node = NodeName::new(node).unwrap();
    let report = Report { node, attempt: id, seq, at: cluster.now, event };
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    let folded = fold_measured(&mut draft, &report, measured);
    (folded, draft.into_changes())
}

/// The attempt as the last change has it.
fn moved(changes: &[Change]) -> Option<Arc<Attempt>> {
    changes.iter().rev().find_map(|change| match change {
        Change::AttemptMoved(attempt) => Some(Arc::clone(attempt)),
        _ => None,
    })
}

fn ended() -> MemberEvent {
    let exit = Some(ExitStatus::Code(0));
    MemberEvent::Ended { cause: Cause::User, reason: String::new(), exit }
}

/// A job that runs on two nodes, and its attempt.
fn gang() -> (TestCluster, AttemptId) {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    let job = cluster.job().nodes(2).gpus(8, "b200").submit();
    cluster.start_all();
    let id = AttemptId { job, number: 1 };
    for node in ["n1", "n2"] {
        says(&mut cluster, (id, node, 1), MemberEvent::Accepted, None);
    }
    says(&mut cluster, (id, "n1", 2), MemberEvent::Started, None);
    says(&mut cluster, (id, "n2", 2), MemberEvent::Started, None);
    assert_eq!(cluster.world.attempts[&id].state, AttemptState::Running);
    (cluster, id)
}

#[test]
fn what_each_node_measured_adds_up_and_a_repeated_report_counts_once() {
    let (mut cluster, id) = gang();
    says(&mut cluster, (id, "n1", 3), ended(), Some(measured(1_000)));
    let (again, _) = says(&mut cluster, (id, "n1", 3), ended(), Some(measured(1_000)));
    assert_eq!(again, Folded::Settled);
    let (_, changes) = says(&mut cluster, (id, "n2", 3), ended(), Some(measured(200)));
    let attempt = moved(&changes).unwrap();
    assert_eq!(attempt.state, AttemptState::Ended);
    let found = attempt.measured.unwrap();
    assert_eq!((found.nodes, found.busy), (2, Some(GpuMilliSeconds(1_200))));
    assert_eq!((found.energy_mj, found.longest_idle_ms), (Some(10), Some(7)));
}

#[test]
fn a_node_that_measured_nothing_leaves_what_the_other_did() {
    let (mut cluster, id) = gang();
    says(&mut cluster, (id, "n1", 3), ended(), None);
    let (_, changes) = says(&mut cluster, (id, "n2", 3), ended(), Some(measured(200)));
    let found = moved(&changes).unwrap().measured;
    assert_eq!(found, Some(measured(200)), "it is of one node, and says so");
}

const HOUR_MS: u64 = 3_600_000;

fn beats(id: AttemptId, told: &[(&str, u64)]) -> IdleBeats {
    let node = |(node, idle): &(&str, u64)| (NodeName::new(node).unwrap(), *idle);
    BTreeMap::from([(id, told.iter().map(node).collect())])
}

/// What is told to the owner.
fn told(cluster: &mut TestCluster, beats: &IdleBeats) -> Vec<String> {
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    tell_idle(&mut draft, beats);
    let events = draft.into_changes().into_iter().filter_map(|change| match change {
        Change::Happened(event) => Some((event.kind, event.text.clone())),
        _ => None,
    });
    let told = events.inspect(|(kind, _)| assert_eq!(*kind, EventKind::GpusIdle));
    told.map(|(_, text)| text).collect()
}

#[test]
fn an_owner_is_told_once_when_all_gpus_have_done_nothing_for_an_hour() {
    let (mut cluster, id) = gang();
    let nothing = Vec::<String>::new();
    let early = beats(id, &[("n1", HOUR_MS), ("n2", HOUR_MS - 1)]);
    assert_eq!(told(&mut cluster, &early), nothing);
    let partly = beats(id, &[("n1", 2 * HOUR_MS)]);
    assert_eq!(told(&mut cluster, &partly), nothing, "of n2 it is not known");
    let busy = beats(id, &[("n1", 2 * HOUR_MS), ("n2", 0)]);
    assert_eq!(told(&mut cluster, &busy), nothing);
    let idle = beats(id, &[("n1", 2 * HOUR_MS), ("n2", HOUR_MS + 300_000), ("n9", 1)]);
    assert_eq!(told(&mut cluster, &idle), ["its 16 GPUs have done nothing for 1 h 5 min"]);
    assert_eq!(cluster.world.attempts[&id].idle_told, Some(cluster.now));
    assert_eq!(told(&mut cluster, &idle), nothing, "once");
}

#[test]
fn nobody_is_told_of_an_attempt_that_does_not_run_or_where_the_site_wants_no_warning() {
    let (mut cluster, id) = gang();
    let idle = beats(id, &[("n1", HOUR_MS), ("n2", HOUR_MS)]);
    cluster.policy.idle_warning_s = 0;
    assert!(told(&mut cluster, &idle).is_empty());
    cluster.policy.idle_warning_s = 60;
    assert_eq!(told(&mut cluster, &beats(AttemptId { job: JobId(99), number: 1 }, &[])).len(), 0);
    says(
        &mut cluster,
        (id, "n1", 3),
        MemberEvent::Ended {
            cause: Cause::User,
            reason: String::new(),
            exit: Some(ExitStatus::Code(1)),
        },
        None,
    );
    assert_eq!(cluster.world.attempts[&id].state, AttemptState::Stopping);
    assert!(told(&mut cluster, &idle).is_empty(), "it is being stopped");
}

#[test]
fn an_attempt_without_gpus_is_never_idle() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").cpus(64).add();
    let job = cluster.job().cpus(4).submit();
    cluster.start_all();
    let id = AttemptId { job, number: 1 };
    says(&mut cluster, (id, "n1", 1), MemberEvent::Accepted, None);
    says(&mut cluster, (id, "n1", 2), MemberEvent::Started, None);
    assert!(told(&mut cluster, &beats(id, &[("n1", 9 * HOUR_MS)])).is_empty());
}
