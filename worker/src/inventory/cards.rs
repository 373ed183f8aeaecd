//! The GPUs of a node with what each is cut into now: what they are to whoever gives them to attempts.
//!
//! A GPU that is cut (MIG) is given out by its instances alone. What it is cut into is read with every look at it, and may
//! change while the daemon runs; all else about a GPU is as it was when the daemon started.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gotgan_proto::v1::{GpuDevice, MigCut, MigInstance};
use tokio::sync::watch;

use crate::confine::devices::Device;
use crate::confine::gpus::nodes_of;
use crate::container::cdi::GpuName;
use crate::reader::frames::CutSeen;

/// Thousandths of a GPU in a whole one.
const WHOLE_MILLI: u32 = 1000;

/// What an attempt may use of the kernel's devices for one GPU or instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Nodes of the GPU.
    pub devices: BTreeSet<Device>,
    /// Of an instance, the numbers of its permissions with the driver for those.
    pub permissions: BTreeSet<u32>,
}

/// All GPUs of a node.
#[derive(Debug)]
pub struct Cards {
    cards: Mutex<Vec<Card>>,
    /// Where the driver lists the permissions to parts of GPUs; absent where GPUs are invented.
    permissions: Option<PathBuf>,
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Card {
    device: GpuDevice,
    /// Number of its device node, where the driver tells it.
    minor: Option<u32>,
}

impl Default for Cards {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Cards {
    /// None yet. `permissions`: where the driver lists those to parts of GPUs; absent where GPUs are invented.
    pub fn new(permissions: Option<PathBuf>) -> Self {
        let (changes, _) = watch::channel(0);
        Self { cards: Mutex::default(), permissions, changes }
    }

    /// Knows these from now on, with the numbers of their device nodes.
    pub fn know(&self, devices: &[GpuDevice], minor: impl Fn(&str) -> Option<u32>) {
        let card = |device: &GpuDevice| {
            let minor = minor(&device.uuid);
            let mig = device.mig.clone().map(|cut| self.with_permissions(cut, minor));
            Card { device: GpuDevice { mig, ..device.clone() }, minor }
        };
        *self.lock() = devices.iter().map(card).collect();
    }

    /// Takes in what a GPU is cut into now, by its driver's word; `true` if that is something else than before.
    pub fn take(&self, uuid: &str, seen: &CutSeen) -> bool {
        let mut cards = self.lock();
        let Some(card) = cards.iter_mut().find(|card| card.device.uuid == uuid) else {
            return false;
        };
        card.minor = seen.minor.or(card.minor);
        let cut = seen.cut.clone().map(|cut| self.with_permissions(cut, card.minor));
        if card.device.mig == cut {
            return false;
        }
        tracing::warn!(
            gpu = uuid,
            before = words(card.device.mig.as_ref()),
            now = words(cut.as_ref()),
            "a GPU is cut into something else"
        );
        card.device.mig = cut;
        self.changes.send_modify(|count| *count += 1);
        true
    }

    /// Changes whenever a GPU is cut into something else.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All of them as they are registered.
    pub fn devices(&self) -> Vec<GpuDevice> {
        self.lock().iter().map(|card| card.device.clone()).collect()
    }

    /// Whether it is one of the node's GPUs.
    pub fn has(&self, uuid: &str) -> bool {
        self.lock().iter().any(|card| card.device.uuid == uuid)
    }

    /// The GPU of that name, or that an instance of that name is cut from.
    pub fn card_of(&self, uuid: &str) -> Option<String> {
        self.find(uuid, |card, _| card.device.uuid.clone())
    }

    /// What can be had of it in thousandths of a GPU: of an instance its part of the card's compute slices, of a GPU that is
    /// cut nothing. `None` if the node has neither GPU nor instance of that name.
    pub fn milli(&self, uuid: &str) -> Option<u32> {
        self.find(uuid, |card, instance| match (&card.device.mig, instance) {
            (None, _) => WHOLE_MILLI,
            (Some(_), None) => 0,
            (Some(cut), Some(instance)) => milli(cut, instance),
        })
    }

