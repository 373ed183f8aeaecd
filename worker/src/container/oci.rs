//! The configuration of one container, as OCI runtimes read it. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::cdi::{CdiMount, DeviceNode, Edits, Hook};
use crate::confine::spec::UnixUser;

/// Where programs are looked for unless image or job say otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What files of tasks are open to, as outside of containers.
const UMASK: u32 = 0o022;
/// Of `/proc`, what tells of the machine or changes it.
const MASKED: [&str; 6] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Moments at which a runtime runs hooks.
const MOMENTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// All that makes up a container.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Where its root file system is, seen from the bundle.
    pub root: &'a str,
    /// Who its process is.
    pub user: &'a UnixUser,
    /// Program and arguments.
    pub argv: &'a [String],
    /// Its whole environment.
    pub environment: &'a BTreeMap<String, String>,
    /// Where its process starts.
    pub directory: &'a str,
    /// Files of the node.
    pub mounts: &'a [Bound],
    /// `/tmp` is the attempt's own already; else the container has one of its own.
    pub own_tmp: bool,
    /// What its GPUs need.
    pub gpus: &'a Edits,
}

/// A file of the node that is bound where the runtime takes it from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// From there.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Nothing can be written there.
    pub read_only: bool,
}

/// What a container's process finds in its environment: the later goes before the earlier.
pub fn environment(
    image: &[(String, String)],
    gpus: &Edits,
    attempt: impl IntoIterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    let path = ("PATH".to_owned(), PATH.to_owned());
    let of_gpus = gpus.env.iter().filter_map(|entry| entry.split_once('='));
    let of_gpus = of_gpus.map(|(name, value)| (name.to_owned(), value.to_owned()));
    [path].into_iter().chain(image.iter().cloned()).chain(of_gpus).chain(attempt).collect()
}

