//! Owners are told once of each attempt whose GPUs do nothing. Nothing else happens to it.

use super::draft::Draft;
use crate::attempt::Attempt;
use crate::change::EventKind;
use crate::job::JobState;
use crate::measured::{self, IdleBeats};

/// Attempts told of in one round, so that it stays a short one; the rest comes with the next look.
const TOLD_MAX: usize = 1_000;

/// Tells of attempts whose GPUs have all done nothing for as long as the policy says, by what beats tell of them.
pub fn tell_idle(draft: &mut Draft<'_>, beats: &IdleBeats) {
    let warning_s = draft.policy.idle_warning_s;
    let mut told = Vec::new();
    for (id, beats) in beats {
        let Some(attempt) = draft.world.attempts.get(id) else { continue };
        if let Some(idle_ms) = measured::idle_to_tell(attempt, beats, warning_s) {
            told.push((Attempt::clone(attempt), idle_ms));
        }
    }
    for (mut attempt, idle_ms) in told.into_iter().take(TOLD_MAX) {
        let (id, text) = (attempt.id, words(&attempt, idle_ms));
        attempt.idle_told = Some(draft.now);
        draft.move_attempt(attempt);
        let state = draft.world.jobs.get(&id.job).map_or(JobState::Running, |job| job.status.state);
        draft.tell_job(id.job, id.number, state, EventKind::GpusIdle, text);
    }
}

fn words(attempt: &Attempt, idle_ms: u64) -> String {
    let gpus: usize = attempt.placement.nodes.iter().map(|place| place.gpus.len()).sum();
    let its = if gpus == 1 { "its GPU has".to_owned() } else { format!("its {gpus} GPUs have") };
    format!("{its} done nothing for {}", span(idle_ms / 1000))
}

/// As in "1 h 5 min" or "90 s": in whole minutes where they say enough.
fn span(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
    match (hours, minutes) {
        (0, 0..=2) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_span_is_told_as_people_say_it() {
        let told = [90, 180, 3_600, 3_900, 90_000].map(span);
        assert_eq!(told, ["90 s", "3 min", "1 h", "1 h 5 min", "25 h"]);
    }
}
