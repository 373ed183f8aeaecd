//! Acting on the decisions of [`crate::attempt`]: directories, shims, tasks.

pub mod confining;
pub mod environment;
pub mod launcher;
mod outbox;
pub mod shim_client;
pub mod spec;
pub mod strays;

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use confining::Confining;
use environment::Environment;
use gotgan_proto::v1::{Cause, RunAttempt, StartTasks, StopAttempt, job_spec::Work};

use crate::attempt::Refusal;
use crate::confine::spec::Confinement;
use crate::container::spec::ContainerSpec;
use crate::container::support::Containers;
use crate::held::AttemptKey;
use crate::hooks::Hooks;
use crate::imex::Imex;
use crate::power::Power;
use crate::shim::protocol::{ShimCommand, ShimSpec};

/// Name of the directory below the state directory that holds one directory an attempt.
pub const ATTEMPTS: &str = "attempts";

/// What every task of this node is told about it.
#[derive(Clone, Debug)]
pub struct NodeContext {
    /// Name of the node.
    pub node: String,
    /// Directory of the attempts' directories, absolute, UTF-8.
    pub attempts: String,
    /// Address of a scheduler.
    pub server: String,
    /// File with the certificate of its authority; empty without TLS.
    pub ca_path: String,
    /// What tasks see of the daemon's environment.
    pub passed_through: environment::Environment,
    /// How attempts are confined.
    pub confining: Arc<Confining>,
    /// The site's programs before and after attempts.
    pub hooks: Hooks,
    /// Whether and how they run in images.
    pub containers: Arc<Containers>,
    /// Caps their GPUs.
    pub power: Arc<Power>,
    /// Makes their IMEX channels.
    pub imex: Arc<Imex>,
}

impl NodeContext {
    /// Directory of an ordered attempt.
    pub fn attempt_directory(&self, order: &RunAttempt) -> String {
        let key = AttemptKey::new(order.job_id, order.attempt);
        format!("{}/{}", self.attempts, key.directory_name())
    }

    /// Directory of an attempt.
    pub fn directory(&self, key: AttemptKey) -> PathBuf {
        Path::new(&self.attempts).join(key.directory_name())
    }

    /// What confines the attempt of this order, and the image that it runs in. May ask the system for users; an error
    /// is for a person.
    fn surroundings(
        &self,
        order: &RunAttempt,
    ) -> Result<(Confinement, Option<ContainerSpec>), String> {
        let confinement = self.confining.of(order)?;
        let directory = self.attempt_directory(order);
        let container = self.containers.of(order, &directory, &self.ca_path, &confinement)?;
        Ok((confinement, container))
    }

    /// The same, as tasks of this order are to see it: in an image nothing of the daemon's environment means anything.
    fn seen_by<'a>(&'a self, order: &RunAttempt) -> Cow<'a, Self> {
        match self.containers.hides_environment(order) {
            true => Cow::Owned(Self { passed_through: Environment::new(), ..self.clone() }),
            false => Cow::Borrowed(self),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            node: "n1".into(),
            attempts: "/state/attempts".into(),
            server: "https://127.0.0.1:1".into(),
            ca_path: "/state/tls/ca.pem".into(),
            passed_through: [("PATH".into(), "/usr/bin:/bin".into())].into(),
            confining: Arc::new(Confining::off()),
            hooks: Hooks::default(),
            containers: Arc::new(Containers::off()),
            power: Arc::new(Power::unable(None)),
            imex: Arc::new(Imex::off()),
        }
    }
}

/// Makes what an attempt needs before it can start. Repeating it is fine.
pub fn prepare(context: &NodeContext, order: &RunAttempt) -> Result<(), Refusal> {
    let Some(work) = order.spec.as_ref().and_then(|spec| spec.work.as_ref()) else {
        return Err(Refusal::of_node("the order says nothing to run".into()));
    };
    let directory = PathBuf::from(context.attempt_directory(order));
    let confining = &context.confining;
    // Asked now, so that an attempt that has no user here is refused before anything of it runs, and so is one whose
    // GPUs cannot be had in an image.
    context.surroundings(order).map_err(Refusal::of_node)?;
    let made = make_directory(&directory, order, work);
    made.and_then(|()| confining.hand_over(&directory, order))
        .map_err(|error| Refusal::of_node(format!("cannot make {}: {error}", directory.display())))
}

fn make_directory(directory: &Path, order: &RunAttempt, work: &Work) -> io::Result<()> {
    fs::create_dir_all(directory.join(spec::WORK))?;
    match work {
        Work::Script(script) if !order.tasks.is_empty() => {
            write_script(&directory.join(spec::SCRIPT), &script.text)
        }
        Work::Script(_) | Work::Command(_) => Ok(()),
    }
}

/// By rename: a script found by a shim is whole, and nobody has it open for writing.
fn write_script(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o700).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(fresh, path)
}

/// What the shim of an attempt is told at its start. May ask the system for users; an error is for a person.
pub fn shim_spec(context: &NodeContext, order: &RunAttempt) -> Result<ShimSpec, String> {
    let (confinement, container) = context.surroundings(order)?;
    Ok(ShimSpec { confinement, container, ..spec::shim_spec(&context.seen_by(order), order) })
}

/// The command that starts tasks of a further step.
pub fn start_tasks_command(
    context: &NodeContext,
    order: &RunAttempt,
    tasks: &StartTasks,
) -> ShimCommand {
    ShimCommand::StartTasks(spec::further_step(&context.seen_by(order), order, tasks))
}

/// The command that stops an attempt. Who loses the node through no doing of their own is warned first, if they
/// asked to be.
pub fn stop_command(stop: &StopAttempt) -> ShimCommand {
    ShimCommand::Stop {
        cause: stop.cause,
        reason: stop.reason.clone(),
        grace_ms: u64::from(stop.grace_s) * 1000,
        warn: matches!(stop.cause(), Cause::Preempted | Cause::Site) && stop.grace_s > 0,
    }
}
