//! Nodes and their inventories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::{CpuMilli, GpuMilli, MemoryMib, UnixMicros};
use gotgan_core::fabric;
use gotgan_core::health::Terms;
use gotgan_core::health::lemon::{self, Score};
use gotgan_core::ids::{BadName, GpuClass, GpuUuid, NodeName};
use gotgan_core::image::Images;
use gotgan_core::imex::Imex;
use gotgan_core::mig::{CutPlan, Mig, MigCut, MigInstance, MigProfile};
use gotgan_core::node::{Admin, Confinement, ConfinementMode, Gpu, Inventory, Liveness};
use gotgan_core::nvlink;
use gotgan_core::power::caps::{CapRange, Caps};
use gotgan_core::window::Window;
use gotgan_core::world::{Node, World};
use gotgan_proto::v1;

use super::health::{self, Beside};
use crate::api::{maintenance, reservation};
use crate::flow::telemetry::Heard;

/// An inventory as a worker reports it.
///
/// # Errors
/// [`BadName`] if a name in it breaks its rule.
pub fn inventory_from(inventory: v1::NodeInventory, node: &NodeName) -> Result<Inventory, BadName> {
    let gpus: Result<Vec<Gpu>, BadName> = inventory.gpus.into_iter().map(gpu_from).collect();
    let mut inventory = Inventory {
        node: node.clone(),
        address: inventory.address,
        boot_id: inventory.boot_id,
        journal_id: String::new(),
        worker_version: inventory.worker_version,
        os: inventory.os,
        kernel: inventory.kernel,
        driver_version: inventory.driver_version,
        cuda_version: inventory.cuda_version,
        cpu_milli: CpuMilli(inventory.cpu_milli),
        memory_mib: MemoryMib(inventory.memory_mib),
        gpus: gpus?,
        labels: inventory.labels.into_iter().collect(),
        simulated: inventory.simulated,
        confinement: inventory.confinement.and_then(confinement_from),
        images: inventory.images.map(images_from),
        caps: inventory.power_caps.map(caps_from),
        checks_hardware: inventory.checks_hardware,
        imex: inventory.imex_channels.map(imex_from),
    };
    nvlink::take_domain_of_gpus(&mut inventory);
    Ok(inventory)
}

/// Nothing, of a mode that is newer than this scheduler.
fn confinement_from(confinement: v1::Confinement) -> Option<Confinement> {
    let mode = match confinement.mode() {
        v1::ConfinementMode::Unspecified => return None,
        v1::ConfinementMode::Off => ConfinementMode::Off,
        v1::ConfinementMode::BestEffort => ConfinementMode::BestEffort,
        v1::ConfinementMode::Required => ConfinementMode::Required,
    };
    Some(Confinement { mode, applied: confinement.applied, missing: confinement.missing })
}

fn images_from(images: v1::Images) -> Images {
    match images {
        v1::Images { able: true, by, .. } => Images::Able(by),
        v1::Images { missing, .. } if missing.is_empty() => Images::Off,
        v1::Images { missing, .. } => Images::Unable(missing),
    }
}

fn caps_from(caps: v1::PowerCaps) -> Caps {
    match caps {
        v1::PowerCaps { able: true, .. } => Caps::Able,
        v1::PowerCaps { missing, .. } if missing.is_empty() => Caps::Off,
        v1::PowerCaps { missing, .. } => Caps::Unable(missing),
    }
}

fn imex_from(channels: v1::ImexChannels) -> Imex {
    match channels {
        v1::ImexChannels { count: 1.., .. } => Imex::Able(channels.count),
        v1::ImexChannels { missing, .. } if missing.is_empty() => Imex::Off,
        v1::ImexChannels { missing, .. } => Imex::Unable(missing),
    }
}

fn gpu_from(gpu: v1::GpuDevice) -> Result<Gpu, BadName> {
    Ok(Gpu {
        uuid: GpuUuid::new(&gpu.uuid)?,
        index: gpu.index,
        name: gpu.name,
        class: GpuClass::new(&gpu.gpu_class)?,
        pci_bus_id: gpu.pci_bus_id,
        memory_mib: MemoryMib(gpu.memory_mib),
        serial: gpu.serial,
        nvlink_domain: gpu.nvlink_domain,
        cap_range: (gpu.cap_max_watts > 0)
            .then_some(CapRange { min_watts: gpu.cap_min_watts, max_watts: gpu.cap_max_watts }),
        mig: gpu.mig.map_or(Ok(Mig::Off), mig_from)?,
    })
}

