//! Signs of bad health: what goes out, what happens to jobs, who pays, and how hardware comes back.

use std::collections::BTreeSet;
use std::sync::Arc;

use gotgan_core::attempt::{Cause, ExitStatus};
use gotgan_core::change::{Change, EventKind};
use gotgan_core::health::{Condition, GpuLook, Journal, Repair, Signal, State};
use gotgan_core::ids::{AttemptId, GpuUuid, JobId, NodeName, UserName};
use gotgan_core::job::JobState;
use gotgan_core::ledger::LedgerKind;
use gotgan_core::lifecycle::{
    self, Check, Checked, Draft, Finding, HealthRefusal, MemberEvent, Place, Repaired, Report, fold,
};
use gotgan_core::node::Inventory;

use crate::cluster::TestCluster;

/// A cluster whose changes are kept, to be looked at.
struct Ward {
    cluster: TestCluster,
    told: Vec<Change>,
    seq: u64,
}

impl Ward {
    fn new(nodes: &[&str]) -> Self {
        let mut cluster = TestCluster::new();
        for name in nodes {
            cluster.node(name).gpus(8, "b200").label("rack", "r1").label("hall", "h1").add();
        }
        Ward { cluster, told: Vec::new(), seq: 0 }
    }

    fn drafted<T>(&mut self, change: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        let TestCluster { world, policy, now, .. } = &mut self.cluster;
        let mut draft = Draft::new(world, policy, gotgan_core::ids::Epoch(1), *now);
        let value = change(&mut draft);
        let changes = draft.into_changes();
        changes.iter().for_each(|change| self.cluster.bearings.see(change));
        self.told.extend(changes);
        value
    }

    /// A job of so many GPUs a node, that runs.
    fn running(&mut self, owner: &str, nodes: u32, gpus: u32) -> JobId {
        let job = self.cluster.job().owner(owner).nodes(nodes).gpus(gpus, "b200").submit();
        self.cluster.start_all();
        for node in self.nodes_of(job) {
            self.says(&node, job, 1, MemberEvent::Accepted);
            self.says(&node, job, 2, MemberEvent::Started);
        }
        job
    }

    fn attempt(&self, job: JobId) -> AttemptId {
        AttemptId { job, number: self.cluster.world.jobs[&job].status.attempt }
    }

    fn nodes_of(&self, job: JobId) -> Vec<String> {
        let attempt = &self.cluster.world.attempts[&self.attempt(job)];
        attempt.placement.nodes.iter().map(|place| place.node.to_string()).collect()
    }

    fn says(&mut self, node: &str, job: JobId, seq: u64, event: MemberEvent) {
        let (attempt, at) = (self.attempt(job), self.cluster.now);
        let report = Report { node: name(node), attempt, seq, at, event };
        self.drafted(|draft| fold(draft, &report));
    }

    fn fails(&mut self, node: &str, job: JobId, seq: u64) {
        let exit = Some(ExitStatus::Code(1));
        let event = MemberEvent::Ended { cause: Cause::User, reason: String::new(), exit };
        self.says(node, job, seq, event);
    }

    fn xid(&mut self, node: &str, index: u32, number: u32, jobs: &[JobId]) {
        self.xid_of(node, Some(index), number, jobs);
    }

    fn xid_of(&mut self, node: &str, index: Option<u32>, number: u32, jobs: &[JobId]) {
        self.seq += 1;
        let finding = Finding {
            node: name(node),
            journal: Journal { id: node.to_owned(), seq: self.seq },
            signal: Signal::Xid(number),
            gpu: index.map(|index| gpu(node, index)),
            attempts: jobs.iter().map(|job| self.attempt(*job)).collect(),
            detail: String::new(),
        };
        self.drafted(|draft| lifecycle::find(draft, &finding));
    }

    fn look(&mut self, node: &str, index: u32, conditions: &[Condition]) {
        let conditions = conditions.iter().copied().collect::<BTreeSet<_>>();
        let looks = [GpuLook { uuid: gpu(node, index), conditions }];
        self.drafted(|draft| lifecycle::look(draft, &name(node), &looks));
    }

    fn state(&self, node: &str, index: u32) -> State {
        self.cluster.world.nodes[&name(node)].health.gpu(&gpu(node, index))
    }

    fn node_state(&self, node: &str) -> State {
        self.cluster.world.nodes[&name(node)].health.node.state
    }

    fn later(&mut self, seconds: i64) {
        self.cluster.later(seconds);
        self.drafted(lifecycle::settle_verified);
    }

    fn register(&mut self, node: &str, change: impl FnOnce(&mut Inventory)) {
        let mut inventory = Inventory::clone(&self.cluster.world.nodes[&name(node)].registered);
        change(&mut inventory);
        self.drafted(|draft| lifecycle::register(draft, inventory, &[]));
    }

    fn place(&self, node: &str, index: Option<u32>) -> Place {
        Place { node: name(node), gpu: index.map(|index| gpu(node, index)) }
    }

    fn verify(&mut self, node: &str, index: Option<u32>) -> Result<bool, HealthRefusal> {
        let place = self.place(node, index);
        self.drafted(|draft| lifecycle::verify(draft, &place, &kim()))
    }

