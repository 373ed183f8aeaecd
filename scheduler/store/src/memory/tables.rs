//! What a store in memory holds, in the types of the core, and who leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::alert::Alert;
use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::Attempt;
use gotgan_core::change::{Event, PassRecord};
use gotgan_core::digest::Digest;
use gotgan_core::health::{Breaker, NodeHealth};
use gotgan_core::ids::{AttemptId, Epoch, GpuUuid, IdempotencyKey, JobId, NodeName, UserName};
use gotgan_core::job::Job;
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::node::{Admin, Inventory};
use gotgan_core::precedence::StartTurn;
use gotgan_core::quota::audit::AuditEntry;
use gotgan_core::quota::{Approval, QuotaBook};
use gotgan_core::step::Step;
use gotgan_core::window::{Window, WindowId};

use crate::{AnsweredRequest, Claim, JoinTokenRecord, Leadership, Result, StoreError, TokenRecord};

/// Everything there is, by what it is found by.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Who leads, or led last.
    pub leadership: Option<Leadership>,
    /// Jobs, arrays, and tasks of arrays that are jobs of their own.
    pub jobs: BTreeMap<JobId, Job>,
    /// The same by their keys.
    pub keys: BTreeMap<(UserName, IdempotencyKey), JobId>,
    /// All attempts there ever were.
    pub attempts: BTreeMap<AttemptId, Attempt>,
    /// Their steps.
    pub steps: BTreeMap<(AttemptId, u32), Step>,
    /// Thousandths of every GPU that are given out.
    pub occupied: BTreeMap<(NodeName, GpuUuid), i64>,
    /// Records of passes.
    pub passes: BTreeMap<u64, Arc<PassRecord>>,
    /// Which pass started an attempt, and how.
    pub turns: BTreeMap<AttemptId, (u64, StartTurn)>,
    /// Lines of the ledger by position.
    pub ledger: BTreeMap<u64, LedgerEntry>,
    /// Their positions by attempt.
    pub lines: BTreeMap<AttemptId, Vec<u64>>,
    /// Nodes.
    pub nodes: BTreeMap<NodeName, (Arc<Inventory>, Admin, NodeHealth)>,
    /// Breakers by what they are of.
    pub breakers: BTreeMap<String, Breaker>,
    /// Windows.
    pub windows: BTreeMap<WindowId, Window>,
    /// Books by revision, with when they were applied.
    pub books: BTreeMap<u64, (Arc<QuotaBook>, UnixMicros)>,
    /// The audit chain.
    pub audited: BTreeMap<u64, AuditEntry>,
    /// Approvals by plan and approver.
    pub approvals: BTreeMap<(Digest, UserName), Approval>,
    /// Alerts by position.
    pub alerts: BTreeMap<u64, Alert>,
    /// Events by position.
    pub events: BTreeMap<u64, Arc<Event>>,
    /// Tokens by id.
    pub tokens: BTreeMap<String, TokenRecord>,
    /// Join tokens by the digest of their secret.
    pub join_tokens: BTreeMap<String, JoinTokenRecord>,
    /// Answers by key.
    pub answered: BTreeMap<(UserName, IdempotencyKey), AnsweredRequest>,
    /// Values by name.
    pub settings: BTreeMap<String, String>,
}

impl Tables {
    pub(super) fn succeed_leader(
        &mut self,
        holder: &str,
        address: &str,
        claim: Claim,
    ) -> Result<Leadership> {
        let Claim { over, unless_renewed, until: expires } = claim;
        if let Some(current) = &self.leadership
            && current.expires > over
            && current.holder != holder
            && unless_renewed != Some((current.epoch, current.expires))
        {
            return Err(StoreError::LedByAnother(current.clone()));
        }
        let epoch = Epoch(self.epoch().0 + 1);
        let (holder, address) = (holder.to_owned(), address.to_owned());
        let taken = Leadership { epoch, holder, address, expires };
        self.leadership = Some(taken.clone());
        Ok(taken)
    }

    pub(super) fn renew_leadership(&mut self, epoch: Epoch, expires: UnixMicros) -> Result<()> {
        self.check_epoch(epoch)?;
        if let Some(leadership) = &mut self.leadership {
            leadership.expires = expires;
        }
        Ok(())
    }

    pub(super) fn resign(&mut self, epoch: Epoch, now: UnixMicros) {
        if let Some(leadership) = &mut self.leadership
            && leadership.epoch == epoch
        {
            leadership.expires = leadership.expires.min(now);
        }
    }

    /// The last epoch; 0 if nobody led yet.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.leadership.as_ref().map_or(Epoch(0), |leadership| leadership.epoch)
    }

    pub(super) fn check_epoch(&self, mine: Epoch) -> Result<()> {
        let newer = self.epoch();
        if newer == mine { Ok(()) } else { Err(StoreError::Fenced { mine, newer }) }
    }
}
