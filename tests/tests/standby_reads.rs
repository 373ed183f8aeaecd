//! What a scheduler that stands by answers to who takes an answer that may be stale.

use gotgan_proto::v1::{self, JobState, Role};
use gotgan_proto::{NOT_LEADER, STALE_MS};
use gotgan_tests::api::{Api, channel, fresh_key, told};
use gotgan_tests::jobs::{ALPHA, BETA, Shape, command, shell};
use gotgan_tests::{Cluster, Database, deadline};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

/// Nobody waits for this in a test: who leads is settled until somebody stops.
const LEASE_OF_AN_HOUR: &str =
    "[timing]\nleader_lease_ms = 3600000\n[server]\nwatch_leader_session = false\n";

/// Whether the standby sent this to the leader.
fn is_sent_on<T>(answer: Result<Response<T>, Status>) -> bool {
    let details = answer.err().and_then(|status| status.get_details_error_info());
    details.is_some_and(|info| info.reason == NOT_LEADER)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_answers_what_may_be_stale_and_sends_all_else_to_the_leader() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(LEASE_OF_AN_HOUR).start().await;
    cluster.add_worker("node-a", "2xB200").await;
    let second = cluster.add_standby();
    let ended = cluster.api.submit(shell("true").gpus(1)).await;
    let leaders = cluster.api.wait_for_end(ended).await;
    let strict = Api::new(
        channel(&second.url(), Some(&cluster.scheduler.ca_pem())),
        Some(&cluster.scheduler.admin_token()),
    );
    let stale = strict.stale();

    let by_id = |job_id| v1::GetJobRequest { job_id };
    assert!(is_sent_on(strict.jobs().get(by_id(ended)).await), "nobody asked for less");
    let answer = stale.jobs().get(by_id(ended)).await.unwrap();
    let age_ms: u64 = answer.metadata().get(STALE_MS).unwrap().to_str().unwrap().parse().unwrap();
    assert!(age_ms < 30_000, "{age_ms}");
    assert_eq!(answer.into_inner(), leaders, "that it was simulated included");
    let fresh = cluster.api.submit(command(&["/bin/true"]).held()).await;
    assert_eq!(stale.job(fresh).await.state(), JobState::Held, "what is acknowledged is seen");
    assert_eq!(stale.all_jobs().await.len(), 2);
    let ours = cluster.api.quota().get(v1::GetQuotaRequest::default()).await.unwrap().into_inner();
    let theirs = stale.quota().get(v1::GetQuotaRequest::default()).await.unwrap().into_inner();
    assert_eq!(theirs.revision, ours.revision);
    let balance = stale.quota().balance(v1::BalanceRequest::default()).await.unwrap();
    assert!(balance.metadata().contains_key(STALE_MS));

    // What nodes said last a leader alone knows; and nothing is written here.
    assert!(is_sent_on(stale.nodes().list(v1::ListNodesRequest::default()).await));
    assert!(is_sent_on(stale.cluster().status(v1::StatusRequest {}).await));
    assert!(is_sent_on(stale.jobs().release(Api::action(fresh, "")).await));
    assert!(is_sent_on(
        stale.with_token("gotgan_none_none").stale().jobs().get(by_id(fresh)).await
    ));

    // Even with the leader away.
    cluster.scheduler.pause();
    assert_eq!(stale.job(ended).await.state(), JobState::Completed);
    cluster.scheduler.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_shows_nobody_more_than_the_leader_does() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(LEASE_OF_AN_HOUR).start().await;
    let second = cluster.add_standby();
    let line = channel(&second.url(), Some(&cluster.scheduler.ca_pem()));
    let job = cluster.api.submit(command(&["/bin/true"]).held()).await;
    let made = cluster.api.create_token("reader", Role::Member, &[ALPHA], 0).await;
    let reader = Api::new(line, Some(&made.token)).stale();
    let stranger = cluster.api.create_token("stranger", Role::Member, &[BETA], 0).await;
    let stranger = reader.with_token(&stranger.token).stale();
    let by_id = v1::GetJobRequest { job_id: job };
    deadline::until("the standby to have read the tokens", async || {
        reader.jobs().get(by_id).await.map(drop).map_err(|status| told(&status))
    })
    .await;
    let refused = stranger.jobs().get(by_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");

    let revoke = v1::RevokeTokenRequest { idempotency_key: fresh_key(), token_id: made.token_id };
    cluster.api.cluster().revoke_token(revoke).await.unwrap();
    deadline::until("the revoked token to be refused", async || {
        let answer = reader.jobs().get(by_id).await;
        if is_sent_on(answer) { Ok(()) } else { Err("still answered".to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_takes_a_standbys_answer_if_told_so_and_says_how_old_it_may_be() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(LEASE_OF_AN_HOUR).start().await;
    let second = cluster.add_standby();
    let job = cluster.api.submit(command(&["/bin/true"]).held()).await.to_string();
    let gotgan = cluster.gotgan().with("GOTGAN_SERVER", &second.url());
    let ran = gotgan.run(&["job", &job, "--stale"]);
    assert!(ran.stderr.contains("a standby answered; some of it may be"), "{ran:?}");
    assert!(ran.ok().contains("held"));
    // The same flag on what only the leader does is no obstacle.
    let ran = gotgan.run(&["release", &job, "--stale"]);
    assert!(!ran.stderr.contains("a standby answered"), "{ran:?}");
    ran.ok();
}
