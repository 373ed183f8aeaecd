//! Cohorts that need no turn: of which it is known at the beginning of the pass that none of their jobs starts, and that
//! no start is planned for them. On a full machine those are nearly all of a hundred thousand.
//!
//! Within a pass what is free only shrinks and limits only fill. So what finds no room, or is allowed none, before
//! anybody's turn finds none in its own, whenever that is. A job that others may have to stop for is none of these: only
//! its turn tells whether they do.

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
        lines.take_out(|lines, plain| {
            let known = self.known_beforehand(lines, plain, &least);
            if let Some(known) = known {
                self.considered += plain.of.jobs.len();
                self.known.push(known);
            }
            known.is_some()
        });
    }

    fn known_beforehand(
        &mut self,
        lines: &Lines<'w>,
        plain: &Plain<'w>,
        least: &Least,
    ) -> Option<Known> {
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
        let mut lacks_room = true;
        let least = least.get(plain.of.kind as usize).copied().unwrap_or_default();
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            let fits = self.fits_beforehand(plain, (want, place), claim, least);
            let waits = !fits || !self.allowed(want, class);
            lacks_room &= !fits;
            let in_turn = may_plan && self.could_plan(want, class);
            if !waits || in_turn || self.standing(want, class) == Standing::Overuse {
                return None;
            }
        }
        Some(Known { number: plain.number, first: first.job, want, claim, lacks_room })
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
