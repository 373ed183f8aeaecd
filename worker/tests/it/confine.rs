//! What keeps attempts from what is not their own, on the kernel that runs the tests.
//!
//! A test that needs root, or a part of the kernel that is not here, says so and passes.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{Cause, Confinement, GpuAllocation, JobSpec, ReadLog, RunAttempt};
use gotgan_worker::shim::tree;

use crate::cluster::{
    Cluster, Peer, command, end_of, eventually, has_line, script, step, task_end,
};
use crate::double::{self, Double};

const GPUS: [&str; 2] = ["--simulate", "2xB200"];
/// Nobody in particular, who is not root.
const NOBODY: u32 = 65_534;

fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: {what} needs root");
    }
    root
}

fn confinement(peer: &Peer) -> Confinement {
    peer.register.inventory.clone().unwrap().confinement.unwrap()
}

/// Whether the worker applies it; if not, it must have said that it is missing.
fn applies(peer: &Peer, measure: &str) -> bool {
    let Confinement { applied, missing, .. } = confinement(peer);
    let applied = applied.iter().any(|word| word == measure);
    let missing = missing.iter().find(|sentence| sentence.starts_with(measure));
    assert_eq!(applied, missing.is_none(), "{measure} is neither applied nor missing, or both");
    if let Some(missing) = missing {
        eprintln!("skipped: {missing}");
    }
    applied
}

/// Lines that a job has written.
fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The cgroup of an attempt, as one of its own processes has seen it, from here.
fn cgroup_of(line: &str) -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let place = mount.split(' ').nth(1).unwrap();
    PathBuf::from(format!("{place}{}", line.strip_prefix("0::").unwrap()))
}

/// Processes with this mark in their environment.
fn marked(mark: &str) -> usize {
    let processes = tree::processes().unwrap();
    let environment = |pid: i32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let has = |pid: i32| String::from_utf8_lossy(&environment(pid)).contains(mark);
    processes.iter().filter(|process| !process.zombie && has(process.pid)).count()
}

#[tokio::test]
async fn what_a_machine_lacks_is_said_and_what_it_has_is_applied() {
    let mut cluster = Cluster::start_outside_tmp().await;
    let _daemon = cluster.daemon();
    let peer = cluster.peer().await;
    let all =
        ["cgroup", "memory limit", "CPU limit", "process limit", "namespaces", "private /tmp"];
    for measure in all.into_iter().chain(["device filter", "no new privileges", "own user"]) {
        applies(&peer, measure);
    }
    let Confinement { missing, .. } = confinement(&peer);
    // Nobody was named whom tasks are to run as.
    assert!(missing.iter().any(|sentence| sentence.starts_with("own user: ")), "{missing:?}");
}

#[tokio::test]
async fn a_worker_that_must_confine_and_cannot_does_not_start_and_says_what_it_lacks() {
    let cluster = Cluster::start().await;
    let path = cluster.output("worker.toml");
    std::fs::write(&path, "[confinement]\nmode = \"required\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gotgan-worker"))
        .args([
            "run",
            "--insecure",
            "--scheduler",
            "http://127.0.0.1:9",
            "--node",
            "n1",
            "--config",
        ])
        .arg(&path)
        .arg("--state-dir")
        .arg(cluster.state())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(!output.status.success());
    for word in ["required", "private /tmp: ", "own user: ", "best_effort"] {
        assert!(last.contains(word), "{last}");
    }
}

#[tokio::test]
async fn with_confinement_off_nothing_is_applied_nor_missing() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon_of("[confinement]\nmode = \"off\"\n", &GPUS);
    let mut peer = cluster.peer().await;
    let Confinement { applied, missing, .. } = confinement(&peer);
    assert!(applied.is_empty() && missing.is_empty());
    let out = cluster.output("out");
    let body = format!("grep NoNewPrivs /proc/self/status > {}", out.display());
    peer.order(Order::RunAttempt(script(7, &body))).await;
    peer.reports_until_end().await;
    assert_eq!(lines(&out), ["NoNewPrivs:\t0"]);
}

