//! One leader at a time, and nothing written by one that was overtaken.

use std::sync::Arc;

use gotgan_core::fairshare::HalfLife;
use gotgan_core::ids::Epoch;
use gotgan_core::world::World;
use gotgan_store::{Claim, DatabaseKind, Leadership, Round, Sight, StoreError};

use sqlx::Connection;

use crate::harness::Place;
use crate::things::{LEASE_MS, at, job_event, plain_job, round, submitted};

pub async fn the_first_to_ask_leads_and_another_must_wait(place: Arc<Place>) {
    let store = place.open().await;
    assert_eq!(store.leadership().await.unwrap(), None);
    let first = store.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    let expected = Leadership {
        epoch: Epoch(1),
        holder: "one".to_owned(),
        address: "one:1".to_owned(),
        expires: at(10),
    };
    assert_eq!(first, expected);
    let refused = store.take_leadership("two", "two:1", at(9), LEASE_MS).await.unwrap_err();
    assert!(matches!(refused, StoreError::LedByAnother(leader) if leader == expected));
    assert_eq!(store.leadership().await.unwrap(), Some(expected));
}

pub async fn a_lease_that_ran_out_is_taken_with_a_higher_epoch(place: Arc<Place>) {
    let store = place.open().await;
    store.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    let second = store.take_leadership("two", "two:1", at(10), LEASE_MS).await.unwrap();
    assert_eq!((second.epoch, second.expires), (Epoch(2), at(20)));
    let refused = store.renew_leadership(Epoch(1), at(11), LEASE_MS).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { mine: Epoch(1), newer: Epoch(2) }));
}

pub async fn whoever_led_before_takes_over_from_itself_at_once(place: Arc<Place>) {
    let store = place.open().await;
    store.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    let again = store.take_leadership("one", "one:2", at(1), LEASE_MS).await.unwrap();
    assert_eq!((again.epoch, again.address.as_str()), (Epoch(2), "one:2"));
}

