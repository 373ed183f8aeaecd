//! Faults of GPUs, through the whole system: a double of the driver's library, the real worker, the scheduler, its ledger.
//!
//! `docs/operations/faults.md` is made from the same table: `GOTGAN_WRITE_DOCS=1 cargo test -p gotgan-tests faults`.

#[path = "faults/table.rs"]
mod table;

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gotgan_proto::v1::{self, AttemptState, Cause, HealthState, JobState};
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::virtual_worker::{Script, VirtualWorker, inventory};
use gotgan_tests::{Cluster, Database, audit, deadline, nvml_double};
use serde_json::{Value, json};
use table::{FAULTS, Fault, Happens, Job};

/// Nodes at a time: each has a worker, a process that reads its GPUs, and a job.
const AT_ONCE: usize = 7;
/// Kind of the event in which the driver tells of an Xid.
const XID_EVENT: u64 = 8;

const SETTINGS: &str = "\
[timing]
heartbeat_ms = 200
[policy.health]
verify_s = 1
slowdown_s = 1
breaker_percent = 100
";

const WORKER: &str = "\
reading_interval_ms = 100
reading_timeout_ms = 2000
[health]
kernel_log = false
leftover_after_ms = 200
";

/// A node with a double of its driver's library.
struct Patient {
    name: String,
    directory: PathBuf,
    state: Value,
}

impl Patient {
    async fn admit(cluster: &mut Cluster, name: &str, settings: &str) -> Self {
        let directory = cluster.directory().join(format!("driver-{name}"));
        let gpu = |number: u32| {
            json!({
                "uuid": format!("GPU-{name}-{number}"), "pci_bus_id": format!("00000000:0{number}:00.0"),
                "minor_number": number, "nvlinks": [{}, {}],
                "fabric": { "cluster": "a1b2c3d4000000000000000000000001", "clique": 7 },
            })
        };
        let state = json!({ "gpus": [gpu(0), gpu(1)], "events": [], "count_calls": true });
        let library = nvml_double::place(&directory, &state);
        let patient = Patient { name: name.to_owned(), directory, state };
        let settings = format!("labels = {{ patient = \"{name}\" }}\n{settings}");
        cluster.add_worker_with(name, library.to_str().unwrap(), &settings).await;
        patient.wait_until_watched().await;
        patient
    }

    /// Until events of both GPUs are waited for: what came before would not be told.
    async fn wait_until_watched(&self) {
        deadline::until("the reader to wait for events", async || {
            let calls = calls_of(&self.directory, "nvmlDeviceRegisterEvents");
            if calls >= 2 { Ok(()) } else { Err(format!("{calls} GPUs are watched")) }
        })
        .await;
    }

    fn write(&self, state: &Value) {
        let (path, fresh) = (self.directory.join("nvml.json"), self.directory.join("new"));
        std::fs::write(&fresh, state.to_string()).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    }

    fn suffer(&self, happens: &Happens) {
        let mut state = self.state.clone();
        match happens {
            Happens::Xid(number) => {
                let uuid = format!("GPU-{}-0", self.name);
                state["events"] =
                    json!([{ "number": 1, "uuid": uuid, "kind": XID_EVENT, "data": number }]);
            }
            Happens::Reads(change) => change(state["gpus"].as_array_mut().unwrap()),
        }
        self.write(&state);
    }

    fn recover(&self) {
        self.write(&self.state);
    }
}

fn calls_of(directory: &Path, function: &str) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let counts = files.filter(|file| file.file_name().to_string_lossy().starts_with("nvml-calls."));
    let counts = counts.filter_map(|file| std::fs::read(file.path()).ok());
    let counts = counts.filter_map(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    counts.filter_map(|counts| counts[function].as_u64()).sum()
}

/// How hardware stands, and what is to be done; draining is out with something on it.
fn words(health: &v1::HardwareHealth) -> String {
    let state = match health.state() {
        HealthState::Unspecified => "unspecified",
        HealthState::Ok => "ok",
        HealthState::Suspect => "suspect",
        HealthState::Draining | HealthState::Out => "out",
        HealthState::Verifying => "verifying",
    };
    if health.repair.is_empty() { state.to_owned() } else { format!("{state}, {}", health.repair) }
}

