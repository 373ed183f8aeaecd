//! Nodes and their GPUs.

use std::collections::BTreeMap;

use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    output::time,
    view::{
        blocks,
        cut::CutPlanView,
        gpu::{self, GpuDetail},
        health::HealthView,
        maintenance::MaintenanceView,
        reservation::ReservationView,
        word,
    },
};

/// A node as listings have it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    pub name: String,
    pub liveness: String,
    pub admin: String,
    pub admin_reason: String,
    pub simulated: bool,
    pub address: String,
    pub gpu_classes: Vec<String>,
    pub gpu_milli: u64,
    pub free_gpu_milli: u64,
    pub cpu_milli: u64,
    pub free_cpu_milli: u64,
    pub memory_mib: u64,
    pub free_memory_mib: u64,
    pub attempts: Vec<String>,
    pub last_heartbeat_us: Option<i64>,
    pub last_heartbeat: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub worker_version: String,
    pub os: String,
    pub kernel: String,
    pub driver_version: String,
    pub cuda_version: String,
    pub gpus: Vec<GpuView>,
    /// A spare one that stands by.
    pub stands_by: bool,
    /// Class of the GPUs of its cluster, where its own are of another; else empty.
    pub cluster_gpu_class: String,
    /// Names of the blocks it belongs to, by the word of their level.
    pub blocks: BTreeMap<String, String>,
    /// What jobs on it are confined by; `null` if its worker does not tell.
    pub confinement: Option<ConfinementView>,
    /// Whether jobs with an image can run there; `null` if its worker does not tell.
    pub images: Option<ImagesView>,
    /// Absent where the worker does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caps: Option<CapsView>,
    /// Absent where the driver has no IMEX channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imex: Option<ImexView>,
    /// The maintenance that it is in, else the one that comes next.
    pub maintenance: Option<MaintenanceView>,
    /// The reservation by command that holds there, else the one that comes next.
    pub reservation: Option<ReservationView>,
    /// How it stands as a whole, for its hardware.
    pub health: HealthView,
    /// Why it takes no new work now; empty if it does.
    pub no_work_reason: String,
    /// What does not go together about its NVLink domain; told of a single node only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nvlink_disagreement: String,
    /// GPUs that are to be cut anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut_plans: Vec<CutPlanView>,
    /// What speaks against it of late; told of a single node only, and absent if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<ScoreView>,
}

/// Jobs that failed on a node, and hardly elsewhere.
#[derive(Clone, Debug, Serialize)]
pub struct ScoreView {
    pub milli: u64,
    pub users: u32,
    pub losses: u32,
    /// From this on, whole and rounded, it is a lemon; 0: that is not looked for.
    pub lemon_from: u32,
}

impl ScoreView {
    fn of(score: v1::NodeScore) -> Self {
        let v1::NodeScore { milli, users, losses, lemon_from } = score;
        Self { milli, users, losses, lemon_from }
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let (whole, tenths) = (self.milli / 1000, self.milli % 1000 / 100);
        let users = counted(self.users, "user", "users");
        let losses = counted(self.losses, "loss", "losses");
        format!(
            "score {whole}.{tenths}, a lemon from {}: jobs of {users} failed here and hardly elsewhere, {losses} of the node",
            self.lemon_from
        )
    }
}

