//! Why a job waits, with numbers, by what is left at the end of the pass.
//!
//! Jobs that want the same share one list: capacity is looked at once for each kind of request and number of nodes,
//! limits once for each project beside that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::budgets::Budgets;
use super::fair::Fair;
use super::fit::Machine;
use super::gang::Need;
use super::lending::Lending;
use super::limits::Limits;
use super::order::{Order, behind_own, freeing, later};
use super::pass::{Waiting, Want};
use super::request::{Families, Family, FamilyId, fits};
use super::score::{ClassIndex, SlotId};
use super::slot::Slot;
use super::standing::Standings;
use crate::amount::UnixMicros;
use crate::mig::MigKind;
use crate::plan::{Blocker, BlockerKind, Unit, ranked, spelled};
use crate::spec::GpuRequest;

mod amounts;
mod blocks;
mod bounds;
mod hurt;
mod maintenance;
mod planned;
mod power;
mod reserved;
mod usual;

use amounts::{Totals, sum};
use blocks::Nearest;
pub(super) use planned::Outlook;
use planned::Way;

/// Nodes named in one blocker; past that they are counted.
const NAMED_MAX: usize = 3;

type List = Arc<Vec<Blocker>>;

/// What the pass has left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a, 'w> {
    /// Nodes.
    pub machine: &'a Machine<'w>,
    /// Limits of projects.
    pub limits: &'a Limits<'w>,
    /// Accounts of projects.
    pub budgets: &'a Budgets<'w>,
    /// Guarantees; `None` where the tree gives none.
    pub fair: Option<&'a Fair>,
    /// What is kept of them; `None` where nothing is.
    pub lending: Option<&'a Lending<'w>>,
    /// What is planned.
    pub outlook: Outlook<'a, 'w>,
}

/// Lists found so far.
#[derive(Debug)]
pub(super) struct Reasons<'a, 'w> {
    machine: &'a Machine<'w>,
    limits: &'a Limits<'w>,
    budgets: &'a Budgets<'w>,
    lending: Option<(&'a Lending<'w>, &'a Fair)>,
    families: &'a mut Families<'w>,
    capacity: BTreeMap<(FamilyId, u32), List>,
    /// By class and kind of instance, and by family too where a family may not go everywhere.
    totals: BTreeMap<(ClassIndex, Option<MigKind>, Option<FamilyId>), Totals>,
    lists: BTreeMap<(Want, Order), List>,
    /// By kind of request and number of nodes: until when such a gang could stay where it finds room now, by class.
    ways: BTreeMap<(FamilyId, u32), Vec<Option<Way>>>,
    outlook: Outlook<'a, 'w>,
    /// `None` where the tree guarantees nothing.
    standings: Option<Standings<'a>>,
}

impl<'a, 'w> Reasons<'a, 'w> {
    /// Reasons by what the pass has left.
    pub fn of(ground: Ground<'a, 'w>, families: &'a mut Families<'w>) -> Self {
        let Ground { machine, limits, budgets, fair, lending, outlook } = ground;
        let (capacity, totals, lists) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (standings, lending) =
            (fair.map(|fair| Standings::of(fair, &machine.classes)), lending.zip(fair));
        Reasons {
            machine,
            limits,
            budgets,
            lending,
            families,
            capacity,
            totals,
            lists,
            ways: BTreeMap::new(),
            outlook,
            standings,
        }
    }

    /// Every reason why the job waits, worst first.
    pub fn list(&mut self, waiting: &Waiting) -> List {
        if let Some(own) = self.own_plan(waiting.job).filter(|_| waiting.is_alone()) {
            let mut blockers = self.find(waiting).as_ref().clone();
            blockers.push(own);
            return Arc::new(blockers);
        }
        let Waiting { want, order, .. } = *waiting;
        // Nearly every waiting job of a full machine waits for capacity alone, whoever pays.
        let tiers = self.standings.is_some() || want.slice_s > 0 || want.scavenges;
        let tiers = tiers && self.asks_gpus(want);
        if order == Order::Free && !tiers && self.within_limits(want) {
            return self.capacity(want.family, want.nodes);
        }
        let key = (self.as_far_as_it_matters(want, order), order);
        if let Some(list) = self.lists.get(&key) {
            return Arc::clone(list);
        }
        let list = self.find(waiting);
        self.lists.insert(key, Arc::clone(&list));
        list
    }

