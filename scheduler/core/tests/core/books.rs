//! The books of budgets: what decides is what the lines add up to, whatever happens; and what moves between nodes.

use std::sync::Arc;

use gotgan_core::account::{Account, Accounts};
use gotgan_core::amount::Ngh;
use gotgan_core::attempt::Cause;
use gotgan_core::change::Change;
use gotgan_core::check;
use gotgan_core::ids::{AttemptId, Epoch, JobId, ProjectPath, UserName};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::lifecycle::{
    Draft, Grounds, MemberEvent, Move, MoveRefusal, Report, apply_quota, commit, fold, move_budget,
    settle_due, tell_alerts, turn_quota,
};
use gotgan_core::quota::audit::{AuditEntry, Replay};
use gotgan_core::quota::{Consent, Interval, MovementId, Proposal, QuotaBook, parse, read_moment};
use gotgan_core::statement::{GivenKind, PastTerms, Statement, effect, history, statement};
use gotgan_core::world::{Snapshot, Used, World};
use proptest::prelude::*;

use crate::cluster::TestCluster;

const NODES: [&str; 5] =
    ["public/nap", "public/nap/a", "public/nup", "public/nup/x", "public/nup/y"];

const QUOTA: &str = r#"
[class.b200]
weight_milli = [{ value = 2000 }, { value = 2500, from = "2026-09-03T07:00:00+09:00" }]
[node.public]
[node."public/nap"]
budget = { period = "year", ngh = 9000, promise = "beyond" }
[node."public/nap/a"]
budget = { period = "month", ngh = 700, carry = { percent = 40, cap_ngh = 200 } }
[node."public/nup"]
budget = { period = "quarter", ngh = 3000, promise = "beyond" }
[node."public/nup/x"]
budget = { period = "month", ngh = [{ value = 500 }, { value = 650, from = "2026-09-10" }], carry = { percent = 50 } }
overuse = { cap = 3 }
[node."public/nup/y"]
budget = { period = "month", ngh = 800 }
"#;

