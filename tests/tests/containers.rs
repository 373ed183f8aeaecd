//! Jobs with an image, from the command line to the process: on a machine where a runtime works, with an image made of
//! busybox; elsewhere what is missing is said and the test passes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gotgan_proto::v1::{BlockerKind, Cause, Images, JobSpec, JobState, LogsRequest, NodeInventory};
use gotgan_tests::jobs::{ALPHA, Shape, command, script, shell};
use gotgan_tests::virtual_worker::{Script, inventory};
use gotgan_tests::{Api, Cluster, Database, audit, deadline};

on_each_database! {
    a_job_runs_in_its_image_as_its_user_and_its_end_comes_through,
    jobs_in_images_see_nothing_of_each_other_and_a_cancelled_one_leaves_nothing,
    an_image_that_cannot_be_used_is_told_and_not_tried_for_ever,
    a_job_with_an_image_waits_for_a_node_that_runs_images_and_is_told_so,
    bad_paths_of_images_are_refused_by_name,
}

const PROGRAMS: [&str; 10] =
    ["sh", "cat", "id", "ls", "env", "touch", "sleep", "kill", "ps", "grep"];

/// A cluster whose one node runs images, with one; absent: something is missing here, which was said.
async fn cluster(database: Database) -> Option<(Cluster, PathBuf)> {
    let busybox = busybox()?;
    // Not below `/tmp`, which is each job's own.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut cluster = Cluster::builder(database).directory(directory).start().await;
    // Jobs run as somebody who must reach what is theirs.
    fs::set_permissions(cluster.directory(), Permissions::from_mode(0o755)).unwrap();
    let image = cluster.directory().join("images/box");
    make_image(&image, &busybox);
    let settings = format!(
        "[users]\ndefault = \"nobody\"\n[containers]\nrun = \"runtime\"\nimage_roots = [\"{}\"]\n",
        cluster.directory().join("images").display()
    );
    cluster.add_worker_with("node-a", "2xB200", &settings).await;
    let shown = cluster.gotgan().run(&["node", "node-a", "--json"]).json();
    let images = &shown["images"];
    if images["able"] == true {
        return Some((cluster, image));
    }
    assert_ne!(images["missing"], "", "it is told why: {shown}");
    eprintln!("skipped: {}", images["missing"]);
    None
}

fn busybox() -> Option<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let is_static = |path: &PathBuf| {
        let asked = Command::new("ldd").arg(path).output();
        path.exists() && asked.is_ok_and(|it| !String::from_utf8_lossy(&it.stdout).contains("=>"))
    };
    let found = places.into_iter().find(is_static);
    if found.is_none() {
        eprintln!("skipped: there is no static busybox (apt-get install busybox-static)");
    }
    found
}

fn make_image(root: &Path, busybox: &Path) {
    for directory in ["bin", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for program in PROGRAMS {
        symlink("busybox", root.join("bin").join(program)).unwrap();
    }
    fs::write(root.join("etc/mark"), "of the image\n").unwrap();
}

fn inside(mut spec: JobSpec, image: &Path) -> JobSpec {
    spec.image = image.display().to_string();
    spec
}

async fn a_job_runs_in_its_image_as_its_user_and_its_end_comes_through(database: Database) {
    let Some((cluster, image)) = cluster(database).await else { return };
    let path = cluster.directory().join("job.sh");
    let text = format!(
        "#!/bin/sh\n#GOTGAN --image {}\n#GOTGAN --project {ALPHA} --gpus 1 --env COLOUR=green\n\
         cat /etc/mark\nid -u\necho $COLOUR $PATH\necho $GOTGAN_JOB_ID $NVIDIA_VISIBLE_DEVICES\n\
         ls /root 2> /dev/null || echo not the root of the node\nexit 7\n",
        image.display()
    );
    fs::write(&path, text).unwrap();
    let gotgan = cluster.gotgan();
    let submitted = gotgan.run(&["submit", "--json", path.to_str().unwrap()]).json();
    let job = submitted["job_id"].as_u64().unwrap();
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(ended.state(), JobState::Failed, "{ended:?}");
    assert_eq!((ended.exit.unwrap().code, ended.cause()), (7, Cause::User), "{ended:?}");
    let expected = format!(
        "of the image\n65534\ngreen /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         {job} GPU-SIM-node-a-0\nnot the root of the node\n"
    );
    assert_eq!(cluster.api.output(job, 0, 0).await, expected);
    let shown = gotgan.run(&["job", &job.to_string()]).ok();
    assert!(shown.contains(&image.display().to_string()), "{shown}");
    let node = gotgan.run(&["node", "node-a"]).ok();
    assert!(node.contains("Images are run by"), "{node}");
    let killed = cluster.api.submit(inside(shell("kill -9 $$"), &image)).await;
    let ended = cluster.api.wait_for_end(killed).await;
    assert_eq!(ended.exit.unwrap().signal, 9, "{ended:?}");
    audit::ledger(&cluster.api).await;
}

async fn jobs_in_images_see_nothing_of_each_other_and_a_cancelled_one_leaves_nothing(
    database: Database,
) {
    let Some((cluster, image)) = cluster(database).await else { return };
    let api = &cluster.api;
    let mark = format!("victim-{}", std::process::id());
    let body = format!(
        "echo secret > /tmp/{mark}; echo secret > /dev/shm/{mark}; echo ready; exec sleep 1000"
    );
    let first = api.submit(inside(script(&body).env("MARK", &mark), &image)).await;
    deadline::until("the first job to be ready", async || {
        let request = LogsRequest { job_id: first, ..Default::default() };
        let (bytes, _) = api.read_log(request).await.map_err(|status| status.to_string())?;
        if bytes == b"ready\n" { Ok(()) } else { Err(String::from_utf8_lossy(&bytes).into_owned()) }
    })
    .await;
    // Where the checkout itself lies below /tmp, the way to it is there and nothing else.
    let body = "ls /dev/shm; ls /tmp | grep -c victim; ps | grep -c '[s]leep 1000'; touch /etc/new 2> /dev/null || echo read-only";
    let second = api.submit(inside(script(body), &image)).await;
    let ended = api.wait_for_end(second).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    assert_eq!(api.output(second, 0, 0).await, "0\n0\nread-only\n");
    assert_eq!(marked(&mark), 1);
    api.jobs().cancel(Api::action(first, "enough")).await.unwrap();
    let ended = api.wait_for_end(first).await;
    assert_eq!(ended.state(), JobState::Cancelled, "{ended:?}");
    assert_eq!(marked(&mark), 0);
    assert!(!Path::new("/dev/shm").join(&mark).exists() && !Path::new("/tmp").join(&mark).exists());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&cluster.directory().display().to_string()), "{mounts}");
    audit::ledger(api).await;
}

