//! Which jobs compete in a pass, by cohorts; and of the others, why they do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fit::Machine;
use super::limits::Limits;
use super::order::{DependencyLists, array_limit};
use super::places::Places;
use super::turns::{Common, Lines, Members, Name};
use super::unfold::Jobs;
use crate::amount::UnixMicros;
use crate::array::ArrayTasks;
use crate::ids::JobId;
use crate::job::Job;
use crate::plan::Blocker;
use crate::reservation;
use crate::world::{Cohort, CohortKey, CohortNumber, CohortPlace, Wish, World};

/// Every pending job.
#[derive(Debug)]
pub(super) struct Gathered<'w> {
    /// Those that compete, without scavengers.
    pub lines: Lines<'w>,
    /// Those that take what the others leave; of the tasks of an array as many as can start in a pass.
    pub scavengers: Vec<&'w Job>,
    /// Those that do not compete, with the reason.
    pub not_yet: NotYet,
}

/// Gathers the pending jobs of these cohorts of the world at the moment `now`, and those beside all cohorts whose moment
/// has come; at most `starts_max` of them will start.
pub(super) fn gather<'w>(
    jobs: Jobs<'w>,
    now: UnixMicros,
    cohorts: impl Iterator<Item = (CohortNumber, &'w Cohort)>,
    places: &Arc<Places>,
    machine: &Machine<'_>,
    limits: &mut Limits<'w>,
    starts_max: usize,
) -> Gathered<'w> {
    let (late, mut not_yet) = beside_cohorts(jobs.world, now);
    let (classes, most) = (machine.classes.len(), cohorts.size_hint().1.unwrap_or(0));
    let mut lines = Lines::new(Arc::clone(places), &jobs.world.cohorts, classes, most);
    let mut scavengers = Vec::new();
    let mut enter = |entrant: Entrant<'w>| {
        if let Some(list) = entrant.unmet(jobs.world, now) {
            return not_yet.add_cohort(entrant, list);
        }
        if entrant.scavenges() {
            let members = entrant.members().iter(starts_max);
            return scavengers.extend(members.filter_map(|id| jobs.get(id)));
        }
        match entrant {
            Entrant::Plain(number, cohort) => lines.add_plain((number, cohort), machine, limits),
            Entrant::Other(common, members) => lines.add(common, members, machine, limits),
        }
    };
    each_cohort(jobs.world, cohorts, late, &mut enter);
    Gathered { lines, scavengers, not_yet }
}

/// Jobs that do not compete, with the reason. What is said of an array goes for all its tasks that wait and of which
/// nothing else is said.
#[derive(Debug, Default)]
pub(super) struct NotYet {
    /// The reasons.
    pub lists: Vec<(JobId, Arc<Vec<Blocker>>)>,
    /// Those of whole cohorts.
    pub cohorts: Vec<(Name, Arc<Vec<Blocker>>)>,
    /// How many jobs that are.
    pub jobs: usize,
}

impl NotYet {
    fn add(&mut self, job: JobId, list: Arc<Vec<Blocker>>, jobs: u32) {
        self.lists.push((job, list));
        self.jobs = self.jobs.saturating_add(jobs as usize);
    }

    fn add_cohort(&mut self, entrant: Entrant<'_>, list: Arc<Vec<Blocker>>) {
        self.jobs = self.jobs.saturating_add(entrant.members().len());
        self.cohorts.push((entrant.into_name(), list));
    }
}

/// Jobs that compete although they stand beside the cohorts.
type Late<'w> = BTreeMap<CohortKey, (&'w Job, Vec<CohortPlace>)>;

/// Of the jobs beside the cohorts, those whose moment has come, and why the others do not compete.
fn beside_cohorts(world: &World, now: UnixMicros) -> (Late<'_>, NotYet) {
    let mut early = DependencyLists::default();
    let (mut late, mut not_yet) = (Late::new(), NotYet::default());
    let beside = world.cohorts.dependent().chain(world.cohorts.delayed());
    for job in beside.filter_map(|id| world.record(id)) {
        let jobs = job.status.tasks.as_ref().map_or(1, |tasks| tasks.waiting.len());
        match early.not_yet(world, job, now) {
            Some(list) => not_yet.add(job.id, list, jobs),
            None => enter(&mut late, job, [CohortPlace::of(job)]),
        }
    }
    let tasks = |id| world.arrays.get(&id)?.status.tasks.as_deref();
    // Why each of these waits follows from the other array, and is told when somebody asks.
    for tasks in world.cohorts.behind().filter_map(tasks) {
        let more = tasks.waiting.len().saturating_sub(tasks.ready().len());
        not_yet.jobs = not_yet.jobs.saturating_add(more as usize);
    }
    for array in world.cohorts.limited().filter_map(|id| world.arrays.get(&id)) {
        within_limit(array, &mut late, &mut not_yet);
    }
    (late, not_yet)
}

