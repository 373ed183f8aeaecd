//! Windows that are planned or open, and which nodes they are about; and the last reservations by command that are over,
//! for jobs that still ask for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::World;
use crate::amount::UnixMicros;
use crate::ids::{NodeName, ReservationName};
use crate::quota::Interval;
use crate::reservation::{ENDED_MAX, Reserved};
use crate::window::{Window, WindowId, WindowState};

/// Every window that still keeps jobs off, by its number and by node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    by_id: BTreeMap<WindowId, Arc<Window>>,
    by_node: BTreeMap<NodeName, BTreeSet<WindowId>>,
    /// Of the reservations among them.
    by_name: BTreeMap<ReservationName, WindowId>,
    /// The last reservations that are over or cancelled.
    ended: BTreeMap<WindowId, Arc<Window>>,
    /// The last of each name among those.
    ended_by_name: BTreeMap<ReservationName, WindowId>,
    /// When the state of one changes next; at the end of time if none does.
    next_turn: UnixMicros,
}

impl Default for Windows {
    fn default() -> Self {
        let next_turn = Interval::ALWAYS.until;
        Windows {
            by_id: BTreeMap::new(),
            by_node: BTreeMap::new(),
            by_name: BTreeMap::new(),
            ended: BTreeMap::new(),
            ended_by_name: BTreeMap::new(),
            next_turn,
        }
    }
}

impl Windows {
    /// All of them, in the order of their numbers; none that is over.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Window>> {
        self.by_id.values()
    }

    /// The one of that number.
    #[must_use]
    pub fn get(&self, id: WindowId) -> Option<&Arc<Window>> {
        self.by_id.get(&id)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The reservations among them, in the order of their numbers.
    pub fn reservations(&self) -> impl Iterator<Item = (&Arc<Window>, &Reserved)> {
        let windows = self.by_name.values().filter_map(|id| self.by_id.get(id));
        let mut found: Vec<_> =
            windows.filter_map(|window| Some((window, window.reserved.as_ref()?))).collect();
        found.sort_unstable_by_key(|(window, _)| window.id);
        found.into_iter()
    }

    /// The reservation of that name: the one that is planned or open, else the last that was.
    #[must_use]
    pub fn reservation(&self, name: &ReservationName) -> Option<&Arc<Window>> {
        let live = self.by_name.get(name).and_then(|id| self.by_id.get(id));
        live.or_else(|| self.ended.get(self.ended_by_name.get(name)?))
    }

    /// The last reservations that are over or cancelled, in the order of their numbers.
    pub fn ended(&self) -> impl Iterator<Item = &Arc<Window>> {
        self.ended.values()
    }

    /// Nodes that any is about, in the order of names.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.by_node.keys()
    }

    /// Those of a node, in the order of their numbers.
    pub fn of_node(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Window>> {
        let ids = self.by_node.get(node).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// The maintenance that a node is in; of several the last to end.
    #[must_use]
    pub fn open_on(&self, node: &NodeName) -> Option<&Arc<Window>> {
        let open = self.maintenance_of(node).filter(|window| window.state == WindowState::Open);
        open.max_by_key(|window| (window.during.until, window.id))
    }

    /// The maintenance of a node that begins next.
    #[must_use]
    pub fn next_on(&self, node: &NodeName) -> Option<&Arc<Window>> {
        let planned =
            self.maintenance_of(node).filter(|window| window.state == WindowState::Planned);
        planned.min_by_key(|window| (window.during.from, window.id))
    }

    /// Maintenance of a node, in the order of numbers.
    pub fn maintenance_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Window>> {
        self.of_node(node).filter(|window| window.is_maintenance())
    }

    /// The reservation of a node that holds, else the one that begins next. Those of one node do not meet.
    #[must_use]
    pub fn reserved_on(&self, node: &NodeName) -> Option<&Arc<Window>> {
        let reserved = self.of_node(node).filter(|window| !window.is_maintenance());
        reserved.min_by_key(|window| (window.during.from, window.id))
    }

    /// Those whose state is to change by `now`, in the order of their numbers.
    #[must_use]
    pub fn due_by(&self, now: UnixMicros) -> Vec<Arc<Window>> {
        if now < self.next_turn {
            return Vec::new();
        }
        let due = |window: &&Arc<Window>| window.next_turn().is_some_and(|at| at <= now);
        self.iter().filter(due).cloned().collect()
    }

    fn put(&mut self, window: &Arc<Window>) {
        self.remove(window.id);
        if window.state.counts() {
            for node in &window.nodes {
                self.by_node.entry(node.clone()).or_default().insert(window.id);
            }
            if let Some(reserved) = &window.reserved {
                self.by_name.insert(reserved.name.clone(), window.id);
            }
            self.by_id.insert(window.id, Arc::clone(window));
        } else if let Some(reserved) = &window.reserved {
            self.keep_ended(window, reserved);
        }
        let turns = self.iter().filter_map(|window| window.next_turn());
        self.next_turn = turns.min().unwrap_or(Interval::ALWAYS.until);
    }

    /// Those with the highest numbers are kept, whatever order they come in: a restart finds the same ones.
    fn keep_ended(&mut self, window: &Arc<Window>, reserved: &Reserved) {
        self.ended.insert(window.id, Arc::clone(window));
        let last = self.ended_by_name.entry(reserved.name.clone()).or_insert(window.id);
        *last = window.id.max(*last);
        if self.ended.len() <= ENDED_MAX {
            return;
        }
        let Some((id, gone)) = self.ended.pop_first() else { return };
        let name = gone.reserved.as_ref().map(|reserved| &reserved.name);
        if let Some(name) = name.filter(|name| self.ended_by_name.get(*name) == Some(&id)) {
            self.ended_by_name.remove(name);
        }
    }

    fn remove(&mut self, id: WindowId) {
        let Some(before) = self.by_id.remove(&id) else { return };
        if let Some(reserved) = &before.reserved {
            self.by_name.remove(&reserved.name);
        }
        for node in &before.nodes {
            let of_node = self.by_node.get_mut(node);
            let is_last = of_node.is_none_or(|ids| ids.remove(&id) && ids.is_empty());
            if is_last {
                self.by_node.remove(node);
            }
        }
    }
}

impl World {
    /// Takes in how a window stands now, and what that makes of its nodes.
    pub(super) fn put_window(&mut self, window: &Arc<Window>) {
        self.sequences.next_window = self.sequences.next_window.max(window.id.0 + 1);
        self.windows.put(window);
        for name in &window.nodes {
            if let Some(node) = self.nodes.get_mut(name) {
                node.maintenance = self.windows.open_on(name).map(Arc::clone);
            }
        }
    }
}