#[tokio::test]
async fn a_job_neither_sees_nor_signals_a_process_of_another_job() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    if !applies(&peer, "namespaces") {
        return;
    }
    let (ready, out) = (cluster.output("ready"), cluster.output("out"));
    let body = format!("exec -a victim-of-8 sleep 1000 & echo x > {}; wait", ready.display());
    let body = format!("exec bash -c '{body}'");
    peer.order(Order::RunAttempt(script(7, &body))).await;
    eventually("ready", || has_line(&ready)).await;
    let is_victim = |process: &tree::Process| {
        let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        command.starts_with(b"victim-of-8")
    };
    let find = || tree::processes().unwrap().into_iter().find(is_victim);
    eventually("the victim is there", || find().is_some()).await;
    let victim = find().unwrap().pid;
    let body = format!(
        "exec > {}\ncat /proc/[0-9]*/cmdline | grep -c '[v]ictim-of-8'\n\
         kill -9 {victim} 2> /dev/null && echo killed || echo refused\n\
         ls /proc | grep -c '^[0-9]'\necho end",
        out.display()
    );
    peer.order(Order::RunAttempt(script(8, &body))).await;
    let is_end_of_8 = |event: &Event| matches!(event, Event::Ended(_));
    peer.reports_until(is_end_of_8).await;
    let said = lines(&out);
    assert_eq!(said[..2], ["0", "refused"]);
    assert!(said[2].parse::<u32>().unwrap() < 8, "{said:?}");
    assert!(find().is_some());
    peer.stop(7, Cause::User, 0).await;
    peer.reports_until_end().await;
}

#[tokio::test]
async fn tmp_and_shared_memory_are_each_jobs_own_and_gone_with_it() {
    let mut cluster = Cluster::start_outside_tmp().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    if !applies(&peer, "private /tmp") {
        return;
    }
    let name = format!("gotgan-test-{}", std::process::id());
    let (ready, out) = (cluster.output("ready"), cluster.output("out"));
    let body = format!(
        "echo secret > /tmp/{name} && echo secret > /dev/shm/{name} && echo x > {}; sleep 1000",
        ready.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    eventually("ready", || has_line(&ready)).await;
    let body = format!(
        "ls /tmp /dev/shm > {out}; echo x > /tmp/{name} && stat -c %a /tmp >> {out}",
        out = out.display()
    );
    peer.order(Order::RunAttempt(script(8, &body))).await;
    peer.reports_until(|event| matches!(event, Event::Ended(_))).await;
    assert_eq!(lines(&out), ["/dev/shm:", "", "/tmp:", "1777"]);
    assert!(!Path::new("/tmp").join(&name).exists() && !Path::new("/dev/shm").join(&name).exists());
    let kept = cluster.state().join("attempts/7.1/private/tmp").join(&name);
    assert!(kept.exists());
    peer.stop(7, Cause::User, 0).await;
    peer.reports_until_end().await;
    eventually("it is removed", || !kept.exists()).await;
}

#[tokio::test]
async fn outputs_and_directories_that_would_end_with_the_job_are_refused() {
    let mut cluster = Cluster::start_outside_tmp().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    if !applies(&peer, "private /tmp") {
        return;
    }
    let mut order = script(7, "true");
    order.spec.as_mut().unwrap().output_path = "/tmp/out".into();
    peer.order(Order::RunAttempt(order)).await;
    let ended = task_end(&peer.reports_until_end().await, 0, 0);
    assert!(ended.detail.contains("each job's own"), "{}", ended.detail);
    let mut order = script(8, "true");
    order.spec.as_mut().unwrap().working_directory = "/tmp/gotgan-no-such-place".into();
    peer.order(Order::RunAttempt(order)).await;
    let ended = task_end(&peer.reports_until_end().await, 0, 0);
    assert!(ended.detail.contains("each job's own"), "{}", ended.detail);
}

#[tokio::test]
async fn every_process_of_an_attempt_is_in_its_cgroup_which_is_gone_after_it() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    if !applies(&peer, "cgroup") {
        return;
    }
    let (own, other) = (cluster.output("own"), cluster.output("other"));
    let look = |out: &Path| format!("grep ^0:: /proc/self/cgroup > {}", out.display());
    peer.order(Order::RunAttempt(script(7, &format!("{}; sleep 1000", look(&own))))).await;
    eventually("ready", || has_line(&own)).await;
    peer.order(step(7, 1, &["sh", "-c", &look(&other)])).await;
    eventually("the step has run", || has_line(&other)).await;
    let cgroup = cgroup_of(&lines(&own)[0]);
    assert_eq!(lines(&own), lines(&other));
    assert!(cgroup.ends_with(format!("{}", cgroup.file_name().unwrap().display())));
    assert!(cgroup.to_str().unwrap().ends_with(".7.1"), "{}", cgroup.display());
    assert!(cgroup.exists());
    peer.stop(7, Cause::User, 0).await;
    peer.reports_until_end().await;
    assert!(!cgroup.exists());
}

