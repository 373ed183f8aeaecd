//! GPUs by CDI: files of the site (or of the driver's tools) that say what a container needs for each device. Read and
//! chosen from here; the runtime gets what they say. Only JSON: the tools write it when asked to.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};

/// The only kind of devices that is looked for.
pub const KIND: &str = "nvidia.com/gpu";
const FIX: &str =
    "make one by: nvidia-ctk cdi generate --format=json --output=/etc/cdi/nvidia.json";

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Edits {
    /// Variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Devices.
    pub device_nodes: Vec<DeviceNode>,
    /// Files of the node.
    pub mounts: Vec<CdiMount>,
    /// Programs of the node that the runtime runs.
    pub hooks: Vec<Hook>,
    /// Groups.
    pub additional_gids: Vec<u32>,
}

/// A device in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceNode {
    /// Where it is in the container.
    pub path: PathBuf,
    /// Where it is on the node; empty: there as well.
    pub host_path: PathBuf,
    /// `c` or `b`; empty: as on the node.
    #[serde(rename = "type")]
    pub kind: String,
    /// Numbers; absent: those on the node.
    pub major: Option<i64>,
    /// The second one.
    pub minor: Option<i64>,
    /// Permissions; absent: open to all, as drivers make them.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A file of the node in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CdiMount {
    /// On the node.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// As mount takes them.
    pub options: Vec<String>,
    /// Kind of file system; empty: a bind mount.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A program that the runtime runs at a certain moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hook {
    /// The moment, by the runtime's name for it.
    pub hook_name: String,
    /// Program.
    pub path: PathBuf,
    /// Its arguments, the first its own name.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Longest time, seconds.
    pub timeout: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecFile {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// A GPU as it may be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuName {
    /// By its driver.
    pub uuid: String,
    /// By its place, as in "3", or of an instance of a GPU that is cut "3:0"; if that is known.
    pub place: Option<String>,
}

/// All files that were found.
#[derive(Clone, Debug, Default)]
pub struct Specs {
    files: Vec<SpecFile>,
    /// What could not be used, in words.
    notes: Vec<String>,
}

impl Specs {
    /// Reads the files of these directories. What cannot be read is told with the first GPU that is missing.
    pub fn read(directories: &[PathBuf]) -> Self {
        let mut specs = Self::default();
        for directory in directories {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            paths.iter().for_each(|path| specs.take(path));
        }
        specs
    }

    fn take(&mut self, path: &Path) {
        let ending = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        let note = match ending {
            "json" => match fs::read_to_string(path)
                .map_err(|error| error.to_string())
                .and_then(|it| self.add(&it))
            {
                Ok(()) => return,
                Err(why) => why,
            },
            "yaml" | "yml" => "is YAML, which is not read".to_owned(),
            _ => return,
        };
        self.notes.push(format!("{} {note}", path.display()));
    }

    /// Adds a file by its text; one about devices of another kind is as if it were not there. The error is for a person.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        self.files.extend(parse(text)?);
        Ok(())
    }

    /// What a container with these GPUs gets. The error is for a person.
    pub fn of_gpus(&self, gpus: &[GpuName]) -> Result<Edits, String> {
        let (mut edits, mut files) = (Edits::default(), BTreeSet::new());
        for gpu in gpus {
            let (number, device) = self.find(gpu).ok_or_else(|| self.missing(gpu))?;
            if files.insert(number) {
                edits.add(&self.files[number].container_edits);
            }
            edits.add(&device.container_edits);
        }
        Ok(edits)
    }

    fn find(&self, gpu: &GpuName) -> Option<(usize, &Device)> {
        let place = gpu.place.as_ref().map(|place| [place.clone(), typed(place)]);
        let names = [gpu.uuid.clone()].into_iter().chain(place.into_iter().flatten());
        // A later directory goes before an earlier one.
        let find = |name: String| {
            let mut files = self.files.iter().enumerate().rev();
            files.find_map(|(number, file)| {
                let device = file.devices.iter().find(|device| device.name == name);
                device.map(|device| (number, device))
            })
        };
        names.into_iter().find_map(find)
    }

    fn missing(&self, gpu: &GpuName) -> String {
        let place = gpu.place.as_ref().map_or(String::new(), |place| format!(" (or {place})"));
        let notes = if self.notes.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.notes.join("; "))
        };
        format!("no CDI file names {KIND}={}{place}{notes}; {FIX}", gpu.uuid)
    }
}

