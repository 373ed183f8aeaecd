//! The steps of a profile as a treap: a search tree by moments that is a heap by ranks drawn from the moments
//! themselves. The same steps make the same tree, whatever order they came in, so that a profile is a value.
//!
//! Each node knows the first moment below it and the least and the most that is free there. What was added to a whole
//! subtree waits at its root (`pending`) until somebody goes below.

use crate::amount::UnixMicros;

/// A place in [`Steps`].
type Place = usize;
/// A subtree; `None` if there is nothing.
type Link = Option<Place>;

/// Steps by their moments.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    nodes: Vec<Node>,
    /// Places that are free again.
    vacant: Vec<Place>,
    root: Link,
}

/// A step, with what is true of all that is below it, itself included.
#[derive(Debug, Clone, Copy)]
struct Node {
    at: UnixMicros,
    rank: u64,
    /// From `at` on, until the next step.
    value: i64,
    left: Link,
    right: Link,
    first: UnixMicros,
    least: i64,
    most: i64,
    /// What is still to be added to both subtrees; in `value`, `least` and `most` it is already.
    pending: i64,
}

/// What is looked for, and how far the search is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// So much must be free,
    pub wanted: i64,
    /// for so long.
    pub duration_s: i64,
    /// Steps up to here have been looked at.
    pub after: UnixMicros,
    /// Since when so much has been free without a gap.
    pub since: Option<UnixMicros>,
}

impl Node {
    fn new(at: UnixMicros, value: i64) -> Self {
        let (left, right) = (None, None);
        let rank = scatter(at);
        Node { at, rank, value, left, right, first: at, least: value, most: value, pending: 0 }
    }
}

