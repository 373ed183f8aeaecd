//! Reading and writing key files: whole or not at all, and secret from the first byte.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::TlsError;

/// Who may read a file besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Nobody.
    Secret,
    /// Everybody.
    Public,
}

impl Secrecy {
    fn mode(self) -> u32 {
        match self {
            Secrecy::Secret => 0o600,
            Secrecy::Public => 0o644,
        }
    }
}

/// Makes the directory if there is none. Others may look into it: the CA's certificate is for them too.
pub(super) fn make_dir(dir: &Path) -> Result<(), TlsError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|source| error("make", dir, source))
}

pub(super) fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| error("read", path, source))
}

/// The text of a file, `None` if there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, TlsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error("read", path, source)),
    }
}

/// Replaces a file such that it holds the old text or the new one after any crash.
pub(super) fn write(path: &Path, text: &str, secrecy: Secrecy) -> Result<(), TlsError> {
    replace(path, text, secrecy).map_err(|source| error("write", path, source))
}

fn replace(path: &Path, text: &str, secrecy: Secrecy) -> io::Result<()> {
    let draft = draft_path(path);
    // A draft left by a crash could have been made with another mode.
    match fs::remove_file(&draft) {
        Err(failed) if failed.kind() != io::ErrorKind::NotFound => return Err(failed),
        Ok(()) | Err(_) => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(secrecy.mode()).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn draft_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".draft");
    name.into()
}

fn error(action: &'static str, path: &Path, source: io::Error) -> TlsError {
    TlsError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_file_is_its_owners_alone_even_over_a_stale_draft() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        fs::write(draft_path(&path), "left behind").unwrap();
        write(&path, "key", Secrecy::Secret).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), "key");
        assert!(!draft_path(&path).exists());
    }

    #[test]
    fn a_missing_file_is_told_apart_from_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_if_there(&dir.path().join("none")).unwrap().is_none());
        let error = read_if_there(dir.path()).unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
