//! Backups: what is written, what is restored, and what is found when rows were tampered with.

use std::sync::Arc;

use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::Cause;
use gotgan_core::change::{Change, EventKind, Subject};
use gotgan_core::fairshare::HalfLife;
use gotgan_core::ids::JobId;
use gotgan_core::job::{JobState, JobStatus};
use gotgan_core::world::World;
use gotgan_store::backup::{self, BackupError, EPOCHS_SKIPPED, JOBS_SKIPPED, Summary};
use gotgan_store::{DatabaseKind, Store, open, open_as_it_is};

use crate::audit::{Office, TREE};
use crate::harness::{Place, on_sqlite};
use crate::things::{
    at, attempt, ended, event, inventory, job_event, plain_job, status, submitted,
};

/// A place with something in every table that a world is rebuilt from: jobs, attempts that live and that ended, their
/// lines, nodes, quota with its chain.
async fn lived_in(place: &Place) -> Office {
    let mut office = Office::at(place).await;
    let (_, tree) = TREE.split_once('\n').unwrap();
    office.apply(tree).await;
    office.apply(&tree.replace("b200 = 4", "b200 = 9")).await;
    let leader = &mut office.leader;
    let mut round = vec![Change::NodeRegistered(Arc::new(inventory("n1")))];
    round.extend((1..=3).map(|id| submitted(plain_job(id))));
    round.extend((1..=3).map(|id| job_event(id + 10, id)));
    round.push(event(14, Subject::Quota, EventKind::QuotaApplied, "\"곳간\"\n\\u0000 {[1]}"));
    leader.commit(round).await;
    for (job, gpu) in [(1, 0), (2, 1)] {
        let lease = leader.lease(&attempt(job, 1, "n1", &[gpu], 1000));
        leader.commit(lease).await;
        leader.commit(vec![in_attempt(job, JobState::Starting)]).await;
    }
    let end = leader.end(&ended(attempt(1, 1, "n1", &[0], 1000), 40, Cause::User));
    leader.commit(end).await;
    leader.commit(vec![in_attempt(1, JobState::Failed)]).await;
    office
}

fn in_attempt(job: u64, state: JobState) -> Change {
    let status = JobStatus { attempt: 1, ..status(state) };
    Change::JobMoved { id: JobId(job), status: Arc::new(status) }
}

async fn backed_up(url: &str) -> (Vec<u8>, Summary) {
    let mut out = Vec::new();
    let summary = backup::backup(url, at(77), &mut out).await.unwrap();
    (out, summary)
}

async fn restored(url: &str, mut bytes: &[u8]) -> Result<Summary, BackupError> {
    backup::restore(url, &mut bytes).await
}

async fn world(store: &dyn Store) -> World {
    World::restore(store.load(HalfLife::default(), at(90)).await.unwrap(), at(90))
}

/// Rows of a backup without those that a restore changes, in an order of their own: databases keep and space them as they
/// like.
fn rows(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    let all = text.lines().filter(|line| line.starts_with('['));
    let kept = all.filter(|row| !row.contains("localhost:") && !row.contains("jobs_skipped_until"));
    let plain = |row: &str| serde_json::from_str::<serde_json::Value>(row).unwrap().to_string();
    let mut rows: Vec<String> = kept.map(plain).collect();
    rows.sort_unstable();
    rows
}

async fn compare(from: &Place, to: &Place) {
    let office = lived_in(from).await;
    let (bytes, summary) = backed_up(&from.url).await;
    assert_eq!(restored(&to.url, &bytes).await.unwrap(), summary);
    let store = open(&to.url).await.unwrap();

    let (before, mut after) = (world(&*office.leader.store).await, world(&*store).await);
    assert_eq!(after.sequences.next_job, before.sequences.next_job + JOBS_SKIPPED);
    after.sequences = before.sequences;
    assert_eq!(after, before);
    let found = store.verify().await.unwrap();
    assert_eq!(found.differences, Vec::<String>::new());
    assert_eq!((found.attempts, found.live_attempts, found.gpus), (2, 1, 1));
    assert!(found.audit_entries > 0 && found.revisions == 2, "{found:?}");

    let taken = store.take_leadership("two", "localhost:2", at(1), 1000).await.unwrap();
    assert_eq!(taken.epoch.0, office.leader.epoch.0 + EPOCHS_SKIPPED + 1, "no worker has seen it");
    let (again, _) = backed_up(&to.url).await;
    assert_eq!(rows(&again), rows(&bytes));
}

pub async fn a_backup_restores_on_sqlite(place: Arc<Place>) {
    on_sqlite(|to| async move { compare(&place, &to).await }).await;
}

pub async fn a_backup_of_sqlite_restores_here(place: Arc<Place>) {
    on_sqlite(|from| async move { compare(&from, &place).await }).await;
}

