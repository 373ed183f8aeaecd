//! What runs: the script or the command, its environment and its files.

use std::collections::BTreeMap;

use super::fault::{FaultReason, Findings};
use super::request::{CommandRequest, JobRequest, ScriptRequest, WorkRequest};
use crate::spec::{TaskLayout, Work};

/// A script, in bytes. It is stored with the job and sent to the first node whole.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;
/// Arguments in all, bytes; Linux refuses a single one above this.
const ARGUMENTS_BYTES_MAX: usize = 128 * 1024;
/// Entries of the environment.
const ENVIRONMENT_ENTRIES_MAX: usize = 256;
/// Environment in all, bytes; leaves room beside arguments in what Linux gives a process.
const ENVIRONMENT_BYTES_MAX: usize = 128 * 1024;
/// A path, bytes: what Linux takes.
const PATH_BYTES_MAX: usize = 4096;
/// A name, characters: what fits a listing.
pub(super) const NAME_MAX: usize = 128;
/// A comment, characters.
const COMMENT_MAX: usize = 1024;
/// What may follow a `%` in the path of an output file.
const PLACEHOLDERS: &str = "jastNAi";

/// Checks what runs; a stand-in takes the place of what is missing, as a fault is noted then.
pub(super) fn work(request: Option<WorkRequest>, findings: &mut Findings) -> Work {
    match request {
        Some(WorkRequest::Script(script)) => self::script(script, findings),
        Some(WorkRequest::Command(command)) => self::command(command, findings),
        None => {
            findings.fault(
                "script",
                FaultReason::Missing,
                "nothing to run; give a script or a command",
            );
            Work::Command { argv: Vec::new(), layout: TaskLayout::PerNode }
        }
    }
}

fn script(request: ScriptRequest, findings: &mut Findings) -> Work {
    let ScriptRequest { text, arguments } = request;
    if text.len() > SCRIPT_BYTES_MAX {
        let message = format!(
            "has {} bytes; at most {SCRIPT_BYTES_MAX} (1 MiB): move data into files",
            text.len()
        );
        findings.fault("script.text", FaultReason::TooLong, message);
    }
    if let Some((reason, message)) = wrong_with_first_line(&text) {
        findings.fault("script.text", reason, message);
    }
    arguments_fit("script.arguments", &arguments, findings);
    Work::Script { text, arguments }
}

fn wrong_with_first_line(text: &str) -> Option<(FaultReason, &'static str)> {
    let first = text.lines().next().unwrap_or_default();
    // `lines` drops the carriage return, and the kernel would not.
    let ends_with_return = text.split('\n').next().is_some_and(|line| line.ends_with('\r'));
    if text.trim().is_empty() {
        return Some((
            FaultReason::Missing,
            "is empty; give a script that begins with #!/bin/bash",
        ));
    }
    match first.strip_prefix("#!").map(str::trim_start) {
        None => Some((
            FaultReason::Malformed,
            "does not begin with #!; make its first line #!/bin/bash or another interpreter",
        )),
        Some(interpreter) if !interpreter.starts_with('/') => Some((
            FaultReason::Malformed,
            "names no interpreter by absolute path after #!; write for instance #!/bin/bash",
        )),
        Some(_) if ends_with_return => Some((
            FaultReason::Malformed,
            "has Windows line ends, which hide its interpreter; convert it with dos2unix",
        )),
        Some(_) => None,
    }
}

fn command(request: CommandRequest, findings: &mut Findings) -> Work {
    let CommandRequest { argv, layout } = request;
    if argv.first().is_none_or(String::is_empty) {
        findings.fault(
            "command.argv",
            FaultReason::Missing,
            "is empty; give a program and its arguments",
        );
    }
    arguments_fit("command.argv", &argv, findings);
    if layout.is_none() {
        let message = "is not a known layout; use one task a node or one a GPU";
        findings.fault("command.layout", FaultReason::Malformed, message);
    }
    Work::Command { argv, layout: layout.unwrap_or(TaskLayout::PerNode) }
}

fn arguments_fit(field: &str, arguments: &[String], findings: &mut Findings) {
    let bytes: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    findings.require_at_most(field, bytes, ARGUMENTS_BYTES_MAX, "bytes");
    if arguments.iter().any(|argument| argument.contains('\0')) {
        findings.fault(field, FaultReason::Malformed, "has a NUL character; remove it");
    }
}

/// The name asked for, or that of the command, or `script`.
pub(super) fn name(asked: &str, work: &Work, findings: &mut Findings) -> String {
    let name = match (asked, work) {
        ("", Work::Script { .. }) => "script".to_owned(),
        ("", Work::Command { argv, .. }) => {
            let program = argv.first().map(String::as_str).unwrap_or_default();
            let base = program.rsplit('/').next().unwrap_or_default();
            base.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
        }
        (asked, _) => asked.to_owned(),
    };
    findings.require_at_most("name", name.chars().count(), NAME_MAX, "characters");
    if name.chars().any(char::is_control) {
        findings.fault(
            "name",
            FaultReason::Malformed,
            "has control characters; use one plain line",
        );
    }
    name
}

/// Checks environment, paths and comment.
pub(super) fn surroundings(request: &JobRequest, findings: &mut Findings) {
    environment(&request.environment, findings);
    let directory = &request.working_directory;
    if !directory.is_empty() && !directory.starts_with('/') {
        let message = format!("\"{}\" is not absolute; begin it with /", shown(directory));
        findings.fault("working_directory", FaultReason::Malformed, message);
    }
    path("working_directory", directory, findings);
    output("output_path", &request.output_path, findings);
    output("error_path", &request.error_path, findings);
    let characters = request.comment.chars().count();
    findings.require_at_most("comment", characters, COMMENT_MAX, "characters");
}

fn environment(entries: &BTreeMap<String, String>, findings: &mut Findings) {
    findings.require_at_most("environment", entries.len(), ENVIRONMENT_ENTRIES_MAX, "entries");
    let bytes: usize = entries.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    findings.require_at_most("environment", bytes, ENVIRONMENT_BYTES_MAX, "bytes");
    for (name, value) in entries {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!(
                "\"{}\" is no name of a variable; it may not be empty nor have =",
                shown(name)
            );
            findings.fault("environment", FaultReason::Malformed, message);
        } else {
            findings.require_no_nul(&format!("environment.{}", shown(name)), value);
        }
    }
}

fn path(field: &str, path: &str, findings: &mut Findings) {
    findings.require_at_most(field, path.len(), PATH_BYTES_MAX, "bytes");
    findings.require_no_nul(field, path);
}

fn output(field: &str, pattern: &str, findings: &mut Findings) {
    path(field, pattern, findings);
    let unknown =
        pattern.split('%').skip(1).find(|rest| !rest.starts_with(|c| PLACEHOLDERS.contains(c)));
    if let Some(rest) = unknown {
        let word: String = rest.chars().take(1).collect();
        let message = format!(
            "has %{word}, which means nothing; use %j job, %a attempt, %s step, %t rank, %N node, and in arrays %A \
             array, %i index"
        );
        findings.fault(field, FaultReason::Malformed, message);
    }
}

/// What a person gave, short enough for a message.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    text.chars().take(SHOWN_MAX).filter(|c| !c.is_control()).collect()
}
