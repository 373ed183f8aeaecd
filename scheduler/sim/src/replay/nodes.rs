//! The nodes of a machine: written down as `58x8` or `58x8,4x4`, or counted from a table of nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::bounds::GPUS_MAX;
use crate::table::{Table, TableError};

/// Columns by which tables of nodes name the GPUs of a node; the first that is there counts.
const COLUMNS: [&str; 3] = ["gpus", "gpu", "gpu_capacity_num"];

/// Most GPUs of a node.
const GPUS_PER_NODE_MAX: u32 = 1024;

/// Most nodes of a machine.
const NODES_MAX: u32 = 1_000_000;

/// Nodes by how many GPUs each has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    by_gpus: BTreeMap<u32, u32>,
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The table of nodes cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// It is neither counts nor a file.
    #[error("\"{0}\" is neither COUNTxGPUS, as in 58x8 or 58x8,4x4, nor a file")]
    Form(String),
    /// No node has a GPU, or there are too many.
    #[error("\"{0}\" must have from 1 to 1,000,000 nodes with 1 to 1024 GPUs each")]
    Size(String),
}

impl Machine {
    /// Reads what was written down, or the table in the file of that name, where nodes without GPUs are left out.
    ///
    /// # Errors
    /// [`MachineError`]
    pub fn read(text: &str) -> Result<Self, MachineError> {
        let by_gpus = match counts(text) {
            Some(by_gpus) => by_gpus,
            None if Path::new(text).exists() => table(Path::new(text))?,
            None => return Err(MachineError::Form(text.to_owned())),
        };
        let nodes: u64 = by_gpus.values().map(|count| u64::from(*count)).sum();
        let sizes = by_gpus.keys().all(|gpus| (1..=GPUS_PER_NODE_MAX).contains(gpus));
        if !sizes || !(1..=u64::from(NODES_MAX)).contains(&nodes) {
            return Err(MachineError::Size(text.to_owned()));
        }
        Ok(Machine { by_gpus })
    }

    /// Counts of nodes by how many GPUs each has, the smallest nodes first.
    pub fn kinds(&self) -> impl Iterator<Item = (u32, u32)> {
        self.by_gpus.iter().map(|(gpus, count)| (*gpus, *count))
    }

    /// GPUs in all.
    #[must_use]
    pub fn gpus(&self) -> u32 {
        let all: u64 = self.kinds().map(|(gpus, count)| u64::from(gpus) * u64::from(count)).sum();
        u32::try_from(all).unwrap_or(GPUS_MAX)
    }

    /// On how many nodes a job of so many GPUs asks for how many each: as few nodes as there are enough of that large,
    /// all with the same. `None` if it can never run.
    #[must_use]
    pub fn split(&self, gpus: u32) -> Option<(u32, u32)> {
        let largest = *self.by_gpus.last_key_value()?.0;
        let fewest = gpus.div_ceil(largest).max(1);
        let nodes = self.by_gpus.values().fold(0, |sum: u32, count| sum.saturating_add(*count));
        let split = (fewest..=gpus.min(nodes)).find(|split| gpus.is_multiple_of(*split))?;
        let of_each = gpus / split;
        let large: u64 = self.by_gpus.range(of_each..).map(|(_, count)| u64::from(*count)).sum();
        (u64::from(split) <= large).then_some((split, of_each))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> =
            self.kinds().map(|(gpus, count)| format!("{count}x{gpus}")).collect();
        f.write_str(&kinds.join(","))
    }
}

fn counts(text: &str) -> Option<BTreeMap<u32, u32>> {
    let mut by_gpus = BTreeMap::new();
    for part in text.split(',') {
        let (count, gpus) = part.split_once('x')?;
        let (count, gpus): (u32, u32) = (count.trim().parse().ok()?, gpus.trim().parse().ok()?);
        let sum: &mut u32 = by_gpus.entry(gpus).or_default();
        *sum = sum.saturating_add(count);
    }
    Some(by_gpus)
}

fn table(path: &Path) -> Result<BTreeMap<u32, u32>, TableError> {
    let mut table = Table::open(path)?;
    let known = COLUMNS.into_iter().find(|column| table.has(column));
    let column = known.unwrap_or(COLUMNS[0]);
    table.require(&[column])?;
    let mut by_gpus = BTreeMap::new();
    while let Some(row) = table.row()? {
        let gpus: u32 = row.value(column)?;
        if gpus > 0 {
            *by_gpus.entry(gpus).or_default() += 1;
        }
    }
    Ok(by_gpus)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn nodes_are_written_down_or_counted() {
        let machine = Machine::read("58x8,4x4").unwrap();
        assert_eq!((machine.gpus(), machine.to_string().as_str()), (480, "4x4,58x8"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"name,gpu\na,8\nb,0\nc,8\nd,2\n").unwrap();
        let counted = Machine::read(&file.path().display().to_string()).unwrap();
        assert_eq!(counted.to_string(), "1x2,2x8");
        assert!(matches!(Machine::read("58"), Err(MachineError::Form(_))));
        assert!(matches!(Machine::read("0x8"), Err(MachineError::Size(_))));
        assert!(matches!(Machine::read("3x0"), Err(MachineError::Size(_))));
    }

    #[test]
    fn a_job_is_split_evenly_over_as_few_nodes_as_can_be() {
        let machine = Machine::read("4x8,9x2").unwrap();
        let split = [1, 8, 12, 32, 33, 40].map(|gpus| machine.split(gpus));
        assert_eq!(split, [Some((1, 1)), Some((1, 8)), Some((2, 6)), Some((4, 8)), None, None]);
    }
}
