//! The audit chain: it rebuilds every book, and shows what was altered; and what must stand behind a change.

use std::collections::BTreeMap;

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::{Change, EventKind};
use gotgan_core::digest::Digest;
use gotgan_core::ids::{Epoch, LotName, UserName};
use gotgan_core::lifecycle::{self, Draft, QuotaRefusal};
use gotgan_core::policy::Policy;
use gotgan_core::quota::audit::{
    AuditEntry, ChainFault, ChainHead, Replay, Source, Warrant, record,
};
use gotgan_core::quota::{self, ChangeSize, Consent, Proposal, QuotaBook, audit};
use gotgan_core::world::World;
use proptest::prelude::*;

use crate::cluster::TestCluster;

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn book(text: &str) -> QuotaBook {
    quota::parse(&[("tree.toml".to_owned(), text.to_owned())]).unwrap()
}

/// A tree of one programme and its projects, each with a guarantee and a limit.
fn tree(projects: &[(u32, u32)]) -> QuotaBook {
    let total: u32 = projects.iter().map(|(guarantee, _)| guarantee).sum();
    let mut text =
        format!("[node.\"public\"]\ndecision = \"D-1\"\nguarantee = {{ b200 = {total} }}\n");
    for (number, (guarantee, more)) in projects.iter().enumerate() {
        let limit = guarantee + more;
        text.push_str(&format!(
            "[node.\"public/p{number}\"]\nguarantee = {{ b200 = {guarantee} }}\nlimit = {{ b200 = {limit} }}\n"
        ));
    }
    book(&text)
}

fn warrant() -> Warrant {
    Warrant {
        by: user("office"),
        requester: user("office"),
        source: Source::Files,
        reason: "second purchase \"\u{0}\n".to_owned(),
        plan: Some(Digest::zero()),
        approvals: Vec::new(),
    }
}

/// The chain of a history of books, and the books with their revisions.
fn history(books: Vec<QuotaBook>) -> (Vec<AuditEntry>, Vec<QuotaBook>) {
    let (mut head, mut present) = (ChainHead::default(), QuotaBook::default());
    let (mut entries, mut seen) = (Vec::new(), Vec::new());
    for (at, mut next) in (1..).zip(books) {
        next.revision = present.revision + 1;
        for entry in record(&head, &present, &next, &warrant(), UnixMicros(at)) {
            head.pass(&entry);
            entries.push(entry);
        }
        seen.push(next.clone());
        present = next;
    }
    (entries, seen)
}

fn trees() -> impl Strategy<Value = Vec<QuotaBook>> {
    let projects = prop::collection::vec((0..9_u32, 0..9_u32), 0..5);
    prop::collection::vec(projects.prop_map(|projects| tree(&projects)), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500.max(ProptestConfig::default().cases)))]

    #[test]
    fn the_entries_up_to_a_revision_rebuild_its_book(books in trees()) {
        let (entries, books) = history(books);
        let mut replay = Replay::default();
        let mut rebuilt = BTreeMap::new();
        for entry in &entries {
            replay.take(entry).unwrap();
            rebuilt.insert(entry.revision, replay.book().unwrap().digest());
        }
        for book in &books {
            if let Some(digest) = rebuilt.get(&book.revision) {
                prop_assert_eq!(digest, &book.digest());
            }
        }
        prop_assert_eq!(replay.head.seq, entries.len() as u64);
    }

    #[test]
    fn no_entry_can_be_altered_left_out_or_moved_unnoticed(
        books in trees(), place in any::<prop::sample::Index>(), how in 0..7_u8,
    ) {
        let (mut entries, _) = history(books);
        let place = place.index(entries.len());
        let last = place + 1 == entries.len();
        match how {
            0 => entries[place].body = entries[place].body.replacen("office", "0ffice", 1).into(),
            1 => entries[place].at = UnixMicros(99),
            2 => entries[place].subject.push('x'),
            3 => entries[place].revision += 1,
            4 => entries[place].source = Source::Command,
            5 if !last => { entries.remove(place); }
            6 if !last => entries.swap(place, place + 1),
            // What is cut off at the end is seen only by whoever noted the newest digest.
            _ => return Ok(()),
        }
        let mut replay = Replay::default();
        let fault = entries.iter().try_for_each(|entry| replay.take(entry));
        prop_assert!(fault.is_err());
    }

    #[test]
    fn whoever_digests_an_altered_entry_anew_is_found_by_the_next_or_by_what_was_there_before(
        books in trees(), place in any::<prop::sample::Index>(),
    ) {
        let (mut entries, _) = history(books);
        let place = place.index(entries.len());
        let previous = place.checked_sub(1).map_or_else(Digest::zero, |one| entries[one].digest.clone());
        entries[place].body = entries[place].body.replacen("office", "0ffice", 1).into();
        entries[place].digest = audit::seal(&previous, &entries[place].body);
        let mut replay = Replay::default();
        let fault = entries.iter().try_for_each(|entry| replay.take(entry));
        let last = place + 1 == entries.len();
        prop_assert_eq!(fault.is_err(), !last);
    }
}