fn counted(count: u32, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Whether a node can cap its GPUs.
#[derive(Clone, Debug, Serialize)]
pub struct CapsView {
    pub able: bool,
    pub missing: String,
    /// Of the GPUs that take least and most; absent where their driver does not tell.
    pub min_watts: Option<u32>,
    pub max_watts: Option<u32>,
}

impl CapsView {
    fn of(caps: v1::PowerCaps, gpus: &[v1::GpuDevice]) -> Self {
        let v1::PowerCaps { able, missing } = caps;
        let told = || gpus.iter().filter(|gpu| gpu.cap_max_watts > 0);
        let min_watts = told().map(|gpu| gpu.cap_min_watts).min();
        let max_watts = told().map(|gpu| gpu.cap_max_watts).max();
        Self { able, missing, min_watts, max_watts }
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match (self.able, self.min_watts.zip(self.max_watts), self.missing.is_empty()) {
            (true, Some((least, most)), _) => format!("between {least} and {most} W a GPU"),
            (true, None, _) => "none that its GPUs take".to_owned(),
            (false, _, true) => "not set here".to_owned(),
            (false, _, false) => format!("not to be had: {}", self.missing),
        }
    }
}

/// Whether jobs on a node can share memory of GPUs across nodes.
#[derive(Clone, Debug, Serialize)]
pub struct ImexView {
    /// Channels that its driver has; 0: jobs have none.
    pub channels: u32,
    pub missing: String,
}

impl ImexView {
    /// Nothing of a node whose driver has no channels.
    fn of(channels: v1::ImexChannels) -> Option<Self> {
        let v1::ImexChannels { count, missing } = channels;
        (count > 0 || !missing.is_empty()).then_some(Self { channels: count, missing })
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match self.channels {
            0 => format!("not to be had: {}", self.missing),
            channels => format!("given out, of {channels} that its driver has"),
        }
    }
}

/// What keeps jobs on a node from what is not their own.
#[derive(Clone, Debug, Serialize)]
pub struct ConfinementView {
    pub mode: String,
    pub applied: Vec<String>,
    pub missing: Vec<String>,
}

/// Whether a node can run jobs with an image.
#[derive(Clone, Debug, Serialize)]
pub struct ImagesView {
    pub able: bool,
    pub by: String,
    pub missing: String,
}

impl ImagesView {
    fn of(images: v1::Images) -> Self {
        let v1::Images { able, by, missing } = images;
        Self { able, by, missing }
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match (self.able, self.missing.is_empty()) {
            (true, _) => format!("run by {}", self.by),
            (false, true) => "not run here".to_owned(),
            (false, false) => format!("NOT RUN, though asked for: {}", self.missing),
        }
    }
}

impl ConfinementView {
    fn of(confinement: v1::Confinement) -> Self {
        let v1::Confinement { mode, applied, missing } = confinement;
        Self { mode: word::confinement_mode(mode), applied, missing }
    }
}

/// A GPU with its latest reading; a value that could not be read is absent.
#[derive(Clone, Debug, Serialize)]
pub struct GpuView {
    pub index: u32,
    pub uuid: String,
    pub name: String,
    pub gpu_class: String,
    pub pci_bus_id: String,
    pub memory_mib: u64,
    pub allocated_milli: u32,
    pub utilisation_percent: Option<u32>,
    pub memory_used_mib: Option<u64>,
    pub temperature_c: Option<u32>,
    pub power_mw: Option<u32>,
    pub power_limit_mw: Option<u32>,
    pub ecc_corrected: Option<u64>,
    pub ecc_uncorrected: Option<u64>,
    pub processes: Vec<ProcessView>,
    pub error: Option<String>,
    pub health: HealthView,
    #[serde(flatten)]
    pub detail: GpuDetail,
}

/// A process on a GPU.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessView {
    pub pid: u32,
    pub memory_mib: u64,
    /// Name of its program; empty if the driver does not tell.
    pub command: String,
}

impl NodeView {
    /// As the API has it.
    #[must_use]
    pub fn of(node: &v1::Node) -> Self {
        let inventory = node.inventory.clone().unwrap_or_default();
        let mut gpu_classes: Vec<String> =
            inventory.gpus.iter().map(|gpu| gpu.gpu_class.clone()).collect();
        gpu_classes.sort();
        gpu_classes.dedup();
        let labels: BTreeMap<String, String> = inventory.labels.clone().into_iter().collect();
        let blocks = blocks::of_labels(&labels).into_iter();
        let blocks = blocks.map(|(level, name)| (level.to_owned(), name.to_owned())).collect();
        Self {
            name: node.name.clone(),
            liveness: word::liveness(node.liveness),
            admin: word::node_admin(node.admin),
            admin_reason: node.admin_reason.clone(),
            simulated: inventory.simulated,
            gpu_classes,
            gpu_milli: inventory.gpus.iter().map(gpu::milli_of).sum(),
            free_gpu_milli: node.free_gpu_milli,
            cpu_milli: inventory.cpu_milli,
            free_cpu_milli: node.free_cpu_milli,
            memory_mib: inventory.memory_mib,
            free_memory_mib: node.free_memory_mib,
            attempts: node.attempts.clone(),
            last_heartbeat_us: time::set(node.last_heartbeat_us),
            last_heartbeat: time::rfc3339(node.last_heartbeat_us),
            gpus: gpus_of(node, &inventory),
            caps: inventory.power_caps.map(|caps| CapsView::of(caps, &inventory.gpus)),
            imex: inventory.imex_channels.and_then(ImexView::of),
            address: inventory.address,
            labels,
            worker_version: inventory.worker_version,
            os: inventory.os,
            kernel: inventory.kernel,
            driver_version: inventory.driver_version,
            cuda_version: inventory.cuda_version,
            stands_by: node.stands_by,
            cluster_gpu_class: node.cluster_gpu_class.clone(),
            blocks,
            confinement: inventory.confinement.map(ConfinementView::of),
            images: inventory.images.map(ImagesView::of),
            maintenance: node.maintenance.clone().map(MaintenanceView::of),
            reservation: node.reservation.clone().map(ReservationView::of),
            health: HealthView::of(node.health.as_ref()),
            no_work_reason: node.no_work_reason.clone(),
            nvlink_disagreement: node.nvlink_disagreement.clone(),
            cut_plans: node.cut_plans.iter().map(CutPlanView::of).collect(),
            score: node.score.map(ScoreView::of),
        }
    }

