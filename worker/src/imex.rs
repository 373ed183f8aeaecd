//! IMEX channels of attempts: device nodes through which programs share memory of GPUs across the nodes of an NVLink domain.
//!
//! The driver has the channels and makes no nodes of them; who may open a channel's node shares memory with all who may on
//! other machines. The scheduler says which channel an attempt has. Its node is made before the attempt starts, for its user
//! alone, and removed before its end is told.
//!
//! Source: NVIDIA, IMEX service for NVLink networks, "IMEX channels"; the number of channels is what the driver was loaded with.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use gotgan_proto::v1::{self, RunAttempt};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use serde::Deserialize;

use crate::confine::devices::{DEVICE_TABLE, Device, channel_node};
use crate::confine::spec::UnixUser;
use crate::held::Image;

/// Where the driver's programs look for channels.
pub const DIRECTORY: &str = "/dev/nvidia-caps-imex-channels";
/// What the driver was loaded with.
const PARAMETERS: &str = "/proc/driver/nvidia/params";
const COUNT: &str = "ImexChannelCount:";
/// Where the driver does not tell.
const COUNT_IF_SILENT: u32 = 2_048;
/// For the attempt's user alone; the device filter is for their other attempts.
const OWN: u32 = 0o600;

/// Section `[imex]` of the worker's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImexConfig {
    /// Where the nodes of channels come from.
    pub channels: Channels,
}

/// Where the nodes of channels come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// The worker makes that of an attempt and removes it.
    #[default]
    Make,
    /// The site has made them all when the machine started; the worker looks whether the one of an attempt is there.
    Expect,
    /// Attempts have none.
    Off,
}

/// Whether attempts on this node can have channels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ability {
    Off,
    Unable(String),
    Able(u32),
}

/// Makes and removes channels on this node.
#[derive(Clone, Debug)]
pub struct Imex {
    channels: Channels,
    ability: Ability,
    directory: PathBuf,
    /// Where the kernel lists drivers.
    table: PathBuf,
}

impl Imex {
    /// Finds out on this machine.
    pub fn find(config: &ImexConfig, root: bool) -> Self {
        let parameters = fs::read_to_string(PARAMETERS).unwrap_or_default();
        let imex = Self::of(config, DIRECTORY.into(), DEVICE_TABLE.into(), &parameters, root);
        if let Ability::Unable(why) = &imex.ability {
            tracing::warn!(why, "jobs on this node have no IMEX channels");
        }
        imex
    }

    fn of(
        config: &ImexConfig,
        directory: PathBuf,
        table: PathBuf,
        parameters: &str,
        root: bool,
    ) -> Self {
        let has_driver = channel_node(0, &read(&table)).is_some();
        let ability = match (config.channels, has_driver, root) {
            (Channels::Off, ..) | (_, false, _) => Ability::Off,
            (Channels::Make, true, false) => Ability::Unable(
                "the worker is not root and cannot make their nodes; see [imex]".to_owned(),
            ),
            (Channels::Make, true, true) | (Channels::Expect, true, _) => {
                Ability::Able(count(parameters))
            }
        };
        Self { channels: config.channels, ability, directory, table }
    }

    /// Of a node without the driver.
    pub fn off() -> Self {
        let (directory, table) = (DIRECTORY.into(), DEVICE_TABLE.into());
        Self { channels: Channels::Off, ability: Ability::Off, directory, table }
    }

    /// As it is registered.
    pub fn reported(&self) -> v1::ImexChannels {
        match self.ability.clone() {
            Ability::Off => v1::ImexChannels::default(),
            Ability::Unable(missing) => v1::ImexChannels { count: 0, missing },
            Ability::Able(count) => v1::ImexChannels { count, missing: String::new() },
        }
    }