#[test]
fn a_digest_can_be_checked_with_the_tools_of_any_system() {
    // printf '%064d\n%s' 0 '{"a":1}' | sha256sum
    let expected = "f21735afd2cd6af4fc5804b0045cebfd545aef8396d29d030c39cb8880b45b7f";
    assert_eq!(audit::seal(&Digest::zero(), "{\"a\":1}").as_str(), expected);
}

#[test]
fn an_entry_says_who_why_on_which_decision_and_from_when() {
    let old = book("[node.\"a\"]\ndecision = \"D-1\"\nguarantee = { b200 = 4 }\n");
    let new = book(
        "[node.\"a\"]\ndecision = \"D-2\"\nguarantee = [{ class = \"b200\", gpus = 4 }, \
         { class = \"b200\", gpus = 8, from = \"2099-01-01\" }]\n",
    );
    let entries = record(&ChainHead::default(), &old, &new, &warrant(), UnixMicros(7));
    let body = entries[0].read().unwrap();
    assert_eq!((body.seq, body.at, body.decision.as_deref()), (1, UnixMicros(7), Some("D-2")));
    assert_eq!(body.effective_from, UnixMicros(7), "the decision counts at once");
    let fields: Vec<_> = body.edit.fields().into_iter().map(|field| field.name).collect();
    assert_eq!(fields, ["decision", "guarantee b200"]);
    let later = QuotaBook { nodes: new.nodes.clone(), ..old.clone() };
    let mut same_decision = later.clone();
    same_decision.nodes.values_mut().next().unwrap().decision = Some("D-1".to_owned());
    let entries = record(&ChainHead::default(), &old, &same_decision, &warrant(), UnixMicros(7));
    let from = entries[0].read().unwrap().effective_from;
    assert_eq!(quota::show_moment(from), "2099-01-01");
}

#[test]
fn entries_that_go_back_in_time_are_refused() {
    let (entries, _) = history(vec![tree(&[(1, 0)]), tree(&[(2, 0)])]);
    let mut head = ChainHead { at: UnixMicros(50), ..ChainHead::default() };
    assert_eq!(head.check(&entries[0]), Err(ChainFault::Older { seq: 1 }));
}

#[test]
fn a_change_is_as_large_as_what_it_moves_at_the_level_that_moves_most() {
    let size = |old: &QuotaBook, new: &QuotaBook| ChangeSize::of(&audit::edits(old, new));
    let gpus = |count| ChangeSize::Gpus(gotgan_core::amount::GpuMilli::whole(count));
    let (small, large) = (tree(&[(4, 4), (4, 4)]), tree(&[(6, 2), (7, 1)]));
    assert_eq!(size(&small, &small), gpus(0));
    assert_eq!(size(&small, &large), gpus(5));
    // A project that is added counts with all that it gets.
    assert_eq!(size(&small, &tree(&[(4, 4), (4, 4), (9, 20)])), gpus(29));
    let without_limit = |text: &str| book(&format!("[node.\"a\"]\n{text}"));
    let (limited, unlimited) = (without_limit("limit = { b200 = 4 }\n"), without_limit(""));
    assert_eq!(size(&limited, &unlimited), ChangeSize::Unbounded);
    let given_away = without_limit("limit = { b200 = 4 }\nallocator = \"kim\"\n");
    assert_eq!(size(&limited, &given_away), ChangeSize::Unbounded);
}

