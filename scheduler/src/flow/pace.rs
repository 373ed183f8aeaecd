//! When the planner's thread looks at the world next, and at how much of it.
//!
//! ```text
//!   what changed                   a full pass follows            a pass for the event goes before it
//!   more jobs that only join       after twenty times its length  no
//!   something was freed, or asks   after its own length           at once, if full passes are long and it can be made
//!   nodes, quotas, windows         after its own length           no
//! ```
//!
//! After a pass for an event a full pass is owed: it plans starts, finds who stops for whom, and tells why others wait.

use std::time::{Duration, Instant};

use crate::clock;

/// After a pass that started something the planner rests this many times as long as the pass took, so that planning a
/// long queue over and over cannot take more than half a processor from those who submit and report. Longer, and GPUs
/// that are free wait for it.
const REST_FACTOR: u32 = 1;

/// The same for a full pass while nothing waits for it but what a pass for an event has not told.
const FULL_REST_FACTOR: u32 = 10;

/// The same while there are but new jobs that only join the queue, if the last pass started nothing: the next one tells why they
/// wait and plans for them, and those who submit thousands a second need the processor more.
const JOINED_REST_FACTOR: u32 = 20;

/// Longest rest.
const REST_MAX: Duration = Duration::from_millis(500);

/// What changed since the last pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// Nothing that a pass could use.
    None,
    /// More jobs wait.
    Jobs,
    /// Something was freed or is allowed now; or a job came that may find room in what was left.
    Starts,
    /// What a pass goes by has changed: nodes, quotas or windows.
    Ground,
}

/// How much a pass looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Who starts in the room that there is.
    Event,
    /// Everything.
    Full,
}

/// A pass that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    /// When it was.
    pub ended: Instant,
    /// How long it took.
    pub took: Duration,
    /// Whether it decided anything.
    pub started_any: bool,
    /// It stopped at the most that one pass may start.
    pub has_more: bool,
}

/// What there is to do, and what was done last.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// From this length of a full pass on, passes for events go between.
    events_beyond: Duration,
    news: News,
    /// A pass for an event was made since the last full one.
    owes_full: bool,
    full: Past,
    event: Past,
}

impl Past {
    fn none() -> Self {
        Past { ended: clock::instant(), took: Duration::ZERO, started_any: false, has_more: false }
    }

    /// The end of the rest after it.
    fn rested(&self, factor: u32) -> Instant {
        if self.has_more { self.ended } else { self.ended + (self.took * factor).min(REST_MAX) }
    }
}

impl Pace {
    /// Nothing has been done yet.
    pub fn new(events_beyond: Duration) -> Self {
        let none = Past::none();
        Pace { events_beyond, news: News::None, owes_full: false, full: none, event: none }
    }

    /// Takes notice of what changed.
    pub fn note(&mut self, news: News) {
        self.news = self.news.max(news);
    }

    /// Notes a pass that is over.
    pub fn done(&mut self, depth: Depth, past: Past) {
        self.news = match (past.has_more, depth) {
            (false, _) => News::None,
            (true, Depth::Event) => News::Starts,
            (true, Depth::Full) => News::Ground,
        };
        match depth {
            Depth::Event => (self.event, self.owes_full) = (past, true),
            Depth::Full => (self.full, self.owes_full) = (past, false),
        }
    }

    /// Whether the last full pass no longer says for whom there is no room.
    pub fn owes_full(&self) -> bool {
        self.owes_full
    }

    /// Since when there was no full pass.
    pub fn last_full(&self) -> Instant {
        self.full.ended
    }

    /// When the last pass of either depth has been over for as long as it took, or for `least`; at once before the first.
    pub fn rested(&self, least: Duration) -> Instant {
        let rested = |past: &Past| match past.took {
            Duration::ZERO => past.ended,
            took => past.ended + took.clamp(least, REST_MAX),
        };
        rested(&self.full).max(rested(&self.event))
    }