    /// Takes over from an earlier daemon: removes the channels that no attempt of its journal holds.
    pub fn take_over(&self, image: &Image) {
        if !self.makes() {
            return;
        }
        let held = image.attempts.values().filter(|held| held.accepted && !held.ended);
        let held = held.filter_map(|held| held.order.as_deref());
        let held: BTreeSet<PathBuf> = held.map(|order| self.path(order.imex_channel)).collect();
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let found = entries.map(|entry| entry.path()).filter(|path| !held.contains(path));
        // Channel 0 is the site's.
        for path in found.filter(|path| *path != self.path(0)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::error!(path = %path.display(), %error, "cannot remove a channel of an earlier attempt");
            }
        }
    }

    /// Has the channel of an attempt there for whom it runs as; absent: the worker's own user.
    ///
    /// # Errors
    /// Why the node is not fit, for a person.
    pub fn open(&self, order: &RunAttempt, user: Option<&UnixUser>) -> Result<(), String> {
        if order.imex_channel == 0 {
            return Ok(());
        }
        let path = self.path(order.imex_channel);
        let Some(device) = channel_node(order.imex_channel, &read(&self.table)) else {
            return Err("the driver has no IMEX channels any more".to_owned());
        };
        let done = match self.channels {
            Channels::Make => make(&path, device, user),
            Channels::Expect if is_device(&path, device) => Ok(()),
            Channels::Expect => {
                Err(io::Error::other("is not there, and is to be made by the site"))
            }
            Channels::Off => Err(io::Error::other("channels are off")),
        };
        done.map_err(|error| format!("IMEX channel {}: {error}", path.display()))
    }

    /// Removes the channel of an attempt.
    ///
    /// # Errors
    /// Why the node is not fit, for a person.
    pub fn close(&self, channel: u32) -> Result<(), String> {
        if channel == 0 || !self.makes() {
            return Ok(());
        }
        let path = self.path(channel);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("IMEX channel {} cannot be removed: {error}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn makes(&self) -> bool {
        self.channels == Channels::Make && matches!(self.ability, Ability::Able(_))
    }

    fn path(&self, channel: u32) -> PathBuf {
        node_in(&self.directory, channel)
    }
}

/// The node of that channel, seen from a job.
pub fn path_of(channel: u32) -> PathBuf {
    node_in(Path::new(DIRECTORY), channel)
}

fn node_in(directory: &Path, channel: u32) -> PathBuf {
    directory.join(format!("channel{channel}"))
}

fn read(table: &Path) -> String {
    fs::read_to_string(table).unwrap_or_default()
}

/// As in the lines "name: value" that the driver shows.
fn count(parameters: &str) -> u32 {
    let mut lines = parameters.lines().filter_map(|line| line.trim().strip_prefix(COUNT));
    lines.next().and_then(|value| value.trim().parse().ok()).unwrap_or(COUNT_IF_SILENT)
}

/// The node of this device, for nobody but its user. One that is there already may be of another device or user.
fn make(path: &Path, device: Device, user: Option<&UnixUser>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let number = makedev(device.major.into(), device.minor.unwrap_or_default().into());
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(OWN), number)?;
    // What is made gets less than that where the daemon's mask says so.
    fs::set_permissions(path, fs::Permissions::from_mode(OWN))?;
    match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

