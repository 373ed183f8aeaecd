//! Which scheduler to try next, and how long to rest before: pure, so that thousands of workers coming back can be judged
//! without any.
//!
//! Addresses are tried in turn. One that stands by names the leader, which is tried next and remembered. After a stream
//! that was good, each node comes back at a moment of its own, which its name decides, within the time that the scheduler
//! told; then all try about once a second as long as a leader may be about to take over, and more and more rarely after.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use gotgan_proto::{LEADER_ADDRESS, NOT_LEADER};
use tonic::Status;
use tonic_types::StatusExt;

/// Workers that lost the same leader come back spread over this time, if it told them no other.
const SPREAD: Duration = Duration::from_secs(1);
/// Longest pause while a take-over is awaited.
const EAGER_MAX: Duration = Duration::from_secs(1);
/// First pause after a stream that never was a good one.
const FIRST: Duration = Duration::from_millis(100);
/// Tries that are made about once a second. A lease runs out in seconds; whoever waits longer waits for a person.
const EAGER_TRIES: u32 = 20;

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// A good stream has ended: registered, and no passing one. The scheduler had asked to come back within so many
    /// milliseconds; 0 if it told none.
    Served {
        /// How long.
        return_within_ms: u32,
    },
    /// A scheduler that stands by answered; it may have said who leads.
    StandsBy(Option<String>),
    /// Anything else.
    Failed,
}

/// Where a worker goes.
#[derive(Debug, Clone)]
pub struct Route {
    addresses: Vec<String>,
    next: usize,
    /// Named by a standby; tried before the others, once.
    hinted: Option<String>,
    /// Tries since the last stream.
    tries: u32,
    /// Longest pause.
    longest: Duration,
    /// Of the node, below a thousand.
    place: u32,
}

impl Route {
    /// For a node and the addresses it was given, tried from the first.
    #[must_use]
    pub fn new(node: &str, addresses: &[String], longest: Duration) -> Self {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let place = u32::try_from(hasher.finish() % 1_000).unwrap_or(0);
        let addresses = addresses.to_vec();
        Self { addresses, next: 0, hinted: None, tries: 0, longest, place }
    }

    /// The address to try now; `None` if none was given.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        let given = self.addresses.get(self.next).map(String::as_str);
        self.hinted.as_deref().or(given)
    }

    /// Notes how the try ended and says how long to rest before the next; `chance` is below 1000.
    pub fn rest(&mut self, ended: Ended, chance: u32) -> Duration {
        let was_hinted = self.hinted.take().is_some();
        match ended {
            Ended::Served { return_within_ms } => {
                self.tries = 0;
                let spread = match return_within_ms {
                    0 => SPREAD,
                    told => Duration::from_millis(told.into()),
                };
                return self.part_of(spread, self.place);
            }
            Ended::StandsBy(leader) => {
                self.pass_on();
                let leader = leader.filter(|leader| self.is_trusted(leader));
                // A hint that led to another standby is old news of an election; the usual pause is taken then.
                if let Some(leader) = leader.filter(|_| !was_hinted) {
                    self.remember(leader);
                    return Duration::ZERO;
                }
            }
            Ended::Failed if was_hinted => {}
            Ended::Failed => self.pass_on(),
        }
        self.tries += 1;
        let pause = self.pause();
        pause / 2 + self.part_of(pause / 2, chance)
    }

    fn pause(&self) -> Duration {
        let double = |first: Duration, times: u32| first * 2_u32.saturating_pow(times.min(16));
        let pause = match self.tries.checked_sub(EAGER_TRIES) {
            None | Some(0) => double(FIRST, self.tries).min(EAGER_MAX),
            Some(late) => double(EAGER_MAX, late),
        };
        pause.min(self.longest)
    }

    fn pass_on(&mut self) {
        self.next = (self.next + 1) % self.addresses.len().max(1);
    }

    /// Begins with the leader from now on, if it is among the addresses; tries it once if not.
    fn remember(&mut self, leader: String) {
        match self.addresses.iter().position(|address| *address == leader) {
            Some(index) => self.next = index,
            None => self.hinted = Some(leader),
        }
    }

    /// Never from an encrypted address to one that is not.
    fn is_trusted(&self, leader: &str) -> bool {
        let scheme = |address: &str| address.split_once("://").map(|(scheme, _)| scheme.to_owned());
        self.addresses.first().is_some_and(|first| scheme(first) == scheme(leader))
    }

    fn part_of(&self, whole: Duration, thousandths: u32) -> Duration {
        whole * thousandths.min(1_000) / 1_000
    }
}

