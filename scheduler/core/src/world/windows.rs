//! Windows that are planned or open, and which nodes they are about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::World;
use crate::amount::UnixMicros;
use crate::ids::NodeName;
use crate::quota::Interval;
use crate::window::{Window, WindowId, WindowState};

/// Every window that still keeps jobs off, by its number and by node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    by_id: BTreeMap<WindowId, Arc<Window>>,
    by_node: BTreeMap<NodeName, BTreeSet<WindowId>>,
    /// When the state of one changes next; at the end of time if none does.
    next_turn: UnixMicros,
}

impl Default for Windows {
    fn default() -> Self {
        let next_turn = Interval::ALWAYS.until;
        Windows { by_id: BTreeMap::new(), by_node: BTreeMap::new(), next_turn }
    }
}

impl Windows {
    /// All of them, in the order of their numbers.
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

    /// Nodes that any is about, in the order of names.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.by_node.keys()
    }

    /// Those of a node, in the order of their numbers.
    pub fn of_node(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Window>> {
        let ids = self.by_node.get(node).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// The one that keeps the node out of service now; of several the last to end.
    #[must_use]
    pub fn open_on(&self, node: &NodeName) -> Option<&Arc<Window>> {
        let open = self.of_node(node).filter(|window| window.state == WindowState::Open);
        open.max_by_key(|window| (window.during.until, window.id))
    }

    /// The one of a node that begins next.
    #[must_use]
    pub fn next_on(&self, node: &NodeName) -> Option<&Arc<Window>> {
        let planned = self.of_node(node).filter(|window| window.state == WindowState::Planned);
        planned.min_by_key(|window| (window.during.from, window.id))
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
            self.by_id.insert(window.id, Arc::clone(window));
        }
        let turns = self.iter().filter_map(|window| window.next_turn());
        self.next_turn = turns.min().unwrap_or(Interval::ALWAYS.until);
    }

    fn remove(&mut self, id: WindowId) {
        let Some(before) = self.by_id.remove(&id) else { return };
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