    /// How many free GPUs can be given out on a node.
    fn offered(&self, node: &str) -> usize {
        self.cluster.world.nodes[&name(node)].inventory.gpus.len()
    }

    /// Words of what was told of one kind.
    fn heard(&self, kind: EventKind) -> Vec<String> {
        let events = self.told.iter().filter_map(|change| match change {
            Change::Happened(event) if event.kind == kind => Some(event.text.clone()),
            _ => None,
        });
        events.collect()
    }

    fn is_refunded(&self, job: JobId) -> bool {
        self.told.iter().any(|change| match change {
            Change::Booked(entry) => entry.attempt.job == job && entry.kind == LedgerKind::Refund,
            _ => false,
        })
    }
}

fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

fn gpu(node: &str, index: u32) -> GpuUuid {
    GpuUuid::new(&format!("GPU-{node}-{index}")).unwrap()
}

fn kim() -> UserName {
    UserName::new("kim").unwrap()
}

const RESET: State = State::Out { repair: Repair::Reset };
const REBOOT: State = State::Out { repair: Repair::Reboot };
const SERVICE: State = State::Out { repair: Repair::Service };

#[test]
fn an_uncontained_memory_error_takes_the_gpu_out_and_fails_its_jobs_at_once_for_the_hardware() {
    let mut ward = Ward::new(&["n1", "n2"]);
    let hit = ward.running("lee", 1, 4);
    let node = ward.nodes_of(hit)[0].clone();
    let beside = ward.running("park", 1, 4);
    ward.cluster.later(100);
    ward.xid(&node, 0, 95, &[hit]);
    assert_eq!(ward.state(&node, 0), RESET);
    assert_eq!(ward.node_state(&node), State::Ok, "its other GPUs go on");
    assert_eq!(ward.offered(&node), 7);
    let stop = ward.cluster.world.attempts[&ward.attempt(hit)].stop.clone().unwrap();
    assert_eq!(stop.cause, Cause::Hardware);
    assert!(stop.reason.contains("GPU 0: Xid 95: uncontained memory error"), "{}", stop.reason);
    assert!(ward.cluster.world.attempts[&ward.attempt(beside)].stop.is_none());
    let queued = ward.cluster.world.jobs[&hit].status.queued;
    ward.fails(&node, hit, 3);
    let status = ward.cluster.world.jobs[&hit].status.clone();
    assert_eq!((status.state, status.failures, status.losses), (JobState::Pending, 0, 1));
    assert_eq!(status.queued, queued, "it keeps its age");
    assert!(status.avoid.contains(&name(&node)), "it is not tried there again");
    assert!(ward.is_refunded(hit) && !ward.is_refunded(beside));
    ward.cluster.check();
}

#[test]
fn a_job_that_fails_just_after_a_contained_memory_error_is_no_failure_of_its_user() {
    let mut ward = Ward::new(&["n1", "n2"]);
    let job = ward.running("lee", 2, 8);
    ward.cluster.later(100);
    ward.xid("n1", 3, 94, &[job]);
    assert!(ward.cluster.world.attempts[&ward.attempt(job)].stop.is_none(), "it may go on");
    assert_eq!(
        ward.state("n1", 3),
        State::Suspect { repair: Some(Repair::Reset), held_back: false }
    );
    // The ranks on the other node fail first, with broken links.
    ward.cluster.later(5);
    ward.fails("n2", job, 3);
    ward.fails("n1", job, 3);
    let status = &ward.cluster.world.jobs[&job].status;
    assert_eq!((status.state, status.failures, status.losses), (JobState::Pending, 0, 1));
    assert!(status.detail.contains("n1: GPU 3: Xid 94"), "{}", status.detail);
    assert_eq!(status.avoid, BTreeSet::from([name("n1")]), "the other node did nothing");
    assert!(ward.is_refunded(job));
    ward.cluster.check();
}

#[test]
fn a_job_that_fails_long_after_or_was_not_on_the_gpu_pays_for_itself() {
    let mut ward = Ward::new(&["n1"]);
    let (hit, other) = (ward.running("lee", 1, 1), ward.running("park", 1, 1));
    ward.xid("n1", 0, 94, &[hit]);
    ward.fails("n1", other, 3);
    assert_eq!(ward.cluster.world.jobs.get(&other).map(|job| job.status.state), None, "failed");
    ward.cluster.later(301);
    ward.fails("n1", hit, 3);
    assert!(!ward.cluster.world.jobs.contains_key(&hit), "failed by its own doing");
    assert!(!ward.is_refunded(hit) && !ward.is_refunded(other));
    ward.cluster.check();
}

