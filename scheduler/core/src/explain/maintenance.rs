//! Sentences about maintenance that is to come.

use crate::plan::Blocker;

/// What the note says.
struct Note<'a> {
    /// The longest time limit with which the job could start now, seconds; 0 if none would do.
    open_s: i64,
    from: &'a str,
    until: &'a str,
    reason: &'a str,
}

fn read(note: &str) -> Note<'_> {
    let mut words = note.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    Note { open_s: word().parse().unwrap_or(0), from: word(), until: word(), reason: word() }
}

/// Which nodes it keeps the job off, and from when.
pub(super) fn sentence(blocker: &Blocker) -> String {
    let Note { from, until, reason, .. } = read(&blocker.note);
    let nodes = if blocker.limit == 1 { "node" } else { "nodes" };
    format!(
        "{} {nodes} it could use will be in maintenance from {from} until {until} ({}: {reason}), and its time limit is \
         not over before then",
        blocker.limit, blocker.subject
    )
}

/// What would let it start before.
pub(super) fn shorter(blocker: &Blocker) -> String {
    match read(&blocker.note).open_s / 60 {
        0 => String::new(),
        minutes => format!("with a time limit of {minutes}m or less it could start now"),
    }
}
