//! Turns in the pass: the first job of a cohort stands for all of it where it cannot start.

use super::{Finding, Order, Pass, Waiting, Want, Who};
use crate::job::Job;
use crate::planner::fair::Tier;
use crate::planner::turns::{Cohort, Fate, Turn, Turns};

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
        let Some(job) = self.jobs.get(turn.job) else { return Fate::Next };
        if self.started.contains(&job.id) || self.is_kept_back(job) {
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
                if waits_for_room(order) {
                    self.plan_start(job, turn.claim, want);
                }
                self.considered += 1 + turns.cohort_mut(turn.cohort).advance_to_last();
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

    /// All jobs of the cohort wait for what the first one waits for; for the first of them a start is planned.
    fn wait_together(&mut self, cohort: &Cohort<'w>, turn: &Turn, want: Want, order: Order) {
        let members = cohort.members();
        self.considered += members.len();
        if waits_for_room(order) {
            self.plan_cohort(cohort, turn, want);
        }
        for job in self.plans.jobs_of(want) {
            self.waiting.push(Waiting { who: Who::Job, job, want, order });
        }
        let who = Who::Cohort(cohort.common.key.clone());
        self.waiting.push(Waiting { who, job: turn.job, want, order });
    }
}

/// Whether it is room that a job lacks: a start can be planned for it then.
fn waits_for_room(order: Order) -> bool {
    match order {
        Order::Free | Order::Planned => true,
        Order::BehindOwn(_) | Order::Later(_) | Order::Freeing => false,
    }
}