#[test]
fn a_gpu_that_fell_off_the_bus_takes_its_whole_node_and_a_reboot_brings_it_back() {
    let mut ward = Ward::new(&["n1", "n2"]);
    let (hit, beside) = (ward.running("lee", 1, 2), ward.running("park", 1, 2));
    let node = ward.nodes_of(hit)[0].clone();
    ward.xid(&node, 0, 79, &[hit]);
    assert_eq!((ward.state(&node, 0), ward.node_state(&node)), (REBOOT, REBOOT));
    for job in [hit, beside] {
        let attempt = &ward.cluster.world.attempts[&ward.attempt(job)];
        let here = attempt.placement.nodes[0].node.as_str() == node;
        assert_eq!(attempt.stop.is_some(), here, "what runs on that node fails now");
    }
    for job in [hit, beside] {
        if ward.cluster.world.attempts[&ward.attempt(job)].stop.is_some() {
            ward.fails(&node, job, 3);
        }
    }
    ward.register(&node, |inventory| inventory.boot_id = "another".to_owned());
    assert_eq!(ward.state(&node, 0), State::Verifying);
    assert_eq!(ward.node_state(&node), State::Verifying);
    ward.later(59);
    assert!(!ward.cluster.world.nodes[&name(&node)].takes_work());
    ward.later(1);
    assert_eq!((ward.state(&node, 0), ward.node_state(&node)), (State::Ok, State::Ok));
    assert_eq!(ward.offered(&node), 8);
    ward.cluster.check();
}

#[test]
fn what_the_driver_wants_done_stands_above_the_rules_and_its_end_begins_the_verifying() {
    let mut ward = Ward::new(&["n1"]);
    ward.xid("n1", 2, 119, &[]);
    assert_eq!(ward.state("n1", 2), RESET);
    ward.look("n1", 2, &[Condition::RecoverByReboot]);
    assert_eq!((ward.state("n1", 2), ward.node_state("n1")), (REBOOT, REBOOT));
    ward.look("n1", 2, &[Condition::RecoverByReset]);
    assert_eq!(ward.state("n1", 2), RESET);
    ward.look("n1", 2, &[]);
    assert_eq!(ward.state("n1", 2), State::Verifying);
    ward.later(60);
    assert_eq!(ward.state("n1", 2), State::Ok);
    ward.cluster.check();
}

#[test]
fn a_row_that_waits_for_its_replacement_changes_nothing_but_a_note() {
    let mut ward = Ward::new(&["n1"]);
    let job = ward.running("lee", 1, 8);
    ward.look("n1", 1, &[Condition::RemapPending]);
    let watched = State::Suspect { repair: Some(Repair::Reset), held_back: false };
    assert_eq!(ward.state("n1", 1), watched);
    assert!(ward.cluster.world.attempts[&ward.attempt(job)].stop.is_none());
    ward.fails("n1", job, 3);
    assert!(!ward.is_refunded(job), "a failure then is the job's own");
    // Once it is idle the site's program may reset it; until that is done it takes no work.
    let place = ward.place("n1", Some(1));
    assert_eq!(lifecycle::due_repairs(&ward.cluster.world), std::slice::from_ref(&place));
    let repair = ward.drafted(|draft| lifecycle::begin_repair(draft, &place));
    assert_eq!((repair, ward.state("n1", 1)), (Some(Repair::Reset), RESET));
    ward.drafted(|draft| lifecycle::repaired(draft, &place, &Repaired::Done));
    ward.look("n1", 1, &[]);
    ward.later(60);
    assert_eq!(ward.state("n1", 1), State::Ok);
    ward.cluster.check();
}

#[test]
fn a_repair_waits_until_nothing_is_on_the_hardware() {
    let mut ward = Ward::new(&["n1"]);
    let job = ward.running("lee", 1, 1);
    ward.xid("n1", 0, 64, &[job]);
    assert_eq!(ward.state("n1", 0), RESET);
    assert!(ward.cluster.world.attempts[&ward.attempt(job)].stop.is_none(), "it goes on");
    assert_eq!(lifecycle::due_repairs(&ward.cluster.world), []);
    ward.fails("n1", job, 3);
    let place = ward.place("n1", Some(0));
    assert_eq!(lifecycle::due_repairs(&ward.cluster.world), std::slice::from_ref(&place));
    let failed = Repaired::Failed("the board does not answer".to_owned());
    ward.drafted(|draft| lifecycle::repaired(draft, &place, &failed));
    assert_eq!(ward.state("n1", 0), SERVICE, "a person has to look");
    assert_eq!(lifecycle::due_repairs(&ward.cluster.world), []);
    ward.cluster.check();
}

#[test]
fn what_was_repaired_and_is_bad_again_while_it_is_verified_needs_a_person() {
    let mut ward = Ward::new(&["n1"]);
    ward.look("n1", 5, &[Condition::ResetRequired]);
    assert_eq!(ward.state("n1", 5), RESET);
    ward.look("n1", 5, &[]);
    assert_eq!(ward.state("n1", 5), State::Verifying);
    ward.look("n1", 5, &[Condition::ResetRequired]);
    assert_eq!(ward.state("n1", 5), SERVICE);
    ward.cluster.check();
}

impl Ward {
    /// The site has a check on these nodes.
    fn with_checks(nodes: &[&str]) -> Self {
        let mut ward = Ward::new(nodes);
        nodes.iter().for_each(|node| ward.register(node, |it| it.checks_hardware = true));
        ward
    }

    fn check_due(&self, node: &str) -> Option<Check> {
        lifecycle::check_due(&self.cluster.world, &name(node))
    }

    fn checked(&mut self, node: &str, check: &Check, outcome: Checked) {
        self.drafted(|draft| lifecycle::checked(draft, &name(node), check, &outcome));
    }

    /// A GPU that had to be reset, and was.
    fn reset(&mut self, node: &str, index: u32) {
        self.look(node, index, &[Condition::ResetRequired]);
        self.look(node, index, &[]);
        assert_eq!(self.state(node, index), State::Verifying);
    }
}