    /// Its memory, MiB.
    pub fn memory_mib(&self, uuid: &str) -> Option<u64> {
        self.find(uuid, |card, instance| {
            instance.map_or(card.device.memory_mib, |instance| instance.memory_mib)
        })
    }

    /// The profile of an instance, as "1g.10gb"; `None` if it is no instance.
    pub fn profile(&self, uuid: &str) -> Option<String> {
        self.find(uuid, |_, instance| instance.map(|instance| instance.profile.clone()))?
    }

    /// Its device nodes, and of an instance its permissions.
    pub fn nodes(&self, uuid: &str) -> Nodes {
        let real = self.permissions.is_some();
        let found = self.find(uuid, |card, instance| Nodes {
            devices: nodes_of(card.minor, &card.device.pci_bus_id),
            permissions: instance.map(permissions_of).unwrap_or_default(),
        });
        found.filter(|_| real).unwrap_or_default()
    }

    /// How files for containers may name it.
    pub fn container_name(&self, uuid: &str) -> GpuName {
        let place = self.find(uuid, |card, instance| match instance {
            Some(instance) => format!("{}:{}", card.device.index, instance.place),
            None => card.device.index.to_string(),
        });
        GpuName { uuid: uuid.to_owned(), place }
    }

    fn find<T>(&self, uuid: &str, tell: impl Fn(&Card, Option<&MigInstance>) -> T) -> Option<T> {
        let cards = self.lock();
        if let Some(card) = cards.iter().find(|card| card.device.uuid == uuid) {
            return Some(tell(card, None));
        }
        cards.iter().find_map(|card| {
            let cut = card.device.mig.as_ref()?;
            let instance = cut.instances.iter().find(|instance| instance.uuid == uuid)?;
            Some(tell(card, Some(instance)))
        })
    }

