//! Who is let in and who is not: tokens that do not count any more, other people's jobs, workers that are not ours.

use std::time::Duration;

use futures::StreamExt;
use gotgan_proto::v1::{self, JobState, NodeLiveness, Role};
use gotgan_tests::api::{fresh_key, told};
use gotgan_tests::cluster::QUICK_TO_GIVE_UP;
use gotgan_tests::jobs::{ALPHA, BETA, Shape, command};
use gotgan_tests::torment::certificates::{Authority, Life, Rejoining};
use gotgan_tests::virtual_worker::link::CertificateRequest;
use gotgan_tests::virtual_worker::{Link, Script, inventory};
use gotgan_tests::{Api, Cluster, Database, deadline};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::{Code, Status};
use tonic_types::StatusExt;

on_each_database! {
    a_token_that_does_not_count_is_refused_with_the_reason,
    a_member_touches_only_the_jobs_of_its_projects,
    a_join_token_makes_one_node_once,
    a_worker_with_a_foreign_certificate_is_not_let_in,
    a_worker_is_the_node_of_its_certificate_and_no_other,
    the_token_of_a_job_is_for_that_job_alone,
    a_worker_whose_certificate_ran_out_comes_back_by_joining_again_without_a_restart,
    a_worker_renews_its_certificate_and_comes_back_with_the_new_one,
    only_a_node_that_is_registered_is_given_another_certificate,
}

fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info();
    (status.code(), info.map(|info| info.reason).unwrap_or_default())
}

async fn refusal(api: &Api) -> (Code, String) {
    reason(&api.status().await.expect_err("a call that is not let in"))
}

async fn a_token_that_does_not_count_is_refused_with_the_reason(database: Database) {
    let mut cluster = Cluster::start(database).await;
    let api = cluster.api.clone();
    let expected = |word: &str| (Code::Unauthenticated, word.to_owned());
    assert_eq!(refusal(&api.without_token()).await, expected("TOKEN_MISSING"));
    assert_eq!(refusal(&api.with_token("nonsense")).await, expected("TOKEN_MALFORMED"));

    let made = api.create_token("visitor", Role::Member, &[ALPHA], 0).await;
    let visitor = api.with_token(&made.token);
    visitor.status().await.expect("the token counts");
    let (start, end) = made.token.split_at(made.token.len() - 1);
    let other = if end == "0" { "1" } else { "0" };
    assert_eq!(
        refusal(&api.with_token(&format!("{start}{other}"))).await,
        expected("TOKEN_UNKNOWN")
    );

    let token_id = made.token_id.clone();
    let revoke = v1::RevokeTokenRequest { idempotency_key: fresh_key(), token_id };
    assert!(api.cluster().revoke_token(revoke).await.unwrap().into_inner().changed);
    assert_eq!(refusal(&visitor).await, expected("TOKEN_REVOKED"));

    let brief = api.create_token("guest", Role::Member, &[ALPHA], 1).await;
    let guest = api.with_token(&brief.token);
    deadline::until("the token to expire", async || match guest.status().await {
        Ok(_) => Err("it counts".to_owned()),
        Err(status) => {
            assert_eq!(reason(&status), expected("TOKEN_EXPIRED"));
            Ok(())
        }
    })
    .await;

    cluster.scheduler.kill();
    cluster.scheduler.start();
    assert_eq!(refusal(&visitor).await, expected("TOKEN_REVOKED"), "after a restart");
    assert_eq!(refusal(&guest).await, expected("TOKEN_EXPIRED"), "after a restart");
    assert!(!tokens_are_stored(&cluster, &made.token), "the secret must not be kept");
}

/// Whether the secret of a token is anywhere in the scheduler's directory.
fn tokens_are_stored(cluster: &Cluster, token: &str) -> bool {
    let files = std::fs::read_dir(cluster.scheduler.directory()).unwrap().flatten();
    files.map(|file| file.path()).filter(|path| path.is_file()).any(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(token.len()).any(|window| window == token.as_bytes())
    })
}