/// Processes with this in their environment.
fn marked(mark: &str) -> usize {
    let mark = format!("MARK={mark}");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let environment = |path: PathBuf| fs::read(path.join("environ")).unwrap_or_default();
    let has = |bytes: Vec<u8>| bytes.split(|byte| *byte == 0).any(|it| it == mark.as_bytes());
    processes.filter(|process| has(environment(process.path()))).count()
}

async fn an_image_that_cannot_be_used_is_told_and_not_tried_for_ever(database: Database) {
    let Some((cluster, image)) = cluster(database).await else { return };
    let missing = image.with_file_name("missing");
    let cases = [
        (inside(command(&["sh"]), &missing), 127, "does not exist on this node"),
        (inside(command(&["sh"]), Path::new("/usr")), 126, "outside of what this node allows"),
        (inside(command(&["python3"]), &image), 127, "python3 was not found in the image"),
    ];
    for (spec, code, words) in cases {
        let job = cluster.api.submit(spec).await;
        let ended = cluster.api.wait_for_end(job).await;
        assert_eq!((ended.state(), ended.cause()), (JobState::Failed, Cause::User), "{ended:?}");
        assert_eq!((ended.exit.unwrap().code, ended.attempts.len()), (code, 1), "{ended:?}");
        assert!(ended.detail.contains(words), "{}", ended.detail);
    }
    audit::ledger(&cluster.api).await;
}

async fn a_job_with_an_image_waits_for_a_node_that_runs_images_and_is_told_so(database: Database) {
    let cluster = Cluster::start(database).await;
    let plain = cluster.add_virtual("plain", "b200", 2, Script::forever()).await;
    let gotgan = cluster.gotgan();
    let words =
        ["submit", "--project", ALPHA, "--gpus", "1", "--image", "/images/box", "--", "true"];
    let submitted = gotgan.run(&words);
    assert!(submitted.stderr.contains("no node runs jobs with an image now"), "{submitted:?}");
    let job = cluster.api.all_jobs().await[0].job_id;
    let why = cluster.api.wait_for_blocker(job, BlockerKind::Constraints).await;
    assert!(why.text.contains("a runtime for images"), "{why:?}");
    let said = gotgan.run(&["why", &job.to_string()]).ok();
    assert!(said.contains("a runtime for images") && said.contains("--image"), "{said}");
    let images = Images { able: true, by: "runc 1.1.5".into(), missing: String::new() };
    let able = NodeInventory { images: Some(images), ..inventory("able", "b200", 2) };
    let able = cluster.add_virtual_with(able, Script::forever()).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    assert_eq!((plain.runs().len(), able.runs().len()), (0, 1));
}

async fn bad_paths_of_images_are_refused_by_name(database: Database) {
    let cluster = Cluster::start(database).await;
    let gotgan = cluster.gotgan();
    for (image, fix) in [("torch", "not an absolute path"), ("/images/../etc", "\"..\"")] {
        let words = ["submit", "--project", ALPHA, "--image", image, "--", "true"];
        gotgan.run(&words).fails_with(3, &["--image", fix]);
    }
    assert!(cluster.api.all_jobs().await.is_empty(), "nothing was stored");
}
