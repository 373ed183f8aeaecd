//! When what is held on a node becomes free, if everything takes as long as it may, and what is planned to begin there.
//!
//! Ends are found node by node, once somebody asks. GPUs of a class on a node are as good as each other, so they are
//! counted; a share counts as the whole GPU that it is on. So are instances of a kind, apart from GPUs.

mod power;

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::fit::Machine;
use super::gang::{GpuNeed, Need, Pick};
use super::power::Ahead;
use super::score::{ClassIndex, SlotId};
use super::slot::Slot;
use crate::amount::{CpuMilli, MemoryMib, UnixMicros};
use crate::attempt::{Attempt, NodeAllocation};
use crate::ids::{JobId, ProjectPath};
use crate::mig::MigKind;
use crate::profile::FOREVER;
use crate::quota::Interval;
use crate::world::World;

/// What ends later than it may, or is being stopped, is believed to need so much longer, seconds.
const OVERDUE_S: i64 = 60;

/// When things are free.
#[derive(Debug)]
pub(super) struct Horizon<'w> {
    world: &'w World,
    now: UnixMicros,
    /// By node; found once asked for.
    ends: Vec<OnceCell<Ends>>,
    /// What the pass itself has started, which is held from now on.
    begun: BTreeMap<SlotId, Vec<(UnixMicros, NodeAllocation)>>,
    holds: BTreeMap<SlotId, Vec<Hold>>,
    /// The same of power; `None` where nothing is limited.
    power: Option<Ahead>,
}

/// When what is held on one node is free.
#[derive(Debug)]
struct Ends {
    /// Of each GPU, in the order of the inventory.
    gpus: Vec<UnixMicros>,
    /// CPUs and memory that are held, in the order of their ends.
    beside: Vec<(UnixMicros, CpuMilli, MemoryMib)>,
}

/// A part of a node in a planned start.
#[derive(Debug, Clone, Copy)]
struct Hold {
    who: Who,
    during: Stretch,
    class: Option<ClassIndex>,
    /// Of which kind, if they are instances.
    kind: Option<MigKind>,
    gpus: u32,
    cpu_milli: CpuMilli,
    memory_mib: MemoryMib,
}

/// Who asks for room, or has it planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Who {
    /// The job, whose own plan is not in its way.
    pub job: JobId,
    /// Whether it is within a guarantee: then those that borrow are not in its way either.
    pub guaranteed: bool,
    /// Whether it plans a start for a gang: then plans for jobs of one node are not in its way. Those find other places.
    pub plans_gang: bool,
}

/// From a moment until before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its first moment.
    pub from: UnixMicros,
    /// The moment after its last.
    pub until: UnixMicros,
}

/// What is asked of one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Who asks.
    pub who: Who,
    /// In whose name.
    pub project: &'a ProjectPath,
    /// For GPUs of this class.
    pub class: Option<ClassIndex>,
    /// And for this beside them.
    pub need: Need,
    /// For so long, seconds.
    pub seconds: i64,
}

impl Ask<'_> {
    /// The same to plan a start on so many nodes.
    pub fn ahead(self, nodes: u32) -> Self {
        Ask { who: Who { plans_gang: nodes > 1, ..self.who }, ..self }
    }
}

impl Who {
    /// Whether what is planned for the other is in its way.
    pub fn gives_way_to(self, other: Who) -> bool {
        self.job != other.job
            && (other.guaranteed || !self.guaranteed)
            && (other.plans_gang || !self.plans_gang)
    }
}

impl<'w> Horizon<'w> {
    /// Nothing is planned and nothing known yet, of so many nodes.
    pub fn of(world: &'w World, now: UnixMicros, machine: &Machine<'_>) -> Self {
        let ends = machine.slots.iter().map(|_| OnceCell::new()).collect();
        let power = machine.power.as_ref().map(Ahead::of);
        Horizon { world, now, ends, begun: BTreeMap::new(), holds: BTreeMap::new(), power }
    }

    /// Whether nothing is planned anywhere.
    pub fn is_open(&self) -> bool {
        self.holds.is_empty()
    }