    /// With the numbers of the permissions to each instance, as far as the driver lists them.
    fn with_permissions(&self, mut cut: MigCut, minor: Option<u32>) -> MigCut {
        let Some((root, minor)) = self.permissions.as_ref().zip(minor) else { return cut };
        for instance in &mut cut.instances {
            let of_gpu = root.join(format!("gpu{minor}/mig/gi{}", instance.gpu_instance));
            let of_compute = of_gpu.join(format!("ci{}", instance.compute_instance));
            instance.gpu_instance_minor = permission(&of_gpu);
            instance.compute_instance_minor = permission(&of_compute);
        }
        cut
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Card>> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn permissions_of(instance: &MigInstance) -> BTreeSet<u32> {
    let MigInstance { gpu_instance_minor, compute_instance_minor, .. } = *instance;
    gpu_instance_minor.into_iter().chain(compute_instance_minor).collect()
}

/// The number in the driver's file about one permission.
fn permission(directory: &Path) -> Option<u32> {
    let text = fs::read_to_string(directory.join("access")).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor:"))?;
    number.trim().parse().ok()
}

/// The same rule as the scheduler's: its compute slices over the card's, rounded down.
fn milli(cut: &MigCut, instance: &MigInstance) -> u32 {
    let used: u32 = cut.instances.iter().map(|one| one.slices.max(1)).sum();
    (instance.slices.max(1) * WHOLE_MILLI / cut.slices.max(used).max(1)).max(1)
}

/// For the log.
fn words(cut: Option<&MigCut>) -> String {
    let Some(cut) = cut else { return "whole".to_owned() };
    let profiles: Vec<&str> = cut.instances.iter().map(|one| one.profile.as_str()).collect();
    if profiles.is_empty() { "no instance".to_owned() } else { profiles.join(", ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn instance(number: u32, profile: &str, slices: u32) -> MigInstance {
        MigInstance {
            uuid: format!("MIG-{number}"),
            profile: profile.into(),
            memory_mib: 9_728 * u64::from(slices),
            slices,
            gpu_instance: number,
            place: number - 1,
            ..MigInstance::default()
        }
    }

    fn cut() -> MigCut {
        MigCut { slices: 7, instances: vec![instance(1, "3g.40gb", 3), instance(2, "1g.10gb", 1)] }
    }

    fn device(uuid: &str, index: u32, mig: Option<MigCut>) -> GpuDevice {
        GpuDevice { uuid: uuid.into(), index, memory_mib: 81_559, mig, ..GpuDevice::default() }
    }

    /// A card that is cut and one that is whole, with what the driver lists of the first instance.
    fn cards(root: &Path) -> Cards {
        let of_gpu = root.join("gpu4/mig/gi1");
        fs::create_dir_all(of_gpu.join("ci0")).unwrap();
        fs::write(of_gpu.join("access"), "DeviceFileMinor: 12\nDeviceFileMode: 292\n").unwrap();
        fs::write(of_gpu.join("ci0/access"), "DeviceFileMinor: 13\nDeviceFileMode: 292\n").unwrap();
        let cards = Cards::new(Some(root.to_owned()));
        let devices = [device("GPU-a", 0, Some(cut())), device("GPU-b", 1, None)];
        cards.know(&devices, |uuid| (uuid == "GPU-a").then_some(4));
        cards
    }

    #[test]
    fn a_gpu_that_is_cut_gives_its_instances_and_nothing_itself() {
        let root = tempfile::tempdir().unwrap();
        let cards = cards(root.path());
        let milli = ["GPU-a", "GPU-b", "MIG-1", "MIG-2", "MIG-3"].map(|uuid| cards.milli(uuid));
        assert_eq!(milli, [Some(0), Some(1000), Some(428), Some(142), None]);
        assert_eq!(cards.card_of("MIG-2").as_deref(), Some("GPU-a"));
        assert_eq!(cards.memory_mib("MIG-1"), Some(29_184));
        assert_eq!(cards.profile("MIG-1").as_deref(), Some("3g.40gb"));
        assert_eq!(cards.container_name("MIG-2").place.as_deref(), Some("0:1"));
        assert_eq!(cards.container_name("GPU-b").place.as_deref(), Some("1"));
    }

    #[test]
    fn an_instance_has_the_node_of_its_gpu_and_its_own_two_permissions() {
        let root = tempfile::tempdir().unwrap();
        let cards = cards(root.path());
        let gpu = Device { major: crate::confine::devices::NVIDIA, minor: Some(4) };
        let nodes = cards.nodes("MIG-1");
        assert_eq!((nodes.devices, nodes.permissions), ([gpu].into(), [12, 13].into()));
        assert_eq!(cards.nodes("MIG-2").permissions, BTreeSet::new(), "the driver lists none");
        assert_eq!(cards.nodes("GPU-b").permissions, BTreeSet::new());
        let invented = Cards::new(None);
        invented.know(&cards.devices(), |_| Some(4));
        assert_eq!(invented.nodes("MIG-1"), Nodes::default());
    }

    fn seen(cut: Option<MigCut>) -> CutSeen {
        CutSeen { cut, minor: None }
    }

    #[test]
    fn what_changes_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let cards = cards(root.path());
        let changes = cards.changes();
        assert!(!cards.take("GPU-a", &seen(Some(cut()))), "the same as before");
        assert!(!changes.has_changed().unwrap());
        let empty = MigCut { slices: 7, instances: Vec::new() };
        assert!(cards.take("GPU-a", &seen(Some(empty))));
        assert!(changes.has_changed().unwrap());
        assert_eq!(cards.milli("MIG-1"), None);
        assert!(cards.take("GPU-a", &seen(None)) && !cards.take("GPU-a", &seen(None)));
        assert_eq!(cards.milli("GPU-a"), Some(1000));
        assert!(!cards.take("GPU-z", &seen(None)), "another node's");
    }
}
