//! What the next change of the quota book is judged by.

use std::collections::BTreeMap;

use crate::quota::Approval;
use crate::quota::audit::{AuditEntry, ChainHead, MOVEMENT, Source};

/// Where the audit chain ends, and what stands for the next change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaAudit {
    /// The last entry.
    pub head: ChainHead,
    /// Approvals of plans for the revision in force.
    pub approvals: Vec<Approval>,
    /// By subject, the first change that a command made since files said something about it.
    pub unfiled: BTreeMap<String, AuditEntry>,
}

impl QuotaAudit {
    /// Enters an entry that was made for this chain.
    pub fn enter(&mut self, entry: &AuditEntry) {
        self.head.pass(entry);
        match entry.source {
            // Files never speak of movements, so there is nothing to put back.
            Source::Command if entry.subject.starts_with(MOVEMENT) => {}
            Source::Command => {
                self.unfiled.entry(entry.subject.clone()).or_insert_with(|| entry.clone());
            }
            Source::Files => {
                self.unfiled.remove(&entry.subject);
            }
        }
    }
}