/// A scheduler's world with the office's tree in it.
struct Office {
    world: World,
    policy: Policy,
    now: UnixMicros,
}

impl Office {
    fn new(text: &str) -> Self {
        let mut office =
            Office { world: World::default(), policy: Policy::default(), now: UnixMicros(1_000) };
        office.apply("admin", office.proposal("admin", text)).unwrap();
        office
    }

    /// A replay that stands at the tree that was applied first.
    fn start(&self) -> Replay {
        let mut first =
            Office { world: World::default(), policy: self.policy.clone(), now: UnixMicros(1_000) };
        let proposal = first.proposal("admin", RULED);
        let by = user("admin");
        let (_, changes) = first.draft(|draft| lifecycle::apply_quota(draft, proposal, &by));
        let mut replay = Replay::default();
        for change in changes {
            if let Change::QuotaAudited(entry) = change {
                replay.take(&entry).unwrap();
            }
        }
        replay
    }

    fn proposal(&self, requester: &str, text: &str) -> Proposal {
        Proposal {
            requester: user(requester),
            reason: String::new(),
            base_revision: self.world.book.revision,
            consent: Consent::default(),
            book: book(text),
        }
    }

    fn draft<T>(&mut self, change: impl FnOnce(&mut Draft<'_>) -> T) -> (T, Vec<Change>) {
        let mut draft = Draft::new(&mut self.world, &self.policy, Epoch(1), self.now);
        let value = change(&mut draft);
        (value, draft.into_changes())
    }

    fn apply(&mut self, by: &str, proposal: Proposal) -> Result<Option<u64>, QuotaRefusal> {
        let (applied, changes) =
            self.draft(|draft| lifecycle::apply_quota(draft, proposal, &user(by)));
        assert!(applied.is_ok() || changes.is_empty(), "a refusal leaves nothing behind");
        applied
    }

    fn approve(&mut self, by: &str, proposal: &Proposal) -> Result<(u32, u32), QuotaRefusal> {
        self.draft(|draft| lifecycle::approve_quota(draft, proposal, &user(by), "D-9")).0
    }
}

const RULED: &str = "approval = [{ above_gpus = 2, approvers = 1 }, { above_gpus = 10, approvers = 2 }]\n\
                     [node.\"a\"]\nlimit = { b200 = 4 }\n";

fn limit(gpus: u32) -> String {
    RULED.replace("b200 = 4", &format!("b200 = {gpus}"))
}

#[test]
fn a_large_change_needs_people_who_neither_ask_for_it_nor_apply_it() {
    let mut office = Office::new(RULED);
    assert_eq!(office.apply("kim", office.proposal("kim", &limit(6))), Ok(Some(2)), "2 GPUs");
    let proposal = office.proposal("kim", &limit(20));
    let refused = office.apply("kim", proposal.clone());
    assert_eq!(refused, Err(QuotaRefusal::NotApproved { needed: 2, given: Vec::new() }));
    assert_eq!(office.approve("kim", &proposal), Err(QuotaRefusal::OwnPlan { by: user("kim") }));
    assert_eq!(office.approve("lee", &proposal), Ok((1, 2)));
    assert_eq!(office.approve("lee", &proposal), Ok((1, 2)), "one person counts once");
    assert_eq!(office.approve("park", &proposal), Ok((2, 2)));
    let by_an_approver = office.apply("park", proposal.clone());
    assert!(matches!(by_an_approver, Err(QuotaRefusal::NotApproved { needed: 2, .. })));
    assert_eq!(office.apply("kim", proposal), Ok(Some(3)));
    assert!(office.world.audit.approvals.is_empty(), "they counted for that revision");
}

#[test]
fn an_approval_is_for_one_plan_and_one_revision() {
    let mut office = Office::new(RULED);
    let approved = office.proposal("kim", &limit(8));
    office.approve("lee", &approved).unwrap();
    let other = office.proposal("kim", &limit(9));
    assert!(matches!(office.apply("kim", other), Err(QuotaRefusal::NotApproved { needed: 1, .. })));
    assert_eq!(office.apply("kim", office.proposal("kim", &limit(5))), Ok(Some(2)));
    let stale = QuotaRefusal::Stale { present: 2, planned: 1 };
    assert_eq!(office.apply("kim", approved.clone()), Err(stale.clone()));
    assert_eq!(office.approve("park", &approved), Err(stale));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400.max(ProptestConfig::default().cases)))]

    /// Whatever is asked for, approved and applied by whomever, in any order: what got through can be proved from the
    /// chain alone to have been allowed, and with one approval less it cannot.
    #[test]
    fn every_revision_has_the_approvals_that_the_rules_of_its_time_asked_for(
        steps in prop::collection::vec((0..4_u8, 0..4_usize, 1..30_u32), 1..40),
    ) {
        let mut office = Office::new(RULED);
        let people = ["kim", "lee", "park", "choi"];
        let mut wanted = office.proposal("kim", &limit(5));
        let mut entries = Vec::new();
        for (what, who, gpus) in steps {
            let person = people[who];
            match what {
                0 => wanted = office.proposal(person, &limit(gpus)),
                1 | 2 => drop(office.approve(person, &wanted)),
                _ => {
                    let (proposal, by) = (wanted.clone(), user(person));
                    let (_, changes) =
                        office.draft(|draft| lifecycle::apply_quota(draft, proposal, &by));
                    entries.extend(changes.into_iter().filter_map(|change| match change {
                        Change::QuotaAudited(entry) => Some(entry),
                        _ => None,
                    }));
                }
            }
        }
        let mut replay = office.start();
        for entry in &entries {
            replay.take(entry).unwrap();
        }
        prop_assert_eq!(replay.finish(), Ok(()));
        prop_assert_eq!(&replay.book().unwrap(), &*office.world.book);
        let approved = entries.iter().find(|entry| {
            let body = entry.read().unwrap();
            let others = body.warrant.approvals.len();
            let needed = entry.revision > 1 && others > 0;
            needed && minimal(&body.warrant, entries.as_slice(), entry)
        });
        if let Some(entry) = approved {
            let mut forged = office.start();
            let fault = entries.iter().try_for_each(|one| {
                let mut one = AuditEntry::clone(one);
                if one.seq >= entry.seq {
                    if one.seq == entry.seq {
                        let mut body = one.read().unwrap();
                        body.warrant.approvals.pop();
                        one.body = serde_json::to_string(&body).unwrap().into();
                    }
                    one.digest = audit::seal(&forged.head.digest, &one.body);
                }
                forged.take(&one).map(drop)
            });
            prop_assert!(fault.and_then(|()| forged.finish()).is_err(), "one approval less is seen");
        }
    }
}