/// The same place as other versions of the tool write it: "gpu3", and of an instance "mig3:0".
fn typed(place: &str) -> String {
    if place.contains(':') { format!("mig{place}") } else { format!("gpu{place}") }
}

fn parse(text: &str) -> Result<Option<SpecFile>, String> {
    let file: SpecFile =
        serde_json::from_str(text).map_err(|error| format!("is broken: {error}"))?;
    Ok((file.kind == KIND).then_some(file))
}

impl DeviceNode {
    /// A character device with these numbers.
    pub fn character(path: PathBuf, major: u32, minor: u32) -> Self {
        let kind = "c".to_owned();
        Self { path, kind, major: Some(major.into()), minor: Some(minor.into()), ..Self::default() }
    }
}

impl Edits {
    /// With this device too, if there is one.
    pub fn with_device(mut self, device: Option<DeviceNode>) -> Self {
        self.device_nodes.extend(device);
        self
    }

    fn add(&mut self, more: &Edits) {
        extend(&mut self.env, &more.env);
        extend(&mut self.device_nodes, &more.device_nodes);
        extend(&mut self.mounts, &more.mounts);
        extend(&mut self.hooks, &more.hooks);
        extend(&mut self.additional_gids, &more.additional_gids);
    }

    /// With the numbers of all devices, of which files may say only the path. The error is for a person.
    pub fn with_numbers(
        mut self,
        look: impl Fn(&Path) -> io::Result<Numbers>,
    ) -> Result<Self, String> {
        for node in &mut self.device_nodes {
            if !node.kind.is_empty() && node.major.is_some() && node.minor.is_some() {
                continue;
            }
            let place =
                if node.host_path.as_os_str().is_empty() { &node.path } else { &node.host_path };
            let numbers = look(place)
                .map_err(|error| format!("device {} of the CDI file: {error}", place.display()))?;
            node.kind = if numbers.block { "b" } else { "c" }.to_owned();
            (node.major, node.minor) = (Some(numbers.major), Some(numbers.minor));
        }
        Ok(self)
    }
}

fn extend<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// What the kernel knows a device by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// A block device.
    pub block: bool,
    /// Its driver's.
    pub major: i64,
    /// Its own.
    pub minor: i64,
}

