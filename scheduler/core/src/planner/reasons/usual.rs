//! Reasons for which all wait that ask for as much, whoever they are.

use super::{Order, Reasons, Waiting, Want};
use crate::crowded::Usual;
use crate::ids::JobId;
use crate::planner::pass::Who;
use crate::quota::entitle::NodeIndex;

impl Reasons<'_, '_> {
    /// Whether jobs that lack room wait for the reasons for which all wait that ask for as much, whoever they are: nothing
    /// but room keeps them from starting, and how they stand towards guarantees is told beside that.
    pub fn are_usual(&self, want: Want, node: Option<NodeIndex>) -> bool {
        want.slice_s == 0
            && !want.scavenges
            && self.machine.reservations.is_empty()
            && self.machine.power.is_none()
            && self.families.get(want.family).is_anywhere
            && self.within_limits(want)
            && self.kept_from(want, node).next().is_none()
    }

    /// These reasons, as the first of such jobs finds them.
    pub fn usual(&mut self, want: Want, first: JobId) -> Usual {
        let capacity = self.capacity(want.family, want.nodes);
        let order = self.order_by_room(want);
        let waiting = Waiting { who: Who::Job, job: first, want, order };
        let behind = (order == Order::Planned).then(|| self.behind_plans(&waiting)).flatten();
        Usual { capacity, behind }
    }

    /// Whether there is room but for what is planned, for jobs that limits leave room for.
    fn order_by_room(&mut self, want: Want) -> Order {
        let (open, machine) = (self.outlook.horizon.is_open(), self.machine);
        let family = self.families.get_mut(want.family);
        let mut places = 0..family.tries.len();
        let planned = !open && places.any(|place| family.has_room(place, want.nodes, machine));
        if planned { Order::Planned } else { Order::Free }
    }
}
