//! Times as a scenario writes them.

use std::fmt;

use gotgan_core::amount::UnixMicros;
use gotgan_core::quota;
use serde::Deserialize;

/// A stretch of time in milliseconds, written as in `"90s"`, `"250ms"`, `"10m"`, `"2h"`, `"42d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(i64);

/// Units with their length in milliseconds; a longer name comes before one that it ends with.
const UNITS: [(&str, i64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest stretch: a hundred years.
const SPAN_MAX_MS: i64 = 36_525 * 86_400_000;

impl Span {
    /// So many milliseconds.
    #[must_use]
    pub fn millis(millis: i64) -> Self {
        Span(millis)
    }

    /// Its length in milliseconds.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Its length in whole seconds, rounded up.
    #[must_use]
    pub fn whole_seconds(self) -> i64 {
        self.0.saturating_add(999) / 1000
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = UNITS.iter().find_map(|(unit, millis)| {
            let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
            count.checked_mul(*millis).filter(|span| (0..=SPAN_MAX_MS).contains(span))
        });
        parsed.map(Span).ok_or_else(|| {
            format!("\"{text}\" must be a whole number with its unit, as in \"90s\", \"10m\", \"2h\" or \"42d\"")
        })
    }
}

/// A moment, written as in quota files: `"2027-01-04"` or `"2027-03-02T10:00"` (KST), or with an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Moment(pub UnixMicros);

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let at = quota::read_moment(&text).map_err(|form| format!("\"{text}\" {form}"))?;
        if at.0 % 1000 != 0 {
            return Err(format!("\"{text}\" is finer than a millisecond"));
        }
        Ok(Moment(at))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quota::show_moment(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_whole_number_with_its_unit() {
        let read = |text: &str| Span::try_from(text.to_owned()).map(Span::as_millis).ok();
        let texts = ["90s", "250ms", "10m", "2h", "42d", "5", "1.5h", "-1s", "s", "9999999d"];
        let millis = [90_000, 250, 600_000, 7_200_000, 3_628_800_000].map(Some);
        assert_eq!(texts.map(read)[..5], millis);
        assert_eq!(texts.map(read)[5..], [None; 5]);
    }
}
