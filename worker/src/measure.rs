//! What the GPUs of an attempt did, from readings of their driver. Pure: whoever uses it says what time it is.
//!
//! A reading stands for the time since the one before it, or since the attempt got the GPU; where that is longer than
//! a gap may be, it stands for nothing. Energy is the difference of the driver's counter, also over a gap, and power
//! over time where there is no counter. What is not known is absent and never 0.

pub mod feed;

use gotgan_proto::v1::{GpuReading, MeasuredUse};

/// Thousandths of a GPU in a whole one.
const WHOLE_MILLI: u64 = 1000;
/// The most that a driver can say.
const PERCENT_MAX: u32 = 100;
/// A thousandth of a watt for a thousandth of a second is so much less than a thousandth of a joule.
const MICRO_IN_MILLI: u64 = 1000;

/// What was measured of an attempt on this node so far; remembered in the journal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Measuring {
    /// Its GPUs.
    #[prost(message, repeated, tag = "1")]
    pub gpus: Vec<MeasuredGpu>,
    /// The most memory that was in use on all of them together.
    #[prost(uint64, optional, tag = "2")]
    pub peak_memory_mib: Option<u64>,
}

/// What was measured of one GPU, as if all of it were the attempt's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MeasuredGpu {
    /// As the driver names it.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// How much of it the attempt has.
    #[prost(uint32, tag = "2")]
    pub milli: u32,
    /// How far it is measured, by the clock of [`crate::clock::boot_ms`].
    #[prost(uint64, tag = "3")]
    pub until_ms: u64,
    /// The newest reading of its load; absent if the newest look had none.
    #[prost(uint32, optional, tag = "4")]
    pub utilisation_percent: Option<u32>,
    /// The same of its power.
    #[prost(uint32, optional, tag = "5")]
    pub power_mw: Option<u32>,
    /// The same of its memory.
    #[prost(uint64, optional, tag = "6")]
    pub memory_mib: Option<u64>,
    /// The counter of its energy when it was read last.
    #[prost(uint64, optional, tag = "7")]
    pub counter_mj: Option<u64>,
    /// Time that readings of its load stand for.
    #[prost(uint64, tag = "8")]
    pub observed_ms: u64,
    /// Load over time.
    #[prost(uint64, tag = "9")]
    pub busy_percent_ms: u64,
    /// Energy so far; absent before anything of it is known.
    #[prost(uint64, optional, tag = "10")]
    pub energy_uj: Option<u64>,
    /// How long it has done nothing without a break, up to now.
    #[prost(uint64, tag = "11")]
    pub idle_ms: u64,
    /// The longest such time.
    #[prost(uint64, tag = "12")]
    pub longest_idle_ms: u64,
}

/// One look at a GPU, and when it was, by the clock of [`crate::clock::boot_ms`].
#[derive(Clone, Copy, Debug)]
pub struct Looked<'r> {
    /// When.
    pub at_ms: u64,
    /// What was read.
    pub reading: &'r GpuReading,
}

impl Measuring {
    /// An attempt gets these GPUs, each with how much of it, at that time.
    pub fn begin(gpus: impl IntoIterator<Item = (String, u32)>, now_ms: u64) -> Self {
        let gpu =
            |(uuid, milli)| MeasuredGpu { uuid, milli, until_ms: now_ms, ..MeasuredGpu::default() };
        Self { gpus: gpus.into_iter().map(gpu).collect(), peak_memory_mib: None }
    }

