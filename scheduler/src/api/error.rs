//! Errors as the API sends them: a code, a machine-readable reason, the fields, and what to do.

use std::borrow::Cow;
use std::collections::HashMap;

use gotgan_core::admit::Fault;
use gotgan_core::ids::BadName;
use gotgan_core::lifecycle::{ActionRefusal, StepRefusal, SubmitRefusal};
use gotgan_proto::{ERROR_DOMAIN, LEADER_ADDRESS, LEADER_EPOCH, NOT_LEADER};
use gotgan_store::{Leadership, StoreError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::flow::command::{FlowError, SubmitError};
use crate::flow::logs::LogError;

/// Most that a refusal says, bytes. It travels in the head of the answer, twice and written in other letters; a client that
/// gets a head of more than 16 KiB breaks the connection and never learns why it was refused.
const SAID_MAX_BYTES: usize = 2_048;
/// Most of one field's name.
const FIELD_MAX_BYTES: usize = 256;

/// The beginning of a text that is too long, with a mark where it was cut.
fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let end = (0..=max_bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

/// A status with a reason.
#[must_use]
pub fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, cut(&message.into(), SAID_MAX_BYTES), details)
}

/// Bad input in one field.
#[must_use]
pub fn invalid(field: &str, reason: &str, message: impl Into<String>) -> Status {
    invalid_fields(reason, [(field, message.into().as_str())].into_iter())
}

/// Bad input in any number of fields; `prefix` goes before each path.
#[must_use]
pub fn faults(prefix: &str, faults: &[Fault]) -> Status {
    let reason = faults.first().map_or("INVALID", |fault| fault.reason.word());
    let fields: Vec<String> =
        faults.iter().map(|fault| format!("{prefix}{}", fault.field)).collect();
    let messages = faults.iter().map(|fault| fault.message.as_str());
    invalid_fields(reason, fields.iter().map(String::as_str).zip(messages))
}

/// Bad input in these fields, each with what is wrong: as many as a refusal has room for, and how many more there are.
#[must_use]
pub fn invalid_fields<'f>(reason: &str, found: impl Iterator<Item = (&'f str, &'f str)>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, ERROR_DOMAIN, HashMap::new());
    let (mut lines, mut bytes, mut left) = (Vec::new(), 0, 0);
    for (field, message) in found {
        let (field, message) = (cut(field, FIELD_MAX_BYTES), cut(message, SAID_MAX_BYTES));
        bytes += field.len() + message.len();
        if bytes > SAID_MAX_BYTES && !lines.is_empty() {
            left += 1;
            continue;
        }
        lines.push(format!("{field}: {message}"));
        details.add_bad_request_violation(field, message);
    }
    if left > 0 {
        lines.push(format!("and {left} more"));
    }
    Status::with_error_details(Code::InvalidArgument, lines.join("; "), details)
}

/// A name that breaks its rule.
#[must_use]
pub fn bad_name(field: &str, error: &BadName) -> Status {
    invalid(field, "MALFORMED", error.to_string())
}

/// No such job, or none the caller may see; the two are not told apart.
#[must_use]
pub fn no_such_job(id: u64) -> Status {
    status(
        Code::NotFound,
        "UNKNOWN_JOB",
        format!("there is no job {id}, or it is not yours to see"),
    )
}

/// No such node.
#[must_use]
pub fn no_such_node(name: &str) -> Status {
    status(
        Code::NotFound,
        "UNKNOWN_NODE",
        format!("there is no node \"{name}\"; see `gotgan nodes`"),
    )
}

/// A project that is not the caller's.
#[must_use]
pub fn foreign_project(project: &str) -> Status {
    let message = format!("project {project} is not yours to use; see `gotgan whoami`");
    status(Code::PermissionDenied, "PROJECT_NOT_ALLOWED", message)
}

