//! Quotas change: by a person, or because a date of theirs has come. Nothing happens to what runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::Draft;
use crate::amount::UnixMicros;
use crate::change::{Change, EventKind, Subject};
use crate::digest::Digest;
use crate::forecast::{Forecast, forecast};
use crate::ids::{LotName, UserName};
use crate::plan::spelled;
use crate::quota::audit::{Edit, Source, Warrant, edits, record};
use crate::quota::{Approval, ChangeSize, Proposal, QuotaBook, changed_between};
use crate::world::World;

/// Nodes that an event names; the rest is counted.
const NAMED_MAX: usize = 3;

/// Why the book stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaRefusal {
    /// The book is not the one that the plan was made for.
    #[error(
        "the quota tree is at revision {present} and the plan was made for {planned}: make a new plan"
    )]
    Stale {
        /// Revision in force.
        present: u64,
        /// Revision that was looked at.
        planned: u64,
    },
    /// More people must stand for it.
    #[error(
        "{needed} must approve a change of this size beside whoever asks for it and whoever applies it, and {} did: \
         see `gotgan quota approve`", .given.len()
    )]
    NotApproved {
        /// How many must.
        needed: u32,
        /// Who did.
        given: Vec<UserName>,
    },
    /// Whoever asks for a change cannot approve it.
    #[error("{by} asks for this change and cannot approve it: somebody else must")]
    OwnPlan {
        /// Who tried.
        by: UserName,
    },
    /// Jobs that run would be stopped.
    #[error("{} running jobs would be STOPPED for others: agree with --allow-stop", .0.stopped.len())]
    WouldStop(Box<Forecast>),
    /// What commands changed would be put back.
    #[error(
        "the files would undo what {by} changed by command in revision {revision} ({subject}): write it into the \
         files, or agree with --overwrite"
    )]
    WouldUndo {
        /// What was changed.
        subject: String,
        /// By whom.
        by: UserName,
        /// In which revision.
        revision: u64,
    },
    /// The clock is behind the last change.
    #[error("the clock is behind the last change of the quota tree: correct it")]
    ClockBehind {
        /// When the last change was committed.
        last: UnixMicros,
    },
    /// There is no such batch, or it has been accepted.
    #[error("{0}")]
    NoSuchBatch(String),
}

/// Puts the book of a proposal in force; answers its revision, or `None` if nothing differs.
///
/// # Errors
/// [`QuotaRefusal`]; nothing is changed then.
pub fn apply_quota(
    draft: &mut Draft<'_>,
    proposal: Proposal,
    by: &UserName,
) -> Result<Option<u64>, QuotaRefusal> {
    let changes = edits(&draft.world.book, &proposal.book);
    if changes.is_empty() {
        return Ok(None);
    }
    let digest = proposal.digest();
    let approvals = judge(draft, &proposal, &changes, &digest, by)?;
    let warrant = Warrant {
        by: by.clone(),
        requester: proposal.requester,
        source: Source::Files,
        reason: proposal.reason,
        plan: Some(digest),
        approvals,
    };
    Ok(Some(enter(draft, proposal.book, &warrant)))
}

/// Counts an approval of a proposal by `by`; answers how many there are of how many that must be.
///
/// # Errors
/// [`QuotaRefusal`] if it is their own or the book has moved on.
pub fn approve_quota(
    draft: &mut Draft<'_>,
    proposal: &Proposal,
    by: &UserName,
    document: &str,
) -> Result<(u32, u32), QuotaRefusal> {
    let present = draft.world.book.revision;
    check_revision(&draft.world.book, proposal)?;
    if *by == proposal.requester {
        return Err(QuotaRefusal::OwnPlan { by: by.clone() });
    }
    let plan = proposal.digest();
    let stands = |approval: &Approval| approval.plan == plan && approval.by == *by;
    if !draft.world.audit.approvals.iter().any(stands) {
        let text = format!("{by} approved the quota plan {}, {document}", short(&plan));
        draft.push(Change::QuotaApproved(Arc::new(Approval {
            plan: plan.clone(),
            base_revision: present,
            by: by.clone(),
            document: document.to_owned(),
            at: draft.now,
        })));
        draft.tell(Subject::Quota, EventKind::QuotaApproved, text);
    }
    let given = approvals_of(draft, &plan, &[&proposal.requester]).len();
    let needed = approvers_needed(&draft.world.book, &edits(&draft.world.book, &proposal.book));
    Ok((u32::try_from(given).unwrap_or(u32::MAX), needed))
}

/// Accepts a batch of a delivery, counted from 1: from now on its GPUs can be given out.
///
/// # Errors
/// [`QuotaRefusal`]; a batch so large that others must approve it is accepted in the files instead.
pub fn accept_batch(
    draft: &mut Draft<'_>,
    lot: &LotName,
    number: usize,
    by: &UserName,
    reason: &str,
) -> Result<u64, QuotaRefusal> {
    let mut book = QuotaBook::clone(&draft.world.book);
    let refuse = |text: String| Err(QuotaRefusal::NoSuchBatch(text));
    let Some(terms) = book.lots.get_mut(lot) else {
        return refuse(format!("there is no lot {lot}"));
    };
    let batches = terms.batches.len();
    match number.checked_sub(1).and_then(|place| terms.batches.get_mut(place)) {
        None => return refuse(format!("lot {lot} has batches 1 to {batches}, not {number}")),
        Some(batch) if batch.accepted.is_some_and(|at| at <= draft.now) => {
            return refuse(format!("batch {number} of lot {lot} has been accepted"));
        }
        Some(batch) => batch.accepted = Some(draft.now),
    }
    let changes = edits(&draft.world.book, &book);
    check_clock(draft)?;
    let needed = approvers_needed(&draft.world.book, &changes);
    if needed > 0 {
        return Err(QuotaRefusal::NotApproved { needed, given: Vec::new() });
    }
    let warrant = Warrant {
        by: by.clone(),
        requester: by.clone(),
        source: Source::Command,
        reason: reason.to_owned(),
        plan: None,
        approvals: Vec::new(),
    };
    Ok(enter(draft, book, &warrant))
}

