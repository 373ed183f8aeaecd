//! Requests that are alike, so that a hundred thousand equal waiting jobs cost one search and a lookup each.
//!
//! Within a pass resources only shrink. So what did not fit once does not fit later, and a gang of more nodes of
//! the same kind does not fit either.

use std::collections::{BTreeMap, BTreeSet};

use super::closed::Closed;
use super::fit::Machine;
use super::gang::{Need, Pick, Territory};
use super::limits::Asked;
use super::pass::Want;
use super::power::Asked as PowerAsked;
use super::score::{ClassIndex, SlotId};
use super::slot::Slot;
use crate::amount::GpuMilli;
use crate::crowded::{Crowded, Failures, Found, Usual};
use crate::ids::NodeName;
use crate::spec::{Constraints, GpuRequest, JobSpec, NodeRequest};

/// A kind of request of the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FamilyId(pub u32);

/// Everything that decides where a job fits, but the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FamilyKey<'w> {
    per_node: &'w NodeRequest,
    constraints: &'w Constraints,
    avoid: &'w BTreeSet<NodeName>,
    closed: Closed,
    /// 0 where nothing is avoided: only then does the number of nodes decide whether avoiding is dropped.
    nodes_if_avoiding: u32,
}

impl FamilyKey<'_> {
    /// Whether such requests neither avoid nodes nor are kept from any.
    fn is_anywhere(&self) -> bool {
        self.avoid.is_empty() && self.closed.is_nothing()
    }
}

/// Why gangs of a kind and of so many nodes wait that nothing but room keeps from starting.
pub(super) type UsualReasons = BTreeMap<FamilyId, BTreeMap<u32, Usual>>;

/// Requests of one kind.
#[derive(Debug)]
pub(super) struct Family<'w> {
    /// What each node gives.
    pub need: Need,
    /// Where it may be.
    pub territory: Territory<'w>,
    /// The request as asked, for words.
    pub per_node: &'w NodeRequest,
    /// Classes it may have, in the order they are tried; one of `None` for jobs without GPUs.
    pub tries: Vec<Try>,
    /// Whether such requests neither avoid nodes nor are kept from any.
    pub is_anywhere: bool,
}

/// One class that may serve a family.
#[derive(Debug)]
pub(super) struct Try {
    /// Which class.
    pub class: Option<ClassIndex>,
    /// What did not fit in this pass.
    pub failed: Failures,
    /// What those that borrow found before any turn.
    pub beforehand: Beforehand,
    /// Whether there is room for gangs of so many nodes but for what is planned, by when it was looked for.
    room: BTreeMap<u32, (u64, bool)>,
    /// Nodes that take work and would serve if they were empty; counted once asked for.
    capable: Option<u32>,
    /// The same with those that will take work; counted once asked for.
    will_be_capable: Option<u32>,
}

/// What was found before any turn.
#[derive(Debug, Default)]
pub(super) struct Beforehand {
    failed: Failures,
    /// Gangs that fit, by nodes and seconds; what is no larger and no longer fits too.
    fit: Vec<(u32, i64)>,
}

impl Beforehand {
    /// Whether a gang of so many nodes that may take so many seconds fits; `None`: nobody looked.
    pub fn fits(&self, nodes: u32, seconds: i64) -> Option<bool> {
        if self.failed.cover(nodes, seconds) {
            return Some(false);
        }
        let covers = |fit: &(u32, i64)| nodes <= fit.0 && seconds <= fit.1;
        self.fit.iter().any(covers).then_some(true)
    }

    /// Notes whether such a gang fits.
    pub fn note(&mut self, nodes: u32, seconds: i64, fits: bool) {
        if fits {
            self.fit.push((nodes, seconds));
        } else {
            self.failed.note(nodes, seconds);
        }
    }
}

