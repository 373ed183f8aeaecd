//! What the site asks for: the section `[containers]` of the worker's settings.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::mounts::MountRule;

/// Where a launcher's template has the image.
pub const IMAGE: &str = "{image}";

/// By what images run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// They do not.
    #[default]
    Off,
    /// By an OCI runtime.
    Runtime,
    /// By a program of the site's own.
    Launcher,
}

/// Section `[containers]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersConfig {
    /// By what images run.
    pub run: Run,
    /// The OCI runtime: a path, or a name that is looked for in `PATH`.
    pub runtime: PathBuf,
    /// The site's launcher and its arguments; the job's command comes behind them.
    pub launcher: Vec<String>,
    /// Directories below which images may lie.
    pub image_roots: Vec<PathBuf>,
    /// What of the node a container sees beside the attempt's own.
    pub mounts: Vec<String>,
    /// Where CDI files are looked for; a later one wins.
    pub cdi_directories: Vec<PathBuf>,
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            run: Run::Off,
            runtime: "runc".into(),
            launcher: Vec::new(),
            image_roots: vec!["/images".into(), "/home".into()],
            mounts: vec!["{working_directory}".into(), "{home}".into()],
            cdi_directories: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}

impl ContainersConfig {
    /// Refuses what cannot work, naming what to change.
    pub fn check(&self) -> Result<(), String> {
        let absolute =
            |key: &str, paths: &[PathBuf]| match paths.iter().find(|it| !it.is_absolute()) {
                Some(bad) => {
                    Err(format!("containers.{key}: {} must be an absolute path", bad.display()))
                }
                None => Ok(()),
            };
        absolute("image_roots", &self.image_roots)?;
        absolute("cdi_directories", &self.cdi_directories)?;
        self.rules().map(drop)?;
        match self.run {
            Run::Off => Ok(()),
            Run::Runtime | Run::Launcher if self.image_roots.is_empty() => {
                Err("containers.image_roots must name a directory in which images may lie".into())
            }
            Run::Runtime => Ok(()),
            Run::Launcher => self.check_launcher(),
        }
    }

    fn check_launcher(&self) -> Result<(), String> {
        let example = "as in [\"apptainer\", \"exec\", \"--nv\", \"{image}\"]";
        match self.launcher.first() {
            None => {
                Err(format!("containers.launcher must be the program and its arguments, {example}"))
            }
            Some(_) if !self.launcher.iter().any(|word| word.contains(IMAGE)) => Err(format!(
                "containers.launcher must have {IMAGE} where the image is to be, {example}"
            )),
            Some(_) => Ok(()),
        }
    }

    /// What of the node a container sees.
    pub fn rules(&self) -> Result<Vec<MountRule>, String> {
        self.mounts.iter().map(|text| MountRule::read(text)).collect()
    }
}

/// The program by path, or by its name where `search` (as in `PATH`) has it.
pub fn find_program(program: &Path, search: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        let meta = std::fs::metadata(path);
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let shown = program.display();
    if program.components().count() > 1 {
        return match runs(program) {
            true => std::path::absolute(program).map_err(|error| error.to_string()),
            false => Err(format!("{shown} is no program on this node")),
        };
    }
    let places = search.split(':').filter(|place| place.starts_with('/'));
    let found = places.map(|place| Path::new(place).join(program)).find(|path| runs(path));
    found.ok_or_else(|| format!("{shown} is not installed: it is nowhere in PATH"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(text: &str) -> String {
        toml::from_str::<ContainersConfig>(text).unwrap().check().unwrap_err()
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        ContainersConfig::default().check().unwrap();
        assert!(refused("image_roots = [\"images\"]").contains("image_roots: images must be"));
        assert!(refused("mounts = [\"data\"]").contains("mounts"));
        assert!(refused("run = \"runtime\"\nimage_roots = []").contains("image_roots"));
        assert!(refused("run = \"launcher\"").contains("launcher must be the program"));
        let without = "run = \"launcher\"\nlauncher = [\"enroot\", \"start\"]";
        assert!(refused(without).contains("{image}"));
        let good = "run = \"launcher\"\nlauncher = [\"apptainer\", \"exec\", \"{image}\"]";
        toml::from_str::<ContainersConfig>(good).unwrap().check().unwrap();
    }

    #[test]
    fn a_program_is_found_by_path_or_by_name() {
        assert_eq!(find_program(Path::new("sh"), "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find_program(Path::new("/bin/sh"), "").unwrap(), Path::new("/bin/sh"));
        let error = find_program(Path::new("runc"), "/nowhere").unwrap_err();
        assert_eq!(error, "runc is not installed: it is nowhere in PATH");
        assert!(find_program(Path::new("/etc/passwd"), "").unwrap_err().contains("no program"));
    }
}
