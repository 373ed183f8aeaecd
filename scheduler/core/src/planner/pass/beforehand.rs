//! Cohorts that need no turn: of which it is known at the beginning of the pass that none of their jobs starts, and that
//! no start is planned for them. On a full machine those are nearly all of a hundred thousand.
//!
//! Of those for which a start could be planned, only the first need their turns: a pass plans a few.
//!
//! Within a pass what is free only shrinks and limits only fill. So what finds no room, or is allowed none, before
//! anybody's turn finds none in its own, whenever that is. A job that others may have to stop for is none of these: only
//! its turn tells whether they do.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::plans::CHOICES_MAX;
use super::{Order, Pass, Waiting, Want, Who};
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
        lines.keep(|lines, plain| {
            let Some((known, could)) = self.known_beforehand(lines, plain, &least) else {
                return true;
            };
            self.considered += plain.of.jobs.len();
            if could {
                could_plan.push((known, *plain));
            } else {
                self.known.push(known);
            }
            false
        });
        self.give_turns(lines, could_plan);
    }

    /// Turns for the first of those for which a start could be planned.
    fn give_turns(&mut self, lines: &mut Lines<'w>, could_plan: Vec<(Known, Plain<'w>)>) {
        let Some(fair) = &self.fair else { return };
        let mut burdens = BTreeMap::new();
        let turn = |(known, plain): (Known, Plain<'w>)| {
            let (gpus, first) = (plain.of.wish.gpus, plain.of.jobs.first());
            let place = first.map(|first| (first.priority, first.queued, Reverse(gpus), first.job));
            let of_line = || lines.burdens(&plain, fair);
            let burdens = Arc::clone(burdens.entry(plain.line()).or_insert_with(of_line));
            (burdens, place, known, plain)
        };
        let mut turns: Vec<_> = could_plan.into_iter().map(turn).collect();
        let most = (CHOICES_MAX as usize * 2).min(turns.len());
        if most < turns.len() {
            turns.select_nth_unstable_by(most, |one, other| {
                (&one.0, one.1).cmp(&(&other.0, other.1))
            });
        }
        for (_, _, _, plain) in turns.drain(..most) {
            self.considered = self.considered.saturating_sub(plain.of.jobs.len());
            lines.take_back(plain);
        }
        self.known.extend(turns.into_iter().map(|(_, _, known, _)| known));
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
        let may_plan = !wish.asks_reservation && self.may_plan(first.queued, claim, want);
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
        let first = plain.of.jobs.first().map(|first| first.job);
        // Whoever waits for nodes that are kept for it does not stand for the others.
        let job = first.filter(|job| self.stand_by.of(*job).is_none()).unwrap_or(JobId(0));
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

    /// What is to be told of a cohort that was set aside.
    pub(super) fn waiting_of(&mut self, known: &Known) -> Waiting {
        let order = self.order_of(known);
        Waiting { who: Who::Known(known.number), job: known.first, want: known.want, order }
    }

    /// How the order of jobs bears on it, by what is left at the end of the pass.
    fn order_of(&mut self, known: &Known) -> Order {
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
