//! Finding an image, with no more rights than its task's user has, and saying what is wrong with it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};

use super::super::grip::Grip;
use super::super::task::Failure;
use crate::container::bundle::{Bundle, CONFIG, CONFIG_BYTES_MAX, SIGNS_OF_A_ROOT};
use crate::container::spec::ContainerSpec;

/// An image that is open.
pub struct Image {
    /// Its root file system.
    pub root: File,
    /// What it says itself, if it is a bundle.
    pub bundle: Option<Bundle>,
}

/// Opens an image for a runtime.
pub fn for_runtime(container: &ContainerSpec, grip: &Grip) -> Result<Image, Failure> {
    let image = &container.image;
    let opened = as_user(grip, || open_directory(image))?;
    let directory = opened.map_err(|errno| cannot_open(image, errno, grip))?;
    inside(image, &real_path(&directory)?, &container.image_roots)?;
    let text = as_user(grip, || read_config(&directory))?;
    let Some(text) = text.map_err(|error| broken(image, &error.to_string()))? else {
        let is_root = as_user(grip, || is_root(&directory))?;
        return match is_root {
            true => Ok(Image { root: directory, bundle: None }),
            false => Err(no_root(image)),
        };
    };
    let bundle = Bundle::read(&text).map_err(|why| broken(image, &why))?;
    let opened = as_user(grip, || open_below(&directory, &bundle.root))?;
    let root = opened.map_err(|errno| {
        let place = image.join(&bundle.root);
        broken(image, &format!("its root file system {}: {errno}", place.display()))
    })?;
    inside(image, &real_path(&root)?, &container.image_roots)?;
    Ok(Image { root, bundle: Some(bundle) })
}

/// Looks at an image for a launcher, which opens it itself; by a process that is its user.
pub fn for_launcher(container: &ContainerSpec, grip: &Grip) -> Result<String, Failure> {
    let image = &container.image;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    open(image, flags, Mode::empty()).map_err(|errno| cannot_open(image, errno, grip))?;
    let real = image.canonicalize().map_err(|error| {
        Failure::not_found(format!("cannot start: image {}: {error}", image.display()))
    })?;
    inside(image, &real, &container.image_roots)?;
    Ok(real.to_string_lossy().into_owned())
}

fn as_user<T>(grip: &Grip, work: impl FnOnce() -> T) -> Result<T, Failure> {
    grip.as_user(work)
        .map_err(|errno| Failure::of_node(format!("cannot start: as its user: {errno}")))
}

fn open_directory(path: &Path) -> nix::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = File::from(open(path, flags, Mode::empty())?);
    match kind_of(&file)? {
        SFlag::S_IFDIR => Ok(file),
        _ => Err(Errno::ENOTDIR),
    }
}

fn open_below(directory: &File, path: &Path) -> nix::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
    openat(directory.as_fd(), path, flags, Mode::empty()).map(File::from)
}

/// What kind of file it is.
pub fn kind_of(file: &File) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(file.as_fd())?.st_mode) & SFlag::S_IFMT)
}

/// Absent: the image is no bundle.
fn read_config(directory: &File) -> io::Result<Option<String>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = match openat(directory.as_fd(), CONFIG, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn is_root(directory: &File) -> bool {
    let has = |name: &&str| fstatat(directory.as_fd(), *name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok();
    SIGNS_OF_A_ROOT.iter().any(has)
}

/// Where an open file really is.
fn real_path(file: &File) -> Result<PathBuf, Failure> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link)
        .map_err(|error| Failure::of_node(format!("cannot start: its image: {error}")))
}

/// Whether it lies where the site wants images to be, whatever links lead there.
fn inside(image: &Path, real: &Path, roots: &[PathBuf]) -> Result<(), Failure> {
    let real_root = |root: &PathBuf| root.canonicalize().ok();
    if roots.iter().filter_map(real_root).any(|root| real.starts_with(root)) {
        return Ok(());
    }
    let roots: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
    let really = match image == real {
        true => String::new(),
        false => format!(" (it is really {})", real.display()),
    };
    Err(Failure::not_started(format!(
        "cannot start: image {}{really} lies outside of what this node allows; move it below {}",
        image.display(),
        roots.join(" or ")
    )))
}