impl Family<'_> {
    /// Nodes that take work and would serve one node of a gang if they were empty.
    pub fn capable(&mut self, place: usize, machine: &Machine<'_>) -> u32 {
        let attempt = &mut self.tries[place];
        let (need, territory) = (&self.need, &self.territory);
        *attempt.capable.get_or_insert_with(|| capable(machine, attempt.class, need, territory))
    }

    /// Classes of which one of a gang finds room on the node now, whatever is reserved or planned there.
    pub fn fitting_classes(&self, slot: &Slot<'_>) -> impl Iterator<Item = Option<ClassIndex>> {
        let is_open = slot.takes_work && self.territory.would_contain(slot);
        let classes = self.tries.iter().map(|attempt| attempt.class);
        classes.filter(move |class| is_open && slot.fits(*class, &self.need))
    }

    /// Whether the node would serve one of a gang once it is free.
    pub fn would_serve(&self, place: usize, machine: &Machine<'_>, id: SlotId) -> bool {
        let slot = machine.slot(id);
        slot.will_take_work()
            && slot.could_fit(self.tries[place].class, &self.need)
            && self.territory.would_contain(slot)
    }

    /// Nodes that would serve one of a gang once they are free, whatever they must have in common.
    pub fn will_be_capable(&mut self, place: usize, machine: &Machine<'_>) -> u32 {
        if let Some(known) = self.tries[place].will_be_capable {
            return known;
        }
        let class = self.tries[place].class;
        let serve = machine.ids_of(class).filter(|id| self.would_serve(place, machine, *id));
        let count = match &machine.power {
            None => serve.count(),
            // As many as there would be power for if nothing ran.
            Some(power) => {
                let picks = serve.map(|slot| Pick { slot, gpu: None });
                let asked = PowerAsked { class, need: &self.need, nodes: u32::MAX };
                machine.powered_when_idle(power, power.empty(), picks, asked).len()
            }
        };
        *self.tries[place].will_be_capable.insert(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Whether a gang of so many nodes fits now but for what is planned; looked for again only if something was taken
    /// since, and never again once it did not.
    pub fn has_room(&mut self, place: usize, nodes: u32, machine: &Machine<'_>) -> bool {
        match self.tries[place].room.get(&nodes) {
            Some((_, false)) => false,
            Some((taken, true)) if *taken == machine.taken => true,
            Some(_) | None => {
                let fits = fits(machine, self, self.tries[place].class, nodes);
                self.tries[place].room.insert(nodes, (machine.taken, fits));
                fits
            }
        }
    }
}

/// Every kind of request of the pass.
#[derive(Debug, Default)]
pub(super) struct Families<'w> {
    known: BTreeMap<FamilyKey<'w>, FamilyId>,
    families: Vec<Family<'w>>,
    /// Where nothing is closed and nothing avoided: by the kind of request of the world's cohorts.
    of_kind: Vec<Option<FamilyId>>,
    /// Whether what is to be avoided is avoided though too few other nodes may be left.
    always_avoids: bool,
}

impl<'w> Families<'w> {
    /// No family yet, of jobs that never start on what they avoid, whether or not too few other nodes are left for them:
    /// whoever looks at a part of the nodes cannot know that.
    pub fn always_avoiding() -> Self {
        Families { always_avoids: true, ..Families::default() }
    }

    /// The same as [`Families::of`] for jobs of a cohort of the world, which says their kind.
    pub fn of_kind(
        &mut self,
        kind: u32,
        (spec, avoid): (&'w JobSpec, &'w BTreeSet<NodeName>),
        closed: Closed,
        machine: &Machine<'w>,
    ) -> FamilyId {
        if !closed.is_nothing() || !avoid.is_empty() {
            return self.of((spec, avoid), closed, machine);
        }
        let kind = kind as usize;
        if let Some(Some(known)) = self.of_kind.get(kind) {
            return *known;
        }
        let family = self.of((spec, avoid), closed, machine);
        if self.of_kind.len() <= kind {
            self.of_kind.resize(kind + 1, None);
        }
        self.of_kind[kind] = Some(family);
        family
    }

    /// The kind of request that jobs of that specification are which avoid those nodes.
    pub fn of(
        &mut self,
        (spec, avoid): (&'w JobSpec, &'w BTreeSet<NodeName>),
        closed: Closed,
        machine: &Machine<'w>,
    ) -> FamilyId {
        let key = FamilyKey {
            per_node: &spec.per_node,
            constraints: &spec.constraints,
            avoid,
            closed,
            nodes_if_avoiding: if avoid.is_empty() { 0 } else { spec.nodes },
        };
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let id = FamilyId(u32::try_from(self.families.len()).unwrap_or(u32::MAX));
        self.families.push(family_of(&key, machine, self.always_avoids));
        self.known.insert(key, id);
        id
    }

