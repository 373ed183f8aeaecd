//! Bad requests at the wire: each is refused with its field and its reason, and leaves nothing behind.

use gotgan_proto::ERROR_DOMAIN;
use gotgan_proto::v1::{self, DependencyKind, JobSpec, job_spec::Work};
use gotgan_tests::api::fresh_key;
use gotgan_tests::jobs::{Shape, command, script};
use gotgan_tests::virtual_worker::{Script, VirtualWorker};
use gotgan_tests::{Api, Cluster, Database};
use prost::Message;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

on_each_database! {
    a_bad_field_is_named_with_its_reason_and_nothing_is_stored,
    all_bad_fields_are_named_at_once,
    a_key_is_for_one_request_alone,
    one_bad_job_of_many_refuses_them_all,
    text_that_is_not_utf_8_is_refused,
    a_bad_quota_tree_changes_nothing,
    what_is_not_there_is_not_found,
}

/// One thing wrong, and what the refusal must say.
struct Wrong {
    what: &'static str,
    spec: JobSpec,
    field: &'static str,
    reason: &'static str,
}

fn good() -> JobSpec {
    command(&["/bin/true"])
}

fn wrong(what: &'static str, spec: JobSpec, field: &'static str, reason: &'static str) -> Wrong {
    Wrong { what, spec, field, reason }
}

fn with(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = good();
    change(&mut spec);
    spec
}

fn resources(change: impl FnOnce(&mut v1::Resources)) -> JobSpec {
    with(|spec| change(spec.resources.get_or_insert_default()))
}

fn text(text: &str) -> JobSpec {
    let script = v1::Script { text: text.to_owned(), arguments: Vec::new() };
    with(|spec| spec.work = Some(Work::Script(script)))
}

fn unknown_names() -> Vec<Wrong> {
    let labels = [("hall".to_owned(), "z".to_owned())];
    vec![
        wrong("unknown project", good().project("centre/gamma"), "spec.project", "UNKNOWN_PROJECT"),
        wrong("no project", good().project(""), "spec.project", "MISSING"),
        wrong(
            "a project with others below",
            good().project("centre"),
            "spec.project",
            "PROJECT_NOT_A_LEAF",
        ),
        wrong("malformed project", good().project("Centre//x"), "spec.project", "UNKNOWN_PROJECT"),
        wrong(
            "unknown class",
            good().gpus(1).class("z9000"),
            "spec.resources.gpu_class",
            "UNKNOWN_CLASS",
        ),
        wrong("unknown node", good().on("nowhere"), "spec.constraints.nodes", "UNKNOWN_NODE"),
        wrong(
            "unknown label",
            with(|spec| spec.constraints.get_or_insert_default().labels = labels.into()),
            "spec.constraints.labels",
            "UNKNOWN_LABEL",
        ),
        wrong(
            "unknown dependency",
            good().after(DependencyKind::AfterOk, 4_000_000),
            "spec.dependencies",
            "UNKNOWN_JOB",
        ),
    ]
}

fn more_than_there_is() -> Vec<Wrong> {
    vec![
        wrong(
            "more GPUs than any node",
            good().gpus(9),
            "spec.resources.gpus_per_node",
            "LARGER_THAN_MACHINE",
        ),
        wrong(
            "more nodes than there are",
            good().nodes(3).gpus(8),
            "spec.resources.nodes",
            "LARGER_THAN_MACHINE",
        ),
        wrong(
            "more GPUs than the machine",
            resources(|r| r.gpus_total = 1_000),
            "spec.resources.gpus_total",
            "LARGER_THAN_MACHINE",
        ),
        wrong(
            "more memory than any node",
            resources(|r| r.memory_mib_per_node = 4 << 20),
            "spec.resources.memory_mib_per_node",
            "LARGER_THAN_MACHINE",
        ),
        wrong(
            "more CPUs than any node",
            resources(|r| r.cpu_milli_per_node = 1_000_000),
            "spec.resources.cpu_milli_per_node",
            "LARGER_THAN_MACHINE",
        ),
    ]
}