const LONG_S: i64 = 100_000;

#[test]
fn what_the_site_checks_comes_back_once_it_has_passed_and_not_by_time_alone() {
    let mut ward = Ward::with_checks(&["n1"]);
    ward.reset("n1", 3);
    ward.later(LONG_S);
    assert_eq!(ward.state("n1", 3), State::Verifying);
    let check = ward.check_due("n1").unwrap();
    assert_eq!(check.gpu, Some(gpu("n1", 3)));
    ward.checked("n1", &check, Checked::Passed);
    assert_eq!(ward.check_due("n1"), None, "it has passed");
    assert_eq!(ward.offered("n1"), 7, "time has to settle it");
    ward.later(0);
    assert_eq!((ward.state("n1", 3), ward.offered("n1")), (State::Ok, 8));
    assert!(ward.heard(EventKind::HardwareVerifying).iter().any(|it| it.contains("passed")));
    ward.cluster.check();
}

#[test]
fn a_check_that_passed_early_does_not_shorten_the_time() {
    let mut ward = Ward::with_checks(&["n1"]);
    ward.reset("n1", 3);
    let check = ward.check_due("n1").unwrap();
    ward.checked("n1", &check, Checked::Passed);
    ward.later(1);
    assert_eq!(ward.state("n1", 3), State::Verifying);
    ward.later(LONG_S);
    assert_eq!(ward.state("n1", 3), State::Ok);
    ward.cluster.check();
}

#[test]
fn what_fails_the_sites_check_needs_a_person_and_is_checked_again_after() {
    let mut ward = Ward::with_checks(&["n1"]);
    ward.reset("n1", 3);
    let first = ward.check_due("n1").unwrap();
    ward.checked("n1", &first, Checked::Failed("slow memory".to_owned()));
    assert_eq!((ward.state("n1", 3), ward.check_due("n1")), (SERVICE, None));
    let told = ward.heard(EventKind::HardwareOut).pop().unwrap();
    assert!(told.contains("GPU 3 failed the site's check: slow memory"), "{told}");
    ward.later(60);
    assert_eq!(ward.verify("n1", Some(3)), Ok(true));
    let second = ward.check_due("n1").unwrap();
    assert_ne!(first, second);
    ward.checked("n1", &first, Checked::Passed);
    assert_eq!(ward.check_due("n1"), Some(second), "an outcome of before says nothing");
    ward.cluster.check();
}

#[test]
fn nothing_is_checked_under_a_job_or_where_the_site_has_no_check() {
    let mut ward = Ward::with_checks(&["n1"]);
    let job = ward.running("kim", 1, 1);
    ward.reset("n1", 0);
    assert_eq!(ward.check_due("n1"), None, "a job has it");
    ward.reset("n1", 5);
    assert_eq!(ward.check_due("n1").unwrap().gpu, Some(gpu("n1", 5)), "nothing is on this one");
    ward.fails("n1", job, 3);
    assert_eq!(ward.check_due("n1").unwrap().gpu, Some(gpu("n1", 0)));
    ward.register("n1", |it| it.checks_hardware = false);
    assert_eq!(ward.check_due("n1"), None);
    ward.later(LONG_S);
    assert_eq!((ward.state("n1", 0), ward.state("n1", 5)), (State::Ok, State::Ok));
    ward.cluster.check();
}

#[test]
fn a_node_is_checked_with_all_its_gpus_at_once() {
    let mut ward = Ward::with_checks(&["n1"]);
    ward.look("n1", 1, &[Condition::RecoverByReboot]);
    ward.look("n1", 2, &[Condition::ResetRequired]);
    ward.look("n1", 2, &[]);
    ward.register("n1", |it| it.boot_id = "another".to_owned());
    let check = ward.check_due("n1").unwrap();
    assert_eq!((check.gpu.clone(), ward.node_state("n1")), (None, State::Verifying));
    ward.checked("n1", &check, Checked::Passed);
    assert_eq!(ward.check_due("n1"), None, "its GPUs were checked with it");
    ward.later(LONG_S);
    assert_eq!(ward.state("n1", 2), State::Ok);
    ward.cluster.check();
}

#[test]
fn a_gpu_of_which_one_thing_is_over_stays_out_for_another_that_lasts() {
    let mut ward = Ward::new(&["n1"]);
    ward.look("n1", 0, &[Condition::ResetRequired, Condition::RemapFailed]);
    ward.look("n1", 0, &[Condition::RemapFailed]);
    assert_eq!(ward.state("n1", 0), SERVICE);
    ward.look("n1", 0, &[]);
    assert_eq!(ward.state("n1", 0), State::Verifying);
    ward.cluster.check();
}

#[test]
fn a_gpu_that_is_watched_for_two_things_stays_watched_for_the_other_and_that_is_told_once() {
    let mut ward = Ward::new(&["n1"]);
    ward.look("n1", 0, &[Condition::PowerBrake, Condition::LinksDown]);
    let told = ward.heard(EventKind::HardwareSign).len();
    ward.look("n1", 0, &[Condition::LinksDown]);
    ward.look("n1", 0, &[Condition::PowerBrake, Condition::LinksDown]);
    ward.look("n1", 0, &[Condition::PowerBrake]);
    assert_eq!(ward.state("n1", 0), State::Suspect { repair: None, held_back: false });
    assert_eq!(ward.heard(EventKind::HardwareSign).len(), told + 1, "the brake came back once");
    ward.look("n1", 0, &[]);
    assert_eq!(ward.state("n1", 0), State::Ok);
    ward.cluster.check();
}