fn path(text: &str) -> ProjectPath {
    ProjectPath::new(text).unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

/// 16 GPUs under the quotas above, with what a store would keep of it.
struct Books {
    cluster: TestCluster,
    entries: Vec<LedgerEntry>,
    audit: Vec<AuditEntry>,
}

impl Books {
    fn at(moment: &str) -> Self {
        let mut cluster = TestCluster::new();
        cluster.apply(&Change::QuotaApplied {
            book: Arc::new(QuotaBook::default()),
            at: Default::default(),
        });
        cluster.now = read_moment(moment).unwrap();
        cluster.node("node-1").gpus(8, "b200").add();
        cluster.node("node-2").gpus(8, "b200").add();
        // Not every history plans anything.
        cluster.check();
        let mut books = Books { cluster, entries: Vec::new(), audit: Vec::new() };
        books.quota(QUOTA);
        books
    }

    fn draft<T>(&mut self, change: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        let TestCluster { world, policy, now, .. } = &mut self.cluster;
        let mut draft = Draft::new(world, policy, Epoch(1), *now);
        turn_quota(&mut draft);
        settle_due(&mut draft);
        tell_alerts(&mut draft);
        let answer = change(&mut draft);
        for change in draft.into_changes() {
            match change {
                Change::Booked(entry) => self.entries.push(entry),
                Change::QuotaAudited(entry) => self.audit.push(AuditEntry::clone(&entry)),
                _ => {}
            }
        }
        answer
    }

    fn quota(&mut self, text: &str) {
        let proposal = Proposal {
            requester: user("kim"),
            reason: "by the office".to_owned(),
            base_revision: self.cluster.world.book.revision,
            consent: Consent { stop: true, overwrite: true },
            book: parse(&[("quota.toml".to_owned(), text.to_owned())]).unwrap(),
        };
        self.draft(|draft| apply_quota(draft, proposal, &user("kim"))).unwrap();
    }

    fn moves(&mut self, wish: &Move) -> Result<MovementId, MoveRefusal> {
        let grounds =
            Grounds { by: user("kim"), decision: "D-7".to_owned(), reason: "asked for".to_owned() };
        self.draft(|draft| move_budget(draft, wish, grounds))
    }

    fn transfer(&mut self, from: &str, to: &str, ngh: u64) -> Result<MovementId, MoveRefusal> {
        let (from, to) = (path(from), path(to));
        self.moves(&Move::Transfer { from, to, ngh: Ngh::whole(ngh), overdraw: false })
    }

    fn start(&mut self, project: &str, gpus: u32, hours: i64) -> JobId {
        let job = self.cluster.job().project(project).gpus(gpus, "b200").hours(hours).submit();
        for decision in self.cluster.check().plan.decisions {
            self.draft(|draft| commit(draft, &decision).unwrap());
        }
        job
    }

    fn end(&mut self, job: JobId, cause: Cause) {
        let attempt = AttemptId { job, number: 1 };
        let Some(running) = self.cluster.world.attempts.get(&attempt) else { return };
        let node = running.placement.nodes[0].node.clone();
        let event = MemberEvent::Ended { cause, reason: String::new(), exit: None };
        let at = self.cluster.now;
        self.draft(|draft| {
            fold(draft, &Report { node, attempt, seq: 1, at, event });
        });
    }

    fn wait_s(&mut self, seconds: i64) {
        self.cluster.now = self.cluster.now.plus_seconds(seconds);
        self.draft(|_| {});
        assert_eq!(check::world(&self.cluster.world), []);
    }

    fn account(&self, node: &str) -> Account {
        let world = &self.cluster.world;
        Account::of(node, world.quota.nodes[node].budget.as_ref().unwrap(), &world.accounts)
    }

    fn past(&self, node: &str) -> Vec<PastTerms> {
        let subject = format!("node {node}");
        let about = self.audit.iter().filter(|entry| entry.subject == subject);
        let bodies: Vec<_> = about.map(|entry| entry.read().unwrap()).collect();
        history(&bodies, self.cluster.world.book.nodes.get(node))
    }

    fn statement(&self, node: &str, at: gotgan_core::amount::UnixMicros) -> Option<Statement> {
        let World { book, accounts, .. } = &self.cluster.world;
        let now = self.cluster.now;
        statement(book, accounts, &path(node), &self.past(node), at, now)
    }

    /// Entries of a node in a period.
    fn entries_of(&self, node: &str, span: Interval) -> impl Iterator<Item = &LedgerEntry> {
        let within = move |entry: &&LedgerEntry| entry.project.is_within(node);
        self.entries.iter().filter(within).filter(move |entry| span.contains(entry.stretch.account))
    }

    /// What the lines of a node's period add up to, before it is closed.
    fn balance(&self, node: &str, statement: &Statement) -> Ngh {
        let entries = self.entries_of(node, statement.budget.span).map(effect);
        entries.chain(statement.given.iter().map(|given| given.ngh)).sum()
    }

    /// The accounts and the tree of a scheduler that starts now.
    fn restarted(&self) -> (Accounts, World) {
        let world = &self.cluster.world;
        let used = self.entries.iter().map(|entry| Used {
            project: entry.project.clone(),
            account: entry.stretch.account,
            ngh: entry.used(),
        });
        let stored = serde_json::to_string(&*world.book).unwrap();
        let snapshot = Snapshot {
            book: Arc::new(serde_json::from_str(&stored).unwrap()),
            attempts: world.attempts.values().map(|one| one.as_ref().clone()).collect(),
            used: used.collect(),
            ..Snapshot::default()
        };
        let restored = World::restore(snapshot, self.cluster.now);
        (restored.accounts.clone(), restored)
    }
}

#[test]
fn a_transfer_moves_budget_at_every_level_that_is_not_above_both() {
    let mut books = Books::at("2026-08-12T00:00");
    let number = books.transfer("public/nup/y", "public/nap/a", 300).unwrap();
    let budgets = |books: &Books| NODES.map(|node| books.account(node).budget);
    // 200 and 250 were carried from July to a and x.
    assert_eq!(budgets(&books), [9300, 1200, 2700, 750, 500].map(Ngh::whole));
    books.transfer("public/nup/x", "public/nup/y", 100).unwrap();
    assert_eq!(budgets(&books), [9300, 1200, 2700, 650, 600].map(Ngh::whole));
    books.moves(&Move::Void { number }).unwrap();
    assert_eq!(budgets(&books), [9000, 900, 3000, 650, 900].map(Ngh::whole));
    let moved = &books.cluster.world.book.moves[&number];
    let sides: Ngh = moved.at_node("public/nup/y") + moved.at_node("public/nap/a");
    assert_eq!(sides, Ngh::ZERO, "the two entries");
}

#[test]
fn a_transfer_is_of_its_period_and_the_next_one_begins_without_it() {
    let mut books = Books::at("2026-08-30T00:00");
    books.transfer("public/nup/y", "public/nup/x", 300).unwrap();
    books.wait_s(72 * 3600);
    assert_eq!(books.account("public/nup/y").budget, Ngh::whole(800));
    // Half of the 800 that were left of August goes on.
    assert_eq!(books.account("public/nup/x").budget, Ngh::whole(500 + 400));
}

#[test]
fn what_cannot_be_moved_is_refused_by_name() {
    let mut books = Books::at("2026-08-12T00:00");
    books.start("public/nup/y", 8, 24);
    let refused = |moved: Result<MovementId, MoveRefusal>| moved.unwrap_err().to_string();
    assert_eq!(
        refused(books.transfer("public/nup/y", "public/nup/x", 417)),
        "public/nup/y has 416 NGH that are neither used nor set aside: move no more than that"
    );
    assert_eq!(
        refused(books.transfer("public/nup", "public/nap", 1)),
        "public/nup has a budget for 2026-Q3 and public/nap for 2026: budget moves between nodes with the same \
         period; change both in the quota files"
    );
    assert!(matches!(
        books.transfer("public", "public/nup/x", 1),
        Err(MoveRefusal::NoBudget { field: "from", .. })
    ));
    assert!(matches!(
        books.transfer("public/nup", "public/nup/x", 1),
        Err(MoveRefusal::Nested { .. })
    ));
    assert!(matches!(
        books.transfer("public/nup/y", "public/nowhere", 1),
        Err(MoveRefusal::UnknownNode { field: "to", .. })
    ));
    let ngh = Ngh::ZERO - Ngh::whole(701);
    let below = books.moves(&Move::Adjust { node: path("public/nap/a"), ngh });
    assert!(matches!(below, Err(MoveRefusal::BelowNothing { .. })));
    assert!(books.cluster.world.book.moves.is_empty());
}

#[test]
fn a_movement_is_voided_once() {
    let mut books = Books::at("2026-08-12T00:00");
    let number = books.transfer("public/nup/y", "public/nup/x", 30).unwrap();
    let void = books.moves(&Move::Void { number }).unwrap();
    let again = books.moves(&Move::Void { number }).unwrap_err().to_string();
    let why = "movement 1 was voided by movement 2: to move it once more, make a new transfer or adjustment";
    assert_eq!(again, why);
    assert!(matches!(
        books.moves(&Move::Void { number: void }),
        Err(MoveRefusal::AlreadyVoid { .. })
    ));
    assert_eq!(
        books.moves(&Move::Void { number: MovementId(77) }),
        Err(MoveRefusal::UnknownMovement(MovementId(77)))
    );
}

#[test]
fn where_changes_need_approval_a_transfer_needs_none_and_a_correction_does() {
    let mut books = Books::at("2026-08-12T00:00");
    books.quota(&format!("approval = [{{ above_gpus = 1, approvers = 1 }}]\n{QUOTA}"));
    books.transfer("public/nup/y", "public/nup/x", 30).unwrap();
    let adjust = Move::Adjust { node: path("public/nup/x"), ngh: Ngh::whole(5) };
    assert!(matches!(books.moves(&adjust), Err(MoveRefusal::Quota(_))));
}

#[test]
fn movements_are_entries_of_the_chain_and_files_leave_them_alone() {
    let mut books = Books::at("2026-08-12T00:00");
    books.transfer("public/nup/y", "public/nup/x", 30).unwrap();
    books.quota(&QUOTA.replace("ngh = 800", "ngh = 900"));
    assert_eq!(books.account("public/nup/y").budget, Ngh::whole(870));
    let mut replay = Replay::default();
    for entry in &books.audit {
        replay.take(entry).unwrap();
    }
    replay.finish().unwrap();
    assert_eq!(replay.book().unwrap().digest(), books.cluster.world.book.digest());
    let movement = books.audit.iter().find(|entry| entry.subject == "movement 1").unwrap();
    assert_eq!(movement.read().unwrap().decision.as_deref(), Some("D-7"));
}

#[test]
fn a_period_that_is_over_closes_with_what_goes_on_and_what_lapses() {
    let mut books = Books::at("2026-08-12T00:00");
    let in_august = books.cluster.now;
    let job = books.start("public/nap/a", 8, 10);
    books.wait_s(10 * 3600);
    books.end(job, Cause::User);
    books.wait_s(30 * 24 * 3600);
    let august = books.statement("public/nap/a", in_august).unwrap();
    let closing: Vec<_> = august.closing.iter().map(|line| (line.kind, line.ngh)).collect();
    let minus = |ngh| Ngh::ZERO - Ngh::whole(ngh);
    // 700 less 160: two fifths of what is left are 216, and at most 200 go on. So much came from July, and lapses.
    assert_eq!(closing, [(GivenKind::Carry, minus(200)), (GivenKind::Forfeit, minus(540))]);
    let end: Ngh = august.closing.iter().map(|line| line.ngh).sum();
    assert_eq!(books.balance("public/nap/a", &august) + end, Ngh::ZERO);
    let september = books.statement("public/nap/a", books.cluster.now).unwrap();
    let kinds: Vec<_> = september.given.iter().map(|line| (line.kind, line.ngh)).collect();
    assert_eq!(kinds, [(GivenKind::Grant, Ngh::whole(700)), (GivenKind::Carry, Ngh::whole(200))]);
}

/// Something that happens in a random history.
#[derive(Debug, Clone)]
enum Act {
    Start { leaf: usize, gpus: u32, hours: i64 },
    End { place: usize, lost: bool },
    Wait { seconds: i64 },
    Budget { ngh: u64 },
    Transfer { from: usize, to: usize, ngh: u64 },
    Adjust { node: usize, ngh: i128 },
    Void { number: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3_usize, 1..7_u32, 1..72_i64)
            .prop_map(|(leaf, gpus, hours)| Act::Start { leaf, gpus, hours }),
        3 => (0..6_usize, any::<bool>()).prop_map(|(place, lost)| Act::End { place, lost }),
        4 => (1..700_000_i64).prop_map(|seconds| Act::Wait { seconds }),
        1 => (0..1500_u64).prop_map(|ngh| Act::Budget { ngh }),
        2 => (0..5_usize, 0..5_usize, 1..500_u64)
            .prop_map(|(from, to, ngh)| Act::Transfer { from, to, ngh }),
        1 => (0..5_usize, -400..400_i128).prop_map(|(node, ngh)| Act::Adjust { node, ngh }),
        1 => (1..6_u64).prop_map(|number| Act::Void { number }),
    ]
}

