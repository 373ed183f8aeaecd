//! Two schedulers: on one PostgreSQL one leads and the other stands by; on the same data there is but one.

use std::time::Instant;

use gotgan_proto::v1::{JobState, NodeLiveness};
use gotgan_proto::{LEADER_ADDRESS, NOT_LEADER};
use gotgan_tests::api::{Api, channel, told};
use gotgan_tests::cluster::{QUICK_TO_GIVE_UP, SchedulerProcess};
use gotgan_tests::jobs::{ALPHA, Shape, command, shell};
use gotgan_tests::virtual_worker::{Journal, Script, VirtualWorker, inventory};
use gotgan_tests::{Cluster, Database, audit, deadline};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

/// Lease of a leader with the settings used here.
const LEASE_US: i64 = 1_500_000;

on_each_database! {
    a_second_scheduler_on_the_same_data_is_refused,
    after_a_restart_jobs_start_where_nodes_have_reported_and_keep_the_places_of_others,
    a_leader_that_was_paused_past_its_lease_leads_on_if_nobody_took_it,
}

/// Nodes are awaited for as long as a test can take.
const PATIENT: &str = "[timing]\nquorum_grace_ms = 600000\n";

async fn after_a_restart_jobs_start_where_nodes_have_reported_and_keep_the_places_of_others(
    database: Database,
) {
    let mut cluster = Cluster::builder(database).settings(PATIENT).start().await;
    let mut nodes = Vec::new();
    for number in 0..4 {
        let name = format!("v{number}");
        nodes.push(cluster.add_virtual(&name, "b200", 1, Script::forever()).await);
    }
    let running = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_state(running, JobState::Running).await;
    nodes.iter_mut().for_each(VirtualWorker::cut);
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let gang = cluster.api.submit(command(&["/bin/true"]).nodes(3).gpus(1)).await;
    nodes[1].connect();
    cluster.api.wait_for_node("v1", NodeLiveness::Ready).await;
    let behind = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    deadline::until("the gang to wait for nodes", async || {
        let told = cluster.api.explain(gang).await.map_err(|status| told(&status))?.summary;
        if told.contains("v2, v3 (not heard since") { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(cluster.api.job(behind).await.state(), JobState::Pending);
    cluster.api.jobs().cancel(Api::action(gang, "")).await.expect("it waits");
    // Nobody else has a claim to the one node that is there.
    cluster.api.wait_for_state(behind, JobState::Running).await;
    for place in [0, 2, 3] {
        nodes[place].connect();
    }
    let still = cluster.api.wait_for_state(running, JobState::Running).await;
    assert_eq!(still.attempt, 1, "{still:?}");
}

async fn a_second_scheduler_on_the_same_data_is_refused(database: Database) {
    let cluster = Cluster::start(database).await;
    let mut rival = cluster.start_rival_scheduler();
    let status = rival.wait_until_ready().expect_err("it must not serve");
    assert!(!status.success());
    let said = rival.output();
    assert!(said.contains("another scheduler"), "it says why:\n{said}");
    cluster.api.submit(command(&["/bin/true"])).await;
}

async fn a_leader_that_was_paused_past_its_lease_leads_on_if_nobody_took_it(database: Database) {
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    let before = cluster.api.status().await.unwrap();
    cluster.scheduler.pause();
    more_than_a_lease().await;
    cluster.scheduler.resume();
    more_than_a_lease().await;
    assert_eq!(cluster.scheduler.ended(), None, "{}", cluster.scheduler.output());
    assert_eq!(cluster.api.status().await.unwrap().epoch, before.epoch);
    cluster.api.submit(command(&["/bin/true"])).await;
}

async fn more_than_a_lease() {
    let began = Instant::now();
    deadline::until("a lease to run out", async || {
        let passed_us = began.elapsed().as_micros();
        if passed_us > LEASE_US.unsigned_abs().into() {
            Ok(())
        } else {
            Err(format!("{passed_us} us"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_scheduler_stands_by_and_takes_over_from_a_dead_leader() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    let link = cluster.link("v0").await;
    let journal = Journal::new(inventory("v0", "b200", 2), Script::forever());
    let mut node = VirtualWorker::start(link.clone(), journal);
    cluster.api.wait_for_node("v0", NodeLiveness::Ready).await;
    let running = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_state(running, JobState::Running).await;
    let before = cluster.api.status().await.unwrap();

    let mut second = cluster.start_second_scheduler();
    // Longer than the lease: the leader has renewed it meanwhile.
    let renewed_us = before.started_us + 3 * LEASE_US;
    deadline::until("the leader to lead on", async || {
        let node = cluster.api.try_node("v0").await.map_err(|status| told(&status))?;
        if node.last_heartbeat_us > renewed_us { Ok(()) } else { Err("too early".to_owned()) }
    })
    .await;
    assert!(!second.is_ready(), "two lead");
    cluster.scheduler.kill();
    second.wait_until_ready().expect("it takes over");
    let line = channel(&second.url(), Some(&cluster.scheduler.ca_pem()));
    let api = Api::new(line, Some(&cluster.scheduler.admin_token()));
    let after = deadline::until("the second to lead", async || {
        api.status().await.map_err(|status| told(&status))
    })
    .await;
    assert!(after.epoch > before.epoch, "{before:?} {after:?}");

    node.reconnect_to(&link.at(&second.url()));
    api.wait_for_node("v0", NodeLiveness::Ready).await;
    let job = api.job(running).await;
    assert_eq!((job.state(), job.attempt), (JobState::Running, 1), "it has not noticed: {job:?}");
    let fresh = api.submit(command(&["/bin/true"]).gpus(1)).await;
    api.wait_for_state(fresh, JobState::Running).await;
    for job in [running, fresh] {
        api.jobs().cancel(Api::action(job, "")).await.unwrap();
        api.wait_for_state(job, JobState::Cancelled).await;
    }
    audit::runs(&node.runs());
    audit::ledger(&api).await;
}

/// What a balancer is told of the scheduler's services.
/// Nobody waits for this in a test.
const LEASE_OF_AN_HOUR: &str = "[timing]\nleader_lease_ms = 3600000\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_does_not_wait_for_the_lease_of_a_leader_whose_process_has_ended() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(LEASE_OF_AN_HOUR).start().await;
    let acknowledged = cluster.api.submit(command(&["/bin/true"]).held()).await;
    let mut second = cluster.start_second_scheduler();
    second.wait_until_standby();
    let line = channel(&second.url(), Some(&cluster.scheduler.ca_pem()));
    let api = Api::new(line, Some(&cluster.scheduler.admin_token()));
    let refused = api.status().await.expect_err("it stands by");
    assert_eq!(refused.get_details_error_info().expect("details").reason, NOT_LEADER);
    cluster.scheduler.kill();
    second.wait_until_ready().expect("it takes over");
    assert_eq!(api.job(acknowledged).await.state(), JobState::Held);
}

async fn health(scheduler: &SchedulerProcess, ca_pem: &str, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(channel(&scheduler.url(), Some(ca_pem)));
    let request = HealthCheckRequest { service: service.to_owned() };
    client.check(request).await.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_names_the_leader_to_clients_and_says_to_balancers_that_it_does_not_serve() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    let mut second = cluster.add_standby();
    let ca = cluster.scheduler.ca_pem();
    for service in ["", "gotgan.v1.Jobs"] {
        assert_eq!(health(&second, &ca, service).await, ServingStatus::NotServing);
        assert_eq!(health(&cluster.scheduler, &ca, service).await, ServingStatus::Serving);
    }
    let aside = Api::new(channel(&second.url(), Some(&ca)), Some(&cluster.scheduler.admin_token()));
    let refused = aside.status().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, NOT_LEADER);
    assert_eq!(info.metadata[LEADER_ADDRESS], cluster.scheduler.url());

    // Told of the standby alone, people and nodes come to the leader.
    let only_second = cluster.gotgan().with("GOTGAN_SERVER", &second.url());
    only_second.run(&["admin", "join-token"]).ok();
    let told_wrongly = cluster.link("v0").await.at(&second.url());
    let refused = told_wrongly.register(Default::default()).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().reason, NOT_LEADER);

    assert_eq!(cluster.scheduler.terminate().code(), Some(0));
    second.wait_until_ready().expect("it leads");
    assert_eq!(health(&second, &ca, "gotgan.v1.Jobs").await, ServingStatus::Serving);
    aside.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_on_and_everybody_finds_the_leader_after_the_first_was_killed() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    let mut second = cluster.add_standby();
    for node in ["node-a", "node-b"] {
        cluster.add_worker(node, "2xB200").await;
    }
    let release = cluster.directory().join("release");
    let line = format!("echo begun; until [ -e {} ]; do sleep 0.1; done", release.display());
    let running = cluster.api.submit(shell(&line).gpus(1)).await;
    cluster.api.wait_for_state(running, JobState::Running).await;
    let acknowledged = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;

    cluster.scheduler.kill();
    let submit = |key: &str| {
        let words = ["submit", "--project", ALPHA, "--gpus", "1", "--idempotency-key", key];
        let words = [&words[..], &["--json", "--", "/bin/true"]].concat();
        cluster.gotgan().run(&words).json()["job_id"].as_u64().unwrap()
    };
    // Nobody leads yet; the command waits until somebody does.
    let fresh = submit("over-the-edge");
    assert_eq!(submit("over-the-edge"), fresh, "the same key is the same job");
    second.wait_until_ready().expect("it takes over");
    let line = channel(&second.url(), Some(&cluster.scheduler.ca_pem()));
    let api = Api::new(line, Some(&cluster.scheduler.admin_token()));
    assert_eq!(api.wait_for_end(fresh).await.state(), JobState::Completed);
    let still = api.job(running).await;
    assert_eq!((still.state(), still.attempt), (JobState::Running, 1), "{still:?}");
    std::fs::write(&release, "").unwrap();
    for job in [running, acknowledged] {
        let ended = api.wait_for_end(job).await;
        assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 1), "{ended:?}");
    }
    assert_eq!(api.output(running, 0, 0).await, "begun\n", "it was begun once");
    assert_eq!(api.all_jobs().await.len(), 3);
    audit::ledger(&api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_past_its_lease_stores_nothing_and_steps_down() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    let mut second = cluster.add_standby();
    let link = cluster.link("v0").await;
    let journal = Journal::new(inventory("v0", "b200", 2), Script::forever());
    let mut node = VirtualWorker::start(link.clone(), journal);
    cluster.api.wait_for_node("v0", NodeLiveness::Ready).await;
    let running = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_state(running, JobState::Running).await;

    cluster.scheduler.pause();
    second.wait_until_ready().expect("it takes over");
    let line = channel(&second.url(), Some(&cluster.scheduler.ca_pem()));
    let api = Api::new(line, Some(&cluster.scheduler.admin_token()));
    node.reconnect_to(&link.at(&second.url()));
    api.wait_for_node("v0", NodeLiveness::Ready).await;
    let fresh = api.submit(command(&["/bin/true"]).gpus(1)).await;
    api.wait_for_state(fresh, JobState::Running).await;

    cluster.scheduler.resume();
    let late = cluster.api.try_submit(command(&["/bin/true"]).gpus(1)).await;
    assert!(late.is_err(), "a leader of old acknowledged job {late:?}");
    let ended = deadline::until("the leader of old to step down", async || {
        cluster.scheduler.ended().ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(
        ended.await.code(),
        Some(3),
        "so that whoever keeps it starts it again, to stand by"
    );
    let known: Vec<u64> = api.all_jobs().await.iter().map(|job| job.job_id).collect();
    assert_eq!(known, [fresh, running], "nothing of it was stored");
    for job in [running, fresh] {
        api.jobs().cancel(Api::action(job, "")).await.unwrap();
        api.wait_for_state(job, JobState::Cancelled).await;
    }
    audit::runs(&node.runs());
    audit::ledger(&api).await;
}
