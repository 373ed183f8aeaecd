//! Plays the queue forward: what runs ends one by one, and each time those start that come first and fit.
//!
//! As in the pass, nodes are kept for gangs that have waited for some time, and for others that have waited long: on
//! those that are free soonest. What is coarser: CPUs and memory are not looked at, nor labels and blocks; nothing is
//! stopped for anybody; nobody starts beside a planned start; the order of turns stays as it is at the beginning; and
//! nobody comes after that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::caps::{CapId, Caps, Taken, forbids};
use super::floor::{Floor, Spot};
use super::lines::{LineId, Lines, Shape};
use super::queue::Queued;
use crate::amount::{GpuMilli, UnixMicros};
use crate::attempt::Attempt;
use crate::estimate::lengths::Ends;
use crate::ids::{GpuClass, ProjectPath};
use crate::planned::PlannedStarts;
use crate::policy::Policy;
use crate::world::World;

/// What is stopped, or should have ended, is believed to need so much longer, seconds.
const OVERDUE_S: i64 = 60;

/// If there was nobody for whom nodes could be kept, it is looked again after so many seconds: with a hundred thousand
/// jobs that wait, looking takes longer than all the rest.
const KEEP_AGAIN_S: i64 = 300;

/// What somebody holds.
#[derive(Debug)]
struct Holding<'w> {
    spots: Vec<(Spot, GpuMilli)>,
    over: Vec<CapId>,
    class: Option<&'w GpuClass>,
    gpus: GpuMilli,
}

/// Nodes that are kept for a job.
#[derive(Debug)]
struct Kept {
    spots: Vec<Spot>,
    /// How many of them have not enough free yet.
    missing: usize,
}

/// A start that is possible now.
struct Chance<'w> {
    place: usize,
    line: LineId,
    class: Option<&'w GpuClass>,
    spots: Vec<Spot>,
}

/// A queue that is played forward.
pub(super) struct Play<'w, 'a> {
    world: &'w World,
    policy: &'a Policy,
    jobs: &'a [Queued<'w>],
    ends_by: Ends<'a>,
    floor: Floor<'w>,
    caps: Caps<'w>,
    lines: Lines<'w>,
    now: UnixMicros,
    ends: BinaryHeap<Reverse<(UnixMicros, usize)>>,
    holdings: Vec<Holding<'w>>,
    kept: BTreeMap<usize, Kept>,
    kept_for: BTreeMap<Spot, usize>,
    /// GPUs that are kept, by class.
    kept_gpus: BTreeMap<&'w GpuClass, GpuMilli>,
    /// How many are kept for, by project and whether they are gangs.
    kept_by: BTreeMap<(&'w ProjectPath, bool), u32>,
    /// Before this moment nobody is looked for again for whom nodes could be kept.
    keep_after: UnixMicros,
    starts: Vec<Option<UnixMicros>>,
    left: usize,
}

