//! Reservations by command: others wait and are told, holders start in them, a cancelled one is free again, and another
//! leader knows them.

use std::time::{SystemTime, UNIX_EPOCH};

use gotgan_proto::v1::{self, BlockerKind, JobState, ReservationState};
use gotgan_tests::jobs::{ALPHA, BETA, Shape, command};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Api, Cluster, Database, deadline};
use tonic::Code;

on_each_database! {
    others_wait_for_a_reservation_with_the_reason_its_holder_starts_in_it_and_cancelling_frees_it,
    a_job_that_asks_for_a_reservation_waits_until_it_begins_and_is_told_when_it_is_cancelled,
    a_reservation_survives_a_restart_and_is_made_once_for_a_key,
    only_admins_and_operators_reserve_and_everybody_sees_it,
}

/// Exit codes of `gotgan`.
const INVALID: i32 = 3;
const NOT_FOUND: i32 = 4;

/// How `gotgan admin reservation` begins.
const RESERVATION: [&str; 2] = ["admin", "reservation"];

fn words<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    RESERVATION.into_iter().chain(rest.iter().copied()).collect()
}

fn request(name: &str, nodes: &[&str], duration_s: i64) -> v1::CreateReservationRequest {
    v1::CreateReservationRequest {
        idempotency_key: gotgan_tests::api::fresh_key(),
        name: name.to_owned(),
        holders: vec![BETA.to_owned()],
        nodes: nodes.iter().map(ToString::to_string).collect(),
        duration_s,
        ..Default::default()
    }
}

fn asking(name: &str) -> v1::JobSpec {
    let mut spec = command(&["/bin/true"]).gpus(1).project(BETA);
    spec.constraints.get_or_insert_default().reservation = name.to_owned();
    spec
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

async fn all(api: &Api) -> Vec<v1::Reservation> {
    let request = v1::ListReservationsRequest::default();
    api.nodes().list_reservations(request).await.unwrap().into_inner().reservations
}

async fn others_wait_for_a_reservation_with_the_reason_its_holder_starts_in_it_and_cancelling_frees_it(
    database: Database,
) {
    let cluster = Cluster::start(database).await;
    let _nodes = cluster.add_virtual("v0", "b200", 2, Script::forever()).await;
    let api = &cluster.api;
    let gotgan = cluster.gotgan();
    let create = ["create", "course", "--project", BETA, "--count", "1", "--for", "2h"];
    let dry = gotgan.run(&words(&[&create[..], &["--dry-run"]].concat())).ok();
    assert!(dry.contains("v0"), "{dry}");
    assert_eq!(all(api).await, []);
    let text = gotgan.run(&words(&create)).ok();
    assert!(text.contains("v0") && text.contains("nothing runs past"), "{text}");
    let other = api.submit(command(&["/bin/true"]).gpus(1).project(ALPHA)).await;
    let blocker = api.wait_for_blocker(other, BlockerKind::Reservation).await;
    assert!(blocker.text.contains("course") && blocker.text.contains(BETA), "{blocker:?}");
    let own = api.submit(command(&["/bin/true"]).gpus(1).project(BETA)).await;
    api.wait_for_state(own, JobState::Running).await;
    let late = api.submit(command(&["/bin/true"]).gpus(1).project(BETA).limit(3 * 3600)).await;
    api.wait_for_blocker(late, BlockerKind::Reservation).await;
    let node = api.try_node("v0").await.unwrap();
    let reserved = node.reservation.unwrap();
    assert_eq!((reserved.state(), reserved.holders), (ReservationState::Holds, vec![BETA.into()]));
    let shown = [gotgan.run(&["nodes"]).ok(), gotgan.run(&["node", "v0"]).ok()];
    assert!(shown.iter().all(|text| text.contains(BETA)), "{shown:?}");
    let listed = gotgan.run(&words(&["list"])).ok();
    assert!(listed.contains("course") && listed.contains("holds"), "{listed}");
    gotgan.run(&words(&["extend", "course", "--for", "1h"])).ok();
    api.wait_for_blocker(other, BlockerKind::Reservation).await;
    gotgan.run(&words(&["cancel", "course"])).ok();
    api.wait_for_state(other, JobState::Running).await;
    let shown = gotgan.run(&words(&["show", "course"])).ok();
    assert!(shown.contains("cancelled"), "{shown}");
    gotgan.run(&words(&["cancel", "course"])).fails_with(NOT_FOUND, &["course"]);
}

async fn a_job_that_asks_for_a_reservation_waits_until_it_begins_and_is_told_when_it_is_cancelled(
    database: Database,
) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 2, Script::forever()).await;
    let _other = cluster.add_virtual("v1", "b200", 2, Script::forever()).await;
    let api = &cluster.api;
    let gotgan = cluster.gotgan();
    let submit =
        ["submit", "--project", BETA, "--reservation", "soon", "--time", "10m", "--", "/bin/true"];
    let missing = ["there is none of that name", "without --reservation"];
    gotgan.run(&submit).fails_with(INVALID, &missing);
    gotgan.run(&[&["submit", "--dry-run"], &submit[1..]].concat()).fails_with(INVALID, &missing);
    let ahead = v1::CreateReservationRequest {
        from_us: now_us() + 5_000_000,
        ..request("soon", &["v1"], 3600)
    };
    api.nodes().create_reservation(ahead).await.unwrap();
    let waits = api.submit(asking("soon")).await;
    let foreign = api.try_submit(v1::JobSpec { project: ALPHA.into(), ..asking("soon") }).await;
    let refusal = foreign.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
    assert!(refusal.message().contains("spec.constraints.reservation"), "{refusal:?}");
    let started = api.wait_for_state(waits, JobState::Running).await;
    assert_eq!(started.attempts[0].allocation[0].node, "v1", "{started:?}");
    let later = v1::CreateReservationRequest {
        from_us: now_us() + 3_600_000_000,
        ..request("later", &["v0"], 3600)
    };
    api.nodes().create_reservation(later).await.unwrap();
    let waits = api.submit(asking("later")).await;
    let blocker = api.wait_for_blocker(waits, BlockerKind::AskedReservation).await;
    assert!(blocker.text.contains("begins at"), "{blocker:?}");
    gotgan.run(&words(&["cancel", "later"])).ok();
    let told = deadline::until("the job to be told of the cancellation", async || {
        let blocker = api.wait_for_blocker(waits, BlockerKind::AskedReservation).await;
        let cancelled = blocker.text.contains("cancelled at");
        if cancelled { Ok(blocker) } else { Err(format!("{blocker:?}")) }
    });
    let told = told.await;
    assert!(told.hint.contains("without --reservation"), "{told:?}");
    assert_eq!(api.job(waits).await.state(), JobState::Pending);
}