/// The flow did not carry a command out.
#[must_use]
pub fn flow(error: &FlowError) -> Status {
    let reason = match error {
        FlowError::NotCommitted => "NOT_COMMITTED",
        FlowError::NotLeader => NOT_LEADER,
        FlowError::Stopping => "STOPPING",
    };
    status(Code::Unavailable, reason, error.to_string())
}

/// This scheduler stands by. Where the leader is, as far as it is known, is said so that programs can follow it.
#[must_use]
pub fn led_by_another(leader: Option<&Leadership>) -> Status {
    let mut metadata = HashMap::new();
    let message = match leader {
        Some(leader) => {
            metadata.insert(LEADER_ADDRESS.to_owned(), leader.address.clone());
            metadata.insert(LEADER_EPOCH.to_owned(), leader.epoch.to_string());
            format!("this scheduler stands by; {} leads", leader.address)
        }
        None => "this scheduler stands by and knows of no leader yet".to_owned(),
    };
    let mut details = ErrorDetails::new();
    details.set_error_info(NOT_LEADER, ERROR_DOMAIN, metadata);
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The store failed to read. Logged here, since the caller learns only that it failed.
#[must_use]
pub fn store(error: &StoreError) -> Status {
    tracing::error!(error = error as &dyn std::error::Error, "the store failed to read");
    status(Code::Unavailable, "STORE_FAILED", "the store did not answer; try again")
}

/// A submission that was not stored. `prefix` is the path of the list, empty for a single job.
#[must_use]
pub fn submit(error: &SubmitError, prefix: &impl Fn(usize) -> String) -> Status {
    match error {
        SubmitError::Flow(error) => flow(error),
        SubmitError::KeyReused(at, _) | SubmitError::KeyTwice(at) => {
            let field = format!("{}idempotency_key", prefix(*at));
            key_reused(&field, error.to_string())
        }
        SubmitError::Refused(at, refusal) => refused(&prefix(*at), refusal),
    }
}

/// A key that was used for another request.
#[must_use]
pub fn key_reused(field: &str, message: String) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("IDEMPOTENCY_KEY_REUSED", ERROR_DOMAIN, HashMap::new());
    let (field, message) = (cut(field, FIELD_MAX_BYTES), cut(&message, SAID_MAX_BYTES));
    let text = format!("{field}: {message}");
    details.add_bad_request_violation(field, message);
    Status::with_error_details(Code::AlreadyExists, text, details)
}

fn refused(prefix: &str, refusal: &SubmitRefusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        SubmitRefusal::ProjectQueueFull { .. } => {
            status(Code::ResourceExhausted, "PROJECT_QUEUE_FULL", message)
        }
        SubmitRefusal::QueueFull { .. } => status(Code::ResourceExhausted, "QUEUE_FULL", message),
        SubmitRefusal::UnknownDependency(_) => {
            invalid(&format!("{prefix}spec.dependencies"), "UNKNOWN_JOB", message)
        }
        SubmitRefusal::DeadlineTooSoon { .. } => {
            invalid(&format!("{prefix}spec.deadline_us"), "OUT_OF_RANGE", message)
        }
        SubmitRefusal::Reservation(_) => invalid(
            &format!("{prefix}spec.constraints.reservation"),
            "RESERVATION_UNUSABLE",
            message,
        ),
        SubmitRefusal::TooManyNamesakes { .. } => {
            status(Code::ResourceExhausted, "TOO_MANY_NAMESAKES", message)
        }
        SubmitRefusal::StaleDependency(_) => status(Code::Unavailable, "DEPENDENCY_MOVED", message),
        SubmitRefusal::ImpossibleDependency(..) => {
            invalid(&format!("{prefix}spec.dependencies"), "IMPOSSIBLE_DEPENDENCY", message)
        }
    }
}