async fn a_member_touches_only_the_jobs_of_its_projects(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let alpha = cluster.api.as_member("ann", &[ALPHA]).await;
    let beta = cluster.api.as_member("bob", &[BETA]).await;
    let job_id = alpha.submit(command(&["/bin/true"]).held()).await;

    let status = beta.try_submit(command(&["/bin/true"])).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    // A job one may not see is as good as none.
    let refused = [
        beta.jobs().get(v1::GetJobRequest { job_id }).await.unwrap_err(),
        beta.jobs().cancel(Api::action(job_id, "")).await.unwrap_err(),
        beta.jobs().release(Api::action(job_id, "")).await.unwrap_err(),
        beta.explain(job_id).await.unwrap_err(),
        beta.read_log(v1::LogsRequest { job_id, ..Default::default() }).await.unwrap_err(),
    ];
    for status in refused {
        assert!(matches!(status.code(), Code::NotFound | Code::PermissionDenied), "{status:?}");
    }
    assert!(beta.all_jobs().await.is_empty(), "a listing shows only what is one's own");
    assert_eq!(alpha.all_jobs().await.len(), 1);
    assert_eq!(alpha.job(job_id).await.state(), JobState::Held, "nothing was done to it");
    let mut pushy = command(&["/bin/true"]);
    pushy.priority = 1;
    let status = alpha.try_submit(pushy).await.unwrap_err();
    assert!(matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument), "{status:?}");
}

async fn a_join_token_makes_one_node_once(database: Database) {
    let cluster = Cluster::start(database).await;
    let (url, ca) = (cluster.scheduler.url(), cluster.scheduler.ca_pem());
    let token = cluster.api.join_token().await;
    Link::join(&url, &ca, &token, "v0").await.expect("the first use");
    let again = Link::join(&url, &ca, &token, "v1").await.expect_err("the second use");
    assert_eq!(again.code(), Code::Unauthenticated, "{again:?}");
    let nonsense = Link::join(&url, &ca, "gotgan-join_nonsense", "v1").await.unwrap_err();
    assert_eq!(nonsense.code(), Code::Unauthenticated, "{nonsense:?}");

    let token = cluster.api.join_token().await;
    for name in ["", "Upper", "under_score", "-dash", &"x".repeat(64)] {
        let status = Link::join(&url, &ca, &token, name).await;
        let status = status.err().unwrap_or_else(|| panic!("{name:?} was let in"));
        assert_eq!(status.code(), Code::InvalidArgument, "{name:?}: {status:?}");
    }
    Link::join(&url, &ca, &token, "v1").await.expect("a refusal does not use the token up");
}

/// A certificate for a node, signed by an authority that is not the cluster's.
fn foreign_certificate(node: &str) -> (String, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![node.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, node);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

async fn a_worker_with_a_foreign_certificate_is_not_let_in(database: Database) {
    let cluster = Cluster::start(database).await;
    let (certificate, key) = foreign_certificate("v0");
    let (url, ca) = (cluster.scheduler.url(), cluster.scheduler.ca_pem());
    let link = Link::with_certificate(&url, "v0", &ca, &certificate, &key);
    let register =
        || v1::Register { inventory: Some(inventory("v0", "b200", 1)), ..Default::default() };
    // The handshake may already fail; if the call comes through, it is refused.
    if link.connect().await.is_ok() {
        let answer = link.register(register()).await;
        assert!(answer.is_err(), "let in: {answer:?}");
    }
    let bare = cluster.api.without_token();
    let message =
        v1::WorkerMessage { message: Some(v1::worker_message::Message::Register(register())) };
    let answer = bare.workers().session(tokio_stream::iter([message.clone()])).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated, "no certificate at all");
    let answer = cluster.api.workers().session(tokio_stream::iter([message])).await;
    assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied, "an administrator is no node");
    let listed = cluster.api.nodes().list(v1::ListNodesRequest::default()).await.unwrap();
    assert!(listed.into_inner().nodes.is_empty());
    cluster.api.submit(command(&["/bin/true"])).await;
}