async fn stands(cluster: &Cluster, node: &str, index: usize) -> (String, String) {
    let node = cluster.api.try_node(node).await.unwrap();
    let whole = words(&node.health.unwrap_or_default());
    (words(&node.gpu_health[index]), whole)
}

async fn wait_until_it_stands(cluster: &Cluster, node: &str, index: usize, wanted: (&str, &str)) {
    let what = format!("GPU {index} of {node} to be {:?}, the node {:?}", wanted.0, wanted.1);
    deadline::until(&what, async || {
        let found = stands(cluster, node, index).await;
        if (found.0.as_str(), found.1.as_str()) == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

/// Waits until the history of a node tells this.
async fn wait_until_told(cluster: &Cluster, node: &str, text: &str) {
    deadline::until(&format!("{node} to tell {text:?}"), async || {
        let history = cluster.gotgan().run(&["--json", "node", "history", node]).ok();
        if history.contains(text) { Ok(()) } else { Err(history) }
    })
    .await;
}

/// A job on the node that runs until it is told how to end; where it runs again, it ends well at once.
async fn run_job(cluster: &Cluster, patient: &Patient) -> u64 {
    let end = patient.directory.join("end");
    let line = format!("while [ ! -e {0} ]; do sleep 0.05; done; exit $(cat {0})", end.display());
    let mut spec = shell(&line).gpus(1).grace(0);
    let constraints = spec.constraints.get_or_insert_default();
    constraints.labels.insert("patient".to_owned(), patient.name.clone());
    let job = cluster.api.submit(spec).await;
    let running = cluster.api.wait_for_state(job, JobState::Running).await;
    let gpu = &running.attempts[0].allocation[0].gpus[0].uuid;
    assert_eq!(*gpu, format!("GPU-{}-0", patient.name), "the first GPU is given out first");
    job
}

fn end_job(patient: &Patient, code: u8) {
    let (path, fresh) = (patient.directory.join("end"), patient.directory.join("end.new"));
    std::fs::write(&fresh, code.to_string()).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
}

/// A node without faults that has the label of another, for what must run elsewhere.
async fn add_refuge(cluster: &Cluster, patient: &Patient) -> VirtualWorker {
    let mut refuge = inventory(&format!("refuge-{}", patient.name), "h100", 1);
    refuge.labels.insert("patient".to_owned(), patient.name.clone());
    let script = Script::succeed_after(std::time::Duration::ZERO);
    cluster.add_virtual_with(refuge, script).await
}

async fn suffers(cluster: &Cluster, patient: &Patient, fault: &Fault, job: u64) {
    let _refuge = add_refuge(cluster, patient).await;
    patient.suffer(&fault.happens);
    wait_until_told(cluster, &patient.name, fault.told).await;
    wait_until_it_stands(cluster, &patient.name, 0, (fault.gpu, fault.node)).await;
    let other = stands(cluster, &patient.name, 1).await;
    assert_eq!(other, ("ok".to_owned(), fault.node.to_owned()), "{}: its other GPU", fault.name);
    match fault.job {
        Job::GoesOn => end_job(patient, 0),
        Job::FailsNow => {}
        Job::HardwarePays | Job::UserPays => end_job(patient, 1),
    }
    let ended = cluster.api.wait_for_end(job).await;
    let causes: Vec<Cause> = ended.attempts.iter().map(v1::Attempt::cause).collect();
    let told = format!("{}: {causes:?} {ended:?}", fault.name);
    let first = &ended.attempts[0];
    assert_eq!(first.state(), AttemptState::Ended, "{told}");
    match fault.job {
        Job::GoesOn => {
            assert_eq!((ended.state(), causes.len()), (JobState::Completed, 1), "{told}")
        }
        Job::UserPays => {
            assert_eq!(
                (ended.state(), &causes[..]),
                (JobState::Failed, &[Cause::User][..]),
                "{told}"
            );
            assert_eq!(first.refunded_gpu_milli_seconds, 0, "{told}");
        }
        Job::FailsNow | Job::HardwarePays => {
            assert_eq!(
                (ended.state(), causes[0]),
                (JobState::Completed, Cause::Hardware),
                "{told}"
            );
            let charged = first.charged_gpu_milli_seconds;
            assert_eq!(first.refunded_gpu_milli_seconds, charged, "{told}");
            let last = &ended.attempts[1].allocation[0].node;
            assert_eq!((causes.len(), last.starts_with("refuge-")), (2, true), "{told}");
        }
    }
}

/// What the GPU shows is over, or a person says that it was repaired: it takes work again.
async fn comes_back(cluster: &Cluster, patient: &Patient, fault: &Fault) {
    patient.recover();
    let name = patient.name.as_str();
    if matches!(fault.happens, Happens::Xid(_)) || fault.name == "ecc-rose" {
        cluster.gotgan().run(&["node", "verify", name]).ok();
    }
    wait_until_it_stands(cluster, name, 0, ("ok", "ok")).await;
    let node = cluster.api.try_node(name).await.unwrap();
    assert_eq!((node.free_gpu_milli, node.no_work_reason.as_str()), (2_000, ""), "{name}");
}

async fn part_of_the_table(part: usize) {
    let Some(faults) = FAULTS.chunks(AT_ONCE).nth(part) else {
        panic!("there are fewer faults than tests of them");
    };
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    let mut patients = Vec::new();
    for fault in faults {
        let patient = Patient::admit(&mut cluster, fault.name, WORKER).await;
        let job = run_job(&cluster, &patient).await;
        patients.push((patient, job));
    }
    let all = faults.iter().zip(&patients).map(async |(fault, (patient, job))| {
        suffers(&cluster, patient, fault, *job).await;
        comes_back(&cluster, patient, fault).await;
    });
    futures::future::join_all(all).await;
    audit::ledger(&cluster.api).await;
}

macro_rules! parts_of_the_table {
    ($($name:ident: $part:literal,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            part_of_the_table($part).await;
        })*

        #[test]
        fn every_fault_of_the_table_is_tried() {
            let parts = [$($part,)*];
            assert_eq!(parts.len(), FAULTS.chunks(AT_ONCE).len());
            assert!(FAULTS.len() >= 40);
        }
    };
}

parts_of_the_table! {
    what_must_follow_from_each_fault_follows_part_0: 0,
    what_must_follow_from_each_fault_follows_part_1: 1,
    what_must_follow_from_each_fault_follows_part_2: 2,
    what_must_follow_from_each_fault_follows_part_3: 3,
    what_must_follow_from_each_fault_follows_part_4: 4,
    what_must_follow_from_each_fault_follows_part_5: 5,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_on_a_gpu_that_no_job_has_keep_jobs_away_from_it() {
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    let patient = Patient::admit(&mut cluster, "leftover", WORKER).await;
    let mut state = patient.state.clone();
    state["gpus"][1]["processes"] = json!([{ "pid": 4711, "memory_bytes": 1 << 30 }]);
    patient.write(&state);
    wait_until_it_stands(&cluster, "leftover", 1, ("out, service", "ok")).await;
    let job = cluster.api.submit(shell("sleep 1000").gpus(2).class("h100")).await;
    let blocker = cluster.api.wait_for_blocker(job, v1::BlockerKind::NodesUnavailable).await;
    assert!(blocker.text.contains("leftover (1 of 2 GPUs out"), "{}", blocker.text);
    patient.recover();
    cluster.api.wait_for_state(job, JobState::Running).await;
    wait_until_it_stands(&cluster, "leftover", 1, ("ok", "ok")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_brake_on_a_whole_rack_is_an_alarm_and_takes_nothing_out() {
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    let settings = format!("topology = {{ rack = \"r12\" }}\n{WORKER}");
    let mut patients = Vec::new();
    for name in ["tray-1", "tray-2", "tray-3"] {
        patients.push(Patient::admit(&mut cluster, name, &settings).await);
    }
    for patient in &patients {
        patient.suffer(&Happens::Reads(|gpus| gpus[0]["clock_reasons"] = json!(128)));
    }
    deadline::until("the alarm", async || {
        let shown = cluster.gotgan().run(&["cluster"]).ok();
        let line = "ALARM rack r12: 3 of 3 nodes are slowed down by the power supply";
        if shown.contains(line) { Ok(()) } else { Err(shown) }
    })
    .await;
    for patient in &patients {
        assert_eq!(stands(&cluster, &patient.name, 0).await, ("suspect".into(), "ok".into()));
        patient.recover();
    }
    deadline::until("the alarm to end", async || {
        let alarms = cluster.api.status().await.unwrap().facility_alarms;
        if alarms.is_empty() { Ok(()) } else { Err(format!("{alarms:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_stops_a_bad_driver_and_a_person_resets_it() {
    let settings =
        SETTINGS.replace("breaker_percent = 100", "breaker_percent = 0\nbreaker_nodes = 1");
    let mut cluster = Cluster::builder(Database::Sqlite).settings(&settings).start().await;
    let mut patients = Vec::new();
    for name in ["gpu-1", "gpu-2"] {
        patients.push(Patient::admit(&mut cluster, name, WORKER).await);
    }
    let wants_reset = Happens::Reads(|gpus| gpus[0]["recovery_action"] = json!(1));
    patients[0].suffer(&wants_reset);
    wait_until_it_stands(&cluster, "gpu-1", 0, ("out, reset", "ok")).await;
    patients[1].suffer(&wants_reset);
    wait_until_it_stands(&cluster, "gpu-2", 0, ("suspect, reset", "ok")).await;
    let shown = cluster.gotgan().run(&["cluster"]).ok();
    assert!(shown.contains("ALARM all nodes: nothing is taken out by itself any more"), "{shown}");
    let reset = ["node", "reset-breaker", "all nodes"];
    patients[0].recover();
    wait_until_it_stands(&cluster, "gpu-1", 0, ("ok", "ok")).await;
    assert_eq!(cluster.gotgan().run(&reset).ok(), "the breaker of all nodes is reset\n");
    wait_until_it_stands(&cluster, "gpu-2", 0, ("out, reset", "ok")).await;
    let again = cluster.gotgan().run(&reset);
    assert!(again.stderr.contains("no breaker of \"all nodes\" is broken"), "{}", again.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sites_own_program_resets_a_gpu_once_nothing_is_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let (said, program) = (directory.path().join("said"), directory.path().join("repair"));
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}\n", said.display())).unwrap();
    let command = json!(["/bin/sh", program]).to_string();
    let settings = format!("{SETTINGS}[health]\nrepair_command = {command}\n");
    let mut cluster = Cluster::builder(Database::Sqlite).settings(&settings).start().await;
    let patient = Patient::admit(&mut cluster, "worn", WORKER).await;
    let job = run_job(&cluster, &patient).await;
    patient.suffer(&Happens::Xid(64));
    wait_until_it_stands(&cluster, "worn", 0, ("out, reset", "ok")).await;
    assert!(!said.exists(), "a job is still on it");
    end_job(&patient, 0);
    cluster.api.wait_for_end(job).await;
    wait_until_it_stands(&cluster, "worn", 0, ("ok", "ok")).await;
    assert_eq!(std::fs::read_to_string(&said).unwrap(), "worn reset GPU-worn-0\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_out_comes_back_only_after_the_sites_own_check_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (asked, answer) = (directory.path().join("asked"), directory.path().join("answer"));
    let program = directory.path().join("check");
    let said = "\"$GOTGAN_HOOK $GOTGAN_CHECK $GOTGAN_NODE $GOTGAN_GPUS\"";
    let script = format!(
        "#!/bin/sh\necho {said} >> {}\nwhile [ ! -e {1} ]; do sleep 0.05; done\n. {1}\n",
        asked.display(),
        answer.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    let settings = format!("{WORKER}[hooks]\ncheck = {program:?}\n");
    let patient = Patient::admit(&mut cluster, "checked", &settings).await;
    let wants_reset = Happens::Reads(|gpus| gpus[1]["recovery_action"] = json!(1));
    patient.suffer(&wants_reset);
    wait_until_it_stands(&cluster, "checked", 1, ("out, reset", "ok")).await;
    patient.recover();
    deadline::until("the check to be asked", async || {
        std::fs::read_to_string(&asked).map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), "check gpu checked GPU-checked-1\n");
    // Another that comes and goes meanwhile takes a second for itself, which is what the first would have had to wait.
    patient.suffer(&Happens::Reads(|gpus| gpus[0]["recovery_action"] = json!(1)));
    wait_until_it_stands(&cluster, "checked", 0, ("out, reset", "ok")).await;
    assert_eq!(stands(&cluster, "checked", 1).await.0, "verifying");
    let shown = cluster.gotgan().run(&["node", "checked"]).ok();
    assert!(shown.contains("the site's check"), "{shown}");
    std::fs::write(&answer, "exit 0\n").unwrap();
    wait_until_it_stands(&cluster, "checked", 1, ("ok", "ok")).await;
    wait_until_told(&cluster, "checked", "GPU 1 passed the site's check").await;
    std::fs::write(&answer, "echo 'slow memory'; exit 1\n").unwrap();
    patient.recover();
    wait_until_it_stands(&cluster, "checked", 0, ("out, service", "ok")).await;
    let health = &cluster.api.try_node("checked").await.unwrap().gpu_health[0];
    assert!(health.reason.starts_with("GPU 0 failed the site's check"), "{}", health.reason);
    assert!(health.reason.ends_with("slow memory"), "{}", health.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_the_hardware_outlives_the_scheduler() {
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    let patient = Patient::admit(&mut cluster, "kept", WORKER).await;
    patient.suffer(&Happens::Xid(119));
    wait_until_it_stands(&cluster, "kept", 0, ("out, reset", "ok")).await;
    cluster.scheduler.kill();
    cluster.scheduler.start();
    cluster.api.wait_for_node("kept", v1::NodeLiveness::Ready).await;
    assert_eq!(stands(&cluster, "kept", 0).await, ("out, reset".into(), "ok".into()));
    let history = cluster.gotgan().run(&["node", "history", "kept"]).ok();
    assert_eq!(history.matches("hardware sign").count(), 1, "it is told once: {history}");
    assert!(history.lines().all(|line| line.chars().count() <= 80), "{history}");
}

/// The page for people, made from the table.
fn page() -> String {
    let mut page = String::from(
        "# Faults, and what follows\n\n\
         Made from the table of faults that the tests try through the whole system, over a double of the driver's library \
         (`tests/tests/faults`): a node with two GPUs, a job on the first of them, and the fault there. The rules are Gotgan's own; a \
         site can change them ([health.md](health.md)). \"out\" takes no new work, and is told to be \"draining\" while \
         something runs on it. What lasts is told by the next heartbeat, and at once where the GPU cannot be used; an Xid is told at \
         once. A double cannot show what a real driver does in each case.\n\n\
         | what happens | what is told | the GPU | its node | a job on the GPU | who pays for it |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for fault in FAULTS {
        let what = match fault.happens {
            Happens::Xid(number) => format!("Xid {number}"),
            Happens::Reads(_) => fault.what.to_owned(),
        };
        let told = if fault.told.is_empty() { "nothing" } else { fault.told };
        let Fault { gpu, node, job, .. } = fault;
        let (text, pays) = (job.text(), job.who_pays());
        let _ = writeln!(page, "| {what} | {told} | {gpu} | {node} | {text} | {pays} |");
    }
    page.push_str(
        "\nBesides: processes on a GPU that no job has keep jobs away from it until they are gone; heat or a power brake on \
         many nodes of a rack is an alarm and takes nothing out; past a part of a hall the breaker keeps everything that can still \
         compute in service. Hardware comes back by itself once what it showed is over and it was well for a while, after an Xid when \
         it was reset, repaired or verified by a person.\n",
    );
    page
}

#[test]
fn the_page_of_faults_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/faults.md");
    if std::env::var_os("GOTGAN_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "run: GOTGAN_WRITE_DOCS=1 cargo test -p gotgan-tests faults");
}