pub async fn of_many_who_ask_at_once_one_leads(place: Arc<Place>) {
    let mut tries = tokio::task::JoinSet::new();
    for name in 0..6 {
        let store = place.open().await;
        tries.spawn(async move {
            let taken = store.take_leadership(&format!("s{name}"), "a", at(0), LEASE_MS).await;
            match taken {
                Ok(_) => true,
                Err(StoreError::LedByAnother(_)) => false,
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    let leaders = tries.join_all().await.into_iter().filter(|leads| *leads).count();
    assert_eq!(leaders, 1);
}

pub async fn a_renewed_lease_runs_longer(place: Arc<Place>) {
    let store = place.open().await;
    let first = store.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    store.renew_leadership(first.epoch, at(8), LEASE_MS).await.unwrap();
    assert_eq!(store.leadership().await.unwrap().unwrap().expires, at(18));
    assert!(store.take_leadership("two", "two:1", at(17), LEASE_MS).await.is_err());
    assert!(store.take_leadership("two", "two:1", at(18), LEASE_MS).await.is_ok());
}

pub async fn a_lease_that_was_seen_not_to_be_renewed_is_taken_whatever_clocks_show(
    place: Arc<Place>,
) {
    let store = place.open().await;
    let first = store.take_leadership("one", "one:1", at(1000), LEASE_MS).await.unwrap();
    let seen = Some((first.epoch, first.expires));
    let claim = Claim { over: at(0), unless_renewed: None, until: at(30) };
    let ask = |claim| store.succeed_leader("two", "two:1", claim);
    assert!(matches!(ask(claim).await, Err(StoreError::LedByAnother(_))), "nobody gave it up");
    store.renew_leadership(first.epoch, at(1001), LEASE_MS).await.unwrap();
    let claim = Claim { unless_renewed: seen, ..claim };
    assert!(matches!(ask(claim).await, Err(StoreError::LedByAnother(_))), "it was renewed");
    let renewed = store.leadership().await.unwrap().unwrap().expires;
    let other = Claim { unless_renewed: Some((Epoch(9), renewed)), ..claim };
    assert!(matches!(ask(other).await, Err(StoreError::LedByAnother(_))), "of another epoch");
    let claim = Claim { unless_renewed: Some((first.epoch, renewed)), ..claim };
    let second = ask(claim).await.unwrap();
    assert_eq!((second.epoch, second.expires), (Epoch(2), at(30)));
}

/// SQLite serves one process, so nobody looks there.
pub async fn a_leader_that_ended_is_missed_by_who_saw_it_and_by_nobody_else(place: Arc<Place>) {
    let (leads, stands_by) = (place.open().await, place.open().await);
    let first = leads.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    assert_eq!(stands_by.look_for_leader(first.epoch).await.unwrap(), Sight::Unknown);
    for _ in 0..2 {
        leads.show_leader(first.epoch).await.unwrap();
    }
    let there = match place.kind {
        DatabaseKind::Sqlite => Sight::Unknown,
        DatabaseKind::Postgres => Sight::There,
    };
    assert_eq!(stands_by.look_for_leader(first.epoch).await.unwrap(), there);
    assert_eq!(stands_by.look_for_leader(Epoch(7)).await.unwrap(), Sight::Unknown);
    drop(leads);
    let gone = match place.kind {
        DatabaseKind::Sqlite => Sight::Unknown,
        DatabaseKind::Postgres => Sight::Gone,
    };
    let begun = std::time::Instant::now();
    while stands_by.look_for_leader(first.epoch).await.unwrap() != gone {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "its session is still there");
        tokio::task::yield_now().await;
    }
    let late = place.open().await;
    assert_eq!(late.look_for_leader(first.epoch).await.unwrap(), Sight::Unknown);
}

/// On SQLite one process writes, one after the other.
pub async fn who_loads_again_can_wait_for_a_commit_that_is_still_on_its_way(place: Arc<Place>) {
    let store = place.open().await;
    store.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    store.settle().await.unwrap();
    if place.kind == DatabaseKind::Sqlite {
        return;
    }
    let mut late = sqlx::PgConnection::connect(&place.url).await.unwrap();
    let mut begun = late.begin().await.unwrap();
    let checks = "SELECT epoch FROM leadership FOR SHARE";
    sqlx::query(checks).execute(&mut *begun).await.unwrap();
    let mut settling = std::pin::pin!(store.settle());
    let moment = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(moment, &mut settling).await.is_err(), "it did not wait");
    begun.commit().await.unwrap();
    settling.await.unwrap();
}

pub async fn who_resigned_need_not_be_waited_for(place: Arc<Place>) {
    let store = place.open().await;
    let first = store.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    store.resign(first.epoch, at(1)).await.unwrap();
    let second = store.take_leadership("two", "two:1", at(1), LEASE_MS).await.unwrap();
    assert_eq!(second.epoch, Epoch(2));
    store.resign(first.epoch, at(2)).await.unwrap();
    assert_eq!(store.leadership().await.unwrap(), Some(second));
}

pub async fn an_overtaken_leader_writes_nothing(place: Arc<Place>) {
    let (old, new) = (place.open().await, place.open().await);
    let first = old.take_leadership("one", "one:1", at(0), LEASE_MS).await.unwrap();
    new.take_leadership("two", "two:1", at(10), LEASE_MS).await.unwrap();
    let changes = round(vec![submitted(plain_job(1)), job_event(1, 1)]);
    for attempt in [&changes, &Round::default()] {
        let refused = old.commit(first.epoch, at(11), attempt).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced { mine: Epoch(1), newer: Epoch(2) }));
    }
    assert_eq!(
        World::restore(new.load(HalfLife::default(), at(1)).await.unwrap(), at(1)),
        World::default()
    );
    assert!(new.events(0, None, 10).await.unwrap().is_empty());
}

pub async fn nobody_writes_before_there_is_a_leader(place: Arc<Place>) {
    let store = place.open().await;
    let refused = store.commit(Epoch(1), at(1), &round(vec![submitted(plain_job(1))])).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })));
    assert_eq!(store.count_jobs().await.unwrap().len(), 0);
}
