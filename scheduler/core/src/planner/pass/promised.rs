//! Jobs in the pass that others stopped for in an earlier one.

use super::{Pass, Waiting, Want, Who};
use crate::job::Job;
use crate::planner::gang::Pick;
use crate::planner::order::Order;
use crate::planner::power::Asked;
use crate::planner::recall::{Recalls, Scene};
use crate::planner::score::ClassIndex;
use crate::planner::turns::Claim;

impl<'w> Pass<'w> {
    /// Starts a job that others stopped for on the nodes that were promised to it, or keeps them for it as long as
    /// not all have gone. False if there is no promise, or none that still holds.
    pub(super) fn stand_by_promise(&mut self, job: &'w Job, claim: Claim, want: Want) -> bool {
        let (Some(node), promised) = (claim.node, &job.status.promised) else { return false };
        if promised.is_empty() {
            return false;
        }
        self.recorder.note_promised(job.id);
        for place in 0..self.families.get(want.family).tries.len() {
            let Some(class) = self.families.get(want.family).tries[place].class else { continue };
            if !self.is_guaranteed(job, want, node, class) {
                continue;
            }
            if let Some(picks) = self.places_promised(job, want, class) {
                self.start(job, claim, want, place, picks);
                return true;
            }
            let stands = |recalls: &mut Recalls<'w>, scene: Scene<'_, 'w>| {
                recalls.stand_by(scene, want, node, class, promised)
            };
            if let Some(found) = self.with_recalls(stands) {
                self.expecting.entry((node, class)).or_insert(job.id);
                self.make_room(job.id, want, node, class, found);
                let order = Order::Freeing;
                self.waiting.push(Waiting { who: Who::Job, job: job.id, want, order });
                return true;
            }
        }
        false
    }

    fn places_promised(&self, job: &Job, want: Want, class: ClassIndex) -> Option<Vec<Pick>> {
        if !self.allowed(want, Some(class)) {
            return None;
        }
        let family = self.families.get(want.family);
        let names = job.status.promised.iter();
        let places = self.machine.places_among(names, Some(class), &family.need).into_iter();
        let inside = |pick: &Pick| family.territory.contains(self.machine.slot(pick.slot));
        let asked = Asked { class: Some(class), need: &family.need, nodes: want.nodes };
        family.territory.choose_now(&self.machine, asked, places.filter(inside))
    }
}
