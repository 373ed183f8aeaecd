//! Bad input through `gotgan`: exit codes of docs/errors.md, the field or the line, what to do, and nothing stored.

use std::fs;

use gotgan_proto::v1::{JobState, Role};
use gotgan_tests::jobs::{ALPHA, BETA, Shape, command};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Cluster, Database};

/// Exit codes of docs/errors.md.
mod exit {
    pub const USAGE: i32 = 2;
    pub const INVALID: i32 = 3;
    pub const NOT_FOUND: i32 = 4;
    pub const PERMISSION_DENIED: i32 = 5;
    pub const UNAUTHENTICATED: i32 = 6;
    pub const CONFLICT: i32 = 7;
    pub const UNAVAILABLE: i32 = 9;
}

on_each_database! {
    bad_jobs_are_refused_with_the_field_and_nothing_is_stored,
    bad_scripts_are_refused_with_the_line,
    bad_tokens_and_addresses_are_told_apart,
    other_peoples_jobs_and_states_are_refused,
    errors_are_json_for_programs,
}

async fn bad_jobs_are_refused_with_the_field_and_nothing_is_stored(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 8, Script::forever()).await;
    let gotgan = cluster.gotgan();
    let cases: [(&[&str], i32, &[&str]); 10] = [
        (&["-A", "centre/gamma"], exit::INVALID, &["centre/gamma"]),
        (&[], exit::INVALID, &["project"]),
        (&["-A", ALPHA, "--gpus", "z9000:1"], exit::INVALID, &["z9000"]),
        (&["-A", ALPHA, "-w", "nowhere"], exit::INVALID, &["nowhere"]),
        (&["-A", ALPHA, "--gpus-per-node", "9"], exit::INVALID, &["--gpus-per-node", "8"]),
        (&["-A", ALPHA, "--time", "400d"], exit::INVALID, &["--time"]),
        (&["-A", ALPHA, "--gpus", "0"], exit::USAGE, &["--gpus"]),
        (&["-A", ALPHA, "--gpus=-1"], exit::USAGE, &["--gpus"]),
        (&["-A", ALPHA, "--time", "0"], exit::USAGE, &["--time"]),
        (&["-A", ALPHA, "--nodes", "0"], exit::USAGE, &["--nodes"]),
    ];
    for (options, code, says) in cases {
        let mut words = vec!["submit"];
        words.extend(options);
        words.extend(["--", "true"]);
        gotgan.run(&words).fails_with(code, says);
    }
    gotgan.run(&["submit", "-A", ALPHA]).fails_with(exit::INVALID, &["nothing to run"]);
    gotgan
        .run(&["submit", "-A", ALPHA, "--no-such-option", "--", "true"])
        .fails_with(exit::USAGE, &[]);
    assert!(cluster.api.all_jobs().await.is_empty(), "something was stored");
}

async fn bad_scripts_are_refused_with_the_line(database: Database) {
    let cluster = Cluster::start(database).await;
    let place = cluster.scratch("scripts");
    let gotgan = cluster.gotgan().in_directory(&place);
    let large = format!("#!/bin/sh\n{}", "# much\n".repeat(200_000));
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("empty.sh", b"", &["empty.sh", "empty"]),
        ("large.sh", large.as_bytes(), &["large.sh", "1 MiB"]),
        ("binary.sh", b"#!/bin/sh\necho \xff\xfe\n", &["binary.sh", "UTF-8"]),
        ("bare.sh", b"echo no interpreter\n", &["bare.sh", "#!"]),
        (
            "malformed.sh",
            b"#!/bin/sh\n#GOTGAN --time=soon\necho\n",
            &["malformed.sh line 2", "--time"],
        ),
        (
            "unknown.sh",
            b"#!/bin/sh\n#GOTGAN --no-such-thing\necho\n",
            &["unknown.sh line 2", "--no-such-thing"],
        ),
    ];
    for (name, text, says) in cases {
        fs::write(place.join(name), text).unwrap();
        gotgan.run(&["submit", "-A", ALPHA, name]).fails_with(exit::INVALID, says);
    }
    gotgan.run(&["submit", "-A", ALPHA, "missing.sh"]).fails_with(exit::INVALID, &["missing.sh"]);
    assert!(cluster.api.all_jobs().await.is_empty(), "something was stored");

    // What Slurm has and we have not is named, not refused.
    let text = format!("#!/bin/sh\n#SBATCH --account={ALPHA}\n#SBATCH --mail-type=END\necho\n");
    fs::write(place.join("slurm.sh"), text).unwrap();
    let ran = gotgan.run(&["submit", "--hold", "slurm.sh"]);
    assert!(ran.stderr.contains("--mail-type") && ran.stderr.contains("line 3"), "{}", ran.stderr);
    ran.ok();
    assert_eq!(cluster.api.all_jobs().await.len(), 1);
}

