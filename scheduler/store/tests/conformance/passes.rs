//! By what order jobs started: written in the transaction of the starts, and read back to the last bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::change::{Change, PassRecord};
use gotgan_core::fairshare::{OrderRule, Part, Standing};
use gotgan_core::ids::{AttemptId, Epoch, GpuClass, JobId};
use gotgan_core::plan::{Blocker, BlockerKind, Unit};
use gotgan_core::precedence::{
    Guaranteed, LevelSheet, Own, PassSheet, Passed, Rank, Rung, Stage, StartTurn, Sums, Take,
};
use gotgan_store::{Round, StartRecord, StoreError};

use crate::harness::Place;
use crate::things::{Leader, at, attempt, inventory, path, plain_job, submitted};

fn class() -> GpuClass {
    GpuClass::new("b200").unwrap()
}

fn sums() -> Sums {
    Sums { rule: OrderRule::FairTree, used: u128::MAX, shares: 1 << 90 }
}

fn sheet() -> PassSheet {
    let standing = Standing { share: u32::MAX, used: u64::MAX, asked: Part::WHOLE };
    let (project, gpus) = (path("public/nup/a"), GpuMilli(2000));
    PassSheet {
        at: at(5),
        rule: OrderRule::FairTree,
        half_life_minutes: 20_160,
        always_s: 1_745_000,
        revision: 7,
        has_tiers: true,
        top: Some(path("public")),
        classes: vec![class()],
        levels: vec![LevelSheet {
            class: Some(class()),
            above: Some(path("public")),
            sums: sums(),
            nodes: BTreeMap::from([(path("public/nup"), standing)]),
        }],
        guaranteed: vec![Guaranteed {
            project: project.clone(),
            class: class(),
            guarantee: gpus,
            held: GpuMilli(1),
        }],
        takes: vec![Take { project, class: class(), gpus }],
        promised: vec![JobId(9)],
        passed: vec![Passed {
            job: JobId(2),
            cohort: true,
            reason: Blocker {
                kind: BlockerKind::Capacity,
                subject: "b200 \"\0 가".to_owned(),
                needed: 8,
                available: 0,
                limit: 8,
                unit: Unit::Nodes,
                note: String::new(),
            },
            planned: Some(at(90)),
        }],
        passed_more: 3,
    }
}

fn start(job: u64) -> StartTurn {
    let standing = Standing { share: 1, used: u64::MAX, asked: Part(3) };
    let rung =
        Rung { node: Some(path("public/nup")), class: Some(class()), standing, sums: sums() };
    let own =
        Own { priority: -3, queued: UnixMicros(-1), gpus: GpuMilli(u64::MAX), job: JobId(job) };
    let rank = Rank { stage: Stage::Borrowed, promised: true, rungs: vec![rung], own: Some(own) };
    StartTurn { job: JobId(job), rank, takes: 1 }
}

fn record(number: u64, job: u64) -> Change {
    let id = AttemptId { job: JobId(job), number: 1 };
    let (epoch, starts) = (Epoch(1), vec![(id, start(job))]);
    Change::PassRecorded(Arc::new(PassRecord { number, epoch, sheet: sheet(), starts }))
}

pub async fn a_start_is_read_back_with_what_its_pass_knew(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let node = Change::NodeRegistered(Arc::new(inventory("n1")));
    leader.commit(vec![node, submitted(plain_job(1)), submitted(plain_job(2))]).await;
    let mut changes = leader.lease(&attempt(1, 1, "n1", &[0, 1], 1000));
    changes.push(record(1, 1));
    leader.commit(changes).await;
    leader.assert_reloads().await;
    let (read, started) = (leader.store.clone(), AttemptId { job: JobId(1), number: 1 });
    let wanted = StartRecord { pass: 1, epoch: Epoch(1), sheet: sheet(), start: start(1) };
    assert_eq!(read.start_record(started).await.unwrap(), Some(wanted));
    let other = AttemptId { job: JobId(2), number: 1 };
    assert_eq!(read.start_record(other).await.unwrap(), None);
}

pub async fn a_record_without_its_start_is_refused(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(plain_job(1))]).await;
    let round = Round { changes: vec![record(1, 1)], ..Round::default() };
    let refused = leader.store.commit(Epoch(1), at(6), &round).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused:?}");
    leader.assert_reloads().await;
}
