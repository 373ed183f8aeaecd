//! One loaded copy of the library: where it lies, what its file says, and what happens at every call.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::fs::{self, Metadata};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use nix::libc;
use nvml_wrapper_sys::bindings::nvmlDevice_t;

use crate::cutting;
use crate::state::{Answer, Gpu, MigDevice, State};

pub const SUCCESS: u32 = 0;
pub const UNINITIALISED: u32 = 1;
pub const INVALID_ARGUMENT: u32 = 2;
pub const NOT_SUPPORTED: u32 = 3;
pub const NOT_FOUND: u32 = 6;
pub const INSUFFICIENT_SIZE: u32 = 7;
pub const DRIVER_NOT_LOADED: u32 = 9;
pub const TIMEOUT: u32 = 10;
pub const GPU_IS_LOST: u32 = 15;
pub const VERSION_MISMATCH: u32 = 25;
pub const UNKNOWN: u32 = 999;

/// Handles are numbers that nobody may follow: a wrong use of one crashes at once.
const FIRST_HANDLE: usize = 0x1000;
/// How often a function that hangs looks whether it may go on.
const HANG_LOOK: Duration = Duration::from_millis(5);

/// What a function did, or its code.
pub type Done = Result<(), u32>;

/// This copy.
pub static INSTANCE: LazyLock<Instance> = LazyLock::new(Instance::find);

pub struct Instance {
    directory: PathBuf,
    shared: Mutex<Shared>,
}

/// What calls change.
#[derive(Default)]
pub struct Shared {
    state: Arc<State>,
    stamp: Option<(Stamp, Option<Stamp>)>,
    starts: u32,
    /// GPUs as counted at the last start.
    pub counted: Vec<String>,
    /// UUIDs of whatever a handle was given out for, in the order of handles.
    handles: Vec<String>,
    /// Sets of events, by handle.
    pub event_sets: BTreeMap<usize, crate::events::Set>,
    calls: BTreeMap<String, u64>,
}

/// Tells one content of a file from another.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), bytes: file.len(), changed: file.modified().ok() }
    }
}

/// What a handle stands for.
pub enum Device<'state> {
    Gpu(&'state Gpu),
    Mig(&'state Gpu, &'state MigDevice),
}

impl<'state> Device<'state> {
    /// The GPU, or the one it is cut from.
    fn board(&self) -> &'state Gpu {
        match self {
            Device::Gpu(gpu) | Device::Mig(gpu, _) => gpu,
        }
    }
}

