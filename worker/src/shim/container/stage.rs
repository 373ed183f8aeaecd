//! The mounts of one container, in a namespace of its own: its image below an empty layer (in which the runtime makes
//! places for other mounts, and nothing reaches the image), files of the node, and cgroups that cannot be changed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag};

use super::super::grip::Grip;
use super::super::task::Failure;
use super::{PLACE, image};
use crate::container::bundle::Bundle;
use crate::container::mounts::{self, HostMount};
use crate::container::oci::Bound;
use crate::container::spec::{ContainerSpec, RuntimeSpec};

/// The container's root, seen from the place.
pub const ROOT: &str = "rootfs";
/// Of the place, what holds the image itself, the layer above it, and what the kernel needs for that.
const LAYERS: [&str; 3] = ["image", "layer", "layer-work"];
const MOUNTS: &str = "mounts";
/// Where the runtime keeps notes.
pub const STATE: &str = "state";
/// The place is in memory: what runtime and hooks write, and no more.
const MEMORY: &str = "mode=700,size=64m";
/// Nothing starts there: what is open in a process could be reached by the names below.
const OF_THE_KERNEL: [&str; 2] = ["/proc", "/sys"];
const NONE: Option<&str> = None;

/// A container's mounts, made.
pub struct Stage {
    /// The bundle for the runtime.
    pub place: PathBuf,
    /// What the image says itself.
    pub bundle: Option<Bundle>,
    /// Files of the node that are there.
    pub mounts: Vec<Bound>,
    root: File,
}

impl Stage {
    /// Makes them. What is the image's fault is its job's own, all else the node's.
    pub fn set(
        container: &ContainerSpec,
        spec: &RuntimeSpec,
        wanted: &[HostMount],
        grip: &Grip,
    ) -> Result<Self, Failure> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(at("a namespace of mounts"))?;
        let inward = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(NONE, "/", NONE, inward, NONE).map_err(at("/"))?;
        let image = image::for_runtime(container, grip)?;
        let place = spec.directory.join(PLACE);
        make_place(&place)?;
        layer(&place, &image.root)?;
        let mounts = bind_all(&place, wanted, grip)?;
        lock_cgroups()?;
        Ok(Self { place, bundle: image.bundle, mounts, root: image.root })
    }

    /// Whether what lies at this path comes from the node.
    pub fn has_bound(&self, path: &Path) -> bool {
        self.mounts.iter().any(|it| path.starts_with(&it.target))
    }

    /// A place that is not there is told, which a runtime would make without a word.
    pub fn has_directory(
        &self,
        directory: &str,
        wanted: &[HostMount],
        grip: &Grip,
    ) -> Result<(), Failure> {
        let path = Path::new(directory);
        if OF_THE_KERNEL.iter().any(|place| path.starts_with(place)) {
            let why = "belongs to the kernel; name another";
            return Err(Failure::not_started(format!("working directory {directory} {why}")));
        }
        let found = if self.has_bound(path) || grip.hides(path) {
            grip.as_user(|| fs::metadata(path).is_ok_and(|meta| meta.is_dir()))
        } else {
            grip.as_user(|| path == Path::new("/tmp") || self.image_has(path))
        };
        if found.map_err(at("as its user"))? {
            return Ok(());
        }
        let why = match mounts::covers(wanted, path) {
            true => "is neither on this node, as its user may read it, nor in the image",
            false => "is not in the image, and nothing of the node is mounted there",
        };
        Err(Failure::not_found(format!("working directory {directory} {why}")))
    }

    fn image_has(&self, path: &Path) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        match openat2(self.root.as_fd(), path, how) {
            // A kernel before 5.6 cannot look: the runtime will.
            Ok(_) | Err(Errno::ENOSYS) => true,
            Err(_) => false,
        }
    }
}

fn make_place(place: &Path) -> Result<(), Failure> {
    let safe = MsFlags::MS_NOSUID;
    mount(Some("tmpfs"), place, Some("tmpfs"), safe, Some(MEMORY)).map_err(at("its place"))?;
    let more = [ROOT, MOUNTS, STATE];
    LAYERS
        .iter()
        .chain(&more)
        .try_for_each(|name| fs::create_dir(place.join(name)))
        .map_err(failed("its place"))
}

/// The image with an empty layer above it.
fn layer(place: &Path, root: &File) -> Result<(), Failure> {
    let [image, layer, work] = LAYERS.map(|name| place.join(name));
    bind(root, &image, MsFlags::MS_BIND).map_err(at("its image"))?;
    // The place may have characters that the list of options would be cut at: names relative to it have none.
    std::env::set_current_dir(place).map_err(failed("its place"))?;
    let relative = |path: &Path| {
        path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        relative(&image),
        relative(&layer),
        relative(&work)
    );
    // As roots are: anybody may enter.
    fs::set_permissions(&layer, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(failed("its layer"))?;
    let kind = Some("overlay");
    mount(
        Some("overlay"),
        ROOT,
        kind,
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(at("a layer above its image"))
}

/// By what is open, so that it is what its user was seen to have, whatever becomes of the path.
fn bind(file: &File, target: &Path, flags: MsFlags) -> nix::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    mount(Some(source.as_str()), target, NONE, flags, NONE)
}

/// What its user may read; the rest is not there.
fn bind_all(place: &Path, wanted: &[HostMount], grip: &Grip) -> Result<Vec<Bound>, Failure> {
    let mut bound = Vec::new();
    for (number, mount) in wanted.iter().enumerate() {
        let opened = grip.as_user(|| open_to_bind(&mount.path)).map_err(at("as its user"))?;
        let (file, is_directory) = match opened {
            Ok(opened) => opened,
            Err(errno) if mount.needed => {
                return Err(at(&mount.path.display().to_string())(errno));
            }
            Err(_) => continue,
        };
        let source = place.join(MOUNTS).join(number.to_string());
        let made = if is_directory { fs::create_dir(&source) } else { fs::write(&source, "") };
        made.map_err(failed("places for mounts"))?;
        bind(&file, &source, MsFlags::MS_BIND | MsFlags::MS_REC).map_err(at("a mount"))?;
        bound.push(Bound { source, target: mount.path.clone(), read_only: mount.read_only });
    }
    Ok(bound)
}

fn open_to_bind(path: &Path) -> nix::Result<(File, bool)> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    match image::kind_of(&file)? {
        SFlag::S_IFDIR => Ok((file, true)),
        SFlag::S_IFREG => Ok((file, false)),
        _ => Err(Errno::EINVAL),
    }
}

/// So that the runtime leaves its process in the attempt's cgroup, in which it is.
fn lock_cgroups() -> Result<(), Failure> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(failed("cgroups"))?;
    for place in cgroup_mounts(&mounts) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NONE, place, NONE, flags, NONE).map_err(at(place))?;
    }
    Ok(())
}

fn cgroup_mounts(mounts: &str) -> impl Iterator<Item = &str> {
    let lines = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    lines.filter(|(_, kind)| matches!(*kind, "cgroup" | "cgroup2")).map(|(place, _)| place)
}

fn at(what: &str) -> impl Fn(Errno) -> Failure {
    let what = what.to_owned();
    move |errno| Failure::of_node(format!("cannot start: {what}: {errno}"))
}

/// The same for what the system says otherwise.
pub fn failed(what: &str) -> impl Fn(io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::of_node(format!("cannot start: {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found: Vec<_> = cgroup_mounts(mounts).collect();
        assert_eq!(found, ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"]);
    }
}
