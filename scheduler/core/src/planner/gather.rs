//! Which jobs compete in a pass, by cohorts; and of the others, why they do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fit::Machine;
use super::limits::Limits;
use super::order::DependencyLists;
use super::turns::{Common, Lines, Members};
use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::job::Job;
use crate::plan::Blocker;
use crate::quota::entitle::Arena;
use crate::world::{CohortKey, CohortPlace, World};

/// Every pending job.
#[derive(Debug)]
pub(super) struct Gathered<'w> {
    /// Those that compete, without scavengers.
    pub lines: Lines<'w>,
    /// Those that take what the others leave.
    pub scavengers: Vec<&'w Job>,
    /// Those that do not compete, with the reason.
    pub not_yet: NotYet,
}

/// Gathers the pending jobs of the world at the moment `now`.
pub(super) fn gather<'w>(
    world: &'w World,
    now: UnixMicros,
    arena: &Arc<Arena>,
    machine: &Machine<'_>,
    limits: &mut Limits<'w>,
) -> Gathered<'w> {
    let (late, not_yet) = beside_cohorts(world, now);
    let (mut lines, mut scavengers) = (Lines::new(Arc::clone(arena)), Vec::new());
    for (common, members) in cohorts(world, late) {
        if common.spec.scavenger {
            let jobs = members.iter().filter_map(|place| world.jobs.get(&place.job));
            scavengers.extend(jobs);
        } else {
            lines.add(common, members, machine, limits);
        }
    }
    Gathered { lines, scavengers, not_yet }
}

/// Jobs that do not compete, with the reason.
pub(super) type NotYet = Vec<(JobId, Arc<Vec<Blocker>>)>;

type Late<'w> = BTreeMap<CohortKey, Vec<&'w Job>>;

/// Of the jobs beside the cohorts, those whose moment has come, and why the others do not compete.
fn beside_cohorts(world: &World, now: UnixMicros) -> (Late<'_>, NotYet) {
    let mut early = DependencyLists::default();
    let (mut late, mut not_yet) = (Late::new(), NotYet::new());
    let beside = world.cohorts.dependent().chain(world.cohorts.delayed());
    for job in beside.filter_map(|id| world.jobs.get(&id)) {
        match early.not_yet(world, job, now) {
            Some(list) => not_yet.push((job.id, list)),
            None => late.entry(CohortKey::of(job)).or_default().push(job),
        }
    }
    (late, not_yet)
}

/// Every cohort, those of a project one after the other.
fn cohorts<'w>(world: &'w World, mut late: Late<'w>) -> Vec<(Common<'w>, Members<'w>)> {
    let of_world = |(key, places): (&'w CohortKey, &'w _)| {
        let members = match late.remove(key) {
            Some(jobs) => together(Members::of(places).iter(), &jobs),
            None => Members::of(places),
        };
        (Common { key: key.clone(), spec: key.spec(), avoid: key.avoid() }, members)
    };
    let mut cohorts: Vec<_> = world.cohorts.iter().map(of_world).collect();
    let alone = late.into_iter().filter_map(|(key, jobs)| {
        let first = *jobs.first()?;
        let common = Common { key, spec: &first.spec, avoid: &first.status.avoid };
        Some((common, together(std::iter::empty(), &jobs)))
    });
    let sorted = cohorts.len();
    cohorts.extend(alone);
    if cohorts.len() > sorted {
        cohorts.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
    }
    cohorts
}

/// Jobs of a cohort with those whose moment has come, in their order.
fn together<'w>(places: impl Iterator<Item = CohortPlace>, late: &[&Job]) -> Members<'w> {
    let mut all: Vec<CohortPlace> =
        places.chain(late.iter().map(|job| CohortPlace::of(job))).collect();
    all.sort_unstable();
    Members::List(all.into())
}