pub async fn nothing_is_restored_over_what_is_there(place: Arc<Place>) {
    drop(lived_in(&place).await);
    let (bytes, _) = backed_up(&place.url).await;
    let refused = restored(&place.url, &bytes).await.unwrap_err();
    assert!(matches!(refused, BackupError::InUse { .. }), "{refused:?}");
    let (same, _) = backed_up(&place.url).await;
    assert_eq!(rows(&same), rows(&bytes));
}

pub async fn a_backup_that_was_cut_off_leaves_nothing_and_the_whole_one_goes_in_after(
    place: Arc<Place>,
) {
    on_sqlite(|from| async move {
        drop(lived_in(&from).await);
        let (bytes, summary) = backed_up(&from.url).await;
        let cut = bytes.len() * 3 / 4;
        let refused = restored(&place.url, &bytes[..cut]).await.unwrap_err();
        assert!(matches!(refused, BackupError::File(_)), "{refused:?}");
        let mut changed = bytes.clone();
        let place_of = |word: &[u8]| bytes.windows(word.len()).position(|at| at == word).unwrap();
        changed[place_of(b"purchase") + 1] = b'k';
        let refused = restored(&place.url, &changed).await.unwrap_err();
        assert!(refused.to_string().contains("was changed"), "{refused}");
        assert_eq!(restored(&place.url, &bytes).await.unwrap(), summary);
    })
    .await;
}

pub async fn a_database_that_no_scheduler_has_used_is_not_backed_up(place: Arc<Place>) {
    let mut out = Vec::new();
    let refused = backup::backup(&place.url, UnixMicros(0), &mut out).await.unwrap_err();
    match place.kind {
        // There is no file.
        DatabaseKind::Sqlite => assert!(matches!(refused, BackupError::Store(_)), "{refused:?}"),
        DatabaseKind::Postgres => assert!(matches!(refused, BackupError::Nothing), "{refused:?}"),
    }
    assert!(open_as_it_is(&place.url).await.is_err());
    assert_eq!(out, b"");
}

/// What was done to the rows, how it is undone, and a word of what is found.
const TAMPERED: [(&str, &str, &str); 8] = [
    (
        "UPDATE ledger SET amount = amount + 1 WHERE seq = 1",
        "UPDATE ledger SET amount = amount - 1 WHERE seq = 1",
        "ledger: attempt 1.1",
    ),
    (
        "UPDATE ledger SET project = project || 'x' WHERE kind = 'charge'",
        "UPDATE ledger SET project = substr(project, 1, length(project) - 1) WHERE kind = 'charge'",
        "nothing accounts for the charge",
    ),
    (
        "UPDATE gpu_occupancy SET used_milli = 500 WHERE used_milli = 1000",
        "UPDATE gpu_occupancy SET used_milli = 1000 WHERE used_milli = 500",
        "by 500 thousandths, and attempts hold 1000",
    ),
    (
        "UPDATE gpu_occupancy SET node = 'n9' WHERE used_milli = 1000",
        "UPDATE gpu_occupancy SET node = 'n1' WHERE used_milli = 1000",
        "of n9",
    ),
    (
        "UPDATE jobs SET state = 'completed' WHERE id = 2",
        "UPDATE jobs SET state = 'starting' WHERE id = 2",
        "attempt 2.1 holds GPUs and its job has ended",
    ),
    (
        "UPDATE quota_audit SET body = replace(body, 'purchase', 'present')",
        "UPDATE quota_audit SET body = replace(body, 'present', 'purchase')",
        "audit chain: entry 1 was altered",
    ),
    (
        "UPDATE quota SET tree = replace(tree, '9000', '9001') WHERE revision = 2",
        "UPDATE quota SET tree = replace(tree, '9001', '9000') WHERE revision = 2",
        "quota: revision 2",
    ),
    (
        "UPDATE quota_audit SET seq = seq + 100 WHERE seq = 2",
        "UPDATE quota_audit SET seq = seq - 100 WHERE seq = 102",
        "audit chain: entry 2 is missing",
    ),
];

pub async fn every_row_that_was_tampered_with_is_found(place: Arc<Place>) {
    drop(lived_in(&place).await);
    let store = open_as_it_is(&place.url).await.unwrap();
    assert_eq!(store.verify().await.unwrap().differences, Vec::<String>::new());
    for (change, back, says) in TAMPERED {
        assert!(place.execute(change).await > 0, "{change}");
        let found = store.verify().await.unwrap().differences;
        assert!(found.iter().any(|line| line.contains(says)), "{change}: {found:#?}");
        assert!(place.execute(back).await > 0, "{back}");
        assert_eq!(store.verify().await.unwrap().differences, Vec::<String>::new(), "{back}");
    }
}
