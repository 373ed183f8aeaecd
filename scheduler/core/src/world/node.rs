//! A node in the world: what it has, what is free, and whether it takes work.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::amount::{CpuMilli, GpuMilli, MemoryMib, UnixMicros};
use crate::attempt::NodeAllocation;
use crate::health::NodeHealth;
use crate::ids::{AttemptId, GpuUuid};
use crate::mig::Mig;
use crate::node::{Admin, Gpu, Inventory, Liveness};
use crate::window::Window;

/// A node with what is free on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// As registered, less the GPUs that are out, and with instances in the place of those that are cut: what may be
    /// given out.
    pub inventory: Arc<Inventory>,
    /// As registered, with all its GPUs.
    pub registered: Arc<Inventory>,
    /// How its hardware stands.
    pub health: Arc<NodeHealth>,
    /// What people decided.
    pub admin: Admin,
    /// What is heard of it.
    pub liveness: Liveness,
    /// Since when it stands so.
    pub liveness_since: UnixMicros,
    /// Nothing was heard of it yet, and it is counted on all the same: only in the world of a planner that plans while nodes
    /// come back.
    pub awaited: bool,
    /// What is free.
    pub free: NodeFree,
    /// Attempts that hold something here.
    pub attempts: BTreeSet<AttemptId>,
    /// Attempts that have ended in the books but still have processes here.
    pub leftovers: BTreeSet<AttemptId>,
    /// It came back with less than its attempts hold; what is free is then recomputed when one ends, since
    /// adding to a free amount that could not go below nothing would invent some.
    pub oversubscribed: bool,
    /// The window that keeps it out of service now.
    pub maintenance: Option<Arc<Window>>,
}

/// What is free on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFree {
    /// Of each GPU, in the order of the inventory.
    pub gpus: Vec<GpuMilli>,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
}

impl NodeFree {
    /// Everything the node has.
    #[must_use]
    pub fn all_of(inventory: &Inventory) -> Self {
        NodeFree {
            gpus: inventory.gpus.iter().map(Gpu::amount).collect(),
            cpu_milli: inventory.cpu_milli,
            memory_mib: inventory.memory_mib,
        }
    }
}

impl Node {
    /// A node that holds nothing and has not been heard.
    #[must_use]
    pub fn new(registered: Arc<Inventory>, admin: Admin, health: Arc<NodeHealth>) -> Self {
        let inventory = offered(&registered, &health);
        let free = NodeFree::all_of(&inventory);
        Node {
            inventory,
            registered,
            health,
            admin,
            liveness: Liveness::Unknown,
            liveness_since: UnixMicros::default(),
            awaited: false,
            free,
            attempts: BTreeSet::new(),
            leftovers: BTreeSet::new(),
            oversubscribed: false,
            maintenance: None,
        }
    }

    /// What the store keeps of it.
    #[must_use]
    pub fn stored(&self) -> (Arc<Inventory>, Admin, NodeHealth) {
        (Arc::clone(&self.registered), self.admin.clone(), NodeHealth::clone(&self.health))
    }

    /// Whether what is free must be recomputed rather than added to.
    pub(super) fn is_oversubscribed(&self) -> bool {
        self.oversubscribed
    }

