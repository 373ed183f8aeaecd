//! A shim on a cgroup that is played by a directory: what the kernel would say there is what the test writes.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use gotgan_worker::confine::cgroup::CgroupSpec;
use gotgan_worker::confine::spec::Confinement;
use gotgan_worker::shim::events;
use gotgan_worker::shim::protocol::{
    Ending, Exit, SPEC, ShimEvent, ShimSpec, StepSpec, TaskSpec, VERSION,
};

use crate::cluster::eventually;

struct Played {
    directory: tempfile::TempDir,
    launcher: Child,
}

impl Played {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for place in ["attempt", "cgroup"] {
            fs::create_dir(directory.path().join(place)).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_gotgan-shim"));
        command.arg("--launcher").stdin(Stdio::piped()).stdout(Stdio::null());
        let played = Self { launcher: command.spawn().unwrap(), directory };
        for file in ["cgroup.procs", "cgroup.kill", "memory.max", "memory.oom.group", "pids.max"] {
            played.say(file, "");
        }
        played.say("cgroup.events", "populated 0\n");
        played
    }

    fn attempt(&self) -> PathBuf {
        self.directory.path().join("attempt")
    }

    fn cgroup(&self) -> PathBuf {
        self.directory.path().join("cgroup")
    }

    fn say(&self, file: &str, text: &str) {
        fs::write(self.cgroup().join(file), text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.cgroup().join(file)).unwrap()
    }

    /// Runs a script to its end and returns what the shim said.
    async fn run(&mut self, script: &str) -> Vec<ShimEvent> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let attempt = self.attempt();
        let task = TaskSpec { directory: attempt.display().to_string(), ..TaskSpec::default() };
        let step = StepSpec { argv, tasks: vec![task], ..StepSpec::default() };
        let cgroup = CgroupSpec {
            path: self.cgroup(),
            born_inside: false,
            memory_max_bytes: Some(64 << 20),
            cpu_milli: None,
            processes_max: Some(99),
            own_root: false,
        };
        let confinement =
            Confinement { cgroup: Some(cgroup), give_up_ms: 300, ..Confinement::default() };
        let spec = ShimSpec {
            version: VERSION,
            time_limit_ms: 0,
            grace_ms: 100,
            warning: None,
            batch: true,
            step,
            confinement,
            container: None,
        };
        fs::write(attempt.join(SPEC), serde_json::to_vec(&spec).unwrap()).unwrap();
        let input = self.launcher.stdin.as_mut().unwrap();
        writeln!(input, "{}", attempt.display()).unwrap();
        let said = || events::read(&attempt).unwrap();
        let ended = |event: &ShimEvent| matches!(event, ShimEvent::Ended { .. });
        eventually("the end", || said().last().is_some_and(|line| ended(&line.event))).await;
        said().into_iter().map(|line| line.event).collect()
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

#[tokio::test]
async fn out_of_memory_is_told_by_the_kernels_count_and_not_by_an_exit_code() {
    let mut played = Played::new();
    played.say("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 1\n");
    let events = played.run("kill -9 $$").await;
    let exit = Exit { code: 0, signal: 9 };
    let reason = "out of memory: its processes together wanted more than its 64 MiB".to_owned();
    let task = ShimEvent::TaskEnded { step: 0, rank: 0, exit, detail: reason.clone() };
    assert_eq!(events[2], task);
    assert_eq!(events[3], ShimEvent::Ended { ending: Ending::OutOfMemory, reason, exit });
    assert_eq!(
        (played.read("memory.max"), played.read("memory.oom.group")),
        ("67108864".into(), "1".into())
    );
}

#[tokio::test]
async fn a_kill_without_the_kernels_count_is_a_kill_like_any_other() {
    let mut played = Played::new();
    played.say("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\n");
    let events = played.run("kill -9 $$").await;
    let ShimEvent::Ended { ending, reason, .. } = &events[3] else { panic!("{events:?}") };
    assert_eq!((*ending, reason.as_str()), (Ending::Own, "the script was ended by signal 9"));
}

#[tokio::test]
async fn who_was_refused_processes_is_told_of_the_limit() {
    let mut played = Played::new();
    played.say("pids.events", "max 3\n");
    let events = played.run("exit 2").await;
    let ShimEvent::Ended { reason, .. } = &events[3] else { panic!("{events:?}") };
    assert_eq!(
        reason,
        "the script exited with code 2; the limit of 99 processes and threads was reached"
    );
}

#[tokio::test]
async fn a_cgroup_that_does_not_empty_is_given_up_and_the_node_said_to_be_unfit() {
    let mut played = Played::new();
    played.say("cgroup.events", "populated 1\n");
    // What hangs there, as far as anybody can see: no process has this number.
    let hanging = i32::MAX.to_string();
    let body =
        format!("echo {hanging} > {}; exit 0", played.cgroup().join("cgroup.procs").display());
    let events = played.run(&body).await;
    let ShimEvent::Unfit { reason } = &events[3] else { panic!("{events:?}") };
    assert!(reason.contains("do not end") && reason.contains(&hanging), "{reason}");
    let own = ShimEvent::Ended { ending: Ending::Own, reason: String::new(), exit: Exit::code(0) };
    assert_eq!(events[4], own);
    assert_eq!(played.read("cgroup.kill"), "1");
}

#[tokio::test]
async fn an_attempt_that_cannot_be_confined_as_it_should_be_does_not_run() {
    let mut played = Played::new();
    fs::remove_file(played.cgroup().join("memory.oom.group")).unwrap();
    let mark = played.directory.path().join("mark");
    let events = played.run(&format!("echo x > {}", mark.display())).await;
    let Some(ShimEvent::Ended { ending: Ending::Stopped(3), reason, .. }) = events.last() else {
        panic!("{events:?}")
    };
    assert!(reason.contains("cannot confine") && reason.contains("memory.oom.group"), "{reason}");
    assert!(!mark.exists());
}
