//! Alerts: people are told in the very second in which a part of a budget is used, once, whatever is restarted.

use std::sync::Arc;

use gotgan_core::alert::{Alert, AlertKind};
use gotgan_core::amount::Ngh;
use gotgan_core::attempt::Cause;
use gotgan_core::change::{Change, EventKind};
use gotgan_core::check;
use gotgan_core::ids::{AttemptId, Epoch, JobId};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::lifecycle::{
    Draft, MemberEvent, Report, commit, fold, settle_due, tell_alerts, turn_quota,
};
use gotgan_core::quota::{parse, read_moment, show_moment};
use gotgan_core::world::{Node, Snapshot, Used, World};
use proptest::prelude::*;

use crate::cluster::TestCluster;

const STARTUP: &str = "public/nup/startup-042";
const OTHER: &str = "public/nup/startup-001";

const QUOTA: &str = r#"
[class.b200]
weight_milli = 2000
[node.public]
[node."public/lab"]
[node."public/nup"]
budget = { period = "quarter", ngh = 2000, promise = "beyond" }
alert = [30]
[node."public/nup/startup-001"]
budget = { period = "month", ngh = 800, carry = { percent = 50 } }
alert = [1, 25, 60]
[node."public/nup/startup-042"]
budget = { period = "quarter", ngh = 400 }
overuse = { cap = 3 }
"#;

/// 16 GPUs under the quotas above, with what was booked and told.
struct Office {
    cluster: TestCluster,
    entries: Vec<LedgerEntry>,
    alerts: Vec<Alert>,
    events: usize,
}

impl Office {
    fn at(moment: &str) -> Self {
        let mut cluster = TestCluster::new();
        cluster.now = read_moment(moment).unwrap();
        cluster.node("node-1").gpus(8, "b200").add();
        cluster.node("node-2").gpus(8, "b200").add();
        // Not every history plans anything.
        cluster.check();
        let mut office = Office { cluster, entries: Vec::new(), alerts: Vec::new(), events: 0 };
        office.quota(QUOTA);
        office
    }

    fn quota(&mut self, text: &str) {
        let mut book = parse(&[("quota.toml".to_owned(), text.to_owned())]).unwrap();
        book.revision = self.cluster.world.book.revision + 1;
        let (book, at) = (Arc::new(book), self.cluster.now);
        self.cluster.apply(&Change::QuotaApplied { book, at });
        self.round();
    }