    /// Whether new work may be placed here.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.why_no_work().is_none()
    }

    /// Why no new work may be placed here, in words for a person; `None` if it may.
    #[must_use]
    pub fn why_no_work(&self) -> Option<String> {
        if let Admin::Drain { by, reason, .. } = &self.admin {
            return Some(format!("drained by {by}: {reason}"));
        }
        if let Some(window) = &self.maintenance {
            return Some(window.describe());
        }
        if let Some(why) = self.health.why_no_work() {
            return Some(why);
        }
        match self.liveness {
            Liveness::Ready if self.leftovers.is_empty() => None,
            Liveness::Ready => Some("being cleaned of an earlier attempt".to_owned()),
            Liveness::Unknown if self.awaited => None,
            Liveness::Unknown => Some("not heard since the scheduler started".to_owned()),
            Liveness::Suspect => Some("not heard lately".to_owned()),
            Liveness::Lost => Some("lost".to_owned()),
        }
    }

    /// Whether maintenance alone keeps new work off it, so that it takes some again when that is over.
    #[must_use]
    pub fn only_maintained(&self) -> bool {
        let would =
            self.admin == Admin::Active && (self.liveness == Liveness::Ready || self.awaited);
        let sound = self.health.node.state.takes_work() && self.leftovers.is_empty();
        self.maintenance.is_some() && would && sound
    }

    /// Whether its GPUs count as capacity: nobody took it out, and it is heard, was a moment ago, or is counted on.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        let heard = matches!(self.liveness, Liveness::Ready | Liveness::Suspect) || self.awaited;
        let sound = self.health.node.state.takes_work();
        self.admin == Admin::Active && self.maintenance.is_none() && sound && heard
    }

    /// Whether any of its GPUs is not wholly taken.
    #[must_use]
    pub fn has_gpus_left(&self) -> bool {
        self.free.gpus.iter().any(|free| !free.is_zero())
    }

    /// GPUs of it that may not be given out, as far as their own health goes.
    pub fn gpus_out(&self) -> impl Iterator<Item = &Gpu> {
        self.registered.gpus.iter().filter(|gpu| !self.health.offers(&gpu.uuid))
    }

    /// Whether any of what may be given out is an instance of a GPU that is cut.
    #[must_use]
    pub fn has_instances(&self) -> bool {
        !Arc::ptr_eq(&self.inventory, &self.registered)
            && self.inventory.gpus.iter().any(|gpu| !gpu.mig.is_off())
    }

    /// The GPU of that name, or the one that an instance of that name is cut from, as registered.
    #[must_use]
    pub fn card_of(&self, uuid: &GpuUuid) -> Option<&Gpu> {
        let has = |gpu: &&Gpu| match &gpu.mig {
            Mig::Cut(cut) => cut.instances().iter().any(|one| one.uuid == *uuid),
            Mig::Off | Mig::Instance(_) => false,
        };
        let gpus = &self.registered.gpus;
        gpus.iter().find(|gpu| gpu.uuid == *uuid).or_else(|| gpus.iter().find(has))
    }

    /// Index of the GPU among those that may be given out.
    #[must_use]
    pub fn gpu_index(&self, uuid: &GpuUuid) -> Option<usize> {
        self.inventory.gpus.iter().position(|gpu| gpu.uuid == *uuid)
    }

    /// Takes what an attempt is given here.
    pub(super) fn take(&mut self, id: AttemptId, allocation: &NodeAllocation) {
        if self.attempts.insert(id) {
            self.subtract(allocation);
        }
    }

    /// Gives back what an attempt held here.
    pub(super) fn give_back(&mut self, id: AttemptId, allocation: &NodeAllocation) {
        if !self.attempts.remove(&id) {
            return;
        }
        for gpu in &allocation.gpus {
            if let Some(index) = self.gpu_index(&gpu.uuid) {
                let all = self.inventory.gpus[index].amount();
                self.free.gpus[index] = (self.free.gpus[index] + gpu.milli).min(all);
            }
        }
        let inventory = &self.inventory;
        self.free.cpu_milli = (self.free.cpu_milli + allocation.cpu_milli).min(inventory.cpu_milli);
        self.free.memory_mib =
            (self.free.memory_mib + allocation.memory_mib).min(inventory.memory_mib);
    }

    /// Replaces the inventory and recomputes what is free beside what is held.
    pub(super) fn reregister<'a>(
        &mut self,
        registered: Arc<Inventory>,
        held: impl Iterator<Item = &'a NodeAllocation>,
    ) {
        self.inventory = offered(&registered, &self.health);
        self.registered = registered;
        self.free = NodeFree::all_of(&self.inventory);
        self.oversubscribed = false;
        for allocation in held {
            self.subtract(allocation);
        }
    }

    fn subtract(&mut self, allocation: &NodeAllocation) {
        for gpu in &allocation.gpus {
            let Some(index) = self.gpu_index(&gpu.uuid) else { continue };
            self.oversubscribed |= self.free.gpus[index] < gpu.milli;
            self.free.gpus[index] = self.free.gpus[index].saturating_sub(gpu.milli);
        }
        let free = &mut self.free;
        self.oversubscribed |= free.cpu_milli < allocation.cpu_milli;
        self.oversubscribed |= free.memory_mib < allocation.memory_mib;
        free.cpu_milli = free.cpu_milli.saturating_sub(allocation.cpu_milli);
        free.memory_mib = free.memory_mib.saturating_sub(allocation.memory_mib);
    }
}

/// What may be given out of a node's hardware: its GPUs that are not out, and of those that are cut the instances.
fn offered(registered: &Arc<Inventory>, health: &NodeHealth) -> Arc<Inventory> {
    let as_it_is = |gpu: &Gpu| gpu.mig.is_off() && health.offers(&gpu.uuid);
    if registered.gpus.iter().all(as_it_is) {
        return Arc::clone(registered);
    }
    let mut offered = Inventory::clone(registered);
    let sound = registered.gpus.iter().filter(|gpu| health.offers(&gpu.uuid));
    offered.gpus = sound.flat_map(Gpu::given_out).collect();
    Arc::new(offered)
}
