//! The daemons of the quickstart: one scheduler on embedded SQLite with TLS, two workers that join it.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::Client;
use super::directory::Directory;
use super::screen::Screen;
use crate::child::{self, Daemon};
use crate::interrupt;
use crate::postgres::free_port;
use crate::workspace::Workspace;

pub const NODES: [&str; 2] = ["node-a", "node-b"];
/// Every daemon carries it, so that what a quickstart left that was killed too hard is found by the next.
const DIRECTORY_VARIABLE: &str = "GOTGAN_QUICKSTART";
/// What a node pretends to have where this machine has no GPU.
const SIMULATED: &str = "8xB200";
/// Starting takes well under a second; this long means it hangs.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Lines of a daemon's log shown when it failed.
const LOG_TAIL: usize = 15;

#[derive(Debug)]
pub struct Cluster {
    pub admin: Client,
    pub programs: PathBuf,
    pub gpus: Gpus,
    // Ended in this order when dropped: workers before the scheduler they report to.
    workers: Vec<Daemon>,
    scheduler: Daemon,
}

/// What each node has, as the scheduler lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    pub class: String,
    /// On the node that has fewest.
    pub per_node: u64,
    pub simulated: bool,
}

impl Cluster {
    pub fn start(workspace: &Workspace, directory: &Directory, screen: Screen) -> Result<Self> {
        screen.title("1. The cluster");
        child::end_marked(DIRECTORY_VARIABLE, &directory.path.to_string_lossy());
        let programs = workspace.programs("release");
        let (scheduler, server) = start_scheduler(&programs, directory)?;
        screen.step(
            "scheduler",
            &format!("serves {server}, TLS, SQLite in {}", directory.path.display()),
        );
        let ca = directory.path.join("scheduler/tls/ca.pem");
        let token = directory.path.join("scheduler/admin.token");
        let admin = Client::new(programs.join("gotgan"), server, ca, token);
        let mut cluster =
            Self { admin, programs, gpus: Gpus::none(), workers: Vec::new(), scheduler };
        let mut nodes = Vec::new();
        for node in NODES {
            let simulate = what_to_simulate(&nodes);
            let worker = cluster.start_worker(directory, node, simulate)?;
            cluster.workers.push(worker);
            nodes = cluster.wait_until_ready(directory)?;
        }
        cluster.gpus = Gpus::of(&nodes);
        for node in &nodes {
            screen.step("worker", &describe(node));
        }
        Ok(cluster)
    }

    fn start_worker(
        &self,
        directory: &Directory,
        node: &str,
        simulate: Option<String>,
    ) -> Result<Daemon> {
        let join = self.admin.json(&["admin", "join-token", "--node", node])?;
        let join = join["join_token"].as_str().context("no join token in the answer")?.to_owned();
        let mut command = Command::new(self.programs.join("gotgan-worker"));
        command.args(["run", "--scheduler", &self.admin.server, "--node", node]);
        // Not as an argument: others on the machine can read those.
        command.arg("--ca").arg(&self.admin.ca).env("GOTGAN_JOIN_TOKEN", &join);
        command.arg("--state-dir").arg(directory.create(node)?);
        if let Some(gpus) = simulate {
            command.args(["--simulate", &gpus]);
        }
        command
            .env("PATH", self.path())
            .env(DIRECTORY_VARIABLE, &directory.path)
            .stdout(log(directory, node)?)
            .stderr(log(directory, node)?);
        Daemon::spawn(node, command.stdin(Stdio::null()))
    }

    /// Jobs call `gotgan` by its name.
    fn path(&self) -> OsString {
        let path = env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.programs.clone()).chain(env::split_paths(&path));
        env::join_paths(all).unwrap_or(path)
    }

    fn wait_until_ready(&mut self, directory: &Directory) -> Result<Vec<Value>> {
        let (workers, admin) = (&mut self.workers, &self.admin);
        interrupt::wait_for("the worker to be ready", START_LIMIT, || {
            for worker in workers.iter_mut() {
                fail_if_ended(worker, directory)?;
            }
            let nodes = admin.json(&["nodes"])?;
            let nodes = nodes["nodes"].as_array().cloned().unwrap_or_default();
            let ready = nodes.iter().filter(|node| node["liveness"] == "ready").count();
            Ok((ready == workers.len()).then_some(nodes))
        })
    }

    /// Fails with the end of the log of a daemon that has ended.
    pub fn check(&mut self, directory: &Directory) -> Result<()> {
        fail_if_ended(&mut self.scheduler, directory)?;
        self.workers.iter_mut().try_for_each(|worker| fail_if_ended(worker, directory))
    }
}

