//! Reservations in the pass: which a job must stay out of, and the turn of those whose nodes are reserved for them.

use super::elastic::Sizes;
use super::{Pass, Want};
use crate::fabric::ReservationSet;
use crate::job::Job;
use crate::planner::closed::Closed;
use crate::planner::gang::{Pick, Territory};
use crate::planner::power::Asked as PowerAsked;
use crate::planner::reservations::Reservation;
use crate::planner::score::ClassIndex;
use crate::planner::slot::Slot;
use crate::planner::turns::{Claim, Lines};
use crate::spec::JobSpec;
use crate::world::QueueKey;

impl<'w> Pass<'w> {
    /// What the job may not be on if it starts now.
    pub(super) fn closed_to(&self, spec: &JobSpec) -> Closed {
        if self.machine.reservations.is_empty() && self.machine.closings.is_empty() {
            return Closed::default();
        }
        let mut by_grace = false;
        let reservations = self.reservations(|reservation| {
            let closes = reservation.closes(spec, self.now);
            by_grace |= closes && reservation.counts_grace();
            closes
        });
        let gone = self.now.plus_seconds(spec.longest_s());
        let closings = self.machine.closings.partition_point(|at| *at < gone);
        let closings = u32::try_from(closings).unwrap_or(u32::MAX);
        let grace_s = if closings > 0 || by_grace { spec.grace_s } else { 0 };
        Closed { reservations, closings, grace_s, within: self.place_asked(spec) }
    }

    /// Place of the reservation by command that the job asks for; one that nothing has if there is no such reservation.
    fn place_asked(&self, spec: &JobSpec) -> Option<u16> {
        let name = spec.constraints.reservation.as_ref()?;
        let asked =
            |one: &Reservation<'_>| matches!(one, Reservation::Command(..)) && one.name() == name;
        let place = self.machine.reservations.iter().position(asked);
        Some(place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX))
    }

    /// Whether any reservation holds now.
    pub(super) fn anything_reserved(&self) -> bool {
        !self.reservations(|one| one.during().contains(self.now)).is_empty()
    }

    fn reservations(&self, mut counts: impl FnMut(Reservation<'w>) -> bool) -> ReservationSet {
        let mut set = ReservationSet::EMPTY;
        for (place, reservation) in self.machine.reservations.iter().enumerate() {
            if counts(*reservation) {
                set.insert(place);
            }
        }
        set
    }

    /// Starts jobs on the nodes that are reserved for them, before all others: in the order of the queue. Those that
    /// do not fit there compete with all others.
    pub(super) fn start_reserved(&mut self, lines: &Lines<'w>) {
        let mut jobs = Vec::new();
        for (spec, members) in lines.cohorts() {
            let own = self.own_reservations(spec);
            if !own.is_empty() {
                let known = self.jobs;
                let members = members.iter(self.policy.max_starts_per_pass);
                let members = members.filter_map(|id| known.get(id));
                jobs.extend(members.map(|job| (QueueKey::of(job), job, own)));
            }
        }
        jobs.sort_unstable_by_key(|(place, ..)| *place);
        for (_, job, own) in jobs {
            if !self.has_decided_enough() && !self.is_kept_back(job) {
                self.try_reserved(job, own);
            }
        }
    }

    /// Reservations that hold now for the job's project or one above it.
    fn own_reservations(&self, spec: &JobSpec) -> ReservationSet {
        self.reservations(|one| one.during().contains(self.now) && one.is_for(&spec.project))
    }

    fn try_reserved(&mut self, job: &'w Job, own: ReservationSet) {
        let project = self.limits.project(&job.spec.project);
        let node = self.fair.as_ref().and_then(|fair| fair.find(&job.spec.project));
        let claim = Claim { tier: super::Tier::Guaranteed, node };
        let want = self.want(&job.spec, &job.status.avoid, project);
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            if let Some(picks) = self.search_reserved(want, class, own) {
                let more = |nodes| self.search_reserved(Want { nodes, ..want }, class, own);
                let picks = Sizes::of(&job.spec).largest(more).unwrap_or(picks);
                self.start(job, claim, want, place, picks);
                self.started.insert(job.id);
                self.considered += 1;
                return;
            }
        }
    }

    /// Places that the job may have now and that are all on nodes reserved for it.
    fn search_reserved(
        &self,
        want: Want,
        class: Option<ClassIndex>,
        own: ReservationSet,
    ) -> Option<Vec<Pick>> {
        let within = self.standing(want, class) == super::Standing::Within;
        if !within || !self.allowed(want, class) {
            return None;
        }
        let family = self.families.get(want.family);
        let territory: &Territory<'_> = &family.territory;
        let reserved = |slot: &Slot<'_>| slot.reserved.meets(own);
        let places = territory.places(&self.machine, class, &family.need);
        let places = places.filter(|pick| reserved(self.machine.slot(pick.slot)));
        let asked = PowerAsked { class, need: &family.need, nodes: want.nodes };
        territory.choose_now(&self.machine, asked, places)
    }
}