fn amounts_out_of_range() -> Vec<Wrong> {
    vec![
        wrong("too many nodes", good().nodes(10_001), "spec.resources.nodes", "OUT_OF_RANGE"),
        wrong(
            "a share of more than a GPU",
            resources(|r| r.gpu_share_milli = 1_000),
            "spec.resources.gpu_share_milli",
            "OUT_OF_RANGE",
        ),
        wrong(
            "a share and whole GPUs",
            resources(|r| (r.gpu_share_milli, r.gpus_per_node) = (500, 1)),
            "spec.resources.gpu_share_milli",
            "CONFLICT",
        ),
        wrong(
            "GPUs in all and on each",
            resources(|r| (r.gpus_total, r.gpus_per_node) = (2, 1)),
            "spec.resources.gpus_total",
            "CONFLICT",
        ),
        wrong("a negative time limit", good().limit(-1), "spec.time_limit_s", "OUT_OF_RANGE"),
        wrong(
            "a time limit past the maximum",
            good().limit(365 * 86_400),
            "spec.time_limit_s",
            "OUT_OF_RANGE",
        ),
        wrong(
            "a priority past the end",
            with(|spec| spec.priority = 1_001),
            "spec.priority",
            "OUT_OF_RANGE",
        ),
        wrong(
            "too many retries",
            with(|spec| spec.max_retries = 11),
            "spec.max_retries",
            "OUT_OF_RANGE",
        ),
        wrong("too long a grace", good().grace(3_601), "spec.grace_s", "OUT_OF_RANGE"),
    ]
}

fn bad_work() -> Vec<Wrong> {
    let long = format!("#!/bin/sh\n{}", "#".repeat(1 << 20));
    let signal = v1::WarningSignal { signal: 9, ahead_s: 10, batch_only: false };
    let noise = "x".repeat(1_025);
    vec![
        wrong("nothing to run", with(|spec| spec.work = None), "spec.script", "MISSING"),
        wrong("a command without a program", command(&[]), "spec.command.argv", "MISSING"),
        wrong("an empty script", text(""), "spec.script.text", "MISSING"),
        wrong(
            "a script without an interpreter",
            text("echo hello\n"),
            "spec.script.text",
            "MALFORMED",
        ),
        wrong("a script over 1 MiB", text(&long), "spec.script.text", "TOO_LONG"),
        wrong(
            "a warning by SIGKILL",
            with(|spec| spec.warning_signal = Some(signal)),
            "spec.warning_signal.signal",
            "OUT_OF_RANGE",
        ),
        wrong(
            "a relative directory",
            with(|spec| spec.working_directory = "here".into()),
            "spec.working_directory",
            "MALFORMED",
        ),
        wrong("a long comment", with(|spec| spec.comment = noise), "spec.comment", "TOO_LONG"),
        wrong("a variable without a name", good().env("", "x"), "spec.environment", "MALFORMED"),
    ]
}

async fn cluster(database: Database) -> (Cluster, Vec<VirtualWorker>) {
    let cluster = Cluster::start(database).await;
    let nodes = vec![
        cluster.add_virtual("v0", "b200", 8, Script::forever()).await,
        cluster.add_virtual("v1", "b200", 8, Script::forever()).await,
    ];
    (cluster, nodes)
}

/// What is wrong with a refusal, if anything.
fn fault(case: &Wrong, answer: Result<u64, Status>) -> Option<String> {
    let what = case.what;
    let status = match answer {
        Ok(job) => return Some(format!("{what}: accepted as job {job}")),
        Err(status) => status,
    };
    let reason = status.get_details_error_info();
    let (reason, domain) = reason.map(|info| (info.reason, info.domain)).unwrap_or_default();
    let fields: Vec<String> = status
        .get_details_bad_request()
        .map(|bad| bad.field_violations.into_iter().map(|one| one.field).collect())
        .unwrap_or_default();
    // A list's element may be named with its place, as in `spec.dependencies[0].job_id`.
    let named = fields.iter().any(|field| field.starts_with(case.field));
    let right =
        status.code() == Code::InvalidArgument && reason == case.reason && domain == ERROR_DOMAIN;
    let saw = format!("{:?} {reason} {fields:?} {:?}", status.code(), status.message());
    (!right || !named).then(|| format!("{what}: wanted {} {}, saw {saw}", case.field, case.reason))
}

