//! The worker's side of the probe: asks the shim's program what this machine can, and tells what becomes of it.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use gotgan_proto::v1;
use serde::{Serialize, de::DeserializeOwned};

use super::config::{ConfinementConfig, Mode, UsersConfig};
use super::machine::Machine;
use super::plan::{Circumstances, Plan, plan};
use super::probe::Question;

/// Finds the plan of this machine. Where nothing is asked for, nothing is looked at.
pub fn find(
    config: &ConfinementConfig,
    users: &UsersConfig,
    state_directory: &Path,
    shim: &Path,
    name: &str,
) -> Plan {
    let machine = match config.mode {
        Mode::Off => {
            let root = nix::unistd::geteuid().is_root();
            Machine { root, ..Machine::unable("confinement is off") }
        }
        Mode::BestEffort | Mode::Required => {
            let (cgroup_root, name) = (config.cgroup_root.clone(), name.to_owned());
            ask(shim, "--probe", &Question { cgroup_root, name })
                .unwrap_or_else(|error| Machine::unable(&format!("cannot find out: {error}")))
        }
    };
    let real = state_directory.canonicalize().unwrap_or_else(|_| state_directory.to_owned());
    let circumstances = Circumstances { state_below_tmp: real.starts_with("/tmp") };
    plan(config, users, &machine, &circumstances)
}

/// Asks the shim's program something about this machine.
pub fn ask<A: DeserializeOwned>(
    shim: &Path,
    mode: &str,
    question: &impl Serialize,
) -> io::Result<A> {
    let mut command = Command::new(shim);
    command.arg(mode).arg(serde_json::to_string(question)?);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Says once, when the worker starts, what attempts are confined by and what not.
pub fn tell(plan: &Plan) {
    let mode = plan.mode.word();
    if plan.mode == Mode::Off {
        return tracing::warn!(
            "confinement is off: nothing keeps a task from others and their GPUs"
        );
    }
    tracing::info!(mode, applied = plan.words().join(", "), "attempts are confined");
    if !plan.missing.is_empty() {
        tracing::warn!(mode, "NOT CONFINED by {}", plan.sentences().join("; "));
    }
}

/// As the scheduler is told.
pub fn reported(plan: &Plan) -> v1::Confinement {
    let mode = match plan.mode {
        Mode::Off => v1::ConfinementMode::Off,
        Mode::BestEffort => v1::ConfinementMode::BestEffort,
        Mode::Required => v1::ConfinementMode::Required,
    };
    v1::Confinement { mode: mode.into(), applied: plan.words(), missing: plan.sentences() }
}
