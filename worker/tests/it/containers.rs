//! Jobs in images, by the runtime that this machine has. An image is made of busybox.
//!
//! A test that needs root, a runtime that works here or a static busybox says what is missing and passes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{Cause, GpuAllocation, Images, ReadLog, RunAttempt, WarningSignal};
use gotgan_worker::shim::protocol::ShimEvent;
use gotgan_worker::shim::{events, tree};
use nix::sys::signal::Signal;

use crate::cluster::{
    Cluster, Daemon, Peer, command, end_of, eventually, has_line, script, step, task_end,
};
use crate::double::{self, Double};

/// Nobody in particular, who is not root.
const NOBODY: u32 = 65_534;
const PROGRAMS: [&str; 16] = [
    "sh", "cat", "id", "ls", "env", "touch", "sleep", "kill", "grep", "echo", "ps", "pwd", "mkdir",
    "wc", "sed", "dd",
];
const GPUS: [&str; 2] = ["--simulate", "2xB200"];

/// A cluster with an image, a worker that runs it, and its stream.
struct Place {
    cluster: Cluster,
    daemon: Daemon,
    peer: Peer,
    _double: Option<Double>,
}

impl Place {
    /// Absent: something is missing here, which was said.
    async fn new() -> Option<Self> {
        Self::with("run = \"runtime\"\n", None).await
    }

    async fn with(containers: &str, double: Option<Double>) -> Option<Self> {
        let busybox = busybox()?;
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: containers need root");
            return None;
        }
        let mut cluster = Cluster::start_outside_tmp().await;
        fs::set_permissions(cluster.directory.path(), Permissions::from_mode(0o755)).unwrap();
        make_image(&cluster.output("images/box"), &busybox);
        let library = double.as_ref().map(Double::library);
        let arguments = match &library {
            Some(library) => vec!["--nvml-library", library.as_str()],
            None => GPUS.to_vec(),
        };
        let daemon = cluster.daemon_of(&settings(&cluster, containers), &arguments);
        let peer = cluster.peer().await;
        let place = Self { cluster, daemon, peer, _double: double };
        place.runs_images().then_some(place)
    }

    /// If not, the worker must have said why.
    fn runs_images(&self) -> bool {
        let Images { able, missing, by } = self.images();
        assert_ne!(able, !missing.is_empty(), "neither able nor unable, or both");
        assert_eq!(able, !by.is_empty());
        if !able {
            eprintln!("skipped: {missing}");
        }
        able
    }

    fn images(&self) -> Images {
        self.peer.register.inventory.clone().unwrap().images.unwrap()
    }

    fn image(&self) -> String {
        self.cluster.output("images/box").display().to_string()
    }

    /// The same order in the image.
    fn inside(&self, order: RunAttempt) -> RunAttempt {
        in_image(order, &self.image())
    }

    async fn run(&mut self, order: RunAttempt) -> (Cause, String, i32, i32) {
        self.peer.order(Order::RunAttempt(order)).await;
        let (cause, reason, exit) = end_of(&self.peer.reports_until_end().await);
        (cause, reason, exit.code, exit.signal)
    }

    /// What the first task of an attempt has said.
    async fn said(&mut self, job_id: u64) -> Vec<String> {
        let read = ReadLog { job_id, attempt: 1, ..Default::default() };
        let data = self.peer.read_log(read).await;
        assert_eq!(data.error, "");
        String::from_utf8(data.data).unwrap().lines().map(str::to_owned).collect()
    }

    fn attempt(&self, name: &str) -> PathBuf {
        self.cluster.state().join("attempts").join(name)
    }

    /// Processes that work in the image.
    fn processes(&self) -> Vec<i32> {
        let mark =
            format!("GOTGAN_ATTEMPT_DIR={}/", self.cluster.state().join("attempts").display());
        let environment = |pid: i32| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |pid: i32| String::from_utf8_lossy(&environment(pid)).contains(&mark);
        let found = tree::processes().unwrap().into_iter();
        found
            .filter(|process| !process.zombie && has(process.pid))
            .map(|process| process.pid)
            .collect()
    }

    fn shim_of(&self, attempt: &str) -> i32 {
        let said = events::read(&self.attempt(attempt)).unwrap();
        let ShimEvent::Started { pid, .. } = said[0].event else { panic!("{said:?}") };
        pid
    }
}