#[test]
fn a_condition_that_lasts_is_not_verified_away_by_a_person() {
    let mut ward = Ward::new(&["n1"]);
    ward.look("n1", 5, &[Condition::RemapFailed]);
    assert_eq!(ward.state("n1", 5), SERVICE);
    assert_eq!(ward.verify("n1", Some(5)), Ok(true));
    ward.later(60);
    assert_eq!(ward.state("n1", 5), SERVICE);
    let last = ward.heard(EventKind::HardwareOut).pop().unwrap();
    assert!(last.contains("GPU 5: a bad row of its memory could not be replaced still"), "{last}");
    ward.cluster.check();
}

#[test]
fn only_what_is_there_can_be_verified() {
    let mut ward = Ward::new(&["n1"]);
    let error = ward.verify("n9", None).unwrap_err();
    assert_eq!(error.to_string(), "there is no node n9; see `gotgan nodes`");
    let error = ward.verify("n1", Some(99)).unwrap_err();
    assert!(error.to_string().starts_with("node n1 has no GPU GPU-n1-99"), "{error}");
    assert_eq!(ward.verify("n1", None), Ok(false), "nothing was wrong");
    ward.cluster.check();
}

#[test]
fn errors_of_programs_take_nothing_out_unless_those_of_two_users_are_on_one_gpu() {
    let mut ward = Ward::new(&["n1"]);
    let (lee, park) = (ward.running("lee", 1, 1), ward.running("park", 1, 1));
    for _ in 0..3 {
        ward.xid("n1", 0, 31, &[lee]);
    }
    assert_eq!(ward.state("n1", 0), State::Ok);
    ward.cluster.later(3600);
    ward.xid("n1", 0, 13, &[park]);
    assert_eq!(ward.state("n1", 0), State::Suspect { repair: None, held_back: false });
    assert_eq!(ward.offered("n1"), 8, "it takes work");
    let why = ward.heard(EventKind::HardwareSuspect).pop().unwrap();
    assert!(why.contains("programs of 2 users failed on it within 24 h"), "{why}");
    ward.fails("n1", lee, 3);
    assert!(!ward.is_refunded(lee));
    ward.cluster.check();
}

#[test]
fn an_error_of_a_gpu_that_nobody_knows_keeps_new_work_away_and_is_blamed_for_no_failure() {
    let mut ward = Ward::new(&["n1"]);
    let job = ward.running("lee", 1, 8);
    ward.xid_of("n1", None, 95, &[job]);
    assert_eq!(ward.node_state("n1"), RESET);
    assert!(ward.cluster.world.attempts[&ward.attempt(job)].stop.is_none());
    ward.fails("n1", job, 3);
    assert!(!ward.cluster.world.jobs.contains_key(&job) && !ward.is_refunded(job));
    ward.xid_of("n1", None, 31, &[]);
    ward.cluster.check();
}

#[test]
fn signs_that_take_nothing_out_are_no_news_for_jobs_that_wait() {
    let mut ward = Ward::new(&["n1"]);
    let job = ward.running("lee", 1, 8);
    let rooms = |ward: &Ward| -> Vec<bool> {
        let changes = ward.told.iter().filter_map(|change| match change {
            Change::NodeHealth { changes_room, .. } => Some(*changes_room),
            _ => None,
        });
        changes.collect()
    };
    ward.xid("n1", 0, 31, &[job]);
    ward.look("n1", 0, &[Condition::RemapPending]);
    assert!(!rooms(&ward).is_empty() && !rooms(&ward).contains(&true));
    ward.xid("n1", 0, 119, &[]);
    assert_eq!(rooms(&ward).iter().filter(|changes_room| **changes_room).count(), 1);
    ward.cluster.check();
}

#[test]
fn a_finding_that_comes_twice_counts_once_and_one_of_a_new_journal_counts() {
    let mut ward = Ward::new(&["n1"]);
    ward.xid("n1", 0, 92, &[]);
    let told = ward.heard(EventKind::HardwareSign).len();
    ward.seq -= 1;
    ward.xid("n1", 0, 92, &[]);
    assert_eq!(ward.heard(EventKind::HardwareSign).len(), told);
    let journal = Journal { id: "set up anew".to_owned(), seq: 1 };
    let (signal, gpu) = (Signal::Xid(92), Some(gpu("n1", 0)));
    let (node, attempts, detail) = (name("n1"), Vec::new(), String::new());
    let finding = Finding { node, journal, signal, gpu, attempts, detail };
    ward.drafted(|draft| lifecycle::find(draft, &finding));
    assert_eq!(ward.heard(EventKind::HardwareSign).len(), told + 1);
    ward.cluster.check();
}

