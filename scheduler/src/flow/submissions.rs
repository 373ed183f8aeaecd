//! Drafting submissions: a key that is known is answered with its job, a fresh one becomes a job.

use std::collections::BTreeSet;

use gotgan_core::lifecycle::{self, Submission};
use gotgan_store::RecordedSubmission;
use tokio::sync::oneshot;

use super::command::{Acknowledge, SubmitError, Submitted};
use super::round::RoundDraft;

/// Drafts one list of submissions and prepares its answer.
pub(super) fn draft_submissions(
    round: &mut RoundDraft<'_>,
    submissions: Vec<Submission>,
    reply: oneshot::Sender<Result<Vec<Submitted>, SubmitError>>,
) -> Acknowledge {
    let outcome = store_submissions(round, submissions);
    Box::new(move |committed| {
        let outcome = match committed {
            Ok(()) => outcome,
            Err(error) => Err(error.into()),
        };
        // A caller that went away will ask again under the same key.
        let _ = reply.send(outcome);
    })
}

fn store_submissions(
    round: &mut RoundDraft<'_>,
    submissions: Vec<Submission>,
) -> Result<Vec<Submitted>, SubmitError> {
    let mut answers: Vec<Option<Submitted>> = Vec::with_capacity(submissions.len());
    let mut fresh = Vec::new();
    let mut keys = BTreeSet::new();
    for (index, submission) in submissions.into_iter().enumerate() {
        if let Some((digest, job)) = round.recent.submission(&submission.owner, &submission.key) {
            if *digest != submission.digest {
                return Err(SubmitError::KeyReused(index, *job));
            }
            answers.push(Some(Submitted { job: *job, repeated: true }));
        } else if !keys.insert((submission.owner.clone(), submission.key.clone())) {
            return Err(SubmitError::KeyTwice(index));
        } else {
            answers.push(None);
            fresh.push((index, submission));
        }
    }
    let (places, fresh): (Vec<usize>, Vec<Submission>) = fresh.into_iter().unzip();
    let known: Vec<_> =
        fresh.iter().map(|one| (one.owner.clone(), one.key.clone(), one.digest.clone())).collect();
    let jobs = lifecycle::submit(&mut round.draft, fresh).map_err(|(at, refusal)| {
        SubmitError::Refused(places.get(at).copied().unwrap_or(at), refusal)
    })?;
    for ((owner, key, digest), job) in known.into_iter().zip(&jobs) {
        let submission = RecordedSubmission { owner, key, digest, job: *job };
        round.recent.insert_submission(submission);
    }
    for (place, job) in places.into_iter().zip(jobs) {
        if let Some(answer) = answers.get_mut(place) {
            *answer = Some(Submitted { job, repeated: false });
        }
    }
    Ok(answers.into_iter().flatten().collect())
}