    /// The family of that number.
    pub fn get(&self, id: FamilyId) -> &Family<'w> {
        &self.families[id.0 as usize]
    }

    /// GPUs of the whole gang.
    pub fn gpus(&self, want: Want) -> GpuMilli {
        self.get(want.family).need.gpu_milli().times(u64::from(want.nodes))
    }

    /// What the gang asks of a class.
    pub fn asked<'m>(
        &self,
        machine: &'m Machine<'_>,
        want: Want,
        class: Option<ClassIndex>,
    ) -> Asked<'m> {
        let class = class.map(|class| machine.class_name(class));
        Asked { class, gpus: self.gpus(want), scavenges: want.scavenges }
    }

    /// What found no room anywhere in the pass, of requests that neither avoid nodes nor are kept from any.
    /// Why those of them wait that nothing but room keeps from starting is given.
    pub fn crowded(&self, mut usual: UsualReasons) -> Crowded {
        Crowded::of(self.known.iter().filter(|(key, _)| key.is_anywhere()).map(|(key, id)| {
            let tries = self.get(*id).tries.iter();
            let failed = tries.map(|one| one.failed.clone().and(&one.beforehand.failed)).collect();
            let usual = usual.remove(id).unwrap_or_default();
            ((key.per_node.clone(), key.constraints.clone()), Found { failed, usual })
        }))
    }

    /// The family of that number, to note what did not fit.
    pub fn get_mut(&mut self, id: FamilyId) -> &mut Family<'w> {
        &mut self.families[id.0 as usize]
    }
}

fn family_of<'w>(key: &FamilyKey<'w>, machine: &Machine<'w>, always_avoids: bool) -> Family<'w> {
    let need = Need::of(key.per_node);
    let classes = classes_of(key.per_node, machine);
    let (constraints, closed) = (key.constraints, key.closed);
    let avoiding = Territory { constraints, avoid: Some(key.avoid), closed };
    let anywhere = Territory { constraints, avoid: None, closed };
    let serves = |class: &Option<ClassIndex>| {
        capable(machine, *class, &need, &avoiding) >= key.nodes_if_avoiding
    };
    let avoids = !key.avoid.is_empty() && (always_avoids || classes.iter().any(serves));
    let as_try = |class| Try {
        class,
        failed: Failures::default(),
        beforehand: Beforehand::default(),
        room: BTreeMap::new(),
        capable: None,
        will_be_capable: None,
    };
    Family {
        need,
        territory: if avoids { avoiding } else { anywhere },
        per_node: key.per_node,
        tries: classes.into_iter().map(as_try).collect(),
        is_anywhere: key.is_anywhere(),
    }
}

/// Classes that a request may have; none if there is no such class.
fn classes_of(request: &NodeRequest, machine: &Machine<'_>) -> Vec<Option<ClassIndex>> {
    match (&request.gpus, request.gpus.class()) {
        (GpuRequest::None, _) => vec![None],
        (_, Some(class)) => machine.class(class).map(Some).into_iter().collect(),
        (_, None) => machine.classes.iter().map(|class| machine.class(class)).collect(),
    }
}

fn capable(
    machine: &Machine<'_>,
    class: Option<ClassIndex>,
    need: &Need,
    territory: &Territory<'_>,
) -> u32 {
    let everywhere = territory.is_everywhere();
    let serves = machine.ids_of(class).filter(|id| {
        let slot = machine.slot(*id);
        slot.takes_work && slot.could_fit(class, need) && (everywhere || territory.contains(slot))
    });
    let count = if territory.constraints.blocks.is_binding() {
        territory.together(machine, serves).len()
    } else {
        serves.count()
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Whether a gang of so many nodes of the family fits now on nodes of that class, ignoring limits and order.
pub(super) fn fits(
    machine: &Machine<'_>,
    family: &Family<'_>,
    class: Option<ClassIndex>,
    nodes: u32,
) -> bool {
    let places = family.territory.places(machine, class, &family.need);
    let asked = PowerAsked { class, need: &family.need, nodes };
    family.territory.choose_now(machine, asked, places).is_some()
}