    /// The time limit is a reason only where there is a term about it, or something planned, or a budget.
    fn as_far_as_it_matters(&self, want: Want, order: Order) -> Want {
        let matters = order == Order::Planned
            || want.slice_s > 0
            || !self.limits.allow_walltime(want.project, want.limit_s);
        if matters { want } else { Want { limit_s: 0, ..want } }
    }

    fn within_limits(&self, want: Want) -> bool {
        let family = self.families.get(want.family);
        let allowed =
            |class| self.limits.allow(want.project, self.families.asked(self.machine, want, class));
        let time = self.limits.allow_walltime(want.project, want.limit_s);
        time && !family.tries.is_empty()
            && family.tries.iter().all(|attempt| allowed(attempt.class))
    }

    fn find(&mut self, waiting: &Waiting) -> List {
        let Waiting { want, order, .. } = *waiting;
        let capacity = self.capacity(want.family, want.nodes);
        let mut blockers = self.limit_blockers(want);
        // What is being freed for it counts as held by its project, so its tier can no longer be told; that it is
        // being freed tells it.
        let standing = if order == Order::Freeing {
            None
        } else {
            blockers.extend(self.budget_blockers(want));
            blockers.extend(self.kept_blockers(want));
            self.standing(want)
        };
        if blockers.is_empty() && order == Order::Free && standing.is_none() {
            return capacity;
        }
        blockers.extend(capacity.iter().cloned());
        match order {
            Order::BehindOwn(ahead) => blockers.push(behind_own(ahead)),
            Order::Later(ahead) => blockers.push(later(ahead)),
            Order::Freeing => blockers.push(self.freeing(want)),
            Order::Planned => {
                let behind = self.behind_plans(waiting);
                let behind = behind.map(|behind| behind.blocker(want.limit_s));
                blockers.extend(behind.or_else(|| self.planned_power(waiting)));
            }
            Order::Free => {}
        }
        blockers.extend(standing);
        Arc::new(ranked(blockers))
    }

    fn freeing(&self, want: Want) -> Blocker {
        let (family, gpus) = (self.families.get(want.family), self.families.gpus(want));
        freeing(class_asked(family), gpus)
    }

    fn asks_gpus(&self, want: Want) -> bool {
        self.families.get(want.family).per_node.gpus != GpuRequest::None
    }

    /// In which tier it competes, where there are tiers.
    fn standing(&mut self, want: Want) -> Option<Blocker> {
        if let Some(last) = self.scavenger(want).or_else(|| self.beyond(want)) {
            return Some(last);
        }
        let (family, gpus) = (self.families.get(want.family), self.families.gpus(want));
        let classes = family.tries.iter().filter_map(|attempt| attempt.class);
        let path = self.limits.path(want.project);
        self.standings.as_mut()?.find(path, classes, gpus)
    }

    fn capacity(&mut self, id: FamilyId, nodes: u32) -> List {
        if let Some(list) = self.capacity.get(&(id, nodes)) {
            return Arc::clone(list);
        }
        let places = self.families.get(id).tries.len();
        let counts: Vec<u32> = (0..places)
            .map(|place| self.families.get_mut(id).capable(place, self.machine))
            .collect();
        let totals: Vec<Totals> = (0..places).map(|place| self.totals(id, place)).collect();
        let family = self.families.get(id);
        let mut blockers = Vec::new();
        for ((attempt, capable), totals) in family.tries.iter().zip(counts).zip(totals) {
            let (machine, class, now) = (self.machine, attempt.class, self.outlook.now);
            let look = Look { machine, family, class, nodes, capable, totals, now };
            blockers.extend(look.blockers());
        }
        let blockers = keep_possible(blockers, family, nodes);
        let list = Arc::new(ranked(hurt::or_hurt(blockers, self.machine, family, nodes)));
        self.capacity.insert((id, nodes), Arc::clone(&list));
        list
    }