fn is_device(path: &Path, device: Device) -> bool {
    fs::metadata(path).is_ok_and(|meta| {
        let number = meta.rdev();
        let same = (major(number), Some(minor(number)))
            == (device.major.into(), device.minor.map(u64::from));
        meta.file_type().is_char_device() && same
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::held::{AttemptKey, Held};

    const TABLE: &str =
        "Character devices:\n195 nvidia\n511 nvidia-caps-imex-channels\n\nBlock devices:\n";

    /// On a machine of which all of this lies in one directory.
    fn imex(place: &Path, channels: Channels, root: bool) -> Imex {
        let table = place.join("devices");
        fs::write(&table, TABLE).unwrap();
        Imex::of(&ImexConfig { channels }, place.join("nodes"), table, "", root)
    }

    fn order(job_id: u64, imex_channel: u32) -> RunAttempt {
        RunAttempt { job_id, attempt: 1, imex_channel, ..Default::default() }
    }

    fn is_root() -> bool {
        let root = nix::unistd::Uid::effective().is_root();
        if !root {
            eprintln!("SKIPPED: only root makes device nodes");
        }
        root
    }

    #[test]
    fn how_many_there_are_is_what_the_driver_was_loaded_with() {
        let shown = "ResmanDebugLevel: 4294967295\nImexChannelCount: 16\nCreateImexChannel0: 0\n";
        assert_eq!(count(shown), 16);
        assert_eq!(count("CreateImexChannel0: 0\n"), 2_048);
    }

    #[test]
    fn a_node_can_have_channels_where_its_driver_does_and_somebody_makes_them() {
        let place = tempfile::tempdir().unwrap();
        let able = |channels, root| imex(place.path(), channels, root).reported();
        assert_eq!(able(Channels::Make, true).count, 2_048);
        assert_eq!(able(Channels::Expect, false).count, 2_048);
        assert_eq!(able(Channels::Off, true), v1::ImexChannels::default());
        let unable = able(Channels::Make, false);
        assert!(unable.count == 0 && unable.missing.contains("not root"), "{unable:?}");
        assert_eq!(Imex::off().reported(), v1::ImexChannels::default());
    }

    #[test]
    fn a_channel_is_made_for_its_attempt_and_removed_after_it() {
        if !is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let imex = imex(place.path(), Channels::Make, true);
        let path = place.path().join("nodes/channel7");
        let user = UnixUser {
            name: "ada".into(),
            uid: 1042,
            gid: 100,
            groups: Vec::new(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        };
        // Also where something else is in its place.
        fs::create_dir(place.path().join("nodes")).unwrap();
        fs::write(&path, "").unwrap();
        imex.open(&order(1, 7), Some(&user)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert!(is_device(&path, Device { major: 511, minor: Some(7) }));
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1042, 100, 0o600));
        imex.close(7).unwrap();
        imex.close(7).unwrap();
        assert!(!path.exists());
        imex.open(&order(1, 0), None).unwrap();
        fs::write(place.path().join("devices"), "Character devices:\n").unwrap();
        assert!(imex.open(&order(1, 7), None).unwrap_err().contains("any more"));
    }

    #[test]
    fn where_the_site_makes_them_one_that_is_missing_is_told_and_none_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let imex = imex(place.path(), Channels::Expect, false);
        let error = imex.open(&order(1, 7), None).unwrap_err();
        assert!(error.contains("channel7: is not there"), "{error}");
        fs::create_dir(place.path().join("nodes")).unwrap();
        fs::write(place.path().join("nodes/channel7"), "").unwrap();
        imex.open(&order(1, 7), None).unwrap_err();
        imex.close(7).unwrap();
        imex.take_over(&Image::default());
        assert!(place.path().join("nodes/channel7").exists());
    }

    #[test]
    fn who_takes_over_removes_the_channels_of_attempts_that_are_gone() {
        let place = tempfile::tempdir().unwrap();
        let imex = imex(place.path(), Channels::Make, true);
        fs::create_dir(place.path().join("nodes")).unwrap();
        for channel in [0, 7, 8, 9] {
            fs::write(place.path().join(format!("nodes/channel{channel}")), "").unwrap();
        }
        let mut image = Image::default();
        for (job, channel, ended) in [(1, 7, false), (2, 8, true)] {
            let (key, order) = (AttemptKey::new(job, 1), Some(Box::new(order(job, channel))));
            let held = Held { key, order, accepted: true, ended, ..Held::default() };
            image.attempts.insert(key, held);
        }
        imex.take_over(&image);
        let left: BTreeSet<_> = fs::read_dir(place.path().join("nodes"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["channel0".into(), "channel7".into()].into());
    }
}
