//! Nodes by what is free on them, as coarse as a look ahead needs it: GPUs of one class on one node are a number.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::{GpuMilli, UnixMicros};
use crate::fabric;
use crate::ids::{GpuClass, NodeName};
use crate::world::{Node, World};

/// The GPUs of one class on one node, by their number in a [`Floor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot(usize);

/// The GPUs of one class on one node.
#[derive(Debug)]
struct Place<'w> {
    class: &'w GpuClass,
    free: GpuMilli,
    /// When what is held here is given back.
    ends: Vec<(UnixMicros, GpuMilli)>,
    /// Kept for a job that waits for all of its nodes.
    kept: bool,
}

/// All nodes that take work, but those that are reserved by command now: whoever else starts there is no matter of turns.
#[derive(Debug, Default)]
pub(super) struct Floor<'w> {
    places: Vec<Place<'w>>,
    by_name: BTreeMap<(&'w NodeName, &'w GpuClass), Spot>,
    /// By class, those that are not kept, by what is free.
    open: BTreeMap<&'w GpuClass, BTreeSet<(GpuMilli, Spot)>>,
    /// GPUs of each class, in all and at most on one node.
    sizes: BTreeMap<&'w GpuClass, (GpuMilli, GpuMilli)>,
}

impl<'w> Floor<'w> {
    /// The nodes of the world, with what is free now.
    pub fn of(world: &'w World, now: UnixMicros) -> Self {
        let standby = fabric::standby(world);
        let holding =
            world.windows.reservations().filter(|(window, _)| window.during.contains(now));
        let reserved: BTreeSet<&NodeName> = holding.flat_map(|(window, _)| &window.nodes).collect();
        let works = |(name, node): &(&NodeName, &Node)| {
            node.takes_work() && !standby.contains(*name) && !reserved.contains(*name)
        };
        let mut floor = Floor::default();
        for (name, node) in world.nodes.iter().filter(works) {
            for (class, (free, all)) in by_class(node) {
                let (sum, most) = floor.sizes.entry(class).or_default();
                (*sum, *most) = (*sum + all, all.max(*most));
                let spot = Spot(floor.places.len());
                floor.places.push(Place { class, free, ends: Vec::new(), kept: false });
                floor.by_name.insert((name, class), spot);
                floor.open.entry(class).or_default().insert((free, spot));
            }
        }
        floor
    }

    /// The place of that name; `None` if it takes no work.
    pub fn find(&self, name: &NodeName, class: &GpuClass) -> Option<Spot> {
        self.by_name.get(&(name, class)).copied()
    }

    /// The class of a place.
    pub fn class_of(&self, spot: Spot) -> &'w GpuClass {
        self.places[spot.0].class
    }

    /// GPUs of a class in all.
    pub fn capacity(&self, class: &GpuClass) -> GpuMilli {
        self.sizes.get(class).map_or(GpuMilli::ZERO, |(all, _)| *all)
    }

    /// Most GPUs of a class on one node.
    pub fn node_gpus(&self, class: &GpuClass) -> GpuMilli {
        self.sizes.get(class).map_or(GpuMilli::ZERO, |(_, most)| *most)
    }

    /// Classes there are.
    pub fn classes(&self) -> Vec<&'w GpuClass> {
        self.open.keys().copied().collect()
    }

    /// The fullest places that have so much free each, if there are so many of them.
    pub fn pick(&self, class: &GpuClass, each: GpuMilli, nodes: u32) -> Option<Vec<Spot>> {
        let open = self.open.get(class)?.range((each, Spot(0))..);
        let spots: Vec<Spot> = open.take(nodes as usize).map(|(_, spot)| *spot).collect();
        (spots.len() == nodes as usize).then_some(spots)
    }

    /// Notes that so much of the place is given back then; it counts as held already.
    pub fn expect(&mut self, spot: Spot, end: UnixMicros, gpus: GpuMilli) {
        self.places[spot.0].ends.push((end, gpus));
    }

    /// Takes so much until then.
    pub fn take(&mut self, spot: Spot, end: UnixMicros, gpus: GpuMilli) {
        self.move_to(spot, |free| free.saturating_sub(gpus));
        self.expect(spot, end, gpus);
    }

    /// Gives back what ends then.
    pub fn give_back(&mut self, spot: Spot, end: UnixMicros, gpus: GpuMilli) {
        self.move_to(spot, |free| free + gpus);
        let ends = &mut self.places[spot.0].ends;
        if let Some(at) = ends.iter().position(|one| *one == (end, gpus)) {
            ends.swap_remove(at);
        }
    }

    fn move_to(&mut self, spot: Spot, change: impl Fn(GpuMilli) -> GpuMilli) {
        let place = &mut self.places[spot.0];
        let before = place.free;
        place.free = change(before);
        if !place.kept
            && let Some(open) = self.open.get_mut(place.class)
        {
            open.remove(&(before, spot));
            open.insert((place.free, spot));
        }
    }

    /// Keeps the place from others, or opens it again.
    pub fn keep(&mut self, spot: Spot, kept: bool) {
        let place = &mut self.places[spot.0];
        place.kept = kept;
        let Some(open) = self.open.get_mut(place.class) else { return };
        if kept {
            open.remove(&(place.free, spot));
        } else {
            open.insert((place.free, spot));
        }
    }

    /// Whether so much is free there.
    pub fn has(&self, spot: Spot, gpus: GpuMilli) -> bool {
        self.places[spot.0].free >= gpus
    }

    /// The open places that have so much free each soonest, if there are so many that ever have.
    pub fn soonest(&self, class: &GpuClass, each: GpuMilli, nodes: u32) -> Option<Vec<Spot>> {
        let open = self.open.get(class)?.iter();
        let free = open.filter_map(|(_, spot)| Some((self.free_at(*spot, each)?, *spot)));
        let mut free: Vec<(UnixMicros, Spot)> = free.collect();
        let count = nodes as usize;
        if free.len() < count || count == 0 {
            return None;
        }
        free.select_nth_unstable(count - 1);
        Some(free.into_iter().take(count).map(|(_, spot)| spot).collect())
    }

    /// When so much is free there; `None` if that never comes.
    fn free_at(&self, spot: Spot, gpus: GpuMilli) -> Option<UnixMicros> {
        let place = &self.places[spot.0];
        let mut free = place.free;
        if free >= gpus {
            return Some(UnixMicros(i64::MIN));
        }
        let mut ends = place.ends.clone();
        ends.sort_unstable();
        for (at, back) in ends {
            free += back;
            if free >= gpus {
                return Some(at);
            }
        }
        None
    }
}

/// What of each class is free on the node, and how much it has; instances of GPUs that are cut left out, since who asks
/// for GPUs cannot have them.
fn by_class(node: &Node) -> BTreeMap<&GpuClass, (GpuMilli, GpuMilli)> {
    let mut classes: BTreeMap<&GpuClass, (GpuMilli, GpuMilli)> = BTreeMap::new();
    let all = node.inventory.gpus.iter().zip(&node.free.gpus);
    for (gpu, left) in all.filter(|(gpu, _)| gpu.mig.is_off()) {
        let (free, all) = classes.entry(&gpu.class).or_default();
        (*free, *all) = (*free + *left, *all + GpuMilli::WHOLE);
    }
    classes
}
