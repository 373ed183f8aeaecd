//! Values of the files: amounts, numbers, moments.

use toml::de::DeValue;

use crate::amount::{GpuMilli, Ngh, UnixMicros};
use crate::quota::Thresholds;
use crate::quota::budget::{Period, WHOLE_MILLI};
use crate::quota::{duration, moment};

/// Word for no limit of one's own.
const UNLIMITED: &str = "unlimited";
/// Most whole GPUs that can be said: a thousand times the largest machine there is. With as many nodes as files can
/// hold, sums stay far from overflow.
const GPUS_MAX: i64 = 1_000_000_000;
/// Most normalised GPU-hours that can be said: a thousand times a year of the largest machine there is.
const NGH_MAX: i64 = 1_000_000_000_000;
/// Most jobs at once that can be said.
const JOBS_MAX: i64 = 1_000_000_000;
/// The most that can be used of a budget: ten times as much.
const CAP_MAX_MILLI: u32 = 10 * WHOLE_MILLI;

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

/// A stretch of time, seconds.
pub(super) fn seconds(value: &DeValue<'_>) -> Result<i64, String> {
    duration::read(value.as_str().unwrap_or_default())
}

/// How many jobs.
pub(super) fn jobs(value: &DeValue<'_>) -> Result<u64, String> {
    Ok(number(value, 0, JOBS_MAX, "jobs")?.unsigned_abs())
}

/// Normalised GPU-hours.
pub(super) fn ngh(value: &DeValue<'_>) -> Result<Ngh, String> {
    let count = number(value, 0, NGH_MAX, "normalised GPU-hours")?;
    Ok(Ngh::whole(count.unsigned_abs()))
}

/// A part of something, in hundredths.
pub(super) fn percent(value: &DeValue<'_>) -> Result<u32, String> {
    let found = number(value, 1, 100, "percent")?;
    u32::try_from(found).map_err(|_| "must be 1 to 100 percent".to_owned())
}

/// A part of a budget at which people are told, in hundredths.
pub(super) fn threshold(value: &DeValue<'_>) -> Result<u32, String> {
    let found = number(value, 1, i64::from(Thresholds::PERCENT_MAX), "percent")?;
    u32::try_from(found).map_err(|_| format!("must be 1 to {} percent", Thresholds::PERCENT_MAX))
}

/// The word of a period.
pub(super) fn period(value: &DeValue<'_>) -> Result<Period, String> {
    value.as_str().and_then(Period::from_word).ok_or_else(|| {
        let words = Period::ALL.map(|period| format!("\"{}\"", period.word()));
        format!("must be one of {}", words.join(", "))
    })
}

/// How much of a budget may be used in all, as in 1.25; read digit by digit, so that it is exact.
pub(super) fn cap(value: &DeValue<'_>) -> Result<u32, String> {
    let text = match value {
        DeValue::Float(float) => float.as_str(),
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
        DeValue::Integer(_)
        | DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return Err(no_cap("what is there")),
    };
    let milli = thousandths(text).ok_or_else(|| no_cap(text))?;
    if (WHOLE_MILLI..=CAP_MAX_MILLI).contains(&milli) { Ok(milli) } else { Err(no_cap(text)) }
}

fn no_cap(text: &str) -> String {
    format!("must be 1 to 10 times the budget with at most three decimals, as in 1.25, not {text}")
}

/// `1.25` as 1250; `None` for anything but digits, a point, and at most three more digits.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    format!("{whole}{part:0<3}").parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_read_digit_by_digit() {
        let read = ["1", "1.0", "1.25", "1.001", "10.000", "0.1"].map(thousandths);
        assert_eq!(read, [1000, 1000, 1250, 1001, 10_000, 100].map(Some));
        for bad in ["", ".5", "1.0001", "1e3", "-1", "+1.2", "nan", "inf", "1.2.3", "99999999999"] {
            assert_eq!(thousandths(bad), None, "{bad}");
        }
    }
}
