//! Instances of GPUs that are cut: who may have them, what they count, and what is said of those that wait.

use std::sync::Arc;

use gotgan_core::admit::{
    AdmitContext, CommandRequest, Fault, Fleet, JobRequest, WorkRequest, admit,
};
use gotgan_core::amount::{CpuMilli, GpuMilli, UnixMicros};
use gotgan_core::change::Change;
use gotgan_core::check;
use gotgan_core::health::{NodeHealth, Repair, Standing, State};
use gotgan_core::ids::{Epoch, GpuUuid, JobId, NodeName, UserName};
use gotgan_core::lifecycle::{self, CutRefusal, CutRequest, Draft};
use gotgan_core::mig::{Mig, MigProfile};
use gotgan_core::node::Inventory;
use gotgan_core::plan::{BlockerKind, Unit};
use gotgan_core::policy::Policy;
use gotgan_core::spec::{GpuRequest, JobSpec, TaskLayout};
use insta::assert_snapshot;

use crate::builders::cut;
use crate::cluster::TestCluster;

/// A node with a GPU that is whole, one cut into seven, one into three, and one into nothing.
fn cluster() -> TestCluster {
    let mut cluster = TestCluster::new();
    let node = cluster.node("m1").gpus(4, "h100").cut(1, &["1g.10gb"; 7]);
    node.cut(2, &["3g.40gb", "2g.20gb", "2g.20gb"]).cut(3, &[]).add();
    cluster
}

fn uuids(cluster: &TestCluster, job: JobId) -> Vec<String> {
    let attempts = cluster.world.attempts.values().filter(|attempt| attempt.id.job == job);
    let gpus = attempts.flat_map(|attempt| &attempt.placement.nodes).flat_map(|node| &node.gpus);
    gpus.map(|gpu| gpu.uuid.to_string()).collect()
}

#[test]
fn a_job_gets_an_instance_of_its_profile_and_what_it_counts_is_its_part_of_the_gpu() {
    let mut cluster = cluster();
    let one = cluster.job().mig(1, "1g.10gb", "").submit();
    let more = cluster.job().mig(2, "2g.20gb", "h100").submit();
    cluster.start_all();
    assert_eq!(uuids(&cluster, one), ["MIG-GPU-m1-1-0"]);
    assert_eq!(uuids(&cluster, more), ["MIG-GPU-m1-2-1", "MIG-GPU-m1-2-2"]);
    let held: Vec<GpuMilli> = cluster.world.attempts.values().map(|it| it.gpus()).collect();
    assert_eq!(held, [GpuMilli(142), GpuMilli(570)]);
}

#[test]
fn whole_gpus_and_shares_are_never_taken_of_a_gpu_that_is_cut() {
    let mut cluster = cluster();
    let share = cluster.job().share(100, "h100").submit();
    let other = cluster.job().share(900, "h100").submit();
    cluster.start_all();
    assert_eq!(uuids(&cluster, share), ["GPU-m1-0"]);
    assert_eq!(uuids(&cluster, other), ["GPU-m1-0"]);
    let whole = cluster.job().gpus(1, "h100").submit();
    let two = cluster.job().gpus(2, "h100").submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(whole), @"needs 1 h100 GPU; 0 of 1 are free");
    assert_snapshot!(outcome.sentences(two), @"no node has 2 h100 GPUs, 1 CPU and 1 GiB memory, in use or not");
}

#[test]
fn who_waits_for_an_instance_is_told_of_which_there_is_none_and_how_many_there_are() {
    let mut cluster = cluster();
    let held = [1, 2].map(|_| cluster.job().mig(1, "2g.20gb", "h100").submit());
    cluster.start_all();
    let waits = cluster.job().mig(1, "2g.20gb", "h100").submit();
    let more = cluster.job().mig(8, "1g.10gb", "h100").submit();
    let gone = cluster.job().mig(1, "4g.40gb", "h100").submit();
    cluster.expect_waiting(waits);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(waits), @"no free 2g.20gb instance on h100 GPUs: needs 1, 0 of 2 are free");
    let blocker = &outcome.blockers(waits)[0];
    assert_eq!((blocker.kind, blocker.unit), (BlockerKind::Capacity, Unit::Instances));
    assert_eq!((blocker.needed, blocker.available, blocker.limit), (1, 0, 2));
    assert_snapshot!(outcome.sentences(more), @"no node has 8 1g.10gb instances of h100, 1 CPU and 1 GiB memory, in use or not");
    assert_snapshot!(outcome.sentences(gone), @"no node has 1 4g.40gb instance of h100, 1 CPU and 1 GiB memory, in use or not");
    cluster.end(held[0]);
    cluster.expect_on(waits, &["m1"]);
}