/// An action on a job that cannot be done.
#[must_use]
pub fn action(refusal: &ActionRefusal) -> Status {
    match refusal {
        ActionRefusal::NotLive(id) => no_such_job(id.0),
        ActionRefusal::WrongState { .. } => {
            status(Code::FailedPrecondition, "WRONG_JOB_STATE", refusal.to_string())
        }
        ActionRefusal::TooManyPieces { .. } => {
            status(Code::FailedPrecondition, "TOO_MANY_PIECES", refusal.to_string())
        }
        ActionRefusal::NoSuchTask { .. } => {
            status(Code::NotFound, "UNKNOWN_TASK", refusal.to_string())
        }
    }
}

/// A step that cannot start.
#[must_use]
pub fn step(refusal: &StepRefusal) -> Status {
    match refusal {
        StepRefusal::NotRunning(_) => {
            status(Code::FailedPrecondition, "ATTEMPT_NOT_RUNNING", refusal.to_string())
        }
        // The client asks again by itself.
        StepRefusal::Starting(_) => {
            status(Code::Unavailable, "ATTEMPT_STARTING", refusal.to_string())
        }
        StepRefusal::Invalid { field, message } => invalid(field, "OUT_OF_RANGE", message.clone()),
    }
}

/// Output that cannot be read.
#[must_use]
pub fn log(error: &LogError) -> Status {
    let reason = match error {
        LogError::NotConnected(_) => "NODE_NOT_CONNECTED",
        LogError::NoAnswer(_) => "NODE_NO_ANSWER",
        LogError::Busy => "BUSY",
    };
    status(Code::Unavailable, reason, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [&str; 11] = [
        include_str!("error.rs"),
        include_str!("cluster.rs"),
        include_str!("jobs.rs"),
        include_str!("jobs_streams.rs"),
        include_str!("maintenance.rs"),
        include_str!("nodes.rs"),
        include_str!("reservation.rs"),
        include_str!("quota.rs"),
        include_str!("workers.rs"),
        include_str!("../auth/error.rs"),
        include_str!("../../core/src/admit/fault.rs"),
    ];

    /// Words in quotes that look like reasons.
    fn reasons(source: &str) -> impl Iterator<Item = &str> {
        let shouted = |word: &&str| {
            word.len() >= 5
                && word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        source.split('"').filter(shouted)
    }

    #[test]
    fn every_reason_is_documented() {
        let documented = include_str!("../../../docs/errors.md");
        let missing: std::collections::BTreeSet<&str> = SOURCES
            .iter()
            .flat_map(|source| reasons(source))
            .filter(|reason| *reason != "CARGO_PKG_VERSION")
            .filter(|reason| !documented.contains(&format!("`{reason}`")))
            .collect();
        assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
    }

    #[test]
    fn a_refusal_fits_into_the_head_of_an_answer_however_much_is_wrong() {
        let long = "잘못".repeat(100_000);
        let many: Vec<(String, String)> =
            (0..5_000).map(|at| (format!("jobs[{at}].spec.name"), "is bad".to_owned())).collect();
        let fields = many.iter().map(|(field, message)| (field.as_str(), message.as_str()));
        let all = [
            status(Code::NotFound, "UNKNOWN_TOKEN", long.clone()),
            invalid(&long, "TOO_LONG", long.clone()),
            key_reused("idempotency_key", long.clone()),
            invalid_fields("INVALID", fields),
        ];
        for refusal in &all {
            let headers = refusal.clone().into_http::<String>().into_parts().0.headers;
            let bytes: usize =
                headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(bytes < 16 << 10, "{bytes} bytes");
        }
        let message = all[3].message();
        assert!(message.starts_with("jobs[0].spec.name: is bad; jobs[1]"), "{message}");
        assert!(message.ends_with(" more"), "{message}");
    }

    #[test]
    fn a_fault_names_its_field_and_its_reason() {
        let status = invalid("spec.name", "TOO_LONG", "at most 128 characters");
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("TOO_LONG"));
        let fields = details.bad_request().map(|bad| bad.field_violations.clone());
        assert_eq!(fields.unwrap_or_default()[0].field, "spec.name");
    }
}
