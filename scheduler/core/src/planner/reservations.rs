//! Reservations as a pass has them: those of the quota book, and those by command.

use std::collections::BTreeMap;

use crate::amount::UnixMicros;
use crate::fabric::{self, ReservationSet};
use crate::ids::{NodeName, ProjectPath, ReservationName};
use crate::quota::Interval;
use crate::quota::reserve::ReservationTerms;
use crate::reservation::Reserved;
use crate::spec::JobSpec;
use crate::window::Window;
use crate::world::World;

/// A reservation that is not over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reservation<'w> {
    /// Of the quota book.
    Book(&'w ReservationName, &'w ReservationTerms),
    /// By command.
    Command(&'w Window, &'w Reserved),
}

impl<'w> Reservation<'w> {
    /// All there are, by their places in a [`ReservationSet`].
    pub fn all(world: &'w World) -> Vec<Self> {
        let book = world.quota.reservations.iter();
        let book = book.map(|(name, terms)| Reservation::Book(name, terms));
        let commanded = world.windows.reservations();
        let commanded = commanded.map(|(window, own)| Reservation::Command(window, own));
        book.chain(commanded).collect()
    }

    /// Its name.
    pub fn name(self) -> &'w ReservationName {
        match self {
            Reservation::Book(name, _) => name,
            Reservation::Command(_, reserved) => &reserved.name,
        }
    }

    /// When it holds.
    pub fn during(self) -> Interval {
        match self {
            Reservation::Book(_, terms) => terms.during,
            Reservation::Command(window, _) => window.during,
        }
    }

    /// Whether it is for jobs of the project.
    pub fn is_for(self, project: &ProjectPath) -> bool {
        match self {
            Reservation::Book(_, terms) => project.is_within(terms.holder.as_str()),
            Reservation::Command(_, reserved) => reserved.is_for(project),
        }
    }

    /// For whom it is, in words.
    pub fn holders(self) -> String {
        match self {
            Reservation::Book(_, terms) => terms.holder.to_string(),
            Reservation::Command(_, reserved) => reserved.holders_text(),
        }
    }

    /// Whether what ends before it must have ended with its grace.
    pub fn counts_grace(self) -> bool {
        matches!(self, Reservation::Command(..))
    }

    /// Whether a job that starts at `now` must stay off its nodes.
    pub fn closes(self, spec: &JobSpec, now: UnixMicros) -> bool {
        match self {
            Reservation::Book(_, terms) => {
                terms.closes(&spec.project, now, now.plus_seconds(spec.time_limit_s))
            }
            Reservation::Command(window, _) => window.shuts_out(spec, now),
        }
    }

    /// When somebody for the project cannot be there: never while it is for others, and of its own not over its end. Of
    /// those of the book that is seen at the start.
    pub fn shut_to(self, project: &ProjectPath) -> Option<Interval> {
        let during = self.during();
        match (self.is_for(project), self) {
            (false, _) => Some(during),
            (true, Reservation::Book(..)) => None,
            (true, Reservation::Command(..)) => Some(Interval { from: during.until, ..during }),
        }
    }
}

/// By node, the reservations that take it.
pub(super) fn by_node<'w>(
    world: &'w World,
    standby: &std::collections::BTreeSet<&NodeName>,
) -> BTreeMap<&'w NodeName, ReservationSet> {
    let mut sets = fabric::reserved(world, standby);
    let first = world.quota.reservations.len();
    for (place, (window, _)) in world.windows.reservations().enumerate() {
        for name in &window.nodes {
            sets.entry(name).or_default().insert(first + place);
        }
    }
    sets
}
