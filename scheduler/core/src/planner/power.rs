//! Power during a pass: what is left below every limit, now and, where something is planned, as long as a job may take.
//!
//! Without limits there is none of it. A node counts for at most one place of each level, and the places of a node lie in each
//! other, as a rack lies in a hall. So of nodes that all need the same, taking one after the other as long as there is power
//! finds as many as can be had together; and whatever part of them is then used fits too.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fit::Machine;
use super::gang::{GpuNeed, Need, Pick};
use super::horizon::{Stretch, Who};
use super::score::{ClassIndex, SlotId};
use super::slot::Slot;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{GpuClass, JobId};
use crate::node::Gpu;
use crate::power::budget::{PlaceKey, gpu_watts};
use crate::power::{PowerLevel, PowerTerms};
use crate::profile::FOREVER;
use crate::world::{Node, NodeFree, World};

/// A limit, by its number.
type PlaceIndex = usize;

/// Watts left below each limit, by its number; less than nothing where too much is reserved already.
pub(super) type Purse = Vec<i64>;

/// What does not change during a pass.
#[derive(Debug)]
struct Map {
    keys: Vec<PlaceKey>,
    limits: Purse,
    /// Left if nothing ran anywhere.
    empty: Purse,
    /// By node.
    of: Vec<Vec<PlaceIndex>>,
}

/// Power now, less what the pass has given away.
#[derive(Debug)]
pub(super) struct Power<'w> {
    world: &'w World,
    map: Arc<Map>,
    left: Purse,
}

/// A limit that keeps a gang from starting.
#[derive(Debug)]
pub(super) struct Short {
    /// Which.
    pub place: PlaceKey,
    /// What it needs there, watts.
    pub needed_watts: u64,
    /// What is left, watts.
    pub left_watts: u64,
    /// The limit, watts.
    pub limit_watts: u64,
}

impl<'w> Power<'w> {
    /// Of all nodes of the world, in the order of names; `None` where nothing is limited.
    pub fn of(world: &'w World) -> Option<Self> {
        if world.power.limits.is_empty() {
            return None;
        }
        let budget = &world.power_budget;
        let places: Vec<_> = budget.places().collect();
        let left_of = |reserved: u64, limit: u64| signed(limit).saturating_sub(signed(reserved));
        let number = |key: &PlaceKey| places.binary_search_by(|(own, _)| (*own).cmp(key)).ok();
        let map = Map {
            keys: places.iter().map(|(key, _)| (*key).clone()).collect(),
            limits: places.iter().map(|(_, place)| signed(place.limit_watts)).collect(),
            empty: places
                .iter()
                .map(|(_, place)| left_of(place.idle_watts, place.limit_watts))
                .collect(),
            of: world
                .nodes
                .keys()
                .map(|node| budget.of_node(node).filter_map(number).collect())
                .collect(),
        };
        let left = places.iter().map(|(_, place)| left_of(place.reserved_watts, place.limit_watts));
        Some(Power { world, left: left.collect(), map: Arc::new(map) })
    }