#[test]
fn a_look_that_tells_nothing_new_changes_nothing() {
    let mut ward = Ward::new(&["n1"]);
    ward.look("n1", 0, &[Condition::RemapPending]);
    let told = ward.told.len();
    ward.look("n1", 0, &[Condition::RemapPending]);
    assert_eq!(ward.told.len(), told);
    let health = &ward.cluster.world.nodes[&name("n1")].health;
    let conditions = BTreeSet::from([Condition::RemapPending]);
    assert!(!lifecycle::tells_news(health, &[GpuLook { uuid: gpu("n1", 0), conditions }]));
    ward.cluster.check();
}

#[test]
fn a_driver_that_does_not_answer_keeps_new_work_away_until_it_has_answered_for_a_while() {
    let mut ward = Ward::new(&["n1"]);
    let job = ward.running("lee", 1, 1);
    ward.look("n1", 7, &[Condition::Unresponsive]);
    assert_eq!(ward.node_state("n1"), REBOOT);
    assert!(ward.cluster.world.attempts[&ward.attempt(job)].stop.is_none(), "it goes on");
    let waits = ward.cluster.job().gpus(1, "b200").submit();
    ward.cluster.expect_waiting(waits);
    ward.cluster.start_all();
    ward.look("n1", 7, &[]);
    assert_eq!(ward.node_state("n1"), State::Verifying);
    ward.later(60);
    ward.cluster.expect_on(waits, &["n1"]);
    ward.cluster.start_all();
}

#[test]
fn gpus_that_are_gone_keep_new_work_away_until_they_are_back_or_a_person_says_so() {
    let mut ward = Ward::new(&["n1"]);
    ward.register("n1", |inventory| inventory.simulated = false);
    ward.register("n1", |inventory| _ = inventory.gpus.pop());
    assert_eq!(ward.node_state("n1"), SERVICE);
    let why = ward.cluster.world.nodes[&name("n1")].why_no_work().unwrap();
    assert!(why.contains("no longer there (1 of 8 GPUs: GPU-n1-7)"), "{why}");
    let whole = Inventory::clone(&ward.cluster.copy().world.nodes[&name("n1")].registered);
    ward.register("n1", |inventory| {
        let mut back = whole.gpus[0].clone();
        back.uuid = gpu("n1", 7);
        inventory.gpus.push(back);
    });
    assert_eq!(ward.node_state("n1"), State::Verifying);
    ward.later(60);
    assert_eq!(ward.node_state("n1"), State::Ok);
    ward.register("n1", |inventory| _ = inventory.gpus.pop());
    assert_eq!(ward.verify("n1", None), Ok(true));
    ward.later(60);
    assert_eq!(ward.node_state("n1"), State::Ok, "it has seven GPUs from now on");
    ward.cluster.check();
}

#[test]
fn heat_and_power_in_a_whole_rack_are_a_matter_of_the_building() {
    let mut ward = Ward::new(&["n1", "n2", "n3", "n4", "n5", "n6"]);
    for node in ["n1", "n2"] {
        ward.look(node, 0, &[Condition::PowerBrake]);
    }
    assert_eq!(ward.heard(EventKind::FacilityAlarm), [""; 0]);
    ward.look("n3", 4, &[Condition::PowerBrake]);
    let alarms = ward.heard(EventKind::FacilityAlarm);
    assert!(
        alarms.contains(
            &"rack r1: 3 of 6 nodes are slowed down by the power supply: look at the power; nothing was taken out"
                .to_owned()
        ),
        "{alarms:?}"
    );
    assert_eq!(ward.offered("n1"), 8);
    assert!(matches!(ward.state("n1", 0), State::Suspect { .. }));
    ward.look("n1", 0, &[]);
    assert_eq!(ward.state("n1", 0), State::Ok, "it is over");
    ward.cluster.check();
}

#[test]
fn the_breaker_keeps_a_bad_driver_from_emptying_a_hall_and_a_person_resets_it() {
    let nodes = ["n1", "n2", "n3", "n4", "n5"];
    let mut ward = Ward::new(&nodes);
    for node in &nodes[..3] {
        ward.xid(node, 0, 119, &[]);
    }
    assert_eq!(ward.state("n3", 0), RESET);
    let job = ward.running("lee", 1, 8);
    assert_eq!(ward.nodes_of(job), ["n4"]);
    ward.look("n4", 0, &[Condition::RecoverByReset]);
    let held_back = State::Suspect { repair: Some(Repair::Reset), held_back: true };
    assert_eq!(ward.state("n4", 0), held_back);
    assert!(ward.cluster.world.attempts[&ward.attempt(job)].stop.is_none());
    let broken = ward.heard(EventKind::BreakerBroke);
    assert_eq!(broken.len(), 1);
    assert!(broken[0].starts_with("hall h1: 3 of 5 nodes went out within 3600 s"), "{broken:?}");
    ward.xid("n5", 0, 119, &[]);
    assert_eq!(ward.state("n5", 0), held_back);
    assert_eq!(ward.heard(EventKind::BreakerBroke).len(), 1, "it breaks once");
    // A GPU on which nothing can be computed would only lose jobs.
    ward.look("n5", 1, &[Condition::ResetRequired]);
    assert_eq!(ward.state("n5", 1), RESET);
    let error = ward.drafted(|draft| lifecycle::reset_breaker(draft, "hall h7", &kim()));
    assert!(error.unwrap_err().to_string().starts_with("no breaker of \"hall h7\" is broken"));
    ward.cluster.later(3601);
    ward.drafted(|draft| lifecycle::reset_breaker(draft, "hall h1", &kim())).unwrap();
    assert_eq!(ward.state("n5", 0), State::Ok, "what happened once is over");
    assert_eq!(ward.state("n4", 0), RESET, "what lasts is judged anew");
    ward.cluster.check();
}