/// The configuration.
pub fn config(container: &Container<'_>) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": container.root, "readonly": true },
        "process": process(container),
        "mounts": mounts(container),
        "hooks": hooks(&container.gpus.hooks),
        "linux": {
            // Everything else is the attempt's: it has its own processes, shared memory and cgroup already.
            "namespaces": [{ "type": "mount" }],
            "devices": container.gpus.device_nodes.iter().map(device).collect::<Vec<_>>(),
            // What may be opened is decided by the program on the attempt's cgroup.
            "resources": { "devices": [{ "allow": true, "access": "rwm" }] },
            "rootfsPropagation": "rslave",
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn process(container: &Container<'_>) -> Value {
    let UnixUser { uid, gid, groups, .. } = container.user;
    let more = groups.iter().filter(|group| *group != gid).chain(&container.gpus.additional_gids);
    let more: Vec<u32> = more.copied().filter(|group| *group != 0).collect();
    let variable = |(name, value): (&String, &String)| format!("{name}={value}");
    let none: [&str; 0] = [];
    json!({
        "terminal": false,
        "user": { "uid": uid, "gid": gid, "additionalGids": more, "umask": UMASK },
        "args": container.argv,
        "env": container.environment.iter().map(variable).collect::<Vec<_>>(),
        "cwd": container.directory,
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
        },
    })
}

fn mounts(container: &Container<'_>) -> Vec<Value> {
    let safe = ["nosuid", "noexec", "nodev"];
    let own = |place: &str, kind: &str, options: &[&str]| json!({ "destination": place, "type": kind, "source": kind, "options": options });
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let mut list = vec![
        own("/proc", "proc", &safe),
        own("/dev", "tmpfs", &dev),
        own("/dev/pts", "devpts", &pts),
        own("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        bind(Path::new("/dev/shm"), Path::new("/dev/shm"), false),
        match container.own_tmp {
            true => bind(Path::new("/tmp"), Path::new("/tmp"), false),
            false => own("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        },
    ];
    list.extend(container.gpus.mounts.iter().map(of_gpus));
    list.extend(container.mounts.iter().map(|it| bind(&it.source, &it.target, it.read_only)));
    list
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Value {
    let options = ["rbind", "nosuid", "nodev", if read_only { "ro" } else { "rw" }];
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}

fn of_gpus(mount: &CdiMount) -> Value {
    let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
    let mut options = mount.options.clone();
    let has_bind = options.iter().any(|it| it == "bind" || it == "rbind");
    if kind == "bind" && !has_bind {
        options.push("rbind".into());
    }
    let CdiMount { host_path, container_path, .. } = mount;
    json!({ "destination": container_path, "type": kind, "source": host_path, "options": options })
}

fn device(node: &DeviceNode) -> Value {
    json!({
        "path": node.path,
        "type": node.kind,
        "major": node.major.unwrap_or_default(),
        "minor": node.minor.unwrap_or_default(),
        "fileMode": node.file_mode.unwrap_or(0o666),
        "uid": node.uid.unwrap_or_default(),
        "gid": node.gid.unwrap_or_default(),
    })
}

fn hooks(hooks: &[Hook]) -> Value {
    let at = |moment: &str| -> Vec<Value> {
        let own = hooks.iter().filter(|hook| hook.hook_name == moment);
        own.map(hook).collect()
    };
    let lists = MOMENTS.iter().map(|moment| ((*moment).to_owned(), at(moment)));
    let some = lists.filter(|(_, list)| !list.is_empty());
    some.map(|(moment, list)| (moment, Value::from(list))).collect::<serde_json::Map<_, _>>().into()
}

fn hook(hook: &Hook) -> Value {
    let mut value = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
    if let Some(seconds) = hook.timeout {
        value["timeout"] = seconds.into();
    }
    value
}

/// Whether something is to run after the container.
pub fn has_last_hook(gpus: &Edits) -> bool {
    gpus.hooks.iter().any(|hook| hook.hook_name == "poststop")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user() -> UnixUser {
        UnixUser {
            name: "ada".into(),
            uid: 1042,
            gid: 100,
            groups: vec![100, 2000],
            home: "/home/ada".into(),
            shell: "/bin/bash".into(),
        }
    }

    fn made(gpus: &Edits, own_tmp: bool) -> Value {
        let environment = environment(&[], gpus, [("GOTGAN_JOB_ID".into(), "7".into())]);
        let source = "/s/attempts/7.1/container/mounts/0".into();
        let bound = Bound { source, target: "/home/ada".into(), read_only: false };
        config(&Container {
            root: "rootfs",
            user: &user(),
            argv: &["python3".into(), "train.py".into()],
            environment: &environment,
            directory: "/home/ada",
            mounts: &[bound],
            own_tmp,
            gpus,
        })
    }

    #[test]
    fn a_process_is_its_user_with_no_more_rights_than_that() {
        let process = &made(&Edits::default(), true)["process"];
        assert_eq!(
            process.to_string(),
            json!({
                "args": ["python3", "train.py"],
                "capabilities": {"ambient": [], "bounding": [], "effective": [], "inheritable": [], "permitted": []},
                "cwd": "/home/ada",
                "env": ["GOTGAN_JOB_ID=7", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "noNewPrivileges": true,
                "terminal": false,
                "user": {"additionalGids": [2000], "gid": 100, "uid": 1042, "umask": 18},
            })
            .to_string()
        );
    }

    #[test]
    fn a_container_has_no_namespace_of_its_own_but_that_of_mounts_and_cannot_write_to_its_image() {
        let config = made(&Edits::default(), true);
        assert_eq!(config["linux"]["namespaces"], json!([{"type": "mount"}]));
        assert_eq!(config["root"], json!({"path": "rootfs", "readonly": true}));
        assert_eq!(config["linux"]["devices"], json!([]));
        assert_eq!(config["hooks"], json!({}));
        // Where it stays is the attempt's cgroup: none is named.
        assert_eq!(config["linux"]["cgroupsPath"], Value::Null);
    }

    #[test]
    fn it_sees_the_attempts_tmp_or_one_of_its_own_and_what_is_mounted() {
        let lines = |config: &Value| -> Vec<String> {
            let line = |mount: &Value| {
                let options: Vec<_> = mount["options"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|it| it.as_str().unwrap())
                    .collect();
                let text = |key: &str| mount[key].as_str().unwrap().to_owned();
                format!(
                    "{} {} {} {}",
                    text("destination"),
                    text("type"),
                    text("source"),
                    options.join(",")
                )
            };
            config["mounts"].as_array().unwrap().iter().map(line).collect()
        };
        assert_eq!(
            lines(&made(&Edits::default(), true)),
            [
                "/proc proc proc nosuid,noexec,nodev",
                "/dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k",
                "/dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620",
                "/sys sysfs sysfs nosuid,noexec,nodev,ro",
                "/dev/shm bind /dev/shm rbind,nosuid,nodev,rw",
                "/tmp bind /tmp rbind,nosuid,nodev,rw",
                "/home/ada bind /s/attempts/7.1/container/mounts/0 rbind,nosuid,nodev,rw",
            ]
        );
        let shared = lines(&made(&Edits::default(), false));
        assert_eq!(shared[5], "/tmp tmpfs tmpfs nosuid,nodev,mode=1777");
    }

    #[test]
    fn devices_files_and_hooks_of_gpus_are_handed_on() {
        let node = DeviceNode {
            path: "/dev/nvidia1".into(),
            kind: "c".into(),
            major: Some(195),
            minor: Some(1),
            ..DeviceNode::default()
        };
        let library = CdiMount {
            host_path: "/lib/a".into(),
            container_path: "/lib/b".into(),
            options: vec!["ro".into()],
            kind: String::new(),
        };
        let hook = |moment: &str| Hook {
            hook_name: moment.into(),
            path: "/bin/hook".into(),
            args: vec!["hook".into()],
            timeout: Some(5),
            ..Hook::default()
        };
        let gpus = Edits {
            env: vec!["LIBRARY=1".into()],
            device_nodes: vec![node],
            mounts: vec![library],
            hooks: vec![hook("createContainer"), hook("poststop"), hook("never")],
            additional_gids: vec![44, 0],
        };
        assert!(has_last_hook(&gpus) && !has_last_hook(&Edits::default()));
        let config = made(&gpus, true);
        let device = json!([{"path": "/dev/nvidia1", "type": "c", "major": 195, "minor": 1,
                             "fileMode": 438, "uid": 0, "gid": 0}]);
        assert_eq!(config["linux"]["devices"], device);
        let one = json!([{"path": "/bin/hook", "args": ["hook"], "env": [], "timeout": 5}]);
        assert_eq!(config["hooks"], json!({"createContainer": one, "poststop": one}));
        let mount = json!({"destination": "/lib/b", "type": "bind", "source": "/lib/a", "options": ["ro", "rbind"]});
        assert!(config["mounts"].as_array().unwrap().contains(&mount));
        assert_eq!(config["process"]["user"]["additionalGids"], json!([2000, 44]));
        assert!(config["process"]["env"].as_array().unwrap().contains(&"LIBRARY=1".into()));
    }

    #[test]
    fn the_job_goes_before_its_gpus_and_those_before_the_image() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let image = [pair("PATH", "/opt/bin"), pair("A", "image"), pair("B", "image")];
        let gpus = Edits { env: vec!["A=gpus".into(), "C=gpus".into()], ..Edits::default() };
        let found = environment(&image, &gpus, [pair("C", "job")]);
        let found: Vec<_> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(found, ["A=gpus", "B=image", "C=job", "PATH=/opt/bin"]);
    }
}
