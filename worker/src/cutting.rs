//! Cutting a GPU by order of the scheduler, in a process of its own: a call of the driver may never come back.
//!
//! The process (`gotgan-worker nvml-cut`) does it, reads back what the driver says, and ends; what went wrong is its last
//! word. What the GPU is cut into then is seen by whoever reads it, as if the site's own tools had done it.

use std::io::Write;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use gotgan_proto::v1::CutGpu;
use tokio::process::Command;

use crate::nvml::Driver;
use crate::reader::keeper::{OWN_PROGRAM, PASSED_ON};

/// A GPU that is reset on the way takes its time; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of what went wrong, so much is told.
const WORDS_MAX: usize = 500;

/// What it takes to cut GPUs of this node.
#[derive(Clone, Debug, Default)]
pub struct Cutter {
    /// NVML's library; absent: where the system finds it.
    pub library: Option<String>,
    /// GPUs are invented: there is nothing to cut.
    pub invented: bool,
}

impl Cutter {
    /// Cuts a GPU as ordered. The error is for a person.
    pub async fn cut(&self, order: &CutGpu) -> Result<(), String> {
        if self.invented {
            return Err(
                "its GPUs are invented by --simulate; name there what they are cut into".into()
            );
        }
        let child = self.command(order).spawn();
        let child =
            child.map_err(|error| format!("the process for it cannot be started: {error}"))?;
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let ended = ended.map_err(|_| format!("the driver does not answer within {PATIENCE:?}"))?;
        let ended = ended.map_err(|error| format!("the process for it was lost: {error}"))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stdout);
        match said.trim() {
            "" => Err(format!("the process for it has ended: {}", ended.status)),
            said => Err(said.chars().take(WORDS_MAX).collect()),
        }
    }

    fn command(&self, order: &CutGpu) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("gotgan-worker").arg("nvml-cut").env_clear();
        command.args(["--gpu", &order.gpu_uuid]);
        if let Some(library) = &self.library {
            command.args(["--library", library]);
        }
        if order.whole {
            command.arg("--whole");
        }
        for profile in &order.profiles {
            command.args(["--profile", profile]);
        }
        command.envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// What the process does. `profiles`: absent, the GPU is to be whole.
#[must_use]
pub fn run(library: Option<&str>, gpu: &str, profiles: Option<&[String]>) -> ExitCode {
    match cut(library, gpu, profiles) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody hears it if the daemon is gone.
            let _ = writeln!(std::io::stdout(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn cut(library: Option<&str>, gpu: &str, profiles: Option<&[String]>) -> Result<(), String> {
    let driver = Driver::open(library).map_err(|error| error.to_string())?;
    let gpu = driver.gpu(gpu).map_err(|missing| format!("find the GPU: {missing}"))?;
    gpu.cut(profiles).map_err(|error| error.to_string())
}
