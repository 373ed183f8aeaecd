//! What an image is: a root file system, or an OCI bundle with defaults of its own. Pure.

use std::path::{Component, PathBuf};

use serde::Deserialize;

/// The file that makes a directory a bundle.
pub const CONFIG: &str = "config.json";
/// Most of that file that is read, bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// One of these is in the root of everything that programs run in.
pub const SIGNS_OF_A_ROOT: [&str; 6] = ["bin", "usr", "sbin", "lib", "etc", "opt"];
/// Where a bundle has its root file system unless it says otherwise.
const ROOT: &str = "rootfs";

/// What is taken from a bundle; everything else in it is the job's or the site's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The root file system, seen from the bundle.
    pub root: PathBuf,
    /// Variables that hold unless the job says otherwise.
    pub environment: Vec<(String, String)>,
    /// Where processes start unless the job says otherwise.
    pub directory: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    root: Option<Root>,
    #[serde(default)]
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Process {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    cwd: String,
}

impl Bundle {
    /// Reads `config.json`. The error is for a person.
    pub fn read(text: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let root = config.root.map_or_else(|| ROOT.into(), |root| root.path);
        if root.components().any(|part| part == Component::ParentDir) {
            return Err(format!("root.path {} has .. in it", root.display()));
        }
        let process = config.process.unwrap_or(Process { env: Vec::new(), cwd: String::new() });
        let variable = |entry: String| match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() && !entry.contains('\0') => {
                Ok((name.to_owned(), value.to_owned()))
            }
            Some(_) | None => Err(format!("process.env: {entry:?} is not NAME=VALUE")),
        };
        let environment = process.env.into_iter().map(variable).collect::<Result<_, _>>()?;
        // The root is what tools write that know of no place.
        let directory = (process.cwd.starts_with('/') && process.cwd != "/").then_some(process.cwd);
        Ok(Self { root, environment, directory })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bundle_gives_its_root_its_environment_and_where_it_starts() {
        let text = r#"{"ociVersion":"1.0.2","root":{"path":"tree"},"hostname":"x",
            "process":{"args":["sh"],"env":["PATH=/opt/bin:/bin","EMPTY="],"cwd":"/workspace"}}"#;
        let environment =
            vec![("PATH".into(), "/opt/bin:/bin".into()), ("EMPTY".into(), String::new())];
        let directory = Some("/workspace".into());
        assert_eq!(
            Bundle::read(text).unwrap(),
            Bundle { root: "tree".into(), environment, directory }
        );
        let plain = Bundle { root: "rootfs".into(), environment: Vec::new(), directory: None };
        assert_eq!(Bundle::read("{}").unwrap(), plain);
        assert_eq!(Bundle::read(r#"{"process":{"cwd":"/"}}"#).unwrap(), plain);
    }

    #[test]
    fn a_broken_bundle_says_what_is_broken() {
        let refused = |text: &str| Bundle::read(text).unwrap_err();
        assert!(refused("{").contains("line 1"));
        assert!(refused(r#"{"process":{"env":["PATH"]}}"#).contains("process.env: \"PATH\""));
        assert!(refused(r#"{"process":{"env":"PATH=/bin"}}"#).contains("sequence"));
        assert!(refused(r#"{"root":{"path":"../../etc"}}"#).contains("root.path"));
    }
}
