//! What somebody wants the quota book to be, before it is so.

use serde::Serialize;

use super::QuotaBook;
use crate::digest::Digest;
use crate::ids::UserName;

/// A book that somebody wants in force, made for one revision of the book that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who wants it.
    pub requester: UserName,
    /// Why, in their words.
    pub reason: String,
    /// Revision of the book that they looked at.
    pub base_revision: u64,
    /// What they agree to.
    pub consent: Consent,
    /// The book; its revision does not count.
    pub book: QuotaBook,
}

/// What somebody agrees to that is refused otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Consent {
    /// Jobs that run may be stopped for others because of the change.
    pub stop: bool,
    /// What commands changed since files were applied last may be put back.
    pub overwrite: bool,
}

impl Proposal {
    /// SHA-256 of everything in it: what an approval is bound to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let book = QuotaBook { revision: 0, ..self.book.clone() };
        let terms = (&self.requester, &self.reason, self.base_revision, self.consent, &book);
        // A book always can be written as JSON; if it could not, no approval would ever match.
        let text = serde_json::to_vec(&terms).unwrap_or_default();
        Digest::of(&[b"gotgan quota plan\n", &text])
    }
}
