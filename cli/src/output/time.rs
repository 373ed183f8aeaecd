//! Points in time and spans for people (local time with its zone) and for programs (RFC 3339 in UTC).

use jiff::{Timestamp, tz::TimeZone};

/// Unix microseconds now.
#[must_use]
pub fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// As in "2026-11-21 09:00:00 KST"; "-" for a time that is not set.
#[must_use]
pub fn local(us: i64) -> String {
    in_zone(us, TimeZone::system())
}

fn in_zone(us: i64, zone: TimeZone) -> String {
    match timestamp(us) {
        Some(timestamp) => timestamp.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        None => "-".to_owned(),
    }
}

/// Two moments ahead, with as much of the date as is needed: "14:10" and "17:40" on one day that is today, "Nov 21 09:00"
/// otherwise.
#[must_use]
pub fn between(from_us: i64, until_us: i64, now_us: i64) -> (String, String) {
    between_in_zone([from_us, until_us, now_us], &TimeZone::system())
}

fn between_in_zone(moments: [i64; 3], zone: &TimeZone) -> (String, String) {
    let show = |us: i64, form: &str| match timestamp(us) {
        Some(timestamp) => timestamp.to_zoned(zone.clone()).strftime(form).to_string(),
        None => "-".to_owned(),
    };
    let [from, until, now] = moments;
    let today = [from, until].iter().all(|us| show(*us, "%F") == show(now, "%F"));
    let form = if today { "%H:%M" } else { "%b %d %H:%M" };
    (show(from, form), show(until, form))
}

/// As in "2026-11-21T00:00:00.5Z"; none for a time that is not set.
#[must_use]
pub fn rfc3339(us: i64) -> Option<String> {
    timestamp(us).map(|timestamp| timestamp.to_string())
}

/// The time itself; none for one that is not set.
#[must_use]
pub fn set(us: i64) -> Option<i64> {
    (us != 0).then_some(us)
}

fn timestamp(us: i64) -> Option<Timestamp> {
    set(us).and_then(|us| Timestamp::from_microsecond(us).ok())
}

/// A span in its two largest units, as in "3s", "5m10s", "2h05m" or "3d04h".
#[must_use]
pub fn span(us: i64) -> String {
    let seconds = us.max(0) / 1_000_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// A span of one run: like [`span`], with milliseconds while it is short, so that quick steps can be told apart.
#[must_use]
pub fn run_span(us: i64) -> String {
    match us.max(0) / 1_000 {
        millis @ 0..10_000 => format!("{}.{:03}s", millis / 1_000, millis % 1_000),
        _ => span(us),
    }
}

/// How long ago, as in "5m10s ago"; "-" for a time that is not set.
#[must_use]
pub fn ago(us: i64, now_us: i64) -> String {
    match set(us) {
        Some(us) => format!("{} ago", span(now_us - us)),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AN_EVENING: i64 = 1_795_305_600_000_000;

    #[test]
    fn local_time_names_its_zone() {
        let seoul = TimeZone::get("Asia/Seoul").unwrap();
        assert_eq!(in_zone(AN_EVENING, seoul), "2026-11-22 09:00:00 KST");
        assert_eq!(in_zone(0, TimeZone::UTC), "-");
    }

    #[test]
    fn a_range_has_dates_only_where_they_are_needed() {
        let hours = |hours: i64| AN_EVENING + hours * 3_600_000_000;
        let range = |from, until| between_in_zone([from, until, hours(1)], &TimeZone::UTC);
        let texts = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(range(hours(2), hours(5)), texts("02:00", "05:00"));
        assert_eq!(range(hours(2), hours(26)), texts("Nov 22 02:00", "Nov 23 02:00"));
    }

    #[test]
    fn programs_get_utc() {
        assert_eq!(rfc3339(AN_EVENING).as_deref(), Some("2026-11-22T00:00:00Z"));
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(i64::MAX), None);
    }

    #[test]
    fn short_runs_show_milliseconds() {
        assert_eq!(run_span(1_234_567), "1.234s");
        assert_eq!(run_span(7_000), "0.007s");
        assert_eq!(run_span(10_000_000), "10s");
    }

    #[test]
    fn spans_have_at_most_two_units() {
        let seconds = [0, 59, 310, 7500, 4 * 3600 + 3 * 86_400];
        let texts: Vec<_> = seconds.iter().map(|seconds| span(seconds * 1_000_000)).collect();
        assert_eq!(texts, ["0s", "59s", "5m10s", "2h05m", "3d04h"]);
        assert_eq!(span(-5), "0s");
    }
}
