//! Whether a round waits for the callers that were answered last.
//!
//! Callers that ask one thing at a time fall into two halves that take turns: while the disk takes the commands of one,
//! the other is answered and asks again, so each waits for two commits. A sync takes as long for many commands as for
//! one; where callers come back sooner than that, a round is held until all are in, and each waits for one commit.
//! PostgreSQL's `commit_delay` is the same idea (<https://www.postgresql.org/docs/current/wal-configuration.html>). Nobody
//! sets it here: what a commit takes and how soon callers come back are measured, and where they do not come in time,
//! only one round in many waits, to see whether they do now.

use std::time::Duration;

/// Longest wait, whatever a commit takes.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// No caller comes back sooner: where a commit costs less beside its changes there is nothing to be had.
const WAIT_MIN: Duration = Duration::from_micros(100);

/// Rounds from one trial to the next, in which all callers are believed to come back; twice as many after each that brought nothing.
const TRIAL_ROUNDS: u32 = 64;

/// The most of them.
const TRIAL_ROUNDS_MAX: u32 = 1_024;

/// Of which the newest wait is one part in their average.
const WAITS_AVERAGED: u32 = 8;

/// Commits after which one weighs a third in [`CommitCost`].
const COMMITS_AVERAGED: f64 = 256.0;

/// Commits must differ by this much (variance, changes squared) before they tell what a change costs.
const VARIANCE_MIN: f64 = 0.25;

/// What was learned of callers and of the store.
#[derive(Debug)]
pub(super) struct Gathering {
    cost: CommitCost,
    /// How soon after their answers those that are waited for come.
    wait: Option<Duration>,
    callers: Callers,
    trial_rounds: u32,
    until_trial: u32,
}

/// What is believed of callers that were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Callers {
    /// They come back.
    All,
    /// So many commands come in time.
    AtMost(usize),
    /// They do not come in time.
    None,
}

/// For whom a round waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Until there are that many commands.
    pub commands: usize,
    /// No longer than that after the answers were given.
    pub limit: Duration,
}

impl Default for Gathering {
    fn default() -> Self {
        let (cost, callers) = (CommitCost::default(), Callers::All);
        let (trial_rounds, until_trial) = (TRIAL_ROUNDS, TRIAL_ROUNDS);
        Gathering { cost, wait: None, callers, trial_rounds, until_trial }
    }
}

impl Gathering {
    /// Notes how long a commit of so many changes took.
    pub fn committed(&mut self, changes: usize, took: Duration) {
        self.cost.note(changes, took);
    }

    /// For whom a round with so many commands waits where `callers` are in the queue or were answered last.
    pub fn wait(&mut self, commands: usize, callers: usize) -> Option<Wait> {
        if self.until_trial == 0 {
            // This one does not wait: small rounds among large ones show what a commit costs beside its changes.
            (self.wait, self.callers, self.until_trial) = (None, Callers::All, self.trial_rounds);
            return None;
        }
        self.until_trial -= 1;
        let expected = match self.callers {
            Callers::All => callers,
            Callers::AtMost(most) => callers.min(most),
            Callers::None => return None,
        };
        let limit = self.cost.fixed()?.min(WAIT_MAX);
        (expected > commands && limit >= WAIT_MIN).then_some(Wait { commands: expected, limit })
    }

    /// Notes how many commands there are after a wait, and how long after the answers the last came, if any did.
    pub fn waited(&mut self, wait: Wait, commands: usize, last: Option<Duration>) {
        let average = last.map(|last| self.averaged(last));
        match average {
            Some(average) if average <= wait.limit => {
                self.trial_rounds = TRIAL_ROUNDS;
                self.until_trial = self.until_trial.min(TRIAL_ROUNDS);
                if commands < wait.commands {
                    self.callers = Callers::AtMost(commands);
                }
            }
            Some(_) | None => {
                self.callers = Callers::None;
                self.until_trial = self.trial_rounds;
                self.trial_rounds = (self.trial_rounds * 2).min(TRIAL_ROUNDS_MAX);
            }
        }
        self.wait = average;
    }

    fn averaged(&self, last: Duration) -> Duration {
        self.wait.map_or(last, |before| (before * (WAITS_AVERAGED - 1) + last) / WAITS_AVERAGED)
    }
}

/// What commits took by how much they wrote: the straight line that is nearest to them (least squares). Older ones weigh less, and
/// so do larger ones, whose times are further from any line in proportion: what is asked is where the line begins.
#[derive(Debug, Default)]
struct CommitCost {
    weight: f64,
    changes: f64,
    changes_squared: f64,
    seconds: f64,
    product: f64,
}

impl CommitCost {
    fn note(&mut self, changes: usize, took: Duration) {
        let (changes, seconds) = (changes.max(1) as f64, took.as_secs_f64());
        let weight = 1.0 / (changes * changes);
        let add = |sum: &mut f64, new: f64| *sum += weight * new - *sum / COMMITS_AVERAGED;
        add(&mut self.weight, 1.0);
        add(&mut self.changes, changes);
        add(&mut self.changes_squared, changes * changes);
        add(&mut self.seconds, seconds);
        add(&mut self.product, changes * seconds);
    }

