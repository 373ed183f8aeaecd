//! Too little is free, in words.

use super::{gpu_word, memory_words, nodes_word};
use crate::amount::{CpuMilli, GpuMilli, MemoryMib};
use crate::plan::{Blocker, Unit};

/// What stands in the note of a blocker before the name of the block that is nearest to having room.
pub(crate) const BEST: &str = ", best ";

/// How much of something there is, and how much of it is free.
pub(super) fn capacity(blocker: &Blocker) -> String {
    let Blocker { subject, needed, available, limit, note, .. } = blocker;
    match blocker.unit {
        Unit::GpuMilli => {
            let (needed, free) = (GpuMilli(*needed), GpuMilli(*available));
            let all = GpuMilli(*limit);
            format!("needs {needed} {subject} {}; {free} of {all} are free", gpu_word(needed))
        }
        Unit::Instances => {
            let what = match available {
                0 => format!("no free {note} instance"),
                _ => format!("too few free {note} instances"),
            };
            format!("{what} on {subject} GPUs: needs {needed}, {available} of {limit} are free")
        }
        Unit::CpuMilli => {
            let (needed, free, all) = (CpuMilli(*needed), CpuMilli(*available), CpuMilli(*limit));
            format!("needs {needed} CPUs on each node; {free} of {all} are free {}", beside(note))
        }
        Unit::MemoryMib => {
            let [needed, free, all] =
                [needed, available, limit].map(|amount| memory_words(MemoryMib(*amount)));
            format!("needs {needed} memory on each node; {free} of {all} are free {}", beside(note))
        }
        Unit::NghMilli
        | Unit::Nodes
        | Unit::Job
        | Unit::Millis
        | Unit::PerMille
        | Unit::Watts
        | Unit::None => {
            let nodes = nodes_word(*needed);
            match note.split_once(BEST) {
                Some((what, best)) => {
                    format!(
                        "needs {nodes} with {what}; the best, {best}, has {available} of {limit}"
                    )
                }
                None => format!("needs {nodes} with {note}; {available} of {limit} have that"),
            }
        }
    }
}

fn beside(class: &str) -> String {
    if class.is_empty() {
        return "where most is".to_owned();
    }
    format!("beside free {class} GPUs")
}