async fn a_bad_field_is_named_with_its_reason_and_nothing_is_stored(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    let mut faults = Vec::new();
    for case in unknown_names()
        .into_iter()
        .chain(more_than_there_is())
        .chain(amounts_out_of_range())
        .chain(bad_work())
    {
        let answer = cluster.api.try_submit(case.spec.clone()).await;
        faults.extend(fault(&case, answer));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(cluster.api.all_jobs().await.is_empty(), "something was stored");
}

async fn all_bad_fields_are_named_at_once(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    let mut spec = good().project("centre/gamma").limit(-1).gpus(1).class("z9000");
    spec.max_retries = 99;
    let status = cluster.api.try_submit(spec).await.unwrap_err();
    let bad = status.get_details_bad_request().expect("fields");
    let fields: Vec<&str> = bad.field_violations.iter().map(|one| one.field.as_str()).collect();
    for field in
        ["spec.project", "spec.time_limit_s", "spec.resources.gpu_class", "spec.max_retries"]
    {
        assert!(fields.contains(&field), "no {field} in {fields:?}");
    }
}

fn request(key: &str, spec: JobSpec) -> v1::SubmitRequest {
    v1::SubmitRequest { idempotency_key: key.to_owned(), spec: Some(spec), dry_run: false }
}

async fn a_key_is_for_one_request_alone(database: Database) {
    let (mut cluster, _nodes) = cluster(database).await;
    let submit = async |api: &Api, key: &str, spec| api.jobs().submit(request(key, spec)).await;
    let first = submit(&cluster.api, "k", good()).await.unwrap().into_inner();
    let again = submit(&cluster.api, "k", good()).await.unwrap().into_inner();
    assert!(again.repeated && again.job_id == first.job_id, "{again:?}");
    for restarted in [false, true] {
        let status = submit(&cluster.api, "k", good().gpus(1)).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "after a restart: {restarted}: {status:?}");
        let reason = status.get_details_error_info().map(|info| info.reason);
        assert_eq!(reason.as_deref(), Some("IDEMPOTENCY_KEY_REUSED"));
        cluster.scheduler.kill();
        cluster.scheduler.start();
    }
    for key in ["", "with\nnewline", &"x".repeat(129)] {
        let status = submit(&cluster.api, key, good()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "key {key:?}: {status:?}");
        let bad = status.get_details_bad_request().expect("a field");
        assert_eq!(bad.field_violations[0].field, "idempotency_key");
    }
    let other = cluster.api.as_member("somebody", &["centre/alpha"]).await;
    let own = submit(&other, "k", good().gpus(1)).await.unwrap().into_inner();
    assert!(!own.repeated && own.job_id != first.job_id, "keys belong to their owners: {own:?}");
    assert_eq!(cluster.api.all_jobs().await.len(), 2);
}