#[test]
fn a_gang_has_its_instances_on_as_many_nodes_as_it_asks() {
    let mut cluster = cluster();
    cluster.node("m2").gpus(1, "h100").cut(0, &["3g.40gb", "3g.40gb"]).add();
    let gang = cluster.job().mig(1, "3g.40gb", "h100").nodes(2).submit();
    let other = cluster.job().mig(1, "3g.40gb", "h100").nodes(2).submit();
    cluster.expect_on(gang, &["m1", "m2"]);
    cluster.expect_waiting(other);
    cluster.start_all();
    assert_snapshot!(cluster.check().sentences(other), @"too few free 3g.40gb instances on h100 GPUs: needs 2, 1 of 3 are free");
}

#[test]
fn limits_count_instances_with_whole_gpus_in_thousandths() {
    let mut cluster = cluster();
    cluster.limit("public/nup", &[("h100", 1)]);
    let first = cluster.job().project("public/nup").mig(7, "1g.10gb", "h100").submit();
    let second = cluster.job().project("public/nup").mig(1, "3g.40gb", "h100").submit();
    cluster.expect_on(first, &["m1"]);
    cluster.expect_waiting(second);
    assert_snapshot!(cluster.check().sentences(second), @"project public/nup may hold 1 h100 GPU and holds 0.994; this job needs 0.428 more");
}

#[test]
fn a_start_is_planned_for_a_gang_of_instances_and_nothing_longer_begins_beside_it() {
    let mut cluster = TestCluster::new();
    cluster.policy.planned_gangs_per_project = 1;
    for name in ["m1", "m2"] {
        cluster.node(name).gpus(1, "h100").cut(0, &["3g.40gb", "3g.40gb"]).add();
    }
    let long = cluster.job().mig(2, "3g.40gb", "h100").hours(4).submit();
    cluster.run_all();
    let gang = cluster.job().mig(2, "3g.40gb", "h100").nodes(2).hours(2).submit();
    let brief = cluster.job().mig(1, "3g.40gb", "h100").hours(3).submit();
    let late = cluster.job().mig(1, "3g.40gb", "h100").hours(5).submit();
    assert!(cluster.world.jobs[&long].status.state.is_active());
    cluster.expect_on(brief, &["m2"]);
    cluster.expect_waiting(late);
    let outcome = cluster.check();
    assert_eq!(outcome.planned(gang).map(|(_, nodes)| nodes.len()), Some(2));
}

#[test]
fn a_guarantee_is_got_back_by_stopping_who_holds_instances_of_that_profile() {
    let mut cluster = TestCluster::new();
    cluster.node("m1").gpus(2, "h100").cut(0, &["7g.80gb"]).cut(1, &["3g.40gb", "3g.40gb"]).add();
    cluster.guarantee("public/a", 1, &[("h100", 1)]);
    cluster.guarantee("public/b", 1, &[]);
    let large = cluster.job().project("public/b").mig(1, "7g.80gb", "h100").submit();
    cluster.start_all();
    cluster.later(100);
    let small = [1, 2].map(|_| {
        let job = cluster.job().project("public/b").mig(1, "3g.40gb", "h100").submit();
        cluster.start_all();
        cluster.later(100);
        job
    });
    let job = cluster.job().project("public/a").mig(1, "3g.40gb", "h100").submit();
    let outcome = cluster.start_all();
    assert_eq!(outcome.victims(), [(small[1], job)]);
    assert!(cluster.world.jobs[&large].status.state.is_active());
    cluster.let_go();
    cluster.expect_on(job, &["m1"]);
}

