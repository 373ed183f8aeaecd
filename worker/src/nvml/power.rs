//! Power and energy: what a GPU draws, may draw, and has drawn.

use serde::Serialize;

use super::answer::{Code, Reading};
use super::calls;
use super::driver::Gpu;
use super::fields::Field;

/// Between which a power limit may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PowerRange {
    /// The least.
    pub min_mw: u32,
    /// The most.
    pub max_mw: u32,
}

impl Gpu<'_> {
    /// What it draws, as a mean of about a second on newer GPUs.
    pub fn power_mw(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetPowerUsage, self.handle)
    }

    /// What it draws at this moment.
    pub fn power_now_mw(&self) -> Reading<u64> {
        self.field(Field::POWER_NOW)
    }

    /// The limit that somebody set.
    pub fn power_limit_mw(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetPowerManagementLimit, self.handle)
    }

    /// The limit it comes up with.
    pub fn power_limit_default_mw(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetPowerManagementDefaultLimit, self.handle)
    }

    /// The limit in force: the one that was set, or a lower one of the board or its controller.
    pub fn power_limit_enforced_mw(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetEnforcedPowerLimit, self.handle)
    }

    /// Between which a limit may be set.
    pub fn power_range(&self) -> Reading<PowerRange> {
        let symbol = &self.library().nvmlDeviceGetPowerManagementLimitConstraints;
        let (min_mw, max_mw) = calls::two(symbol, self.handle)?;
        Ok(PowerRange { min_mw, max_mw })
    }

    /// Energy since the driver was loaded.
    pub fn energy_mj(&self) -> Reading<u64> {
        calls::value(&self.library().nvmlDeviceGetTotalEnergyConsumption, self.handle)
    }

    /// Sets the limit. Needs root. Lost when the driver is unloaded; what is in force must be read back.
    pub fn set_power_limit_mw(&self, limit_mw: u32) -> Reading<()> {
        let function = calls::found(&self.library().nvmlDeviceSetPowerManagementLimit)?;
        // SAFETY: takes a handle and a number.
        Code(unsafe { function(self.handle, limit_mw) }).gives(())
    }
}
