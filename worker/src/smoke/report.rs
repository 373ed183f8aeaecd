//! What a smoke test found.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::reader::ReaderReport;
use crate::nvml::{Driver, Event, Gpu, Missing, PowerRange, Reading};

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct SmokeReport {
    /// Name and version of this form.
    pub schema: &'static str,
    /// Of this program.
    pub worker_version: &'static str,
    /// As the system names itself.
    pub os: String,
    /// Of the running kernel.
    pub kernel: String,
    /// The library that was asked for.
    pub library: String,
    /// What the driver says of itself; absent without one.
    pub versions: Option<Versions>,
    /// Opening and starting the library.
    pub start: Option<Latency>,
    /// Functions that this program knows to ask for.
    pub functions: usize,
    /// Those that the library lacks.
    pub missing_functions: Vec<&'static str>,
    /// In the driver's order.
    pub gpus: Vec<GpuReport>,
    /// What the process that reads GPUs for the daemon does here; absent without GPUs.
    pub reader: Option<ReaderReport>,
    /// What is not sound.
    pub faults: Vec<String>,
    /// What may be as it should and is worth a look.
    pub notes: Vec<String>,
    /// In a word.
    pub verdict: Verdict,
}

/// The end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything answers and nothing is amiss.
    Sound,
    /// Something is.
    Faults,
    /// There is no driver to ask.
    NoDriver,
}

impl Verdict {
    /// What the program ends with.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Faults => 1,
            Self::NoDriver => 2,
        }
    }
}

/// What the driver says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// As in "580.65.06".
    #[serde(serialize_with = "value_or_reason")]
    pub driver: Reading<String>,
    /// Of the library.
    #[serde(serialize_with = "value_or_reason")]
    pub library: Reading<String>,
    /// As in "12.8".
    #[serde(serialize_with = "value_or_reason")]
    pub cuda: Reading<String>,
    /// Its GPUs are invented.
    pub double: bool,
}

impl Versions {
    /// Asks.
    pub fn of(driver: &Driver) -> Self {
        Self {
            driver: driver.driver_version(),
            library: driver.library_version(),
            cuda: driver.cuda_version(),
            double: driver.is_double(),
        }
    }
}

/// How long something took. Drivers keep some answers for a moment, so that only the first one tells the cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The first time.
    pub first_us: u64,
    /// The one in the middle of all.
    pub median_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Latency {
    /// Of some durations.
    pub fn of(durations: &[Duration]) -> Self {
        let first_us = durations.first().copied().map(microseconds).unwrap_or_default();
        let mut sorted: Vec<u64> = durations.iter().map(|one| microseconds(*one)).collect();
        sorted.sort_unstable();
        let median_us = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        Self { first_us, median_us, max_us: sorted.last().copied().unwrap_or_default() }
    }
}

/// Whole microseconds.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One GPU.
#[derive(Clone, Debug, Serialize)]
pub struct GpuReport {
    /// Where the driver has it.
    pub index: u32,
    /// What it is called.
    pub uuid: Option<String>,
    /// Why nothing could be read of it.
    pub unreadable: Option<Missing>,
    /// Every reading.
    pub readings: Vec<ReadingReport>,
    /// Whether events can be waited for.
    pub events: Option<EventRound>,
    /// Whether its power limit can be set.
    pub power: Option<PowerSetting>,
}

impl GpuReport {
    /// A GPU that says nothing.
    pub fn silent(index: u32, uuid: Option<String>, missing: Missing) -> Self {
        let unreadable = Some(missing);
        Self { index, uuid, unreadable, readings: Vec::new(), events: None, power: None }
    }

    /// A reading's value by the names on the way to it, if it was had.
    pub fn value(&self, path: &[&str]) -> Option<&Value> {
        let (name, members) = path.split_first()?;
        let reading = self.readings.iter().find(|reading| reading.name == *name)?;
        members.iter().try_fold(reading.value.as_ref()?, |value, member| value.get(member))
    }
}

/// One reading.
#[derive(Clone, Debug, Serialize)]
pub struct ReadingReport {
    /// Its name, unit last.
    pub name: &'static str,
    /// What was read the last time.
    pub value: Option<Value>,
    /// Why there is none.
    pub missing: Option<Missing>,
    /// The call failed, where a GPU without such a reading would say so.
    pub fault: bool,
    /// How long it took.
    #[serde(flatten)]
    pub latency: Latency,
}

impl ReadingReport {
    /// From what was read.
    pub fn of(name: &'static str, found: Reading<Value>, latency: Latency) -> Self {
        let missing = found.as_ref().err().copied();
        let fault = missing.is_some_and(Missing::is_fault);
        Self { name, value: found.ok(), missing, fault, latency }
    }
}

/// Registering for events, waiting for one, letting go.
#[derive(Clone, Debug, Serialize)]
pub struct EventRound {
    /// The event that came, none as expected, or what failed.
    #[serde(serialize_with = "value_or_reason")]
    pub result: Reading<Option<Event>>,
    /// All of it, the wait included.
    pub took_us: u64,
}

/// Whether a power limit can be set.
#[derive(Clone, Debug, Serialize)]
pub struct PowerSetting {
    /// The limit that is set.
    pub limit_mw: Option<u32>,
    /// Between which one may be.
    pub range: Option<PowerRange>,
    /// Whether this program runs as root, as the driver demands.
    pub root: bool,
    /// Setting the limit to the value that it has, if that was asked for.
    #[serde(serialize_with = "tried")]
    pub set: Option<Reading<()>>,
}

impl PowerSetting {
    /// Asks, and sets only if told to.
    pub fn of(gpu: &Gpu<'_>, touch: bool) -> Self {
        let limit_mw = gpu.power_limit_mw().ok();
        let set = limit_mw.filter(|_| touch).map(|limit_mw| gpu.set_power_limit_mw(limit_mw));
        let root = nix::unistd::geteuid().is_root();
        Self { limit_mw, range: gpu.power_range().ok(), root, set }
    }
}

fn value_or_reason<T: Serialize, S: Serializer>(
    reading: &Reading<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match reading {
        Ok(value) => value.serialize(serializer),
        Err(missing) => serializer.collect_str(&format_args!("error: {missing}")),
    }
}

fn tried<S: Serializer>(set: &Option<Reading<()>>, serializer: S) -> Result<S::Ok, S::Error> {
    match set {
        None => serializer.serialize_none(),
        Some(Ok(())) => serializer.serialize_str("success"),
        Some(Err(missing)) => serializer.collect_str(&format_args!("error: {missing}")),
    }
}
