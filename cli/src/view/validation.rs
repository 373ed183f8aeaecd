//! What checking quota files found, as JSON.

use std::collections::BTreeMap;

use gotgan_core::quota::{ClassSums, QuotaFault, Sums, show_moment};
use serde::Serialize;

/// The verdict with its faults, or with the sums.
#[derive(Debug, Serialize)]
pub struct ValidationView {
    /// Whether the files can be applied.
    pub valid: bool,
    /// What is wrong, by file and line.
    pub faults: Vec<FaultView>,
    /// Sums, by moment.
    pub moments: Vec<MomentView>,
}

/// One fault.
#[derive(Debug, Serialize)]
pub struct FaultView {
    pub file: String,
    pub line: usize,
    pub field: String,
    pub message: String,
}

/// Sums at one moment.
#[derive(Debug, Serialize)]
pub struct MomentView {
    /// `null`: from the beginning.
    pub at_us: Option<i64>,
    /// As files have it.
    pub at: String,
    pub leaves: usize,
    pub guaranteed_gpu_milli: u64,
    /// Guaranteed, and due but not accepted.
    pub waiting_gpu_milli: u64,
    pub classes: Vec<ClassView>,
}

/// Sums of a class.
#[derive(Debug, Serialize)]
pub struct ClassView {
    pub gpu_class: String,
    pub guaranteed_gpu_milli: u64,
    pub accepted_gpu_milli: u64,
    pub due_gpu_milli: u64,
    pub spare_gpu_milli: u64,
    /// By path.
    pub programmes: BTreeMap<String, u64>,
}

impl ValidationView {
    pub fn of(checked: &Result<Vec<Sums>, Vec<QuotaFault>>) -> Self {
        let (moments, faults) = match checked {
            Ok(sums) => (sums.iter().map(MomentView::of).collect(), Vec::new()),
            Err(faults) => (Vec::new(), faults.iter().map(FaultView::of).collect()),
        };
        Self { valid: checked.is_ok(), faults, moments }
    }
}

impl FaultView {
    fn of(fault: &QuotaFault) -> Self {
        let QuotaFault { file, line, field, message } = fault.clone();
        Self { file, line, field, message }
    }
}

impl MomentView {
    fn of(sums: &Sums) -> Self {
        Self {
            at_us: Some(sums.at.0).filter(|at| *at != i64::MIN),
            at: show_moment(sums.at),
            leaves: sums.leaves,
            guaranteed_gpu_milli: sums.guaranteed().0,
            waiting_gpu_milli: sums.waiting().0,
            classes: sums
                .classes
                .iter()
                .map(|(class, sums)| class_of(class.as_str(), sums))
                .collect(),
        }
    }
}

fn class_of(gpu_class: &str, sums: &ClassSums) -> ClassView {
    let programmes = sums.programmes.iter().map(|(path, gpus)| (path.to_string(), gpus.0));
    ClassView {
        gpu_class: gpu_class.to_owned(),
        guaranteed_gpu_milli: sums.guaranteed.0,
        accepted_gpu_milli: sums.capacity.accepted.0,
        due_gpu_milli: sums.capacity.promised.0,
        spare_gpu_milli: sums.capacity.spare.0,
        programmes: programmes.collect(),
    }
}
