//! What can go wrong for the caller, what to do about it, and with which exit code the program ends.
//!
//! The table of exit codes is also in `docs/errors.md`; a test compares the two.

use std::io;

use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How the program ends, unless it ends with a job's own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    Failed,
    Usage,
    Invalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Conflict,
    Limit,
    Unavailable,
    Cancelled,
    TimedOut,
    Internal,
    Interrupted,
    /// `quota plan`, `quota drift`: there is something to do.
    Planned,
    /// A quota plan was made for another revision.
    StalePlan,
    /// A quota plan has not been approved by enough people.
    NotApproved,
}

impl Exit {
    /// Every code, in the order of the documented table.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Invalid,
        Self::NotFound,
        Self::PermissionDenied,
        Self::Unauthenticated,
        Self::Conflict,
        Self::Limit,
        Self::Unavailable,
        Self::Cancelled,
        Self::TimedOut,
        Self::Internal,
        Self::Interrupted,
        Self::Planned,
        Self::StalePlan,
        Self::NotApproved,
    ];

    /// The number given to the operating system.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::NotFound => 4,
            Self::PermissionDenied => 5,
            Self::Unauthenticated => 6,
            Self::Conflict => 7,
            Self::Limit => 8,
            Self::Unavailable => 9,
            Self::Cancelled => 10,
            Self::TimedOut => 11,
            Self::Internal => 12,
            // 128 + SIGINT, as shells have it.
            Self::Interrupted => 130,
            // The four of `quota plan` and `apply` are those that a script asks for: 0, 2, 4, 5, with 3 for what is
            // refused. They share their numbers with other ends of other commands.
            Self::Planned => 2,
            Self::StalePlan => 4,
            Self::NotApproved => 5,
        }
    }

    /// The word for it in JSON and in the documentation.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Conflict => "conflict",
            Self::Limit => "limit",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Internal => "internal",
            Self::Interrupted => "interrupted",
            Self::Planned => "planned",
            Self::StalePlan => "stale_plan",
            Self::NotApproved => "not_approved",
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line itself makes no sense; nothing was sent.
    #[error("{message}")]
    Usage { message: String, hint: String },
    /// The caller's input is wrong; nothing was sent.
    #[error("{message}")]
    Invalid { message: String, hint: String },
    /// Several things in the input are wrong; nothing was sent.
    #[error("{}", .0.join("\n"))]
    InvalidMany(Vec<String>),
    /// A file of the caller could not be read or written.
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    /// The scheduler refused, or failed.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The scheduler was not reached.
    #[error("{message}")]
    Unreachable { message: String, hint: String },
    /// Output could not be written; a closed pipe ends here too.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// The scheduler answered something this program does not understand.
    #[error("unexpected answer from the scheduler: {0}")]
    Unexpected(String),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// An error as `--json` shows it.
#[derive(Debug, Serialize)]
struct ErrorView {
    schema: &'static str,
    exit_code: u8,
    kind: &'static str,
    reason: Option<String>,
    message: String,
    violations: Vec<Violation>,
    hint: Option<String>,
}

/// One field that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub field: String,
    pub message: String,
}

