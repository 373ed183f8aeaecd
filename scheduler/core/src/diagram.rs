//! The state machines as Mermaid diagrams, drawn from the `transition` functions themselves.

use std::fmt::Debug;
use std::fmt::Write;

use crate::attempt::{self, AttemptEvent, AttemptState};
use crate::job::{self, JobEvent, JobState};
use crate::node::{self, Liveness, LivenessEvent};

/// What a person sees of a job.
#[must_use]
pub fn job() -> String {
    draw("pending", &JobState::ALL, &JobEvent::ALL, JobState::word, |state, event| {
        job::transition(state, event).ok()
    })
}

/// What a machine sees of an attempt.
#[must_use]
pub fn attempt() -> String {
    draw("leased", &AttemptState::ALL, &AttemptEvent::ALL, AttemptState::word, |state, event| {
        attempt::transition(state, event).ok()
    })
}

/// What is heard of a node.
#[must_use]
pub fn node() -> String {
    draw("unknown", &Liveness::ALL, &LivenessEvent::ALL, Liveness::word, |state, event| {
        Some(node::transition(state, event)).filter(|next| *next != state)
    })
}

/// Every move of a machine as a Mermaid state diagram.
fn draw<S: Copy, E: Copy + Debug>(
    first: &str,
    states: &[S],
    events: &[E],
    word: fn(S) -> &'static str,
    next: impl Fn(S, E) -> Option<S>,
) -> String {
    let mut text = format!("stateDiagram-v2\n    [*] --> {first}\n");
    for &state in states {
        let moves: Vec<_> = events.iter().filter_map(|&e| Some((e, next(state, e)?))).collect();
        for (event, to) in &moves {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {} --> {}: {event:?}", word(state), word(*to));
        }
        if moves.is_empty() {
            let _ = writeln!(text, "    {} --> [*]", word(state));
        }
    }
    text
}
