//! The process that sets power limits: `gotgan-worker nvml-power`, started by the daemon and never by hand. It sets, reads back
//! what is in force, says so and ends. One that hangs is left alone.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::nvml::{Driver, Gpu, Reading};
use crate::reader::{child, keeper};

/// One GPU, and what it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which.
    pub uuid: String,
    /// The limit, milliwatts; `None`: what it has, to see whether it can be set.
    pub limit_mw: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which GPU.
    pub uuid: String,
    /// The limit that was set before, milliwatts.
    pub before_mw: u32,
    /// What it may draw now, milliwatts: the limit, or less where the board or its controller says so.
    pub enforced_mw: u32,
    /// Why it could not be set.
    pub error: Option<String>,
}

/// Why an argument is no setting.
#[derive(Debug, thiserror::Error)]
#[error("must be a GPU's UUID, perhaps with =MILLIWATTS")]
pub struct BadSetting;

impl std::str::FromStr for Setting {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        let (uuid, limit_mw) = match text.split_once('=') {
            Some((uuid, limit)) => (uuid, Some(limit.parse().map_err(|_| BadSetting)?)),
            None => (text, None),
        };
        Ok(Self { uuid: uuid.to_owned(), limit_mw })
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.limit_mw {
            Some(limit_mw) => write!(f, "{}={limit_mw}", self.uuid),
            None => f.write_str(&self.uuid),
        }
    }
}

/// Sets limits in a process of its own.
#[derive(Clone, Debug)]
pub struct Setter {
    /// NVML's library; absent: where the system finds it.
    pub library: Option<String>,
    /// The process is given up after so long.
    pub patience: Duration,
}

impl Setter {
    /// Sets these limits, one after the other, and says what is in force; fewer answers than settings if the process died.
    /// Blocks, for no longer than its patience.
    ///
    /// # Errors
    /// If it cannot be started or does not end in time.
    pub fn set(&self, settings: &[Setting]) -> Result<Vec<Answer>, String> {
        let mut child =
            self.spawn(settings).map_err(|error| format!("cannot ask the driver: {error}"))?;
        let Some(output) = child.stdout.take() else {
            return Err("cannot hear the driver".to_owned());
        };
        let answers = hear(output, Instant::now() + self.patience);
        match answers {
            Some(answers) => {
                // It has closed its output, so it is ending.
                let _ = child.wait();
                Ok(answers)
            }
            None => {
                // What hangs in a call of the driver may not die of this: nobody waits for it.
                let _ = child.kill();
                let seconds = self.patience.as_secs();
                Err(format!("the driver did not set power limits within {seconds} s"))
            }
        }
    }

    fn spawn(&self, settings: &[Setting]) -> io::Result<Child> {
        let mut command = Command::new(keeper::OWN_PROGRAM);
        command.arg0("gotgan-worker").arg("nvml-power").env_clear();
        if let Some(library) = &self.library {
            command.args(["--library", library]);
        }
        command.args(settings.iter().map(ToString::to_string));
        let passed = keeper::PASSED_ON.iter();
        command.envs(passed.filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    }
}

/// Everything that it says; `None` if it does not end in time.
fn hear(output: ChildStdout, until: Instant) -> Option<Vec<Answer>> {
    let (tell, told) = mpsc::sync_channel(1);
    let listen = move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let answers = lines.filter_map(|line| serde_json::from_str(&line).ok());
        // Whoever waited may have given up.
        let _ = tell.send(answers.collect());
    };
    std::thread::Builder::new().name("gpu-power".into()).spawn(listen).ok()?;
    told.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

/// The process itself.
pub fn run(library: Option<&str>, settings: &[Setting]) -> ExitCode {
    let driver = Driver::open(library).map_err(|error| error.to_string());
    for setting in settings {
        let answer = match &driver {
            Ok(driver) => carry_out(driver, setting),
            Err(why) => failed(setting, why.clone()),
        };
        let mut out = io::stdout().lock();
        let line = serde_json::to_string(&answer).unwrap_or_default();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    child::end_at_once()
}

fn carry_out(driver: &Driver, setting: &Setting) -> Answer {
    let set = || -> Reading<Answer> {
        let gpu = driver.gpu(&setting.uuid)?;
        let before_mw = gpu.power_limit_mw()?;
        gpu.set_power_limit_mw(within_range(&gpu, setting.limit_mw.unwrap_or(before_mw)))?;
        let enforced_mw = gpu.power_limit_enforced_mw()?;
        Ok(Answer { uuid: setting.uuid.clone(), before_mw, enforced_mw, error: None })
    };
    set().unwrap_or_else(|missing| failed(setting, missing.to_string()))
}

/// A limit above what the GPU takes is all that it takes; one below it is for the driver to refuse.
fn within_range(gpu: &Gpu<'_>, limit_mw: u32) -> u32 {
    gpu.power_range().map_or(limit_mw, |range| limit_mw.min(range.max_mw))
}

fn failed(setting: &Setting, why: String) -> Answer {
    Answer { uuid: setting.uuid.clone(), before_mw: 0, enforced_mw: 0, error: Some(why) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_setting_is_written_as_it_is_read() {
        for text in ["GPU-1=500000", "GPU-1"] {
            assert_eq!(text.parse::<Setting>().unwrap().to_string(), text);
        }
        assert!("GPU-1=much".parse::<Setting>().is_err());
    }
}