/// An instance of a form of profile that is newer than this scheduler is left out: nobody could ask for it.
fn mig_from(cut: v1::MigCut) -> Result<Mig, BadName> {
    let instance = |one: v1::MigInstance| {
        let profile = MigProfile::new(&one.profile).ok()?;
        let uuid = GpuUuid::new(&one.uuid);
        Some(uuid.map(|uuid| MigInstance {
            uuid,
            profile,
            slices: one.slices,
            memory_mib: MemoryMib(one.memory_mib),
            gpu_instance: one.gpu_instance,
            compute_instance: one.compute_instance,
        }))
    };
    let instances: Result<Vec<MigInstance>, BadName> =
        cut.instances.into_iter().filter_map(instance).collect();
    Ok(Mig::Cut(MigCut::new(cut.slices, instances?)))
}

/// What is taken out of the world to show a node.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// As in the world, without the attempts themselves.
    pub node: Node,
    /// Attempts that hold something there.
    pub attempts: Vec<String>,
    /// What they hold of each GPU, instances of it included.
    pub held: BTreeMap<GpuUuid, GpuMilli>,
    /// Instances that they hold.
    pub instances_held: BTreeSet<GpuUuid>,
    /// Whether it is a spare one that stands by.
    pub stands_by: bool,
    /// Class of the GPUs of its cluster, where its own are of another.
    pub cluster_class: Option<GpuClass>,
    /// The maintenance that it is in, else the one that comes next.
    pub maintenance: Option<Arc<Window>>,
    /// The reservation by command that holds there, else the one that comes next.
    pub reserved: Option<Arc<Window>>,
    /// What speaks against it; looked for only where one node is shown.
    pub score: Score,
    /// What does not go together about its NVLink domain; looked for only where one node is shown.
    pub nvlink_disagreement: Option<nvlink::Disagreement>,
}

impl NodeView {
    /// With what does not go together about its NVLink domain: compares it with all other nodes.
    #[must_use]
    pub fn compared(self, world: &World) -> Self {
        let nvlink_disagreement = nvlink::disagreement(world, &self.node.registered);
        Self { nvlink_disagreement, ..self }
    }

    /// With what speaks against it: compares it with all other nodes.
    #[must_use]
    pub fn scored(self, world: &World, terms: &Terms, now: UnixMicros) -> Self {
        let name = &self.node.registered.node;
        let score = lemon::of_node(world, name, now, terms.lemon_half_life_s).unwrap_or_default();
        Self { score, ..self }
    }
}

/// Takes a node out of the world.
#[must_use]
pub fn node_view(world: &World, name: &NodeName) -> Option<NodeView> {
    let node = world.nodes.get(name)?;
    let attempts = node.attempts.iter().map(ToString::to_string).collect();
    let (held, instances_held) = held_on(world, node);
    let stands_by = fabric::stands_by(world, name);
    let cluster_class = fabric::misplaced(world, &node.registered).cloned();
    let windows = &world.windows;
    let maintenance = windows.open_on(name).or_else(|| windows.next_on(name)).cloned();
    let reserved = windows.reserved_on(name).cloned();
    let node = node.clone();
    let (score, nvlink_disagreement) = Default::default();
    Some(NodeView {
        node,
        attempts,
        held,
        instances_held,
        stands_by,
        cluster_class,
        maintenance,
        reserved,
        score,
        nvlink_disagreement,
    })
}

/// What attempts hold of each GPU of a node, and which instances.
fn held_on(world: &World, node: &Node) -> (BTreeMap<GpuUuid, GpuMilli>, BTreeSet<GpuUuid>) {
    let attempts = node.attempts.iter().filter_map(|id| world.attempts.get(id));
    let places = attempts.flat_map(|attempt| &attempt.placement.nodes);
    let here = places.filter(|place| place.node == node.registered.node);
    let (mut held, mut instances) = (BTreeMap::<GpuUuid, GpuMilli>::new(), BTreeSet::new());
    for gpu in here.flat_map(|place| &place.gpus) {
        let card = node.card_of(&gpu.uuid).map_or(&gpu.uuid, |card| &card.uuid);
        *held.entry(card.clone()).or_default() += gpu.milli;
        if *card != gpu.uuid {
            instances.insert(gpu.uuid.clone());
        }
    }
    (held, instances)
}

