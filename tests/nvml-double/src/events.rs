//! Sets that events arrive in.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::ptr::without_provenance_mut;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use crate::instance::{
    GPU_IS_LOST, INSTANCE, INVALID_ARGUMENT, NOT_SUPPORTED, TIMEOUT, UNKNOWN, put,
};
use crate::state::{Event, State};

/// How often a function that waits looks at the file.
const LOOK: Duration = Duration::from_millis(2);
const FIRST_SET: usize = 0x100;
const WAIT: &str = "nvmlEventSetWait_v2";
/// No code of the driver's: the call is to go on without end.
const HANGS: u32 = u32::MAX;

/// What a set was registered for.
#[derive(Clone, Default)]
pub struct Set {
    /// Kinds of events by the UUID of their GPU.
    kinds: BTreeMap<String, u64>,
    /// The last event that was delivered.
    seen: u64,
    /// How often.
    times: u64,
}

impl Set {
    fn deliver(&mut self, event: &Event) {
        self.times = if self.seen == event.number { self.times + 1 } else { 1 };
        self.seen = event.number;
    }

    /// Whether an event is still to be delivered, once or once more.
    fn lacks(&self, event: &Event) -> bool {
        let kinds = self.kinds.get(&event.uuid).copied().unwrap_or_default();
        let again = event.number == self.seen && self.times < event.repeat;
        (event.number > self.seen || again) && kinds & event.kind != 0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(place: *mut nvmlEventSet_t) -> nvmlReturn_t {
    INSTANCE.system("nvmlEventSetCreate", |state| {
        let seen = state.events.iter().map(|event| event.number).max().unwrap_or_default();
        let mut shared = INSTANCE.lock();
        let handle = shared.event_sets.last_key_value().map_or(FIRST_SET, |(last, _)| last + 1);
        shared.event_sets.insert(handle, Set { kinds: BTreeMap::new(), seen, times: u64::MAX });
        put(place, without_provenance_mut(handle))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    INSTANCE.system("nvmlEventSetFree", |_| {
        let known = INSTANCE.lock().event_sets.remove(&set.addr());
        known.map(|_| ()).ok_or(INVALID_ARGUMENT)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    kinds: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceRegisterEvents", device, |gpu| {
        if kinds & !gpu.event_kinds != 0 {
            return Err(NOT_SUPPORTED);
        }
        let mut shared = INSTANCE.lock();
        let set = shared.event_sets.get_mut(&set.addr()).ok_or(INVALID_ARGUMENT)?;
        *set.kinds.entry(gpu.uuid.clone()).or_default() |= kinds;
        Ok(())
    })
}

/// Says only that some GPU of the set is lost, as the driver does. What the file says of how a GPU answers this holds for
/// every set that the GPU is in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    handle: nvmlEventSet_t,
    place: *mut nvmlEventData_t,
    patience_ms: c_uint,
) -> nvmlReturn_t {
    let until = Instant::now() + Duration::from_millis(patience_ms.into());
    loop {
        let code = INSTANCE.system(WAIT, |state| {
            let set = INSTANCE.lock().event_sets.get(&handle.addr()).cloned();
            let set = set.ok_or(INVALID_ARGUMENT)?;
            let event = next(state, &set)?.ok_or(TIMEOUT)?;
            let mut shared = INSTANCE.lock();
            shared.event_sets.entry(handle.addr()).or_default().deliver(event);
            let data = nvmlEventData_t {
                device: shared.handle_of(&event.uuid),
                eventType: event.kind,
                eventData: event.data,
                gpuInstanceId: u32::MAX,
                computeInstanceId: u32::MAX,
            };
            put(place, data)
        });
        if code != HANGS && (code != TIMEOUT || Instant::now() >= until) {
            return code;
        }
        sleep(LOOK);
    }
}

fn next<'state>(state: &'state State, set: &Set) -> Result<Option<&'state Event>, u32> {
    for gpu in state.gpus.iter().filter(|gpu| set.kinds.contains_key(&gpu.uuid)) {
        match gpu.answers.get(WAIT) {
            Some(answer) if answer.hang => return Err(HANGS),
            Some(answer) if answer.code != 0 => return Err(answer.code),
            Some(_) | None => {}
        }
        if gpu.lost || gpu.gone {
            return Err(GPU_IS_LOST);
        }
    }
    if set.kinds.keys().any(|uuid| state.gpus.iter().all(|gpu| gpu.uuid != *uuid)) {
        return Err(UNKNOWN);
    }
    Ok(state.events.iter().filter(|event| set.lacks(event)).min_by_key(|event| event.number))
}
