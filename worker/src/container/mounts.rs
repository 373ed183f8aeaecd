//! What of the node a container sees, and where. Pure.
//!
//! Whatever is listed here is opened as the job's user: what they may not read is not there.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Directories in the root that belong to the image: nothing of the node takes their place, whatever a job asks for.
const OF_THE_IMAGE: [&str; 14] = [
    "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys",
    "usr", "var",
];
/// Files of the node that names of other nodes are found by: containers share its network.
const OF_THE_NETWORK: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
const READ_ONLY: &str = ":ro";

/// One entry of `mounts` in the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountRule {
    /// The job's working directory.
    WorkingDirectory,
    /// The home of its user.
    Home,
    /// A directory of the site's.
    Path {
        /// Where, on the node and in the container.
        path: PathBuf,
        /// Nothing can be written there.
        read_only: bool,
    },
}

impl MountRule {
    /// As the settings have it.
    pub fn read(text: &str) -> Result<Self, String> {
        let (path, read_only) = match text.strip_suffix(READ_ONLY) {
            Some(path) => (path, true),
            None => (text, false),
        };
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        match text {
            "{working_directory}" => Ok(MountRule::WorkingDirectory),
            "{home}" => Ok(MountRule::Home),
            _ if path.starts_with('/')
                && path.len() > 1
                && Path::new(path).components().all(plain) =>
            {
                Ok(MountRule::Path { path: path.into(), read_only })
            }
            _ => Err(format!(
                "containers.mounts: {text:?} must be an absolute path without .., perhaps with {READ_ONLY} behind it, \
                 or {{working_directory}} or {{home}}"
            )),
        }
    }
}

/// A directory or file of the node in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    /// Where it is, on the node and in the container.
    pub path: PathBuf,
    /// Nothing can be written there.
    pub read_only: bool,
    /// Without it nothing starts; what else is not there is left out.
    pub needed: bool,
}

/// Where the things of one task are.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Its working directory.
    pub working_directory: &'a Path,
    /// Home of its user.
    pub home: &'a Path,
    /// Directory of the attempt that is its user's.
    pub work: &'a Path,
    /// Script of the job, if it is one.
    pub script: Option<&'a Path>,
    /// Certificate by which it knows the scheduler.
    pub authority: Option<&'a Path>,
}

/// What is mounted, in an order in which nothing hides what came before.
pub fn wanted(rules: &[MountRule], places: &Places<'_>) -> Vec<HostMount> {
    let mut mounts: Vec<HostMount> =
        rules.iter().filter_map(|rule| of_rule(rule, places)).collect();
    let needed =
        |path: &Path, read_only| HostMount { path: path.to_owned(), read_only, needed: true };
    let network = OF_THE_NETWORK.iter().map(Path::new);
    let files = network
        .chain(places.authority)
        .map(|path| HostMount { needed: false, ..needed(path, true) });
    mounts.extend(files);
    mounts.push(needed(places.work, false));
    mounts.extend(places.script.map(|path| needed(path, true)));
    mounts.sort_by(|one, other| {
        let depth = |mount: &HostMount| mount.path.components().count();
        depth(one)
            .cmp(&depth(other))
            .then_with(|| one.path.cmp(&other.path))
            .then(one.read_only.cmp(&other.read_only))
    });
    without_repeats(mounts)
}

fn of_rule(rule: &MountRule, places: &Places<'_>) -> Option<HostMount> {
    let own = |path: &Path| {
        let path = clean(path)?;
        Some(HostMount { path, read_only: false, needed: false })
    };
    match rule {
        MountRule::WorkingDirectory => own(places.working_directory),
        MountRule::Home => own(places.home),
        MountRule::Path { path, read_only } => {
            Some(HostMount { path: path.clone(), read_only: *read_only, needed: false })
        }
    }
}

/// The path without what it does not need, unless it would hide what is the image's.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let first = names.first()?.to_str()?;
    let is_the_images = OF_THE_IMAGE.contains(&first);
    (!is_the_images).then(|| Path::new("/").join(names.iter().collect::<PathBuf>()))
}

