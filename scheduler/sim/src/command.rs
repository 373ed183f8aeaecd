//! The commands of `gotgan-sim`, and what they have in common: how they end and how they complain.

pub mod pack;
pub mod replay;
pub mod scenario;

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

/// Output could not be written.
const FAILED: u8 = 1;
/// What was asked for cannot be run, or what came of it is not what was expected.
pub const INVALID: u8 = 3;

/// Why a command cannot be run.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong, a sentence each.
    pub messages: Vec<String>,
    /// Faults of single fields, in the form of `docs/errors.md`.
    pub violations: Vec<Value>,
    /// The page to read.
    pub hint: &'static str,
}

impl Failure {
    /// One thing that is wrong, with its causes.
    pub fn of(error: &dyn std::error::Error, hint: &'static str) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Failure { messages: vec![message], violations: Vec::new(), hint }
    }

    /// One line in the form of `docs/errors.md`.
    fn in_json(&self) -> String {
        json!({
            "schema": "gotgan.error/1",
            "exit_code": INVALID,
            "kind": "invalid",
            "reason": "INVALID",
            "message": self.messages.join("; "),
            "violations": self.violations,
            "hint": self.hint,
        })
        .to_string()
    }
}

/// Tells what is wrong on standard error.
pub fn complain(failure: &Failure, json: bool) -> ExitCode {
    let text = if json { failure.in_json() } else { failure.messages.join("\n") };
    // There is nobody left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(INVALID)
}

/// Writes what a command has to say, and ends with `code`.
pub fn say(text: &str, code: u8) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(_) => ExitCode::from(FAILED),
    }
}
