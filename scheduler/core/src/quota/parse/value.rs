//! Values of the files: amounts, numbers, moments.

use toml::de::DeValue;

use crate::amount::{GpuMilli, UnixMicros};
use crate::quota::moment;

/// Word for no limit of one's own.
const UNLIMITED: &str = "unlimited";
/// Most whole GPUs that can be said: a thousand times the largest machine there is. With as many nodes as files can
/// hold, sums stay far from overflow.
const GPUS_MAX: i64 = 1_000_000_000;

/// Whole GPUs.
pub(super) fn gpus(value: &DeValue<'_>) -> Result<GpuMilli, String> {
    let count = number(value, 0, GPUS_MAX, "whole GPUs")?;
    Ok(GpuMilli::WHOLE.times(count.unsigned_abs()))
}

/// Whole GPUs, or `None` for no limit of its own.
pub(super) fn limit(value: &DeValue<'_>) -> Result<Option<GpuMilli>, String> {
    match value {
        DeValue::String(word) if word.as_ref() == UNLIMITED => Ok(None),
        DeValue::Integer(_) => gpus(value).map(Some),
        DeValue::String(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err("must be whole GPUs, as in 16, or \"unlimited\"".to_owned()),
    }
}

/// An integer within bounds.
pub(super) fn number(
    value: &DeValue<'_>,
    least: i64,
    most: i64,
    what: &str,
) -> Result<i64, String> {
    let DeValue::Integer(number) = value else {
        return Err(format!("must be a number of {what}, as in {}", 16.clamp(least, most)));
    };
    i64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|found| (least..=most).contains(found))
        .ok_or_else(|| format!("must be {least} to {most} {what}, not {}", number.as_str()))
}

/// A weight among siblings.
pub(super) fn weight(value: &DeValue<'_>) -> Result<u32, String> {
    let found = number(value, 1, 1_000_000, "parts")?;
    u32::try_from(found).map_err(|_| "must be 1 to 1000000 parts".to_owned())
}

/// A weight of a class, thousandths of a normalised GPU-hour.
pub(super) fn weight_milli(value: &DeValue<'_>) -> Result<u32, String> {
    let found = number(value, 1, 1_000_000, "thousandths")?;
    u32::try_from(found).map_err(|_| "must be 1 to 1000000 thousandths".to_owned())
}

/// A moment, quoted or as a date of TOML's own.
pub(super) fn moment(value: &DeValue<'_>) -> Result<UnixMicros, String> {
    match value {
        DeValue::String(text) => moment::read(text),
        DeValue::Datetime(date) => moment::read(&date.to_string()),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => moment::read(""),
    }
}