#[tokio::test]
async fn what_forks_ignores_term_and_hides_is_gone_with_its_cgroup() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    if !applies(&peer, "cgroup") {
        return;
    }
    let out = cluster.output("out");
    let mark = format!("GOTGAN_TEST_MARK={}", cluster.directory.path().display());
    let body = format!(
        "trap '' TERM\nexport {mark}\ngrep ^0:: /proc/self/cgroup > {}\n\
         for i in 1 2 3 4 5 6 7 8 9 10; do setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & done\n\
         while :; do sleep 0.05; done",
        out.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    eventually("all are there", || has_line(&out) && marked(&mark) > 10).await;
    peer.stop(7, Cause::Preempted, 0).await;
    let (cause, ..) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, marked(&mark)), (Cause::Preempted, 0));
    assert!(!cgroup_of(&lines(&out)[0]).exists());
}

#[tokio::test]
async fn of_a_dead_shim_neither_process_nor_cgroup_is_left() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    if !applies(&peer, "cgroup") {
        return;
    }
    let out = cluster.output("out");
    let mark = format!("GOTGAN_TEST_MARK={}", cluster.directory.path().display());
    // Without its own mark a process is found by its cgroup alone.
    let body = format!(
        "setsid env -i {mark} sleep 1000 &\ngrep ^0:: /proc/self/cgroup > {}; sleep 1000",
        out.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    eventually("ready", || has_line(&out) && marked(&mark) > 0).await;
    let events = gotgan_worker::shim::events::read(&cluster.state().join("attempts/7.1")).unwrap();
    let gotgan_worker::shim::protocol::ShimEvent::Started { pid, .. } = events[0].event else {
        panic!("{events:?}")
    };
    tree::signal(pid, nix::sys::signal::Signal::SIGKILL);
    let (cause, ..) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, marked(&mark)), (Cause::Node, 0));
    assert!(!cgroup_of(&lines(&out)[0]).exists());
}

/// Device nodes with these numbers; none of them has a driver here.
fn nodes(cluster: &Cluster, numbers: &[(u32, u32)]) -> Vec<PathBuf> {
    let node = |&(major, minor): &(u32, u32)| {
        let path = cluster.output(&format!("node-{major}-{minor}"));
        let numbers = [major.to_string(), minor.to_string()];
        let made = Command::new("mknod").arg(&path).arg("c").args(numbers).status().unwrap();
        assert!(made.success());
        path
    };
    numbers.iter().map(node).collect()
}

fn why_not_opened(path: &Path) -> Option<i32> {
    std::fs::File::open(path).err()?.raw_os_error()
}