impl Gpus {
    fn none() -> Self {
        Self { class: String::new(), per_node: 0, simulated: false }
    }

    fn of(nodes: &[Value]) -> Self {
        let gpus = |node: &Value| node["gpus"].as_array().map_or(0, Vec::len);
        let per_node = nodes.iter().map(gpus).min().unwrap_or(0);
        let class = nodes.first().and_then(|node| node["gpus"][0]["gpu_class"].as_str());
        Self {
            class: class.unwrap_or_default().to_owned(),
            per_node: u64::try_from(per_node).unwrap_or(0),
            simulated: nodes.iter().any(|node| node["simulated"] == true),
        }
    }
}

/// The first worker takes the GPUs of this machine, if there are any. They cannot be given out twice, so
/// the second one simulates a node just like it.
fn what_to_simulate(nodes: &[Value]) -> Option<String> {
    let real = Gpus::of(nodes);
    match nodes {
        [] => (!has_gpus()).then(|| SIMULATED.to_owned()),
        _ if real.simulated || real.per_node == 0 => Some(SIMULATED.to_owned()),
        _ => Some(format!("{}x{}", real.per_node, real.class.to_uppercase())),
    }
}

fn describe(node: &Value) -> String {
    let name = node["name"].as_str().unwrap_or("?");
    let gpus = node["gpus"].as_array().map_or(0, Vec::len);
    let class = node["gpus"][0]["gpu_class"].as_str().unwrap_or("no GPU");
    let simulated = if node["simulated"] == true { ", SIMULATED: no real GPUs" } else { "" };
    format!("{name} is ready: {gpus} x {class}{simulated}")
}

/// Whether the driver made device files of GPUs, as in /dev/nvidia0.
fn has_gpus() -> bool {
    let names = fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.strip_prefix("nvidia").map(str::to_owned))
        .any(|rest| !rest.is_empty() && rest.chars().all(|character| character.is_ascii_digit()))
}

fn start_scheduler(programs: &Path, directory: &Directory) -> Result<(Daemon, String)> {
    let mut command = Command::new(programs.join("gotgan-scheduler"));
    command.arg("--data-dir").arg(directory.create("scheduler")?);
    let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
    command.args(["--listen", &address()?, "--http-listen", &address()?]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log(directory, "scheduler")?);
    command.env(DIRECTORY_VARIABLE, &directory.path);
    let mut scheduler = Daemon::spawn("scheduler", &mut command)?;
    let output = scheduler.output().context("the scheduler has no output")?;
    let lines = read_lines(output);
    let server = interrupt::wait_for("the scheduler to be ready", START_LIMIT, || {
        fail_if_ended(&mut scheduler, directory)?;
        let line = lines.try_iter().find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
        Ok(line)
    })?;
    Ok((scheduler, server.trim().to_owned()))
}

/// Lines as they come; goes on reading when nobody listens any more, so that the writer never blocks.
pub fn read_lines(source: impl Read + Send + 'static) -> Receiver<String> {
    // A reader that lags this far behind slows the writer down, which is what it should do.
    const LINES_AHEAD: usize = 1024;
    let (sender, receiver) = sync_channel(LINES_AHEAD);
    thread::spawn(move || {
        let mut listening = true;
        for line in BufReader::new(source).split(b'\n') {
            let Ok(line) = line else { return };
            let text = String::from_utf8_lossy(&line).into_owned();
            listening = listening && sender.send(text).is_ok();
        }
    });
    receiver
}

fn log(directory: &Directory, name: &str) -> Result<File> {
    let path = directory.create("log")?.join(format!("{name}.log"));
    let file = File::options().create(true).append(true).open(&path);
    file.with_context(|| format!("{} cannot be written", path.display()))
}

fn fail_if_ended(daemon: &mut Daemon, directory: &Directory) -> Result<()> {
    let Some(status) = daemon.ended()? else {
        return Ok(());
    };
    let path = directory.path.join("log").join(format!("{}.log", daemon.name));
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n  ");
    bail!("{} ended with {status}; the end of its log:\n  {tail}", daemon.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_of_different_size_count_as_the_smaller() {
        let gpu = json!({"gpu_class": "b200"});
        let nodes = [
            json!({"gpus": [gpu, gpu], "simulated": false}),
            json!({"gpus": [gpu], "simulated": true}),
        ];
        let gpus = Gpus::of(&nodes);
        assert_eq!(gpus, Gpus { class: "b200".into(), per_node: 1, simulated: true });
    }
}