async fn a_reservation_survives_a_restart_and_is_made_once_for_a_key(database: Database) {
    let mut cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let api = cluster.api.clone();
    let create = request("course", &["v0"], 3600);
    let first = api.nodes().create_reservation(create.clone()).await.unwrap().into_inner();
    let again = api.nodes().create_reservation(create).await.unwrap().into_inner();
    assert_eq!(first, again);
    let gone = request("gone", &["v0"], 60);
    let gone = v1::CreateReservationRequest { from_us: now_us() + 7_200_000_000, ..gone };
    api.nodes().create_reservation(gone).await.unwrap();
    let cancel = v1::CancelReservationRequest {
        idempotency_key: gotgan_tests::api::fresh_key(),
        name: "gone".to_owned(),
    };
    api.nodes().cancel_reservation(cancel).await.unwrap();
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let known = all(&api).await;
    assert_eq!(known.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["course"]);
    assert_eq!(known[0].until_us, first.reservation.unwrap().until_us);
    let refusal = api.try_submit(asking("gone")).await.unwrap_err();
    assert!(refusal.message().contains("cancelled at"), "{refusal:?}");
    let bad = [
        (request("course", &["v0"], 60), Code::AlreadyExists),
        (request("other", &["v0"], 60), Code::FailedPrecondition),
        (request("other", &["nowhere"], 60), Code::NotFound),
        (request("other", &[], 60), Code::InvalidArgument),
        (request("Other", &["v0"], 60), Code::InvalidArgument),
        (request("other", &["v0"], 0), Code::InvalidArgument),
        (request("other", &["v0"], 366 * 86_400), Code::InvalidArgument),
        (
            v1::CreateReservationRequest { count: 1, ..request("other", &["v0"], 60) },
            Code::InvalidArgument,
        ),
        (
            v1::CreateReservationRequest { holders: vec![], ..request("other", &["v0"], 60) },
            Code::InvalidArgument,
        ),
        (
            v1::CreateReservationRequest {
                block: "row=1".into(),
                count: 1,
                ..request("other", &[], 60)
            },
            Code::InvalidArgument,
        ),
        (
            v1::CreateReservationRequest { until_us: 9, ..request("other", &["v0"], 60) },
            Code::InvalidArgument,
        ),
    ];
    for (request, code) in bad {
        let refused = api.nodes().create_reservation(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
}

async fn only_admins_and_operators_reserve_and_everybody_sees_it(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let member = cluster.api.as_member("kim", &[BETA]).await;
    let refused = member.nodes().create_reservation(request("course", &["v0"], 60)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let operator = cluster.api.create_token("lee", v1::Role::Operator, &[], 0).await;
    let operator = cluster.api.with_token(&operator.token);
    operator.nodes().create_reservation(request("course", &["v0"], 3600)).await.unwrap();
    let seen = all(&member).await;
    assert_eq!((seen[0].name.as_str(), seen[0].by.as_str()), ("course", "lee"));
}
