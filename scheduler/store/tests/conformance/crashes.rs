//! What is left when something ends at a bad moment.

use std::sync::Arc;
use std::time::Duration;

use gotgan_core::change::Change;
use gotgan_core::fairshare::HalfLife;
use gotgan_core::world::World;
use gotgan_store::{DatabaseKind, StoreError};
use sqlx::Connection;

use crate::harness::Place;
use crate::things::{Leader, at, attempt, inventory, job_event, plain_job, round, step, submitted};

pub async fn reopening_keeps_everything(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader
        .commit(vec![
            Change::NodeRegistered(Arc::new(inventory("n1"))),
            submitted(plain_job(1)),
            Change::AttemptLeased(Arc::new(attempt(1, 1, "n1", &[0], 1000))),
            Change::StepCreated(Arc::new(step(1, 1, 0, 2))),
            job_event(1, 1),
        ])
        .await;
    leader.store = place.open().await;
    leader.assert_reloads().await;
    assert_eq!(leader.store.leadership().await.unwrap().unwrap().epoch, leader.epoch);
    leader.commit(vec![submitted(plain_job(2))]).await;
}

pub async fn a_commit_that_is_dropped_half_way_leaves_all_or_nothing(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(plain_job(1))]).await;
    for turn in 0..30_u64 {
        let next =
            World::restore(leader.store.load(HalfLife::default(), at(1)).await.unwrap(), at(1))
                .sequences
                .next_job;
        let round = round((next..next + 5).map(|id| submitted(plain_job(id))).collect());
        let commit = leader.store.commit(leader.epoch, at(5), &round);
        let patience = Duration::from_micros(turn * 40);
        let _dropped = tokio::time::timeout(patience, commit).await;
        // The next write finds the connection in order, whatever became of the one before.
        leader.store.renew_leadership(leader.epoch, at(6), 1000).await.unwrap();
        let after =
            World::restore(leader.store.load(HalfLife::default(), at(1)).await.unwrap(), at(1))
                .sequences
                .next_job;
        assert!(after == next || after == next + 5, "{next} became {after}");
    }
}

pub async fn many_writers_at_once_all_get_through(place: Arc<Place>) {
    let leader = Leader::at(&place).await;
    let mut writers = tokio::task::JoinSet::new();
    for id in 1..=40 {
        let (store, epoch) = (Arc::clone(&leader.store), leader.epoch);
        writers.spawn(async move {
            store.commit(epoch, at(5), &round(vec![submitted(plain_job(id))])).await.unwrap();
            store.job(gotgan_core::ids::JobId(id)).await.unwrap().unwrap();
        });
    }
    writers.join_all().await;
    assert_eq!(leader.store.load(HalfLife::default(), at(1)).await.unwrap().jobs.len(), 40);
}

/// Another process of the same leader dies between its statements and its commit.
pub async fn a_transaction_killed_before_its_commit_leaves_nothing(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(plain_job(1))]).await;
    const STATEMENT: &str = "UPDATE jobs SET state = 'failed' WHERE id = 1";
    match place.kind {
        DatabaseKind::Sqlite => {
            let mut other = sqlx::SqliteConnection::connect(&place.url).await.unwrap();
            let mut transaction = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
            sqlx::query(STATEMENT).execute(&mut *transaction).await.unwrap();
        }
        DatabaseKind::Postgres => {
            let mut other = sqlx::PgConnection::connect(&place.url).await.unwrap();
            let mut transaction = other.begin_with("BEGIN").await.unwrap();
            sqlx::query(STATEMENT).execute(&mut *transaction).await.unwrap();
        }
    }
    let taken = leader.store.take_leadership("two", "two", at(1), 1000).await;
    assert!(matches!(taken, Err(StoreError::LedByAnother(_))));
    leader.assert_reloads().await;
}