async fn a_worker_is_the_node_of_its_certificate_and_no_other(database: Database) {
    let cluster = Cluster::start(database).await;
    let mut owner = cluster.add_virtual("v0", "b200", 2, Script::forever()).await;
    let thief = cluster.link("v1").await;
    let register =
        v1::Register { inventory: Some(inventory("v0", "b200", 64)), ..Default::default() };
    let answer = thief.register(register).await;
    assert!(answer.is_err(), "a node registered under the name of another: {answer:?}");

    // The name is in use: a second machine cannot get a certificate for it.
    let token = cluster.api.join_token().await;
    let (url, ca) = (cluster.scheduler.url(), cluster.scheduler.ca_pem());
    let status = Link::join(&url, &ca, &token, "v0").await.expect_err("the name is in use");
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    let node = cluster.api.try_node("v0").await.unwrap();
    assert_eq!(node.inventory.unwrap_or_default().gpus.len(), 2, "the owner's inventory stands");

    // The same node, started again, takes over from its own old stream.
    let job = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    owner.cut();
    owner.connect();
    cluster.api.wait_for_node("v0", v1::NodeLiveness::Ready).await;
    assert_eq!(cluster.api.job(job).await.attempt, 1);

    let unreadable = v1::JoinRequest {
        join_token: cluster.api.join_token().await,
        node: "v2".into(),
        certificate_request_pem: "nonsense".into(),
    };
    let status = cluster.api.workers().join(unreadable).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", told(&status));
    let other = CertificateRequest::new("v9");
    let misnamed = v1::JoinRequest {
        join_token: cluster.api.join_token().await,
        node: "v2".into(),
        certificate_request_pem: other.request_pem,
    };
    // Whatever the request says, the certificate may only be for the node that joins.
    if let Ok(answer) = cluster.api.workers().join(misnamed).await {
        let answer = answer.into_inner();
        let link = Link::with_certificate(
            &url,
            "v9",
            &answer.ca_pem,
            &answer.certificate_pem,
            &other.key_pem,
        );
        let register =
            v1::Register { inventory: Some(inventory("v9", "b200", 1)), ..Default::default() };
        assert!(link.register(register).await.is_err(), "a certificate for another name");
    }
}

