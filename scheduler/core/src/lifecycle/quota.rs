//! Quotas change: by a person, or because a date of theirs has come. Nothing happens to what runs.

use std::sync::Arc;

use super::draft::Draft;
use crate::change::{Change, EventKind, Subject};
use crate::ids::UserName;
use crate::quota::{QuotaBook, changed_between};

/// Nodes that an event names; the rest is counted.
const NAMED_MAX: usize = 3;

/// Replaces the book; answers its revision.
pub fn apply_quota(draft: &mut Draft<'_>, mut book: QuotaBook, by: &UserName) -> u64 {
    book.revision = draft.world.book.revision + 1;
    let revision = book.revision;
    draft.push(Change::QuotaApplied { book: Arc::new(book), at: draft.now });
    let text = format!("quota tree revision {revision} applied by {by}");
    draft.tell(Subject::Quota, EventKind::QuotaApplied, text);
    revision
}

/// Puts in force what has a date that has come. A clock that steps back takes nothing out of force again.
pub fn turn_quota(draft: &mut Draft<'_>) {
    if draft.now < draft.world.quota_until {
        return;
    }
    let before = Arc::clone(&draft.world.quota);
    draft.push(Change::QuotaTurned { at: draft.now });
    let changed = changed_between(&before, &draft.world.quota);
    let named: Vec<&str> = changed.iter().take(NAMED_MAX).map(|path| path.as_str()).collect();
    let more = match changed.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = match named.as_slice() {
        [] => "a date of the quota tree has come; no node changed".to_owned(),
        named => format!("by its dates the quota tree changed at {}{more}", named.join(", ")),
    };
    draft.tell(Subject::Quota, EventKind::QuotaTurned, text);
}
