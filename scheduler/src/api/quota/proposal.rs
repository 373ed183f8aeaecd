//! What people want the quota tree to be: read, judged by who asks, and refused in words.

use gotgan_core::ids::UserName;
use gotgan_core::lifecycle::QuotaRefusal;
use gotgan_core::quota::{self, Consent, Proposal, QuotaBook, QuotaFault};
use gotgan_proto::v1;
use tonic::{Code, Status};

use crate::api::error;
use crate::auth::{Principal, Role};
use crate::planted;

/// Files of one apply, and the largest file, bytes.
const FILES_MAX: usize = 1_000;
const FILE_MAX_BYTES: usize = 1 << 20;

/// Longest reason, characters.
const REASON_MAX: usize = 500;
/// Longest name of a document, characters.
const DOCUMENT_MAX: usize = 256;

/// The proposal of a request; whoever is not named is the caller.
pub(super) fn read(
    who: &Principal,
    proposal: Option<v1::QuotaProposal>,
) -> Result<Proposal, Status> {
    let proposal = proposal.unwrap_or_default();
    let requester = match proposal.requester.as_str() {
        "" => who.subject.clone(),
        name => UserName::new(name).map_err(|bad| error::bad_name("proposal.requester", &bad))?,
    };
    Ok(Proposal {
        requester,
        reason: text("proposal.reason", proposal.reason, REASON_MAX)?,
        base_revision: proposal.base_revision,
        consent: Consent { stop: proposal.allow_stop, overwrite: proposal.overwrite },
        book: parse(&proposal.files)?,
    })
}

/// The name of the document that approves a plan; it must be given.
pub(super) fn document(text_given: String) -> Result<String, Status> {
    document_in("document", text_given)
}

/// A document's name in a field; it must be given.
pub(super) fn document_in(field: &str, text_given: String) -> Result<String, Status> {
    let document = text(field, text_given, DOCUMENT_MAX)?;
    if document.trim().is_empty() {
        let message = "name the document that stands for it, as in \"GPU-2026-031\"";
        return Err(error::invalid(field, "MISSING", message));
    }
    Ok(document)
}

/// A reason; it must be given.
pub(super) fn reason(text_given: String) -> Result<String, Status> {
    let reason = text("reason", text_given, REASON_MAX)?;
    if reason.trim().is_empty() {
        return Err(error::invalid("reason", "MISSING", "say why, or name the document"));
    }
    Ok(reason)
}

fn text(field: &str, text: String, max: usize) -> Result<String, Status> {
    if text.chars().count() > max {
        return Err(error::invalid(field, "TOO_LONG", format!("has at most {max} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(error::invalid(field, "MALFORMED", "is one line without control characters"));
    }
    Ok(text)
}

/// Refuses if the plan's digest is not that of the proposal.
pub(super) fn check_digest(proposal: &Proposal, given: &str) -> Result<(), Status> {
    if given.is_empty() || proposal.digest().as_str() == given {
        return Ok(());
    }
    let message = "is not the digest of this proposal: the plan was altered, or made by another version; make it again";
    Err(error::invalid("plan_digest", "PLAN_ALTERED", message))
}

/// The status of a refusal.
pub(super) fn refusal(refusal: &QuotaRefusal) -> Status {
    let (code, reason) = match refusal {
        QuotaRefusal::Stale { .. } => (Code::FailedPrecondition, "STALE_REVISION"),
        QuotaRefusal::NotApproved { .. } => (Code::FailedPrecondition, "NOT_APPROVED"),
        QuotaRefusal::OwnPlan { .. } => (Code::PermissionDenied, "OWN_PLAN"),
        QuotaRefusal::WouldStop(_) => (Code::FailedPrecondition, "WOULD_STOP"),
        QuotaRefusal::WouldUndo { .. } => (Code::FailedPrecondition, "WOULD_UNDO"),
        QuotaRefusal::ClockBehind { .. } => (Code::FailedPrecondition, "CLOCK_BEHIND"),
        QuotaRefusal::NoSuchBatch(_) => (Code::FailedPrecondition, "NO_SUCH_BATCH"),
    };
    error::status(code, reason, refusal.to_string())
}

fn parse(files: &[v1::QuotaFile]) -> Result<QuotaBook, Status> {
    if files.is_empty() || files.len() > FILES_MAX {
        let message = format!("send 1 to {FILES_MAX} files");
        return Err(error::invalid("files", "OUT_OF_RANGE", message));
    }
    for (index, file) in files.iter().enumerate() {
        if file.text.len() > FILE_MAX_BYTES {
            let message = format!("{} is larger than {FILE_MAX_BYTES} bytes", file.name);
            return Err(error::invalid(&format!("files[{index}].text"), "TOO_LONG", message));
        }
    }
    let texts: Vec<(String, String)> =
        files.iter().map(|file| (file.name.clone(), planted::quota(&file.text))).collect();
    quota::parse(&texts).map_err(|faults| refused("INVALID_QUOTA", &faults))
}

fn refused(reason: &str, faults: &[QuotaFault]) -> Status {
    let place = |fault: &QuotaFault| format!("{}:{}: {}", fault.file, fault.line, fault.field);
    let places: Vec<String> = faults.iter().map(place).collect();
    let messages = faults.iter().map(|fault| fault.message.as_str());
    error::invalid_fields(reason, places.iter().map(String::as_str).zip(messages))
}

/// Most paths that a refusal names.
const NAMED_MAX: usize = 3;

/// Refuses an allocator who changes what is not below a node that names them in the book in force.
pub(super) fn check_allocator(
    who: &Principal,
    present: &QuotaBook,
    wanted: &QuotaBook,
) -> Result<(), Status> {
    if who.role != Role::Allocator || !present.names_allocators() {
        return Ok(());
    }
    let (paths, fleet) = wanted.differs_from(present);
    let foreign = paths.iter().filter(|path| !present.may_change(&who.subject, path));
    let mut foreign: Vec<&str> = foreign.map(|path| path.as_str()).collect();
    if fleet {
        foreign.insert(0, "classes, clusters or lots");
    }
    if foreign.is_empty() {
        return Ok(());
    }
    let more = foreign.len().saturating_sub(NAMED_MAX);
    foreign.truncate(NAMED_MAX);
    let named = foreign.join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "{} allocates below the nodes that name them, and this changes {named}{rest}; leave that as it is or \
         ask an administrator",
        who.subject
    );
    Err(error::status(Code::PermissionDenied, "NOT_YOUR_SUBTREE", message))
}

/// Refuses an allocator who changes classes, clusters or lots, where the book names allocators.
pub(super) fn check_fleet(who: &Principal, present: &QuotaBook) -> Result<(), Status> {
    if who.role != Role::Allocator || !present.names_allocators() {
        return Ok(());
    }
    let message = format!(
        "{} allocates below the nodes that name them; ask an administrator to accept it",
        who.subject
    );
    Err(error::status(Code::PermissionDenied, "NOT_YOUR_SUBTREE", message))
}

/// By which right the caller changes what is at `path`.
pub(super) fn right_to(who: &Principal, present: &QuotaBook, path: &str) -> String {
    let mut above = present.nodes.iter().rev().filter(|(above, terms)| {
        let below = path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'));
        below && terms.allocator.as_ref() == Some(&who.subject)
    });
    match (who.role, above.next()) {
        (Role::Allocator, Some((above, _))) => format!("allocator of {above}"),
        (Role::Allocator, None) => "allocator".to_owned(),
        _ => "administrator".to_owned(),
    }
}