/// Whether the approvals of a revision are as few as they may be.
fn minimal(warrant: &Warrant, entries: &[std::sync::Arc<AuditEntry>], entry: &AuditEntry) -> bool {
    let edits: Vec<_> = entries
        .iter()
        .filter(|one| one.revision == entry.revision)
        .map(|one| one.read().unwrap().edit)
        .collect();
    let rules = book(RULED).approval;
    ChangeSize::of(&edits).approvers(&rules) as usize == warrant.approvals.len()
}

#[test]
fn the_entry_of_an_approved_change_names_who_approved_it() {
    let mut office = Office::new(RULED);
    let proposal = office.proposal("kim", &limit(8));
    office.approve("lee", &proposal).unwrap();
    let (_, changes) = office.draft(|draft| lifecycle::apply_quota(draft, proposal, &user("kim")));
    let entries = changes.iter().filter_map(|change| match change {
        Change::QuotaAudited(entry) => Some(entry.read().unwrap()),
        _ => None,
    });
    let named: Vec<_> = entries
        .flat_map(|body| body.warrant.approvals)
        .map(|approval| (approval.by, approval.document))
        .collect();
    assert_eq!(named, [(user("lee"), "D-9".to_owned())]);
}

#[test]
fn a_clock_that_went_back_changes_nothing() {
    let mut office = Office::new(RULED);
    office.now = UnixMicros(999);
    let refused = office.apply("kim", office.proposal("kim", &limit(5)));
    assert_eq!(refused, Err(QuotaRefusal::ClockBehind { last: UnixMicros(1_000) }));
}