impl Error {
    /// An error in the caller's input with the way out of it.
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    /// How the program ends because of it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Invalid { .. } | Self::InvalidMany(_) | Self::File { .. } => Exit::Invalid,
            Self::Refused(status) => {
                let reason = self.reason().unwrap_or_default();
                exit_of_reason(&reason).unwrap_or_else(|| exit_of_status(status.code()))
            }
            Self::Unreachable { .. } => Exit::Unavailable,
            Self::Output(problem) if problem.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) => Exit::Failed,
            Self::Unexpected(_) => Exit::Internal,
        }
    }

    /// Tells the person at the terminal, or the program behind it, and returns the exit code.
    #[must_use]
    pub fn report(&self, json: bool) -> u8 {
        let exit = self.exit();
        if exit == Exit::Ok {
            return exit.code();
        }
        let text = if json { self.to_json() } else { self.to_text() };
        // Through a writer, as `eprintln!` would panic on a closed standard error.
        let _ = io::Write::write_all(&mut io::stderr().lock(), text.as_bytes());
        exit.code()
    }

    /// The lines for a person: what, where, and what to do next.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let violations = self.violations();
        if violations.is_empty() {
            for line in self.to_string().lines() {
                text.push_str(&format!("error: {}\n", printable(line)));
            }
        }
        for violation in &violations {
            let (field, message) = (printable(&violation.field), printable(&violation.message));
            text.push_str(&format!("error: {field}: {message}\n"));
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {}\n", printable(&hint)));
        }
        text
    }

    fn to_json(&self) -> String {
        let exit = self.exit();
        let view = ErrorView {
            schema: "gotgan.error/1",
            exit_code: exit.code(),
            kind: exit.word(),
            reason: self.reason(),
            message: self.to_string(),
            violations: self.violations(),
            hint: self.hint(),
        };
        let mut text = serde_json::to_string(&view).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The scheduler's machine-readable reason, if it gave one.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Refused(status) => status.get_details_error_info().map(|info| info.reason),
            _ => None,
        }
    }

    fn violations(&self) -> Vec<Violation> {
        let Self::Refused(status) = self else {
            return Vec::new();
        };
        let Some(request) = status.get_details_bad_request() else {
            return Vec::new();
        };
        let violation = |found: tonic_types::FieldViolation| Violation {
            field: flag_of_field(&found.field),
            message: found.description,
        };
        request.field_violations.into_iter().map(violation).collect()
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. }
            | Self::Invalid { hint, .. }
            | Self::Unreachable { hint, .. } => (!hint.is_empty()).then(|| hint.clone()),
            Self::Refused(status) => self.hint_of_status(status.code()).map(str::to_owned),
            Self::InvalidMany(_) | Self::File { .. } | Self::Output(_) | Self::Unexpected(_) => {
                None
            }
        }
    }

    fn hint_of_status(&self, code: Code) -> Option<&'static str> {
        match code {
            Code::Unauthenticated => Some(
                "check the token (`gotgan config` shows where it comes from); an administrator makes one with `gotgan admin token create`",
            ),
            Code::PermissionDenied => {
                Some("`gotgan whoami` shows your role and projects; ask the owner or an operator")
            }
            Code::NotFound => self.hint_of_missing(),
            Code::AlreadyExists => {
                Some("use a new --idempotency-key, or leave it out and one is made for each call")
            }
            Code::ResourceExhausted => {
                Some("wait until some of your jobs have ended, or ask for a larger limit")
            }
            Code::OutOfRange | Code::InvalidArgument => {
                Some("nothing was stored; correct the request, and check it with --dry-run first")
            }
            Code::Unavailable | Code::DeadlineExceeded => Some(
                "the scheduler may be restarting; try again, the same --idempotency-key never counts twice",
            ),
            Code::Unimplemented => {
                Some("the scheduler is of another version; `gotgan cluster` shows it")
            }
            _ => None,
        }
    }

    /// What to list to find the right name depends on what was not found.
    fn hint_of_missing(&self) -> Option<&'static str> {
        let reason = self.reason().unwrap_or_default().to_ascii_lowercase();
        if reason.contains("job") {
            Some("`gotgan jobs` lists the jobs you may see")
        } else if reason.contains("node") {
            Some("`gotgan nodes` lists the nodes")
        } else if reason.contains("project") || reason.contains("quota") {
            Some("`gotgan quota show` lists the projects")
        } else {
            None
        }
    }
}

/// Ends that a script tells apart although their codes are the same.
fn exit_of_reason(reason: &str) -> Option<Exit> {
    match reason {
        "STALE_REVISION" => Some(Exit::StalePlan),
        "NOT_APPROVED" | "OWN_PLAN" => Some(Exit::NotApproved),
        "WOULD_STOP" | "WOULD_UNDO" | "NOT_YOUR_SUBTREE" => Some(Exit::Invalid),
        _ => None,
    }
}

