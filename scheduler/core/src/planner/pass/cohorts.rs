//! Turns in the pass: the first job of a cohort stands for all of it where it cannot start.

use std::collections::BTreeSet;

use super::{Finding, Order, Pass, Waiting, Want, Who};
use crate::ids::NodeName;
use crate::job::Job;
use crate::planner::fair::Tier;
use crate::planner::limits::ProjectIndex;
use crate::planner::request::FamilyId;
use crate::planner::turns::{Claim, Cohort, Common, Fate, Name, Turn, Turns};
use crate::spec::JobSpec;
use crate::world;

impl<'w> Pass<'w> {
    /// By guarantees, and by use and shares.
    pub(super) fn run_turns(&mut self, turns: &mut Turns<'w>) {
        while !self.has_decided_enough() {
            let (fair, limits) = (self.fair.as_ref(), &mut self.limits);
            let Some(turn) = fair.and_then(|fair| turns.next(fair, limits)) else {
                break;
            };
            let before = self.decisions.len();
            let fate = self.take_turn(turns, &turn);
            if self.decisions.len() > before && self.is_room_gone() {
                turns.keep_roaming();
            }
            if fate == Fate::Done {
                self.pass_over(turns, &turn);
            }
            turns.settle(&turn, fate);
        }
    }

    /// Looks at a job, or at its whole cohort if it tells for all.
    pub(super) fn take_turn(&mut self, turns: &mut Turns<'w>, turn: &Turn) -> Fate {
        let Some(job) = self.jobs.get(turn.job) else { return Fate::Next };
        let is_done = self.started.contains(&job.id) || self.stand_by.of(job.id).is_some();
        if is_done || self.is_kept_back(job) {
            return Fate::Next;
        }
        let want = self.want_of(turns.cohort_mut(turn.cohort));
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
                if waits_for_room(order) && self.plan_start(job, turn.claim, want) {
                    self.considered += 1;
                    return Fate::Next;
                }
                self.considered += 1 + turns.cohort_mut(turn.cohort).advance_to_last();
                self.waiting.push(Waiting { who: Who::Job, job: job.id, want, order });
                Fate::Next
            }
            Finding::Waits(order) => {
                let cohort = turns.cohort(turn.cohort);
                if waits_for_room(order) && self.plan_cohort(cohort, turn, want) {
                    self.considered += 1;
                    return Fate::Next;
                }
                self.wait_together(turns.cohort(turn.cohort), turn, want, order);
                Fate::Done
            }
        }
    }

    fn want_of(&mut self, cohort: &mut Cohort<'w>) -> Want {
        if let Some(want) = cohort.want {
            return want;
        }
        let Common { spec, avoid, wish, .. } = cohort.common;
        let want = match cohort.common.name {
            Name::Apart(_) => self.want(spec, avoid, cohort.project),
            Name::World { kind, .. } => {
                let family = self.family_of(kind, (spec, avoid));
                self.want_in(family, wish, cohort.project)
            }
        };
        *cohort.want.insert(want)
    }

    /// What jobs of a cohort of the world compete for.
    pub(super) fn want_of_world(&mut self, of: &'w world::Cohort, project: ProjectIndex) -> Want {
        let family = self.family_of(of.kind, (of.key.spec(), of.key.avoid()));
        self.want_in(family, of.wish, project)
    }

    fn family_of(
        &mut self,
        kind: u32,
        (spec, avoid): (&'w JobSpec, &'w BTreeSet<NodeName>),
    ) -> FamilyId {
        let closed = self.closed_to(spec);
        self.families.of_kind(kind, (spec, avoid), closed, &self.machine)
    }

    /// Passes over the cohorts behind the one whose turn it was, in their line, as far as it is known that they wait for
    /// room: of a hundred thousand that wait, nearly all ask for what was looked for in vain.
    fn pass_over(&mut self, turns: &mut Turns<'w>, turn: &Turn) {
        if turn.claim.tier != Tier::Borrowed || self.who_gives_way() {
            return;
        }
        while let Some(next) = turns.behind(turn) {
            let want = self.want_of(turns.cohort_mut(next.cohort));
            let cohort = turns.cohort(next.cohort);
            let Some(order) = self.known_to_wait(cohort, next.claim, want) else { return };
            self.wait_together(cohort, &next, want, order);
            turns.pass_over(turn);
        }
    }

    /// Whether more than room may bear on a job that borrows: others that stop for it, or for which it must wait.
    fn who_gives_way(&self) -> bool {
        self.world.scavengers > 0 || !self.expecting.is_empty() || !self.wanted.is_empty()
    }

    /// How the order bears on a cohort of which it is known without a look that none starts, and that no start is planned
    /// for it; else `None`.
    fn known_to_wait(&mut self, cohort: &Cohort<'_>, claim: Claim, want: Want) -> Option<Order> {
        let first = cohort.members().first()?;
        let plain = !first.promised.0 && want.slice_s == 0 && !cohort.common.wish.has_own_terms;
        if !plain || self.started.contains(&first.job) || self.plans.has_any(want) {
            return None;
        }
        let may_plan = self.may_plan(first.queued, claim, want);
        let mut order = Order::Free;
        for place in 0..self.families.get(want.family).tries.len() {
            let attempt = &self.families.get(want.family).tries[place];
            let (class, failed) = (attempt.class, attempt.failed.cover(want.nodes, want.limit_s));
            let allowed = self.allowed(want, class);
            if (allowed && !failed) || (may_plan && self.could_plan(want, class)) {
                return None;
            }
            if allowed {
                order = order.max(self.why_no_place(want, place));
            }
        }
        Some(order)
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
        for job in self.plans.jobs_of(want) {
            self.waiting.push(Waiting { who: Who::Job, job, want, order });
        }
        let who = Who::Cohort(turn.cohort);
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
