//! Processes on a GPU that no attempt has. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::reader::board::Seen;

/// Since when no attempt has had any part of a GPU, by UUID. One that some attempt has is absent.
pub type Unused = BTreeMap<String, Instant>;

/// Whether there were processes on a GPU when it was looked at, although nobody had had it for longer than `after`.
pub fn is_left(seen: &Seen, unused: &Unused, after: Duration) -> bool {
    let since = unused.get(&seen.reading.uuid);
    // What was seen before that time may be cleaned up by now.
    let late = |since: &Instant| seen.at.saturating_duration_since(*since) > after;
    seen.compute_processes > 0 && since.is_some_and(late)
}

#[cfg(test)]
mod tests {
    use gotgan_proto::v1::GpuReading;

    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    #[test]
    fn only_processes_seen_long_after_the_last_attempt_are_leftover_ones() {
        let start = Instant::now();
        let seen = |seconds, compute_processes| {
            let reading = GpuReading { uuid: "GPU-1".into(), ..Default::default() };
            Seen { reading, compute_processes, at: start + Duration::from_secs(seconds) }
        };
        let unused = Unused::from([("GPU-1".to_owned(), start)]);
        assert!(is_left(&seen(31, 1), &unused, AFTER));
        assert!(!is_left(&seen(30, 1), &unused, AFTER));
        assert!(!is_left(&seen(31, 0), &unused, AFTER), "only what computes counts");
        assert!(!is_left(&seen(31, 1), &Unused::new(), AFTER), "an attempt has it");
    }
}