    /// Jobs for which something is planned on the node.
    pub fn planned_on(&self, slot: SlotId) -> impl Iterator<Item = JobId> + '_ {
        self.holds.get(&slot).into_iter().flatten().map(|hold| hold.who.job)
    }

    /// What the pass started is held until its time limit is over.
    pub fn begin(
        &mut self,
        machine: &Machine<'_>,
        slot: SlotId,
        (held, until): (NodeAllocation, UnixMicros),
        cap_watts: Option<u32>,
    ) {
        let returns = self.returns_of(machine, slot, (&held, until), cap_watts);
        if let Some(power) = &mut self.power {
            power.begin(slot, &returns);
        }
        self.ends[slot.0 as usize].take();
        self.begun.entry(slot).or_default().push((until, held));
    }

    /// Plans a part of the node for somebody.
    pub fn hold(&mut self, machine: &Machine<'_>, slot: SlotId, ask: &Ask<'_>, from: UnixMicros) {
        let Ask { who, class, need, seconds, .. } = *ask;
        let during = Stretch { from, until: from.plus_seconds(seconds) };
        if let (Some(power), Some(ahead)) = (&machine.power, &mut self.power) {
            ahead.hold(slot, who, during, power.beyond_idle(machine.name_of(class), &need));
        }
        let hold = Hold {
            who,
            during,
            class,
            kind: need.gpus.kind(),
            gpus: need.gpus.count(),
            cpu_milli: need.cpu_milli,
            memory_mib: need.memory_mib,
        };
        self.holds.entry(slot).or_default().push(hold);
    }

    /// Gives back what was planned for a job on the node.
    pub fn release(&mut self, slot: SlotId, job: JobId) {
        if let Some(power) = &mut self.power {
            power.release(slot, job);
        }
        let Some(holds) = self.holds.get_mut(&slot) else { return };
        holds.retain(|hold| hold.who.job != job);
        if holds.is_empty() {
            self.holds.remove(&slot);
        }
    }

    /// Whether a job that starts on the node now puts off nothing that is planned there.
    pub fn leaves_planned(&self, machine: &Machine<'_>, pick: Pick, ask: &Ask<'_>) -> bool {
        let slot = pick.slot;
        let during = Stretch { from: self.now, until: self.now.plus_seconds(ask.seconds) };
        if !self.is_concerned(slot, ask.who, during) {
            return true;
        }
        let ask = Ask { need: self.beyond_its_gpu(machine, pick, ask, during.until), ..*ask };
        self.earliest(machine, slot, &ask, self.now) == Some(self.now)
    }

    /// What a share asks for: no GPU if it goes where another share stays longer, so that it costs nothing planned.
    fn beyond_its_gpu(
        &self,
        machine: &Machine<'_>,
        pick: Pick,
        ask: &Ask<'_>,
        until: UnixMicros,
    ) -> Need {
        let Some(gpu) = pick.gpu.filter(|_| matches!(ask.need.gpus, GpuNeed::Share(_))) else {
            return ask.need;
        };
        let end = self.ends(machine, pick.slot).gpus.get(gpu as usize);
        let stays = end.is_some_and(|end| *end >= until);
        if stays { Need { gpus: GpuNeed::None, ..ask.need } } else { ask.need }
    }

    /// Until when a job that starts on the node now may stay there.
    pub fn open_until(&self, machine: &Machine<'_>, slot: SlotId, ask: &Ask<'_>) -> UnixMicros {
        let Some(holds) = self.holds.get(&slot) else { return FOREVER };
        let binding = holds.iter().filter(|hold| ask.who.gives_way_to(hold.who));
        let mut from: Vec<UnixMicros> = binding.map(|hold| hold.during.from).collect();
        from.sort_unstable();
        for moment in from {
            let seconds = 1 + (moment.0.saturating_sub(self.now.0)).max(0) / 1_000_000;
            let ask = Ask { seconds, ..*ask };
            if self.earliest(machine, slot, &ask, self.now) != Some(self.now) {
                return moment;
            }
        }
        FOREVER
    }

    fn is_concerned(&self, slot: SlotId, who: Who, during: Stretch) -> bool {
        let holds = self.holds.get(&slot).into_iter().flatten();
        let mut binding = holds.filter(|hold| who.gives_way_to(hold.who));
        binding.any(|hold| hold.during.from < during.until)
    }

    /// The first moment from `not_before` on at which the node has room for all of the time that is asked for; `None`
    /// if it never has.
    pub fn earliest(
        &self,
        machine: &Machine<'_>,
        id: SlotId,
        ask: &Ask<'_>,
        not_before: UnixMicros,
    ) -> Option<UnixMicros> {
        let slot = machine.slot(id);
        let holds = self.holds.get(&id).map_or(&[][..], Vec::as_slice);
        let reserved = machine.reserved_on(slot).filter_map(|one| one.shut_to(ask.project));
        let closed = reserved.chain(machine.maintained(slot)).collect();
        let ends = self.ends(machine, id);
        View { slot, ends, holds, closed, ask }.earliest(not_before.max(self.now))
    }

    fn ends(&self, machine: &Machine<'_>, id: SlotId) -> &Ends {
        self.ends[id.0 as usize].get_or_init(|| self.ends_of(id, machine.slot(id)))
    }

    fn ends_of(&self, id: SlotId, slot: &Slot<'_>) -> Ends {
        let mut ends = self.ends_in_world(slot);
        for (until, held) in self.begun.get(&id).into_iter().flatten() {
            ends.enter(slot, held, *until);
        }
        ends.beside.sort_unstable_by_key(|(at, ..)| *at);
        ends
    }

    /// Without what the pass has started.
    fn ends_in_world(&self, slot: &Slot<'_>) -> Ends {
        let mut ends =
            Ends { gpus: vec![self.now; slot.node.inventory.gpus.len()], beside: Vec::new() };
        for attempt in slot.node.attempts.iter().filter_map(|id| self.world.attempts.get(id)) {
            let held = attempt.placement.nodes.iter().find(|held| held.node == *slot.name);
            if let Some(held) = held {
                ends.enter(slot, held, self.end_of(attempt));
            }
        }
        ends
    }

    /// When an attempt is over at the latest; a scavenger is as soon as somebody asks for its place.
    fn end_of(&self, attempt: &Attempt) -> UnixMicros {
        let soon = self.now.plus_seconds(OVERDUE_S);
        if attempt.scavenges() {
            return self.now;
        }
        if attempt.stop.is_some() {
            return soon;
        }
        let limit_s = self.world.jobs.get(&attempt.id.job).map_or(0, |job| job.spec.longest_s());
        let end = attempt.started.unwrap_or(self.now.max(attempt.leased)).plus_seconds(limit_s);
        if end > self.now { end } else { soon }
    }
}

