//! Brings what the driver and the kernel tell once to the supervisor, which numbers it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{GpuDevice, Xid};
use tokio::sync::mpsc;

use super::config::HealthConfig;
use super::findings::Observed;
use super::kernel_log::{self, Logged, PciAddress};
use super::merge::{Merger, RECORD_WAIT, Source};
use crate::clock::{at, now_us};
use crate::handle::{Handle, Input, Stopped};
use crate::inventory::Inventory;
use crate::nvml::event_kind;
use crate::reader::frames::Happened;
use crate::reader::keeper::Observation;

/// Both sources, and who is told.
#[derive(Debug)]
pub struct Watch {
    observations: mpsc::Receiver<Observation>,
    log: Option<mpsc::Receiver<Logged>>,
    places: BTreeMap<PciAddress, String>,
    merger: Merger,
    handle: Handle,
}

impl Watch {
    /// Listens to both. `None` where nobody reads GPUs.
    pub fn begin(config: &HealthConfig, inventory: &Inventory, handle: Handle) -> Option<Self> {
        let observations = inventory.reader()?.observations()?;
        let log = config.kernel_log.then(|| kernel_log::follow(&config.kernel_log_path)).flatten();
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
                Some(logged) = received(&mut self.log) => {
                    self.logged(logged);
                    Ok(())
                }
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
                self.merger.take(Source::Event, error_of(event), Instant::now());
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

    fn logged(&mut self, logged: Logged) {
        match logged {
            Logged::Xid { at, number, pid, detail } => {
                let gpu_uuid = self.gpu_at(at);
                let xid = Xid { number, pid };
                let observed = Observed { gpu_uuid, at_us: now_us(), xid, detail };
                self.merger.take(Source::Log, observed, Instant::now());
            }
            // Its readings say that it is lost; there is no number to tell.
            Logged::FellOff { at, text } => {
                tracing::error!(gpu = self.gpu_at(at), text, "the kernel says that a GPU is gone");
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
    Observed { gpu_uuid: uuid, at_us, xid, detail: String::new() }
}

fn places(gpus: &[GpuDevice]) -> BTreeMap<PciAddress, String> {
    let place = |gpu: &GpuDevice| Some((PciAddress::parse(&gpu.pci_bus_id)?, gpu.uuid.clone()));
    gpus.iter().filter_map(place).collect()
}

async fn received(log: &mut Option<mpsc::Receiver<Logged>>) -> Option<Logged> {
    match log {
        Some(log) => log.recv().await,
        None => std::future::pending().await,
    }
}