    /// What comes next, and when; `None` while there is nothing to do. `can_event` tells whether a pass for an event can
    /// be made of the world as it is.
    pub fn next(&self, can_event: impl FnOnce() -> bool) -> Option<(Instant, Depth)> {
        let is_long = self.full.took >= self.events_beyond;
        let event = self.news == News::Starts && is_long && can_event();
        let full = match self.news {
            News::Ground => Some(REST_FACTOR),
            News::Starts if !event => Some(REST_FACTOR),
            News::Jobs if self.full.started_any && !self.owes_full => Some(REST_FACTOR),
            News::Jobs if !self.owes_full => Some(JOINED_REST_FACTOR),
            News::Jobs | News::Starts | News::None => self.owes_full.then_some(FULL_REST_FACTOR),
        };
        let full = full.map(|factor| (self.full.rested(factor), Depth::Full));
        let event = event.then(|| (self.event.rested(REST_FACTOR), Depth::Event));
        // Whichever is due first: a full pass that is owed is not put off by one event after the other.
        full.into_iter().chain(event).min_by_key(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(40);

    fn past(started_any: bool, has_more: bool) -> Past {
        Past { took: LONG, started_any, has_more, ..Past::none() }
    }

    /// A pace after a full pass.
    fn after(past: Past) -> Pace {
        let mut pace = Pace::new(Duration::from_millis(5));
        pace.done(Depth::Full, past);
        pace
    }

    /// How long after the last full pass what comes, once that was noted.
    fn next(pace: &Pace, news: News, can_event: bool) -> Option<(Duration, Depth)> {
        let mut pace = pace.clone();
        pace.note(news);
        let (due, depth) = pace.next(|| can_event)?;
        Some((due.saturating_duration_since(pace.full.ended), depth))
    }

    #[test]
    fn a_pass_that_stopped_halfway_is_followed_at_once() {
        let pace = after(past(true, true));
        assert_eq!(next(&pace, News::None, true), Some((Duration::ZERO, Depth::Full)));
    }

    #[test]
    fn jobs_that_join_a_queue_of_which_nothing_started_wait_longer_than_room_does() {
        let pace = after(past(false, false));
        assert_eq!(next(&pace, News::Ground, true), Some((LONG, Depth::Full)));
        assert_eq!(next(&pace, News::Starts, false), Some((LONG, Depth::Full)));
        let short = after(Past { took: LONG / 4, ..past(false, false) });
        assert_eq!(next(&short, News::Jobs, true), Some((LONG * 5, Depth::Full)));
        assert_eq!(next(&pace, News::None, true), None);
    }

    #[test]
    fn no_rest_is_longer_than_the_longest() {
        let pace = after(Past { took: Duration::from_secs(9), ..past(false, false) });
        assert_eq!(next(&pace, News::Jobs, true), Some((REST_MAX, Depth::Full)));
    }

    #[test]
    fn where_full_passes_are_short_there_are_no_others() {
        let pace = after(Past { took: Duration::from_millis(2), ..past(true, false) });
        assert_eq!(next(&pace, News::Starts, true), Some((Duration::from_millis(2), Depth::Full)));
    }

    #[test]
    fn an_event_is_looked_at_at_once_and_the_full_pass_that_is_owed_is_not_put_off_by_the_next() {
        let mut pace = after(past(true, false));
        let event =
            Past { ended: pace.full.ended, took: Duration::from_millis(1), ..past(true, false) };
        pace.event = event;
        assert_eq!(next(&pace, News::Starts, true), Some((event.took, Depth::Event)));
        pace.done(Depth::Event, event);
        assert_eq!(next(&pace, News::None, true), Some((LONG * 10, Depth::Full)));
        assert_eq!(next(&pace, News::Jobs, true), Some((LONG * 10, Depth::Full)));
        assert_eq!(next(&pace, News::Starts, true), Some((event.took, Depth::Event)));
        pace.event.ended += LONG * 11;
        assert_eq!(next(&pace, News::Starts, true), Some((LONG * 10, Depth::Full)));
    }
}