/// Whether a refusal comes from a scheduler that does not lead.
#[must_use]
pub fn is_standby(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == NOT_LEADER)
}

/// The leader's address, where the refusal of a standby names it.
#[must_use]
pub fn leader_of(status: &Status) -> Option<String> {
    status.get_details_error_info()?.metadata.get(LEADER_ADDRESS).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(10);

    fn route() -> Route {
        Route::new("n1", &["https://a:1".to_owned(), "https://b:1".to_owned()], LONGEST)
    }

    fn stands_by(leader: &str) -> Ended {
        Ended::StandsBy(Some(leader.to_owned()))
    }

    #[test]
    fn addresses_are_tried_in_turn() {
        let mut route = route();
        assert_eq!(route.address(), Some("https://a:1"));
        route.rest(Ended::Failed, 0);
        assert_eq!(route.address(), Some("https://b:1"));
        route.rest(Ended::Failed, 0);
        assert_eq!(route.address(), Some("https://a:1"));
    }

    #[test]
    fn the_leader_that_a_standby_names_is_tried_at_once_and_begun_with_after() {
        let mut route = route();
        route.rest(Ended::Failed, 0);
        assert_eq!(route.rest(stands_by("https://b:1"), 999), Duration::ZERO);
        assert_eq!(route.address(), Some("https://b:1"));
        route.rest(Ended::Served { return_within_ms: 0 }, 0);
        assert_eq!(route.address(), Some("https://b:1"));
    }

    #[test]
    fn a_leader_nobody_told_of_is_tried_once() {
        let mut route = route();
        assert_eq!(route.rest(stands_by("https://c:1"), 0), Duration::ZERO);
        assert_eq!(route.address(), Some("https://c:1"));
        assert!(route.rest(Ended::Failed, 0) > Duration::ZERO);
        assert_eq!(route.address(), Some("https://b:1"));
    }

    #[test]
    fn a_hint_to_an_address_without_encryption_is_not_followed() {
        let mut route = route();
        assert!(route.rest(stands_by("http://b:1"), 0) > Duration::ZERO);
        assert_eq!(route.address(), Some("https://b:1"));
    }

    #[test]
    fn two_that_name_each_other_are_not_run_between_without_rest() {
        let mut route = Route::new("n1", &["https://a:1".to_owned()], LONGEST);
        assert_eq!(route.rest(stands_by("https://c:1"), 500), Duration::ZERO);
        assert!(route.rest(stands_by("https://d:1"), 500) > Duration::ZERO);
    }

    #[test]
    fn nodes_that_lost_a_leader_come_back_spread_over_the_time_that_it_told() {
        for (told, spread_ms) in [(0, 1_000), (3_125, 3_125)] {
            let mut tenths = [0_u32; 10];
            for node in 0..6_250 {
                let name = format!("busan-1-{node:04}");
                let mut route = Route::new(&name, &["https://a:1".to_owned()], LONGEST);
                let ended = Ended::Served { return_within_ms: told };
                let rest_ms = route.rest(ended, 0).as_millis();
                assert!(rest_ms < spread_ms);
                tenths[usize::try_from(rest_ms * 10 / spread_ms).unwrap_or(9)] += 1;
            }
            assert!(tenths.iter().all(|count| (500..=750).contains(count)), "{tenths:?}");
        }
    }

    #[test]
    fn a_take_over_is_awaited_eagerly_and_an_outage_patiently() {
        let mut route = route();
        let mut waited = Duration::ZERO;
        for _ in 0..EAGER_TRIES {
            let rest = route.rest(Ended::StandsBy(None), 1_000);
            assert!(rest <= EAGER_MAX, "{rest:?}");
            waited += rest;
        }
        assert!(waited > Duration::from_secs(15), "{waited:?}");
        let late: Vec<Duration> = (0..8).map(|_| route.rest(Ended::Failed, 1_000)).collect();
        assert!(late.is_sorted() && late.last() == Some(&LONGEST), "{late:?}");
    }

    #[test]
    fn no_pause_is_longer_than_configured() {
        let most = Duration::from_millis(300);
        let mut route = Route::new("n1", &["https://a:1".to_owned()], most);
        for _ in 0..40 {
            assert!(route.rest(Ended::Failed, 1_000) <= most);
        }
    }
}