async fn bad_tokens_and_addresses_are_told_apart(database: Database) {
    let cluster = Cluster::start(database).await;
    let gotgan = cluster.gotgan();
    let without = gotgan.clone().without("GOTGAN_TOKEN");
    without.run(&["jobs"]).fails_with(exit::UNAUTHENTICATED, &["token"]);
    gotgan
        .clone()
        .with("GOTGAN_TOKEN", "nonsense")
        .run(&["jobs"])
        .fails_with(exit::UNAUTHENTICATED, &["token"]);
    let made = cluster.api.create_token("visitor", Role::Member, &[ALPHA], 0).await;
    cluster.gotgan_as(&made.token).run(&["jobs"]).ok();
    gotgan.run(&["admin", "token", "revoke", &made.token_id]).ok();
    cluster.gotgan_as(&made.token).run(&["jobs"]).fails_with(exit::UNAUTHENTICATED, &["revoked"]);

    let nobody = gotgan.clone().with("GOTGAN_SERVER", "https://127.0.0.1:1");
    nobody.run(&["--retry-for", "0", "jobs"]).fails_with(exit::UNAVAILABLE, &["127.0.0.1:1"]);
    let plain = gotgan.clone().with("GOTGAN_SERVER", "http://127.0.0.1:1");
    plain.run(&["jobs"]).fails_with(exit::INVALID, &["not encrypted"]);
    let no_address = gotgan.clone().without("GOTGAN_SERVER");
    no_address.run(&["jobs"]).fails_with(exit::INVALID, &["GOTGAN_SERVER"]);
    let no_ca = cluster.directory().join("no-such-ca.pem");
    let wrong = gotgan.with("GOTGAN_CA", &no_ca.display().to_string());
    wrong.run(&["jobs"]).fails_with(exit::INVALID, &["no-such-ca.pem"]);
}

async fn other_peoples_jobs_and_states_are_refused(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let job = cluster.api.submit(command(&["/bin/true"])).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    let id = job.to_string();
    let token = cluster.api.create_token("bob", Role::Member, &[BETA], 0).await.token;
    let bob = cluster.gotgan_as(&token);
    bob.run(&["cancel", &id]).fails_with(exit::NOT_FOUND, &[&id]);
    bob.run(&["job", &id]).fails_with(exit::NOT_FOUND, &[&id]);
    bob.run(&["submit", "-A", ALPHA, "--", "true"]).fails_with(exit::PERMISSION_DENIED, &[ALPHA]);
    bob.run(&["node", "drain", "v0", "--reason", "mine"])
        .fails_with(exit::PERMISSION_DENIED, &["member"]);

    let gotgan = cluster.gotgan();
    gotgan.run(&["hold", &id]).fails_with(exit::CONFLICT, &["running"]);
    gotgan.run(&["job", "4000000"]).fails_with(exit::NOT_FOUND, &["4000000"]);
    gotgan.run(&["job", "many"]).fails_with(exit::USAGE, &["many"]);
    let submit = |gpus: &str| {
        gotgan.run(&["submit", "-A", ALPHA, "--idempotency-key", "k", "--gpus", gpus, "--", "true"])
    };
    submit("1").ok();
    assert!(submit("1").ok().contains("was there already"));
    let other = ["submit", "-A", BETA, "--idempotency-key", "k", "--gpus", "1", "--", "true"];
    gotgan.run(&other).fails_with(exit::CONFLICT, &["--idempotency-key"]);
    assert_eq!(cluster.api.job(job).await.state(), JobState::Running);
    assert_eq!(cluster.api.all_jobs().await.len(), 2);
    let job = cluster.api.submit(command(&["/bin/true"]).held()).await;
    cluster.gotgan().run(&["cancel", &job.to_string()]).ok();
    gotgan.run(&["wait", &job.to_string()]).fails_with(10, &[]);
}

async fn errors_are_json_for_programs(database: Database) {
    let cluster = Cluster::start(database).await;
    let words = ["--json", "submit", "-A", "centre/gamma", "--max-retries", "99", "--", "true"];
    let ran = cluster.gotgan().run(&words);
    assert_eq!(ran.code, exit::INVALID, "{ran:?}");
    let error: serde_json::Value =
        serde_json::from_str(ran.stderr.trim()).expect("one line of JSON");
    assert_eq!(error["schema"], "gotgan.error/1");
    assert_eq!(error["exit_code"], exit::INVALID);
    assert_eq!(error["kind"], "invalid");
    assert_eq!(error["reason"], "UNKNOWN_PROJECT");
    let fields = error["violations"].as_array().expect("a list");
    assert!(fields.len() >= 2, "all faults at once: {error}");
}