/// Looks at a device of this node.
pub fn numbers(path: &Path) -> io::Result<Numbers> {
    let meta = fs::metadata(path)?;
    let (block, character) =
        (meta.file_type().is_block_device(), meta.file_type().is_char_device());
    if !block && !character {
        return Err(io::Error::other("is no device"));
    }
    let number = |part: u64| i64::try_from(part).unwrap_or(i64::MAX);
    Ok(Numbers { block, major: number(major(meta.rdev())), minor: number(minor(meta.rdev())) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As the driver's tools write it, shortened.
    const FILE: &str = r#"{
        "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu",
        "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
            {"name": "GPU-b", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1", "major": 195, "minor": 1, "type": "c"}]}},
            {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}]}}
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [{"path": "/dev/nvidiactl"}],
            "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
                       "args": ["nvidia-cdi-hook", "update-ldcache"]}],
            "mounts": [{"hostPath": "/usr/lib/libcuda.so.570", "containerPath": "/usr/lib/libcuda.so.570",
                        "options": ["ro", "nosuid", "nodev", "bind"]}]
        }
    }"#;

    fn specs(texts: &[&str]) -> Specs {
        let files = texts.iter().filter_map(|text| parse(text).unwrap()).collect();
        Specs { files, notes: Vec::new() }
    }

    fn gpu(uuid: &str, index: u32) -> GpuName {
        GpuName { uuid: uuid.into(), place: Some(index.to_string()) }
    }

    fn paths(edits: &Edits) -> Vec<&str> {
        edits.device_nodes.iter().map(|node| node.path.to_str().unwrap()).collect()
    }

    #[test]
    fn a_container_gets_what_the_file_says_for_its_own_gpus_alone() {
        let specs = specs(&[FILE]);
        let edits = specs.of_gpus(&[gpu("GPU-b", 1)]).unwrap();
        assert_eq!(paths(&edits), ["/dev/nvidiactl", "/dev/nvidia1"]);
        assert_eq!((edits.env.len(), edits.hooks.len(), edits.mounts.len()), (1, 1, 1));
        let both = specs.of_gpus(&[gpu("GPU-a", 0), gpu("GPU-b", 1)]).unwrap();
        assert_eq!(paths(&both), ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"]);
        assert_eq!(specs.of_gpus(&[]).unwrap(), Edits::default());
    }

    #[test]
    fn a_gpu_that_no_file_names_is_told_with_the_fix() {
        let mut specs = specs(&[FILE, r#"{"kind": "vendor.com/net", "devices": []}"#]);
        specs.notes.push("/etc/cdi/nvidia.yaml is YAML, which is not read".into());
        let error = specs.of_gpus(&[gpu("GPU-c", 2)]).unwrap_err();
        assert!(error.starts_with(
            "no CDI file names nvidia.com/gpu=GPU-c (or 2) (/etc/cdi/nvidia.yaml is YAML"
        ));
        assert!(error.contains("nvidia-ctk cdi generate --format=json"), "{error}");
    }

    #[test]
    fn a_later_file_goes_before_an_earlier_one_and_names_of_all_kinds_are_known() {
        let later = r#"{"kind": "nvidia.com/gpu", "devices": [
            {"name": "gpu0", "containerEdits": {"env": ["A=1"]}}, {"name": "GPU-b", "containerEdits": {"env": ["B=1"]}}]}"#;
        let specs = specs(&[FILE, later]);
        assert_eq!(specs.of_gpus(&[gpu("GPU-b", 1)]).unwrap().env, ["B=1"]);
        assert_eq!(
            specs.of_gpus(&[gpu("GPU-z", 0)]).unwrap().env[0],
            "NVIDIA_VISIBLE_DEVICES=void"
        );
    }

    #[test]
    fn an_instance_is_found_by_its_name_or_its_place() {
        let file = |name: &str| {
            let device = format!(r#"{{"name": "{name}", "containerEdits": {{"env": ["A=1"]}}}}"#);
            specs(&[&format!(r#"{{"kind": "nvidia.com/gpu", "devices": [{device}]}}"#)])
        };
        let instance = GpuName { uuid: "MIG-1".into(), place: Some("3:0".into()) };
        for name in ["MIG-1", "3:0", "mig3:0"] {
            let gpus = [instance.clone()];
            assert_eq!(file(name).of_gpus(&gpus).unwrap().env, ["A=1"], "{name}");
        }
        let error = file("3").of_gpus(&[instance]).unwrap_err();
        assert!(error.starts_with("no CDI file names nvidia.com/gpu=MIG-1 (or 3:0);"), "{error}");
    }

    #[test]
    fn numbers_of_devices_are_those_of_the_node_unless_the_file_says_them() {
        let edits = specs(&[FILE]).of_gpus(&[gpu("GPU-b", 1)]).unwrap();
        let look = |path: &Path| {
            assert_eq!(path, Path::new("/dev/nvidiactl"));
            Ok(Numbers { block: false, major: 195, minor: 255 })
        };
        let nodes = edits.clone().with_numbers(look).unwrap().device_nodes;
        assert_eq!(
            (nodes[0].kind.as_str(), nodes[0].major, nodes[0].minor),
            ("c", Some(195), Some(255))
        );
        let gone = |_: &Path| Err(io::ErrorKind::NotFound.into());
        assert!(
            edits
                .with_numbers(gone)
                .unwrap_err()
                .starts_with("device /dev/nvidiactl of the CDI file")
        );
        assert_eq!(
            numbers(Path::new("/dev/null")).unwrap(),
            Numbers { block: false, major: 1, minor: 3 }
        );
        assert!(numbers(Path::new("/")).is_err());
    }

    #[test]
    fn files_are_read_from_directories_and_those_that_cannot_be_are_noted() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.json"), FILE).unwrap();
        fs::write(directory.path().join("b.json"), "{").unwrap();
        fs::write(directory.path().join("c.yaml"), "kind: nvidia.com/gpu").unwrap();
        fs::write(directory.path().join("notes.txt"), "").unwrap();
        let specs = Specs::read(&[directory.path().to_owned(), "/nowhere".into()]);
        assert_eq!((specs.files.len(), specs.notes.len()), (1, 2));
        assert!(specs.notes[0].contains("b.json is broken"));
    }
}