    /// Takes looks in; of other GPUs and those that were taken in before they change nothing. `gap_ms`: what lies
    /// between two looks that are further apart is not known.
    pub fn look(&mut self, looks: &[Looked<'_>], gap_ms: u64) {
        for gpu in &mut self.gpus {
            let looked = looks.iter().find(|looked| looked.reading.uuid == gpu.uuid);
            if let Some(looked) = looked {
                gpu.look(*looked, gap_ms);
            }
        }
        let memory_mib: Option<u64> = self.gpus.iter().map(MeasuredGpu::own_memory_mib).sum();
        self.peak_memory_mib = self.peak_memory_mib.max(memory_mib);
    }

    /// The attempt lets go of its GPUs at that time: until then they go on as they were read last.
    pub fn end(&mut self, now_ms: u64, gap_ms: u64) {
        self.gpus.iter_mut().for_each(|gpu| gpu.go_on(now_ms, gap_ms));
    }

    /// Whether the counter of energy of each GPU has been read.
    pub fn knows_counters(&self) -> bool {
        self.gpus.iter().all(|gpu| gpu.counter_mj.is_some())
    }

    /// Since how long all of its GPUs have done nothing; 0 if one does something, or that is not known.
    pub fn idle_ms(&self) -> u64 {
        self.gpus.iter().map(|gpu| gpu.idle_ms).min().unwrap_or(0)
    }

    /// What is known by now; `None` if that is nothing. A figure that is not known of every GPU is absent.
    pub fn measured(&self) -> Option<MeasuredUse> {
        let seen = |gpu: &MeasuredGpu| gpu.observed_ms > 0;
        let all_seen = !self.gpus.is_empty() && self.gpus.iter().all(seen);
        let sum = |each: fn(&MeasuredGpu) -> u64| -> u64 {
            self.gpus.iter().map(|gpu| gpu.own(each(gpu))).fold(0, u64::saturating_add)
        };
        let energies: Option<Vec<u64>> =
            self.gpus.iter().map(|gpu| Some(gpu.own(gpu.energy_uj?))).collect();
        let energy_uj = energies
            .filter(|all| !all.is_empty())
            .map(|all| all.into_iter().fold(0, u64::saturating_add));
        let measured = MeasuredUse {
            nodes: 1,
            observed_gpu_ms: sum(|gpu| gpu.observed_ms),
            busy_gpu_ms: all_seen.then(|| sum(|gpu| gpu.busy_percent_ms / u64::from(PERCENT_MAX))),
            energy_mj: energy_uj.map(|energy| energy / MICRO_IN_MILLI),
            peak_memory_mib: self.peak_memory_mib,
            longest_idle_ms: self.longest_idle_ms().filter(|_| all_seen),
            estimated: self.gpus.iter().any(|gpu| u64::from(gpu.milli) < WHOLE_MILLI),
        };
        let nothing = MeasuredUse { nodes: 1, estimated: measured.estimated, ..Default::default() };
        (measured != nothing).then_some(measured)
    }

    fn longest_idle_ms(&self) -> Option<u64> {
        self.gpus.iter().map(|gpu| gpu.longest_idle_ms).max()
    }
}

impl MeasuredGpu {
    /// The attempt's part of what the whole GPU did.
    fn own(&self, whole: u64) -> u64 {
        let own = u128::from(whole) * u128::from(self.milli) / u128::from(WHOLE_MILLI);
        u64::try_from(own).unwrap_or(u64::MAX)
    }

    fn own_memory_mib(&self) -> Option<u64> {
        self.memory_mib.map(|memory| self.own(memory))
    }

    fn look(&mut self, looked: Looked<'_>, gap_ms: u64) {
        let Looked { at_ms, reading } = looked;
        if at_ms <= self.until_ms {
            return;
        }
        let span_ms = self.step_to(at_ms, gap_ms);
        self.utilisation_percent = reading.utilisation_percent.map(|load| load.min(PERCENT_MAX));
        self.power_mw = reading.power_mw;
        self.memory_mib = reading.memory_used_mib;
        self.add_load(span_ms);
        self.add_energy(self.energy_since(reading.energy_mj, span_ms));
        // One that cannot be read now goes on counting.
        self.counter_mj = reading.energy_mj.or(self.counter_mj);
    }

    fn go_on(&mut self, now_ms: u64, gap_ms: u64) {
        let span_ms = self.step_to(now_ms, gap_ms);
        if span_ms.is_some() {
            self.add_load(span_ms);
            self.add_energy(self.energy_by_power(span_ms));
        }
    }

    /// Goes on to a time; gives the span, unless that is a gap.
    fn step_to(&mut self, at_ms: u64, gap_ms: u64) -> Option<u64> {
        let span_ms = at_ms.saturating_sub(self.until_ms);
        self.until_ms = self.until_ms.max(at_ms);
        (span_ms <= gap_ms).then_some(span_ms)
    }

    fn add_load(&mut self, span_ms: Option<u64>) {
        let (Some(span_ms), Some(load)) = (span_ms, self.utilisation_percent) else {
            self.idle_ms = 0;
            return;
        };
        self.observed_ms = self.observed_ms.saturating_add(span_ms);
        let busy = span_ms.saturating_mul(u64::from(load));
        self.busy_percent_ms = self.busy_percent_ms.saturating_add(busy);
        self.idle_ms = if load == 0 { self.idle_ms.saturating_add(span_ms) } else { 0 };
        self.longest_idle_ms = self.longest_idle_ms.max(self.idle_ms);
    }

    fn add_energy(&mut self, energy_uj: Option<u64>) {
        if let Some(energy_uj) = energy_uj {
            self.energy_uj = Some(self.energy_uj.unwrap_or(0).saturating_add(energy_uj));
        }
    }

    /// A counter that has fallen was reset: it counts from there, and for this span power has to do.
    fn energy_since(&self, counter_mj: Option<u64>, span_ms: Option<u64>) -> Option<u64> {
        let risen = self.counter_mj.zip(counter_mj).and_then(|(old, new)| new.checked_sub(old));
        let by_counter = risen.map(|risen| risen.saturating_mul(MICRO_IN_MILLI));
        by_counter.or_else(|| self.energy_by_power(span_ms))
    }

    fn energy_by_power(&self, span_ms: Option<u64>) -> Option<u64> {
        Some(span_ms?.saturating_mul(u64::from(self.power_mw?)))
    }
}

#[cfg(test)]
mod tests;
