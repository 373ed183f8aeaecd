//! Orders to cut GPUs: one at a time for each GPU, and what went wrong is told with every heartbeat until another order comes.
//!
//! Nothing of it is kept: the order is derived again by the scheduler, and a GPU that is cut as it is to be is seen.

use std::collections::BTreeMap;

use gotgan_proto::v1::{CutFailure, CutGpu};

use super::Supervisor;
use crate::handle::Input;

/// What is being cut, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Cutting {
    /// By GPU: what is under way, and what was ordered meanwhile instead.
    under_way: BTreeMap<String, (CutGpu, Option<CutGpu>)>,
    failures: BTreeMap<String, CutFailure>,
}

impl Cutting {
    pub(super) fn failures(&self) -> Vec<CutFailure> {
        self.failures.values().cloned().collect()
    }
}

impl Supervisor {
    /// Begins what is ordered, unless that is under way, or could not be done: that is told with the next heartbeat. What it
    /// left half cut is registered anew, upon which the same comes again.
    pub(super) fn cut(&mut self, order: CutGpu) {
        let gpu = order.gpu_uuid.clone();
        if let Some((present, next)) = self.cutting.under_way.get_mut(&gpu) {
            *next = (*present != order).then_some(order);
            return;
        }
        let failed = self.cutting.failures.get(&gpu);
        if failed.is_some_and(|failed| failed.planned_us == order.planned_us) {
            return;
        }
        self.cutting.failures.remove(&gpu);
        if let Some(job) = self.holder_of(&gpu) {
            let reason = format!("job {job} is still on it");
            return self.cut_ended(order, Err(reason));
        }
        tracing::info!(gpu, profiles = ?order.profiles, whole = order.whole, "a GPU is cut by order");
        self.cutting.under_way.insert(gpu, (order.clone(), None));
        let (cutter, handle) = (self.gpus.cutter.clone(), self.handle.clone());
        tokio::spawn(async move {
            let outcome = cutter.cut(&order).await;
            // The daemon ends: whoever comes next is ordered again.
            let _ = handle.tell(Input::CutEnded(order, outcome)).await;
        });
    }

    pub(super) fn cut_ended(&mut self, order: CutGpu, outcome: Result<(), String>) {
        let CutGpu { gpu_uuid, planned_us, .. } = order;
        if let Some((_, Some(next))) = self.cutting.under_way.remove(&gpu_uuid) {
            return self.cut(next);
        }
        let Err(reason) = outcome else { return };
        tracing::error!(gpu = gpu_uuid, reason, "a GPU could not be cut as ordered");
        let failure = CutFailure { gpu_uuid: gpu_uuid.clone(), planned_us, reason };
        self.cutting.failures.insert(gpu_uuid, failure);
    }

    /// A job that has the GPU or a part of it.
    fn holder_of(&self, card: &str) -> Option<u64> {
        let mut orders = self.living_orders();
        let has = |uuid: &str| self.card_of(uuid) == card;
        let found = orders.find(|order| order.gpus.iter().any(|gpu| has(&gpu.uuid)));
        found.map(|order| order.job_id)
    }
}
