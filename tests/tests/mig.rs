//! Instances of GPUs that are cut, through the whole system: a double of the driver's library, the real worker, the
//! scheduler and its ledger. What a real driver isolates a double cannot show.

use std::path::{Path, PathBuf};

use gotgan_proto::v1::{self, BlockerKind, JobState};
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::{Cluster, Database, audit, deadline, nvml_double};
use serde_json::{Value, json};

const SETTINGS: &str = "[timing]\nheartbeat_ms = 200\n";

const WORKER: &str = "\
reading_interval_ms = 100
reading_timeout_ms = 2000
[health]
kernel_log = false
";

/// Profile, compute slices, memory.
type Profile = (&'static str, u32, u64);

const ONE: Profile = ("1g.10gb", 1, 9_728);
const TWO: Profile = ("2g.20gb", 2, 19_968);
const THREE: Profile = ("3g.40gb", 3, 40_448);

fn instances(gpu: u32, profiles: &[Profile]) -> Value {
    let instance = |(number, (profile, slices, memory)): (u32, &Profile)| {
        json!({
            "uuid": uuid(gpu, number), "profile": profile, "gpu_instance": number,
            "compute_instance": 0, "memory_mib": memory, "slices": [slices, slices],
        })
    };
    (1..).zip(profiles).map(instance).collect()
}

/// Of an instance by its number on the GPU, from 1.
fn uuid(gpu: u32, number: u32) -> String {
    format!("MIG-0000000{gpu}-0000-4000-8000-00000000000{number}")
}

fn gpu(number: u32, cut: Option<&[Profile]>) -> Value {
    let mode = [u8::from(cut.is_some()); 2];
    json!({
        "uuid": format!("GPU-{number}"), "pci_bus_id": format!("00000000:0{number}:00.0"),
        "minor_number": number, "mig_mode": mode,
        "mig_devices": instances(number, cut.unwrap_or_default()),
    })
}

struct Machine {
    cluster: Cluster,
    driver: PathBuf,
}

impl Machine {
    /// A node with a GPU cut into two, one that is whole, and one that is cut into nothing.
    async fn start(database: Database) -> Self {
        let mut cluster = Cluster::builder(database).settings(SETTINGS).start().await;
        let driver = cluster.directory().join("driver");
        let library = nvml_double::place(&driver, &state(&[ONE, TWO]));
        let permissions = cluster.directory().join("capabilities");
        let settings = format!("mig_permissions = {permissions:?}\n{WORKER}");
        cluster.add_worker_with("m1", library.to_str().unwrap(), &settings).await;
        Self { cluster, driver }
    }

    fn cut_anew(&self, profiles: &[Profile]) {
        let (path, fresh) = (self.driver.join("nvml.json"), self.driver.join("new"));
        std::fs::write(&fresh, state(profiles).to_string()).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    }

    async fn instances(&self) -> Vec<String> {
        let node = self.cluster.api.try_node("m1").await.unwrap();
        let gpus = node.inventory.unwrap_or_default().gpus;
        let cuts = gpus.into_iter().filter_map(|gpu| gpu.mig);
        cuts.flat_map(|cut| cut.instances).map(|one| one.profile).collect()
    }
}

fn state(profiles: &[Profile]) -> Value {
    json!({ "gpus": [gpu(0, Some(profiles)), gpu(1, None), gpu(2, Some(&[]))] })
}

/// A job on an instance that tells what it is given and runs until a file is there.
fn job_on(profile: &str, end: &Path) -> v1::JobSpec {
    let told = "echo $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES $GOTGAN_GPU_MEMORY_MIB";
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", end.display());
    let mut spec = shell(&format!("{told}; {wait}")).grace(0);
    spec.resources.get_or_insert_default().mig_profile = profile.to_owned();
    spec
}

fn held(job: &v1::Job) -> Vec<(String, u32)> {
    let gpus = job.attempts[0].allocation.iter().flat_map(|node| &node.gpus);
    gpus.map(|gpu| (gpu.uuid.clone(), gpu.milli)).collect()
}

async fn two_jobs_share_a_gpu_by_instances_and_are_charged_their_parts(database: Database) {
    let machine = Machine::start(database).await;
    let (cluster, end) = (&machine.cluster, machine.cluster.directory().join("end"));
    let one = cluster.api.submit(job_on("1g.10gb", &end)).await;
    let two = cluster.api.submit(job_on("2g.20gb", &end)).await;
    let [one, two] = [one, two].map(|job| cluster.api.wait_for_state(job, JobState::Running));
    let (one, two) = (one.await, two.await);
    assert_eq!(held(&one), [(uuid(0, 1), 142)]);
    assert_eq!(held(&two), [(uuid(0, 2), 285)]);
    let third = cluster.api.submit(job_on("1g.10gb", &end)).await;
    let blocker = cluster.api.wait_for_blocker(third, BlockerKind::Capacity).await;
    let reason = "no free 1g.10gb instance on h100 GPUs: needs 1, 0 of 1 are free";
    assert_eq!(blocker.text, reason);
    assert!(cluster.gotgan().run(&["why", &third.to_string()]).ok().contains("no free 1g.10gb"));
    let share = cluster.api.submit(shell("echo $GOTGAN_GPU_MEMORY_MIB").half_a_gpu()).await;
    let share = cluster.api.wait_for_end(share).await;
    assert_eq!(held(&share), [("GPU-1".to_owned(), 500)], "the one that is whole");
    shows_what_is_held(cluster).await;
    std::fs::write(&end, "").unwrap();
    for job in [one.job_id, two.job_id, third] {
        assert_eq!(cluster.api.wait_for_end(job).await.state(), JobState::Completed);
    }
    for (job, told) in [
        (one.job_id, format!("{0} {0} 9728\n", uuid(0, 1))),
        (two.job_id, format!("{0} {0} 19968\n", uuid(0, 2))),
        (share.job_id, "40779\n".to_owned()),
    ] {
        assert_eq!(cluster.api.output(job, 0, 0).await, told);
    }
    audit::ledger(&cluster.api).await;
    let node = cluster.api.try_node("m1").await.unwrap();
    assert_eq!(node.free_gpu_milli, 1000 + 142 + 285, "all is free again");
}

async fn shows_what_is_held(cluster: &Cluster) {
    let node = cluster.api.try_node("m1").await.unwrap();
    assert_eq!(node.gpu_allocated_milli[0], 142 + 285);
    assert_eq!(node.instances_held, [uuid(0, 1), uuid(0, 2)]);
    let shown = cluster.gotgan().run(&["node", "m1"]).ok();
    assert!(shown.contains("MIG is on, without instances"), "{shown}");
    assert!(shown.contains("1g.10gb") && shown.contains("IN USE"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
}

on_each_database! {
    two_jobs_share_a_gpu_by_instances_and_are_charged_their_parts,
    a_gpu_is_cut_by_plan_once_its_jobs_have_left_it,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sites_own_tools_cut_is_noticed_while_the_worker_runs() {
    let machine = Machine::start(Database::Sqlite).await;
    let (cluster, end) = (&machine.cluster, machine.cluster.directory().join("end"));
    let waits = cluster.api.submit(job_on("2g.20gb", &end)).await;
    cluster.api.wait_for_state(waits, JobState::Running).await;
    std::fs::write(&end, "").unwrap();
    cluster.api.wait_for_end(waits).await;
    machine.cut_anew(&[THREE, THREE]);
    deadline::until("the new instances to be registered", async || {
        let found = machine.instances().await;
        if found == ["3g.40gb", "3g.40gb"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let gone = cluster.api.try_submit(job_on("2g.20gb", &end)).await.unwrap_err();
    let message = "no GPU is cut into instances of 2g.20gb; did you mean \"3g.40gb\"?";
    assert!(gone.message().contains(message), "{}", gone.message());
    let large = cluster.api.submit(job_on("3g.40gb", &end)).await;
    let large = cluster.api.wait_for_end(large).await;
    assert_eq!((large.state(), held(&large)), (JobState::Completed, vec![(uuid(0, 1), 428)]));
    audit::ledger(&cluster.api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_get_an_instance_each_and_simulated_ones_say_so() {
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    cluster.add_worker("s1", "1xH100:7x1g.10gb").await;
    let mut spec = v1::JobSpec {
        work: Some(v1::job_spec::Work::Command(v1::Command {
            argv: ["/bin/sh", "-c", "echo $CUDA_VISIBLE_DEVICES $WORLD_SIZE"]
                .map(Into::into)
                .into(),
            layout: v1::TaskLayout::PerGpu.into(),
        })),
        ..shell("")
    };
    let resources = spec.resources.get_or_insert_default();
    (resources.mig_profile, resources.gpus_per_node) = ("1g.10gb".to_owned(), 2);
    let job = cluster.api.submit(spec).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(ended.state(), JobState::Completed);
    for rank in 0..2 {
        let told = cluster.api.output(job, 0, rank).await;
        assert_eq!(told, format!("MIG-SIM-s1-0-{rank} 2\n"));
    }
    assert!(cluster.gotgan().run(&["node", "s1"]).ok().contains("simulated"));
    audit::ledger(&cluster.api).await;
}

fn write_state(machine: &Machine, state: &Value) {
    let (path, fresh) = (machine.driver.join("nvml.json"), machine.driver.join("new"));
    std::fs::write(&fresh, state.to_string()).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
}

fn cut(machine: &Machine, gpu: &str, profiles: &str) -> String {
    let words = ["node", "mig", "m1", "--gpu", gpu, "--profiles", profiles];
    machine.cluster.gotgan().run(&words).ok()
}

async fn wait_until_shown(machine: &Machine, text: &str) -> String {
    deadline::until(&format!("the node to show {text:?}"), async || {
        let shown = machine.cluster.gotgan().run(&["node", "m1"]).ok();
        if shown.contains(text) { Ok(shown) } else { Err(shown) }
    })
    .await
}

async fn a_gpu_is_cut_by_plan_once_its_jobs_have_left_it(database: Database) {
    let mut machine = Machine::start(database).await;
    let end = machine.cluster.directory().join("end");
    let one = machine.cluster.api.submit(job_on("1g.10gb", &end)).await;
    machine.cluster.api.wait_for_state(one, JobState::Running).await;
    let told = cut(&machine, "0", "3g.40gb,2x2g.20gb");
    assert_eq!(
        told,
        "GPU 0 of node m1 is cut into 3g.40gb, 2g.20gb, 2g.20gb once nothing is on it\n"
    );
    assert!(cut(&machine, "0", "3g.40gb,2x2g.20gb").contains("nothing to do"), "it is planned");
    let shown = wait_until_shown(&machine, "once nothing is on it").await;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let waits = machine.cluster.api.submit(job_on("1g.10gb", &end)).await;
    let kind = BlockerKind::NodesUnavailable;
    let blocker = machine.cluster.api.wait_for_blocker(waits, kind).await;
    assert!(blocker.text.contains("to be cut into 3g.40gb, 2g.20gb, 2g.20gb"), "{}", blocker.text);
    // Neither forgets it.
    machine.cluster.scheduler.kill();
    machine.cluster.scheduler.start();
    machine.cluster.worker("m1").kill();
    machine.cluster.worker("m1").restart();
    machine.cluster.api.wait_for_node("m1", v1::NodeLiveness::Ready).await;
    assert_eq!(machine.instances().await, ["1g.10gb", "2g.20gb"], "a job is on it still");
    std::fs::write(&end, "").unwrap();
    machine.cluster.api.wait_for_end(one).await;
    deadline::until("the GPU to be cut", async || {
        let found = machine.instances().await;
        let wanted = ["3g.40gb", "2g.20gb", "2g.20gb"];
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let large = machine.cluster.api.submit(job_on("3g.40gb", &end)).await;
    let large = machine.cluster.api.wait_for_end(large).await;
    assert_eq!((large.state(), held(&large)[0].1), (JobState::Completed, 428));
    let history = machine.cluster.gotgan().run(&["--json", "node", "history", "m1"]).ok();
    for kind in ["gpu_cut_planned", "gpu_cut_done"] {
        assert_eq!(history.matches(kind).count(), 1, "{history}");
    }
    machine.cluster.gotgan().run(&["cancel", &waits.to_string()]).ok();
    audit::ledger(&machine.cluster.api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_cannot_be_cut_stays_out_with_the_reason_until_the_command_is_repeated() {
    let machine = Machine::start(Database::Sqlite).await;
    let mut broken = state(&[ONE, TWO]);
    broken["gpus"][1]["answers"] = json!({ "nvmlDeviceSetMigMode": { "code": 4 } });
    write_state(&machine, &broken);
    cut(&machine, "1", "7g.80gb");
    let shown = wait_until_shown(&machine, "no permission").await;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let whole = machine.cluster.api.submit(shell("true").gpus(1)).await;
    let kind = BlockerKind::NodesUnavailable;
    let blocker = machine.cluster.api.wait_for_blocker(whole, kind).await;
    assert!(blocker.text.contains("switch MIG on: no permission"), "{}", blocker.text);
    write_state(&machine, &state(&[ONE, TWO]));
    let again = cut(&machine, "1", "7g.80gb");
    assert!(again.contains("once nothing is on it"), "{again}");
    deadline::until("the GPU to be cut", async || {
        let found = machine.instances().await;
        if found.contains(&"7g.80gb".to_owned()) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    machine.cluster.gotgan().run(&["node", "mig", "m1", "--gpu", "1", "--whole"]).ok();
    let whole = machine.cluster.api.wait_for_end(whole).await;
    assert_eq!((whole.state(), held(&whole)), (JobState::Completed, vec![("GPU-1".into(), 1000)]));
    let impossible = machine.cluster.gotgan();
    let impossible = impossible.run(&["node", "mig", "m1", "--gpu", "0", "--profiles", "9g"]);
    assert!(impossible.stderr.contains("\"9g\" is no MIG profile"), "{}", impossible.stderr);
    cut(&machine, "0", "5x2g.20gb");
    wait_until_shown(&machine, "out of resources").await;
}