impl Ends {
    fn enter(&mut self, slot: &Slot<'_>, held: &NodeAllocation, end: UnixMicros) {
        for gpu in held.gpus.iter().filter_map(|gpu| slot.node.gpu_index(&gpu.uuid)) {
            self.gpus[gpu] = self.gpus[gpu].max(end);
        }
        self.beside.push((end, held.cpu_milli, held.memory_mib));
    }
}

/// One question to one node.
struct View<'a, 'w> {
    slot: &'a Slot<'w>,
    ends: &'a Ends,
    holds: &'a [Hold],
    /// When it is reserved for others, or in maintenance.
    closed: Vec<Interval>,
    ask: &'a Ask<'a>,
}

impl View<'_, '_> {
    /// Room only grows with an end, so it can begin there alone; and only shrinks with a beginning, so there alone is
    /// it looked at again.
    fn earliest(&self, not_before: UnixMicros) -> Option<UnixMicros> {
        let first = self.enough_gpus()?.max(not_before);
        // Nearly always there is all else beside the GPUs.
        if self.has_room(first) {
            return Some(first);
        }
        let ends = self.ends.gpus.iter().copied();
        let ends = ends.chain(self.ends.beside.iter().map(|(at, ..)| *at));
        let ends = ends.chain(self.binding().map(|hold| hold.during.until));
        let ends = ends.chain(self.closed.iter().map(|during| during.until));
        let mut moments: Vec<UnixMicros> = ends.filter(|at| *at > first).collect();
        moments.sort_unstable();
        moments.dedup();
        moments.into_iter().find(|at| self.has_room(*at))
    }

    /// When enough GPUs are free if nothing is planned; `None` if the node has too few.
    fn enough_gpus(&self) -> Option<UnixMicros> {
        let (wanted, class) = match (self.ask.need.gpus.count() as usize, self.ask.class) {
            (0, _) | (_, None) => return Some(UnixMicros(i64::MIN)),
            (wanted, Some(class)) => (wanted, class),
        };
        let serving = self.ends.gpus.iter().enumerate().filter(|(gpu, _)| self.serves(*gpu, class));
        let mut free: Vec<UnixMicros> = serving.map(|(_, end)| *end).collect();
        (free.len() >= wanted).then(|| *free.select_nth_unstable(wanted - 1).1)
    }

    /// Whether what is at that position is of the class, and of the kind that is asked for.
    fn serves(&self, gpu: usize, class: ClassIndex) -> bool {
        let kind = self.ask.need.gpus.kind();
        self.slot.layout.class_of(gpu) == Some(class) && self.slot.is_of_kind(gpu, kind)
    }

    fn has_room(&self, from: UnixMicros) -> bool {
        let until = from.plus_seconds(self.ask.seconds);
        let within = |hold: &&Hold| hold.during.from > from && hold.during.from < until;
        let clear = |during: &Interval| until <= during.from || from >= during.until;
        self.closed.iter().all(clear)
            && self.fits_at(from)
            && self.binding().filter(within).all(|hold| self.fits_at(hold.during.from))
    }

    fn binding(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(|hold| self.ask.who.gives_way_to(hold.who))
    }

    fn fits_at(&self, at: UnixMicros) -> bool {
        let need = &self.ask.need;
        let held = self.ends.beside.iter().filter(|(end, ..)| *end > at);
        let (mut cpu, mut memory) = (need.cpu_milli, need.memory_mib);
        for (_, cpu_milli, memory_mib) in held {
            cpu += *cpu_milli;
            memory += *memory_mib;
        }
        let mut gpus = need.gpus.count();
        for hold in self.binding().filter(|hold| hold.during.from <= at && at < hold.during.until) {
            cpu += hold.cpu_milli;
            memory += hold.memory_mib;
            let same = (hold.class, hold.kind) == (self.ask.class, need.gpus.kind());
            gpus += if same { hold.gpus } else { 0 };
        }
        cpu <= self.slot.cpu_milli && memory <= self.slot.memory_mib && gpus <= self.gpus_at(at)
    }

    fn gpus_at(&self, at: UnixMicros) -> u32 {
        let Some(class) = self.ask.class else { return 0 };
        let free = self.ends.gpus.iter().enumerate();
        let free = free.filter(|(gpu, end)| **end <= at && self.serves(*gpu, class));
        u32::try_from(free.count()).unwrap_or(u32::MAX)
    }
}
