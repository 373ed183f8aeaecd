//! How fairly a replay shared the machine out.
//!
//! At every moment a tenant asks for the GPUs that its jobs run on and wait for. What it is entitled to then is its
//! part, by shares, of the machine, and never more than it asks for: what one does not ask for is shared out among
//! those that ask for more, again by shares. Over the whole replay a tenant is entitled to the sum of that, and its
//! fairness is the GPU-seconds that it held over those that it was entitled to. So 1 is what was due; less is what
//! others had of it, more is what it had of others'. A tenant that was entitled to nothing has none.
//!
//! Jain's index of n such numbers is (their sum)^2 / (n * sum of their squares): 1 if all are alike, 1 / n if one has
//! everything.

use std::cmp::Ordering;

use super::Played;
use super::figures::{quotient, seen};
use super::trace::Trace;

/// What one tenant had and what was due to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// What its jobs ran, in thousandths of GPU-seconds.
    pub held_gpu_milli_s: u128,
    /// What it was entitled to, in thousandths of GPU-seconds.
    pub entitled_gpu_milli_s: u128,
}

/// What a tenant asks for and holds at a moment, in thousandths of GPUs.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    asked: u64,
    held: u64,
    entitled: u64,
}

/// What changes for a tenant at a moment. Endings come before starts, so that nobody holds what is held already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Ends,
    Submits,
    Starts,
}

/// Of every tenant, in the order of the trace's.
#[must_use]
pub fn dues(trace: &Trace, played: &Played, gpus: u32, shares: &[u32]) -> Vec<Due> {
    let mut turns = turns(trace, played);
    turns.sort_unstable();
    let mut standings = vec![Standing::default(); trace.tenants.len()];
    let mut dues = vec![Due::default(); trace.tenants.len()];
    let mut since = 0;
    for moment in turns.chunk_by(|one, other| one.0 == other.0) {
        let Some(&(now, ..)) = moment.first() else { continue };
        pass(&mut dues, &standings, u128::from(now.abs_diff(since)));
        since = now;
        for &(_, turn, tenant, gpus) in moment {
            turn.apply(&mut standings[tenant], 1000 * u64::from(gpus));
        }
        entitle(&mut standings, 1000 * u64::from(gpus), shares);
    }
    dues
}

/// Seconds, what, whose, how many GPUs.
fn turns(trace: &Trace, played: &Played) -> Vec<(i64, Turn, usize, u32)> {
    let of_job = |seen: super::figures::Seen<'_>| {
        let (tenant, gpus) = (seen.job.tenant.0, seen.job.gpus);
        [
            (seen.job.submit.whole_seconds(), Turn::Submits, tenant, gpus),
            (seen.ran.start.whole_seconds(), Turn::Starts, tenant, gpus),
            (seen.ran.end.whole_seconds(), Turn::Ends, tenant, gpus),
        ]
    };
    seen(trace, played).flat_map(of_job).collect()
}

impl Turn {
    fn apply(self, standing: &mut Standing, gpu_milli: u64) {
        match self {
            Turn::Submits => standing.asked += gpu_milli,
            Turn::Starts => standing.held += gpu_milli,
            Turn::Ends => {
                standing.asked = standing.asked.saturating_sub(gpu_milli);
                standing.held = standing.held.saturating_sub(gpu_milli);
            }
        }
    }
}

fn pass(dues: &mut [Due], standings: &[Standing], seconds: u128) {
    for (due, standing) in dues.iter_mut().zip(standings) {
        due.held_gpu_milli_s += u128::from(standing.held) * seconds;
        due.entitled_gpu_milli_s += u128::from(standing.entitled) * seconds;
    }
}

/// Shares out by shares, least asked for its share first: who asks for less than its part gets what it asks for, and
/// leaves the rest to those after it. Rounded down to thousandths of GPUs.
fn entitle(standings: &mut [Standing], gpu_milli: u64, shares: &[u32]) {
    let share = |place: usize| u128::from(shares.get(place).copied().unwrap_or(0));
    let mut order: Vec<usize> = (0..standings.len()).collect();
    order.sort_by(|&one, &other| {
        let (asks, other_asks) = (standings[one].asked, standings[other].asked);
        by_share((asks, share(one)), (other_asks, share(other)))
    });
    let asking = |place: &usize| standings[*place].asked > 0;
    let mut shares_left: u128 =
        order.iter().filter(|place| asking(place)).map(|&at| share(at)).sum();
    let mut left = u128::from(gpu_milli);
    for place in order {
        let standing = &mut standings[place];
        if standing.asked == 0 {
            standing.entitled = 0;
            continue;
        }
        let part = (left * share(place)).checked_div(shares_left).unwrap_or(0);
        let entitled = part.min(u128::from(standing.asked));
        standing.entitled = u64::try_from(entitled).unwrap_or(u64::MAX);
        left -= entitled;
        shares_left -= share(place);
    }
}

