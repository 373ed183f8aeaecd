//! Replays a trace by a named rule over one pool of GPUs: no nodes, nobody is stopped, every job runs as long as it did.
//!
//! At each moment at which anything happens, first all endings are taken in, then all submissions in their order, then
//! there is one pass.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::fairshare::HalfLife;
use gotgan_core::profile::Profile;

use super::promises::Promises;
use super::rule::{Backfill, Order, Rule};
use super::trace::{Trace, TraceJob};
use super::turns::Turns;
use super::waiting::{JobIndex, Lanes, Waiting, starts};
use super::{Played, Ran};

/// Replays `trace` on `gpus` GPUs. `shares` has one for each tenant, for the order by fair share. `watch` is told, from
/// time to time, how many jobs are over.
#[must_use]
pub fn play(
    trace: &Trace,
    gpus: u32,
    rule: Rule,
    shares: &[u32],
    watch: &mut dyn FnMut(usize),
) -> Played {
    let mut game = Game::new(trace, gpus, rule, shares);
    while let Some(now) = game.next() {
        game.moment(now);
        watch(game.over);
    }
    Played { jobs: game.ran, passes: game.passes, told: BTreeMap::new(), estimated: Vec::new() }
}

/// How those that wait are kept.
#[derive(Debug)]
enum Queue {
    /// All in one lane.
    One(Lanes),
    /// A lane for each tenant.
    Fair(Lanes, Turns),
    /// Each has its moment.
    Promised(Promises),
}

/// A replay under way.
#[derive(Debug)]
struct Game<'t> {
    jobs: &'t [TraceJob],
    rule: Rule,
    gpus: u32,
    /// What is free when, as jobs are believed to end.
    profile: Profile,
    queue: Queue,
    /// Jobs that run, by their ends.
    running: BinaryHeap<Reverse<(UnixMicros, JobIndex)>>,
    submitted: usize,
    over: usize,
    ran: Vec<Option<Ran>>,
    passes: u64,
}

impl<'t> Game<'t> {
    fn new(trace: &'t Trace, gpus: u32, rule: Rule, shares: &[u32]) -> Self {
        let first = trace.jobs.first().map_or(UnixMicros(0), |job| job.submit);
        let queue = match (rule.backfill, rule.order) {
            (Backfill::Conservative, _) => Queue::Promised(Promises::default()),
            (_, Order::Fair) => {
                let turns = Turns::new(shares, HalfLife::default());
                Queue::Fair(Lanes::new(shares.len()), turns)
            }
            (_, Order::Fifo | Order::Sjf) => Queue::One(Lanes::new(1)),
        };
        Game {
            jobs: &trace.jobs,
            rule,
            gpus,
            profile: Profile::new(first, GpuMilli::whole(gpus)),
            queue,
            running: BinaryHeap::new(),
            submitted: 0,
            over: 0,
            ran: vec![None; trace.jobs.len()],
            passes: 0,
        }
    }

    /// The next moment at which anything happens.
    fn next(&self) -> Option<UnixMicros> {
        let submission = self.jobs.get(self.submitted).map(|job| job.submit);
        let ending = self.running.peek().map(|Reverse((at, _))| *at);
        let promised = match &self.queue {
            Queue::Promised(promises) => promises.next(),
            Queue::One(_) | Queue::Fair(..) => None,
        };
        [submission, ending, promised].into_iter().flatten().min()
    }

    fn moment(&mut self, now: UnixMicros) {
        self.profile.forget(now);
        let early = self.take_endings(now);
        self.take_submissions(now);
        self.passes += 1;
        for waiting in self.decide(now, early) {
            self.start(waiting, now);
        }
    }

