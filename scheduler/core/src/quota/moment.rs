//! Moments as people write them: dates of the site's calendar, or times with their offset.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::dated::Interval;
use crate::amount::UnixMicros;

/// Korea's clock: nine hours ahead of UTC, the same all year. A date without an offset is a date there.
pub(super) const SITE_OFFSET: Offset = Offset::constant(9);

/// Reads `2027-01-04` (midnight, KST), `2027-01-04T10:00` (KST) or `2027-01-04T10:00:00+09:00`.
///
/// # Errors
/// What it must look like.
pub fn read(text: &str) -> Result<UnixMicros, String> {
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        SITE_OFFSET.to_timestamp(civil).ok()
    });
    timestamp.map(|timestamp| UnixMicros(timestamp.as_microsecond())).ok_or_else(|| {
        "must be a date, as in \"2027-01-04\" (midnight, KST), or a time, as in \
         \"2027-01-04T10:00:00+09:00\""
            .to_owned()
    })
}

/// Writes what [`read`] reads, as short as it goes.
#[must_use]
pub fn show(at: UnixMicros) -> String {
    if at == Interval::ALWAYS.from {
        return "the beginning".to_owned();
    }
    let Ok(timestamp) = Timestamp::from_microsecond(at.0) else {
        return "the end".to_owned();
    };
    let zoned = timestamp.to_zoned(TimeZone::fixed(SITE_OFFSET));
    let midnight = zoned.time() == jiff::civil::Time::midnight();
    zoned.strftime(if midnight { "%Y-%m-%d" } else { "%Y-%m-%dT%H:%M:%S%:z" }).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_date_is_midnight_in_korea() {
        let midnight = read("2027-01-04").unwrap();
        assert_eq!(midnight, read("2027-01-03T15:00:00Z").unwrap());
        assert_eq!(midnight, read("2027-01-04T00:00:00+09:00").unwrap());
        assert_eq!(show(midnight), "2027-01-04");
    }

    #[test]
    fn a_time_reads_back_what_it_shows() {
        let moment = read("2027-03-02T10:00").unwrap();
        assert_eq!(show(moment), "2027-03-02T10:00:00+09:00");
        assert_eq!(read(&show(moment)).unwrap(), moment);
    }

    #[test]
    fn what_is_no_date_is_refused_with_the_form() {
        for bad in ["", "2027", "2027-13-01", "2027-02-30", "tomorrow", "04.01.2027"] {
            assert!(read(bad).unwrap_err().contains("2027-01-04"), "{bad}");
        }
    }
}
