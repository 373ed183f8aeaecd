//! Jobs of a cohort in their order.

use std::collections::btree_set;
use std::vec;

use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::world::{CohortJobs, CohortPlace};

/// Jobs in their order.
#[derive(Debug, Clone)]
pub(in crate::planner) struct Members<'w> {
    /// Where the next stands, with the run that it begins.
    first: Option<CohortPlace>,
    /// Those behind.
    rest: Rest<'w>,
    left: usize,
}

#[derive(Debug, Clone)]
enum Rest<'w> {
    /// All but the first of what the world has.
    Untouched(&'w CohortJobs),
    /// What is left of that.
    Set(btree_set::Iter<'w, CohortPlace>),
    /// With those whose moment has come.
    List(vec::IntoIter<CohortPlace>),
}

impl Rest<'_> {
    fn next(&mut self) -> Option<CohortPlace> {
        match self {
            Rest::Untouched(jobs) => {
                let mut places = jobs.places().iter();
                places.next();
                *self = Rest::Set(places);
                self.next()
            }
            Rest::Set(places) => places.next().copied(),
            Rest::List(places) => places.next(),
        }
    }
}

impl<'w> Members<'w> {
    /// All of a cohort of the world.
    pub fn of(jobs: &'w CohortJobs) -> Self {
        Members { first: jobs.first(), rest: Rest::Untouched(jobs), left: jobs.len() }
    }

    /// Those that stand at these places, which must be in their order.
    pub fn list(places: Vec<CohortPlace>) -> Self {
        let left = places.iter().map(CohortPlace::jobs).sum();
        let mut rest = Rest::List(places.into_iter());
        Members { first: rest.next(), rest, left }
    }

    /// Which is next.
    pub fn first(&self) -> Option<CohortPlace> {
        self.first
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Goes on to the next.
    pub(super) fn advance(&mut self) {
        let Some(place) = self.first else { return };
        self.left = self.left.saturating_sub(1);
        self.first = if place.job < place.last {
            Some(CohortPlace { job: JobId(place.job.0 + 1), ..place })
        } else {
            self.rest.next()
        };
    }

    /// Goes on to the last of the run, since all of it are alike; how many were passed over.
    pub(super) fn advance_to_last(&mut self) -> usize {
        let Some(place) = &mut self.first else { return 0 };
        let passed = place.jobs() - 1;
        place.job = place.last;
        self.left = self.left.saturating_sub(passed);
        passed
    }

    /// Where those stand that are left.
    pub fn places(&self) -> impl Iterator<Item = CohortPlace> + use<'w> {
        let mut rest = self.rest.clone();
        self.first.into_iter().chain(std::iter::from_fn(move || rest.next()))
    }

    /// Those that are left, of each run at most so many.
    pub fn iter(&self, most: usize) -> impl Iterator<Item = JobId> + use<'w> {
        let run = move |place: CohortPlace| (place.job.0..=place.last.0).take(most).map(JobId);
        self.places().flat_map(run)
    }

    /// When the first of them was queued, whatever their priority.
    pub(super) fn oldest(&self) -> UnixMicros {
        match self.rest {
            Rest::Untouched(jobs) => jobs.oldest(),
            Rest::Set(_) | Rest::List(_) => {
                self.places().map(|place| place.queued).min().unwrap_or_default()
            }
        }
    }
}
