//! The ledger as it is listed, summed and audited.

use std::sync::Arc;

use gotgan_core::amount::{GpuMilliSeconds, Ngh};
use gotgan_core::attempt::Cause;
use gotgan_core::change::Change;
use gotgan_core::fairshare::HalfLife;
use gotgan_core::ids::{GpuClass, JobId};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::meter::Footing;
use gotgan_core::quota::Interval;
use gotgan_core::world::World;
use gotgan_store::{Balance, LedgerFilter, Page};

use crate::harness::Place;
use crate::things::{Leader, at, attempt, ended, inventory, path, plain_job, submitted};

const ALL: Page = Page { size: 1000, after: None };

/// Attempts of three projects: one completed, one lost with its node, one under way.
pub async fn leader_with_ledger(place: &Place) -> Leader {
    let mut leader = Leader::at(place).await;
    let mut changes = vec![Change::NodeRegistered(Arc::new(inventory("n1")))];
    changes.extend((1..=3).map(|id| submitted(plain_job(id))));
    leader.commit(changes).await;
    let projects = ["public/nup/a", "public/nup-b", "private"];
    for (id, project) in (1..=3).zip(projects) {
        let mut attempt = attempt(id, 1, "n1", &[id as usize], 1000);
        attempt.project = path(project);
        leader.commit(leader.lease(&attempt)).await;
        match id {
            1 => leader.commit(leader.end(&ended(attempt, 20, Cause::User))).await,
            2 => leader.commit(leader.end(&ended(attempt, 30, Cause::Hardware))).await,
            _ => {}
        }
    }
    leader
}

pub async fn entries_come_in_order_and_by_filter(place: Arc<Place>) {
    let leader = leader_with_ledger(&place).await;
    let list = |filter: LedgerFilter, page: Page| {
        let store = Arc::clone(&leader.store);
        async move { store.ledger(&filter, &page).await.unwrap() }
    };
    assert_eq!(list(LedgerFilter::default(), ALL).await, leader.booked);
    let of = |wanted: &dyn Fn(&LedgerEntry) -> bool| -> Vec<LedgerEntry> {
        leader.booked.iter().filter(|entry| wanted(entry)).cloned().collect()
    };
    let job = LedgerFilter { job: Some(JobId(2)), ..LedgerFilter::default() };
    assert_eq!(list(job, ALL).await, of(&|entry| entry.attempt.job == JobId(2)));
    let within = LedgerFilter { within: vec![path("public/nup"), path("private")], job: None };
    let expected = of(&|entry| entry.attempt.job != JobId(2));
    assert_eq!(list(within.clone(), ALL).await, expected);
    let page = Page { size: 2, after: Some(expected[0].seq) };
    assert_eq!(list(within.clone(), page).await, expected[1..3]);
    let neither = LedgerFilter { job: Some(JobId(2)), ..within };
    assert!(list(neither, ALL).await.is_empty());
}

pub async fn balances_sum_what_lies_below_a_path(place: Arc<Place>) {
    let leader = leader_with_ledger(&place).await;
    let balance = |project: &str, charged, refunded, held| Balance {
        project: path(project),
        class: GpuClass::new("b200").unwrap(),
        charged: GpuMilliSeconds(charged),
        overuse: GpuMilliSeconds::default(),
        refunded: GpuMilliSeconds(refunded),
        held: GpuMilliSeconds(held),
    };
    let private = balance("private", 0, 0, 3_600_000);
    let lost = balance("public/nup-b", 20_000, 20_000, 0);
    let paid = balance("public/nup/a", 10_000, 0, 0);
    let store = &leader.store;
    assert_eq!(store.balances(None).await.unwrap(), [private, lost, paid.clone()]);
    assert_eq!(store.balances(Some(&path("public/nup"))).await.unwrap(), [paid]);
}

/// A month of 30 days after the moment from which seconds count.
const LATER_S: i64 = 30 * 24 * 3600;

