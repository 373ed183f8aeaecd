//! One round of the writer: commands drafted together, committed together.

use std::collections::{BTreeMap, VecDeque};

use gotgan_core::ids::{IdempotencyKey, JobId, UserName};
use gotgan_core::job::Digest;
use gotgan_core::lifecycle::Draft;
use gotgan_store::{AnsweredRequest, JoinTokenRecord, RecordedSubmission, TokenRecord};

/// What a command works on.
#[derive(Debug)]
pub struct RoundDraft<'a> {
    /// Changes of the world.
    pub draft: Draft<'a>,
    /// Tokens to store.
    pub tokens: Vec<TokenRecord>,
    /// Join tokens to store.
    pub join_tokens: Vec<JoinTokenRecord>,
    /// Answers to remember.
    pub answered: Vec<AnsweredRequest>,
    /// Keys seen lately, this round's included.
    pub recent: &'a mut RecentKeys,
}

impl RoundDraft<'_> {
    /// Remembers the answer to a request, durably and for the rounds to come.
    pub fn remember(&mut self, answer: AnsweredRequest) {
        self.recent.draft_answer(answer.clone());
        self.answered.push(answer);
    }
}

/// Keys remembered in memory: those of the last submissions, loaded at the start.
pub const RECENT_MAX: u32 = 65_536;

/// Whose key, and which.
pub type OwnedKey = (UserName, IdempotencyKey);

/// Idempotency keys seen lately with what they led to.
#[derive(Debug, Default)]
pub struct RecentKeys {
    submissions: BTreeMap<OwnedKey, (Digest, JobId)>,
    submission_order: VecDeque<OwnedKey>,
    answers: BTreeMap<OwnedKey, AnsweredRequest>,
    answer_order: VecDeque<OwnedKey>,
    /// Keys of answers of the round that is not committed yet.
    drafted: Vec<OwnedKey>,
}

impl RecentKeys {
    /// The job stored under a key.
    #[must_use]
    pub fn submission(&self, owner: &UserName, key: &IdempotencyKey) -> Option<&(Digest, JobId)> {
        self.submissions.get(&(owner.clone(), key.clone()))
    }

    /// Remembers a submission.
    pub fn insert_submission(&mut self, submission: RecordedSubmission) {
        let place = (submission.owner, submission.key);
        if self.submissions.insert(place.clone(), (submission.digest, submission.job)).is_none() {
            self.submission_order.push_back(place);
        }
    }

    /// The answer given under a key.
    #[must_use]
    pub fn answer(&self, owner: &UserName, key: &IdempotencyKey) -> Option<&AnsweredRequest> {
        self.answers.get(&(owner.clone(), key.clone()))
    }

    fn draft_answer(&mut self, answer: AnsweredRequest) {
        self.drafted.push((answer.owner.clone(), answer.key.clone()));
        self.insert_answer(answer);
    }

    /// Remembers an answer that is stored.
    pub fn insert_answer(&mut self, answer: AnsweredRequest) {
        let place = (answer.owner.clone(), answer.key.clone());
        if self.answers.insert(place.clone(), answer).is_none() {
            self.answer_order.push_back(place);
        }
    }

    /// What was drafted has been committed.
    pub fn settle(&mut self) {
        self.drafted.clear();
    }

    /// Whether what was drafted is committed is not known: forgets that, and all submissions, which the store tells again.
    /// Answers of rounds before stay. Whoever asks again may have looked for the answer when it was not there, and comes by
    /// here alone. Returns the keys of the answers to look for.
    pub fn unsettle(&mut self) -> Vec<OwnedKey> {
        self.submissions.clear();
        self.submission_order.clear();
        let drafted = std::mem::take(&mut self.drafted);
        for place in &drafted {
            self.answers.remove(place);
        }
        self.answer_order.retain(|place| self.answers.contains_key(place));
        drafted
    }

    /// Forgets the oldest. Called between rounds only: within a round no key may be forgotten that was not looked up
    /// because it was known.
    pub fn trim(&mut self) {
        while self.submission_order.len() > RECENT_MAX as usize {
            if let Some(oldest) = self.submission_order.pop_front() {
                self.submissions.remove(&oldest);
            }
        }
        while self.answer_order.len() > RECENT_MAX as usize {
            if let Some(oldest) = self.answer_order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gotgan_core::amount::UnixMicros;

    use super::*;

    fn answer(key: &str) -> AnsweredRequest {
        let (owner, key) = (UserName::new("kim").unwrap(), IdempotencyKey::new(key).unwrap());
        let digest = Digest::of(&[b"asked"]);
        AnsweredRequest { owner, key, digest, answer: String::new(), at: UnixMicros(0) }
    }

    #[test]
    fn answers_of_a_round_of_unknown_outcome_are_looked_for_and_those_before_are_known() {
        let (before, now) = (answer("before"), answer("now"));
        let mut recent = RecentKeys::default();
        recent.draft_answer(before.clone());
        recent.settle();
        recent.draft_answer(now.clone());
        assert_eq!(recent.unsettle(), [(now.owner.clone(), now.key.clone())]);
        assert!(recent.answer(&before.owner, &before.key).is_some());
        assert!(recent.answer(&now.owner, &now.key).is_none());
        assert!(recent.unsettle().is_empty());
    }
}