#[test]
fn a_gpu_that_is_out_takes_its_instances_along() {
    let mut cluster = cluster();
    let (node, gpu) = (NodeName::new("m1").unwrap(), GpuUuid::new("GPU-m1-1").unwrap());
    let mut health = NodeHealth::default();
    let standing = Standing {
        state: State::Out { repair: Repair::Reset },
        reason: "xid 79".to_owned(),
        ..Standing::default()
    };
    health.gpus.entry(gpu).or_default().standing = standing;
    cluster.apply(&Change::NodeHealth { node, health: Arc::new(health), changes_room: true });
    let job = cluster.job().mig(1, "1g.10gb", "h100").submit();
    let other = cluster.job().mig(1, "3g.40gb", "h100").submit();
    cluster.expect_waiting(job);
    cluster.expect_on(other, &["m1"]);
    assert_snapshot!(cluster.check().sentences(job), @"needs 1 node and none is free; would serve but take no work: m1 (1 of 4 GPUs out; xid 79)");
}

#[test]
fn a_gpu_that_is_cut_anew_offers_what_it_is_now_and_what_runs_keeps_what_it_has() {
    let mut cluster = cluster();
    let job = cluster.job().mig(1, "1g.10gb", "h100").submit();
    cluster.start_all();
    let registered = &cluster.world.nodes["m1"].registered;
    let mut inventory = Inventory::clone(registered);
    let card = inventory.gpus[3].uuid.clone();
    inventory.gpus[3].mig = Mig::Cut(cut(&card, &["4g.40gb"]));
    inventory.gpus[2].mig = Mig::Off;
    cluster.apply(&Change::NodeRegistered(Arc::new(inventory)));
    let four = cluster.job().mig(1, "4g.40gb", "h100").submit();
    let whole = cluster.job().gpus(2, "h100").submit();
    let seven = cluster.job().mig(7, "1g.10gb", "h100").submit();
    cluster.expect_on(four, &["m1"]);
    cluster.expect_on(whole, &["m1"]);
    cluster.expect_waiting(seven);
    assert_eq!(uuids(&cluster, job), ["MIG-GPU-m1-1-0"]);
    assert_eq!(check::world(&cluster.world), Vec::new());
}