impl Books {
    fn perform(&mut self, act: &Act, jobs: &mut Vec<JobId>) {
        match act {
            Act::Start { leaf, gpus, hours } => {
                let leaf = ["public/nap/a", "public/nup/x", "public/nup/y"][*leaf];
                jobs.push(self.start(leaf, *gpus, *hours));
            }
            Act::End { place, lost } => {
                if let Some(job) = jobs.get(*place).copied() {
                    self.end(job, if *lost { Cause::Node } else { Cause::User });
                }
            }
            Act::Wait { seconds } => self.wait_s(*seconds),
            Act::Budget { ngh } => {
                self.quota(&QUOTA.replace("ngh = 800", &format!("ngh = {ngh}")));
            }
            // What is refused changes nothing, which is looked at as well.
            Act::Transfer { from, to, ngh } => {
                let _ = self.transfer(NODES[*from], NODES[*to], *ngh);
            }
            Act::Adjust { node, ngh } => {
                let ngh = Ngh(ngh * Ngh::whole(1).0);
                let _ = self.moves(&Move::Adjust { node: path(NODES[*node]), ngh });
            }
            Act::Void { number } => {
                let _ = self.moves(&Move::Void { number: MovementId(*number) });
            }
        }
    }

    /// The number that decides, and what the lines add up to.
    fn check_node(&self, node: &str) -> Result<(), TestCaseError> {
        let present = self.statement(node, self.cluster.now).unwrap();
        prop_assert_eq!(self.balance(node, &present), self.account(node).free(), "{}", node);
        let Some(before) = present.budget.before.clone() else { return Ok(()) };
        let Some(closed) = self.statement(node, before.span.from) else { return Ok(()) };
        let granted = |given: &&gotgan_core::statement::Given| given.kind != GivenKind::Carry;
        let granted: Ngh = closed.given.iter().filter(granted).map(|given| given.ngh).sum();
        prop_assert_eq!(granted, before.ngh, "what {} carries is part of what it was given", node);
        let end: Ngh = closed.closing.iter().map(|given| given.ngh).sum();
        prop_assert!(self.balance(node, &closed) + end <= Ngh::ZERO);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_decides_is_what_the_lines_add_up_to_after_any_history(
        acts in proptest::collection::vec(act(), 1..24),
    ) {
        let mut books = Books::at("2026-08-20T00:00");
        let mut jobs = Vec::new();
        for act in &acts {
            books.perform(act, &mut jobs);
        }
        for node in NODES {
            books.check_node(node)?;
        }
        let (accounts, restarted) = books.restarted();
        prop_assert_eq!(&accounts, &books.cluster.world.accounts);
        prop_assert_eq!(&restarted.quota.nodes, &books.cluster.world.quota.nodes);
        let office: Ngh = books.cluster.world.book.moves.values()
            .filter(|moved| moved.is_between_nodes())
            .flat_map(|moved| moved.from.iter().chain(&moved.to).map(|node| moved.at_node(node.as_str())))
            .sum();
        prop_assert_eq!(office, Ngh::ZERO, "what one node gives another gets");
    }
}
