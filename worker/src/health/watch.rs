//! Brings what the driver and the kernel tell once to the supervisor, which numbers it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{GpuDevice, Xid};
use tokio::sync::mpsc;

use super::config::HealthConfig;
use super::findings::Observed;
use super::kernel_log::{self, Logged, PciAddress, Told};
use super::merge::{Merger, RECORD_WAIT, Source};
use crate::clock::at;
use crate::handle::{Handle, Input, Stopped};
use crate::inventory::Inventory;
use crate::nvml::event_kind;
use crate::reader::frames::Happened;
use crate::reader::keeper::Observation;

/// Both sources, and who is told.
#[derive(Debug)]
pub struct Watch {
    observations: mpsc::Receiver<Observation>,
    log: Option<mpsc::Receiver<Told>>,
    places: BTreeMap<PciAddress, String>,
    merger: Merger,
    handle: Handle,
}

impl Watch {
    /// Listens to both; to the log from where an earlier daemon has read it to in this boot. `None` where nobody reads GPUs.
    pub fn begin(
        config: &HealthConfig,
        inventory: &Inventory,
        log_read: Option<u64>,
        handle: Handle,
    ) -> Option<Self> {
        let observations = inventory.reader()?.observations()?;
        let log = config
            .kernel_log
            .then(|| kernel_log::follow(&config.kernel_log_path, log_read))
            .flatten();
        let wait = log.as_ref().map_or(Duration::ZERO, |_| record_wait(config.settle()));
        let places = places(&inventory.node.gpus);
        Some(Self { observations, log, places, merger: Merger::new(wait), handle })
    }

    /// Ends only with the supervisor.
    pub async fn run(mut self) -> Stopped {
        loop {
            let due = self.merger.next_due();
            let told = tokio::select! {
                Some(observation) = self.observations.recv() => self.observed(observation).await,
                Some(told) = received(&mut self.log) => self.read(told).await,
                () = at(due) => Ok(()),
            };
            if let Err(stopped) = told.and(self.pass_on().await) {
                return stopped;
            }
        }
    }

    async fn observed(&mut self, observation: Observation) -> Result<(), Stopped> {
        match observation {
            Observation::Event(event) if event.kind == event_kind::XID => {
                // One that the log has told already is told.
                let _ = self.merger.take(Source::Event, error_of(event), Instant::now());
            }
            // What it changed lasts: the reader has looked at that GPU at once.
            Observation::Event(Happened { uuid, kind, data, .. }) => {
                tracing::info!(gpu = uuid, kind = format!("{kind:#x}"), data, "event of a GPU");
            }
            Observation::Uncorrected { uuid, count, at_us } => {
                self.handle.tell(Input::Uncorrected { uuid, count, at_us }).await?;
            }
        }
        Ok(())
    }

    async fn read(&mut self, told: Told) -> Result<(), Stopped> {
        match told {
            Told::ReadUpTo(number) => self.handle.tell(Input::LogRead(number)).await,
            Told::Record { number, at_us, logged } => {
                match self.is_to_tell(number, at_us, logged) {
                    // Known to be read once the finding is durable.
                    true => Ok(()),
                    false => self.handle.tell(Input::LogRead(number)).await,
                }
            }
        }
    }

    /// Whether a record is told in a finding.
    fn is_to_tell(&mut self, number: u64, at_us: i64, logged: Logged) -> bool {
        match logged {
            Logged::Xid { at, number: error, pid, detail } => {
                let xid = Xid { number: error, pid };
                let gpu_uuid = self.gpu_at(at);
                let observed = Observed { gpu_uuid, at_us, xid, detail, record: Some(number) };
                self.merger.take(Source::Log, observed, Instant::now())
            }
            // Its readings say that it is lost; there is no number to tell.
            Logged::FellOff { at, text } => {
                tracing::error!(gpu = self.gpu_at(at), text, "the kernel says that a GPU is gone");
                false
            }
        }
    }

    fn gpu_at(&self, at: Option<PciAddress>) -> String {
        at.and_then(|at| self.places.get(&at)).cloned().unwrap_or_default()
    }

    async fn pass_on(&mut self) -> Result<(), Stopped> {
        while let Some(observed) = self.merger.next(Instant::now()) {
            self.handle.tell(Input::Found(observed)).await?;
        }
        Ok(())
    }
}

/// Less than the end of an attempt waits, if it does.
fn record_wait(settle: Duration) -> Duration {
    if settle.is_zero() { RECORD_WAIT } else { RECORD_WAIT.min(settle / 2) }
}

fn error_of(event: Happened) -> Observed {
    let Happened { uuid, data, at_us, .. } = event;
    let number = u32::try_from(data).unwrap_or(u32::MAX);
    let xid = Xid { number, pid: 0 };
    Observed { gpu_uuid: uuid, at_us, xid, detail: String::new(), record: None }
}

fn places(gpus: &[GpuDevice]) -> BTreeMap<PciAddress, String> {
    let place = |gpu: &GpuDevice| Some((PciAddress::parse(&gpu.pci_bus_id)?, gpu.uuid.clone()));
    gpus.iter().filter_map(place).collect()
}

async fn received(log: &mut Option<mpsc::Receiver<Told>>) -> Option<Told> {
    match log {
        Some(log) => log.recv().await,
        None => std::future::pending().await,
    }
}