/// Decides by the commands and reports themselves, as the scheduler does.
fn draft<T>(cluster: &mut TestCluster, decide: impl FnOnce(&mut Draft<'_>) -> T) -> T {
    let (now, policy) = (cluster.now, cluster.policy.clone());
    decide(&mut Draft::new(&mut cluster.world, &policy, Epoch(1), now))
}

fn cut_request(gpu: u32, profiles: Option<&[&str]>) -> CutRequest {
    let profiles = profiles.map(|all| all.iter().map(|it| MigProfile::new(it).unwrap()).collect());
    CutRequest {
        node: NodeName::new("m1").unwrap(),
        gpu: GpuUuid::new(&format!("GPU-m1-{gpu}")).unwrap(),
        profiles,
    }
}

fn ask(cluster: &mut TestCluster, gpu: u32, profiles: Option<&[&str]>) -> Result<bool, CutRefusal> {
    let (request, by) = (cut_request(gpu, profiles), UserName::new("ada").unwrap());
    draft(cluster, |draft| lifecycle::cut_gpu(draft, &request, &by))
}

/// What its worker would be told to cut now.
fn due(cluster: &TestCluster) -> Vec<String> {
    let due = lifecycle::cuts_due(&cluster.world, &NodeName::new("m1").unwrap());
    due.into_iter().map(|(gpu, plan)| format!("{gpu} {}", plan.words())).collect()
}

/// Its worker registers with a GPU that is cut into these.
fn registers(cluster: &mut TestCluster, gpu: usize, profiles: Option<&[&str]>) {
    let mut inventory = Inventory::clone(&cluster.world.nodes["m1"].registered);
    let card = inventory.gpus[gpu].uuid.clone();
    inventory.gpus[gpu].mig = profiles.map_or(Mig::Off, |all| Mig::Cut(cut(&card, all)));
    let held: Vec<_> = cluster.world.nodes["m1"].attempts.iter().map(|id| (*id, false)).collect();
    draft(cluster, |draft| lifecycle::register(draft, inventory, &held));
}

#[test]
fn a_gpu_is_cut_once_nothing_is_on_it_and_takes_no_new_work_until_then() {
    let mut cluster = cluster();
    let holds = cluster.job().mig(1, "1g.10gb", "h100").submit();
    cluster.start_all();
    assert_eq!(ask(&mut cluster, 1, Some(&["2g.20gb", "3g.40gb"])), Ok(true));
    assert_eq!(ask(&mut cluster, 1, Some(&["3g.40gb", "2g.20gb"])), Ok(false), "the same");
    assert_eq!(due(&cluster), Vec::<String>::new(), "a job is on it");
    let waits = cluster.job().mig(1, "1g.10gb", "h100").submit();
    cluster.expect_waiting(waits);
    assert_snapshot!(cluster.check().sentences(waits), @"needs 1 node and none is free; would serve but take no work: m1 (1 of 4 GPUs out; to be cut into 2g.20gb, 3g.40gb (by ada))");
    cluster.end(holds);
    assert_eq!(due(&cluster), ["GPU-m1-1 cut into 2g.20gb, 3g.40gb"]);
    registers(&mut cluster, 1, Some(&["3g.40gb", "2g.20gb"]));
    assert_eq!(due(&cluster), Vec::<String>::new(), "it is done");
    let job = cluster.job().mig(2, "3g.40gb", "h100").submit();
    cluster.expect_waiting(waits);
    cluster.expect_on(job, &["m1"]);
    assert_eq!(check::world(&cluster.world), Vec::new());
}

#[test]
fn what_failed_stays_out_with_the_reason_until_the_command_is_repeated() {
    let mut cluster = cluster();
    assert_eq!(ask(&mut cluster, 0, Some(&["7g.80gb"])), Ok(true));
    let first = cluster.now;
    let node = NodeName::new("m1").unwrap();
    let gpu = GpuUuid::new("GPU-m1-0").unwrap();
    let fail = |cluster: &mut TestCluster, at: UnixMicros| {
        draft(cluster, |draft| lifecycle::cut_failed(draft, &node, &gpu, at.0, "in use (code 19)"));
    };
    fail(&mut cluster, first);
    assert_eq!(due(&cluster), Vec::<String>::new(), "it is not tried again by itself");
    let whole = cluster.job().gpus(1, "h100").submit();
    cluster.expect_waiting(whole);
    assert_snapshot!(cluster.check().sentences(whole), @"needs 1 node and none is free; would serve but take no work: m1 (1 of 4 GPUs out; in use (code 19))");
    cluster.later(10);
    assert_eq!(ask(&mut cluster, 0, Some(&["7g.80gb"])), Ok(true));
    assert_eq!(due(&cluster), ["GPU-m1-0 cut into 7g.80gb"]);
    fail(&mut cluster, first);
    assert_eq!(due(&cluster).len(), 1, "that was said of the plan before");
    assert_eq!(ask(&mut cluster, 0, None), Ok(true), "it is whole, so the plan is taken back");
    assert_eq!(ask(&mut cluster, 0, None), Ok(false));
    cluster.expect_on(whole, &["m1"]);
}

#[test]
fn what_a_gpu_cannot_be_cut_into_is_refused_and_nothing_is_planned() {
    let mut cluster = cluster();
    cluster.check();
    let said = |cluster: &mut TestCluster, gpu, profiles: &[&str]| {
        ask(cluster, gpu, Some(profiles)).unwrap_err().to_string()
    };
    assert_snapshot!(said(&mut cluster, 0, &[]), @"name 1 to 16 profiles, as in 3g.40gb,2g.20gb,2g.20gb, or ask for the whole GPU");
    assert_snapshot!(said(&mut cluster, 0, &["1c.3g.40gb"]), @"1c.3g.40gb is a part of a GPU instance; instances are made with all compute slices of theirs, as in 3g.40gb");
    assert_snapshot!(said(&mut cluster, 9, &["7g.80gb"]), @"node m1 has no GPU GPU-m1-9; see `gotgan node m1`");
    assert!(cluster.world.nodes["m1"].health.cuts.is_empty());
}

fn context() -> AdmitContext {
    let mut cluster = cluster();
    cluster.check();
    AdmitContext {
        quota: Arc::clone(&cluster.world.quota),
        fleet: Arc::new(Fleet::of(&cluster.world)),
        policy: Arc::new(Policy::default()),
    }
}

fn request(change: impl FnOnce(&mut JobRequest)) -> JobRequest {
    let layout = Some(TaskLayout::PerNode);
    let work = CommandRequest { argv: vec!["true".to_owned()], layout };
    let work = Some(WorkRequest::Command(work));
    let mut request =
        JobRequest { project: "public/lab".to_owned(), work, ..JobRequest::default() };
    request.resources.mig_profile = "1g.10gb".to_owned();
    change(&mut request);
    request
}

fn admitted(change: impl FnOnce(&mut JobRequest)) -> JobSpec {
    admit(request(change), &context()).unwrap().spec
}

fn refused(change: impl FnOnce(&mut JobRequest)) -> String {
    let faults = admit(request(change), &context()).unwrap_err();
    let line = |fault: &Fault| format!("{} {} {}", fault.field, fault.reason.word(), fault.message);
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_request_for_instances_is_one_on_each_node_unless_it_says_how_many() {
    let count = |spec: &JobSpec| {
        let GpuRequest::Mig { count, milli, .. } = spec.per_node.gpus else {
            panic!("no instances")
        };
        (spec.nodes, count, milli)
    };
    assert_eq!(count(&admitted(|_| {})), (1, 1, 142));
    assert_eq!(count(&admitted(|r| r.resources.gpus_per_node = 3)), (1, 3, 142));
    assert_eq!(count(&admitted(|r| r.resources.gpus_total = 7)), (1, 7, 142));
    let spec = admitted(|r| r.resources.mig_profile = "3g.40gb".to_owned());
    assert_eq!(count(&spec), (1, 1, 428));
    // As much beside them as they are of the node's four GPUs.
    assert_eq!(spec.per_node.cpu_milli, CpuMilli(428 * 4));
}

#[test]
fn what_cannot_be_asked_of_instances_is_refused_with_what_can() {
    assert_snapshot!(refused(|r| r.resources.mig_profile = "1g".to_owned()), @r#"spec.resources.mig_profile MALFORMED is malformed: "1g" is no MIG profile; write it as NVIDIA does: 1g.10gb, 3g.40gb, 1c.3g.40gb or 1g.10gb+me"#);
    assert_snapshot!(refused(|r| r.resources.mig_profile = "1g.12gb".to_owned()), @r#"spec.resources.mig_profile UNKNOWN_PROFILE no GPU is cut into instances of 1g.12gb; did you mean "1g.10gb"?"#);
    assert_snapshot!(refused(|r| r.resources.gpu_share_milli = 500), @"spec.resources.mig_profile CONFLICT is given beside resources.gpu_share_milli; an instance is given as a whole: leave the share out");
    assert_snapshot!(refused(|r| r.resources.gpus_per_node = 8), @"spec.resources.gpus_per_node LARGER_THAN_MACHINE asks for 8 1g.10gb instances on one node; the largest has 7: ask for more nodes with at most 7 each");
}

#[test]
fn where_all_gpus_are_cut_who_asks_for_whole_ones_is_told_so() {
    let mut cluster = TestCluster::new();
    cluster.node("m1").gpus(1, "h100").cut(0, &["1g.10gb"]).add();
    cluster.check();
    let context = AdmitContext { fleet: Arc::new(Fleet::of(&cluster.world)), ..context() };
    let whole = request(|request| {
        request.resources.mig_profile.clear();
        request.resources.gpus_per_node = 1;
    });
    let faults = admit(whole, &context).unwrap_err();
    assert_snapshot!(faults[0].message, @"asks for whole GPUs or a share of one; all of them are cut into MIG instances: ask for one of those with resources.mig_profile");
}
