//! Calls the command line `gotgan` as one person, the way a user would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::interrupt;

#[derive(Debug, Clone)]
pub struct Client {
    program: PathBuf,
    pub server: String,
    pub ca: PathBuf,
    pub token_file: PathBuf,
}

impl Client {
    pub fn new(program: PathBuf, server: String, ca: PathBuf, token_file: PathBuf) -> Self {
        Self { program, server, ca, token_file }
    }

    /// The same cluster as another person.
    pub fn with_token(&self, token_file: &Path) -> Self {
        Self { token_file: token_file.to_path_buf(), ..self.clone() }
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        // The person's own configuration has no say here.
        command.env("GOTGAN_CONFIG", "/nonexistent").env_remove("GOTGAN_TOKEN");
        command.env("GOTGAN_SERVER", &self.server).env("GOTGAN_CA", &self.ca);
        command.env("GOTGAN_TOKEN_FILE", &self.token_file);
        command
    }

    /// What the command prints; its complaint where it fails.
    pub fn text<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let output = self.output(arguments)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Value> {
        // First, because what follows a job's script or command belongs to the job.
        let mut command = self.command(&["--json"]);
        command.args(arguments);
        let output = finished(command, &words(arguments))?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`gotgan --json {}` printed no JSON", words(arguments)))
    }

    fn output<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        finished(self.command(arguments), &words(arguments))
    }
}

fn finished(mut command: Command, words: &str) -> Result<Output> {
    let output = command.output().context("gotgan cannot be started")?;
    interrupt::check()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`gotgan {words}` failed with {}: {}", output.status, complaint.trim());
    }
    Ok(output)
}

fn words<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    words.join(" ")
}
