//! A Gotgan cluster in a test: real daemons on free ports, virtual workers, faults, and benchmarks on the same
//! parts.
//!
//! ```text
//!  test ──► Cluster ──► gotgan-scheduler (process, SQLite or PostgreSQL of its own)
//!             │  ├────► gotgan-worker     (processes, real jobs)
//!             │  └────► VirtualWorker     (tasks of this process, jobs by script)
//!             ├─► Api    the gRPC API as some principal
//!             └─► Gotgan the command line as some person
//! ```
//!
//! It knows the daemons by their programs and the public API alone, never by their code. Whatever a cluster
//! started is ended when it is dropped, also what its jobs started; the logs of its daemons are shown if the test
//! failed. A helper that cannot do its work stops the test with what it waited for: nothing here returns an error
//! that a test would only unwrap.

#![allow(clippy::unwrap_used)]

pub mod api;
pub mod audit;
pub mod bench;
pub mod cluster;
pub mod command_line;
pub mod database;
pub mod deadline;
pub mod jobs;
pub mod libc_faults;
mod library;
pub mod nvml_double;
pub mod process;
pub mod programs;
pub mod swarm;
pub mod torment;
pub mod virtual_worker;

pub use api::Api;
pub use cluster::{Cluster, ClusterBuilder};
pub use command_line::{Gotgan, Ran};
pub use database::Database;
pub use swarm::Swarm;
pub use virtual_worker::VirtualWorker;