    /// All that end now; whether any was believed to take longer.
    fn take_endings(&mut self, now: UnixMicros) -> bool {
        let mut early = false;
        while self.running.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, index))) = self.running.pop() else { break };
            let job = &self.jobs[index.0];
            let started = self.ran[index.0].map_or(now, |ran| ran.start);
            let believed = started.plus_seconds(self.rule.estimate.of(job));
            early |= believed > now;
            self.profile.give_back(now, believed, GpuMilli::whole(job.gpus));
            if let Queue::Fair(_, turns) = &mut self.queue {
                turns.end(job.tenant, job.gpus, now);
            }
            self.over += 1;
        }
        early
    }

    fn take_submissions(&mut self, now: UnixMicros) {
        while let Some(job) = self.jobs.get(self.submitted).filter(|job| job.submit <= now) {
            let index = JobIndex(self.submitted);
            self.submitted += 1;
            if job.gpus > self.gpus {
                continue;
            }
            let estimate_s = self.rule.estimate.of(job);
            let key = match self.rule.order {
                Order::Sjf => estimate_s,
                Order::Fifo | Order::Fair => 0,
            };
            let waiting = Waiting { key, job: index, gpus: job.gpus, estimate_s };
            match &mut self.queue {
                Queue::One(lanes) => lanes.push(0, waiting),
                Queue::Fair(lanes, turns) => {
                    turns.submit(job.tenant, now);
                    lanes.push(job.tenant.0, waiting);
                }
                Queue::Promised(promises) => promises.add(waiting, &mut self.profile, now),
            }
        }
    }

    /// Those that start now.
    fn decide(&mut self, now: UnixMicros, early: bool) -> Vec<Waiting> {
        let (profile, backfill) = (&mut self.profile, self.rule.backfill);
        let nothing_free = profile.free_at(now).is_zero();
        match &mut self.queue {
            Queue::Promised(promises) => {
                let mut due = promises.due(now);
                if early {
                    due.extend(promises.early(profile, now));
                }
                due
            }
            Queue::One(lanes) | Queue::Fair(lanes, _) if nothing_free || lanes.is_empty() => {
                Vec::new()
            }
            Queue::One(lanes) => {
                let places = starts(backfill, lanes.in_order(&[0]), profile, now);
                lanes.take(&places)
            }
            Queue::Fair(lanes, turns) => {
                let order = turns.order(now);
                let places = starts(backfill, lanes.in_order(&order), profile, now);
                lanes.take(&places)
            }
        }
    }

    /// What it takes of the profile has been taken.
    fn start(&mut self, waiting: Waiting, now: UnixMicros) {
        let job = &self.jobs[waiting.job.0];
        let end = now.plus_seconds(job.duration_s);
        self.ran[waiting.job.0] = Some(Ran { start: now, end });
        self.running.push(Reverse((end, waiting.job)));
        if let Queue::Fair(_, turns) = &mut self.queue {
            turns.start(job.tenant, job.gpus, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rule::Estimate;
    use super::super::trace::TenantIndex;
    use super::*;

    const GPUS: u32 = 16;

    fn rules() -> impl Strategy<Value = Rule> {
        let orders = prop::sample::select(vec![Order::Fifo, Order::Sjf, Order::Fair]);
        let backfills = prop::sample::select(vec![
            Backfill::None,
            Backfill::Skip,
            Backfill::Easy,
            Backfill::Conservative,
            Backfill::Reserved(3),
        ]);
        let estimates =
            prop::sample::select(vec![Estimate::Exact, Estimate::Bucketed, Estimate::Asked]);
        let rule = (orders, backfills, estimates);
        let rule = rule.prop_map(|(order, backfill, estimate)| Rule { order, backfill, estimate });
        rule.prop_filter("means something", |rule| rule.check().is_ok())
    }

    fn traces() -> impl Strategy<Value = Trace> {
        let job = (0..2_000_i64, 1..3_000_i64, 1..20_u32, 0..3_usize, 0..9_000_i64);
        prop::collection::vec(job, 1..40).prop_map(|mut jobs| {
            jobs.sort_unstable();
            let job = |(id, &(submit, duration_s, gpus, tenant, asked))| TraceJob {
                id,
                submit: UnixMicros(0).plus_seconds(submit),
                duration_s,
                asked_s: Some(asked),
                gpus,
                tenant: TenantIndex(tenant),
            };
            let tenants = ["a", "b", "c"].map(ToOwned::to_owned).to_vec();
            Trace { jobs: (0..).zip(&jobs).map(job).collect(), tenants, skipped: Vec::new() }
        })
    }

    fn replay(trace: &Trace, rule: Rule) -> Played {
        play(trace, GPUS, rule, &[1, 2, 3], &mut |_| {})
    }

    /// GPUs in use at a moment.
    fn used(trace: &Trace, played: &Played, at: UnixMicros) -> u32 {
        let jobs = trace.jobs.iter().zip(&played.jobs);
        let here = jobs.filter(|(_, ran)| ran.is_some_and(|ran| ran.start <= at && at < ran.end));
        here.map(|(job, _)| job.gpus).sum()
    }

    proptest! {
        #[test]
        fn every_job_that_fits_runs_once_as_long_as_it_did_and_no_gpu_is_given_twice(
            trace in traces(), rule in rules(),
        ) {
            let played = replay(&trace, rule);
            for (job, ran) in trace.jobs.iter().zip(&played.jobs) {
                prop_assert_eq!(ran.is_some(), job.gpus <= GPUS);
                if let Some(ran) = ran {
                    prop_assert!(ran.start >= job.submit);
                    prop_assert_eq!(ran.end, ran.start.plus_seconds(job.duration_s));
                    prop_assert!(used(&trace, &played, ran.start) <= GPUS);
                }
            }
        }

        #[test]
        fn promises_for_all_start_nobody_later_than_first_come_first_served_does_with_the_truth_known(
            trace in traces(),
        ) {
            let by = |backfill| {
                replay(&trace, Rule { order: Order::Fifo, backfill, estimate: Estimate::Exact })
            };
            let (strict, promised) = (by(Backfill::None), by(Backfill::Conservative));
            for (strict, promised) in strict.jobs.iter().zip(&promised.jobs) {
                let start = |ran: &Option<Ran>| ran.map(|ran| ran.start);
                prop_assert!(start(promised) <= start(strict));
            }
        }
    }
}