/// A node as the API's.
#[must_use]
pub fn node(view: NodeView, heard: Option<Heard>, lemon_from: u32) -> v1::Node {
    let score = (view.score != Score::default()).then(|| score(view.score, lemon_from));
    let NodeView { node, attempts, stands_by, cluster_class, nvlink_disagreement, .. } = view;
    let (maintenance, reserved) = (view.maintenance, view.reserved);
    let allocated = node.registered.gpus.iter().map(|gpu| view.held.get(&gpu.uuid));
    let allocated: Vec<u64> = allocated.map(|held| held.map_or(0, |held| held.0)).collect();
    let free: GpuMilli = node.free.gpus.iter().copied().sum();
    let (is_busy, has_check) = (!node.attempts.is_empty(), node.registered.checks_hardware);
    let (last, readings) = heard.map_or((0, Vec::new()), |heard| (heard.at.0, heard.readings));
    v1::Node {
        name: node.inventory.node.to_string(),
        liveness: liveness(node.liveness).into(),
        admin: admin(&node).into(),
        admin_reason: match (&node.admin, &node.maintenance) {
            (Admin::Active, None) => String::new(),
            (Admin::Active, Some(window)) => format!("{} (by {})", window.reason, window.by),
            (Admin::Drain { by, reason, .. }, _) => format!("{reason} (by {by})"),
        },
        free_gpu_milli: free.0,
        free_cpu_milli: node.free.cpu_milli.0,
        free_memory_mib: node.free.memory_mib.0,
        attempts,
        last_heartbeat_us: last,
        readings,
        gpu_health: node
            .registered
            .gpus
            .iter()
            .map(|gpu| {
                let is_busy = view.held.contains_key(&gpu.uuid);
                health::gpu(node.health.gpus.get(&gpu.uuid), Beside { is_busy, has_check })
            })
            .collect(),
        health: Some(health::standing(&node.health.node, Beside { is_busy, has_check })),
        no_work_reason: node.why_no_work().unwrap_or_default(),
        instances_held: view.instances_held.iter().map(ToString::to_string).collect(),
        cut_plans: node
            .health
            .cuts
            .iter()
            .map(|(gpu, plan)| cut_plan(gpu, plan, &view.held))
            .collect(),
        gpu_allocated_milli: allocated
            .into_iter()
            .map(|it| u32::try_from(it).unwrap_or(1000))
            .collect(),
        inventory: Some(inventory(&node.registered)),
        score,
        stands_by,
        cluster_gpu_class: cluster_class.map(|class| class.to_string()).unwrap_or_default(),
        maintenance: maintenance.map(|window| maintenance::show_on(&window, &node.inventory.node)),
        reservation: reserved
            .and_then(|window| reservation::show_on(&window, &node.inventory.node)),
        nvlink_disagreement: nvlink_disagreement.map(|it| it.to_string()).unwrap_or_default(),
    }
}

fn score(score: Score, lemon_from: u32) -> v1::NodeScore {
    let Score { milli, users, losses } = score;
    v1::NodeScore { milli, users, losses, lemon_from }
}

fn cut_plan(gpu: &GpuUuid, plan: &CutPlan, held: &BTreeMap<GpuUuid, GpuMilli>) -> v1::GpuCutPlan {
    v1::GpuCutPlan {
        gpu_uuid: gpu.to_string(),
        profiles: plan.profiles.iter().flatten().map(ToString::to_string).collect(),
        whole: plan.profiles.is_none(),
        by: plan.by.to_string(),
        since_us: plan.since.0,
        failed: plan.failed.clone().unwrap_or_default(),
        is_empty: !held.contains_key(gpu),
    }
}

/// What people decided, told apart by whether something still runs there.
#[must_use]
pub fn admin(node: &Node) -> v1::NodeAdmin {
    match (&node.admin, node.attempts.is_empty()) {
        (Admin::Active, _) if node.maintenance.is_some() => v1::NodeAdmin::Maintenance,
        (Admin::Active, _) => v1::NodeAdmin::Active,
        (Admin::Drain { .. }, false) => v1::NodeAdmin::Draining,
        (Admin::Drain { .. }, true) => v1::NodeAdmin::Drained,
    }
}

