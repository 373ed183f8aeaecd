//! What a GPU does now: how busy, how warm, and what holds its clocks down.

use nvml_wrapper_sys::bindings::nvmlUtilization_t;
use serde::{Serialize, Serializer};

use super::answer::{Missing, Reading};
use super::calls;
use super::driver::Gpu;

/// The sensor on the GPU itself.
const SENSOR_OF_GPU: u32 = 0;

/// Share of the last moments in which something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Utilisation {
    /// In which at least one kernel ran.
    pub gpu_percent: u32,
    /// In which memory was read or written.
    pub memory_percent: u32,
}

/// What holds the clocks down, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReasons(pub u64);

impl ClockReasons {
    /// Nothing to do.
    pub const IDLE: u64 = 1;
    /// Somebody set the clocks.
    pub const CLOCKS_SET: u64 = 1 << 1;
    /// The power limit: normal where power is capped.
    pub const POWER_CAP: u64 = 1 << 2;
    /// Hardware slows down, for one of the reasons below or a fast drop of power.
    pub const HARDWARE_SLOWDOWN: u64 = 1 << 3;
    /// Kept at the clocks of another GPU.
    pub const SYNC_BOOST: u64 = 1 << 4;
    /// Too warm; the driver slows down.
    pub const THERMAL: u64 = 1 << 5;
    /// Too warm; the hardware slows down.
    pub const HARDWARE_THERMAL: u64 = 1 << 6;
    /// The power supply asked for it.
    pub const POWER_BRAKE: u64 = 1 << 7;
    /// A display set the clocks.
    pub const DISPLAY: u64 = 1 << 8;

    const WORDS: [(u64, &'static str); 9] = [
        (Self::IDLE, "idle"),
        (Self::CLOCKS_SET, "clocks_set"),
        (Self::POWER_CAP, "power_cap"),
        (Self::HARDWARE_SLOWDOWN, "hardware_slowdown"),
        (Self::SYNC_BOOST, "sync_boost"),
        (Self::THERMAL, "thermal"),
        (Self::HARDWARE_THERMAL, "hardware_thermal"),
        (Self::POWER_BRAKE, "power_brake"),
        (Self::DISPLAY, "display"),
    ];

    /// A word for each bit, and `bit_N` for one that has no name here.
    pub fn words(self) -> Vec<String> {
        let set = (0..u64::BITS).filter(|bit| self.0 >> bit & 1 == 1);
        let word = |bit: u32| match Self::WORDS.iter().find(|(mask, _)| *mask == 1 << bit) {
            Some((_, word)) => (*word).to_owned(),
            None => format!("bit_{bit}"),
        };
        set.map(word).collect()
    }
}

impl Serialize for ClockReasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.words().serialize(serializer)
    }
}

impl Gpu<'_> {
    /// How busy it was in the last moments. Not to be had of a GPU that is cut into MIG devices.
    pub fn utilisation(&self) -> Reading<Utilisation> {
        let initial = nvmlUtilization_t { gpu: 0, memory: 0 };
        let found =
            calls::fill(&self.library().nvmlDeviceGetUtilizationRates, self.handle, initial)?;
        Ok(Utilisation { gpu_percent: found.gpu, memory_percent: found.memory })
    }

    /// Degrees Celsius.
    pub fn temperature_c(&self) -> Reading<u32> {
        calls::value_of(&self.library().nvmlDeviceGetTemperature, self.handle, SENSOR_OF_GPU)
    }

    /// What holds the clocks down; by the older name of the function where the driver lacks the newer.
    pub fn clock_reasons(&self) -> Reading<ClockReasons> {
        let library = self.library();
        let now = calls::value(&library.nvmlDeviceGetCurrentClocksEventReasons, self.handle);
        let found = match now {
            Err(Missing::Absent) => {
                calls::value(&library.nvmlDeviceGetCurrentClocksThrottleReasons, self.handle)
            }
            other => other,
        };
        found.map(ClockReasons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_words_and_a_bit_without_a_name_its_number() {
        assert!(ClockReasons(0).words().is_empty());
        assert_eq!(ClockReasons(5).words(), ["idle", "power_cap"]);
        assert_eq!(ClockReasons(1 << 40 | 1 << 7).words(), ["power_brake", "bit_40"]);
    }
}