    fn terms(&self) -> &'w PowerTerms {
        &self.world.power
    }

    /// What is left now.
    pub fn left(&self) -> &Purse {
        &self.left
    }

    /// What is left if all of this is given back too: by node, of each GPU so many thousandths.
    pub fn left_after(&self, machine: &Machine<'w>, soon: &BTreeMap<SlotId, NodeFree>) -> Purse {
        let mut purse = self.left.clone();
        for (slot, soon) in soon {
            let node = machine.slot(*slot);
            let watts = self.given_back(node, soon);
            self.map.of[slot.0 as usize].iter().for_each(|place| purse[*place] += watts);
        }
        purse
    }

    /// What GPUs give back that have nothing to do any more.
    fn given_back(&self, slot: &Slot<'w>, soon: &NodeFree) -> i64 {
        let gpus = slot.node.inventory.gpus.iter().zip(slot.free.gpus.iter().zip(&soon.gpus));
        let emptied = gpus.filter(|(_, (free, soon))| {
            **free < GpuMilli::WHOLE && **free + **soon >= GpuMilli::WHOLE
        });
        emptied.map(|(gpu, _)| self.held_of(slot.node, gpu)).sum()
    }

    /// What a GPU that attempts of the world hold is reserved beyond its idle figure, watts.
    pub fn held_of(&self, node: &Node, gpu: &Gpu) -> i64 {
        let idle = self.terms().idle_watts_of(gpu);
        i64::from(gpu_watts(self.world, node, gpu)) - i64::from(idle)
    }

    /// What would be left if nothing ran.
    pub fn empty(&self) -> &Purse {
        &self.map.empty
    }

    /// What a node of a gang reserves beyond what it does while its GPUs have nothing to do, watts.
    pub fn beyond_idle(&self, class: Option<&GpuClass>, need: &Need) -> i64 {
        let gpus = match need.gpus {
            // A GPU that is cut counts with all that it may draw, whether its instances have something to do or not.
            GpuNeed::None | GpuNeed::Mig(..) => 0,
            GpuNeed::Whole(count) => i64::from(count),
            GpuNeed::Share(_) => 1,
        };
        class.map_or(0, |class| gpus * self.of_gpu(class, need))
    }

    /// What one GPU reserves beyond its idle figure.
    fn of_gpu(&self, class: &GpuClass, need: &Need) -> i64 {
        let terms = self.terms();
        let busy = terms.busy_watts(class, terms.cap_watts(class, need.cap_watts));
        i64::from(busy) - i64::from(terms.idle_watts(class))
    }

    /// What a start at that place reserves beyond what is reserved there now, watts: for a share of a GPU that others have
    /// shares of nothing, unless they started with a lower cap.
    fn cost(&self, slot: &Slot<'w>, class: Option<&GpuClass>, need: &Need, pick: Pick) -> i64 {
        let all = self.beyond_idle(class, need);
        let (GpuNeed::Share(_), Some(gpu), Some(class)) = (need.gpus, pick.gpu, class) else {
            return all;
        };
        let free = |gpus: &[GpuMilli]| gpus.get(gpu as usize) == Some(&GpuMilli::WHOLE);
        if free(&slot.free.gpus) {
            return all;
        }
        if free(&slot.node.free.gpus) {
            // The pass itself has given a share of it, with the same cap.
            return 0;
        }
        let Some(gpu) = slot.node.inventory.gpus.get(gpu as usize) else { return all };
        let now = i64::from(gpu_watts(self.world, slot.node, gpu));
        (all + i64::from(self.terms().idle_watts(class)) - now).max(0)
    }

    /// Takes what a start reserves.
    pub fn take(&mut self, slot: &Slot<'w>, class: Option<&GpuClass>, need: &Need, pick: Pick) {
        let cost = self.cost(slot, class, need, pick);
        for place in &self.map.of[pick.slot.0 as usize] {
            self.left[*place] -= cost;
        }
    }

    /// Keeps what a start on that node reserves, whatever is left.
    pub fn keep(&mut self, slot: SlotId, class: Option<&GpuClass>, need: &Need) {
        let cost = self.beyond_idle(class, need);
        for place in &self.map.of[slot.0 as usize] {
            self.left[*place] -= cost;
        }
    }

    /// The nodes of a gang for which there is power, one after the other, each once; `costs` says what each needs.
    fn affordable(
        &self,
        purse: &Purse,
        picks: impl Iterator<Item = Pick>,
        most: usize,
        cost: impl Fn(Pick) -> i64,
    ) -> Vec<Pick> {
        let (mut purse, mut seen, mut found) =
            (purse.clone(), vec![false; self.map.of.len()], Vec::new());
        for pick in picks {
            let (node, watts) = (pick.slot.0 as usize, cost(pick));
            let places = &self.map.of[node];
            if seen[node] || (watts > 0 && places.iter().any(|place| purse[*place] < watts)) {
                continue;
            }
            seen[node] = true;
            places.iter().for_each(|place| purse[*place] -= watts);
            found.push(pick);
            if found.len() >= most {
                break;
            }
        }
        found
    }

    /// The first limit, the widest first, that a gang on these nodes would break.
    fn first_short(
        &self,
        purse: &Purse,
        picks: &[Pick],
        cost: impl Fn(Pick) -> i64,
    ) -> Option<Short> {
        let mut needed: BTreeMap<PlaceIndex, i64> = BTreeMap::new();
        for pick in picks {
            let watts = cost(*pick);
            for place in &self.map.of[pick.slot.0 as usize] {
                *needed.entry(*place).or_default() += watts;
            }
        }
        let short = |(place, needed): &(PlaceIndex, i64)| *needed > 0 && purse[*place] < *needed;
        let (place, needed) = needed.into_iter().find(short)?;
        Some(Short {
            place: self.map.keys[place].clone(),
            needed_watts: unsigned(needed),
            left_watts: unsigned(purse[place]),
            limit_watts: unsigned(self.map.limits[place]),
        })
    }
}

