//! Backups of a scheduler at work, and what becomes of them elsewhere.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gotgan_proto::v1::{ExitStatus, JobState, NodeLiveness};
use gotgan_tests::api::{Api, channel};
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::{Journal, Play, Script, VirtualWorker, inventory};
use gotgan_tests::{Cluster, Database, audit, deadline, programs};
use sqlx::Connection;

/// Above every number of the backup.
const SKIPPED: u64 = 1_000_000;
/// Jobs acknowledged before the backup begins, and while it is made.
const BEFORE: usize = 30;

on_each_database! {
    a_backup_of_a_scheduler_at_work_goes_on_in_the_other_database,
    what_was_tampered_with_is_named_and_nothing_is_written_over,
}

/// `gotgan-scheduler` with these words: its exit code and what it said.
fn custody(database: &str, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(programs::path("gotgan-scheduler"));
    let ran = command.args(["--database", database]).args(words).output().unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn database_of(cluster: &Cluster) -> String {
    let file = cluster.scheduler.directory().join("gotgan.db");
    cluster.database().url().unwrap_or_else(|| sqlite(&file))
}

fn sqlite(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

fn short() -> Script {
    Script::by(|_| Play::Run(Duration::from_millis(20), ExitStatus::default()))
}

async fn a_backup_of_a_scheduler_at_work_goes_on_in_the_other_database(database: Database) {
    let other = match &database {
        Database::Sqlite => Database::postgres().await,
        Database::Postgres(_) => Some(Database::Sqlite),
    };
    let Some(other) = other else { return };
    let cluster = Cluster::start(database).await;
    let link = cluster.link("v0").await;
    let journal = Journal::new(inventory("v0", "b200", 8), short());
    let mut node = VirtualWorker::start(link.clone(), journal);
    cluster.api.wait_for_node("v0", NodeLiveness::Ready).await;
    let mut known = Vec::new();
    for _ in 0..BEFORE {
        known.push(cluster.api.submit(command(&["/bin/true"]).gpus(1)).await);
    }
    let over = Arc::new(AtomicBool::new(false));
    let (api, stop) = (cluster.api.clone(), Arc::clone(&over));
    let load = tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            api.submit(command(&["/bin/true"]).gpus(1)).await;
        }
    });

    let scratch = cluster.scratch("backup");
    let file = scratch.join("one.jsonl").display().to_string();
    let (code, said) = custody(&database_of(&cluster), &["backup", &file]);
    over.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = custody(&database_of(&cluster), &["verify"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = custody("sqlite:///nowhere", &["verify", &file]);
    assert_eq!(code, Some(0), "of the backup alone: {said}");

    let elsewhere = other.url().unwrap_or_else(|| sqlite(&scratch.join("new.db")));
    let (code, said) = custody(&elsewhere, &["restore", &file]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all agrees"), "{said}");
    let scheduler = cluster.start_scheduler_on(&elsewhere);
    let line = channel(&scheduler.url(), Some(&cluster.scheduler.ca_pem()));
    let api = Api::new(line, Some(&cluster.scheduler.admin_token()));
    node.reconnect_to(&link.at(&scheduler.url()));
    api.wait_for_node("v0", NodeLiveness::Ready).await;
    let fresh = api.submit(command(&["/bin/true"]).gpus(1)).await;
    assert!(fresh > SKIPPED, "{fresh}");
    assert_eq!(api.wait_for_end(fresh).await.state(), JobState::Completed);
    for job in known {
        assert_eq!(api.wait_for_end(job).await.state(), JobState::Completed, "job {job}");
    }
    deadline::until("the restored queue to be done", async || {
        let status = api.status().await.map_err(|status| status.to_string())?;
        let left = status.jobs_pending + status.jobs_starting + status.jobs_running;
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await;
    audit::ledger(&api).await;
}

async fn what_was_tampered_with_is_named_and_nothing_is_written_over(database: Database) {
    let cluster = Cluster::start(database).await;
    let node = cluster.add_virtual("v0", "b200", 1, short()).await;
    let job = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_end(job).await;
    drop(node);
    let scratch = cluster.scratch("backup");
    let file = scratch.join("one.jsonl").display().to_string();
    let backup = ["backup", &file];
    let gotgan = cluster.gotgan();
    let (from, data) = (database_of(&cluster), scratch.display().to_string());
    let words = ["admin", "backup", "--database", &from, "--data-dir", &data, &file];
    gotgan.run(&words).ok();
    let (code, said) = custody(&from, &backup);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is there already"), "{said}");
    let (code, said) = custody(&from, &["restore", &file]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the database is in use"), "{said}");

    let copy = scratch.join("copy.db");
    let (code, said) = custody(&sqlite(&copy), &["restore", &file]);
    assert_eq!(code, Some(0), "{said}");
    let mut connection = sqlx::SqliteConnection::connect(&sqlite(&copy)).await.unwrap();
    sqlx::query("UPDATE quota SET tree = replace(tree, 'alpha', 'alphb')")
        .execute(&mut connection)
        .await
        .unwrap();
    let (code, said) = custody(&sqlite(&copy), &["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("differs: quota: revision 1"), "{said}");

    let changed = std::fs::read_to_string(&file).unwrap().replace("alpha", "alphb");
    let bad = scratch.join("bad.jsonl");
    std::fs::write(&bad, changed).unwrap();
    let (code, said) = custody(&from, &["verify", &bad.display().to_string()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the backup was changed"), "{said}");
}
