//! What the books of budgets are read from: alerts, and the entries of a node in a period.

use std::sync::Arc;

use gotgan_core::alert::{Alert, AlertKind};
use gotgan_core::amount::{Ngh, UnixMicros};
use gotgan_core::change::Change;
use gotgan_core::fairshare::HalfLife;
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::quota::Interval;
use gotgan_core::quota::budget::month_around;
use gotgan_store::Page;

use crate::harness::Place;
use crate::ledger::leader_with_ledger;
use crate::things::{Leader, at, path};

const ALL: Page = Page { size: 1000, after: None };

fn alert(seq: u64, node: &str, percent: u32, kind: AlertKind) -> Alert {
    Alert {
        seq,
        at: at(i64::try_from(seq).unwrap()),
        node: path(node),
        percent,
        kind,
        from: UnixMicros(i64::MIN),
        period: "the grant".to_owned(),
        // More than 64 bits hold.
        budget: Ngh::whole(1_000_000_000_000),
        carried: Ngh::ZERO,
        used: Ngh::whole(750_000_000_000) - Ngh(1),
    }
}

pub async fn alerts_are_listed_by_node_and_the_last_of_each_part_is_loaded(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let alerts = [
        alert(3, "public/nup", 75, AlertKind::Passed),
        alert(4, "public/nup-b", 75, AlertKind::Passed),
        alert(5, "public/nup/a", 90, AlertKind::Passed),
        alert(6, "public/nup", 75, AlertKind::Under),
        alert(7, "public/nup", 90, AlertKind::Still),
    ];
    let changes = alerts.iter().cloned().map(Arc::new).map(Change::QuotaAlerted);
    leader.commit(changes.collect()).await;
    leader.assert_reloads().await;
    let store = &leader.store;
    assert_eq!(store.alerts(&[], &ALL).await.unwrap(), alerts);
    let below = [0, 2, 3, 4].map(|place| alerts[place].clone());
    assert_eq!(store.alerts(&[path("public/nup")], &ALL).await.unwrap(), below);
    let page = Page { size: 2, after: Some(3) };
    assert_eq!(store.alerts(&[path("public/nup")], &page).await.unwrap(), below[1..3]);
    let loaded = store.load(HalfLife::default(), at(9)).await.unwrap().alerts;
    assert_eq!(loaded, alerts[1..]);
}

pub async fn a_statement_has_the_entries_of_a_node_in_its_accounts(place: Arc<Place>) {
    let leader = leader_with_ledger(&place).await;
    let span = month_around(at(0));
    let later = Interval { from: span.until, until: Interval::ALWAYS.until };
    let store = &leader.store;
    for (node, alone) in [("public/nup", false), ("public/nup/a", true), ("public", false)] {
        let of_node = |entry: &&LedgerEntry| entry.project.is_within(node);
        let expected: Vec<_> = leader.booked.iter().filter(of_node).cloned().collect();
        assert!(!expected.is_empty());
        let found = store.statement(&path(node), alone, span, &ALL).await.unwrap();
        assert_eq!(found, expected, "{node}");
        let page = Page { size: 1, after: Some(expected[0].seq) };
        let found = store.statement(&path(node), alone, span, &page).await.unwrap();
        assert_eq!(found, expected[1..2], "{node}");
        assert_eq!(store.statement(&path(node), alone, later, &ALL).await.unwrap(), []);
    }
}
