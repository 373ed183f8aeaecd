//! A chain taken entry by entry: each follows the one before it, finds what it says was there, and was approved.
//!
//! A chain is long and a book is short, so an entry is not read further than needed. What it says was there before must
//! be, to the letter, what the last entry about the same thing left; only if the letters differ, as after a change of
//! the program that writes them, are both read and compared by what they mean. The book is made when somebody asks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AuditEntry, ChainFault, ChainHead, Edit, Source};
use crate::amount::UnixMicros;
use crate::digest::Digest;
use crate::ids::UserName;
use crate::quota::approval::{Approval, ApprovalRule, ChangeSize};
use crate::quota::book::QuotaBook;

/// What the entries of a chain say together.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// The last entry taken.
    pub head: ChainHead,
    /// Revision of the last entry.
    revision: u64,
    /// By what they are about.
    last: BTreeMap<String, Last>,
    /// In force now.
    rules: Vec<ApprovalRule>,
    /// What the revision under way has changed so far.
    open: Option<OpenRevision>,
}

/// The last entry about a thing.
#[derive(Debug, Clone)]
struct Last {
    entry: AuditEntry,
    /// What the thing is after it, as it is written; `None` where it is not there any more.
    after: Option<Box<RawValue>>,
}

/// A revision whose entries are not all there yet.
#[derive(Debug, Clone)]
struct OpenRevision {
    revision: u64,
    entries: Vec<AuditEntry>,
    by: UserName,
    requester: UserName,
    plan: Option<Digest>,
    approvals: Vec<Approval>,
    /// In force before it.
    rules: Vec<ApprovalRule>,
}

/// An entry's body as far as it must be read.
#[derive(Deserialize)]
struct Outline<'a> {
    seq: u64,
    revision: u64,
    at: UnixMicros,
    by: UserName,
    requester: UserName,
    source: Source,
    plan: Option<Digest>,
    approvals: Vec<Approval>,
    /// By the kind of thing; there is one.
    #[serde(borrow)]
    edit: BTreeMap<Cow<'a, str>, Sides<'a>>,
}

/// What a thing was and is, as it is written.
#[derive(Clone, Copy, Deserialize)]
struct Sides<'a> {
    /// `None` for what there is one of.
    name: Option<&'a str>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
}

impl Replay {
    /// Takes the next entry.
    ///
    /// # Errors
    /// [`ChainFault`] for one that does not follow, or for the revision before it if too few approved that; then
    /// nothing was taken.
    pub fn take(&mut self, entry: &AuditEntry) -> Result<(), ChainFault> {
        self.head.clone().check(entry)?;
        let outline = Outline::read(entry)?;
        let sides = outline.sides(entry)?;
        self.check_before(entry, sides.before)?;
        if self.open.as_ref().is_some_and(|open| open.revision != outline.revision) {
            self.finish()?;
        }
        let open = self.open.get_or_insert_with(|| OpenRevision::of(outline, &self.rules));
        open.entries.push(entry.clone());
        if entry.subject == APPROVAL {
            self.rules = rules(entry, sides.after)?;
        }
        let after = sides.after.map(RawValue::to_owned);
        self.last.insert(entry.subject.clone(), Last { entry: entry.clone(), after });
        self.revision = entry.revision;
        self.head.pass(entry);
        Ok(())
    }

    /// Closes the last revision.
    ///
    /// # Errors
    /// [`ChainFault::NotApproved`].
    pub fn finish(&mut self) -> Result<(), ChainFault> {
        self.open.take().map_or(Ok(()), |open| open.check())
    }

    /// The book after the last entry. Between the entries of one revision it is neither the old one nor the new one.
    ///
    /// # Errors
    /// [`ChainFault::Unreadable`].
    pub fn book(&self) -> Result<QuotaBook, ChainFault> {
        let mut book = QuotaBook { revision: self.revision, ..QuotaBook::default() };
        for last in self.last.values() {
            last.entry.read()?.edit.apply(&mut book);
        }
        Ok(book)
    }

    /// Whether the thing was what the entry says it was.
    fn check_before(
        &self,
        entry: &AuditEntry,
        before: Option<&RawValue>,
    ) -> Result<(), ChainFault> {
        let last = self.last.get(&entry.subject);
        let there = last.and_then(|last| last.after.as_deref());
        if there.map(RawValue::get) == before.map(RawValue::get) {
            return Ok(());
        }
        let mut book = QuotaBook::default();
        if let Some(last) = last {
            last.entry.read()?.edit.apply(&mut book);
        }
        if entry.read()?.edit.matches(&book) {
            Ok(())
        } else {
            Err(ChainFault::Before { seq: entry.seq, subject: entry.subject.clone() })
        }
    }
}

/// Subject of the rules of approval.
const APPROVAL: &str = "approval";

fn unreadable(entry: &AuditEntry, error: &serde_json::Error) -> ChainFault {
    ChainFault::Unreadable { seq: entry.seq, why: error.to_string() }
}

/// The rules of approval that an entry puts in force.
fn rules(entry: &AuditEntry, after: Option<&RawValue>) -> Result<Vec<ApprovalRule>, ChainFault> {
    let rules = after.map(|after| serde_json::from_str(after.get())).transpose();
    rules.map(Option::unwrap_or_default).map_err(|error| unreadable(entry, &error))
}

impl<'a> Outline<'a> {
    /// Reads an entry; its text must say what stands beside it.
    fn read(entry: &'a AuditEntry) -> Result<Self, ChainFault> {
        let outline: Outline<'a> =
            serde_json::from_str(&entry.body).map_err(|error| unreadable(entry, &error))?;
        let kept = (entry.seq, entry.revision, entry.at, entry.source);
        let said = (outline.seq, outline.revision, outline.at, outline.source);
        if kept == said { Ok(outline) } else { Err(ChainFault::Label { seq: entry.seq }) }
    }

    /// What it was and is that the entry changes.
    fn sides(&self, entry: &AuditEntry) -> Result<Sides<'a>, ChainFault> {
        let label = || ChainFault::Label { seq: entry.seq };
        let (kind, sides) = self.edit.first_key_value().ok_or_else(label)?;
        let same = match sides.name {
            Some(name) => entry.subject.strip_prefix(&**kind) == Some(&format!(" {name}")),
            None => entry.subject == **kind,
        };
        if same { Ok(*sides) } else { Err(label()) }
    }
}

impl OpenRevision {
    fn of(outline: Outline<'_>, rules: &[ApprovalRule]) -> Self {
        let Outline { revision, by, requester, plan, approvals, .. } = outline;
        let rules = rules.to_vec();
        OpenRevision { revision, entries: Vec::new(), by, requester, plan, approvals, rules }
    }

    fn check(&self) -> Result<(), ChainFault> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let others = self.approvals.iter();
        let others = others.filter(|one| one.by != self.by && one.by != self.requester);
        let of_this_plan = others.filter(|one| Some(&one.plan) == self.plan.as_ref());
        let given = of_this_plan.map(|one| &one.by).collect::<BTreeSet<_>>().len();
        let bodies = self.entries.iter().map(|entry| Ok(entry.read()?.edit));
        let edits: Vec<Edit> = bodies.collect::<Result<_, ChainFault>>()?;
        let needed = ChangeSize::of(&edits).approvers(&self.rules);
        if (given as u64) < u64::from(needed) {
            return Err(ChainFault::NotApproved { revision: self.revision, needed, given });
        }
        Ok(())
    }
}