/// How many must approve these changes by the rules in force.
#[must_use]
pub fn approvers_needed(present: &QuotaBook, changes: &[Edit]) -> u32 {
    ChangeSize::of(changes).approvers(&present.approval)
}

/// The approvals that count for a change, if it may be made.
fn judge(
    draft: &Draft<'_>,
    proposal: &Proposal,
    changes: &[Edit],
    digest: &Digest,
    by: &UserName,
) -> Result<Vec<Approval>, QuotaRefusal> {
    let book = &draft.world.book;
    check_revision(book, proposal)?;
    check_clock(draft)?;
    check_overwrites(draft, proposal, changes)?;
    let approvals = approvals_of(draft, digest, &[&proposal.requester, by]);
    let needed = approvers_needed(book, changes);
    if (approvals.len() as u64) < u64::from(needed) {
        let given = approvals.into_iter().map(|approval| approval.by).collect();
        return Err(QuotaRefusal::NotApproved { needed, given });
    }
    if !proposal.consent.stop && !draft.world.attempts.is_empty() {
        let found = forecast(draft.world, draft.policy, &proposal.book, draft.now);
        if !found.stopped.is_empty() {
            return Err(QuotaRefusal::WouldStop(Box::new(found)));
        }
    }
    Ok(approvals)
}

/// Refuses a proposal that was made for another revision of the book.
///
/// # Errors
/// [`QuotaRefusal::Stale`].
pub fn check_revision(book: &QuotaBook, proposal: &Proposal) -> Result<(), QuotaRefusal> {
    let (present, planned) = (book.revision, proposal.base_revision);
    if planned == present { Ok(()) } else { Err(QuotaRefusal::Stale { present, planned }) }
}

pub(super) fn check_clock(draft: &Draft<'_>) -> Result<(), QuotaRefusal> {
    let last = draft.world.audit.head.at;
    if draft.now < last { Err(QuotaRefusal::ClockBehind { last }) } else { Ok(()) }
}

fn check_overwrites(
    draft: &Draft<'_>,
    proposal: &Proposal,
    changes: &[Edit],
) -> Result<(), QuotaRefusal> {
    match undone(draft.world, changes).into_iter().next() {
        Some((subject, by, revision)) if !proposal.consent.overwrite => {
            Err(QuotaRefusal::WouldUndo { subject, by, revision })
        }
        _ => Ok(()),
    }
}

/// Changes by command that these would put back: what, by whom, in which revision.
#[must_use]
pub fn undone(world: &World, changes: &[Edit]) -> Vec<(String, UserName, u64)> {
    let undone = changes.iter().filter_map(|edit| {
        let earlier = world.audit.unfiled.get(&edit.subject())?.read().ok()?;
        let undoes = edit.undoes(&earlier.edit);
        undoes.then(|| (edit.subject(), earlier.warrant.by, earlier.revision))
    });
    undone.collect()
}

/// Approvals of that plan by others than these.
fn approvals_of(draft: &Draft<'_>, plan: &Digest, others_than: &[&UserName]) -> Vec<Approval> {
    let approvals = draft.world.audit.approvals.iter();
    let counted = approvals.filter(|one| one.plan == *plan && !others_than.contains(&&one.by));
    let mut seen = BTreeSet::new();
    counted.filter(|one| seen.insert(&one.by)).cloned().collect()
}

/// Replaces the book and enters every difference into the chain; answers its revision. What commands moved stays.
pub(super) fn enter(draft: &mut Draft<'_>, mut book: QuotaBook, warrant: &Warrant) -> u64 {
    let old = Arc::clone(&draft.world.book);
    book.keep_moves(&old);
    book.revision = old.revision.saturating_add(1);
    let revision = book.revision;
    let entries = record(&draft.world.audit.head, &old, &book, warrant, draft.now);
    draft.push(Change::QuotaApplied { book: Arc::new(book), at: draft.now });
    for entry in entries {
        draft.push(Change::QuotaAudited(Arc::new(entry)));
    }
    let text = format!("quota tree revision {revision} applied by {}", warrant.by);
    draft.tell(Subject::Quota, EventKind::QuotaApplied, text);
    revision
}

/// The first digits, enough for a person.
fn short(digest: &Digest) -> &str {
    digest.as_str().get(..12).unwrap_or_default()
}

/// Puts in force what has a date that has come. A clock that steps back takes nothing out of force again.
pub fn turn_quota(draft: &mut Draft<'_>) {
    if draft.now < draft.world.quota_until {
        return;
    }
    let before = Arc::clone(&draft.world.quota);
    draft.push(Change::QuotaTurned { at: draft.now });
    let changed = changed_between(&before, &draft.world.quota);
    let named = spelled(changed.iter().map(|path| path.as_str()), NAMED_MAX);
    let text = match named.is_empty() {
        true => "a date of the quota tree has come; no node changed".to_owned(),
        false => format!("by its dates the quota tree changed at {named}"),
    };
    draft.tell(Subject::Quota, EventKind::QuotaTurned, text);
}