/// Who asks for less for its share; those without one are last.
fn by_share((asks, share): (u64, u128), (other_asks, other_share): (u64, u128)) -> Ordering {
    let own = u128::from(asks) * other_share;
    let other = u128::from(other_asks) * share;
    (share == 0).cmp(&(other_share == 0)).then(own.cmp(&other))
}

impl Due {
    /// Held over entitled; `None` of nothing.
    #[must_use]
    pub fn fairness(&self) -> Option<f64> {
        let due = self.entitled_gpu_milli_s;
        (due > 0).then(|| quotient(self.held_gpu_milli_s, due, 4))
    }
}

/// Jain's index; `None` of nothing.
#[must_use]
pub fn jain(fairness: &[f64]) -> Option<f64> {
    let sum: f64 = fairness.iter().sum();
    let squares: f64 = fairness.iter().map(|one| one * one).sum();
    let index = sum * sum / (fairness.len() as f64 * squares);
    index.is_finite().then(|| (index * 10_000.0).round() / 10_000.0)
}

#[cfg(test)]
mod tests {
    use gotgan_core::amount::UnixMicros;

    use super::super::Ran;
    use super::super::trace::{TenantIndex, TraceJob};
    use super::*;

    fn entitled(asked: &[u64], gpus: u64, shares: &[u32]) -> Vec<u64> {
        let standing = |&asked: &u64| Standing { asked: asked * 1000, ..Standing::default() };
        let mut standings: Vec<Standing> = asked.iter().map(standing).collect();
        entitle(&mut standings, gpus * 1000, shares);
        standings.iter().map(|standing| standing.entitled / 1000).collect()
    }

    #[test]
    fn what_one_does_not_ask_for_is_shared_out_by_shares() {
        assert_eq!(entitled(&[100, 100], 12, &[1, 1]), [6, 6]);
        assert_eq!(entitled(&[100, 100], 12, &[1, 2]), [4, 8]);
        assert_eq!(entitled(&[2, 100, 100], 12, &[1, 1, 1]), [2, 5, 5]);
        assert_eq!(entitled(&[2, 0, 100], 12, &[1, 1, 1]), [2, 0, 10]);
        assert_eq!(entitled(&[2, 3], 12, &[1, 1]), [2, 3]);
        assert_eq!(entitled(&[9, 9], 12, &[1, 0]), [9, 0]);
    }

    #[test]
    fn who_waits_while_another_holds_all_has_nothing_of_its_part() {
        let at = |second| UnixMicros(0).plus_seconds(second);
        let job = |id, tenant| TraceJob {
            id,
            submit: at(0),
            duration_s: 100,
            asked_s: None,
            gpus: 8,
            tenant: TenantIndex(tenant),
        };
        let tenants = vec!["a".to_owned(), "b".to_owned()];
        let trace = Trace { jobs: vec![job(0, 0), job(1, 1)], tenants, skipped: Vec::new() };
        let ran = |start| Some(Ran { start: at(start), end: at(start + 100) });
        let played = Played {
            jobs: vec![ran(0), ran(100)],
            passes: 0,
            told: std::collections::BTreeMap::new(),
            estimated: Vec::new(),
        };
        let dues = dues(&trace, &played, 8, &[1, 1]);
        // The first 100 seconds half of it is due to either, then all of it to the second.
        let fairness: Vec<_> = dues.iter().filter_map(Due::fairness).collect();
        assert_eq!(fairness, [2.0, 0.6667]);
        assert_eq!(jain(&fairness), Some(0.8));
    }

    #[test]
    fn jains_index_is_one_if_all_are_alike() {
        assert_eq!(jain(&[0.5, 0.5, 0.5]), Some(1.0));
        assert_eq!(jain(&[1.0, 0.0]), Some(0.5));
        assert_eq!(jain(&[]), None);
    }
}