    /// How many of its GPUs are out or watched, in words.
    fn hurt(&self) -> String {
        let out = self.gpus.iter().filter(|gpu| gpu.health.is_out()).count();
        let suspect = self.gpus.iter().filter(|gpu| gpu.health.state == "suspect").count();
        let count = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 GPU {what}")),
            more => Some(format!("{more} GPUs {what}")),
        };
        let counts = [count(out, "out"), count(suspect, "suspect")];
        counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// What is to be noted of it: that it was invented, that maintenance is to come, that it is reserved, or that it says it
    /// belongs to a cluster of another class.
    #[must_use]
    pub fn note(&self, now_us: i64) -> String {
        let simulated = if self.simulated { "simulated" } else { "" };
        let class = &self.cluster_gpu_class;
        let misplaced =
            if class.is_empty() { String::new() } else { format!("cluster has {class}") };
        let planned = self.maintenance.as_ref().filter(|it| it.state == "planned");
        let maintenance = planned
            .map(|it| format!("maintenance from {}", time::local(it.from_us.unwrap_or_default())));
        let reserved = self.reservation.as_ref().map(|it| it.note(now_us));
        let hurt = self.hurt();
        let doubted = if self.health.state == "suspect" { "suspect" } else { "" };
        let maintenance = maintenance.unwrap_or_default();
        [simulated, doubted, &hurt, &maintenance, &reserved.unwrap_or_default(), &misplaced]
            .into_iter()
            .filter(|note| !note.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// What a person needs to know first: "ready", "spare", "draining", "out", "lost".
    #[must_use]
    pub fn state(&self) -> String {
        match (self.liveness.as_str(), self.admin.as_str()) {
            ("ready", "active" | "unspecified") if self.health.is_out() => {
                self.health.state.clone()
            }
            ("ready", "active" | "unspecified") if self.stands_by => "spare".to_owned(),
            (liveness, "active" | "unspecified") => liveness.to_owned(),
            ("ready", admin) => admin.to_owned(),
            (liveness, admin) => format!("{liveness}, {admin}"),
        }
    }
}

fn gpus_of(node: &v1::Node, inventory: &v1::NodeInventory) -> Vec<GpuView> {
    let reading = |uuid: &str| node.readings.iter().find(|reading| reading.uuid == uuid).cloned();
    let allocated =
        |position: usize| node.gpu_allocated_milli.get(position).copied().unwrap_or_default();
    let view = |(position, gpu): (usize, &v1::GpuDevice)| {
        let reading = reading(&gpu.uuid).unwrap_or_default();
        let health = HealthView::of(node.gpu_health.get(position));
        let held = &node.instances_held;
        GpuView { health, ..GpuView::of(gpu, reading, (allocated(position), held)) }
    };
    inventory.gpus.iter().enumerate().map(view).collect()
}

impl GpuView {
    fn of(
        gpu: &v1::GpuDevice,
        reading: v1::GpuReading,
        (allocated_milli, held): (u32, &[String]),
    ) -> Self {
        let process = |found: &v1::GpuProcess| ProcessView {
            pid: found.pid,
            memory_mib: found.memory_mib,
            command: found.command.clone(),
        };
        let detail = GpuDetail::of(gpu, &reading, held);
        Self {
            index: gpu.index,
            uuid: gpu.uuid.clone(),
            name: gpu.name.clone(),
            gpu_class: gpu.gpu_class.clone(),
            pci_bus_id: gpu.pci_bus_id.clone(),
            memory_mib: gpu.memory_mib,
            allocated_milli,
            utilisation_percent: reading.utilisation_percent,
            memory_used_mib: reading.memory_used_mib,
            temperature_c: reading.temperature_c,
            power_mw: reading.power_mw,
            power_limit_mw: reading.power_limit_mw,
            ecc_corrected: reading.ecc_corrected,
            ecc_uncorrected: reading.ecc_uncorrected,
            processes: reading.processes.iter().map(process).collect(),
            error: (!reading.error.is_empty()).then_some(reading.error),
            health: HealthView::of(None),
            detail,
        }
    }
}
