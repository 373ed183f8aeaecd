//! Changing quotas: planned, approved by others, applied whole or not at all, and provable afterwards.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use gotgan_proto::v1::Role;
use gotgan_tests::{Cluster, Database, Gotgan};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

on_each_database! {
    a_large_change_goes_from_its_plan_over_an_approval_into_the_chain,
    a_plan_for_a_tree_that_has_moved_or_that_was_altered_is_refused,
    a_batch_accepted_by_command_shows_as_drift_and_is_not_put_back_unasked,
    an_apply_killed_at_any_moment_leaves_the_old_tree_or_the_new_one,
}

const RULED: &str = "approval = [{ above_gpus = 2, approvers = 1 }]\n[class.b200]\n[cluster.north]\nclass = \"b200\"\n\
                     [lot.first]\ncluster = \"north\"\ndue = \"2026-01-01\"\n\
                     batch = [{ gpus = 8, accepted = \"2026-01-01\" }, { gpus = 2 }]\n\
                     [node.centre]\ndecision = \"D-1\"\nlimit = { b200 = 4 }\n[node.\"centre/lab\"]\n";

/// Files of the office.
struct Folder(PathBuf);

impl Folder {
    fn new(cluster: &Cluster) -> Self {
        let folder = cluster.directory().join("quota");
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, text: &str) -> String {
        fs::write(self.0.join("tree.toml"), text).unwrap();
        self.0.to_string_lossy().into_owned()
    }

    fn plan(&self) -> String {
        self.0.with_file_name("quota.plan").to_string_lossy().into_owned()
    }
}

/// `gotgan` as another administrator.
async fn administrator(cluster: &Cluster, name: &str) -> Gotgan {
    let made = cluster.api.create_token(name, Role::Admin, &[], 0).await;
    cluster.gotgan().with("GOTGAN_TOKEN", &made.token)
}

fn revision(gotgan: &Gotgan) -> u64 {
    gotgan.run(&["quota", "show", "--json"]).json()["revision"].as_u64().unwrap()
}

async fn a_large_change_goes_from_its_plan_over_an_approval_into_the_chain(database: Database) {
    let cluster = Cluster::builder(database).quota(RULED).start().await;
    let (kim, lee) = (administrator(&cluster, "kim").await, administrator(&cluster, "lee").await);
    let folder = Folder::new(&cluster);
    let (files, plan) = (folder.write(&RULED.replace("b200 = 4", "b200 = 8")), folder.plan());
    let planned =
        kim.run(&["quota", "plan", &files, "-o", &plan, "--reason", "more work", "--json"]);
    assert_eq!(planned.code, 2, "{}", planned.stderr);
    let shown: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!((&shown["approvers_needed"], &shown["size_gpu_milli"]), (&1.into(), &4000.into()));
    assert_eq!(shown["changes"][0]["text"], "limit b200: 4 -> 8");
    assert_eq!(revision(&kim), 1, "a plan changes nothing");

    kim.run(&["quota", "apply", &plan]).fails_with(5, &["1 must approve"]);
    kim.run(&["quota", "approve", &plan, "--doc", "D-2"]).fails_with(5, &["cannot approve it"]);
    lee.run(&["quota", "approve", &plan, "--doc", "D-2", "--as", "kim"]).fails_with(3, &["lee"]);
    lee.run(&["quota", "approve", &plan, "--doc", "D-2", "--as", "lee"]).ok();
    kim.run(&["quota", "apply", &plan]).ok();
    assert_eq!(kim.run(&["quota", "plan", &files]).code, 0, "nothing is left to do");

    let who = kim.run(&["quota", "audit", "who", "centre", "limit.b200", "--json"]).json();
    let last = who["changes"].as_array().unwrap().last().unwrap().clone();
    let told =
        ["by", "reason", "before", "after"].map(|key| last[key].as_str().unwrap().to_owned());
    assert_eq!(told, ["kim", "more work", "4", "8"]);
    assert_eq!(
        (&last["approvals"][0]["by"], &last["approvals"][0]["document"]),
        (&"lee".into(), &"D-2".into())
    );
    let verified = kim.run(&["quota", "audit", "verify", "--json"]).json();
    assert_eq!((&verified["verified"], &verified["revision"]), (&true.into(), &2.into()));
}