fn liveness(liveness: Liveness) -> v1::NodeLiveness {
    match liveness {
        Liveness::Unknown => v1::NodeLiveness::Unknown,
        Liveness::Ready => v1::NodeLiveness::Ready,
        Liveness::Suspect => v1::NodeLiveness::Suspect,
        Liveness::Lost => v1::NodeLiveness::Lost,
    }
}

fn inventory(inventory: &Arc<Inventory>) -> v1::NodeInventory {
    v1::NodeInventory {
        node: inventory.node.to_string(),
        address: inventory.address.clone(),
        boot_id: inventory.boot_id.clone(),
        worker_version: inventory.worker_version.clone(),
        os: inventory.os.clone(),
        kernel: inventory.kernel.clone(),
        driver_version: inventory.driver_version.clone(),
        cuda_version: inventory.cuda_version.clone(),
        cpu_milli: inventory.cpu_milli.0,
        memory_mib: inventory.memory_mib.0,
        gpus: inventory.gpus.iter().map(gpu).collect(),
        labels: inventory.labels.clone().into_iter().collect(),
        simulated: inventory.simulated,
        confinement: inventory.confinement.as_ref().map(confinement),
        images: inventory.images.as_ref().map(images),
        power_caps: inventory.caps.as_ref().map(caps),
        checks_hardware: inventory.checks_hardware,
        imex_channels: inventory.imex.as_ref().map(imex),
    }
}

fn images(images: &Images) -> v1::Images {
    match images.clone() {
        Images::Off => v1::Images::default(),
        Images::Unable(missing) => v1::Images { missing, ..v1::Images::default() },
        Images::Able(by) => v1::Images { able: true, by, ..v1::Images::default() },
    }
}

fn imex(imex: &Imex) -> v1::ImexChannels {
    match imex.clone() {
        Imex::Off => v1::ImexChannels::default(),
        Imex::Unable(missing) => v1::ImexChannels { count: 0, missing },
        Imex::Able(count) => v1::ImexChannels { count, missing: String::new() },
    }
}

fn caps(caps: &Caps) -> v1::PowerCaps {
    match caps.clone() {
        Caps::Off => v1::PowerCaps::default(),
        Caps::Unable(missing) => v1::PowerCaps { able: false, missing },
        Caps::Able => v1::PowerCaps { able: true, missing: String::new() },
    }
}

fn confinement(confinement: &Confinement) -> v1::Confinement {
    let mode = match confinement.mode {
        ConfinementMode::Off => v1::ConfinementMode::Off,
        ConfinementMode::BestEffort => v1::ConfinementMode::BestEffort,
        ConfinementMode::Required => v1::ConfinementMode::Required,
    };
    let Confinement { applied, missing, .. } = confinement.clone();
    v1::Confinement { mode: mode.into(), applied, missing }
}

fn gpu(gpu: &Gpu) -> v1::GpuDevice {
    v1::GpuDevice {
        uuid: gpu.uuid.to_string(),
        index: gpu.index,
        name: gpu.name.clone(),
        gpu_class: gpu.class.to_string(),
        pci_bus_id: gpu.pci_bus_id.clone(),
        memory_mib: gpu.memory_mib.0,
        serial: gpu.serial.clone(),
        nvlink_domain: gpu.nvlink_domain.clone(),
        cap_min_watts: gpu.cap_range.map_or(0, |range| range.min_watts),
        cap_max_watts: gpu.cap_range.map_or(0, |range| range.max_watts),
        mig: match &gpu.mig {
            Mig::Off | Mig::Instance(_) => None,
            Mig::Cut(cut) => Some(mig_cut(cut)),
        },
    }
}

fn mig_cut(cut: &MigCut) -> v1::MigCut {
    let instance = |one: &MigInstance| v1::MigInstance {
        uuid: one.uuid.to_string(),
        profile: one.profile.to_string(),
        memory_mib: one.memory_mib.0,
        slices: one.slices,
        gpu_instance: one.gpu_instance,
        compute_instance: one.compute_instance,
        ..v1::MigInstance::default()
    };
    v1::MigCut { slices: cut.slices(), instances: cut.instances().iter().map(instance).collect() }
}