    /// What one of nothing would take: the sync, and the way to the store and back. Half of a commit where all were alike.
    fn fixed(&self) -> Option<Duration> {
        if self.weight == 0.0 {
            return None;
        }
        let mean = |sum: f64| sum / self.weight;
        let (changes, seconds) = (mean(self.changes), mean(self.seconds));
        let variance = mean(self.changes_squared) - changes * changes;
        let fixed = if variance < VARIANCE_MIN {
            seconds / 2.0
        } else {
            let each = (mean(self.product) - changes * seconds) / variance;
            seconds - changes * each.max(0.0)
        };
        Duration::try_from_secs_f64(fixed.max(0.0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_micros(600);
    const SOON: Duration = Duration::from_micros(200);
    const LATE: Duration = Duration::from_micros(1_400);

    /// Of a store of which one commit was seen.
    fn seen() -> Gathering {
        let mut gathering = Gathering::default();
        gathering.committed(2, COMMIT);
        gathering
    }

    /// How many of these rounds wait, where one of `callers` is in the queue and `in_all` commands are there `last` after the others were answered.
    fn waits(
        gathering: &mut Gathering,
        rounds: u32,
        callers: usize,
        in_all: usize,
        last: Duration,
    ) -> u32 {
        let mut waits = 0;
        for _ in 0..rounds {
            if let Some(wait) = gathering.wait(1, callers) {
                waits += 1;
                gathering.waited(wait, in_all.min(wait.commands), (in_all > 1).then_some(last));
            }
        }
        waits
    }

    fn expected(gathering: &mut Gathering, callers: usize) -> Option<usize> {
        gathering.wait(1, callers).map(|wait| wait.commands)
    }

    #[test]
    fn a_caller_alone_is_not_waited_for() {
        assert_eq!(waits(&mut seen(), 10_000, 1, 1, SOON), 0);
    }

    #[test]
    fn nobody_is_waited_for_before_a_commit_was_seen() {
        assert_eq!(Gathering::default().wait(1, 8), None);
    }

    #[test]
    fn callers_that_come_back_soon_are_waited_for_in_all_rounds_but_trials() {
        assert_eq!(waits(&mut seen(), 65 * 100, 8, 8, SOON), 64 * 100);
    }

    #[test]
    fn where_commits_are_alike_a_wait_is_half_of_one_at_most() {
        assert_eq!(seen().wait(1, 8), Some(Wait { commands: 8, limit: COMMIT / 2 }));
    }

    #[test]
    fn no_wait_is_longer_than_five_milliseconds() {
        let mut slow = Gathering::default();
        slow.committed(2, Duration::from_secs(1));
        assert_eq!(slow.wait(1, 8), Some(Wait { commands: 8, limit: WAIT_MAX }));
    }

    #[test]
    fn a_commit_that_costs_little_beside_its_changes_is_not_waited_with() {
        let mut quick = Gathering::default();
        for changes in [2, 14, 2, 14] {
            quick.committed(changes, Duration::from_micros(50 + 40 * changes as u64));
        }
        assert_eq!(quick.wait(1, 8), None);
    }

    #[test]
    fn the_limit_is_what_commits_cost_beside_their_changes() {
        let mut gathering = Gathering::default();
        for changes in [2, 14, 2, 14, 8] {
            gathering.committed(changes, Duration::from_micros(400 + 30 * changes as u64));
        }
        let limit = gathering.wait(1, 8).map(|wait| wait.limit.as_micros());
        assert!(limit.is_some_and(|limit_us| limit_us.abs_diff(400) <= 1), "{limit:?}");
    }

    #[test]
    fn larger_rounds_that_took_less_time_do_not_make_the_limit_longer_than_a_commit() {
        let mut gathering = Gathering::default();
        gathering.committed(2, Duration::from_micros(900));
        gathering.committed(200, Duration::from_micros(300));
        let limit = gathering.wait(1, 8).map(|wait| wait.limit);
        assert!(limit.is_some_and(|limit| limit <= Duration::from_micros(900)), "{limit:?}");
    }

    #[test]
    fn callers_that_do_not_come_back_are_waited_for_once_in_a_thousand_rounds() {
        let mut gathering = seen();
        assert_eq!(waits(&mut gathering, 2_000, 8, 1, SOON), 6);
        assert_eq!(waits(&mut gathering, 102_600, 8, 1, SOON), 100);
    }

    #[test]
    fn callers_that_come_back_late_are_waited_for_once_in_a_thousand_rounds() {
        let mut gathering = seen();
        assert_eq!(waits(&mut gathering, 2_000, 8, 8, LATE), 6);
        assert_eq!(waits(&mut gathering, 102_600, 8, 8, LATE), 100);
    }

    #[test]
    fn callers_that_come_back_soon_again_are_found_at_the_next_trial() {
        let mut gathering = seen();
        waits(&mut gathering, 5_000, 8, 8, LATE);
        waits(&mut gathering, TRIAL_ROUNDS_MAX + 1, 8, 8, SOON);
        assert_eq!(waits(&mut gathering, 65 * 10, 8, 8, SOON), 64 * 10);
    }

    #[test]
    fn of_eleven_callers_the_three_that_stay_away_are_not_waited_for_again() {
        let mut gathering = seen();
        assert_eq!(waits(&mut gathering, 1, 11, 8, SOON), 1);
        assert_eq!(expected(&mut gathering, 11), Some(8));
        assert_eq!(expected(&mut gathering, 5), Some(5));
    }

    #[test]
    fn more_callers_than_before_are_waited_for_after_the_next_trial() {
        let mut gathering = seen();
        waits(&mut gathering, 1, 11, 8, SOON);
        waits(&mut gathering, TRIAL_ROUNDS, 16, 16, SOON);
        assert_eq!(expected(&mut gathering, 16), Some(16));
    }

    #[test]
    fn one_late_round_among_many_that_were_soon_changes_nothing() {
        let mut gathering = seen();
        waits(&mut gathering, 50, 8, 8, SOON);
        waits(&mut gathering, 1, 8, 8, Duration::from_micros(800));
        assert_eq!(expected(&mut gathering, 8), Some(8));
    }
}
