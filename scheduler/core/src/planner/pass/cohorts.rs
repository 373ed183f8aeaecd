//! Turns in the pass: the first job of a cohort stands for all of it where it cannot start.

use super::{Finding, Order, Pass, Waiting, Want, Who};
use crate::job::Job;
use crate::planner::fair::Tier;
use crate::planner::lending::Lending;
use crate::planner::order::has_waited;
use crate::planner::turns::{Claim, Cohort, Fate, Members, Turn, Turns};

impl<'w> Pass<'w> {
    /// By guarantees, and by use and shares.
    pub(super) fn run_turns(&mut self, turns: &mut Turns<'w>) {
        while !self.has_decided_enough() {
            let Some(turn) = self.fair.as_ref().and_then(|fair| turns.next(fair)) else {
                break;
            };
            let fate = self.take_turn(turns, &turn);
            turns.settle(&turn, fate);
        }
    }

    /// Looks at a job, or at its whole cohort if it tells for all.
    pub(super) fn take_turn(&mut self, turns: &mut Turns<'w>, turn: &Turn) -> Fate {
        let Some(job) = self.world.jobs.get(&turn.job) else { return Fate::Next };
        if self.started.contains(&job.id) {
            return Fate::Next;
        }
        let cohort = turns.cohort_mut(turn.cohort);
        let want = match cohort.want {
            Some(want) => want,
            None => *cohort.want.insert(self.want(
                cohort.common.spec,
                cohort.common.avoid,
                cohort.project,
            )),
        };
        match self.consider(job, turn.claim, want) {
            Finding::Decided => {
                self.considered += 1;
                Fate::Next
            }
            Finding::Later => Fate::Later,
            Finding::Beyond => {
                self.beyond.push_back((turn.cohort, turn.claim));
                Fate::Done
            }
            Finding::Waits(order) if self.may_differ(turn, job) => {
                self.keep_if_overdue(job, turn.claim, want);
                self.considered += 1;
                self.waiting.push(Waiting { who: Who::Job, job: job.id, want, order });
                Fate::Next
            }
            Finding::Waits(order) => {
                self.wait_together(turns.cohort(turn.cohort), turn, want, order);
                Fate::Done
            }
        }
    }

    /// Whether another job of the cohort may have others stopped for it where this one may not: what was promised it by
    /// a moment depends on when it was queued.
    fn may_differ(&self, turn: &Turn, job: &Job) -> bool {
        turn.claim.tier == Tier::Guaranteed && self.world.quota.recall_of(job).is_some()
    }

    /// All jobs of the cohort wait for what the first one waits for, or behind the one among them that waits too long.
    fn wait_together(&mut self, cohort: &Cohort<'w>, turn: &Turn, want: Want, order: Order) {
        let members = cohort.members();
        self.considered += members.len();
        let mut rest = order;
        if let Some(overdue) = self.first_overdue(members)
            && self.keep_if_overdue(overdue, turn.claim, want)
        {
            let who = Who::Job;
            self.waiting.push(Waiting { who, job: overdue.id, want, order });
            rest = Order::Behind(overdue.id);
        }
        let who = Who::Cohort(cohort.common.key.clone());
        self.waiting.push(Waiting { who, job: turn.job, want, order: rest });
    }

    fn first_overdue(&self, members: &Members<'w>) -> Option<&'w Job> {
        if self.policy.drain_after_s <= 0 {
            return None;
        }
        let world = self.world;
        let latest = self.now.plus_seconds(-self.policy.drain_after_s);
        let old = members.iter().filter(|place| place.queued <= latest);
        let mut old = old.filter_map(|place| world.jobs.get(&place.job));
        old.find(|job| has_waited(job, self.policy.drain_after_s, self.now))
    }

    /// A job that has waited long for capacity, and for nothing else, keeps the first class that could serve it on the
    /// nodes it may be on. Whether it does.
    fn keep_if_overdue(&mut self, job: &Job, claim: Claim, want: Want) -> bool {
        let overdue = has_waited(job, self.policy.drain_after_s, self.now);
        if !overdue || claim.tier == Tier::Overuse {
            return false;
        }
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            let could = self.families.get_mut(want.family).capable(place, &self.machine);
            let allowed =
                self.within_bounds(want, class) && self.lent(want, class, Lending::could_allow);
            if could >= want.nodes && allowed {
                let territory = self.families.get(want.family).territory;
                self.kept.keep(class, job.id, territory);
                return true;
            }
        }
        false
    }
}
