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
        self.recent.insert_answer(answer.clone());
        self.answered.push(answer);
    }
}

/// Keys remembered in memory: those of the last submissions, loaded at the start.
pub const RECENT_MAX: u32 = 65_536;

/// Idempotency keys seen lately with what they led to.
#[derive(Debug, Default)]
pub struct RecentKeys {
    submissions: BTreeMap<(UserName, IdempotencyKey), (Digest, JobId)>,
    submission_order: VecDeque<(UserName, IdempotencyKey)>,
    answers: BTreeMap<(UserName, IdempotencyKey), AnsweredRequest>,
    answer_order: VecDeque<(UserName, IdempotencyKey)>,
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

    fn insert_answer(&mut self, answer: AnsweredRequest) {
        let place = (answer.owner.clone(), answer.key.clone());
        if self.answers.insert(place.clone(), answer).is_none() {
            self.answer_order.push_back(place);
        }
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

    /// Forgets everything; after a round that was not committed.
    pub fn clear(&mut self) {
        *self = RecentKeys::default();
    }
}