async fn the_token_of_a_job_is_for_that_job_alone(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    let other = cluster.api.submit(command(&["/bin/true"]).held()).await;
    let go = cluster.scratch("signs").join("go");
    let line = format!("echo $GOTGAN_TOKEN; while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let own = cluster.api.submit(gotgan_tests::jobs::shell(&line)).await;
    let token = deadline::until("the job to tell its token", async || {
        let request = v1::LogsRequest { job_id: own, ..Default::default() };
        let read = cluster.api.read_log(request).await.map_err(|status| told(&status))?;
        let text = String::from_utf8_lossy(&read.0).into_owned();
        text.strip_suffix('\n').map(str::to_owned).ok_or_else(|| format!("{text:?}"))
    })
    .await;
    let job = cluster.api.with_token(&token);
    assert_eq!(job.job(own).await.job_id, own);
    let refused = [
        job.jobs().get(v1::GetJobRequest { job_id: other }).await.unwrap_err(),
        job.jobs().cancel(Api::action(other, "")).await.unwrap_err(),
        job.try_submit(command(&["/bin/true"])).await.unwrap_err(),
        job.status().await.unwrap_err(),
    ];
    for status in refused {
        assert!(matches!(status.code(), Code::NotFound | Code::PermissionDenied), "{status:?}");
    }
    std::fs::write(go, "").unwrap();
    cluster.api.wait_for_state(own, JobState::Completed).await;
    let after = job.jobs().get(v1::GetJobRequest { job_id: own }).await.unwrap_err();
    assert_eq!(after.code(), Code::Unauthenticated, "a token ends with its attempt: {after:?}");
}

async fn worker_says(cluster: &mut Cluster, sign: &str) {
    deadline::until(sign, async || {
        let said = cluster.worker("node-a").output();
        if said.contains(sign) { Ok(()) } else { Err(said) }
    })
    .await;
}

async fn a_worker_whose_certificate_ran_out_comes_back_by_joining_again_without_a_restart(
    database: Database,
) {
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    cluster.add_worker("node-a", "1xB200").await;
    let authority = Authority::of(&cluster.scheduler.directory().join("tls"));
    let state = cluster.worker("node-a").state_directory().to_owned();
    cluster.worker("node-a").kill();
    authority.certify_worker("node-a", &state, Life::lasting(Duration::ZERO));
    cluster.worker("node-a").restart();
    worker_says(&mut cluster, "no stream to the scheduler").await;
    let (urls, ca) = (vec![cluster.scheduler.url()], cluster.scheduler.ca_path());
    let rejoining = Rejoining { node: "node-a".into(), urls, ca, state };
    deadline::within("it to join again", rejoining.join(vec![cluster.api.clone()])).await;
    cluster.api.wait_for_node("node-a", NodeLiveness::Ready).await;
    assert!(cluster.worker("node-a").ended().is_none());
}

async fn a_worker_renews_its_certificate_and_comes_back_with_the_new_one(database: Database) {
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    cluster.add_worker("node-a", "1xB200").await;
    let authority = Authority::of(&cluster.scheduler.directory().join("tls"));
    let state = cluster.worker("node-a").state_directory().to_owned();
    cluster.worker("node-a").kill();
    // Two thirds of its life are over, so it is renewed within a twenty-fourth of it.
    let life = Life { since: Duration::from_secs(60), lasts: Duration::from_secs(25) };
    authority.certify_worker("node-a", &state, life);
    cluster.worker("node-a").restart();
    let job = cluster.api.submit(command(&["/bin/sleep", "600"])).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    worker_says(&mut cluster, "the certificate of this node was renewed").await;
    cluster.scheduler.kill();
    cluster.scheduler.start();
    worker_says(&mut cluster, "took the certificate that was renewed").await;
    cluster.api.wait_for_node("node-a", NodeLiveness::Ready).await;
    assert_eq!(cluster.api.job(job).await.state(), JobState::Running, "nothing happened to jobs");
}

async fn only_a_node_that_is_registered_is_given_another_certificate(database: Database) {
    let cluster = Cluster::start(database).await;
    let request = |pem: &str| v1::RenewRequest { certificate_request_pem: pem.to_owned() };
    let made = CertificateRequest::new("v9");
    let status = cluster.api.workers().renew(request(&made.request_pem)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "an administrator is no node");

    let link = cluster.link("v0").await;
    let mut node = link.connect().await.unwrap();
    let status = node.renew(request(&made.request_pem)).await.unwrap_err();
    assert_eq!(reason(&status), (Code::FailedPrecondition, "NODE_NOT_READY".to_owned()));
    let register =
        |name| v1::Register { inventory: Some(inventory(name, "b200", 1)), ..Default::default() };
    let register_v0 = v1::worker_message::Message::Register(register("v0"));
    let said = tokio_stream::iter([v1::WorkerMessage { message: Some(register_v0) }]);
    let mut told_v0 = node.session(said.chain(futures::stream::pending())).await.unwrap();
    told_v0.get_mut().message().await.unwrap().expect("it is registered");
    let status = node.renew(request("nonsense")).await.unwrap_err();
    assert_eq!(reason(&status).0, Code::InvalidArgument, "{}", told(&status));
    // Whatever the request says, the certificate is the caller's.
    let answer = node.renew(request(&made.request_pem)).await.unwrap().into_inner();
    let (url, ca) = (cluster.scheduler.url(), &answer.ca_pem);
    let link = Link::with_certificate(&url, "v9", ca, &answer.certificate_pem, &made.key_pem);
    assert!(link.register(register("v9")).await.is_err(), "a certificate for another name");
}
