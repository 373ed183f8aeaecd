//! The few forms that the library's functions have, each called in one place.
//!
//! A symbol that the library lacks is an `Err` in the bindings and becomes [`Missing::Absent`] here.

use std::ffi::{CStr, c_char, c_uint};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::answer::{Code, Missing, Reading};

/// Longest text that the library's header allows for anything asked here, with its final zero.
const TEXT_BYTES: usize = 256;

/// Writes one value about a GPU.
pub(super) type Get<T> = unsafe extern "C" fn(nvmlDevice_t, *mut T) -> nvmlReturn_t;
/// Writes two values about a GPU.
pub(super) type GetTwo<T> = unsafe extern "C" fn(nvmlDevice_t, *mut T, *mut T) -> nvmlReturn_t;
/// Writes one value about some part of a GPU.
pub(super) type GetOf<A, T> = unsafe extern "C" fn(nvmlDevice_t, A, *mut T) -> nvmlReturn_t;
/// Writes text about a GPU.
pub(super) type GetText = unsafe extern "C" fn(nvmlDevice_t, *mut c_char, c_uint) -> nvmlReturn_t;

/// The function, or that the library lacks it.
pub(super) fn found<F: Copy, E>(symbol: &Result<F, E>) -> Reading<F> {
    symbol.as_ref().copied().map_err(|_| Missing::Absent)
}

/// One value about a GPU, written over `initial`.
pub(super) fn fill<T, E>(
    symbol: &Result<Get<T>, E>,
    device: nvmlDevice_t,
    mut initial: T,
) -> Reading<T> {
    let function = found(symbol)?;
    // SAFETY: the handle is the library's own, and it writes one value of the type in its header.
    let code = unsafe { function(device, &raw mut initial) };
    Code(code).gives(initial)
}

/// One value about a GPU.
pub(super) fn value<T: Default, E>(symbol: &Result<Get<T>, E>, device: nvmlDevice_t) -> Reading<T> {
    fill(symbol, device, T::default())
}

/// Two values about a GPU.
pub(super) fn two<T: Default, E>(
    symbol: &Result<GetTwo<T>, E>,
    device: nvmlDevice_t,
) -> Reading<(T, T)> {
    let function = found(symbol)?;
    let (mut first, mut second) = (T::default(), T::default());
    // SAFETY: as in `fill`, with two places to write to.
    let code = unsafe { function(device, &raw mut first, &raw mut second) };
    Code(code).gives((first, second))
}

/// One value about a part of a GPU.
pub(super) fn value_of<A, T: Default, E>(
    symbol: &Result<GetOf<A, T>, E>,
    device: nvmlDevice_t,
    part: A,
) -> Reading<T> {
    let function = found(symbol)?;
    let mut value = T::default();
    // SAFETY: as in `fill`; `part` is a plain number.
    let code = unsafe { function(device, part, &raw mut value) };
    Code(code).gives(value)
}

/// Text about a GPU.
pub(super) fn text<E>(symbol: &Result<GetText, E>, device: nvmlDevice_t) -> Reading<String> {
    let function = found(symbol)?;
    // SAFETY: the library writes no more than the length it is given.
    written(|buffer, length| unsafe { function(device, buffer, length) })
}

/// Text that `write` puts into a buffer of a length.
pub(super) fn written(write: impl FnOnce(*mut c_char, c_uint) -> nvmlReturn_t) -> Reading<String> {
    let mut buffer = [0u8; TEXT_BYTES];
    // The last byte stays zero whatever the library does with the others.
    let code = write(buffer.as_mut_ptr().cast(), (TEXT_BYTES - 1) as c_uint);
    Code(code).gives(())?;
    let text = CStr::from_bytes_until_nul(&buffer).map_err(|_| Missing::Unreadable)?;
    Ok(text.to_string_lossy().into_owned())
}

/// The version word of a structure: its size, and the number of its version above it.
pub(super) const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | (number << 24)
}
