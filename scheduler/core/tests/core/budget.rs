//! Budgets: who may still start, in which tier, and what people are told; what runs is never stopped for one.

use std::sync::Arc;

use gotgan_core::account::Account;
use gotgan_core::amount::{Ngh, UnixMicros};
use gotgan_core::attempt::Cause;
use gotgan_core::change::Change;
use gotgan_core::check;
use gotgan_core::ids::{AttemptId, Epoch, JobId};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::lifecycle::{Draft, MemberEvent, Report, commit, fold, settle_due, turn_quota};
use gotgan_core::meter::Footing;
use gotgan_core::quota::{parse, read_moment, show_moment};
use gotgan_core::world::{Snapshot, Used, World};
use insta::assert_snapshot;

use crate::cluster::{Outcome, TestCluster};

const STARTUP: &str = "public/nup/startup-042";
const OTHER: &str = "public/nup/startup-001";

/// Two startups with budgets of a quarter, below a programme with one.
const QUOTA: &str = r#"
[class.b200]
weight_milli = 2000
[node.public]
[node."public/lab"]
[node."public/nup"]
budget = { period = "quarter", ngh = 1000, promise = "beyond" }
[node."public/nup/startup-001"]
budget = { period = "quarter", ngh = 900 }
[node."public/nup/startup-042"]
budget = { period = "quarter", ngh = 400 }
overuse = { cap = 1.25 }
"#;

/// A cluster of 16 GPUs under the quotas above, with its ledger.
struct Books {
    cluster: TestCluster,
    entries: Vec<LedgerEntry>,
}

impl Books {
    fn new() -> Self {
        let mut cluster = TestCluster::new();
        cluster.now = read_moment("2026-08-14T22:40").unwrap();
        cluster.node("node-1").gpus(8, "b200").add();
        cluster.node("node-2").gpus(8, "b200").add();
        let mut books = Books { cluster, entries: Vec::new() };
        books.quota(QUOTA);
        books
    }

    fn quota(&mut self, text: &str) {
        let book = Arc::new(parse(&[("quota.toml".to_owned(), text.to_owned())]).unwrap());
        let at = self.cluster.now;
        self.cluster.apply(&Change::QuotaApplied { book, at });
    }

    /// A job of that many GPUs on one node, for so many hours.
    fn submit(&mut self, project: &str, gpus: u32, hours: i64) -> JobId {
        self.cluster.job().project(project).gpus(gpus, "b200").hours(hours).submit()
    }