#[tokio::test]
async fn a_job_cannot_open_a_gpu_that_is_not_its_own() {
    if !is_root("a device node") {
        return;
    }
    let mut cluster = Cluster::start_outside_tmp().await;
    let double = Double::new(&double::gpus(2));
    let _daemon = cluster.daemon_with(&["--nvml-library", &double.library()]);
    let mut peer = cluster.peer().await;
    if !applies(&peer, "device filter") {
        return;
    }
    let all = nodes(&cluster, &[(195, 0), (195, 1), (195, 255), (226, 128)]);
    let no_driver = Some(nix::errno::Errno::ENXIO as i32);
    if all.iter().any(|node| why_not_opened(node) != no_driver) {
        return eprintln!("skipped: this machine has drivers of these numbers");
    }
    let out = cluster.output("out");
    let tries: Vec<String> = all
        .iter()
        .map(|node| format!("(: < {}) 2>&1 | sed 's/.*: //' >> {}", node.display(), out.display()))
        .collect();
    let body = format!(
        "{}\nmknod {} c 195 0 || echo no node >> {}",
        tries.join("\n"),
        cluster.output("made").display(),
        out.display()
    );
    let mut order = script(7, &body);
    order.gpus = vec![GpuAllocation { uuid: double::uuid(1), milli: 1000 }];
    peer.order(Order::RunAttempt(order)).await;
    peer.reports_until_end().await;
    let (denied, there) = ("Operation not permitted", "No such device or address");
    assert_eq!(lines(&out), [denied, there, there, denied, "no node"]);
    std::fs::remove_file(&out).unwrap();
    peer.order(Order::RunAttempt(script(8, &body))).await;
    peer.reports_until_end().await;
    assert_eq!(lines(&out), [denied, denied, denied, denied, "no node"]);
}

#[tokio::test]
async fn programs_make_nobody_more_than_they_are_and_signals_are_as_expected() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    assert!(applies(&peer, "no new privileges"));
    let out = cluster.output("out");
    let body = format!(
        "grep -E '^(NoNewPrivs|SigBlk|SigIgn)' /proc/self/status > {out}; umask >> {out}\n\
         ls /proc/self/fd | wc -l >> {out}",
        out = out.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    peer.reports_until_end().await;
    let said = lines(&out);
    assert!(said.contains(&"NoNewPrivs:\t1".to_owned()), "{said:?}");
    // Two that belong to the C library are ignored in whatever it spawns.
    let of_library = 0x1_8000_0000;
    let clean = |line: &&String| {
        let (name, set) = line.split_once(":\t").unwrap_or_default();
        let set = u64::from_str_radix(set, 16).unwrap_or(u64::MAX);
        name.starts_with("Sig") && set & !of_library == 0
    };
    assert_eq!(said.iter().filter(clean).count(), 2, "{said:?}");
    // Three, and the directory that is listed.
    assert_eq!(said[3..], ["0022", "4"]);
}

fn of_owner(order: RunAttempt, owner: &str) -> RunAttempt {
    RunAttempt { owner: owner.into(), ..order }
}

