//! Readings that have a number instead of a function.

use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlValue_t};

use super::answer::{Code, Missing, Reading};
use super::calls;
use super::driver::Gpu;

/// Number of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field(u32);

impl Field {
    /// Milliwatts at this moment.
    pub(super) const POWER_NOW: Self = Self(186);
    /// What the driver wants done with the GPU.
    pub(super) const RECOVERY_ACTION: Self = Self(230);
}

impl Gpu<'_> {
    /// A reading by its number. The driver answers for the call and once more for the field.
    pub(super) fn field(&self, field: Field) -> Reading<u64> {
        let function = calls::found(&self.library().nvmlDeviceGetFieldValues)?;
        let mut value = nvmlFieldValue_t {
            fieldId: field.0,
            scopeId: 0,
            timestamp: 0,
            latencyUsec: 0,
            valueType: 0,
            nvmlReturn: 0,
            value: nvmlValue_t { ullVal: 0 },
        };
        // SAFETY: the library reads and writes one entry, as it is told.
        let code = unsafe { function(self.handle, 1, &raw mut value) };
        Code(code).gives(())?;
        match Code(value.nvmlReturn) {
            // So a driver answers that does not know the number.
            Code::INVALID_ARGUMENT | Code::NOT_FOUND => Err(Missing::Absent),
            code => code.gives(()).and_then(|()| number(&value).ok_or(Missing::Unreadable)),
        }
    }
}

/// The value, by the type that the driver says it has. None of the fields asked for is a fraction.
fn number(found: &nvmlFieldValue_t) -> Option<u64> {
    let value = found.value;
    // SAFETY: every member of the union is a plain number, and all its bytes were set before the call.
    unsafe {
        match found.valueType {
            1 => Some(u64::from(value.uiVal)),
            2 => Some(value.ulVal),
            3 => Some(value.ullVal),
            4 => u64::try_from(value.sllVal).ok(),
            5 => u64::try_from(value.siVal).ok(),
            6 => Some(u64::from(value.usVal)),
            _ => None,
        }
    }
}
