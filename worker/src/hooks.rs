//! Programs of the site before an attempt starts and after it has ended, and before hardware comes back: prolog, epilog, check.
//!
//! They say whether the node is fit, with an exit code and a last line of output. What runs them and waits for them is
//! [`run`]; what holds an attempt until they have ended, and runs a check by order, is [`crate::supervisor`].

mod run;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gotgan_proto::v1::RunAttempt;
use serde::Deserialize;

use crate::shim::tree;

/// In the environment of every hook, with the directory of this worker's attempts: what is left of hooks is found by it.
const MARK: &str = "GOTGAN_HOOKS_OF";

/// Section `[hooks]` of the worker's settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HooksConfig {
    /// Program before an attempt starts; empty: none.
    pub prolog: PathBuf,
    /// After this long it has failed.
    pub prolog_timeout_s: u64,
    /// Program after an attempt has ended; empty: none.
    pub epilog: PathBuf,
    /// After this long it has failed.
    pub epilog_timeout_s: u64,
    /// Program before hardware that was out takes work again; empty: none.
    pub check: PathBuf,
    /// After this long it has failed.
    pub check_timeout_s: u64,
}

impl Default for HooksConfig {
    fn default() -> Self {
        Self {
            prolog: PathBuf::new(),
            prolog_timeout_s: 60,
            epilog: PathBuf::new(),
            epilog_timeout_s: 60,
            check: PathBuf::new(),
            check_timeout_s: 3_600,
        }
    }
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Before the start.
    Prolog,
    /// After the end.
    Epilog,
    /// Before hardware comes back.
    Check,
}

impl Kind {
    /// As in settings and in the environment of the program.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Prolog => "prolog",
            Kind::Epilog => "epilog",
            Kind::Check => "check",
        }
    }
}

/// The hooks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    prolog: Option<Hook>,
    epilog: Option<Hook>,
    check: Option<Hook>,
}

/// One program of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    kind: Kind,
    program: PathBuf,
    timeout: Duration,
}

impl Hooks {
    /// Of the settings.
    ///
    /// # Errors
    /// For a person, if a program cannot be run or has no time.
    pub fn of(config: &HooksConfig) -> Result<Self, String> {
        let prolog = hook(Kind::Prolog, &config.prolog, config.prolog_timeout_s)?;
        let epilog = hook(Kind::Epilog, &config.epilog, config.epilog_timeout_s)?;
        let check = hook(Kind::Check, &config.check, config.check_timeout_s)?;
        Ok(Self { prolog, epilog, check })
    }

    /// Whether there is one of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.hook(kind).is_some()
    }

    /// Runs one, if there is one, and waits for its end.
    ///
    /// # Errors
    /// Why the node is not fit, for a person.
    pub async fn run(&self, kind: Kind, about: BTreeMap<String, String>) -> Result<(), String> {
        match self.hook(kind) {
            Some(hook) => run::run(hook, about).await,
            None => Ok(()),
        }
    }

    fn hook(&self, kind: Kind) -> Option<&Hook> {
        match kind {
            Kind::Prolog => self.prolog.as_ref(),
            Kind::Epilog => self.epilog.as_ref(),
            Kind::Check => self.check.as_ref(),
        }
    }
}

fn hook(kind: Kind, program: &Path, timeout_s: u64) -> Result<Option<Hook>, String> {
    let word = kind.word();
    if program.as_os_str().is_empty() {
        return Ok(None);
    }
    if timeout_s == 0 {
        return Err(format!("hooks.{word}_timeout_s must be at least 1"));
    }
    let shown = program.display();
    if !program.is_absolute() {
        return Err(format!("hooks.{word} must be an absolute path, or empty; it is {shown}"));
    }
    let found = program.metadata().map_err(|error| format!("hooks.{word} {shown}: {error}"))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(format!("hooks.{word} {shown} is no program that may be run"));
    }
    let (program, timeout) = (program.to_owned(), Duration::from_secs(timeout_s));
    Ok(Some(Hook { kind, program, timeout }))
}

/// What a hook is told of an attempt. `attempts` is the directory of this worker's attempts.
pub fn about(node: &str, attempts: &str, order: &RunAttempt) -> BTreeMap<String, String> {
    let spec = order.spec.as_ref();
    let uuids: Vec<&str> = order.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    let named = [
        (MARK, attempts.to_owned()),
        ("GOTGAN_NODE", node.to_owned()),
        ("GOTGAN_JOB_ID", order.job_id.to_string()),
        ("GOTGAN_ATTEMPT", order.attempt.to_string()),
        ("GOTGAN_NODE_RANK", order.node_rank.to_string()),
        ("GOTGAN_OWNER", order.owner.clone()),
        ("GOTGAN_PROJECT", spec.map(|spec| spec.project.clone()).unwrap_or_default()),
        ("GOTGAN_GPUS", uuids.join(",")),
    ];
    let cap = (order.gpu_cap_watts > 0)
        .then(|| ("GOTGAN_GPU_CAP_WATTS", order.gpu_cap_watts.to_string()));
    let channel =
        (order.imex_channel > 0).then(|| ("GOTGAN_IMEX_CHANNEL", order.imex_channel.to_string()));
    let named = named.into_iter().chain(cap).chain(channel);
    named.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a check is told: of one GPU, or of the node with all of them.
pub fn about_hardware(
    node: &str,
    attempts: &str,
    is_node: bool,
    gpus: &[String],
) -> BTreeMap<String, String> {
    let what = if is_node { "node" } else { "gpu" };
    let named = [
        (MARK, attempts.to_owned()),
        ("GOTGAN_NODE", node.to_owned()),
        ("GOTGAN_CHECK", what.to_owned()),
        ("GOTGAN_GPUS", gpus.join(",")),
    ];
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Ends what is left of hooks of a daemon that was killed: they are run again.
///
/// # Errors
/// If the machine's processes cannot be listed.
pub fn end_leftovers(attempts: &str) -> io::Result<usize> {
    let mark = format!("{MARK}={attempts}");
    tree::kill_all(|| tree::leftovers(None, &mark)).map(|killed| killed.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(prolog: &str, prolog_timeout_s: u64) -> String {
        let prolog = prolog.into();
        Hooks::of(&HooksConfig { prolog, prolog_timeout_s, ..Default::default() }).unwrap_err()
    }

    #[test]
    fn a_program_that_cannot_be_run_is_refused_with_the_name_of_its_key() {
        assert!(refusal("bin/check", 60).starts_with("hooks.prolog must be an absolute path"));
        assert!(refusal("/no/such", 60).starts_with("hooks.prolog /no/such: "));
        assert!(refusal("/etc/passwd", 60).ends_with("is no program that may be run"));
        assert_eq!(refusal("/bin/true", 0), "hooks.prolog_timeout_s must be at least 1");
    }

    #[test]
    fn without_programs_there_are_no_hooks() {
        let none = Hooks::of(&HooksConfig::default()).unwrap();
        assert!(![Kind::Prolog, Kind::Epilog, Kind::Check].into_iter().any(|kind| none.has(kind)));
    }
}