fn settings(cluster: &Cluster, containers: &str) -> String {
    format!(
        "[users]\ndefault = \"nobody\"\n[containers]\n{containers}image_roots = [\"{}\"]\ncdi_directories = [\"{}\"]\n",
        cluster.output("images").display(),
        cluster.output("cdi").display(),
    )
}

fn in_image(mut order: RunAttempt, image: &str) -> RunAttempt {
    order.spec.as_mut().unwrap().image = image.to_owned();
    order
}

/// A busybox that needs no libraries.
fn busybox() -> Option<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let is_static = |path: &PathBuf| {
        let asked = Command::new("ldd").arg(path).output();
        // That of musl says otherwise what it says in words here.
        path.exists() && asked.is_ok_and(|it| !String::from_utf8_lossy(&it.stdout).contains("=>"))
    };
    let found = places.into_iter().find(is_static);
    if found.is_none() {
        eprintln!("skipped: there is no static busybox (apt-get install busybox-static)");
    }
    found
}

fn make_image(root: &Path, busybox: &Path) {
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for program in PROGRAMS {
        symlink("busybox", root.join("bin").join(program)).unwrap();
    }
    fs::write(root.join("etc/mark"), "of the image\n").unwrap();
}

/// A directory of its user's own.
fn of_nobody(path: &Path) -> String {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_job_sees_its_image_and_what_is_its_own_and_nothing_else() {
    let Some(mut place) = Place::new().await else { return };
    let secret = place.cluster.output("secret");
    fs::write(&secret, "of the node").unwrap();
    let body = format!(
        "cat /etc/mark; id -u; id -g; echo $PATH; pwd; cat {secret} 2> /dev/null || echo no secret\n\
         touch /etc/new 2> /dev/null || echo no writing\n\
         touch $GOTGAN_ATTEMPT_DIR/work/mine && echo mine\n\
         ls $GOTGAN_ATTEMPT_DIR | wc -l\n\
         grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | sed 's/[[:space:]]/ /'\n\
         echo again >> /dev/stdout; ls /tmp /sys/fs/cgroup | wc -l; ps | grep -c '[s]leep 77'\n\
         ls /; kill -0 1 2> /dev/null || echo not the first",
        secret = secret.display()
    );
    let order = place.inside(script(7, &body));
    assert_eq!(place.run(order).await, (Cause::User, String::new(), 0, 0));
    let work = place.attempt("7.1").join("work").display().to_string();
    let top = work.split('/').nth(1).unwrap().to_owned();
    let mut root = ["bin", "dev", "etc", "proc", "sys", "tmp", top.as_str()];
    root.sort_unstable();
    let said = place.said(7).await;
    let expected = [
        "of the image",
        "65534",
        "65534",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        &work,
        "no secret",
        "no writing",
        "mine",
        "2",
        "CapBnd: 0000000000000000",
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "again",
    ];
    let mut found = said.clone();
    // In whichever order the kernel has them.
    found[9..12].sort_unstable();
    assert_eq!(found[..13], expected, "{said:?}");
    assert_eq!(said[14..], [&["0"], &root[..], &["not the first"]].concat(), "{said:?}");
    assert!(Path::new(&work).join("mine").exists());
    let image = place.cluster.output("images/box");
    assert_eq!(fs::read_dir(&image).unwrap().count(), 2, "nothing was made in the image");
}

#[tokio::test]
async fn a_container_stays_in_the_cgroup_and_the_processes_of_its_attempt() {
    let Some(mut place) = Place::new().await else { return };
    let body = "cat /proc/self/cgroup; ls -l /proc/self/ns/pid | sed 's/.*-> //'; sleep 1000";
    let order = place.inside(script(7, body));
    place.peer.order(Order::RunAttempt(order)).await;
    let out = place.attempt("7.1").join("step-0/rank-0.stdout");
    eventually("ready", || fs::read_to_string(&out).is_ok_and(|text| text.contains("pid:["))).await;
    let said = place.said(7).await;
    let own = said.iter().find(|line| line.starts_with("0::")).unwrap();
    // The keeper, which the shim has put there.
    let keeper = tree::descendants(place.shim_of("7.1")).unwrap().into_iter().find(|process| {
        let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
        name.trim() == "gotgan-keeper"
    });
    let keeper = keeper.unwrap().pid;
    let of_keeper = fs::read_to_string(format!("/proc/{keeper}/cgroup")).unwrap();
    let mut lines: Vec<String> = of_keeper.lines().map(str::to_owned).collect();
    let pid = fs::read_link(format!("/proc/{keeper}/ns/pid")).unwrap();
    lines.push(pid.display().to_string());
    assert_eq!(said, lines);
    assert!(own == "0::/" || own.ends_with(".7.1"), "{own}");
    place.peer.stop(7, Cause::User, 0).await;
    place.peer.reports_until_end().await;
    assert_eq!(place.processes(), [0; 0]);
    let left = fs::read_dir(place.attempt("7.1").join("container")).unwrap().count();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted = mounts.contains(&place.attempt("7.1").display().to_string());
    assert_eq!((left, mounted), (0, false));
}

#[tokio::test]
async fn exit_codes_and_signals_come_through_as_they_are() {
    let Some(mut place) = Place::new().await else { return };
    let order = place.inside(command(7, &["sh", "-c", "exit 7"], 1));
    let (cause, reason, code, signal) = place.run(order).await;
    assert_eq!((cause, code, signal), (Cause::User, 7, 0));
    assert_eq!(reason, "rank 0 exited with code 7");
    let order = place.inside(command(8, &["sh", "-c", "kill -SEGV $$"], 1));
    assert_eq!(place.run(order).await.3, 11);
    let order = place.inside(command(9, &["sh", "-c", "kill -9 $$"], 1));
    let (_, reason, _, signal) = place.run(order).await;
    assert_eq!((signal, reason.as_str()), (9, "rank 0 was ended by signal 9"));
    let order = place.inside(command(10, &["sh", "-c", "exit 137"], 2));
    assert_eq!((place.run(order).await.2), 137);
}

#[tokio::test]
async fn a_container_is_told_to_end_once_and_leaves_nothing() {
    let Some(mut place) = Place::new().await else { return };
    let body = "trap 'echo term' TERM; trap 'echo usr1' USR1; trap 'exit 3' INT\n\
                sleep 1000 & echo ready; while :; do wait; done";
    let mut order = place.inside(script(7, body));
    let spec = order.spec.as_mut().unwrap();
    spec.warning_signal = Some(WarningSignal { signal: 10, ahead_s: 2, batch_only: true });
    place.peer.order(Order::RunAttempt(order)).await;
    let out = place.attempt("7.1").join("step-0/rank-0.stdout");
    eventually("ready", || has_line(&out)).await;
    place.peer.stop(7, Cause::Preempted, 2).await;
    let (cause, ..) = end_of(&place.peer.reports_until_end().await);
    assert_eq!(cause, Cause::Preempted);
    assert_eq!(place.said(7).await, ["ready", "usr1", "term"]);
    assert_eq!(place.processes(), [0; 0]);
}

#[tokio::test]
async fn of_a_container_whose_shim_dies_nothing_is_left_and_one_whose_worker_dies_goes_on() {
    let Some(mut place) = Place::new().await else { return };
    let order = place.inside(script(7, "sleep 1000 & sleep 1000 & echo ready; wait"));
    place.peer.order(Order::RunAttempt(order)).await;
    let out = place.attempt("7.1").join("step-0/rank-0.stdout");
    eventually("ready", || has_line(&out)).await;
    place.daemon.kill();
    // A process that becomes another program has no environment to be known by at that moment.
    eventually("the shell and its two", || place.processes().len() == 3).await;
    let before = place.processes();
    let settings = settings(&place.cluster, "run = \"runtime\"\n");
    place.daemon = place.cluster.daemon_of(&settings, &GPUS);
    place.peer = place.cluster.peer().await;
    place.peer.order(step(7, 1, &["sh", "-c", "cat /etc/mark; exit 4"])).await;
    let ended = |event: &Event| matches!(event, Event::TaskEnded(_));
    let reports = place.peer.reports_until(ended).await;
    assert_eq!(
        task_end(&reports, 1, 0).exit.unwrap().code,
        4,
        "a further step is in the image too"
    );
    assert_eq!(place.processes(), before);
    tree::signal(place.shim_of("7.1"), Signal::SIGKILL);
    let (cause, ..) = end_of(&place.peer.reports_until_end().await);
    assert_eq!((cause, place.processes()), (Cause::Node, Vec::new()));
    let left = fs::read_dir(place.attempt("7.1").join("container")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_cannot_run_is_told_with_what_to_do() {
    let Some(mut place) = Place::new().await else { return };
    let images = place.cluster.output("images");
    for name in ["empty", "bundle", "hidden/bin"] {
        fs::create_dir_all(images.join(name)).unwrap();
    }
    fs::write(images.join("bundle/config.json"), "{\"process\": 1}").unwrap();
    fs::write(images.join("file.sif"), "").unwrap();
    fs::set_permissions(images.join("hidden"), Permissions::from_mode(0o700)).unwrap();
    symlink("/usr", images.join("away")).unwrap();
    let at = |name: &str| images.join(name).display().to_string();
    let run = ["sh", "-c", "true"];
    let cases: [(String, &[&str], i32, &str); 10] = [
        (at("none"), &run, 127, "does not exist on this node"),
        (at("hidden"), &run, 126, "may not be read by nobody"),
        ("/usr".into(), &run, 126, "outside of what this node allows; move it below"),
        (at("away"), &run, 126, "(it is really /usr)"),
        (at("empty"), &run, 126, "is no root file system"),
        (at("file.sif"), &run, 126, "is no directory; unpack it"),
        (at("bundle"), &run, 126, "bundle/config.json: invalid type"),
        (
            at("box"),
            &["python3"],
            127,
            "program python3 was not found in the image (PATH /usr/local/",
        ),
        (at("box"), &["/bin/python3"], 127, "is not in the image"),
        (at("box"), &["/etc/mark"], 126, "program /etc/mark may not be executed in the image"),
    ];
    for (job_id, (image, argv, code, words)) in (7..).zip(cases) {
        let order = in_image(command(job_id, argv, 1), &image);
        let (cause, reason, found, _) = place.run(order).await;
        assert_eq!((cause, found), (Cause::User, code), "{image}: {reason}");
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn a_working_directory_is_the_nodes_or_the_images_and_else_told() {
    let Some(mut place) = Place::new().await else { return };
    let own = of_nobody(&place.cluster.output("own"));
    let at = |order: RunAttempt, directory: &str| {
        let mut order = in_image(order, &place.cluster.output("images/box").display().to_string());
        order.spec.as_mut().unwrap().working_directory = directory.to_owned();
        order
    };
    let orders = [
        at(script(7, "pwd; echo x > here; echo $HOME"), &own),
        at(script(8, "pwd; ls mark"), "/etc"),
        at(script(9, "true"), "/no/such/place"),
        at(script(10, "true"), "/usr/lib"),
        at(script(11, "true"), "/proc/self/fd/7"),
        at(script(12, "true"), "/tmp/nowhere"),
        at(script(13, "pwd"), "/tmp"),
    ];
    let mut ends = Vec::new();
    for order in orders {
        ends.push(place.run(order).await);
    }
    assert_eq!((ends[0].2, ends[1].2, ends[2].2, ends[3].2), (0, 0, 127, 127), "{ends:?}");
    assert_eq!((ends[4].2, ends[5].2, ends[6].2), (126, 127, 0), "{ends:?}");
    // It has no home on this node, and none in the image.
    assert_eq!(place.said(7).await, [own.as_str(), own.as_str()]);
    assert_eq!(fs::read_to_string(Path::new(&own).join("here")).unwrap(), "x\n");
    assert_eq!(place.said(8).await, ["/etc", "mark"]);
    assert!(ends[2].1.contains("/no/such/place is neither on this node"), "{}", ends[2].1);
    assert!(ends[3].1.contains("/usr/lib is not in the image"), "{}", ends[3].1);
}

#[tokio::test]
async fn a_bundle_gives_environment_and_place_unless_the_job_does() {
    let Some(mut place) = Place::new().await else { return };
    let bundle = place.cluster.output("images/bundle");
    make_image(&bundle.join("rootfs"), &busybox().unwrap());
    let config =
        "{\"process\": {\"env\": [\"PATH=/bin\", \"A=image\", \"B=image\"], \"cwd\": \"/etc\"}}";
    fs::write(bundle.join("config.json"), config).unwrap();
    let mut order =
        in_image(script(7, "pwd; echo $PATH $A $B $TERM_PROGRAM"), &bundle.display().to_string());
    order.spec.as_mut().unwrap().environment.insert("B".into(), "job".into());
    assert_eq!(place.run(order).await.2, 0);
    assert_eq!(place.said(7).await, ["/etc", "/bin image job"]);
}

#[tokio::test]
async fn a_container_has_its_own_gpu_by_cdi_and_no_other() {
    let double = Double::new(&double::gpus(2));
    let Some(mut place) = Place::with("run = \"runtime\"\n", Some(double)).await else { return };
    let cdi = place.cluster.output("cdi");
    fs::create_dir_all(&cdi).unwrap();
    let node = |minor: u32| {
        format!(
            "{{\"path\": \"/dev/nvidia{minor}\", \"type\": \"c\", \"major\": 195, \"minor\": {minor}}}"
        )
    };
    let device = |name: &str, minor| {
        format!(
            "{{\"name\": \"{name}\", \"containerEdits\": {{\"deviceNodes\": [{}]}}}}",
            node(minor)
        )
    };
    let text = format!(
        "{{\"cdiVersion\": \"0.5.0\", \"kind\": \"nvidia.com/gpu\", \"devices\": [{}, {}],\n\
         \"containerEdits\": {{\"env\": [\"OF_CDI=1\"], \"deviceNodes\": [{}]}}}}",
        device("0", 0),
        device(&double::uuid(1), 1),
        node(255)
    );
    fs::write(cdi.join("nvidia.json"), text).unwrap();
    let mut order = place.inside(script(
        7,
        "ls /dev | grep nvidia; echo $OF_CDI $NVIDIA_VISIBLE_DEVICES\n\
         dd if=/dev/nvidia1 count=0 2>&1 | sed 's/.*: //'",
    ));
    order.gpus = vec![GpuAllocation { uuid: double::uuid(1), milli: 1000 }];
    order.tasks[0].gpu_uuids = vec![double::uuid(1)];
    let (cause, reason, code, _) = place.run(order).await;
    assert_eq!((cause, code), (Cause::User, 0), "{reason}");
    let said = place.said(7).await;
    assert_eq!(said[..3], ["nvidia1", "nvidia255", &format!("1 {}", double::uuid(1))], "{said:?}");
    // It is allowed, and has no driver here.
    assert_eq!(said[3], "No such device or address");
}

#[tokio::test]
async fn of_a_gpu_that_is_not_its_own_not_even_a_node_in_the_image_can_be_opened() {
    let Some(mut place) = Place::new().await else { return };
    let node = place.cluster.output("images/box/etc/nvidia0");
    let made = Command::new("mknod").arg(&node).args(["c", "195", "0", "-m", "666"]).status();
    assert!(made.unwrap().success());
    let order = place.inside(script(7, "dd if=/etc/nvidia0 count=0 2>&1 | sed 's/.*: //'"));
    assert_eq!(place.run(order).await.2, 0);
    let said = place.said(7).await;
    assert!(
        ["Permission denied", "Operation not permitted"].contains(&said[0].as_str()),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_gpu_that_the_sites_files_do_not_name_is_the_nodes_fault() {
    let settings = "run = \"runtime\"\n";
    let state = double::gpus(1);
    let Some(mut place) = Place::with(settings, Some(Double::new(&state))).await else { return };
    // Its GPUs pass for real ones.
    place.daemon.kill();
    let text = format!("nvml_double_as_real = true\n{}", self::settings(&place.cluster, settings));
    let library = place._double.as_ref().unwrap().library();
    place.daemon = place.cluster.daemon_of(&text, &["--nvml-library", &library]);
    place.peer = place.cluster.peer().await;
    let mut order = place.inside(script(7, "true"));
    order.gpus = vec![GpuAllocation { uuid: double::uuid(0), milli: 1000 }];
    place.peer.order(Order::RunAttempt(order)).await;
    let reports = place.peer.reports_until_end().await;
    let Some(Event::Refused(refused)) = &reports.last().unwrap().event else {
        panic!("{reports:?}")
    };
    assert_eq!(refused.cause(), Cause::Node);
    assert!(refused.reason.contains("nvidia-ctk cdi generate --format=json"), "{}", refused.reason);
}

#[tokio::test]
async fn a_runtime_that_has_gone_is_the_nodes_fault_and_its_job_is_not_to_blame() {
    let Some(place) = Place::new().await else { return };
    let Place { mut cluster, mut daemon, .. } = place;
    daemon.kill();
    let runtime = cluster.output("runc");
    let found =
        ["/usr/sbin/runc", "/usr/bin/runc"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(found.unwrap(), &runtime).unwrap();
    let text =
        settings(&cluster, &format!("run = \"runtime\"\nruntime = \"{}\"\n", runtime.display()));
    let daemon = cluster.daemon_of(&text, &GPUS);
    let peer = cluster.peer().await;
    let mut place = Place { cluster, daemon, peer, _double: None };
    assert!(place.runs_images());
    fs::remove_file(&runtime).unwrap();
    let order = place.inside(script(7, "true"));
    let (cause, reason, ..) = place.run(order).await;
    assert_eq!(cause, Cause::Node, "{reason}");
    assert!(reason.contains("runc: No such file"), "{reason}");
}

#[tokio::test]
async fn a_launcher_of_the_sites_own_runs_as_the_jobs_user() {
    let containers = "run = \"launcher\"\nlauncher = [\"/bin/sh\", \"-c\", \"id -u; echo \\\"$@\\\"\", \"launcher\", \
                      \"{image}\", \"{attempt}\"]\n";
    let Some(mut place) = Place::with(containers, None).await else { return };
    assert!(place.images().by.contains("launcher"));
    let order = place.inside(command(7, &["python3", "a b"], 1));
    let (cause, reason, code, _) = place.run(order).await;
    assert_eq!((cause, code), (Cause::User, 0), "{reason}");
    let words = format!("{} {} python3 a b", place.image(), place.attempt("7.1").display());
    assert_eq!(place.said(7).await, ["65534".to_owned(), words]);
    let order = in_image(command(8, &["true"], 1), "/usr");
    let (_, reason, code, _) = place.run(order).await;
    assert!(code == 126 && reason.contains("outside"), "{reason}");
}

#[tokio::test]
async fn a_worker_without_a_user_for_jobs_runs_no_images_and_says_why() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon_of("[containers]\nrun = \"runtime\"\n", &GPUS);
    let mut peer = cluster.peer().await;
    let images = peer.register.inventory.clone().unwrap().images.unwrap();
    assert!(!images.able && !images.missing.is_empty(), "{images:?}");
    peer.order(Order::RunAttempt(in_image(script(7, "true"), "/images/x"))).await;
    let reports = peer.reports_until_end().await;
    let Some(Event::Refused(refused)) = &reports.last().unwrap().event else {
        panic!("{reports:?}")
    };
    assert_eq!(refused.cause(), Cause::Node);
    assert!(refused.reason.contains(&images.missing), "{}", refused.reason);
}
