//! Sentences about reservations: those that keep a job off nodes, and the one that it asks for.

use crate::plan::Blocker;

/// What the note says of a reservation that keeps a job off.
struct Note<'a> {
    holders: &'a str,
    from: &'a str,
    until: &'a str,
    /// The longest time limit with which the job could start now, seconds; 0 if none would do, `None` if it has begun.
    open_s: Option<i64>,
}

fn read(note: &str) -> Note<'_> {
    let mut words = note.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    Note { holders: word(), from: word(), until: word(), open_s: word().parse().ok() }
}

/// Which nodes it keeps the job off, for whom they are, and until when.
pub(super) fn sentence(blocker: &Blocker) -> String {
    let Note { holders, from, until, .. } = read(&blocker.note);
    let nodes = if blocker.limit == 1 { "node" } else { "nodes" };
    format!(
        "{} {nodes} it could use are reserved for {holders} from {from} until {until} ({}), and its time limit is not \
         over before then",
        blocker.limit, blocker.subject
    )
}

/// What would let it start before; nothing once the reservation has begun.
pub(super) fn shorter(blocker: &Blocker) -> String {
    match read(&blocker.note).open_s.map(|seconds| seconds / 60) {
        None => String::new(),
        Some(0) => "cancel it and submit it with a time limit that ends before then".to_owned(),
        Some(minutes) => format!("with a time limit of {minutes}m or less it could start now"),
    }
}

/// How the job stands to the reservation that it asks for.
pub(super) fn asked(blocker: &Blocker) -> String {
    let Blocker { subject, needed, limit, note, .. } = blocker;
    let (word, rest) = note.split_once(' ').unwrap_or((note, ""));
    let (moment, more) = rest.split_once(' ').unwrap_or((rest, ""));
    match word {
        "begins" => format!("waits for reservation {subject}, which begins at {moment}"),
        "long" => format!(
            "asks for reservation {subject}, which is over at {moment}, before its time limit would be"
        ),
        "few" => format!(
            "asks for reservation {subject}, which has {limit} nodes; this job needs {needed}"
        ),
        "over" => format!("asks for reservation {subject}, which was over at {moment}"),
        "cancelled" => {
            format!("asks for reservation {subject}, which {more} cancelled at {moment}")
        }
        "others" => format!("asks for reservation {subject}, which is for {rest}"),
        _ => format!("asks for reservation {subject}, and there is none of that name"),
    }
}

/// How to go on.
pub(super) fn asked_hint(blocker: &Blocker) -> String {
    let mut words = blocker.note.split(' ');
    let (word, seconds) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
    match word {
        "begins" => String::new(),
        "long" => match seconds.parse::<i64>().unwrap_or(0) / 60 {
            0 => "submit it without --reservation".to_owned(),
            minutes => format!(
                "submit it with a time limit of {minutes}m or less, or without --reservation"
            ),
        },
        "few" => "submit it with fewer nodes, or without --reservation".to_owned(),
        "over" | "cancelled" => "cancel it and submit it without --reservation".to_owned(),
        "others" => "submit it for one of these, or without --reservation".to_owned(),
        _ => "see `gotgan admin reservation list`, or submit it without --reservation".to_owned(),
    }
}
