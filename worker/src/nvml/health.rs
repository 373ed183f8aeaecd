//! Whether a GPU is sound: what the driver wants done with it, errors of its memory, and rows that stand in for bad ones.

use nvml_wrapper_sys::bindings::nvmlRowRemapperHistogramValues_t;
use serde::Serialize;

use super::answer::{Code, Reading};
use super::calls;
use super::driver::Gpu;
use super::fields::Field;

/// What the driver wants done with a GPU. It knows best: it has seen every error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// Reset the GPU.
    ResetGpu,
    /// Reboot the node.
    RebootNode,
    /// Let jobs that use its links to other GPUs end.
    DrainLinks,
    /// Let the jobs on it end, then reset it.
    DrainAndReset,
    /// Recover the channels of its NVLink domain.
    RecoverDomain,
    /// Reset its bus.
    ResetBus,
    /// Power-cycle the machine.
    RebootSystem,
    /// Newer than this version: a matter for a person.
    Other(u64),
}

impl From<u64> for RecoveryAction {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::None,
            1 => Self::ResetGpu,
            2 => Self::RebootNode,
            3 => Self::DrainLinks,
            4 => Self::DrainAndReset,
            5 => Self::RecoverDomain,
            6 => Self::ResetBus,
            7 => Self::RebootSystem,
            other => Self::Other(other),
        }
    }
}

/// From when on errors are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EccSpan {
    /// Since the driver was loaded.
    SinceLoad,
    /// In all its life.
    Lifetime,
}

/// Errors of its memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EccCounts {
    /// Repaired by the hardware.
    pub corrected: u64,
    /// Not to be repaired: what was computed with them is lost.
    pub uncorrected: u64,
}

/// Rows of memory that were replaced by spare ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RemappedRows {
    /// Because of errors that were corrected.
    pub correctable: u32,
    /// Because of errors that were not.
    pub uncorrectable: u32,
    /// Rows wait for a reset to be replaced.
    pub pending: bool,
    /// A row could not be replaced: the board is to be exchanged.
    pub failed: bool,
}

/// Banks of memory by how many spare rows they have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RowHistogram {
    /// All of them.
    pub all: u32,
    /// Most of them.
    pub high: u32,
    /// Some.
    pub partial: u32,
    /// Few.
    pub low: u32,
    /// None.
    pub none: u32,
}

impl Gpu<'_> {
    /// What the driver wants done with it.
    pub fn recovery_action(&self) -> Reading<RecoveryAction> {
        self.field(Field::RECOVERY_ACTION).map(RecoveryAction::from)
    }

    /// Errors of all its memories together.
    pub fn ecc_counts(&self, span: EccSpan) -> Reading<EccCounts> {
        Ok(EccCounts { corrected: self.ecc_total(0, span)?, uncorrected: self.ecc_total(1, span)? })
    }

    fn ecc_total(&self, kind: u32, span: EccSpan) -> Reading<u64> {
        let function = calls::found(&self.library().nvmlDeviceGetTotalEccErrors)?;
        let counter = match span {
            EccSpan::SinceLoad => 0,
            EccSpan::Lifetime => 1,
        };
        let mut count = 0;
        // SAFETY: takes two numbers, writes one.
        let code = unsafe { function(self.handle, kind, counter, &raw mut count) };
        Code(code).gives(count)
    }

    /// Rows of memory that were replaced.
    pub fn remapped_rows(&self) -> Reading<RemappedRows> {
        let function = calls::found(&self.library().nvmlDeviceGetRemappedRows)?;
        let [mut correctable, mut uncorrectable, mut pending, mut failed] = [0; 4];
        // SAFETY: writes four numbers.
        let code = unsafe {
            function(
                self.handle,
                &raw mut correctable,
                &raw mut uncorrectable,
                &raw mut pending,
                &raw mut failed,
            )
        };
        let (pending, failed) = (pending != 0, failed != 0);
        Code(code).gives(RemappedRows { correctable, uncorrectable, pending, failed })
    }

    /// How many spare rows there are left.
    pub fn row_histogram(&self) -> Reading<RowHistogram> {
        let none =
            nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
        let symbol = &self.library().nvmlDeviceGetRowRemapperHistogram;
        let found = calls::fill(symbol, self.handle, none)?;
        Ok(RowHistogram {
            all: found.max,
            high: found.high,
            partial: found.partial,
            low: found.low,
            none: found.none,
        })
    }
}