    fn totals(&mut self, id: FamilyId, place: usize) -> Totals {
        let family = self.families.get(id);
        let Some(class) = family.tries[place].class else {
            return Totals::default();
        };
        let own = (!family.territory.is_everywhere()).then_some(id);
        let key = (class, family.need.gpus.kind(), own);
        *self.totals.entry(key).or_insert_with(|| sum(self.machine, family, class))
    }
}

/// Drops classes that can never serve as long as another can; names what is asked if there is no such class.
fn keep_possible(mut blockers: Vec<Blocker>, family: &Family<'_>, nodes: u32) -> Vec<Blocker> {
    if family.tries.is_empty() {
        let class = class_asked(family);
        let gpus = if class.is_empty() { "GPUs".to_owned() } else { format!("{class} GPUs") };
        return vec![impossible(class, nodes, 0, 0, gpus)];
    }
    if blockers.iter().any(|blocker| blocker.kind != BlockerKind::Constraints) {
        blockers.retain(|blocker| blocker.kind != BlockerKind::Constraints);
    }
    blockers
}

fn class_asked(family: &Family<'_>) -> String {
    family.per_node.gpus.class().map(ToString::to_string).unwrap_or_default()
}

fn impossible(subject: String, needed: u32, available: u32, limit: u32, note: String) -> Blocker {
    Blocker {
        kind: BlockerKind::Constraints,
        subject,
        needed: needed.into(),
        available: available.into(),
        limit: limit.into(),
        unit: Unit::Nodes,
        note,
    }
}

/// One look at one class for gangs of one kind and size.
struct Look<'a, 'w> {
    machine: &'a Machine<'w>,
    family: &'a Family<'w>,
    class: Option<ClassIndex>,
    nodes: u32,
    /// Nodes that take work and would serve if they were empty.
    capable: u32,
    totals: Totals,
    /// The moment of the pass.
    now: UnixMicros,
}

impl<'w> Look<'_, 'w> {
    fn blockers(&self) -> Vec<Blocker> {
        let idle = self.unavailable();
        let all = self.all_together(&idle);
        if all < self.nodes {
            let closed = self.closed(|slot| slot.could_fit(self.class, &self.family.need));
            return if closed.is_empty() { vec![self.never(all)] } else { closed };
        }
        if fits(self.machine, self.family, self.class, self.nodes) {
            return Vec::new();
        }
        if let Some(short) = self.short_of_power() {
            return vec![short];
        }
        let mut blockers: Vec<Blocker> = self.nodes_unavailable(&idle, all).into_iter().collect();
        blockers.extend(
            self.closed(|slot| slot.takes_work && slot.fits(self.class, &self.family.need)),
        );
        blockers.extend(self.too_little());
        blockers
    }

    /// Nodes that would serve if they took work and were empty, as many as can be of one gang.
    fn all_together(&self, idle: &[SlotId]) -> u32 {
        if self.terms().is_binding() {
            return count(self.largest_gang().iter());
        }
        self.capable.saturating_add(count(idle.iter()))
    }

