//! Cohorts that need no turn: of which it is known at the beginning of the pass that none of their jobs starts, and that
//! no start is planned for them. On a full machine those are nearly all of a hundred thousand.
//!
//! Of those for which a start could be planned, only the first need their turns: a pass plans a few.
//!
//! Within a pass what is free only shrinks and limits only fill. So what finds no room, or is allowed none, before
//! anybody's turn finds none in its own, whenever that is. A job that others may have to stop for is none of these: only
//! its turn tells whether they do.

use std::cmp::Reverse;

use super::backfill::CHOICES_MAX;
use super::{Order, Pass, Want};
use crate::account::Standing;
use crate::ids::JobId;
use crate::planner::fair::Tier;
use crate::planner::horizon::{Ask, Who as Asker};
use crate::planner::turns::{Claim, Lines, Plain};
use crate::world::CohortNumber;

/// A cohort of the world that waits whatever the turns bring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Which.
    pub number: CohortNumber,
    /// The first of it.
    pub first: JobId,
    /// For what.
    pub want: Want,
    /// In whose name.
    pub claim: Claim,
    /// Whether there is too little room for it, whatever its project may have.
    pub lacks_room: bool,
}

/// By kind of request, the fewest nodes and the fewest seconds that any cohort asks for.
type Least = Vec<(u32, i64)>;

impl<'w> Pass<'w> {
    /// Takes out of the lines what waits whatever the turns bring.
    pub(super) fn set_aside(&mut self, lines: &mut Lines<'w>) {
        // Anybody may have these stopped in their turn.
        if self.world.scavengers > 0 {
            return;
        }
        let least = least_of(lines.plain(), self.world.cohorts.sizes()[1]);
        let mut could_plan = Vec::new();
        lines.keep(|lines, plain| match self.known_beforehand(lines, plain, &least) {
            Some((known, could)) => {
                could_plan.extend(could.then_some((known, *plain)));
                self.known.extend((!could).then_some(known));
                false
            }
            None => true,
        });
        self.give_turns(lines, could_plan);
        let jobs =
            |known: &Known| self.world.cohorts.get(known.number).map_or(0, |of| of.jobs.len());
        self.considered += self.known.iter().map(jobs).sum::<usize>();
    }

    /// Turns for the first of those for which a start could be planned.
    fn give_turns(&mut self, lines: &mut Lines<'w>, could_plan: Vec<(Known, Plain<'w>)>) {
        let Some(fair) = &self.fair else { return };
        let turn = |(known, plain): (Known, Plain<'w>)| {
            let wish = plain.of.wish;
            let place = plain.of.jobs.first().map(|first| (first.priority, first.queued));
            (lines.burdens(&plain, fair), place, Reverse(wish.gpus), known.first, known, plain)
        };
        let mut turns: Vec<_> = could_plan.into_iter().map(turn).collect();
        turns.sort_unstable_by(|one, other| {
            (&one.0, one.1, one.2, one.3).cmp(&(&other.0, other.1, other.2, other.3))
        });
        let most = CHOICES_MAX as usize * 2;
        for (at, (.., known, plain)) in turns.into_iter().enumerate() {
            if at < most {
                lines.take_back(plain);
            } else {
                self.known.push(known);
            }
        }
    }

    /// What is known of the cohort, and whether a start could be planned for it; `None` if only its turn tells.
    fn known_beforehand(
        &mut self,
        lines: &Lines<'w>,
        plain: &Plain<'w>,
        least: &Least,
    ) -> Option<(Known, bool)> {
        let (wish, first) = (plain.of.wish, plain.of.jobs.first()?);
        let (claim, project) = lines.claim(plain, self.fair.as_ref()?);
        let plain_terms = !first.promised.0 && !wish.has_own_terms && claim.tier == Tier::Borrowed;
        if !plain_terms || self.started.contains(&first.job) {
            return None;
        }
        let want = self.want_of_world(plain.of, project);
        // What is planned for itself is not in the way of a job, so it may find room where others find none.
        if self.plans.has_any(want) {
            return None;
        }
        let may_plan = self.may_plan(first.queued, claim, want);
        let (mut lacks_room, mut could_plan) = (true, false);
        let least = least.get(plain.of.kind as usize).copied().unwrap_or_default();
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            let fits = self.fits_beforehand(plain, (want, place), claim, least);
            let waits = !fits || !self.allowed(want, class);
            lacks_room &= !fits;
            if !waits || self.standing(want, class) == Standing::Overuse {
                return None;
            }
            could_plan |=
                may_plan && self.could_plan(want, class) && self.can_ever_fit(want, place);
        }
        let known = Known { number: plain.number, first: first.job, want, claim, lacks_room };
        Some((known, could_plan))
    }

    /// Whether there is room now for such a gang that borrows. The least that any of its kind asks for is looked for
    /// first: where that does not fit, one look tells for all of them.
    fn fits_beforehand(
        &mut self,
        plain: &Plain<'w>,
        (want, place): (Want, usize),
        claim: Claim,
        least: (u32, i64),
    ) -> bool {
        let (nodes, limit_s) = least;
        for want in [Want { nodes, limit_s, ..want }, want] {
            let attempt = &self.families.get(want.family).tries[place];
            let fits = attempt
                .beforehand
                .fits(want.nodes, want.limit_s)
                .unwrap_or_else(|| self.look_beforehand(plain, (want, place), claim));
            if !fits {
                return false;
            }
        }
        true
    }

    fn look_beforehand(
        &mut self,
        plain: &Plain<'w>,
        (want, place): (Want, usize),
        claim: Claim,
    ) -> bool {
        let job = plain.of.jobs.first().map_or(JobId(0), |first| first.job);
        let family = self.families.get(want.family);
        let ask = Ask {
            who: Asker { job, guaranteed: claim.tier == Tier::Guaranteed, plans_gang: false },
            project: &plain.of.key.spec().project,
            class: family.tries[place].class,
            need: family.need,
            seconds: want.limit_s.saturating_add(self.policy.default_grace_s.into()),
        };
        let fits = self.has_place(want, place, &ask);
        // Where nothing is planned, the time limit makes no difference.
        let seconds = match (self.horizon.is_open(), fits) {
            (false, _) => want.limit_s,
            (true, true) => i64::MAX,
            (true, false) => 0,
        };
        self.families.get_mut(want.family).tries[place].beforehand.note(want.nodes, seconds, fits);
        fits
    }

    /// How the order of jobs bears on a cohort that was set aside, by what is left at the end of the pass.
    pub(super) fn order_of(&mut self, known: &Known) -> Order {
        let Known { claim, want, .. } = *known;
        let mut order = Order::Free;
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            let ahead = claim.node.zip(class).and_then(|place| self.expecting.get(&place));
            let found = match ahead {
                Some(ahead) => Order::BehindOwn(*ahead),
                None if self.allowed(want, class) => self.why_no_place(want, place),
                None => Order::Free,
            };
            order = order.max(found);
        }
        order
    }
}

fn least_of(cohorts: &[Plain<'_>], kinds: usize) -> Least {
    let mut least = vec![(u32::MAX, i64::MAX); kinds];
    for Plain { of, .. } in cohorts {
        let (nodes, seconds) = &mut least[of.kind as usize];
        (*nodes, *seconds) = ((*nodes).min(of.wish.nodes), (*seconds).min(of.wish.limit_s));
    }
    least
}
