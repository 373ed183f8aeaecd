//! The binary `gotgan-sim`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gotgan_sim::report::ScenarioReport;
use gotgan_sim::setup::SetupError;
use serde_json::json;

/// Output could not be written.
const FAILED: u8 = 1;
/// The scenario cannot be run, or what came of it is not what it expects.
const INVALID: u8 = 3;

/// Scenarios for Gotgan: the scheduler's own decisions with virtual time. Everything it prints is simulated
#[derive(Parser, Debug)]
#[command(name = "gotgan-sim", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a scenario and check what it expects
    #[command(after_help = "Examples:\n  gotgan-sim scenario examples/scenarios/recall.toml\n  \
                      gotgan-sim scenario late.toml --json\n\n\
                      Ends with 0 if everything is as expected, with 3 if not or if the file is wrong.\n\
                      docs/scenarios.md describes the file.")]
    Scenario {
        /// The scenario, a TOML file
        file: PathBuf,
        /// As one JSON document
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Arguments { command: Command::Scenario { file, json } } = Arguments::parse();
    let (text, code) = match gotgan_sim::run(&file) {
        Ok(report) => (said(&report, json), if report.passed { 0 } else { INVALID }),
        Err(error) => {
            complain(&error, json);
            return ExitCode::from(INVALID);
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(_) => ExitCode::from(FAILED),
    }
}

fn said(report: &ScenarioReport, json: bool) -> String {
    if json {
        return serde_json::to_string_pretty(report).map(|text| text + "\n").unwrap_or_default();
    }
    report.text()
}

/// Tells what is wrong on standard error.
fn complain(error: &SetupError, json: bool) {
    let faults: Vec<String> = match error {
        SetupError::Unreadable { source, .. } => vec![format!("{error}: {source}")],
        SetupError::Faults(faults) => faults.iter().map(ToString::to_string).collect(),
    };
    let text = if json { in_json(error, &faults) } else { faults.join("\n") };
    // There is nobody left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One line in the form of `docs/errors.md`.
fn in_json(error: &SetupError, messages: &[String]) -> String {
    let violations: Vec<_> = match error {
        SetupError::Unreadable { .. } => Vec::new(),
        SetupError::Faults(faults) => {
            let violation = |fault: &gotgan_sim::fault::ScenarioFault| json!({ "field": fault.key, "message": fault.to_string() });
            faults.iter().map(violation).collect()
        }
    };
    json!({
        "schema": "gotgan.error/1",
        "exit_code": INVALID,
        "kind": "invalid",
        "reason": "INVALID",
        "message": messages.join("; "),
        "violations": violations,
        "hint": "docs/scenarios.md",
    })
    .to_string()
}