fn cannot_open(image: &Path, errno: Errno, grip: &Grip) -> Failure {
    let shown = image.display();
    let user = grip.user().map_or("its user", |user| &user.name);
    match errno {
        Errno::ENOENT if grip.hides(image) => Failure::not_found(format!(
            "cannot start: image {shown} does not exist: on this node /tmp and /dev/shm are each job's own"
        )),
        Errno::ENOENT => Failure::not_found(format!(
            "cannot start: image {shown} does not exist on this node; put it where every node sees it"
        )),
        Errno::EACCES | Errno::EPERM => Failure::not_started(format!(
            "cannot start: image {shown} may not be read by {user}; give read and search permission on it and above it"
        )),
        Errno::ENOTDIR => Failure::not_started(format!(
            "cannot start: image {shown} is no directory; unpack it into one: this node runs root file systems and OCI \
             bundles"
        )),
        other => Failure::not_started(format!("cannot start: image {shown}: {other}")),
    }
}

fn broken(image: &Path, why: &str) -> Failure {
    let shown = image.join(CONFIG);
    let why =
        format!("cannot start: OCI bundle {}: {why}; repair it or make it again", shown.display());
    Failure::not_started(why)
}

fn no_root(image: &Path) -> Failure {
    Failure::not_started(format!(
        "cannot start: image {} is no root file system: it has none of {}, nor {CONFIG}; give the directory into which \
         the image was unpacked",
        image.display(),
        SIGNS_OF_A_ROOT.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::confine::spec::Confinement;
    use crate::container::spec::Way;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            for directory in
                ["images/good/etc", "images/empty", "images/bundle/tree/bin", "other/bin"]
            {
                fs::create_dir_all(place.0.path().join(directory)).unwrap();
            }
            symlink(place.0.path().join("other"), place.0.path().join("images/away")).unwrap();
            fs::write(place.0.path().join("images/file.sif"), "x").unwrap();
            place.say("{\"root\":{\"path\":\"tree\"},\"process\":{\"cwd\":\"/w\"}}");
            place
        }

        fn say(&self, config: &str) {
            fs::write(self.0.path().join("images/bundle/config.json"), config).unwrap();
        }

        fn spec(&self, name: &str) -> ContainerSpec {
            ContainerSpec {
                image: self.0.path().join("images").join(name),
                image_roots: vec!["/nowhere".into(), self.0.path().join("images")],
                way: Way::Launcher(Vec::new()),
            }
        }

        fn open(&self, name: &str) -> Result<Image, String> {
            let grip = Grip::take(&Confinement::default()).unwrap();
            for_runtime(&self.spec(name), &grip).map_err(|failure| failure.detail)
        }

        fn refused(&self, name: &str) -> String {
            self.open(name).err().unwrap()
        }
    }

    #[test]
    fn a_root_file_system_and_a_bundle_are_images() {
        let place = Place::new();
        assert!(place.open("good").unwrap().bundle.is_none());
        let bundle = place.open("bundle").unwrap().bundle.unwrap();
        assert_eq!(bundle.directory.as_deref(), Some("/w"));
    }

    #[test]
    fn what_is_no_image_is_told_with_what_to_do() {
        let place = Place::new();
        assert!(place.refused("nothing").contains("does not exist on this node"));
        assert!(place.refused("empty").contains("is no root file system"));
        assert!(place.refused("file.sif").contains("unpack it into one"));
        let away = place.refused("away");
        assert!(
            away.contains("really") && away.contains("outside of what this node allows"),
            "{away}"
        );
        assert!(place.refused("../other").contains("outside"));
    }

    #[test]
    fn a_broken_bundle_is_told_by_what_is_broken() {
        let place = Place::new();
        place.say("{");
        assert!(place.refused("bundle").contains("config.json: EOF"));
        place.say("{}");
        assert!(place.refused("bundle").contains("its root file system"));
        fs::write(place.0.path().join("images/bundle/config.json"), [0xff, 0xfe]).unwrap();
        assert!(place.refused("bundle").contains("UTF-8"));
    }

    #[test]
    fn a_launcher_gets_files_as_well() {
        let place = Place::new();
        let grip = Grip::take(&Confinement::default()).unwrap();
        let of =
            |name: &str| for_launcher(&place.spec(name), &grip).map_err(|failure| failure.detail);
        assert!(of("file.sif").unwrap().ends_with("/images/file.sif"));
        assert!(of("away").unwrap_err().contains("outside"));
    }
}