impl Instance {
    /// Where the library lies that this code was loaded from.
    fn find() -> Self {
        let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
        let address: *const c_void = (Self::find as fn() -> Self) as *const c_void;
        // SAFETY: it fills in what it is given, for an address of this very library.
        let known = unsafe { libc::dladdr(address, found.as_mut_ptr()) } != 0;
        // SAFETY: all zero is a valid value of it, and its text lives as long as the library.
        let path = known.then(|| unsafe { CStr::from_ptr(found.assume_init().dli_fname) });
        let path = path.map(|path| Path::new(OsStr::from_bytes(path.to_bytes())));
        let directory = path.and_then(Path::parent).unwrap_or(Path::new("."));
        Self { directory: directory.to_owned(), shared: Mutex::default() }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a function of the whole system.
    pub fn system(&self, name: &str, body: impl FnOnce(&State) -> Done) -> u32 {
        guarded(|| {
            let state = self.called(name)?;
            self.obey(&state.answers, name, |state| state.answers.get(name).cloned())?;
            if !state.loaded {
                return Err(DRIVER_NOT_LOADED);
            }
            if self.lock().starts == 0 && name != "nvmlInit_v2" && name != "nvmlInitWithFlags" {
                return Err(UNINITIALISED);
            }
            body(&state)
        })
    }

    /// Carries out a function about a GPU or a MIG device.
    pub fn device(
        &self,
        name: &str,
        handle: nvmlDevice_t,
        body: impl FnOnce(Device<'_>) -> Done,
    ) -> u32 {
        self.system(name, |state| {
            let uuid = self.lock().uuid_of(handle).ok_or(INVALID_ARGUMENT)?;
            let board = find(state, &uuid).ok_or(GPU_IS_LOST)?.board().uuid.clone();
            let answers = &find(state, &uuid).ok_or(GPU_IS_LOST)?.board().answers;
            self.obey(answers, name, |state| {
                let gpu = state.gpus.iter().find(|gpu| gpu.uuid == board)?;
                gpu.answers.get(name).cloned()
            })?;
            let device = find(state, &uuid).ok_or(GPU_IS_LOST)?;
            if device.board().lost || device.board().gone {
                return Err(GPU_IS_LOST);
            }
            body(device)
        })
    }

    /// Carries out a function about a whole GPU.
    pub fn gpu(&self, name: &str, handle: nvmlDevice_t, body: impl FnOnce(&Gpu) -> Done) -> u32 {
        self.device(name, handle, |device| match device {
            Device::Gpu(gpu) => body(gpu),
            Device::Mig(..) => Err(INVALID_ARGUMENT),
        })
    }

    /// Counts a call and looks whether the file changed.
    fn called(&self, name: &str) -> Result<Arc<State>, u32> {
        let mut shared = self.lock();
        shared.load(&self.directory.join("nvml.json"));
        let count = shared.calls.entry(name.to_owned()).or_default();
        *count += 1;
        if shared.state.count_calls {
            self.write_calls(&shared.calls);
        }
        match shared.stamp {
            Some(_) => Ok(shared.state.clone()),
            // Nothing was ever read: a double without its file answers nothing.
            None => Err(UNKNOWN),
        }
    }

    fn write_calls(&self, calls: &BTreeMap<String, u64>) {
        let text = serde_json::to_string_pretty(calls).unwrap_or_default();
        let path = format!("nvml-calls.{}.json", std::process::id());
        let written = format!("{path}.new");
        // Whoever reads it sees whole files only, or, on a full disk, an old one.
        let _ = fs::write(self.directory.join(&written), text)
            .and_then(|()| fs::rename(self.directory.join(&written), self.directory.join(path)));
    }

    /// Power limits that were set, by UUID: by whatever process.
    pub fn limits(&self) -> BTreeMap<String, u32> {
        let text = fs::read(self.directory.join("nvml-limits.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub fn set_limit(&self, uuid: &str, limit_mw: u32) -> Done {
        let _one_at_a_time = self.lock();
        let mut limits = self.limits();
        limits.insert(uuid.to_owned(), limit_mw);
        let text = serde_json::to_string(&limits).map_err(|_| UNKNOWN)?;
        let written = self.directory.join("nvml-limits.json.new");
        fs::write(&written, text)
            .and_then(|()| fs::rename(&written, self.directory.join("nvml-limits.json")))
            .map_err(|_| UNKNOWN)
    }

    /// How often a function was called.
    pub fn calls_of(&self, name: &str) -> u64 {
        self.lock().calls.get(name).copied().unwrap_or_default()
    }

    /// Where a GPU is now among those that are counted.
    pub fn index_of(&self, uuid: &str) -> Option<u32> {
        let shared = self.lock();
        let mut order = shared.state.gpus.iter().filter(|gpu| shared.counted.contains(&gpu.uuid));
        order.position(|gpu| gpu.uuid == uuid).and_then(|place| u32::try_from(place).ok())
    }

    /// Does what the file says about how this function answers; comes back if it is to go on.
    fn obey(
        &self,
        answers: &BTreeMap<String, Answer>,
        name: &str,
        again: impl Fn(&State) -> Option<Answer>,
    ) -> Done {
        let Some(answer) = answers.get(name) else {
            return Ok(());
        };
        sleep(Duration::from_millis(answer.delay_ms));
        let mut code = answer.code;
        let mut hangs = answer.hang;
        while hangs {
            sleep(HANG_LOOK);
            let mut shared = self.lock();
            shared.load(&self.directory.join("nvml.json"));
            let now = again(&shared.state).unwrap_or_default();
            (code, hangs) = (now.code, now.hang);
        }
        if code == SUCCESS { Ok(()) } else { Err(code) }
    }
}

impl Shared {
    fn load(&mut self, path: &Path) {
        let Ok(file) = fs::metadata(path) else {
            return;
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        let cuts = fs::metadata(directory.join(cutting::FILE)).ok();
        let stamp = (Stamp::of(&file), cuts.as_ref().map(Stamp::of));
        if self.stamp == Some(stamp) {
            return;
        }
        let Ok(text) = fs::read(path) else {
            return;
        };
        // One that is not whole is read again at the next call.
        if let Ok(mut state) = serde_json::from_slice(&text) {
            cutting::apply(&mut state, &cutting::read(directory));
            self.state = Arc::new(state);
            self.stamp = Some(stamp);
        }
    }

    pub fn start(&mut self) {
        self.starts += 1;
        let counted = self.state.gpus.iter().filter(|gpu| !gpu.gone);
        self.counted = counted.map(|gpu| gpu.uuid.clone()).collect();
    }

    pub fn stop(&mut self) {
        self.starts -= 1;
    }

    /// The handle of a UUID; always the same.
    pub fn handle_of(&mut self, uuid: &str) -> nvmlDevice_t {
        let known = self.handles.iter().position(|known| known == uuid);
        let place = known.unwrap_or_else(|| {
            self.handles.push(uuid.to_owned());
            self.handles.len() - 1
        });
        std::ptr::without_provenance_mut(FIRST_HANDLE + place)
    }

    /// What a handle was given out for.
    pub fn named(&self, handle: usize) -> Option<String> {
        self.handles.get(handle.checked_sub(FIRST_HANDLE)?).cloned()
    }

    fn uuid_of(&self, handle: nvmlDevice_t) -> Option<String> {
        self.handles.get(handle.addr().checked_sub(FIRST_HANDLE)?).cloned()
    }
}

/// A GPU or MIG device by its UUID.
pub fn find<'state>(state: &'state State, uuid: &str) -> Option<Device<'state>> {
    state.gpus.iter().find_map(|gpu| {
        if gpu.uuid == uuid {
            return Some(Device::Gpu(gpu));
        }
        let part = gpu.mig_devices.iter().find(|part| part.uuid == uuid)?;
        Some(Device::Mig(gpu, part))
    })
}

/// A panic must not leave a function that C calls.
fn guarded(body: impl FnOnce() -> Done) -> u32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => UNKNOWN,
    }
}

/// Writes a value to where the caller wants it.
pub fn put<T>(place: *mut T, value: T) -> Done {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller promises room for one value of the type.
    unsafe { place.write(value) };
    Ok(())
}

/// Writes text with its final zero.
pub fn put_text(place: *mut c_char, length: u32, text: &str) -> Done {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() + 1 > length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller promises room for so many characters.
    unsafe {
        place.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        place.add(text.len()).write(0);
    }
    Ok(())
}
