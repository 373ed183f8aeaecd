//! Events of one GPU. One set each: a set of several says only that some GPU of it is lost, and not which.

use std::ptr;
use std::time::Duration;

use nvml_wrapper_sys::bindings::{nvmlEventData_t, nvmlEventSet_t};
use serde::Serialize;

use super::answer::{Code, Missing, Reading};
use super::calls;
use super::driver::{Driver, Gpu};

/// Kinds of events, one bit each, as the driver numbers them.
pub mod event_kind {
    /// Errors of memory that could not be corrected.
    pub const DOUBLE_BIT_ECC: u64 = 1 << 1;
    /// An error of the driver; its data is the number.
    pub const XID: u64 = 1 << 3;
    /// Memory was taken out of use.
    pub const MEMORY_RETIREMENT: u64 = 1 << 10;
    /// Memory was to be taken out of use and could not be.
    pub const MEMORY_RETIREMENT_FAILED: u64 = 1 << 11;
    /// Somebody has read what an error had spoilt, and only he was hit.
    pub const POISON: u64 = 1 << 12;
    /// The same, and more was hit.
    pub const FATAL_POISON: u64 = 1 << 13;
    /// It cannot be used now.
    pub const GPU_UNAVAILABLE: u64 = 1 << 14;
    /// What the driver wants done with it has changed.
    pub const RECOVERY_ACTION: u64 = 1 << 15;
}

/// Something that happened to a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// One bit, as the driver numbers kinds of events; may be newer than this version.
    pub kind: u64,
    /// For an error of the driver (an Xid) its number.
    pub data: u64,
}

/// A set that events of a GPU arrive in; freed when dropped.
#[derive(Debug)]
pub struct EventSet<'driver> {
    driver: &'driver Driver,
    set: nvmlEventSet_t,
}

impl Drop for EventSet<'_> {
    fn drop(&mut self) {
        if let Ok(function) = calls::found(&self.driver.library().nvmlEventSetFree) {
            // SAFETY: the set is the library's own and is freed once. An error leaves nothing to be done.
            let _ = unsafe { function(self.set) };
        }
    }
}

impl<'driver> EventSet<'driver> {
    /// A set without any GPU.
    pub fn create(driver: &'driver Driver) -> Reading<Self> {
        let function = calls::found(&driver.library().nvmlEventSetCreate)?;
        let mut set = ptr::null_mut();
        // SAFETY: writes one handle.
        let code = Code(unsafe { function(&raw mut set) });
        code.gives(())?;
        Ok(Self { driver, set })
    }

    /// Lets events of these kinds of a GPU arrive in the set.
    pub fn register(&self, gpu: &Gpu<'_>, kinds: u64) -> Reading<()> {
        let function = calls::found(&self.driver.library().nvmlDeviceRegisterEvents)?;
        // SAFETY: takes two handles of the library and a number.
        Code(unsafe { function(gpu.handle, kinds, self.set) }).gives(())
    }

    /// Waits for an event; `None` if none came in time. Blocks.
    pub fn wait(&self, patience: Duration) -> Reading<Option<Event>> {
        let function = calls::found(&self.driver.library().nvmlEventSetWait_v2)?;
        let mut data = nvmlEventData_t {
            device: ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: 0,
            computeInstanceId: 0,
        };
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: reads a number, writes one event.
        match Code(unsafe { function(self.set, &raw mut data, patience_ms) }).gives(()) {
            Ok(()) => Ok(Some(Event { kind: data.eventType, data: data.eventData })),
            Err(Missing::Failed(Code::TIMEOUT)) => Ok(None),
            Err(missing) => Err(missing),
        }
    }
}

impl Gpu<'_> {
    /// Kinds of events that this GPU can tell of.
    pub fn event_kinds(&self) -> Reading<u64> {
        calls::value(&self.library().nvmlDeviceGetSupportedEventTypes, self.handle)
    }
}