#[test]
fn what_is_known_of_the_hardware_survives_a_restart_with_what_it_holds() {
    let mut ward = Ward::new(&["n1"]);
    let job = ward.running("lee", 1, 2);
    ward.xid("n1", 0, 64, &[job]);
    ward.look("n1", 6, &[Condition::RemapPending, Condition::PowerBrake]);
    let node = &ward.cluster.world.nodes[&name("n1")];
    let stored = serde_json::to_string(&*node.health).unwrap();
    let health = serde_json::from_str(&stored).unwrap();
    assert_eq!(*node.health, health);
    let again =
        Change::NodeHealth { node: name("n1"), health: Arc::new(health), changes_room: true };
    let mut copy = ward.cluster.copy();
    copy.apply(&again);
    assert_eq!(copy.world.nodes, ward.cluster.world.nodes);
    ward.cluster.check();
}

#[test]
fn a_gpu_that_is_out_counts_for_nobody_and_comes_back_free_while_jobs_come_and_go_beside_it() {
    let mut ward = Ward::new(&["n1"]);
    let job = ward.running("lee", 1, 2);
    ward.xid("n1", 0, 64, &[job]);
    ward.xid("n1", 7, 64, &[]);
    ward.cluster.check();
    let mut copy = ward.cluster.copy();
    let whole = copy.job().gpus(8, "b200").submit();
    copy.expect_waiting(whole);
    let why = copy.check().sentences(whole);
    let wanted = "needs 1 node and none is free; would serve but take no work: n1 (2 of 8 GPUs out; GPU 0: Xid 64";
    assert!(why.contains(wanted), "{why}");
    let in_service = ward.cluster.world.in_service();
    assert_eq!(in_service.values().next().unwrap().0, 6_000);
    let fits = ward.cluster.job().gpus(5, "b200").submit();
    ward.cluster.expect_on(fits, &["n1"]);
    let waits = ward.cluster.job().gpus(1, "b200").submit();
    ward.cluster.expect_waiting(waits);
    ward.cluster.start_all();
    ward.cluster.later(301);
    ward.fails("n1", job, 3);
    ward.cluster.expect_on(waits, &["n1"]);
    ward.cluster.start_all();
    for index in [0, 7] {
        assert_eq!(ward.verify("n1", Some(index)), Ok(true));
    }
    ward.later(60);
    let rest = ward.cluster.job().gpus(2, "b200").submit();
    ward.cluster.expect_on(rest, &["n1"]);
    ward.cluster.start_all();
}

/// A job of that user runs on the node and fails by its own doing.
fn fail_on(ward: &mut Ward, node: &str, user: &str) {
    let job = ward.cluster.job().owner(user).gpus(1, "b200").only_on(&[node]).submit();
    ward.cluster.start_all();
    ward.says(node, job, 1, MemberEvent::Accepted);
    ward.says(node, job, 2, MemberEvent::Started);
    ward.fails(node, job, 3);
}

#[test]
fn a_node_on_which_jobs_of_several_users_fail_is_a_lemon_until_a_person_says_otherwise() {
    let mut ward = Ward::new(&["n1", "n2"]);
    for user in ["lee", "park"] {
        fail_on(&mut ward, "n1", user);
        fail_on(&mut ward, "n1", user);
    }
    assert_eq!(
        ward.node_state("n1"),
        State::Ok,
        "two users are not enough, however often they fail"
    );
    fail_on(&mut ward, "n1", "choi");
    assert!(matches!(ward.node_state("n1"), State::Suspect { .. }));
    let told = ward.heard(EventKind::HardwareSuspect).join("\n");
    assert!(told.contains("score 3.0 of 3: 3 users"), "{told}");
    assert_eq!(ward.offered("n1"), 8, "it goes on taking work");
    assert_eq!(ward.verify("n1", None), Ok(true));
    fail_on(&mut ward, "n1", "choi");
    assert_eq!(ward.node_state("n1"), State::Ok, "what spoke against it is forgotten");
    ward.cluster.check();
}

#[test]
fn users_whose_jobs_fail_everywhere_make_no_lemons() {
    let mut ward = Ward::new(&["n1", "n2", "n3"]);
    for user in ["lee", "park", "choi", "jung"] {
        for node in ["n1", "n2", "n3"] {
            fail_on(&mut ward, node, user);
        }
    }
    for node in ["n1", "n2", "n3"] {
        assert_eq!(ward.node_state(node), State::Ok, "{node}");
    }
    ward.cluster.check();
}

#[test]
fn a_site_may_have_lemons_drained_which_the_breaker_may_forbid() {
    let mut ward = Ward::new(&["n1", "n2"]);
    let text = "version = \"site\"\n[[rule]]\non = [\"lemon\"]\nresponse = \"drain_node\"\nrepair = \"service\"\nwhy = \"w\"";
    let health = &mut ward.cluster.policy.health;
    health.rules = Arc::new(health.rules.changed_by(text).unwrap());
    health.breaker_nodes = 1;
    for node in ["n1", "n2"] {
        for user in ["a", "b", "c"] {
            fail_on(&mut ward, node, &format!("{user}-{node}"));
        }
    }
    assert_eq!(ward.node_state("n1"), SERVICE);
    let held_back = State::Suspect { repair: Some(Repair::Service), held_back: true };
    assert_eq!(ward.node_state("n2"), held_back);
    ward.cluster.check();
}

