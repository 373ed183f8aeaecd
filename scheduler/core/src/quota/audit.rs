//! The audit chain: every change of the quota book, with who made it, on whose approval and on which decision.
//!
//! An entry is a line of JSON, its *body*, and a digest over the digest before it, a line feed and the body. The text
//! that was digested is the text that is kept, so anybody can check a chain without this program:
//!
//! ```text
//! printf '%s\n%s' "$PREVIOUS" "$BODY" | sha256sum
//! ```
//!
//! What an entry changes is in it whole, before and after, so the book of any past revision follows from the entries
//! up to it ([`Replay`]), and so does whether enough people stood for it by the rules of that time. A chain alone cannot show that its end was cut off: whoever must be sure of that notes its
//! newest digest elsewhere and compares.

mod edit;
mod replay;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::approval::Approval;
use super::book::QuotaBook;
use crate::amount::UnixMicros;
use crate::digest::Digest;
use crate::ids::UserName;

pub(crate) use edit::MOVEMENT;
pub use edit::{Edit, Terms, edits};
pub use replay::Replay;

/// One entry as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Position, from 1 and without gaps.
    pub seq: u64,
    /// Of the book that the change is part of.
    pub revision: u64,
    /// When it was committed.
    pub at: UnixMicros,
    /// What was changed, as in `node public/nup`.
    pub subject: String,
    /// By which way.
    pub source: Source,
    /// An [`AuditBody`] as JSON.
    pub body: Arc<str>,
    /// Digest over the one before and the body.
    pub digest: Digest,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditBody {
    /// Position, from 1 and without gaps.
    pub seq: u64,
    /// Of the book that the change is part of.
    pub revision: u64,
    /// When it was committed.
    pub at: UnixMicros,
    /// Who did it, how, and on which grounds.
    #[serde(flatten)]
    pub warrant: Warrant,
    /// The document that the changed thing rests on, as the book has it.
    pub decision: Option<String>,
    /// From when the change makes a difference.
    pub effective_from: UnixMicros,
    /// What was changed.
    pub edit: Edit,
}

/// On which grounds the book was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warrant {
    /// Who did it.
    pub by: UserName,
    /// Who asked for it.
    pub requester: UserName,
    /// By which way.
    pub source: Source,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// Digest of the plan that was applied, if one was.
    pub plan: Option<Digest>,
    /// Who approved it.
    pub approvals: Vec<Approval>,
}

/// By which way the book was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Files were applied.
    Files,
    /// A command that changes one thing; the files do not know of it yet.
    Command,
}

impl Source {
    /// The word in listings and in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Source::Files => "files",
            Source::Command => "command",
        }
    }

    /// The source of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Source::Files, Source::Command].into_iter().find(|source| source.word() == word)
    }
}

/// End of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// Position of the last entry; 0 if there is none.
    pub seq: u64,
    /// Its digest.
    pub digest: Digest,
    /// When it was committed; no later one was committed earlier.
    pub at: UnixMicros,
}

/// Why a chain cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// An entry is missing or stands twice.
    #[error("entry {expected} is missing: {found} stands in its place")]
    Gap {
        /// The position that comes next.
        expected: u64,
        /// The position that was found.
        found: u64,
    },
    /// The text is not what was digested.
    #[error(
        "entry {seq} was altered, or one before it: its digest is {kept}, and its text gives {computed}"
    )]
    Digest {
        /// Which entry.
        seq: u64,
        /// What is kept.
        kept: Digest,
        /// What follows from the text.
        computed: Digest,
    },
    /// It is older than the one before it.
    #[error("entry {seq} is of an earlier time than the one before it")]
    Older {
        /// Which entry.
        seq: u64,
    },
    /// The text cannot be read.
    #[error("entry {seq} cannot be read: {why}")]
    Unreadable {
        /// Which entry.
        seq: u64,
        /// What is wrong.
        why: String,
    },
    /// What stands beside the text is not what the text says.
    #[error(
        "entry {seq} is kept under another position, revision, time, source or subject than its text has"
    )]
    Label {
        /// Which entry.
        seq: u64,
    },
    /// Too few people stood for it by the rules that were in force before it.
    #[error(
        "revision {revision} needed the approval of {needed} people beside who asked for it and who applied it, and has that of {given}"
    )]
    NotApproved {
        /// Which revision of the book.
        revision: u64,
        /// How many were needed.
        needed: u32,
        /// How many there are.
        given: usize,
    },
    /// What it says was there before was not.
    #[error("entry {seq} changes {subject}, which was not as it says at that time")]
    Before {
        /// Which entry.
        seq: u64,
        /// What it changes.
        subject: String,
    },
}