/// What lies in something that is mounted as it is anyway is seen there.
fn without_repeats(sorted: Vec<HostMount>) -> Vec<HostMount> {
    let mut kept: Vec<HostMount> = Vec::new();
    for mount in sorted {
        let seen = kept.iter().rev().find(|other| mount.path.starts_with(&other.path));
        let repeats = seen.is_some_and(|other| other.read_only == mount.read_only && !mount.needed)
            || kept.iter().any(|other| other.path == mount.path);
        if !repeats {
            kept.push(mount);
        }
    }
    kept
}

/// Whether what lies at this path in the container comes from the node.
pub fn covers(mounts: &[HostMount], path: &Path) -> bool {
    mounts.iter().any(|mount| path.starts_with(&mount.path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(rules: &[&str], working_directory: &str, home: &str) -> Vec<String> {
        let rules: Vec<_> = rules.iter().map(|text| MountRule::read(text).unwrap()).collect();
        let places = Places {
            working_directory: Path::new(working_directory),
            home: Path::new(home),
            work: Path::new("/var/lib/gotgan-worker/attempts/7.1/work"),
            script: Some(Path::new("/var/lib/gotgan-worker/attempts/7.1/script")),
            authority: None,
        };
        let word = |mount: HostMount| {
            let read_only = if mount.read_only { " read-only" } else { "" };
            let needed = if mount.needed { " needed" } else { "" };
            format!("{}{read_only}{needed}", mount.path.display())
        };
        wanted(&rules, &places).into_iter().map(word).collect()
    }

    const DEFAULT: [&str; 2] = ["{working_directory}", "{home}"];

    #[test]
    fn a_job_sees_where_it_works_and_its_home_and_nothing_else() {
        assert_eq!(
            shown(&DEFAULT, "/scratch/run-1", "/home/ada"),
            [
                "/etc/hosts read-only",
                "/etc/resolv.conf read-only",
                "/home/ada",
                "/scratch/run-1",
                "/var/lib/gotgan-worker/attempts/7.1/script read-only needed",
                "/var/lib/gotgan-worker/attempts/7.1/work needed",
            ]
        );
        let network = ["/etc/hosts read-only", "/etc/resolv.conf read-only"];
        assert_eq!(shown(&[], "/scratch/run-1", "/home/ada")[..2], network);
        assert_eq!(shown(&[], "/scratch/run-1", "/home/ada").len(), 4);
    }

    #[test]
    fn what_lies_in_what_is_mounted_is_not_mounted_again_unless_it_may_be_written() {
        let found =
            shown(&["{working_directory}", "{home}", "/data:ro"], "/home/ada/x", "/home/ada");
        assert!(found.contains(&"/home/ada".into()) && !found.contains(&"/home/ada/x".into()));
        let found = shown(&["{working_directory}", "/data:ro"], "/data/mine", "/nowhere");
        let read_only = found.iter().position(|it| it == "/data read-only").unwrap();
        let written = found.iter().position(|it| it == "/data/mine").unwrap();
        assert!(read_only < written);
    }

    #[test]
    fn nothing_of_the_node_takes_the_place_of_what_is_the_images() {
        for place in ["/", "/usr/lib", "/etc", "/root", "/data/../etc", "/./usr"] {
            let found = shown(&DEFAULT, place, place);
            assert_eq!(found.len(), 4, "{place}: {found:?}");
        }
    }

    #[test]
    fn an_entry_of_the_settings_is_read_or_refused() {
        let read_only = MountRule::Path { path: "/data".into(), read_only: true };
        assert_eq!(MountRule::read("/data:ro").unwrap(), read_only);
        for bad in ["data", "/", "", ":ro", "/:ro", "{house}", "/data/../etc"] {
            assert!(MountRule::read(bad).unwrap_err().contains("containers.mounts"), "{bad}");
        }
    }
}
