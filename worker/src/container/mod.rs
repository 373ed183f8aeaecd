//! Images: running a job with the files of an image instead of the node's.
//!
//! [`config`] is what the site asks for, [`support`] what becomes of it on this machine: it is tried once for real when
//! the worker starts ([`probe`]). [`spec`] is what a shim is told of one attempt; the shim opens the image as the job's
//! user, makes the mounts, writes the runtime's configuration ([`oci`], pure) and keeps the runtime's process
//! (`shim/container`). GPUs come from the site's CDI files ([`cdi`]).

pub mod bundle;
pub mod cdi;
pub mod config;
pub mod mounts;
pub mod oci;
pub mod probe;
pub mod runtime;
pub mod spec;
pub mod support;