impl<'w, 'a> Play<'w, 'a> {
    /// Before the first start. `jobs` are in the order of turns.
    pub fn new(
        world: &'w World,
        policy: &'a Policy,
        jobs: &'a [Queued<'w>],
        planned: &PlannedStarts,
        ends_by: Ends<'a>,
        now: UnixMicros,
    ) -> Self {
        let mut play = Play {
            world,
            policy,
            jobs,
            ends_by,
            floor: Floor::of(world, now),
            caps: Caps::of(world),
            lines: Lines::default(),
            now,
            ends: BinaryHeap::new(),
            holdings: Vec::new(),
            kept: BTreeMap::new(),
            kept_for: BTreeMap::new(),
            kept_gpus: BTreeMap::new(),
            kept_by: BTreeMap::new(),
            keep_after: now,
            starts: vec![None; jobs.len()],
            left: 0,
        };
        world.attempts.values().for_each(|attempt| play.hold(attempt));
        (0..jobs.len()).for_each(|place| play.enter(place, planned));
        play
    }

    /// When each job starts, in their order; `None` for one that never does.
    pub fn run(mut self) -> Vec<Option<UnixMicros>> {
        self.round();
        while self.left > 0
            && let Some(Reverse((at, holding))) = self.ends.pop()
        {
            self.now = self.now.max(at);
            self.end(at, holding);
            let same = |next: &Reverse<(UnixMicros, usize)>| next.0.0 <= self.now;
            if !self.ends.peek().is_some_and(same) {
                self.round();
            }
        }
        self.starts
    }

    /// What runs now.
    fn hold(&mut self, attempt: &'w Attempt) {
        let end = self.end_of(attempt);
        let mut spots: BTreeMap<Spot, GpuMilli> = BTreeMap::new();
        let class = attempt.placement.class.as_ref();
        let job = self.world.jobs.get(&attempt.id.job);
        let in_instances = job.is_some_and(|job| job.spec.per_node.gpus.kind().is_some());
        for held in attempt.placement.nodes.iter().filter(|_| !in_instances) {
            if let Some(spot) = class.and_then(|class| self.floor.find(&held.node, class)) {
                *spots.entry(spot).or_default() += held.gpus_held();
            }
        }
        spots.iter().for_each(|(spot, gpus)| self.floor.expect(*spot, end, *gpus));
        let (over, gpus) = (self.caps.over(&attempt.project), attempt.gpus());
        self.ends.push(Reverse((end, self.holdings.len())));
        self.holdings.push(Holding { spots: spots.into_iter().collect(), over, class, gpus });
    }

    /// A scavenger is over as soon as somebody asks for its place.
    fn end_of(&self, attempt: &Attempt) -> UnixMicros {
        let soon = self.now.plus_seconds(OVERDUE_S);
        if attempt.scavenges() {
            return self.now;
        }
        let (None, Some(job)) = (&attempt.stop, self.world.jobs.get(&attempt.id.job)) else {
            return soon;
        };
        let started = attempt.started.unwrap_or(attempt.leased);
        let ran_s = self.now.millis_since(started).max(0) / 1000;
        let end = started.plus_seconds(self.ends_by.length_s(job.id, &job.spec, ran_s));
        if end > self.now { end } else { soon }
    }

    /// A job that waits; for one with a planned start its nodes are kept. One that can never start is left out.
    fn enter(&mut self, place: usize, planned: &PlannedStarts) {
        let job = &self.jobs[place];
        let shape = Shape::of(job.spec);
        let over = self.caps.over(&job.spec.project);
        let could = |class: Option<&GpuClass>| {
            self.caps.could_allow(&over, Taken { class, gpus: shape.gpus() })
                && !forbids(self.world, job.spec, class)
        };
        if !self.classes(shape).into_iter().any(could) {
            return;
        }
        self.left += 1;
        let nodes = planned.of(job.job).filter(|start| start.nodes.len() == shape.nodes as usize);
        let spots = nodes.and_then(|start| {
            let class = start.class.as_ref()?;
            start.nodes.iter().map(|node| self.floor.find(node, class)).collect::<Option<Vec<_>>>()
        });
        match spots {
            Some(spots) if spots.iter().all(|spot| !self.kept_for.contains_key(spot)) => {
                self.keep(place, shape, spots);
            }
            Some(_) | None => self.lines.push(place, job, &self.caps),
        }
    }

    /// The classes that would do.
    fn classes(&self, shape: Shape<'w>) -> Vec<Option<&'w GpuClass>> {
        match shape.class {
            _ if shape.each.is_zero() => vec![None],
            Some(class) => vec![Some(class)],
            None => self.floor.classes().into_iter().map(Some).collect(),
        }
    }

    fn end(&mut self, at: UnixMicros, holding: usize) {
        let Holding { spots, over, class, gpus } = &mut self.holdings[holding];
        let (spots, class, gpus) = (std::mem::take(spots), *class, *gpus);
        for line in self.caps.give_back(over, Taken { class, gpus }) {
            self.lines.unpark(line);
        }
        for (spot, gpus) in spots {
            self.floor.give_back(spot, at, gpus);
            if let Some(place) = self.kept_for.get(&spot).copied() {
                self.count_missing(place);
            }
        }
    }

    fn count_missing(&mut self, place: usize) {
        let each = Shape::of(self.jobs[place].spec).each;
        let Some(kept) = self.kept.get_mut(&place) else { return };
        kept.missing = kept.spots.iter().filter(|spot| !self.floor.has(**spot, each)).count();
    }

    /// Starts all that can start, and keeps nodes for those that waited long enough.
    fn round(&mut self) {
        loop {
            self.start_kept();
            let mut failed = BTreeSet::new();
            while let Some(chance) = self.first_chance(&mut failed) {
                self.lines.pop(chance.line);
                self.start(chance.place, chance.class, chance.spots);
            }
            if !self.keep_more() {
                return;
            }
        }
    }

    fn start_kept(&mut self) {
        let ready = |(_, kept): &(&usize, &Kept)| kept.missing == 0;
        let ready: Vec<usize> = self.kept.iter().filter(ready).map(|(place, _)| *place).collect();
        for place in ready {
            let shape = Shape::of(self.jobs[place].spec);
            let over = self.caps.over(&self.jobs[place].spec.project);
            let Some(class) = self.kept.get(&place).and_then(|kept| self.class_at(kept)) else {
                continue;
            };
            let taken = Taken { class: Some(class), gpus: shape.gpus() };
            if self.caps.blocking(&over, taken).is_some() {
                continue;
            }
            if let Some(kept) = self.kept.remove(&place) {
                self.open(place, class, &kept.spots);
                self.start(place, Some(class), kept.spots);
            }
        }
    }

    fn class_at(&self, kept: &Kept) -> Option<&'w GpuClass> {
        kept.spots.first().map(|spot| self.floor.class_of(*spot))
    }

    fn open(&mut self, place: usize, class: &'w GpuClass, spots: &[Spot]) {
        let job = &self.jobs[place];
        for spot in spots {
            self.kept_for.remove(spot);
            self.floor.keep(*spot, false);
        }
        let gpus = self.kept_gpus.entry(class).or_default();
        *gpus = gpus.saturating_sub(job.spec.total_gpus());
        let by = self.kept_by.entry((&job.spec.project, job.spec.nodes > 1)).or_default();
        *by = by.saturating_sub(1);
    }

    /// Of all that fit, the one whose turn is first. Room only shrinks in a round, so what failed is not looked at again.
    fn first_chance(&mut self, failed: &mut BTreeSet<Shape<'w>>) -> Option<Chance<'w>> {
        let mut best: Option<Chance<'w>> = None;
        for shape in self.lines.shapes() {
            let first = self.lines.first(shape).map(|(place, _)| place);
            let later =
                first.is_none_or(|place| best.as_ref().is_some_and(|best| best.place < place));
            if later || failed.contains(&shape) {
                continue;
            }
            match self.chance(shape) {
                Some(chance) if best.as_ref().is_none_or(|best| chance.place < best.place) => {
                    best = Some(chance);
                }
                Some(_) => {}
                None => _ = failed.insert(shape),
            }
        }
        best
    }

    /// The first of a shape that may start, where there is room for it. Lines whose project may hold no more are parked.
    fn chance(&mut self, shape: Shape<'w>) -> Option<Chance<'w>> {
        let fits = |class: Option<&'w GpuClass>| match class {
            Some(class) => Some((Some(class), self.floor.pick(class, shape.each, shape.nodes)?)),
            None => Some((None, Vec::new())),
        };
        let places: Vec<_> = self.classes(shape).into_iter().filter_map(fits).collect();
        if places.is_empty() {
            return None;
        }
        while let Some((place, line)) = self.lines.first(shape) {
            let over = &self.lines.line(line).over;
            let taken = |class| Taken { class, gpus: shape.gpus() };
            let may = |(class, _): &&(Option<&'w GpuClass>, Vec<Spot>)| {
                self.caps.blocking(over, taken(*class)).is_none()
            };
            if let Some((class, spots)) = places.iter().find(may) {
                return Some(Chance { place, line, class: *class, spots: spots.clone() });
            }
            let caps =
                places.iter().filter_map(|(class, _)| self.caps.blocking(over, taken(*class)));
            let caps: BTreeSet<CapId> = caps.collect();
            self.lines.park(line);
            caps.into_iter().for_each(|cap| self.caps.park(cap, line));
        }
        None
    }

    fn start(&mut self, place: usize, class: Option<&'w GpuClass>, spots: Vec<Spot>) {
        let job = &self.jobs[place];
        let (shape, over) = (Shape::of(job.spec), self.caps.over(&job.spec.project));
        let end = self.now.plus_seconds(self.ends_by.length_s(job.job, job.spec, 0).max(1));
        let spots: Vec<_> = spots.into_iter().map(|spot| (spot, shape.each)).collect();
        spots.iter().for_each(|(spot, each)| self.floor.take(*spot, end, *each));
        self.caps.take(&over, Taken { class, gpus: shape.gpus() });
        self.ends.push(Reverse((end, self.holdings.len())));
        self.holdings.push(Holding { spots, over, class, gpus: shape.gpus() });
        self.starts[place] = Some(self.now);
        self.left -= 1;
    }

    /// Keeps nodes for the first job that has waited long enough and for which some may be kept; whether there was one.
    fn keep_more(&mut self) -> bool {
        if self.now < self.keep_after || self.kept.len() >= self.policy.planned_starts_max as usize
        {
            return false;
        }
        let heads = |shape: Shape<'w>| self.lines.heads(shape).map(move |head| (head, shape));
        let patient = |shape: &Shape<'w>| self.patience_s(*shape).is_some();
        let shapes = self.lines.shapes().into_iter().filter(patient);
        let mut heads: Vec<_> = shapes.flat_map(heads).collect();
        heads.sort_unstable();
        for ((place, line), shape) in heads {
            if self.may_keep(place, shape)
                && let Some(spots) = self.soonest(shape)
            {
                self.lines.pop(line);
                self.keep(place, shape, spots);
                return true;
            }
        }
        self.keep_after = self.now.plus_seconds(KEEP_AGAIN_S);
        false
    }

    fn soonest(&self, shape: Shape<'w>) -> Option<Vec<Spot>> {
        let class = self.classes(shape).into_iter().flatten().next()?;
        let kept = self.kept_gpus.get(class).copied().unwrap_or_default();
        let most =
            self.floor.capacity(class).0.saturating_mul(self.policy.planned_percent_max.into())
                / 100;
        if !kept.is_zero() && kept.0.saturating_add(shape.gpus().0) > most {
            return None;
        }
        self.floor.soonest(class, shape.each, shape.nodes)
    }

    fn may_keep(&self, place: usize, shape: Shape<'w>) -> bool {
        let job = &self.jobs[place];
        let gang = shape.nodes > 1;
        let most = match gang {
            true => self.policy.planned_gangs_per_project,
            false => self.policy.planned_jobs_per_project,
        };
        let kept = self.kept_by.get(&(&job.spec.project, gang)).copied().unwrap_or(0);
        let waited = |patience_s| job.queued.plus_seconds(patience_s) <= self.now;
        kept < most && self.patience_s(shape).is_some_and(waited)
    }

    /// After how long nodes are kept for such a job, seconds; `None`: never, since it takes less than half a node.
    fn patience_s(&self, shape: Shape<'w>) -> Option<i64> {
        if shape.nodes > 1 {
            return Some(self.policy.planned_gangs_after_s);
        }
        let class = self.classes(shape).into_iter().flatten().next()?;
        let times = self.floor.node_gpus(class).0.div_ceil(shape.each.0.max(1));
        let times = i64::try_from(times).ok().filter(|times| *times <= 2)?;
        Some(self.policy.planned_after_s.saturating_mul(times))
    }

    fn keep(&mut self, place: usize, shape: Shape<'w>, spots: Vec<Spot>) {
        let job = &self.jobs[place];
        for spot in &spots {
            self.floor.keep(*spot, true);
            self.kept_for.insert(*spot, place);
        }
        if let Some(spot) = spots.first() {
            *self.kept_gpus.entry(self.floor.class_of(*spot)).or_default() += shape.gpus();
        }
        *self.kept_by.entry((&job.spec.project, shape.nodes > 1)).or_default() += 1;
        self.kept.insert(place, Kept { spots, missing: 0 });
        self.count_missing(place);
    }
}