#[test]
fn a_node_that_is_lost_again_and_again_is_a_lemon_though_it_comes_back() {
    let mut ward = Ward::new(&["n1", "n2"]);
    for _ in 0..3 {
        let job = ward.cluster.job().owner("lee").gpus(1, "b200").only_on(&["n1"]).submit();
        ward.cluster.start_all();
        ward.says("n1", job, 1, MemberEvent::Accepted);
        let cause = Cause::Node;
        let event = MemberEvent::Ended { cause, reason: "power".to_owned(), exit: None };
        ward.says("n1", job, 2, event);
        ward.later(7200);
    }
    let told = ward.heard(EventKind::HardwareSuspect).join("\n");
    assert!(told.contains("3 losses of the node"), "{told}");
    ward.cluster.check();
}

/// When windows for repairs begin, by node, seconds after the present.
fn repairs_planned(ward: &Ward) -> Vec<(String, i64)> {
    let windows = ward.cluster.world.windows.iter().filter(|window| window.for_repair);
    let now = ward.cluster.now;
    let mut planned: Vec<_> = windows
        .flat_map(|window| window.nodes.iter().map(move |node| (node.to_string(), window)))
        .map(|(node, window)| (node, window.during.from.millis_since(now) / 1000))
        .collect();
    planned.sort();
    planned
}

#[test]
fn a_node_with_a_gpu_to_be_reset_begins_nothing_that_outlives_the_day() {
    let mut ward = Ward::new(&["n1"]);
    let runs = ward.cluster.job().hours(100).gpus(1, "b200").submit();
    ward.cluster.start_all();
    let attempt = &ward.cluster.world.attempts[&ward.attempt(runs)];
    let given = attempt.placement.nodes[0].gpus[0].uuid.clone();
    let on = (0..8).find(|index| gpu("n1", *index) == given).unwrap();
    ward.look("n1", on, &[Condition::RemapPending]);
    assert_eq!(repairs_planned(&ward), [("n1".to_owned(), 86_400)]);
    let long = ward.cluster.job().hours(48).gpus(1, "b200").submit();
    let short = ward.cluster.job().hours(12).gpus(1, "b200").submit();
    ward.cluster.expect_on(short, &["n1"]);
    ward.cluster.expect_waiting(long);
    let why = ward.cluster.start_all().sentences(long);
    assert!(why.contains("maintenance"), "{why}");

    // The day is over: nothing is begun any more, what runs goes on, and idle it is reset.
    ward.cluster.end(short);
    ward.later(86_400);
    ward.drafted(lifecycle::turn_windows);
    let later = ward.cluster.job().minutes(1).gpus(1, "b200").submit();
    ward.cluster.expect_waiting(later);
    ward.cluster.start_all();
    ward.cluster.end(runs);
    let place = ward.place("n1", Some(on));
    ward.drafted(|draft| lifecycle::begin_repair(draft, &place));
    assert_eq!(repairs_planned(&ward), [], "it is under way, and the other GPUs take work");
    ward.cluster.expect_on(later, &["n1"]);
    ward.cluster.start_all();
    ward.cluster.check();
}

#[test]
fn of_a_hall_in_which_all_is_to_be_reset_some_close_at_a_time() {
    let names = ["n1", "n2", "n3", "n4", "n5"];
    let mut ward = Ward::new(&names);
    for node in names {
        ward.look(node, 0, &[Condition::RemapPending]);
        ward.cluster.later(60);
    }
    let planned = |ward: &Ward| -> Vec<String> {
        repairs_planned(ward).into_iter().map(|(node, _)| node).collect()
    };
    assert_eq!(planned(&ward), ["n1", "n2", "n3"], "as many as the breaker lets go");
    ward.look("n2", 0, &[]);
    assert_eq!(planned(&ward), ["n1", "n3", "n4"], "one of them is done");
    assert!(ward.heard(EventKind::MaintenanceCancelled)[0].contains("GPU 0 is to be reset"));
    ward.cluster.check();
}

#[test]
fn a_site_may_let_resets_wait_for_ever_and_what_is_not_done_in_time_is_planned_anew() {
    let mut ward = Ward::new(&["n1"]);
    ward.cluster.policy.health.reset_within_s = 0;
    ward.look("n1", 0, &[Condition::RemapPending]);
    assert_eq!(repairs_planned(&ward), []);
    ward.look("n1", 0, &[]);
    ward.cluster.policy.health.reset_within_s = 60;
    ward.cluster.policy.max_window_s = 600;
    ward.look("n1", 0, &[Condition::RemapPending]);
    ward.cluster.later(60);
    ward.drafted(lifecycle::turn_windows);
    ward.cluster.later(600);
    ward.drafted(lifecycle::turn_windows);
    assert_eq!(repairs_planned(&ward), [("n1".to_owned(), 0)], "nobody has reset it");
    ward.cluster.check();
}
