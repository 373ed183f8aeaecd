//! The library and its GPUs. A GPU is found by its UUID: positions change when one is lost.

use std::ffi::{CString, OsStr, c_uint};
use std::ptr;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlDevice_t};

use super::answer::{Code, Missing, Reading};
use super::calls;

/// Where the library is looked for when no path is given; the second is what developers' packages install.
const DEFAULT_NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// What the version of a double of the library ends with; see `tests/nvml-double`.
const DOUBLE: &str = "nvml-double";

/// Why there is no driver to ask.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No library, or none that can be loaded.
    #[error("no library: {0}")]
    Library(String),
    /// It is there and does not start.
    #[error("the library does not start: {0}")]
    Start(Missing),
}

/// The driver's library, open and started.
pub struct Driver {
    /// Never dropped: that panics where a library lacks the function that ends it.
    nvml: Nvml,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// Opens the library at a path, and no other; without one, where the system finds it.
    ///
    /// It stays open as long as the process lives: closing it may block, and no GPU would outlive it.
    pub fn open(path: Option<&str>) -> Result<&'static Self, OpenError> {
        let names = path.map_or(DEFAULT_NAMES.to_vec(), |path| vec![path]);
        let mut failures = Vec::new();
        for name in names {
            match Nvml::builder().lib_path(OsStr::new(name)).init() {
                Ok(nvml) => return Ok(Box::leak(Box::new(Self { nvml }))),
                Err(NvmlError::LibloadingError(error)) => failures.push(error.to_string()),
                Err(error) => return Err(OpenError::Start(error.into())),
            }
        }
        Err(OpenError::Library(failures.join("; ")))
    }

    /// Starts the library, once more each time: it then counts its GPUs anew.
    pub fn start(&self) -> Reading<()> {
        let function = calls::found(&self.library().nvmlInit_v2)?;
        // SAFETY: takes nothing and may be called again.
        Code(unsafe { function() }).gives(())
    }

    /// Ends what one [`Driver::start`] began.
    pub fn stop(&self) -> Reading<()> {
        let function = calls::found(&self.library().nvmlShutdown)?;
        // SAFETY: takes nothing; handles are not used after it without a new start.
        Code(unsafe { function() }).gives(())
    }

    /// As in "580.65.06".
    pub fn driver_version(&self) -> Reading<String> {
        Ok(self.nvml.sys_driver_version()?)
    }

    /// Whether the library is a double for tests, whose GPUs are invented. It says so in its version.
    pub fn is_double(&self) -> bool {
        self.driver_version().is_ok_and(|version| version.contains(DOUBLE))
    }

    /// Version of the library itself, as in "13.580.65.06".
    pub fn library_version(&self) -> Reading<String> {
        Ok(self.nvml.sys_nvml_version()?)
    }

    /// The newest CUDA that the driver serves, as in "12.8".
    pub fn cuda_version(&self) -> Reading<String> {
        let code = self.nvml.sys_cuda_driver_version()?;
        Ok(format!("{}.{}", code / 1000, code % 1000 / 10))
    }

    /// How many GPUs there were at the start, lost ones included.
    pub fn count(&self) -> Reading<u32> {
        Ok(self.nvml.device_count()?)
    }

    /// The GPU at a position, as positions are now.
    pub fn gpu_at(&self, index: u32) -> Reading<Gpu<'_>> {
        let function = calls::found(&self.library().nvmlDeviceGetHandleByIndex_v2)?;
        let mut handle = ptr::null_mut();
        // SAFETY: writes one handle.
        let answer = Code(unsafe { function(index as c_uint, &raw mut handle) });
        answer.gives(Gpu { driver: self, handle })
    }

    /// The GPU with a UUID, wherever it is now.
    pub fn gpu(&self, uuid: &str) -> Reading<Gpu<'_>> {
        let function = calls::found(&self.library().nvmlDeviceGetHandleByUUID)?;
        let uuid = CString::new(uuid).map_err(|_| Missing::Failed(Code::INVALID_ARGUMENT))?;
        let mut handle = ptr::null_mut();
        // SAFETY: reads text that ends with a zero, writes one handle.
        let answer = Code(unsafe { function(uuid.as_ptr(), &raw mut handle) });
        answer.gives(Gpu { driver: self, handle })
    }

    pub(super) fn library(&self) -> &NvmlLib {
        self.nvml.lib()
    }
}

/// A GPU, or a MIG device of one.
#[derive(Clone, Copy, Debug)]
pub struct Gpu<'driver> {
    pub(super) driver: &'driver Driver,
    pub(super) handle: nvmlDevice_t,
}

impl Gpu<'_> {
    pub(super) fn library(&self) -> &NvmlLib {
        self.driver.library()
    }
}