const DELIVERY: &str = "[class.b200]\n[cluster.north]\nclass = \"b200\"\n\
                        [lot.first]\ncluster = \"north\"\ndue = \"1970-01-01\"\n\
                        batch = [{ gpus = 4 }, { gpus = 8 }]\n[node.\"a\"]\n";

#[test]
fn a_batch_that_a_command_accepts_counts_at_once_and_files_do_not_put_it_back_unasked() {
    let mut office = Office::new(DELIVERY);
    let lot = LotName::new("first").unwrap();
    let accept = |office: &mut Office, number| {
        office.draft(|draft| lifecycle::accept_batch(draft, &lot, number, &user("kim"), "D-3"))
    };
    let (accepted, changes) = accept(&mut office, 2);
    assert_eq!(accepted, Ok(2));
    let told = changes.iter().any(
        |change| matches!(change, Change::Happened(event) if event.kind == EventKind::QuotaApplied),
    );
    assert!(told);
    let b200 = gotgan_core::ids::GpuClass::new("b200").unwrap();
    let accepted = office.world.book.capacity(office.now)[&b200].accepted;
    assert_eq!(accepted, gotgan_core::amount::GpuMilli::whole(8));
    for number in [0, 2, 3] {
        assert!(matches!(accept(&mut office, number).0, Err(QuotaRefusal::NoSuchBatch(_))));
    }
    let old_files = office.proposal("lee", DELIVERY);
    let refused = office.apply("lee", old_files.clone());
    assert!(matches!(refused, Err(QuotaRefusal::WouldUndo { .. })), "{refused:?}");
    let asked = Proposal { consent: Consent { overwrite: true, stop: false }, ..old_files };
    assert_eq!(office.apply("lee", asked), Ok(Some(3)));
    assert!(office.world.audit.unfiled.is_empty());
}

#[test]
fn files_that_say_what_a_command_did_or_something_new_are_applied() {
    let mut office = Office::new(DELIVERY);
    let lot = LotName::new("first").unwrap();
    let by = user("kim");
    let (accepted, _) = office.draft(|draft| lifecycle::accept_batch(draft, &lot, 1, &by, "D-3"));
    accepted.unwrap();
    let other = DELIVERY.replace("{ gpus = 4 }", "{ gpus = 4, accepted = \"1970-01-01\" }");
    assert_eq!(office.apply("lee", office.proposal("lee", &other)), Ok(Some(3)));
}

#[test]
fn a_change_that_would_stop_running_jobs_needs_consent() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.guarantee("public/a", 1, &[]);
    cluster.guarantee("public/b", 1, &[]);
    let running = cluster.job().project("public/b").gpus(8, "b200").submit();
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(10_000);
    let waiting = cluster.job().project("public/a").gpus(4, "b200").submit();
    cluster.start_all();
    let mut book = QuotaBook::clone(&cluster.world.book);
    for (path, node) in &mut book.nodes {
        node.decision = Some("D-1".to_owned());
        if path.as_str() != "public/b" {
            let guarantee = quota::Dated::always(gotgan_core::amount::GpuMilli::whole(4));
            node.guarantees.insert(gotgan_core::ids::GpuClass::new("b200").unwrap(), guarantee);
        }
    }
    let proposal = |stop| Proposal {
        requester: user("kim"),
        reason: String::new(),
        base_revision: cluster.world.book.revision,
        consent: Consent { stop, overwrite: false },
        book: book.clone(),
    };
    let (without, with) = (proposal(false), proposal(true));
    let mut world = cluster.world.clone();
    let mut draft = Draft::new(&mut world, &cluster.policy, Epoch(1), cluster.now);
    let refused = lifecycle::apply_quota(&mut draft, without, &user("kim"));
    let Err(QuotaRefusal::WouldStop(forecast)) = refused else { panic!("{refused:?}") };
    let stopped: Vec<_> = forecast.stopped.keys().map(|attempt| attempt.job).collect();
    assert_eq!(stopped, [running]);
    assert!(cluster.world.jobs[&waiting].status.state.word() == "pending");
    assert!(lifecycle::apply_quota(&mut draft, with, &user("kim")).is_ok());
}
