//! `gotgan-worker gpu-smoke`: what the driver of this machine answers to everything that is ever asked of it, how fast,
//! and whether that is sound. Meant to be run by anybody with a GPU and pasted whole.
//!
//! It changes nothing unless told to. It looks once and judges what it sees; it does not load the GPUs.

mod judge;
mod reader;
mod report;
mod text;

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

pub use reader::ReaderReport;
pub use report::{
    EventRound, GpuReport, Latency, PowerSetting, ReadingReport, SmokeReport, Verdict, Versions,
};
use serde_json::Value;

use crate::inventory::cpu;
use crate::nvml::{Driver, EventSet, Gpu, PROBES, Probe, Reading};

/// Each reading is taken so many times.
const ROUNDS: usize = 5;
/// A driver that has not answered one call for so long is taken to hang, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long is waited for an event that is not expected to come.
const EVENT_PATIENCE: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// NVML's library; absent: where the system finds it.
    pub library: Option<String>,
    /// Also set what can be set, to the value that it has.
    pub touch: bool,
    /// A driver that has not answered one call for so long is taken to hang.
    pub patience: Duration,
}

/// What the thread that asks tells the one that waits.
enum Progress {
    /// It is about to ask this.
    Asks(String),
    Done(Box<SmokeReport>),
}

/// Asks everything. Comes back also when the driver does not.
pub fn run(plan: Plan) -> SmokeReport {
    // Room for what a burst of quick readings tells; who is ahead waits.
    let (progress, told) = mpsc::sync_channel(16);
    let (library, patience) = (plan.library.clone(), plan.patience);
    let spawned = std::thread::Builder::new().name("nvml".into()).spawn(move || {
        let report = Smoke { plan, progress: progress.clone() }.report();
        // Whoever waited has given up.
        let _ = progress.send(Progress::Done(Box::new(report)));
    });
    if let Err(error) = spawned {
        return without_driver(library, format!("cannot start a thread: {error}"));
    }
    let mut asked = "the library to be opened".to_owned();
    loop {
        match told.recv_timeout(patience) {
            Ok(Progress::Asks(what)) => asked = what,
            Ok(Progress::Done(report)) => return *report,
            Err(RecvTimeoutError::Timeout) => return hanging(library, patience, &asked),
            Err(RecvTimeoutError::Disconnected) => {
                return without_driver(
                    library,
                    format!("the program failed when it asked {asked}"),
                );
            }
        }
    }
}

fn hanging(library: Option<String>, patience: Duration, asked: &str) -> SmokeReport {
    let fault = format!("driver_unresponsive: no answer for {patience:?}; asked {asked}");
    SmokeReport { verdict: Verdict::Faults, faults: vec![fault], ..empty(library) }
}

fn without_driver(library: Option<String>, why: String) -> SmokeReport {
    SmokeReport { verdict: Verdict::NoDriver, faults: vec![why], ..empty(library) }
}

fn empty(library: Option<String>) -> SmokeReport {
    SmokeReport {
        schema: "gotgan.worker.gpu-smoke/1",
        worker_version: env!("CARGO_PKG_VERSION"),
        os: cpu::os(),
        kernel: cpu::kernel(),
        library: library.unwrap_or_else(|| "where the system finds it".into()),
        versions: None,
        start: None,
        functions: 0,
        missing_functions: Vec::new(),
        gpus: Vec::new(),
        reader: None,
        faults: Vec::new(),
        notes: Vec::new(),
        verdict: Verdict::Sound,
    }
}

struct Smoke {
    plan: Plan,
    progress: SyncSender<Progress>,
}

impl Smoke {
    fn report(&self) -> SmokeReport {
        let began = Instant::now();
        let driver = match Driver::open(self.plan.library.as_deref()) {
            Ok(driver) => driver,
            Err(error) => return without_driver(self.plan.library.clone(), error.to_string()),
        };
        let start = Latency::of(&[began.elapsed()]);
        let functions = driver.functions();
        let lacking = functions.iter().filter(|(_, present)| !present);
        let mut report = SmokeReport {
            versions: Some(Versions::of(driver)),
            start: Some(start),
            functions: functions.len(),
            missing_functions: lacking.map(|(name, _)| *name).collect(),
            ..empty(self.plan.library.clone())
        };
        match driver.count() {
            Ok(count) => report.gpus = (0..count).map(|index| self.gpu(driver, index)).collect(),
            Err(missing) => report.faults.push(format!("the number of GPUs: {missing}")),
        }
        report.reader = self.reader(&report.gpus);
        judge::judge(&mut report);
        report
    }

    fn asks(&self, what: String) {
        // Whoever waited has given up: this thread ends by itself, or never.
        let _ = self.progress.send(Progress::Asks(what));
    }

    fn gpu(&self, driver: &Driver, index: u32) -> GpuReport {
        self.asks(format!("GPU {index} for its UUID"));
        let uuid = driver.gpu_at(index).and_then(|gpu| gpu.uuid());
        let found = uuid.clone().and_then(|uuid| driver.gpu(&uuid));
        let (uuid, gpu) = match (uuid, found) {
            (Ok(uuid), Ok(gpu)) => (uuid, gpu),
            (uuid, Err(missing)) => return GpuReport::silent(index, uuid.ok(), missing),
            (Err(missing), Ok(_)) => return GpuReport::silent(index, None, missing),
        };
        let readings = PROBES.iter().map(|probe| self.reading(&gpu, index, probe)).collect();
        self.asks(format!("GPU {index} for events"));
        let events = event_round(driver, &gpu);
        self.asks(format!("GPU {index} for its power limit"));
        let power = PowerSetting::of(&gpu, self.plan.touch);
        let (events, power) = (Some(events), Some(power));
        GpuReport { index, uuid: Some(uuid), unreadable: None, readings, events, power }
    }

    /// Where there is nothing to read, there is no process for it.
    fn reader(&self, gpus: &[GpuReport]) -> Option<ReaderReport> {
        let uuids: Vec<String> = gpus.iter().filter_map(|gpu| gpu.uuid.clone()).collect();
        if uuids.is_empty() {
            return None;
        }
        self.asks("each GPU through the process that reads for the daemon".into());
        // Before this itself is taken to hang.
        let patience = self.plan.patience / 2;
        Some(reader::check(self.plan.library.as_deref(), &uuids, patience))
    }

    fn reading(&self, gpu: &Gpu<'_>, index: u32, probe: &Probe) -> ReadingReport {
        self.asks(format!("GPU {index} for {}", probe.name));
        let mut durations = Vec::new();
        let mut take = || -> Reading<Value> {
            let began = Instant::now();
            let value = (probe.read)(gpu);
            durations.push(began.elapsed());
            value
        };
        let mut found = take();
        for _ in 1..ROUNDS {
            found = take();
        }
        ReadingReport::of(probe.name, found, Latency::of(&durations))
    }
}

/// Registers for all events that the GPU tells of, waits for none, and lets go of them.
fn event_round(driver: &Driver, gpu: &Gpu<'_>) -> EventRound {
    let began = Instant::now();
    let round = || {
        let kinds = gpu.event_kinds()?;
        let set = EventSet::create(driver)?;
        set.register(gpu, kinds)?;
        set.wait(EVENT_PATIENCE)
    };
    let result = round();
    EventRound { result, took_us: report::microseconds(began.elapsed()) }
}