fn enter<'w>(late: &mut Late<'w>, job: &'w Job, places: impl IntoIterator<Item = CohortPlace>) {
    let (_, list) = late.entry(CohortKey::of(job)).or_insert_with(|| (job, Vec::new()));
    list.extend(places);
}

/// Of an array's tasks that wait, as many as may run beside those that do; the others do not compete.
fn within_limit<'w>(array: &'w Job, late: &mut Late<'w>, not_yet: &mut NotYet) {
    let limit = array.spec.array.as_ref().and_then(|array| array.at_once);
    let tasks: Option<&ArrayTasks> = array.status.tasks.as_deref();
    let (Some(limit), Some(tasks)) = (limit, tasks) else { return };
    let ready = tasks.ready();
    let may_start = ready.lowest(limit.saturating_sub(tasks.active()));
    let more = ready.len().saturating_sub(may_start.len());
    if more > 0 {
        not_yet.add(array.id, array_limit(array.id, limit, tasks.active()), more);
    }
    if !may_start.is_empty() {
        enter(late, array, CohortPlace::of_tasks(array, &may_start));
    }
}

/// A cohort that competes.
enum Entrant<'w> {
    /// As the world has it.
    Plain(CohortNumber, &'w Cohort),
    /// With jobs whose moment has come, or of nothing but such jobs.
    Other(Common<'w>, Members<'w>),
}

impl<'w> Entrant<'w> {
    fn scavenges(&self) -> bool {
        match self {
            Entrant::Plain(_, cohort) => cohort.wish.scavenger,
            Entrant::Other(common, _) => common.wish.scavenger,
        }
    }

    /// Why it does not compete, if it asks for a reservation that it cannot have nodes of now.
    fn unmet(&self, world: &World, now: UnixMicros) -> Option<Arc<Vec<Blocker>>> {
        let wish = match self {
            Entrant::Plain(_, cohort) => cohort.wish,
            Entrant::Other(common, _) => common.wish,
        };
        if !wish.asks_reservation {
            return None;
        }
        let spec = match self {
            Entrant::Plain(_, cohort) => cohort.key.spec(),
            Entrant::Other(common, _) => common.spec,
        };
        reservation::unmet_blocker(&world.windows, spec, now)
    }

    fn into_name(self) -> Name {
        match self {
            Entrant::Plain(number, cohort) => {
                Name::World { number, kind: cohort.kind, project: cohort.project }
            }
            Entrant::Other(common, _) => common.name,
        }
    }

    fn members(&self) -> Members<'w> {
        match self {
            Entrant::Plain(_, cohort) => Members::of(&cohort.jobs),
            Entrant::Other(_, members) => members.clone(),
        }
    }
}

/// Each of the cohorts, with those of its jobs whose moment has come; and what stands wholly beside the world's.
fn each_cohort<'w>(
    world: &'w World,
    cohorts: impl Iterator<Item = (CohortNumber, &'w Cohort)>,
    late: Late<'w>,
    enter: &mut impl FnMut(Entrant<'w>),
) {
    let (mut joining, mut apart) = (BTreeMap::new(), Vec::new());
    for (key, (first, places)) in late {
        match world.cohorts.find(&key) {
            Some((number, _)) => _ = joining.insert(number, places),
            None => apart.push((key, first, places)),
        }
    }
    for (number, cohort) in cohorts {
        match joining.remove(&number) {
            Some(late) => enter(joined(number, cohort, late)),
            None => enter(Entrant::Plain(number, cohort)),
        }
    }
    // Those of cohorts that are not asked for come into line with their cohorts all the same.
    for (number, late) in joining {
        if let Some(cohort) = world.cohorts.get(number) {
            enter(joined(number, cohort, late));
        }
    }
    for (key, first, places) in apart {
        let (name, wish) = (Name::Apart(key), Wish::of(&first.spec));
        let common = Common { name, spec: &first.spec, avoid: &first.status.avoid, wish };
        enter(Entrant::Other(common, together(places)));
    }
}

/// A cohort of the world with those of its jobs whose moment has come.
fn joined(number: CohortNumber, cohort: &Cohort, late: Vec<CohortPlace>) -> Entrant<'_> {
    let Cohort { key, jobs, kind, project, wish } = cohort;
    let name = Name::World { number, kind: *kind, project: *project };
    let common = Common { name, spec: key.spec(), avoid: key.avoid(), wish: *wish };
    Entrant::Other(common, together(Members::of(jobs).places().chain(late).collect()))
}

/// Jobs of a cohort with those whose moment has come, in their order.
fn together<'w>(mut places: Vec<CohortPlace>) -> Members<'w> {
    places.sort_unstable();
    Members::list(places)
}