#[tokio::test]
async fn a_job_runs_as_the_user_of_its_owner_and_what_it_writes_is_theirs() {
    if !is_root("another user") {
        return;
    }
    let mut cluster = Cluster::start_outside_tmp().await;
    open_for_all(cluster.directory.path());
    let settings = "[users]\ndefault = \"nobody\"\nby_owner = { eve = \"root\" }\n";
    let _daemon = cluster.daemon_of(settings, &GPUS);
    let mut peer = cluster.peer().await;
    assert!(applies(&peer, "own user"));
    let place = cluster.output("place");
    std::fs::create_dir(&place).unwrap();
    chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    let body = "id -u; id -G; echo $USER; echo x > mine && pwd; echo again >> /dev/stdout\n\
                ls \"$GOTGAN_ATTEMPT_DIR\" 2> /dev/null || echo not listed\n\
                touch \"$GOTGAN_ATTEMPT_DIR/events\" 2> /dev/null || echo not touched";
    peer.order(Order::RunAttempt(of_owner(script(7, body), "ada"))).await;
    let (cause, reason, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, exit.code, reason.as_str()), (Cause::User, 0, ""));
    let data = peer.read_log(ReadLog { job_id: 7, attempt: 1, ..Default::default() }).await;
    let said = String::from_utf8(data.data).unwrap();
    let said: Vec<&str> = said.lines().collect();
    let work = cluster.state().join("attempts/7.1/work");
    assert_eq!(said[0], "65534");
    assert!(!said[1].split(' ').any(|group| group == "0"), "{said:?}");
    assert_eq!(said[2..4], ["nobody", work.to_str().unwrap()]);
    assert_eq!(said[4..], ["again", "not listed", "not touched"]);
    assert_eq!(work.join("mine").metadata().unwrap().uid(), NOBODY);
    let mut order = of_owner(script(8, "echo out"), "ada");
    named_output(&mut order, &place.join("out"));
    peer.order(Order::RunAttempt(order)).await;
    peer.reports_until_end().await;
    assert_eq!(place.join("out").metadata().unwrap().uid(), NOBODY);
    peer.order(Order::RunAttempt(of_owner(script(9, "id -u"), "eve"))).await;
    let reports = peer.reports_until_end().await;
    let Some(Event::Refused(refused)) = &reports.last().unwrap().event else {
        panic!("{reports:?}")
    };
    assert!(refused.reason.contains("root"), "{}", refused.reason);
}

#[tokio::test]
async fn a_user_is_shown_no_file_through_a_log_that_they_could_not_read_themselves() {
    if !is_root("another user") {
        return;
    }
    let mut cluster = Cluster::start_outside_tmp().await;
    open_for_all(cluster.directory.path());
    let _daemon = cluster.daemon_of("[users]\ndefault = \"nobody\"\n", &GPUS);
    let mut peer = cluster.peer().await;
    let (place, secret) = (cluster.output("place"), cluster.output("secret"));
    std::fs::create_dir(&place).unwrap();
    chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::write(&secret, "of root alone\n").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let out = place.join("out");
    let body = format!("ln -sf {} {}", secret.display(), out.display());
    let mut order = script(7, &body);
    named_output(&mut order, &out);
    peer.order(Order::RunAttempt(order)).await;
    peer.reports_until_end().await;
    let data = peer.read_log(ReadLog { job_id: 7, attempt: 1, ..Default::default() }).await;
    assert!(data.data.is_empty());
    assert!(data.error.contains("does not belong"), "{}", data.error);
    let mut order = script(8, "true");
    named_output(&mut order, &secret);
    peer.order(Order::RunAttempt(order)).await;
    let ended = task_end(&peer.reports_until_end().await, 0, 0);
    assert!(ended.detail.contains("Permission denied"), "{}", ended.detail);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "of root alone\n");
}

fn named_output(order: &mut RunAttempt, path: &Path) {
    let spec: &mut JobSpec = order.spec.as_mut().unwrap();
    spec.output_path = path.to_str().unwrap().to_owned();
}

fn open_for_all(directory: &Path) {
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_worker_that_is_not_root_runs_jobs_and_says_what_it_cannot() {
    if !is_root("to become somebody else") {
        return;
    }
    let mut cluster = Cluster::start_outside_tmp().await;
    let program = Path::new(env!("CARGO_BIN_EXE_gotgan-worker"));
    let reachable = program
        .ancestors()
        .skip(1)
        .all(|above| above.metadata().is_ok_and(|found| found.permissions().mode() & 0o001 != 0));
    if !reachable {
        return eprintln!("skipped: only root reaches {}", program.display());
    }
    open_for_all(cluster.directory.path());
    chown(cluster.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut daemon = cluster.daemon_as(NOBODY);
    let mut peer = cluster.peer().await;
    for measure in ["namespaces", "device filter", "own user", "private /tmp"] {
        assert!(!applies(&peer, measure), "{measure}");
    }
    peer.order(Order::RunAttempt(command(7, &["sh", "-c", "exit $(($(id -u) % 251))"], 1))).await;
    let (cause, _, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, exit.code), (Cause::User, 65_534 % 251));
    daemon.kill();
}