/// A rank that has nothing to do with the order of moments: the last step of SplitMix64.
fn scatter(at: UnixMicros) -> u64 {
    let mut mixed = at.0.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Room {
    /// So much is free from `at` on, or is not any more; true once that was long enough.
    fn see(&mut self, at: UnixMicros, enough: bool) -> bool {
        if self.is_found_before(at) {
            return true;
        }
        self.since = enough.then(|| self.since.unwrap_or(at));
        false
    }

    fn is_found_before(&self, at: UnixMicros) -> bool {
        self.since.is_some_and(|since| since.plus_seconds(self.duration_s) <= at)
    }
}

impl Steps {
    /// Adds a step that is not there yet.
    pub fn insert(&mut self, at: UnixMicros, value: i64) {
        let node = Node::new(at, value);
        let place = match self.vacant.pop() {
            Some(place) => {
                self.nodes[place] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        let (before, after) = self.split(self.root, at);
        let before = self.merge(before, Some(place));
        self.root = self.merge(before, after);
    }

    /// Takes a step out.
    pub fn remove(&mut self, at: UnixMicros) {
        let (before, rest) = self.split(self.root, at);
        let (out, after) = self.split(rest, UnixMicros(at.0.saturating_add(1)));
        self.vacate(out);
        self.root = self.merge(before, after);
    }

    /// Takes out all that is before a moment.
    pub fn drop_before(&mut self, at: UnixMicros) {
        let (out, rest) = self.split(self.root, at);
        self.vacate(out);
        self.root = rest;
    }

    /// Adds to the value of each step from `from` until before `until`.
    pub fn add_between(&mut self, from: UnixMicros, until: UnixMicros, by: i64) {
        let (before, rest) = self.split(self.root, from);
        let (within, after) = self.split(rest, until);
        self.add(within, by);
        let rest = self.merge(within, after);
        self.root = self.merge(before, rest);
    }

    /// The last step that is not after `at`, and its value; that moment and nothing if there is none.
    pub fn step_at(&self, at: UnixMicros) -> (UnixMicros, i64) {
        let (mut link, mut added, mut found) = (self.root, 0, (at, 0));
        while let Some(place) = link {
            let node = &self.nodes[place];
            if node.at <= at {
                found = (node.at, node.value + added);
                link = node.right;
            } else {
                link = node.left;
            }
            added += node.pending;
        }
        found
    }

    /// What is free at `at`.
    pub fn value_at(&self, at: UnixMicros) -> i64 {
        self.step_at(at).1
    }

    /// The least value of the steps from `from` until before `until`.
    pub fn least_between(&self, from: UnixMicros, until: UnixMicros) -> Option<i64> {
        self.least_in(self.root, 0, from, until)
    }

    /// The first step after `after` whose value is less than `wanted`.
    pub fn first_below(&self, wanted: i64, after: UnixMicros) -> Option<UnixMicros> {
        self.first_below_in(self.root, 0, wanted, after)
    }

    /// Where there is room first, by the steps that have not been looked at.
    pub fn room(&self, mut room: Room) -> Option<UnixMicros> {
        self.look(self.root, 0, &mut room);
        room.since
    }

    /// All steps in their order.
    pub fn all(&self) -> Vec<(UnixMicros, i64)> {
        let mut all = Vec::new();
        self.collect(self.root, 0, &mut all);
        all
    }

    fn collect(&self, link: Link, added: i64, all: &mut Vec<(UnixMicros, i64)>) {
        let Some(place) = link else { return };
        let node = &self.nodes[place];
        let below = added + node.pending;
        self.collect(node.left, below, all);
        all.push((node.at, node.value + added));
        self.collect(node.right, below, all);
    }

    fn least_in(&self, link: Link, added: i64, from: UnixMicros, until: UnixMicros) -> Option<i64> {
        let node = &self.nodes[link?];
        if node.first >= until {
            return None;
        }
        let below = added + node.pending;
        if node.at < from {
            return self.least_in(node.right, below, from, until);
        }
        let own = (node.at < until).then_some(node.value + added);
        let left = self.least_in(node.left, below, from, until);
        let right = own.and_then(|_| self.least_until(node.right, below, until));
        [left, own, right].into_iter().flatten().min()
    }

    /// The least of what is before `until` in a subtree that begins late enough.
    fn least_until(&self, link: Link, added: i64, until: UnixMicros) -> Option<i64> {
        let node = &self.nodes[link?];
        let below = added + node.pending;
        if node.at >= until {
            return self.least_until(node.left, below, until);
        }
        let left = node.left.map(|left| self.nodes[left].least + below);
        let right = self.least_until(node.right, below, until);
        [left, Some(node.value + added), right].into_iter().flatten().min()
    }

    fn first_below_in(
        &self,
        link: Link,
        added: i64,
        wanted: i64,
        after: UnixMicros,
    ) -> Option<UnixMicros> {
        let node = &self.nodes[link?];
        if node.least + added >= wanted {
            return None;
        }
        let below = added + node.pending;
        if node.at <= after {
            return self.first_below_in(node.right, below, wanted, after);
        }
        let here = || (node.value + added < wanted).then_some(node.at);
        self.first_below_in(node.left, below, wanted, after)
            .or_else(here)
            .or_else(|| self.first_below_in(node.right, below, wanted, after))
    }

    /// Looks at a subtree from its first step on; true once there is room.
    fn look(&self, link: Link, added: i64, room: &mut Room) -> bool {
        let Some(place) = link else { return false };
        let node = &self.nodes[place];
        let below = added + node.pending;
        if node.at <= room.after {
            return self.look(node.right, below, room);
        }
        if node.first > room.after {
            // All of it is alike: it is as good as its first step.
            let enough = node.least + added >= room.wanted;
            if enough || node.most + added < room.wanted {
                return room.see(node.first, enough);
            }
        }
        self.look(node.left, below, room)
            || room.see(node.at, node.value + added >= room.wanted)
            || self.look(node.right, below, room)
    }

    /// What is before `at`, and what is not.
    fn split(&mut self, link: Link, at: UnixMicros) -> (Link, Link) {
        let Some(place) = link else { return (None, None) };
        self.hand_down(place);
        if self.nodes[place].at < at {
            let (left, right) = self.split(self.nodes[place].right, at);
            self.nodes[place].right = left;
            self.sum_up(place);
            (link, right)
        } else {
            let (left, right) = self.split(self.nodes[place].left, at);
            self.nodes[place].left = right;
            self.sum_up(place);
            (left, link)
        }
    }

    /// Both in one, of which all of the first comes before all of the other.
    fn merge(&mut self, before: Link, after: Link) -> Link {
        let (Some(first), Some(second)) = (before, after) else { return before.or(after) };
        if self.nodes[first].rank >= self.nodes[second].rank {
            self.hand_down(first);
            self.nodes[first].right = self.merge(self.nodes[first].right, after);
            self.sum_up(first);
            before
        } else {
            self.hand_down(second);
            self.nodes[second].left = self.merge(before, self.nodes[second].left);
            self.sum_up(second);
            after
        }
    }

    fn add(&mut self, link: Link, by: i64) {
        let Some(place) = link else { return };
        let node = &mut self.nodes[place];
        node.value = node.value.saturating_add(by);
        node.least = node.least.saturating_add(by);
        node.most = node.most.saturating_add(by);
        node.pending = node.pending.saturating_add(by);
    }

    fn hand_down(&mut self, place: Place) {
        let pending = std::mem::take(&mut self.nodes[place].pending);
        if pending != 0 {
            self.add(self.nodes[place].left, pending);
            self.add(self.nodes[place].right, pending);
        }
    }

    /// Finds again what is true of all below a node that has nothing pending.
    fn sum_up(&mut self, place: Place) {
        let node = self.nodes[place];
        let left = node.left.map(|left| self.nodes[left]);
        let right = node.right.map(|right| self.nodes[right]);
        let below = || left.iter().chain(&right);
        let sums = &mut self.nodes[place];
        sums.first = left.map_or(node.at, |left| left.first);
        sums.least = below().map(|one| one.least).fold(node.value, i64::min);
        sums.most = below().map(|one| one.most).fold(node.value, i64::max);
    }

    /// Frees the places of a subtree.
    fn vacate(&mut self, link: Link) {
        let Some(place) = link else { return };
        let Node { left, right, .. } = self.nodes[place];
        self.vacant.push(place);
        self.vacate(left);
        self.vacate(right);
    }
}