/// Accounts and attempts are what the store remembers of them.
async fn assert_accounts_reload(leader: &Leader) {
    let now = at(LATER_S);
    let snapshot = leader.store.load(HalfLife::default(), now).await.unwrap();
    let reloaded = World::restore(snapshot, now);
    assert_eq!(reloaded.accounts, leader.world.accounts);
    assert_eq!(reloaded.attempts, leader.world.attempts);
}

pub async fn what_was_settled_in_slices_is_loaded_as_it_was(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let mut changes = vec![Change::NodeRegistered(Arc::new(inventory("n1")))];
    changes.extend((1..=3).map(|id| submitted(plain_job(id))));
    leader.commit(changes).await;
    let mut within = attempt(1, 1, "n1", &[1, 2], 1000);
    let mut beyond = attempt(2, 1, "n1", &[3], 500);
    beyond.meter.footing = Footing::Overuse;
    let mut scavenger = attempt(3, 1, "n1", &[4], 1000);
    scavenger.meter.footing = Footing::Scavenger;
    (scavenger.hold, scavenger.meter.weight_milli) = (GpuMilliSeconds(0), 0);
    for attempt in [&mut within, &mut beyond, &mut scavenger] {
        leader.commit(leader.lease(attempt)).await;
        for seconds in [30, LATER_S] {
            leader.commit(leader.settle(attempt, at(seconds))).await;
            assert_accounts_reload(&leader).await;
        }
    }
    let differences = leader.store.audit_ledger().await.unwrap().differences;
    assert_eq!(differences, Vec::<String>::new());
    let overuse = leader.store.balances(None).await.unwrap()[0].overuse;
    assert_eq!(overuse, GpuMilliSeconds(500 * (LATER_S - 10)));
    leader.commit(leader.end(&ended(within, LATER_S - 60, Cause::User))).await;
    leader.commit(leader.end(&ended(beyond, LATER_S + 60, Cause::Node))).await;
    leader.commit(leader.end(&ended(scavenger, LATER_S + 60, Cause::User))).await;
    assert_accounts_reload(&leader).await;
    let differences = leader.store.audit_ledger().await.unwrap().differences;
    assert_eq!(differences, Vec::<String>::new());
    let used = leader.world.accounts.used("public", Interval::ALWAYS);
    assert_eq!(used, Ngh(2000 * i128::from(LATER_S - 70) * 1000), "the others cost nothing");
    let charged = leader.store.balances(None).await.unwrap()[0].charged;
    // What the first was charged too far is given back, not uncharged.
    let all = 2000 * (LATER_S - 10) + 500 * (LATER_S + 50) + 1000 * (LATER_S + 50);
    assert_eq!(charged, GpuMilliSeconds(all), "a scavenger's seconds are counted");
    let snapshot = leader.store.load(HalfLife::default(), at(LATER_S + 60)).await.unwrap();
    let reloaded = World::restore(snapshot, at(LATER_S + 60));
    assert_eq!(reloaded.history, leader.world.history, "and held against nobody");
}

pub async fn a_true_ledger_passes_the_audit(place: Arc<Place>) {
    let leader = leader_with_ledger(&place).await;
    let audit = leader.store.audit_ledger().await.unwrap();
    assert_eq!((audit.attempts, audit.differences), (3, Vec::new()));
}

pub async fn the_audit_finds_what_was_planted(place: Arc<Place>) {
    let leader = leader_with_ledger(&place).await;
    let planted = [
        ("UPDATE ledger SET amount = amount + 1 WHERE kind = 'charge' AND job_id = 1", 2),
        ("UPDATE ledger SET amount = amount - 1 WHERE kind = 'charge' AND job_id = 1", 0),
        ("DELETE FROM ledger WHERE kind = 'refund'", 1),
        ("UPDATE ledger SET project = 'private' WHERE kind = 'release' AND job_id = 1", 3),
        ("UPDATE ledger SET job_id = 77 WHERE kind = 'hold' AND job_id = 3", 5),
    ];
    for (statement, differences) in planted {
        assert_eq!(place.execute(statement).await, 1);
        let audit = leader.store.audit_ledger().await.unwrap();
        assert_eq!(audit.differences.len(), differences, "{statement}: {audit:?}");
    }
}
