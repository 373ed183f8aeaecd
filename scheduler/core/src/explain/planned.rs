//! Sentences about planned starts.

use crate::amount::UnixMicros;
use crate::plan::Blocker;
use crate::quota::show_moment;

/// The start that is planned for the job itself.
pub(super) fn own(blocker: &Blocker) -> String {
    let at = moment(&blocker.subject);
    match blocker.limit {
        0 | 1 => format!("is planned to start by {at} on node {}", blocker.note),
        nodes => format!("is planned to start by {at} on {nodes} nodes, {} first", blocker.note),
    }
}

/// The start of another that the job would put off.
pub(super) fn behind(blocker: &Blocker) -> String {
    let (job, at) = (&blocker.subject, moment(&blocker.note));
    format!("there is room, but it would still be there when job {job} is to start, by {at}")
}

/// What would let it start before.
pub(super) fn shorter(blocker: &Blocker) -> String {
    match blocker.available / 60_000 {
        0 => String::new(),
        minutes => format!("with a time limit of {minutes}m or less it could start now"),
    }
}

fn moment(micros: &str) -> String {
    micros.parse().map_or_else(|_| micros.to_owned(), |micros| show_moment(UnixMicros(micros)))
}