    fn draft(&mut self, change: impl FnOnce(&mut Draft<'_>)) {
        let TestCluster { world, policy, now, .. } = &mut self.cluster;
        let mut draft = Draft::new(world, policy, Epoch(1), *now);
        change(&mut draft);
        let booked = draft.into_changes().into_iter().filter_map(|change| match change {
            Change::Booked(entry) => Some(entry),
            _ => None,
        });
        self.entries.extend(booked);
        assert_eq!(check::world(&self.cluster.world), []);
        assert_eq!(self.rebuilt(), self.cluster.world.accounts, "after a restart");
    }

    /// The accounts of a world that is built from the ledger and the attempts.
    fn rebuilt(&self) -> gotgan_core::account::Accounts {
        let used = self.entries.iter().map(|entry| Used {
            project: entry.project.clone(),
            account: entry.stretch.account,
            ngh: entry.used(),
        });
        let world = &self.cluster.world;
        let attempts = world.attempts.values().map(|attempt| attempt.as_ref().clone());
        let (used, attempts) = (used.collect(), attempts.collect());
        let book = Arc::clone(&world.book);
        let snapshot = Snapshot { book, attempts, used, ..Snapshot::default() };
        World::restore(snapshot, self.cluster.now).accounts
    }

    fn plan(&mut self) -> Outcome {
        let outcome = self.cluster.check();
        for decision in outcome.plan.decisions.clone() {
            self.draft(|draft| commit(draft, &decision).unwrap());
        }
        outcome
    }

    fn wait_hours(&mut self, hours: i64) {
        self.cluster.now = self.cluster.now.plus_seconds(hours * 3600);
        self.draft(|draft| {
            turn_quota(draft);
            settle_due(draft);
        });
    }

    fn end(&mut self, job: JobId, cause: Cause) {
        let attempt = AttemptId { job, number: 1 };
        let node = self.cluster.world.attempts[&attempt].placement.nodes[0].node.clone();
        let event = MemberEvent::Ended { cause, reason: String::new(), exit: None };
        let at = self.cluster.now;
        self.draft(|draft| {
            fold(draft, &Report { node, attempt, seq: 1, at, event });
        });
    }

    fn account(&self, path: &str) -> Account {
        let world = &self.cluster.world;
        Account::of(path, world.quota.nodes[path].budget.as_ref().unwrap(), &world.accounts)
    }

    fn runs(&self, job: JobId) -> bool {
        self.cluster.world.jobs.get(&job).is_some_and(|job| job.status.state.is_active())
    }

    fn is_overuse(&self, job: JobId) -> bool {
        self.cluster.world.attempts[&AttemptId { job, number: 1 }].meter.footing == Footing::Overuse
    }
}

#[test]
fn a_start_sets_aside_a_slice_and_an_end_gives_back_what_was_not_used() {
    let mut books = Books::new();
    let job = books.submit(STARTUP, 2, 24 * 7);
    books.plan();
    assert_eq!(books.account(STARTUP).held, Ngh::whole(2 * 24 * 2), "a day, not a week");
    books.wait_hours(10);
    books.end(job, Cause::User);
    let account = books.account("public/nup");
    assert_eq!((account.used, account.held), (Ngh::whole(2 * 10 * 2), Ngh::ZERO));
}

#[test]
fn what_runs_goes_on_when_the_budget_is_gone_and_what_is_new_starts_last_and_then_not_at_all() {
    let mut books = Books::new();
    let first = books.submit(STARTUP, 8, 24);
    books.plan();
    assert!(books.runs(first) && !books.is_overuse(first));
    let beyond = books.submit(STARTUP, 4, 10);
    books.plan();
    assert!(books.is_overuse(beyond), "384 of 400 are set aside, and 80 more are under 500");
    let refused = books.submit(STARTUP, 4, 10);
    let outcome = books.plan();
    assert_snapshot!(outcome.sentences(refused), @"budget of public/nup/startup-042 for 2026-Q3: 400 NGH, up to 500 with overuse, 0 used, 464 held; this job needs 80");
    books.wait_hours(30);
    assert!(books.runs(first) && books.runs(beyond), "nothing is stopped");
    assert!(books.account(STARTUP).used > Ngh::whole(400));
    assert!(books.cluster.world.attempts.values().all(|attempt| attempt.stop.is_none()));
    books.quota(&QUOTA.replace(
        "ngh = 400 }",
        "ngh = [{ value = 400 }, { value = 2000, from = \"2026-08-16T05:00\" }] }",
    ));
    books.plan();
    assert!(!books.runs(refused), "the supplement has a date");
    books.wait_hours(1);
    books.plan();
    assert!(books.runs(refused) && !books.is_overuse(refused));
}

#[test]
fn the_node_above_binds_too_and_is_the_one_that_is_named() {
    let mut books = Books::new();
    for _ in 0..2 {
        let job = books.submit(OTHER, 8, 24);
        books.plan();
        books.wait_hours(24);
        books.end(job, Cause::User);
    }
    assert_eq!(books.account(OTHER).used, Ngh::whole(768));
    let fits = books.submit(STARTUP, 4, 24);
    let refused = books.submit(STARTUP, 1, 24);
    let outcome = books.plan();
    assert!(books.runs(fits));
    assert_snapshot!(outcome.sentences(refused), @"budget of public/nup for 2026-Q3: 1,000 NGH, 768 used, 192 held; this job needs 48");
}

#[test]
fn a_job_beyond_its_budget_leaves_the_class_to_one_within() {
    let mut books = Books::new();
    let (first, second) = (books.submit(STARTUP, 8, 23), books.submit(OTHER, 4, 1));
    books.plan();
    let gang = books.cluster.job().project(OTHER).gpus(8, "b200").nodes(2).submit();
    let beyond = books.submit(STARTUP, 1, 24);
    let outcome = books.plan();
    assert!(books.runs(first) && books.runs(second));
    assert!(!books.runs(gang) && !books.runs(beyond), "4 GPUs are free, and the gang wants them");
    assert_snapshot!(outcome.sentences(beyond), @"
    job 3 goes first, since it is within its budget and wants the same GPUs
    starts last, where nobody else wants the GPUs: budget of public/nup/startup-042 for 2026-Q3: 400 NGH, up to 500 with overuse, 0 used, 368 held; this job needs 48
    ");
}

#[test]
fn a_refund_goes_back_to_the_quarter_that_paid() {
    let mut books = Books::new();
    books.cluster.now = read_moment("2026-09-30T20:00").unwrap();
    books.quota(&QUOTA.replace("ngh = 400 ", "ngh = 400, carry = { percent = 10 } "));
    let job = books.submit(STARTUP, 8, 20);
    books.plan();
    books.wait_hours(6);
    let account = books.account(STARTUP);
    assert_eq!((account.period.as_str(), account.used), ("2026-Q4", Ngh::whole(8 * 2 * 2)));
    // Of the 400 of the third quarter 64 were used, and a tenth of the rest went on.
    assert_eq!(account.carried, Ngh::thousandths(33_600));
    books.end(job, Cause::Node);
    let account = books.account(STARTUP);
    assert_eq!((account.used, account.held), (Ngh::ZERO, Ngh::ZERO));
    assert_eq!(account.carried, Ngh::whole(40));
}

#[test]
fn no_guarantee_calls_back_gpus_for_a_job_beyond_its_budget_and_such_jobs_stop_first() {
    let mut books = Books::new();
    books.quota(
        &QUOTA
            .replace(
                "[node.public]\n",
                "[node.public]\ndecision = \"D-1\"\nguarantee = { b200 = 16 }\n",
            )
            .replace("[node.\"public/nup\"]\n", "[node.\"public/nup\"]\nguarantee = { b200 = 8 }\n")
            .replace(
                "[node.\"public/nup/startup-001\"]\n",
                "[node.\"public/nup/startup-001\"]\nguarantee = { b200 = 4 }\n",
            )
            .replace(
                "[node.\"public/lab\"]\n",
                "[node.\"public/lab\"]\nguarantee = { b200 = 8 }\n",
            ),
    );
    // 368 of 400 are set aside, so that what comes next is beyond the budget.
    let within = books.submit(STARTUP, 8, 23);
    books.plan();
    let beyond = books.submit(STARTUP, 4, 10);
    books.plan();
    assert!(books.is_overuse(beyond));
    let borrowed = books.submit("public/lab", 4, 1);
    books.plan();
    books.wait_hours(1);
    let claim = books.submit(OTHER, 4, 1);
    let outcome = books.plan();
    assert_eq!(outcome.victims(), [(beyond, claim)]);
    assert!(books.runs(within) && books.runs(borrowed));
}

#[test]
fn attempts_are_settled_when_they_are_due_and_not_before() {
    let mut books = Books::new();
    books.submit(STARTUP, 1, 24 * 7);
    books.plan();
    let count = |books: &Books| books.entries.len();
    let before = count(&books);
    books.wait_hours(23);
    assert_eq!(count(&books), before);
    books.wait_hours(1);
    assert_eq!(count(&books), before + 3, "released, charged, set aside");
    let stretch = books.entries.last().unwrap().stretch.time;
    assert_eq!(show_moment(UnixMicros(stretch.from.0)), "2026-08-15T22:40:00+09:00");
}