/// Where a gang is looked for, and by what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The class of its GPUs.
    pub class: Option<ClassIndex>,
    /// What each node gives.
    pub need: &'a Need,
    /// Nodes of it.
    pub nodes: u32,
}

impl<'w> Machine<'w> {
    pub fn name_of(&self, class: Option<ClassIndex>) -> Option<&GpuClass> {
        class.map(|class| self.class_name(class))
    }

    /// Of these places, in their order, as many as there is power for together, each node once.
    pub fn powered(
        &self,
        power: &Power<'w>,
        purse: &Purse,
        picks: impl Iterator<Item = Pick>,
        Asked { class, need, nodes }: Asked<'_>,
    ) -> Vec<Pick> {
        let class = self.name_of(class);
        let cost = |pick: Pick| power.cost(self.slot(pick.slot), class, need, pick);
        power.affordable(purse, picks, nodes as usize, cost)
    }

    /// The same of nodes whose GPUs have nothing to do by then.
    pub fn powered_when_idle(
        &self,
        power: &Power<'w>,
        purse: &Purse,
        picks: impl Iterator<Item = Pick>,
        Asked { class, need, .. }: Asked<'_>,
    ) -> Vec<Pick> {
        let watts = power.beyond_idle(self.name_of(class), need);
        power.affordable(purse, picks, usize::MAX, |_| watts)
    }

    /// Whether there is power for a start at that place alone.
    pub fn affords(
        &self,
        purse: Option<&Purse>,
        pick: Pick,
        Asked { class, need, .. }: Asked<'_>,
    ) -> bool {
        let (Some(power), Some(purse)) = (&self.power, purse) else { return true };
        let watts = power.cost(self.slot(pick.slot), self.name_of(class), need, pick);
        let places = &power.map.of[pick.slot.0 as usize];
        watts <= 0 || places.iter().all(|place| purse[*place] >= watts)
    }

    /// The first limit that a gang at these places would break.
    pub fn short_of(
        &self,
        power: &Power<'w>,
        purse: &Purse,
        picks: &[Pick],
        Asked { class, need, .. }: Asked<'_>,
    ) -> Option<Short> {
        let class = self.name_of(class);
        let cost = |pick: Pick| power.cost(self.slot(pick.slot), class, need, pick);
        power.first_short(purse, picks, cost)
    }
}

/// Power over time: when what runs gives back how much, and what is planned.
#[derive(Debug)]
pub(super) struct Ahead {
    map: Arc<Map>,
    /// By limit, of what ran when the pass began: moments, with all that is given back by then; sorted. Found once asked for.
    ends: OnceCell<Vec<Vec<Return>>>,
    /// By limit, of what the pass has started.
    begun: Vec<Vec<Return>>,
    /// By limit and job.
    holds: Vec<BTreeMap<JobId, Hold>>,
}

/// Watts that are given back at a moment.
pub(super) type Return = (UnixMicros, i64);

/// Power in a planned start, of all its nodes below the limit.
#[derive(Debug, Clone, Copy)]
struct Hold {
    who: Who,
    during: Stretch,
    watts: i64,
}

