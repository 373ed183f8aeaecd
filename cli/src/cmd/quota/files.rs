//! Quota files as people keep them: found in folders, named, and read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use gotgan_proto::v1;

use crate::error::Error;

/// Largest quota file the API takes, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Deepest folder read; a tree of programmes needs two or three, a loop of links none.
const DEPTH_MAX: usize = 8;

/// The files by name, from files and folders; in folders those that end in .toml.
pub(crate) fn read_files(paths: &[PathBuf]) -> Result<Vec<v1::QuotaFile>, Error> {
    find(paths)?.into_iter().map(|(name, path)| read_file(name, &path)).collect()
}

/// Names and places of the files, by name.
pub(super) fn find(paths: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    for path in paths {
        if path.is_dir() {
            find_files(path, path, 0, &mut found)?;
        } else {
            let name = path.file_name().map(PathBuf::from).unwrap_or_else(|| path.clone());
            add_file(name, path.clone(), &mut found)?;
        }
    }
    if found.is_empty() {
        return Err(Error::invalid(
            "no file there ends in .toml",
            "name the folder of quota files",
        ));
    }
    Ok(found)
}

fn find_files(
    base: &Path,
    folder: &Path,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    let failed = |source| Error::File { path: folder.display().to_string(), source };
    if depth > DEPTH_MAX {
        return Err(Error::invalid(
            format!("{}: too deep a folder", folder.display()),
            "put the files higher",
        ));
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            find_files(base, &path, depth + 1, found)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.strip_prefix(base).unwrap_or(&path).to_path_buf();
            add_file(name, path, found)?;
        }
    }
    Ok(())
}

fn add_file(
    name: PathBuf,
    path: PathBuf,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    let name = name.to_string_lossy().into_owned();
    match found.insert(name.clone(), path.clone()) {
        Some(other) if other != path => Err(Error::invalid(
            format!("{name} is named twice: {} and {}", other.display(), path.display()),
            "give each file a name of its own",
        )),
        _ => Ok(()),
    }
}

fn read_file(name: String, path: &Path) -> Result<v1::QuotaFile, Error> {
    let failed = |source| Error::File { path: path.display().to_string(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_MAX_BYTES {
        return Err(Error::invalid(
            format!("{}: larger than 1 MiB", path.display()),
            "split the file",
        ));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Ok(v1::QuotaFile { name, text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_of_folders_are_sorted_and_others_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["b.toml", "a.toml", "sub/c.toml", "notes.md"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let files = read_files(&[folder.path().to_path_buf()]).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.toml", "b.toml", "sub/c.toml"]);
    }

    #[test]
    fn a_folder_without_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_files(&[folder.path().to_path_buf()]).is_err());
    }
}