fn exit_of_status(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Ok,
        Code::InvalidArgument | Code::OutOfRange => Exit::Invalid,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied => Exit::PermissionDenied,
        Code::Unauthenticated => Exit::Unauthenticated,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Exit::Conflict,
        Code::ResourceExhausted => Exit::Limit,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unavailable,
        Code::Unknown | Code::Internal | Code::DataLoss | Code::Unimplemented => Exit::Internal,
    }
}

/// The flag a person typed for a field of the API, with the field behind it where they differ.
fn flag_of_field(field: &str) -> String {
    let flag = match field.strip_prefix("spec.").unwrap_or(field) {
        "name" => "--name",
        "project" => "--project",
        "resources.nodes" | "resources.nodes_max" => "--nodes",
        "resources.gpus_per_node" => "--gpus-per-node",
        "resources.gpus_total" => "--gpus",
        "resources.gpu_share_milli" => "--gpu-share",
        "resources.gpu_class" => "--gpu-class",
        "resources.gpu_cap_watts" | "resources.gpu_power_mode" => "--gpu-power",
        "resources.cpu_milli_per_node" => "--cpus-per-node",
        "resources.memory_mib_per_node" => "--mem",
        "time_limit_s" => "--time",
        "priority" => "--priority",
        "dependencies" => "--dependency",
        "warning_signal" => "--signal",
        "max_retries" => "--max-retries",
        "output_path" => "--output",
        "error_path" => "--error",
        "working_directory" => "--chdir",
        "image" => "--image",
        "environment" => "--env",
        "constraints.nodes" => "--nodelist",
        "constraints.exclude_nodes" => "--exclude",
        "constraints.labels" => "--constraint",
        "constraints.same_cluster" => "--same-cluster",
        "constraints.one" => "--one",
        "constraints.prefer" => "--prefer",
        "constraints.segment_nodes" => "--segment",
        "constraints.segment_level" => "--segment-level",
        "grace_s" => "--grace",
        "scavenger" => "--scavenger",
        _ => return field.to_owned(),
    };
    format!("{flag} ({field})")
}

/// Text from elsewhere without control characters, which could change a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashMap;
    use tonic_types::ErrorDetails;

    /// The rows of the exit code table in docs/errors.md, as (code, word).
    fn documented_exit_codes() -> Vec<(u8, String)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = text.split("<!-- exit codes -->").nth(1).unwrap();
        let row = |line: &str| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            Some((cells.next()?.parse().ok()?, cells.next()?.trim_matches('`').to_owned()))
        };
        table.lines().filter_map(row).collect()
    }

    #[test]
    fn the_documented_exit_codes_are_those_of_the_program() {
        let ours: Vec<_> =
            Exit::ALL.iter().map(|exit| (exit.code(), exit.word().to_owned())).collect();
        assert_eq!(documented_exit_codes(), ours);
    }

    #[test]
    fn a_refused_field_is_named_with_its_flag_and_the_fix() {
        let mut details = ErrorDetails::new();
        details.set_error_info("INVALID_SPEC", "gotgan", HashMap::new());
        details.add_bad_request_violation(
            "spec.resources.nodes",
            "20000 is more than 10000; ask for fewer",
        );
        let status = Status::with_error_details(Code::InvalidArgument, "bad", details);
        let error = Error::from(status);
        insta::assert_snapshot!(error.to_text(), @r"
        error: --nodes (spec.resources.nodes): 20000 is more than 10000; ask for fewer
        hint: nothing was stored; correct the request, and check it with --dry-run first
        ");
        assert_eq!(error.exit(), Exit::Invalid);
        assert_eq!(error.reason().as_deref(), Some("INVALID_SPEC"));
    }

    #[test]
    fn control_characters_of_a_message_do_not_reach_the_terminal() {
        let error = Error::from(Status::internal("a\u{1b}[2Jb"));
        assert_eq!(error.to_text(), "error: a [2Jb\n");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let error = Error::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.exit(), Exit::Ok);
    }
}
