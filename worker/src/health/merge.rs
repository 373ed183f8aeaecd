//! What the driver's events and the kernel's log both tell is one finding. Pure.
//!
//! The log knows which process an error is about; events come even where the log cannot be read. Which comes first is
//! chance, so an event waits a moment for its record. Findings come out in the order in which the first of the two came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::findings::Observed;

/// The two tell of one error at most so far apart.
const APART_MAX: Duration = Duration::from_secs(5);
/// How long an event waits for its record.
pub const RECORD_WAIT: Duration = Duration::from_millis(100);
/// Events that wait at once, and what was told and may be told again: more are let go of early, oldest first.
const WAITING_MAX: usize = 1024;
const TOLD_MAX: usize = 4096;

/// Who told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An event of the driver.
    Event,
    /// A record of the kernel's log.
    Log,
}

/// Joins both.
#[derive(Debug)]
pub struct Merger {
    /// How long an event waits; zero where the log is not read.
    wait: Duration,
    waiting: VecDeque<Waiting>,
    /// Told by one and not by the other.
    told: VecDeque<Told>,
}

#[derive(Debug)]
struct Waiting {
    observed: Observed,
    /// Who is awaited, and until when; nobody once both have told or the log has.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Told {
    gpu_uuid: String,
    number: u32,
    by: Source,
    at: Instant,
}

impl Merger {
    /// Events wait so long for their records.
    pub fn new(wait: Duration) -> Self {
        Self { wait, waiting: VecDeque::new(), told: VecDeque::new() }
    }

    /// Takes what one of them tells. Whether that adds anything to what is told already.
    #[must_use]
    pub fn take(&mut self, by: Source, observed: Observed, now: Instant) -> bool {
        self.forget(now);
        if self.was_told_by_other(by, &observed) {
            return false;
        }
        match by {
            Source::Log => self.take_record(observed, now),
            Source::Event => {
                let until = (!self.wait.is_zero()).then(|| now + self.wait);
                self.waiting.push_back(Waiting { observed, until });
            }
        }
        true
    }

    /// When something comes out that has waited long enough.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.front()?.until
    }

    /// The next finding, if there is one.
    pub fn next(&mut self, now: Instant) -> Option<Observed> {
        let crowded = self.waiting.len() > WAITING_MAX;
        let ready = |waiting: &Waiting| waiting.until.is_none_or(|until| until <= now);
        self.waiting.front().filter(|waiting| crowded || ready(waiting))?;
        let Waiting { observed, until } = self.waiting.pop_front()?;
        if until.is_some() {
            self.tell(&observed, Source::Event, now);
        }
        Some(observed)
    }

    fn take_record(&mut self, record: Observed, now: Instant) {
        let event = self.waiting.iter_mut().find(|waiting| {
            let Observed { gpu_uuid, xid, .. } = &waiting.observed;
            waiting.until.is_some()
                && (gpu_uuid, xid.number) == (&record.gpu_uuid, record.xid.number)
        });
        match event {
            Some(event) => {
                event.until = None;
                event.observed.xid.pid = record.xid.pid;
                event.observed.detail = record.detail;
                event.observed.record = record.record;
            }
            None => {
                self.tell(&record, Source::Log, now);
                self.waiting.push_back(Waiting { observed: record, until: None });
            }
        }
    }

    fn was_told_by_other(&mut self, by: Source, observed: &Observed) -> bool {
        let place = self.told.iter().position(|told| {
            told.by != by
                && (&told.gpu_uuid, told.number) == (&observed.gpu_uuid, observed.xid.number)
        });
        place.and_then(|place| self.told.remove(place)).is_some()
    }

    fn tell(&mut self, observed: &Observed, by: Source, at: Instant) {
        if self.told.len() >= TOLD_MAX {
            self.told.pop_front();
        }
        let Observed { gpu_uuid, xid, .. } = observed;
        self.told.push_back(Told { gpu_uuid: gpu_uuid.clone(), number: xid.number, by, at });
    }

    fn forget(&mut self, now: Instant) {
        let old = |told: &Told| now.saturating_duration_since(told.at) > APART_MAX;
        while self.told.front().is_some_and(old) {
            self.told.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use gotgan_proto::v1::Xid;

    use super::*;

    fn xid(number: u32, pid: u32) -> Observed {
        let detail = if pid == 0 { "" } else { "from the log" };
        let xid = Xid { number, pid };
        Observed { gpu_uuid: "GPU-1".into(), at_us: 1, xid, detail: detail.into(), record: None }
    }

    /// Plays what is told at which millisecond; gives (millisecond, number, pid) of what comes out.
    fn play(wait: Duration, told: &[(u64, Source, Observed)]) -> Vec<(u64, u32, u32)> {
        let start = Instant::now();
        let mut merger = Merger::new(wait);
        let mut found = Vec::new();
        for millis in 0..20_000 {
            let now = start + Duration::from_millis(millis);
            for (_, by, observed) in told.iter().filter(|(at, ..)| *at == millis) {
                let _ = merger.take(*by, observed.clone(), now);
            }
            while let Some(Observed { xid, .. }) = merger.next(now) {
                found.push((millis, xid.number, xid.pid));
            }
        }
        found
    }

    use Source::{Event, Log};

    #[test]
    fn both_are_one_finding_whichever_comes_first() {
        let log_first = [(0, Log, xid(79, 5)), (300, Event, xid(79, 0))];
        assert_eq!(play(RECORD_WAIT, &log_first), [(0, 79, 5)]);
        let event_first = [(0, Event, xid(79, 0)), (40, Log, xid(79, 5))];
        assert_eq!(play(RECORD_WAIT, &event_first), [(40, 79, 5)]);
        let late = [(0, Event, xid(79, 0)), (4_000, Log, xid(79, 5))];
        assert_eq!(play(RECORD_WAIT, &late), [(100, 79, 0)], "too late for its pid");
        let too_late = [(0, Event, xid(79, 0)), (5_200, Log, xid(79, 5))];
        assert_eq!(play(RECORD_WAIT, &too_late), [(100, 79, 0), (5_200, 79, 5)]);
    }

    #[test]
    fn each_record_belongs_to_one_event() {
        let three = [
            (0, Log, xid(13, 5)),
            (0, Log, xid(13, 5)),
            (10, Event, xid(13, 0)),
            (10, Event, xid(13, 0)),
            (10, Event, xid(13, 0)),
        ];
        assert_eq!(play(RECORD_WAIT, &three), [(0, 13, 5), (0, 13, 5), (110, 13, 0)]);
        let two = [(0, Event, xid(13, 0)), (1, Event, xid(43, 0))];
        assert_eq!(play(RECORD_WAIT, &two), [(100, 13, 0), (101, 43, 0)]);
    }

    #[test]
    fn order_is_kept_and_without_a_log_nothing_waits() {
        let mixed = [(0, Event, xid(48, 0)), (10, Log, xid(63, 5)), (20, Event, xid(63, 0))];
        assert_eq!(play(RECORD_WAIT, &mixed), [(100, 48, 0), (100, 63, 5)]);
        assert_eq!(play(Duration::ZERO, &[(7, Event, xid(48, 0))]), [(7, 48, 0)]);
    }

    #[test]
    fn a_storm_waits_no_further_than_its_room() {
        let now = Instant::now();
        let mut merger = Merger::new(RECORD_WAIT);
        assert!((0..WAITING_MAX + 10).all(|_| merger.take(Event, xid(31, 0), now)));
        let out = std::iter::from_fn(|| merger.next(now)).count();
        assert_eq!(out, 10);
    }
}