impl Ahead {
    /// Nothing is planned.
    pub fn of(power: &Power<'_>) -> Self {
        let places = power.map.keys.len();
        Ahead {
            map: Arc::clone(&power.map),
            ends: OnceCell::new(),
            begun: vec![Vec::new(); places],
            holds: vec![BTreeMap::new(); places],
        }
    }

    /// Plans what a start on the node reserves.
    pub fn hold(&mut self, slot: SlotId, who: Who, during: Stretch, watts: i64) {
        for place in &self.map.of[slot.0 as usize] {
            let fresh = Hold { who, during, watts: 0 };
            self.holds[*place].entry(who.job).or_insert(fresh).watts += watts;
        }
    }

    /// Gives back what was planned for a job below every limit of the node: its other nodes are given back with it.
    pub fn release(&mut self, slot: SlotId, job: JobId) {
        for place in &self.map.of[slot.0 as usize] {
            self.holds[*place].remove(&job);
        }
    }

    /// The pass has started something on the node.
    pub fn begin(&mut self, slot: SlotId, returns: &[Return]) {
        for place in &self.map.of[slot.0 as usize] {
            self.begun[*place].extend_from_slice(returns);
        }
    }

    /// What is left below every limit for somebody all the time from a moment until another, by what is left now. `find`
    /// tells what ran when the pass began, node by node.
    pub fn purse(
        &self,
        left_now: &Purse,
        who: Who,
        during: Stretch,
        find: impl FnOnce() -> Vec<(SlotId, Return)>,
    ) -> Purse {
        let ends = self.ends.get_or_init(|| self.by_place(find()));
        let of_place = |(place, left): (usize, &i64)| {
            let back = |by| back_by(&ends[place], &self.begun[place], by);
            least_left(*left, self.holds[place].values(), who, during, back)
        };
        left_now.iter().enumerate().map(of_place).collect()
    }

    /// Moments after another at which more may be left.
    pub fn moments(
        &self,
        after: UnixMicros,
        find: impl FnOnce() -> Vec<(SlotId, Return)>,
    ) -> BTreeSet<UnixMicros> {
        let ends = self.ends.get_or_init(|| self.by_place(find()));
        let returns = ends.iter().chain(&self.begun).flatten().map(|(at, _)| *at);
        let holds = self.holds.iter().flat_map(BTreeMap::values).map(|hold| hold.during.until);
        returns.chain(holds).filter(|at| *at > after && *at < FOREVER).collect()
    }

    fn by_place(&self, found: Vec<(SlotId, Return)>) -> Vec<Vec<Return>> {
        let mut ends: Vec<Vec<Return>> = vec![Vec::new(); self.map.keys.len()];
        for (slot, end) in found {
            self.map.of[slot.0 as usize].iter().for_each(|place| ends[*place].push(end));
        }
        for of_place in &mut ends {
            of_place.sort_unstable();
            let mut sum = 0;
            for (_, watts) in of_place {
                sum += *watts;
                *watts = sum;
            }
        }
        ends
    }
}

/// What is given back by a moment; of `ends` each has all before it in it.
fn back_by(ends: &[Return], begun: &[Return], by: UnixMicros) -> i64 {
    let ended = ends.partition_point(|(at, _)| *at <= by);
    let of_ends = ended.checked_sub(1).map_or(0, |last| ends[last].1);
    of_ends + begun.iter().filter(|(at, _)| *at <= by).map(|(_, watts)| *watts).sum::<i64>()
}

/// What is left only grows with an end and only shrinks where something planned begins, so it is least at the first moment or
/// at one of those.
fn least_left<'h>(
    left: i64,
    holds: impl Iterator<Item = &'h Hold>,
    who: Who,
    during: Stretch,
    back: impl Fn(UnixMicros) -> i64,
) -> i64 {
    let mut turns: Vec<Return> = Vec::new();
    for hold in holds.filter(|hold| who.gives_way_to(hold.who)) {
        if hold.during.from < during.until && during.from < hold.during.until {
            turns.push((hold.during.from.max(during.from), -hold.watts));
            turns.push((hold.during.until, hold.watts));
        }
    }
    // Where one ends and another begins, both have happened.
    turns.sort_unstable_by_key(|(at, watts)| (*at, Reverse(*watts)));
    let mut held = 0;
    let mut least = left + back(during.from);
    for (at, watts) in turns.into_iter().take_while(|(at, _)| *at < during.until) {
        held -= watts;
        least = least.min(left + back(at) - held);
    }
    least
}