async fn one_bad_job_of_many_refuses_them_all(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    let many = |specs: Vec<JobSpec>| v1::SubmitManyRequest {
        jobs: specs.into_iter().map(|spec| request(&fresh_key(), spec)).collect(),
    };
    let mixed = many(vec![good(), good().limit(-1), good()]);
    let status = cluster.api.jobs().submit_many(mixed).await.unwrap_err();
    let bad = status.get_details_bad_request().expect("a field");
    assert_eq!(bad.field_violations[0].field, "jobs[1].spec.time_limit_s", "{status:?}");
    let status = cluster.api.jobs().submit_many(many(Vec::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = cluster.api.jobs().submit_many(many(vec![good(); 1_001])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(cluster.api.all_jobs().await.is_empty(), "all or none");
    let answer = cluster.api.jobs().submit_many(many(vec![good(); 1_000])).await.unwrap();
    assert_eq!(answer.into_inner().jobs.len(), 1_000);
}

/// A submission whose project is bytes: the same on the wire, with no promise that it is text.
#[derive(Clone, PartialEq, Message)]
struct RawSubmit {
    #[prost(string, tag = "1")]
    idempotency_key: String,
    #[prost(message, optional, tag = "2")]
    spec: Option<RawSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct RawSpec {
    #[prost(string, tag = "2")]
    project: String,
    #[prost(message, optional, tag = "3")]
    script: Option<RawScript>,
}

#[derive(Clone, PartialEq, Message)]
struct RawScript {
    #[prost(bytes = "vec", tag = "1")]
    text: Vec<u8>,
}

async fn text_that_is_not_utf_8_is_refused(database: Database) {
    let cluster = Cluster::start(database).await;
    let script_of = RawScript { text: b"#!/bin/sh\necho \xff\xfe\n".to_vec() };
    let spec = RawSpec { project: "centre/alpha".into(), script: Some(script_of) };
    let raw = RawSubmit { idempotency_key: fresh_key(), spec: Some(spec) };
    let mut client = tonic::client::Grpc::new(cluster.api.line());
    client.ready().await.unwrap();
    let path = "/gotgan.v1.Jobs/Submit".parse().unwrap();
    let codec = ProstCodec::<RawSubmit, v1::SubmitResponse>::default();
    let answer: Result<tonic::Response<v1::SubmitResponse>, Status> =
        client.unary(Request::new(raw), path, codec).await;
    let status = answer.unwrap_err();
    assert!(status.message().to_lowercase().contains("utf-8"), "{status:?}");
    assert!(cluster.api.all_jobs().await.is_empty());
    cluster.api.submit(script("echo well")).await;
}

async fn a_bad_quota_tree_changes_nothing(database: Database) {
    let cluster = Cluster::start(database).await;
    let before =
        cluster.api.quota().get(v1::GetQuotaRequest::default()).await.unwrap().into_inner();
    let trees = [
        "[node.\"centre\"]\nlimit = { b200 = -1 }",
        "[node.\"centre\"]\nlimt = { b200 = 1 }",
        "[node.\"centre/alpha\"]\ntitle = \"no parent\"",
        "not toml at all [",
    ];
    for tree in trees {
        let status = cluster.api.apply_quota(tree).await.expect_err(tree);
        assert_eq!(status.code(), Code::InvalidArgument, "{tree}: {status:?}");
        assert!(status.message().contains("tree.toml"), "{tree}: {status:?}");
    }
    let after = cluster.api.quota().get(v1::GetQuotaRequest::default()).await.unwrap().into_inner();
    assert_eq!(before, after);
}

async fn what_is_not_there_is_not_found(database: Database) {
    let cluster = Cluster::start(database).await;
    let api = &cluster.api;
    let job_id = 4_000_000;
    let codes = [
        api.jobs().get(v1::GetJobRequest { job_id }).await.unwrap_err().code(),
        api.jobs().cancel(Api::action(job_id, "")).await.unwrap_err().code(),
        api.jobs().hold(Api::action(job_id, "")).await.unwrap_err().code(),
        api.explain(job_id).await.unwrap_err().code(),
        api.read_log(v1::LogsRequest { job_id, ..Default::default() }).await.unwrap_err().code(),
        api.try_node("nowhere").await.unwrap_err().code(),
        api.quota()
            .get(v1::GetQuotaRequest { path: "centre/gamma".into(), at_us: 0 })
            .await
            .unwrap_err()
            .code(),
    ];
    assert_eq!(codes, [Code::NotFound; 7]);
    let request = v1::DrainRequest {
        idempotency_key: fresh_key(),
        name: "nowhere".into(),
        reason: "x".into(),
    };
    assert_eq!(api.nodes().drain(request).await.unwrap_err().code(), Code::NotFound);
}
