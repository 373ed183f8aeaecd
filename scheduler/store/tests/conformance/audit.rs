//! The audit chain of the quota book, and what stands for its next change.

use std::sync::Arc;

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::Change;
use gotgan_core::ids::{Epoch, UserName};
use gotgan_core::lifecycle::{Draft, accept_batch, apply_quota, approve_quota};
use gotgan_core::policy::Policy;
use gotgan_core::quota::audit::{AuditEntry, Replay};
use gotgan_core::quota::{self, Consent, Proposal};
use gotgan_core::world::World;
use gotgan_store::Page;

use crate::harness::Place;
use crate::things::{Leader, at};

const ALL: Page = Page { size: 1000, after: None };

pub const TREE: &str = "approval = [{ above_gpus = 1, approvers = 1 }]\n[class.b200]\n[cluster.north]\nclass = \"b200\"\n\
                    [lot.first]\ncluster = \"north\"\ndue = \"2026-01-01\"\nbatch = [{ gpus = 1 }, { gpus = 8 }]\n\
                    [node.\"public\"]\nlimit = { b200 = 4 }\n";

/// The office at work, as the writer would let it.
pub struct Office {
    pub leader: Leader,
    world: World,
    now: UnixMicros,
}

impl Office {
    pub async fn at(place: &Place) -> Self {
        Office { leader: Leader::at(place).await, world: World::default(), now: at(0) }
    }

    async fn draft<T>(&mut self, change: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        self.now = self.now.plus_seconds(1);
        let policy = Policy::default();
        let mut draft = Draft::new(&mut self.world, &policy, Epoch(1), self.now);
        let value = change(&mut draft);
        let changes: Vec<Change> = draft.into_changes();
        self.leader.commit(changes).await;
        self.leader.assert_reloads_at(self.now).await;
        value
    }

    fn proposal(&self, text: &str) -> Proposal {
        Proposal {
            requester: user("kim"),
            reason: "the \"second\" purchase".to_owned(),
            base_revision: self.world.book.revision,
            consent: Consent::default(),
            book: quota::parse(&[("tree.toml".to_owned(), text.to_owned())]).unwrap(),
        }
    }

    pub async fn apply(&mut self, text: &str) {
        let proposal = self.proposal(text);
        self.draft(|draft| apply_quota(draft, proposal, &user("kim"))).await.unwrap();
    }

    async fn audited(&self, subject: Option<&str>, page: Page) -> Vec<AuditEntry> {
        self.leader.store.audited(subject, &page).await.unwrap()
    }
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

pub async fn the_chain_and_what_stands_for_its_next_entry_survive_a_reload(place: Arc<Place>) {
    let mut office = Office::at(&place).await;
    office.apply(TREE).await;
    let larger = office.proposal(&TREE.replace("b200 = 4", "b200 = 9"));
    office.draft(|draft| approve_quota(draft, &larger, &user("lee"), "D-7")).await.unwrap();
    let lot = quota_lot("first");
    office.draft(|draft| accept_batch(draft, &lot, 1, &user("kim"), "D-8")).await.unwrap();
    assert_eq!(office.world.audit.unfiled.len(), 1);
    assert_eq!(office.world.audit.approvals, [], "they were for the revision before");
    let again = office.proposal(&TREE.replace("b200 = 4", "b200 = 9"));
    let again = Proposal { consent: Consent { overwrite: true, stop: false }, ..again };
    office.draft(|draft| approve_quota(draft, &again, &user("lee"), "D-9")).await.unwrap();
    office.draft(|draft| apply_quota(draft, again, &user("kim"))).await.unwrap();
    assert!(office.world.audit.unfiled.is_empty());
}

fn quota_lot(name: &str) -> gotgan_core::ids::LotName {
    gotgan_core::ids::LotName::new(name).unwrap()
}

pub async fn the_chain_that_is_read_back_rebuilds_the_book(place: Arc<Place>) {
    let mut office = Office::at(&place).await;
    for limit in [4, 5, 4, 3] {
        office.apply(&TREE.replace("b200 = 4", &format!("b200 = {limit}"))).await;
    }
    let mut replay = Replay::default();
    let mut page = Page { size: 2, after: None };
    loop {
        let entries = office.audited(None, page).await;
        for entry in &entries {
            replay.take(entry).unwrap();
        }
        match entries.last() {
            Some(last) => page.after = Some(last.seq),
            None => break,
        }
    }
    assert_eq!(replay.head, office.world.audit.head);
    assert_eq!(replay.book().unwrap(), *office.world.book);
}

pub async fn entries_of_one_subject_are_found_alone(place: Arc<Place>) {
    let mut office = Office::at(&place).await;
    office.apply(TREE).await;
    office.apply(&TREE.replace("b200 = 4", "b200 = 5")).await;
    let subjects = |entries: Vec<AuditEntry>| -> Vec<String> {
        entries.into_iter().map(|entry| entry.subject).collect()
    };
    let all = subjects(office.audited(None, ALL).await);
    let tree = ["approval", "class b200", "cluster north", "lot first", "node public"];
    assert_eq!(all[..5], tree);
    assert_eq!(all[5..], ["node public"]);
    let node = office.audited(Some("node public"), ALL).await;
    assert_eq!(node.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(office.audited(Some("node pub%"), ALL).await, []);
}

pub async fn the_book_of_a_past_moment_is_the_one_that_was_in_force(place: Arc<Place>) {
    let mut office = Office::at(&place).await;
    let before = office.now;
    office.apply(TREE).await;
    let (first, at_first) = (Arc::clone(&office.world.book), office.now);
    office.apply(&TREE.replace("b200 = 4", "b200 = 5")).await;
    let at = |moment| office.leader.store.quota_at(moment);
    assert_eq!(at(before).await.unwrap(), None);
    assert_eq!(at(at_first).await.unwrap().as_ref(), Some(&*first));
    assert_eq!(at(office.now).await.unwrap().as_ref(), Some(&*office.world.book));
}