async fn a_plan_for_a_tree_that_has_moved_or_that_was_altered_is_refused(database: Database) {
    let cluster = Cluster::builder(database).quota(RULED).start().await;
    let gotgan = cluster.gotgan();
    let folder = Folder::new(&cluster);
    let (files, plan) = (folder.write(&RULED.replace("b200 = 4", "b200 = 5")), folder.plan());
    assert_eq!(gotgan.run(&["quota", "plan", &files, "-o", &plan]).code, 2);
    let altered = fs::read_to_string(&plan).unwrap().replace("b200 = 5", "b200 = 6");
    let forged = format!("{plan}.forged");
    fs::write(&forged, altered).unwrap();
    gotgan.run(&["quota", "apply", &forged]).fails_with(3, &["plan_digest"]);
    cluster.api.apply_quota(&RULED.replace("b200 = 4", "b200 = 3")).await.unwrap();
    gotgan.run(&["quota", "apply", &plan]).fails_with(4, &["revision 2", "made for 1"]);
    fs::write(&forged, "{}").unwrap();
    gotgan.run(&["quota", "apply", &forged]).fails_with(3, &["not a quota plan"]);
    assert_eq!(revision(&gotgan), 2);
}

async fn a_batch_accepted_by_command_shows_as_drift_and_is_not_put_back_unasked(
    database: Database,
) {
    let cluster = Cluster::builder(database).quota(RULED).start().await;
    let gotgan = cluster.gotgan();
    let folder = Folder::new(&cluster);
    let files = folder.write(RULED);
    gotgan.run(&["quota", "drift", &files]).ok();
    gotgan.run(&["quota", "phase", "accept", "first", "2", "--reason", "D-5"]).ok();
    gotgan
        .run(&["quota", "phase", "accept", "first", "2", "--reason", "D-5"])
        .fails_with(7, &["has been accepted"]);
    let drift = gotgan.run(&["quota", "drift", &files, "--json"]);
    assert_eq!(drift.code, 2);
    let drift: serde_json::Value = serde_json::from_str(&drift.stdout).unwrap();
    let found = &drift["differences"][0];
    assert_eq!((&found["path"], &found["by"]), (&"lot first".into(), &"admin".into()));
    gotgan.run(&["quota", "apply", &files]).fails_with(3, &["lot first", "--overwrite"]);
    gotgan.run(&["quota", "apply", &files, "--overwrite"]).ok();
    gotgan.run(&["quota", "audit", "verify"]).ok();
}

/// How often the scheduler is killed; `GOTGAN_TEST_KILLS` asks for more.
fn kills() -> usize {
    let asked = std::env::var("GOTGAN_TEST_KILLS").ok();
    asked.map_or(6, |text| text.parse().expect("GOTGAN_TEST_KILLS is a number"))
}

async fn an_apply_killed_at_any_moment_leaves_the_old_tree_or_the_new_one(database: Database) {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::builder(database).quota(&projects(1)).start().await;
    let (mut present, mut old, mut new) = (1, 0, 0);
    for kill in 1..=kills() {
        let wanted = present + 1;
        let api = cluster.api.clone();
        let text = projects(wanted);
        let apply = tokio::spawn(async move { api.apply_quota(&text).await.is_ok() });
        // An apply of this size takes a few milliseconds, from the request's first byte to its answer.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..12_000))).await;
        cluster.scheduler.kill();
        let acknowledged = apply.await.unwrap();
        cluster.scheduler.start();
        let shown = cluster.gotgan().run(&["quota", "show", "--json"]).json();
        let found = whole_tree(&shown);
        assert!(found == present || found == wanted, "kill {kill}: {found} is neither tree");
        assert!(!acknowledged || found == wanted, "kill {kill}: an acknowledged apply is gone");
        if found == present {
            old += 1
        } else {
            new += 1
        }
        present = found;
        cluster.gotgan().run(&["quota", "audit", "verify"]).ok();
    }
    eprintln!("{old} times the old tree, {new} times the new one");
}

/// A tree whose every project has the same limit.
fn projects(limit: u64) -> String {
    let project =
        |number| format!("[node.\"centre/p{number:03}\"]\nlimit = {{ b200 = {limit} }}\n");
    format!("[node.centre]\n{}", (0..100).map(project).collect::<String>())
}

