//! The worker's page for Prometheus, made anew whenever it is asked for: GPUs under the names that NVIDIA's DCGM exporter
//! uses where the meaning is the same, and with its labels. Nothing decides by it.

mod http;
mod page;

pub use http::{MetricsError, Port, Sources};
pub use page::{Using, page};