    fn slot(&self, id: SlotId) -> &Slot<'w> {
        self.machine.slot(id)
    }

    /// Nodes of the territory that have GPUs of the class, or any nodes for work without GPUs.
    fn of_class(&self) -> impl Iterator<Item = &Slot<'w>> {
        let slots = self.machine.ids_of(self.class).map(|id| self.machine.slot(id));
        slots.filter(|slot| self.family.territory.contains(slot))
    }

    fn class_word(&self) -> String {
        self.class.map(|class| self.machine.class_name(class).to_string()).unwrap_or_default()
    }

    /// Not even the whole machine would serve.
    fn never(&self, all: u32) -> Blocker {
        let asked = self.family.territory.words();
        let note = format!("{}{}{asked}", self.node_words(""), self.together_words());
        impossible(self.class_word(), self.nodes, all, count(self.of_class()), note)
    }

    /// Nodes that take no work now and would serve if they did and were empty.
    fn unavailable(&self) -> Vec<SlotId> {
        let serves = |id: &SlotId| {
            let slot = self.slot(*id);
            slot.could_fit(self.class, &self.family.need) && self.family.territory.contains(slot)
        };
        self.machine.unavailable.iter().copied().filter(serves).collect()
    }

    /// Named if they would let the job start now, or if it can never start without some of them.
    fn nodes_unavailable(&self, idle: &[SlotId], all: u32) -> Option<Blocker> {
        let need = &self.family.need;
        let fitting: Vec<SlotId> =
            idle.iter().copied().filter(|id| self.slot(*id).fits(self.class, need)).collect();
        let now = count(self.fitting_now().iter());
        let named = if let Some(helping) = self.that_help(fitting, now) {
            helping
        } else if self.capable < self.nodes {
            self.of_one_gang(idle)
        } else {
            return None;
        };
        Some(Blocker {
            kind: BlockerKind::NodesUnavailable,
            subject: self.spell(&named, |slot| slot.name.to_string()),
            needed: self.nodes.into(),
            available: now.into(),
            limit: all.into(),
            unit: Unit::Nodes,
            note: self.spell(&named, why_unavailable),
        })
    }

    /// The first few nodes by a word each, the rest by their number.
    fn spell(&self, nodes: &[SlotId], word: impl Fn(&Slot<'w>) -> String) -> String {
        spelled(nodes.iter().map(|id| word(self.slot(*id))), NAMED_MAX)
    }

    /// Nodes that serve right now.
    fn fitting_now(&self) -> BTreeSet<SlotId> {
        let places = self.family.territory.places(self.machine, self.class, &self.family.need);
        self.family.territory.together(self.machine, places.map(|pick| pick.slot))
    }

    /// What there is too little of: GPUs; else CPUs or memory beside the GPUs; else all on the same nodes.
    fn too_little(&self) -> Vec<Blocker> {
        let alone = self.family.need.gpus_alone();
        let places = self.family.territory.places(self.machine, self.class, &alone);
        let territory = &self.family.territory;
        let with_gpus = territory.together(self.machine, places.map(|pick| pick.slot));
        if count(with_gpus.iter()) < self.nodes {
            return vec![self.too_few_gpus(&alone)];
        }
        let mut blockers = self.too_little_beside(&with_gpus);
        if blockers.is_empty() {
            blockers.push(self.too_few_nodes(&self.family.need));
        }
        blockers
    }

    /// Enough is free in sum, but not on as many nodes that give so much.
    fn too_few_nodes(&self, need: &Need) -> Blocker {
        let Nearest { available, limit, words } = self.nearest(need);
        let note = format!("{}{words}", self.node_words(" free"));
        let needed = self.nodes.into();
        self.capacity_blocker(Unit::Nodes, needed, available.into(), limit.into(), note)
    }

    /// CPUs and memory, each by the node of the gang that has the least of it.
    fn too_little_beside(&self, nodes: &BTreeSet<SlotId>) -> Vec<Blocker> {
        let need = &self.family.need;
        let slots = || nodes.iter().map(|id| self.slot(*id));
        let cpu = self.last_of_gang(slots().map(|slot| slot.free.cpu_milli.0));
        let memory = self.last_of_gang(slots().map(|slot| slot.free.memory_mib.0));
        let mut blockers = Vec::new();
        if cpu < need.cpu_milli.0 {
            let most = self.of_class().map(|slot| slot.cpu_milli.0).max().unwrap_or(0);
            let note = self.class_word();
            blockers.push(self.capacity_blocker(Unit::CpuMilli, need.cpu_milli.0, cpu, most, note));
        }
        if memory < need.memory_mib.0 {
            let most = self.of_class().map(|slot| slot.memory_mib.0).max().unwrap_or(0);
            let note = self.class_word();
            blockers.push(self.capacity_blocker(
                Unit::MemoryMib,
                need.memory_mib.0,
                memory,
                most,
                note,
            ));
        }
        blockers
    }

    /// What the gang's last node has if it takes the nodes that have the most.
    fn last_of_gang(&self, free: impl Iterator<Item = u64>) -> u64 {
        let mut free: Vec<_> = free.map(Reverse).collect();
        free.sort_unstable();
        free.get(self.nodes.saturating_sub(1) as usize).map_or(0, |free| free.0)
    }

    fn capacity_blocker(
        &self,
        unit: Unit,
        needed: u64,
        available: u64,
        limit: u64,
        note: String,
    ) -> Blocker {
        let (kind, subject) = (BlockerKind::Capacity, self.class_word());
        Blocker { kind, subject, needed, available, limit, unit, note }
    }
}

fn why_unavailable(slot: &Slot<'_>) -> String {
    let why = slot.node.why_no_work().unwrap_or_default();
    format!("{} ({why})", slot.name)
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
