//! Stretches of time as people write them: a whole number and a unit.

/// Units, the largest first, with their seconds.
const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
/// Longest that can be said, seconds: ten years.
const LONGEST_S: i64 = 10 * 366 * 86_400;

/// Reads `42d`, `12h`, `10m` or `5s`; seconds.
///
/// # Errors
/// What it must look like.
pub fn read(text: &str) -> Result<i64, String> {
    let found = UNITS.iter().find_map(|(unit, seconds)| {
        let count = text.strip_suffix(*unit)?;
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        count.parse::<i64>().ok().filter(|_| digits)?.checked_mul(*seconds)
    });
    found.filter(|seconds| (1..=LONGEST_S).contains(seconds)).ok_or_else(|| {
        "must be a time of at most ten years, as in \"42d\", \"12h\", \"10m\" or \"5s\"".to_owned()
    })
}

/// Writes what [`read`] reads, in the largest unit that is exact.
#[must_use]
pub fn show(seconds: i64) -> String {
    let exact = UNITS.iter().find(|(_, unit)| seconds != 0 && seconds % unit == 0);
    let (unit, of) = exact.copied().unwrap_or(('s', 1));
    format!("{}{unit}", seconds / of)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_time_reads_back_what_it_shows() {
        for text in ["1s", "59s", "10m", "90m", "12h", "25h", "42d"] {
            assert_eq!(show(read(text).unwrap()), text);
        }
        assert_eq!(show(read("120s").unwrap()), "2m");
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_form() {
        for bad in ["", "10", "m", "-5s", "+5s", "0s", "1.5h", "1w", "5 m", "99999999999d", "4000d"]
        {
            assert!(read(bad).unwrap_err().contains("\"42d\""), "{bad}");
        }
    }
}
