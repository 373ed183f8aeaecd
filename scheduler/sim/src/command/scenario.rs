//! `gotgan-sim scenario`: runs a scenario and checks what it expects.

use std::path::PathBuf;
use std::process::ExitCode;

use gotgan_sim::fault::ScenarioFault;
use gotgan_sim::report::ScenarioReport;
use gotgan_sim::setup::SetupError;
use serde_json::json;

use super::{Failure, INVALID, complain, say};

/// What is asked for.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The scenario, a TOML file
    file: PathBuf,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(Arguments { file, json }: &Arguments) -> ExitCode {
    match gotgan_sim::run(file) {
        Ok(report) => say(&said(&report, *json), if report.passed { 0 } else { INVALID }),
        Err(error) => complain(&failure(&error), *json),
    }
}

fn said(report: &ScenarioReport, json: bool) -> String {
    if json {
        return serde_json::to_string_pretty(report).map(|text| text + "\n").unwrap_or_default();
    }
    report.text()
}

fn failure(error: &SetupError) -> Failure {
    let hint = "docs/scenarios.md";
    match error {
        SetupError::Unreadable { .. } => Failure::of(error, hint),
        SetupError::Faults(faults) => {
            let violation =
                |fault: &ScenarioFault| json!({ "field": fault.key, "message": fault.to_string() });
            Failure {
                messages: faults.iter().map(ToString::to_string).collect(),
                violations: faults.iter().map(violation).collect(),
                hint,
            }
        }
    }
}
