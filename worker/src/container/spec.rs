//! How the processes of one attempt run in its image, as the shim is told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cdi::Edits;
use super::mounts::MountRule;
use super::runtime::Runtime;

/// The image of an attempt and all that its tasks need to run in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// As the job names it.
    pub image: PathBuf,
    /// Directories below which it must lie.
    pub image_roots: Vec<PathBuf>,
    /// By what it runs.
    pub way: Way,
}

/// By what an image runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By an OCI runtime, which the shim gives mounts and a configuration.
    Runtime(RuntimeSpec),
    /// By the site's launcher, as the job's user: the program and its arguments, in which [`super::config::IMAGE`] stands
    /// for the image.
    Launcher(Vec<String>),
}

/// What a container is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSpec {
    /// What makes it.
    pub runtime: Runtime,
    /// First part of the names of the attempt's containers.
    pub name: String,
    /// The attempt's directory, absolute.
    pub directory: PathBuf,
    /// Of that, what is its user's: where tasks start unless their job or image says otherwise.
    pub work: PathBuf,
    /// The job's script, if it is one.
    pub script: Option<PathBuf>,
    /// Certificate by which tasks know the scheduler.
    pub authority: Option<PathBuf>,
    /// What of the node is seen.
    pub mounts: Vec<MountRule>,
    /// What its GPUs need.
    pub gpus: Edits,
}
