//! Amounts for people: thousandths as decimals, MiB in larger units, GPU time in hours.

/// With a comma before each three digits: "99,990".
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Thousandths as a decimal without needless zeros: 1500 is "1.5", 8000 is "8".
#[must_use]
pub fn milli(amount: u64) -> String {
    let (whole, part) = (amount / 1000, amount % 1000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:03}").trim_end_matches('0').to_owned()
}

/// MiB in the largest unit that keeps it whole or nearly so: "512 MiB", "8 GiB", "1.5 TiB".
#[must_use]
pub fn memory(mib: u64) -> String {
    match mib {
        0..1024 => format!("{mib} MiB"),
        1024..1_048_576 => format!("{} GiB", tenths(mib, 1024)),
        _ => format!("{} TiB", tenths(mib, 1_048_576)),
    }
}

/// A quotient with at most one decimal, rounded down, in integers.
pub(crate) fn tenths(amount: u64, unit: u64) -> String {
    let (whole, tenth) = (amount / unit, amount % unit * 10 / unit);
    if tenth == 0 { whole.to_string() } else { format!("{whole}.{tenth}") }
}

/// GPU time: exact seconds, with hours where they help: "7200 GPU-s (2 GPU-h)".
#[must_use]
pub fn gpu_time(milli_seconds: i64) -> String {
    let sign = if milli_seconds < 0 { "-" } else { "" };
    let amount = milli_seconds.unsigned_abs();
    let seconds = format!("{sign}{} GPU-s", milli(amount));
    if amount < 3_600_000 {
        return seconds;
    }
    format!("{seconds} ({sign}{} GPU-h)", tenths(amount, 3_600_000))
}

/// Two amounts of GPU time in the unit that fits the larger one, in thousandths of a second: "12.3 GPU-h" and "16 GPU-h".
#[must_use]
pub fn two_gpu_times(one: u64, other: u64) -> (String, String) {
    let (unit, name) =
        if one.max(other) < 36_000_000 { (1_000, "GPU-s") } else { (3_600_000, "GPU-h") };
    let text = |amount| format!("{} {name}", tenths(amount, unit));
    (text(one), text(other))
}

/// GPU seconds alone, exact.
#[must_use]
pub fn gpu_seconds(milli_seconds: i64) -> String {
    let sign = if milli_seconds < 0 { "-" } else { "" };
    format!("{sign}{}", milli(milli_seconds.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        assert_eq!([milli(8000), milli(250), milli(1500), milli(0)], ["8", "0.25", "1.5", "0"]);
        assert_eq!(
            [memory(512), memory(8192), memory(1536), memory(2_097_152)],
            ["512 MiB", "8 GiB", "1.5 GiB", "2 TiB"]
        );
        assert_eq!(gpu_time(1_500), "1.5 GPU-s");
        assert_eq!(gpu_time(-7_200_000), "-7200 GPU-s (-2 GPU-h)");
    }
}