    fn draft(&mut self, change: impl FnOnce(&mut Draft<'_>)) {
        let TestCluster { world, policy, now, .. } = &mut self.cluster;
        let mut draft = Draft::new(world, policy, Epoch(1), *now);
        turn_quota(&mut draft);
        settle_due(&mut draft);
        tell_alerts(&mut draft);
        change(&mut draft);
        for change in draft.into_changes() {
            match change {
                Change::Booked(entry) => self.entries.push(entry),
                Change::QuotaAlerted(alert) => self.alerts.push(Alert::clone(&alert)),
                Change::Happened(event) if event.kind == EventKind::QuotaAlert => self.events += 1,
                _ => {}
            }
        }
    }

    fn round(&mut self) {
        self.draft(|_| {});
        self.draft(|_| {});
        assert_eq!(check::world(&self.cluster.world), []);
    }

    /// A job on one node that starts at once.
    fn start(&mut self, project: &str, gpus: u32, hours: i64) -> JobId {
        let job = self.cluster.job().project(project).gpus(gpus, "b200").hours(hours).submit();
        for decision in self.cluster.check().plan.decisions {
            self.draft(|draft| commit(draft, &decision).unwrap());
        }
        self.round();
        job
    }

    fn runs(&self, job: JobId) -> bool {
        self.cluster.world.attempts.contains_key(&AttemptId { job, number: 1 })
    }

    fn end(&mut self, job: JobId, cause: Cause) {
        let attempt = AttemptId { job, number: 1 };
        let node = self.cluster.world.attempts[&attempt].placement.nodes[0].node.clone();
        let event = MemberEvent::Ended { cause, reason: String::new(), exit: None };
        let at = self.cluster.now;
        self.draft(|draft| {
            fold(draft, &Report { node, attempt, seq: 1, at, event });
        });
        self.round();
    }

    /// Lets time pass, with a round whenever anything is due, as a scheduler would.
    fn wait_s(&mut self, seconds: i64) {
        let until = self.cluster.now.plus_seconds(seconds);
        loop {
            let world = &self.cluster.world;
            let due = [world.next_due(), world.next_alert(), Some(world.quota_until)];
            let next = due.into_iter().flatten().min().unwrap_or(until);
            self.cluster.now = next.clamp(self.cluster.now, until);
            self.round();
            if self.cluster.now == until {
                return;
            }
        }
    }

    /// The world as a scheduler that starts now would load it.
    fn restarted(&self) -> World {
        let world = &self.cluster.world;
        let used = self.entries.iter().map(|entry| Used {
            project: entry.project.clone(),
            account: entry.stretch.account,
            ngh: entry.used(),
        });
        let snapshot = Snapshot {
            sequences: world.sequences,
            book: Arc::clone(&world.book),
            nodes: world.nodes.values().map(Node::stored).collect(),
            jobs: world.jobs.values().cloned().collect(),
            attempts: world.attempts.values().map(|one| one.as_ref().clone()).collect(),
            used: used.collect(),
            alerts: self.alerts.clone(),
            ..Snapshot::default()
        };
        World::restore(snapshot, self.cluster.now)
    }

    /// What was said of a node: which part, what, when.
    fn told(&self, node: &str) -> Vec<(u32, AlertKind, String)> {
        let of_node = self.alerts.iter().filter(|alert| alert.node.as_str() == node);
        of_node.map(|alert| (alert.percent, alert.kind, show_moment(alert.at))).collect()
    }
}

fn passed(percent: u32, at: &str) -> (u32, AlertKind, String) {
    (percent, AlertKind::Passed, at.to_owned())
}

#[test]
fn running_use_is_told_in_its_second_although_a_day_was_set_aside() {
    let mut office = Office::at("2026-08-12T00:00");
    office.start(STARTUP, 8, 24 * 6);
    office.wait_s(24 * 3600);
    // 16 normalised GPU-hours an hour, of 400.
    let expected = [
        passed(50, "2026-08-12T12:30:00+09:00"),
        passed(75, "2026-08-12T18:45:00+09:00"),
        passed(90, "2026-08-12T22:30:00+09:00"),
    ];
    assert_eq!(office.told(STARTUP), expected);
    office.wait_s(24 * 3600);
    assert_eq!(
        office.told(STARTUP)[3..],
        [passed(100, "2026-08-13T01:00:00+09:00"), passed(125, "2026-08-13T07:15:00+09:00"),]
    );
    assert_eq!(office.told("public/nup"), [passed(30, "2026-08-13T13:30:00+09:00")]);
    assert_eq!(office.events, office.alerts.len());
    let first = &office.alerts[0];
    assert_eq!((first.used, first.budget), (Ngh::whole(200), Ngh::whole(400)));
    assert_eq!(
        first.describe(),
        "public/nup/startup-042 used 50 % of its budget for 2026-Q3: 200 of 400 NGH"
    );
}

#[test]
fn nothing_is_said_twice_and_a_restart_says_nothing() {
    let mut office = Office::at("2026-08-12T00:00");
    office.start(STARTUP, 8, 24 * 6);
    office.wait_s(20 * 3600);
    let told = office.alerts.len();
    assert_eq!(told, 2);
    office.cluster.world = office.restarted();
    office.round();
    assert_eq!(office.alerts.len(), told);
}

#[test]
fn what_passes_while_the_scheduler_is_down_is_told_when_it_is_back() {
    let mut office = Office::at("2026-08-12T00:00");
    office.start(STARTUP, 8, 24 * 6);
    office.cluster.now = office.cluster.now.plus_seconds(3600 * 23);
    office.cluster.world = office.restarted();
    office.round();
    let told: Vec<u32> = office.told(STARTUP).iter().map(|told| told.0).collect();
    assert_eq!(told, [50, 75, 90]);
}

#[test]
fn a_supplement_that_takes_use_under_a_part_lets_it_be_told_again() {
    let mut office = Office::at("2026-08-12T00:00");
    office.start(STARTUP, 8, 24 * 6);
    office.wait_s(26 * 3600);
    office.alerts.clear();
    office.quota(&QUOTA.replace("ngh = 400 }", "ngh = 500 }"));
    let at = || "2026-08-13T02:00:00+09:00".to_owned();
    // 416 of 500.
    let expected = [
        (50, AlertKind::Still, at()),
        (75, AlertKind::Still, at()),
        (90, AlertKind::Under, at()),
        (100, AlertKind::Under, at()),
    ];
    assert_eq!(office.told(STARTUP), expected);
    office.alerts.clear();
    office.wait_s(6 * 3600);
    let again = [passed(90, "2026-08-13T04:07:30+09:00"), passed(100, "2026-08-13T07:15:00+09:00")];
    assert_eq!(office.told(STARTUP), again);
}

#[test]
fn a_new_period_begins_with_nothing_said() {
    let mut office = Office::at("2026-08-30T00:00");
    office.start(OTHER, 1, 24 * 6);
    office.wait_s(72 * 3600);
    let parts: Vec<u32> = office.told(OTHER).iter().map(|told| told.0).collect();
    // 96 hours of August's 800; September has 1,152: 1 % of it is used once more.
    assert_eq!(parts, [1, 1]);
}

#[test]
fn use_that_is_given_back_is_not_told_once_more() {
    let mut office = Office::at("2026-08-12T00:00");
    let lost = office.start(STARTUP, 8, 24);
    office.wait_s(13 * 3600);
    office.end(lost, Cause::Hardware);
    office.start(STARTUP, 8, 24);
    office.wait_s(13 * 3600);
    assert_eq!(office.told(STARTUP).iter().filter(|told| told.0 == 50).count(), 1);
}

#[test]
fn a_node_can_say_that_nobody_is_told() {
    let mut office = Office::at("2026-08-12T00:00");
    office.quota(&QUOTA.replace("overuse = { cap = 3 }", "alert = []"));
    office.start(STARTUP, 8, 24);
    office.wait_s(20 * 3600);
    assert_eq!(office.told(STARTUP), []);
}

/// Something that happens in a random history.
#[derive(Debug, Clone)]
enum Act {
    Start { startup: bool, gpus: u32, hours: i64 },
    End { place: usize, lost: bool },
    Wait { seconds: i64 },
    Budget { ngh: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (any::<bool>(), 1..5_u32, 1..72_i64).prop_map(|(startup, gpus, hours)| Act::Start {
            startup,
            gpus,
            hours
        }),
        (0..4_usize, any::<bool>()).prop_map(|(place, lost)| Act::End { place, lost }),
        (1..400_000_i64).prop_map(|seconds| Act::Wait { seconds }),
        (100..900_u64).prop_map(|ngh| Act::Budget { ngh }),
    ]
}

impl Office {
    fn perform(&mut self, act: &Act, jobs: &mut Vec<JobId>) {
        match act {
            Act::Start { startup, gpus, hours } => {
                jobs.push(self.start(if *startup { STARTUP } else { OTHER }, *gpus, *hours));
            }
            Act::End { place, lost } => {
                if let Some(job) = jobs.get(*place).copied().filter(|job| self.runs(*job)) {
                    self.end(job, if *lost { Cause::Node } else { Cause::User });
                }
            }
            Act::Wait { seconds } => self.wait_s(*seconds),
            Act::Budget { ngh } => {
                self.quota(&QUOTA.replace("ngh = 400 }", &format!("ngh = {ngh} }}")));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256.max(ProptestConfig::default().cases)))]

    #[test]
    fn after_a_round_nothing_is_left_to_tell_and_a_restart_knows_what_was_told(
        acts in proptest::collection::vec(act(), 1..14),
    ) {
        let mut office = Office::at("2026-08-25T00:00");
        let mut jobs = Vec::new();
        for act in &acts {
            office.perform(act, &mut jobs);
            let world = &office.cluster.world;
            prop_assert!(world.next_alert().is_none_or(|due| due > office.cluster.now));
            prop_assert_eq!(&office.restarted().alerts, &world.alerts);
        }
        for alert in office.alerts.iter().filter(|alert| alert.kind == AlertKind::Passed) {
            let all = alert.budget + alert.carried;
            prop_assert!(alert.used.0 * 100 >= all.0 * i128::from(alert.percent));
        }
    }
}