/// The digest of a body that comes after `previous`.
#[must_use]
pub fn seal(previous: &Digest, body: &str) -> Digest {
    Digest::of(&[previous.as_str().as_bytes(), b"\n", body.as_bytes()])
}

impl ChainHead {
    /// Makes the next entry and moves on to it; `None` if the body cannot be written as JSON, which no body that was
    /// made from a book does.
    fn append(&mut self, body: &AuditBody) -> Option<AuditEntry> {
        let text: Arc<str> = serde_json::to_string(body).ok()?.into();
        let entry = AuditEntry {
            seq: body.seq,
            revision: body.revision,
            at: body.at,
            subject: body.edit.subject(),
            source: body.warrant.source,
            digest: seal(&self.digest, &text),
            body: text,
        };
        self.pass(&entry);
        Some(entry)
    }

    /// Moves on to an entry that is believed.
    pub fn pass(&mut self, entry: &AuditEntry) {
        *self = ChainHead { seq: entry.seq, digest: entry.digest.clone(), at: entry.at };
    }

    /// Checks that the entry comes next and is what was digested, and moves on to it.
    ///
    /// # Errors
    /// [`ChainFault`]; the head stays where it was.
    pub fn check(&mut self, entry: &AuditEntry) -> Result<(), ChainFault> {
        let expected = self.seq.saturating_add(1);
        if entry.seq != expected {
            return Err(ChainFault::Gap { expected, found: entry.seq });
        }
        let computed = seal(&self.digest, &entry.body);
        if computed != entry.digest {
            let kept = entry.digest.clone();
            return Err(ChainFault::Digest { seq: entry.seq, kept, computed });
        }
        if entry.at < self.at {
            return Err(ChainFault::Older { seq: entry.seq });
        }
        self.pass(entry);
        Ok(())
    }
}

/// The entries for a book that follows `old`, in the order of the chain that ends at `head`.
#[must_use]
pub fn record(
    head: &ChainHead,
    old: &QuotaBook,
    new: &QuotaBook,
    warrant: &Warrant,
    at: UnixMicros,
) -> Vec<AuditEntry> {
    let mut head = head.clone();
    let entries = edits(old, new).into_iter().filter_map(|edit| {
        let body = AuditBody {
            seq: head.seq.saturating_add(1),
            revision: new.revision,
            at,
            warrant: warrant.clone(),
            decision: edit.decision(old, new),
            effective_from: edit.effective_from(at),
            edit,
        };
        head.append(&body)
    });
    entries.collect()
}

impl AuditEntry {
    /// What the entry says.
    ///
    /// # Errors
    /// [`ChainFault::Unreadable`]; [`ChainFault::Label`] if it is kept under another name than its text has.
    pub fn read(&self) -> Result<AuditBody, ChainFault> {
        let body: AuditBody = serde_json::from_str(&self.body)
            .map_err(|error| ChainFault::Unreadable { seq: self.seq, why: error.to_string() })?;
        let same = (body.seq, body.revision, body.at) == (self.seq, self.revision, self.at)
            && body.warrant.source == self.source
            && body.edit.subject() == self.subject;
        if same { Ok(body) } else { Err(ChainFault::Label { seq: self.seq }) }
    }
}