impl Short {
    /// What it is of, in words: "the whole site", "hall h1".
    pub fn place_words(&self) -> String {
        match &self.place {
            (PowerLevel::Site, _) => "the whole site".to_owned(),
            (level, name) => format!("{} {name}", level.word()),
        }
    }
}

fn signed(watts: u64) -> i64 {
    i64::try_from(watts).unwrap_or(i64::MAX)
}

fn unsigned(watts: i64) -> u64 {
    u64::try_from(watts).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(job: u64) -> Who {
        Who { job: JobId(job), guaranteed: false, plans_gang: true }
    }

    fn stretch(from: i64, until: i64) -> Stretch {
        Stretch { from: UnixMicros(from), until: UnixMicros(until) }
    }

    /// Of 100 W left now, with these planned by jobs 1, 2 and so on, for job 9.
    fn left(holds: &[(i64, i64, i64)], during: Stretch, ends: &[Return]) -> i64 {
        let holds: Vec<Hold> = (1..)
            .zip(holds)
            .map(|(job, &(from, until, watts))| Hold {
                who: who(job),
                during: stretch(from, until),
                watts,
            })
            .collect();
        let back = |by: UnixMicros| {
            ends.iter().filter(|(at, _)| *at <= by).map(|(_, watts)| *watts).sum::<i64>()
        };
        least_left(100, holds.iter(), who(9), during, back)
    }

    #[test]
    fn what_is_left_is_least_where_something_planned_begins() {
        assert_eq!(left(&[], stretch(0, 10), &[]), 100);
        assert_eq!(left(&[(5, 20, 60)], stretch(0, 10), &[]), 40);
        assert_eq!(left(&[(10, 20, 60)], stretch(0, 10), &[]), 100, "it begins after it");
        assert_eq!(left(&[(0, 5, 60)], stretch(5, 10), &[]), 100, "it ends before it");
        assert_eq!(left(&[(0, 5, 60), (5, 9, 70)], stretch(0, 10), &[]), 30, "one after the other");
        assert_eq!(left(&[(0, 6, 60), (5, 9, 30)], stretch(0, 10), &[]), 10, "both at once");
    }

    #[test]
    fn what_ends_is_there_from_then_on() {
        let ends = [(UnixMicros(3), 50), (UnixMicros(7), 40)];
        assert_eq!(left(&[], stretch(0, 10), &ends), 100, "not before");
        assert_eq!(left(&[], stretch(3, 10), &ends), 150);
        assert_eq!(left(&[(5, 9, 120)], stretch(3, 10), &ends), 30);
        assert_eq!(left(&[(8, 9, 120)], stretch(3, 10), &ends), 70);
    }

    #[test]
    fn what_is_planned_for_oneself_or_for_one_job_alone_is_not_in_the_way_of_a_gang() {
        let hold = |who: Who| Hold { who, during: stretch(0, 10), watts: 60 };
        let alone = hold(Who { plans_gang: false, ..who(1) });
        let found = least_left(100, [hold(who(9)), alone].iter(), who(9), stretch(0, 5), |_| 0);
        assert_eq!(found, 100);
    }

    #[test]
    fn what_was_given_back_by_a_moment_is_a_sum() {
        let ends = [(UnixMicros(3), 50), (UnixMicros(7), 90)];
        let begun = [(UnixMicros(4), 5)];
        let back = |at| back_by(&ends, &begun, UnixMicros(at));
        assert_eq!([back(2), back(3), back(4), back(7)], [0, 50, 55, 95]);
    }
}
