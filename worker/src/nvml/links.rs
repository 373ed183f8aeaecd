//! Links of a GPU: PCIe to the processors, NVLinks to other GPUs.

use nvml_wrapper_sys::bindings::NVML_NVLINK_MAX_LINKS;
use serde::Serialize;

use super::answer::{Code, Missing, Reading};
use super::calls;
use super::driver::Gpu;

/// The link to the processors. Idle GPUs may let it fall below its most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PcieLink {
    /// Generation, which is its speed, now.
    pub generation: u32,
    /// At most, by GPU and slot.
    pub generation_max: u32,
    /// Lanes now.
    pub width: u32,
    /// At most.
    pub width_max: u32,
}

/// One NVLink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NvLink {
    /// Its number.
    pub link: u32,
    /// Whether it is up.
    pub active: bool,
    /// Errors since the last reset; absent where the driver does not count them link by link.
    pub errors: Option<NvLinkErrors>,
}

/// Errors of one NVLink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NvLinkErrors {
    /// Sent once more.
    pub replay: u64,
    /// Trained anew.
    pub recovery: u64,
    /// Bad checksums of flow control.
    pub flit_checksum: u64,
    /// Bad checksums of data.
    pub data_checksum: u64,
}

impl Gpu<'_> {
    /// The link to the processors.
    pub fn pcie(&self) -> Reading<PcieLink> {
        let library = self.library();
        Ok(PcieLink {
            generation: calls::value(&library.nvmlDeviceGetCurrPcieLinkGeneration, self.handle)?,
            generation_max: calls::value(&library.nvmlDeviceGetMaxPcieLinkGeneration, self.handle)?,
            width: calls::value(&library.nvmlDeviceGetCurrPcieLinkWidth, self.handle)?,
            width_max: calls::value(&library.nvmlDeviceGetMaxPcieLinkWidth, self.handle)?,
        })
    }

    /// All its NVLinks. A number that the GPU does not have ends the list.
    pub fn nvlinks(&self) -> Reading<Vec<NvLink>> {
        let mut links = Vec::new();
        for link in 0..NVML_NVLINK_MAX_LINKS {
            match self.nvlink(link) {
                Ok(found) => links.push(found),
                Err(Missing::NotSupported | Missing::Failed(Code::INVALID_ARGUMENT))
                    if link > 0 =>
                {
                    break;
                }
                Err(missing) => return Err(missing),
            }
        }
        Ok(links)
    }

    fn nvlink(&self, link: u32) -> Reading<NvLink> {
        let symbol = &self.library().nvmlDeviceGetNvLinkState;
        let active: u32 = calls::value_of(symbol, self.handle, link)?;
        Ok(NvLink { link, active: active != 0, errors: self.nvlink_errors(link).ok() })
    }

    fn nvlink_errors(&self, link: u32) -> Reading<NvLinkErrors> {
        Ok(NvLinkErrors {
            replay: self.nvlink_error(link, 0)?,
            recovery: self.nvlink_error(link, 1)?,
            flit_checksum: self.nvlink_error(link, 2)?,
            data_checksum: self.nvlink_error(link, 3)?,
        })
    }

    fn nvlink_error(&self, link: u32, kind: u32) -> Reading<u64> {
        let function = calls::found(&self.library().nvmlDeviceGetNvLinkErrorCounter)?;
        let mut count = 0;
        // SAFETY: takes two numbers, writes one.
        let code = unsafe { function(self.handle, link, kind, &raw mut count) };
        Code(code).gives(count)
    }
}