/// The limit that all projects have.
fn whole_tree(shown: &serde_json::Value) -> u64 {
    let nodes = shown["nodes"].as_array().unwrap();
    let limits: Vec<u64> = nodes
        .iter()
        .filter(|node| node["path"] != "centre")
        .map(|node| node["classes"][0]["limit_gpu_milli"].as_u64().unwrap() / 1000)
        .collect();
    assert_eq!(limits.len(), 100);
    assert!(limits.windows(2).all(|pair| pair[0] == pair[1]), "a mixture: {limits:?}");
    limits[0]
}

/// A dump of 1,000 accounts in groups of ten, each with four users: 5,000 associations.
fn dump() -> String {
    let mut text = "Cluster - 'gpu1':Fairshare=1:QOS='normal'\n".to_owned();
    for account in 0..1000 {
        let parent =
            if account % 10 == 0 { "root".to_owned() } else { format!("a{}", account / 10 * 10) };
        text.push_str(&format!(
            "Parent - '{parent}'\nAccount - 'a{account}':Fairshare={}:GrpTRES=gres/gpu:h200={}\nParent - 'a{account}'\n",
            1 + account % 7,
            account % 5
        ));
        for user in 0..4 {
            text.push_str(&format!("User - 'u{user}':DefaultAccount='a{account}':Fairshare=1\n"));
        }
    }
    text
}

#[tokio::test]
async fn five_thousand_associations_move_in_and_the_second_import_plans_no_change() {
    let cluster = Cluster::builder(Database::Sqlite).quota("[node.gpu1]\n").start().await;
    let gotgan = cluster.gotgan();
    let file = |name: &str| cluster.directory().join(name).to_string_lossy().into_owned();
    fs::write(file("gpu1.dump"), dump()).unwrap();
    let row =
        |job: u64| format!("{job}|a{}|gres/gpu={}|{}\n", job % 1000, 1 + job % 8, 1 + job % 977);
    let rows: String = (0..20_000).map(row).collect();
    fs::write(file("usage"), format!("JobIDRaw|Account|AllocTRES|ElapsedRaw\n{rows}")).unwrap();
    let import = || {
        let words =
            ["quota", "import", "slurm", "--assoc", &file("gpu1.dump"), "--usage", &file("usage")];
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        gotgan.run(&[words, vec!["-o".to_owned(), file("in"), "--json".to_owned()]].concat()).json()
    };
    let imported = import();
    let verdicts = imported["associations"].as_array().unwrap();
    let lines: std::collections::BTreeSet<u64> =
        verdicts.iter().map(|verdict| verdict["line"].as_u64().unwrap()).collect();
    assert_eq!((verdicts.len(), lines.len()), (5000, 5000), "each once");
    assert_eq!(imported["refused"], 0);
    let used: u64 = (0..20_000).map(|job: u64| (1 + job % 8) * (1 + job % 977)).sum();
    assert_eq!(imported["usage"]["gpu_seconds"], used);
    assert_eq!(gotgan.run(&["quota", "plan", &file("in")]).code, 2);
    gotgan.run(&["quota", "apply", &file("in")]).ok();
    import();
    assert_eq!(gotgan.run(&["quota", "plan", &file("in")]).code, 0);
    gotgan.run(&["quota", "audit", "verify"]).ok();
}

/// What stands in the database of the scheduler is altered behind its back.
#[tokio::test]
async fn a_chain_that_was_altered_in_the_database_is_found_by_whoever_verifies_it() {
    let mut cluster = Cluster::builder(Database::Sqlite).quota(RULED).start().await;
    cluster.api.apply_quota(&RULED.replace("b200 = 4", "b200 = 5")).await.unwrap();
    let noted =
        cluster.gotgan().run(&["quota", "audit", "verify", "--json"]).json()["head_digest"].clone();
    let noted = noted.as_str().unwrap();
    cluster.gotgan().run(&["quota", "audit", "verify", "--noted", noted]).ok();
    cluster.scheduler.terminate();
    alter(&cluster, "UPDATE quota_audit SET body = replace(body, 'admin', 'nimda') WHERE seq = 2")
        .await;
    cluster.scheduler.start();
    let found = cluster.gotgan().run(&["quota", "audit", "verify"]);
    assert_eq!(found.code, 1);
    assert!(found.stdout.contains("entry 2 was altered"), "{}", found.stdout);
}

async fn alter(cluster: &Cluster, statement: &'static str) {
    use sqlx::Connection as _;
    let file = cluster.scheduler.directory().join("gotgan.db");
    let url = format!("sqlite://{}", file.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let done = sqlx::query(statement).execute(&mut connection).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}
