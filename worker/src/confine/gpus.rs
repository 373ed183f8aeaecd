//! The device nodes of a GPU: the driver's, and the kernel's own for the same board.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::devices::{DRM, Device, NVIDIA};

/// Nodes of the GPU with this number of the driver's, on this place of the bus as in "00000000:1A:00.0".
pub fn nodes_of(minor: Option<u32>, pci_bus_id: &str) -> BTreeSet<Device> {
    let own = minor.map(|minor| Device { major: NVIDIA, minor: Some(minor) });
    own.into_iter().chain(drm_nodes(&drm_directory(pci_bus_id))).collect()
}

/// The kernel writes the domain with four digits where the driver writes eight, and in lower case.
fn drm_directory(pci_bus_id: &str) -> PathBuf {
    let lower = pci_bus_id.to_lowercase();
    let short = lower.strip_prefix("0000").filter(|rest| rest.len() >= "0000:00:00.0".len());
    Path::new("/sys/bus/pci/devices").join(short.unwrap_or(&lower)).join("drm")
}

fn drm_nodes(directory: &Path) -> Vec<Device> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| fs::read_to_string(entry.path().join("dev")).ok());
    let devices = numbers.filter_map(|text| {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Device { major: major.parse().ok()?, minor: Some(minor.parse().ok()?) })
    });
    devices.filter(|device| device.major == DRM).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_on_the_bus_is_found_as_the_kernel_writes_it() {
        let found = drm_directory("00000000:1A:00.0");
        assert_eq!(found, Path::new("/sys/bus/pci/devices/0000:1a:00.0/drm"));
        let found = drm_directory("0001:1A:00.0");
        assert_eq!(found, Path::new("/sys/bus/pci/devices/0001:1a:00.0/drm"));
    }

    #[test]
    fn nodes_are_read_from_what_the_kernel_lists() {
        let directory = tempfile::tempdir().unwrap();
        for (name, number) in [("card1", "226:1\n"), ("renderD129", "226:129\n")] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("dev"), number).unwrap();
        }
        let mut minors: Vec<_> =
            drm_nodes(directory.path()).iter().filter_map(|device| device.minor).collect();
        minors.sort_unstable();
        assert_eq!(minors, [1, 129]);
        assert!(nodes_of(Some(3), "nowhere").contains(&Device { major: 195, minor: Some(3) }));
    }
}
