//! Orders to check hardware that is about to come back: one at a time, and how each ended is told with every heartbeat until
//! another comes for the same.
//!
//! Nothing of it is kept: a check that was under way when the daemon ended is ordered again.

use std::collections::BTreeMap;
use std::time::Instant;

use gotgan_proto::v1::{CheckHardware, CheckOutcome};

use super::Supervisor;
use crate::handle::Input;
use crate::hooks::{Kind, about_hardware};

/// What is being checked, and how checks ended.
#[derive(Debug, Default)]
pub(super) struct Checking {
    /// What is under way, and what was ordered last meanwhile.
    under_way: Option<(CheckHardware, Option<CheckHardware>)>,
    /// By GPU; of the node as a whole under the empty name.
    outcomes: BTreeMap<String, CheckOutcome>,
}

impl Checking {
    pub(super) fn outcomes(&self) -> Vec<CheckOutcome> {
        self.outcomes.values().cloned().collect()
    }

    /// Whether a GPU is being checked now: what is on it is the check's.
    pub(super) fn has(&self, card: &str) -> bool {
        self.under_way.as_ref().is_some_and(|(order, _)| is_of(order, card))
    }
}

impl Supervisor {
    /// Begins what is ordered, unless that is under way or its outcome is told already.
    pub(super) fn check(&mut self, order: CheckHardware) {
        if let Some((present, next)) = &mut self.checking.under_way {
            *next = (!is_same(present, &order)).then_some(order);
            return;
        }
        let told = self.checking.outcomes.get(&order.gpu_uuid);
        if told.is_some_and(|told| told.since_us == order.since_us) {
            return;
        }
        self.checking.outcomes.remove(&order.gpu_uuid);
        let gpus = self.gpus_of(&order);
        if gpus.is_empty() && !order.gpu_uuid.is_empty() {
            return self.check_ended(order, Err("this node has no such GPU".to_owned()));
        }
        tracing::info!(gpu = order.gpu_uuid, "hardware is checked by order");
        let (context, handle) = (self.context.clone(), self.handle.clone());
        let is_node = order.gpu_uuid.is_empty();
        let about = about_hardware(&context.node, &context.attempts, is_node, &gpus);
        self.checking.under_way = Some((order.clone(), None));
        tokio::spawn(async move {
            let outcome = context.hooks.run(Kind::Check, about).await;
            // The daemon ends: whoever comes next is ordered again.
            let _ = handle.tell(Input::CheckEnded(order, outcome)).await;
        });
    }

    pub(super) fn check_ended(&mut self, order: CheckHardware, outcome: Result<(), String>) {
        for gpu in self.gpus_of(&order) {
            self.used_until.insert(gpu, Instant::now());
        }
        let next = self.checking.under_way.take().and_then(|(_, next)| next);
        let CheckHardware { gpu_uuid, since_us, .. } = order;
        let failed = outcome.err().unwrap_or_default();
        if failed.is_empty() {
            tracing::info!(gpu = gpu_uuid, "hardware passed the site's check");
        } else {
            tracing::error!(gpu = gpu_uuid, failed, "hardware did not pass the site's check");
        }
        let outcome = CheckOutcome { gpu_uuid: gpu_uuid.clone(), since_us, failed };
        self.checking.outcomes.insert(gpu_uuid, outcome);
        if let Some(next) = next {
            self.check(next);
        }
    }

    /// GPUs that a check is about.
    fn gpus_of(&self, order: &CheckHardware) -> Vec<String> {
        let all = self.gpus.cards.devices().into_iter().map(|device| device.uuid);
        all.filter(|uuid| is_of(order, uuid)).collect()
    }
}

fn is_of(order: &CheckHardware, card: &str) -> bool {
    order.gpu_uuid.is_empty() || order.gpu_uuid == card
}

/// Whether it is the same check, whoever leads.
fn is_same(one: &CheckHardware, other: &CheckHardware) -> bool {
    (&one.gpu_uuid, one.since_us) == (&other.gpu_uuid, other.since_us)
}
