//! Connections as they come in, up to where calls are read from them. Knows nothing of calls.

mod door;
mod line;

pub use door::{Door, lines, listen};
pub use line::{Line, Shown};
