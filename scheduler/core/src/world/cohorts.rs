//! Every pending job, by what it waits for: a table of cohorts that is kept with the world, change by change.
//!
//! Jobs that wait for other jobs, and jobs that failed and are tried again later, stand beside the cohorts: they are few,
//! and when their time comes is a matter of the clock. So do arrays that say how many of their tasks may run at once.

use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::cohort::{CohortJobs, CohortKey, CohortPlace, Wish};
use super::numbered::Numbered;
use crate::array::ArrayTasks;
use crate::ids::{GpuClass, JobId, NodeName, ProjectPath};
use crate::job::Job;
use crate::spec::{Constraints, GpuRequest, NodeRequest};

/// Jobs that wait for the same, with what is found once and used in every pass.
#[derive(Debug, Clone)]
pub struct Cohort {
    /// What they have in common.
    pub key: CohortKey,
    /// Who they are.
    pub jobs: CohortJobs,
    /// Number of what each node must give, and where: equal for cohorts that differ in nothing that places them but the
    /// number of nodes and the time limit.
    pub kind: u32,
    /// Number of the project.
    pub project: u32,
    /// What a pass asks of each of them.
    pub wish: Wish,
}

/// Place of a cohort in the world's table, as long as any of its jobs waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CohortNumber(pub u32);

/// What each node must give, and where: compared by that alone.
#[derive(Debug, Clone)]
struct Kind(CohortKey);

/// Every pending job, by what it waits for.
#[derive(Debug, Clone, Default)]
pub struct Cohorts {
    numbers: BTreeMap<CohortKey, CohortNumber>,
    table: Vec<Option<Cohort>>,
    free: Vec<CohortNumber>,
    kinds: Numbered<Kind>,
    projects: Numbered<ProjectPath>,
    /// Kind, project, time limit in seconds and number of each cohort: those of one kind stand next to each other, and of
    /// them those of one project, the shortest first.
    by_kind: BTreeSet<(u32, u32, i64, CohortNumber)>,
    /// Kind, time limit in seconds and number of each cohort: of one kind the shortest first.
    by_limit: BTreeSet<(u32, i64, CohortNumber)>,
    /// By what they want and for which project, how many cohorts there are.
    wanting: BTreeMap<(Wants, u32), u32>,
    /// Jobs and arrays that wait for others.
    dependent: BTreeSet<JobId>,
    /// Jobs that may not start before a moment of their own.
    delayed: BTreeSet<JobId>,
    /// Arrays that run only so many of their tasks at once.
    limited: BTreeSet<JobId>,
    /// Arrays of which only some tasks compete, since others wait for tasks of another array.
    behind: BTreeSet<JobId>,
}

/// Which GPUs jobs want.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// None.
    Nothing,
    /// Those of any one class.
    Any,
    /// Those of this class.
    Class(GpuClass),
}

impl Wants {
    /// What that request wants.
    #[must_use]
    pub fn of(request: &GpuRequest) -> Self {
        match (request, request.class()) {
            (GpuRequest::None, _) => Wants::Nothing,
            (_, None) => Wants::Any,
            (_, Some(class)) => Wants::Class(class.clone()),
        }
    }
}

/// Where a pending job stands.
enum Stand {
    Dependent,
    Delayed,
    Cohort,
}

/// Where the waiting tasks of an array stand.
#[derive(PartialEq, Eq)]
enum ArrayStand {
    Dependent,
    Limited,
    Cohort,
}

impl Kind {
    fn parts(&self) -> (&NodeRequest, &Constraints, &BTreeSet<NodeName>) {
        let spec = self.0.spec();
        (&spec.per_node, &spec.constraints, self.0.avoid())
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

/// Numbers are no matter: worlds with the same jobs may have come to them in other ways.
impl PartialEq for Cohorts {
    fn eq(&self, other: &Self) -> bool {
        let jobs = |of: &Cohorts, key: &CohortKey| of.find(key).map(|(_, one)| one.jobs.clone());
        self.numbers.keys().eq(other.numbers.keys())
            && self.numbers.keys().all(|key| jobs(self, key) == jobs(other, key))
            && self.dependent == other.dependent
            && self.delayed == other.delayed
            && self.limited == other.limited
            && self.behind == other.behind
    }
}

impl Eq for Cohorts {}

impl Cohort {
    fn of(key: CohortKey, kind: u32, project: u32) -> Self {
        let wish = Wish::of(key.spec());
        Cohort { key, jobs: CohortJobs::default(), kind, project, wish }
    }
}

impl Cohorts {
    /// Every cohort with its number, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (CohortNumber, &Cohort)> {
        let numbers = (0..u32::MAX).map(CohortNumber);
        numbers.zip(&self.table).filter_map(|(number, cohort)| Some((number, cohort.as_ref()?)))
    }

    /// The number of every cohort, in the order of what they wait for.
    pub fn in_order(&self) -> impl Iterator<Item = (&CohortKey, CohortNumber)> {
        self.numbers.iter().map(|(key, number)| (key, *number))
    }

    /// The cohort of those that wait for this, if there is one, with its number.
    #[must_use]
    pub fn find(&self, key: &CohortKey) -> Option<(CohortNumber, &Cohort)> {
        let number = self.numbers.get(key)?;
        Some((*number, self.table.get(number.0 as usize)?.as_ref()?))
    }

    /// What the jobs of each kind have in common, by the number of the kind: the key of one of their cohorts, of which what
    /// each node must give, and where, goes for all of them.
    pub fn kinds(&self) -> impl Iterator<Item = (u32, &CohortKey)> {
        self.kinds.iter().map(|(number, kind)| (number, &kind.0))
    }

    /// Every cohort of a kind with its number.
    pub fn of_kind(&self, kind: u32) -> impl Iterator<Item = (CohortNumber, &Cohort)> {
        let first = (kind, 0, i64::MIN, CohortNumber(0));
        let last = (kind, u32::MAX, i64::MAX, CohortNumber(u32::MAX));
        let numbers = self.by_kind.range(first..=last).map(|(.., number)| *number);
        numbers.filter_map(|number| Some((number, self.get(number)?)))
    }

    /// Every cohort of a kind that may take no longer than so many seconds, with its number, the shortest first.
    pub fn within(&self, kind: u32, limit_s: i64) -> impl Iterator<Item = (CohortNumber, &Cohort)> {
        let first = (kind, i64::MIN, CohortNumber(0));
        let last = (kind, limit_s, CohortNumber(u32::MAX));
        let numbers = self.by_limit.range(first..=last).map(|(.., number)| *number);
        numbers.filter_map(|number| Some((number, self.get(number)?)))
    }

    /// The numbers of a project's cohorts of a kind that may take no longer than so many seconds.
    pub fn of_project_within(
        &self,
        (kind, project): (u32, u32),
        limit_s: i64,
    ) -> impl Iterator<Item = CohortNumber> + '_ {
        let first = (kind, project, i64::MIN, CohortNumber(0));
        let last = (kind, project, limit_s, CohortNumber(u32::MAX));
        self.by_kind.range(first..=last).map(|(.., number)| *number)
    }

    /// The numbers of projects for which any job wants this.
    pub fn projects_wanting(&self, wants: &Wants) -> impl Iterator<Item = u32> + '_ {
        let (first, last) = ((wants.clone(), 0), (wants.clone(), u32::MAX));
        self.wanting.range(first..=last).map(|((_, project), _)| *project)
    }

    /// The cohort of that number.
    #[must_use]
    pub fn get(&self, number: CohortNumber) -> Option<&Cohort> {
        self.table.get(number.0 as usize)?.as_ref()
    }

    /// The path of the project of that number.
    #[must_use]
    pub fn project(&self, number: u32) -> Option<&ProjectPath> {
        self.projects.get(number)
    }

    /// Jobs and arrays that stand beside the cohorts.
    pub fn beside(&self) -> impl Iterator<Item = JobId> + '_ {
        self.dependent().chain(self.delayed()).chain(self.limited())
    }

    /// How many that are.
    #[must_use]
    pub fn beside_len(&self) -> usize {
        self.dependent.len() + self.delayed.len() + self.limited.len()
    }

    /// One more than the largest number of a cohort, of a kind and of a project.
    #[must_use]
    pub fn sizes(&self) -> [usize; 3] {
        [self.table.len(), self.kinds.len(), self.projects.len()]
    }

    /// Arrays that run only so many of their tasks at once, and have tasks that wait.
    pub fn limited(&self) -> impl Iterator<Item = JobId> + '_ {
        self.limited.iter().copied()
    }

    /// Arrays of which tasks wait for tasks of another array while the rest competes.
    pub fn behind(&self) -> impl Iterator<Item = JobId> + '_ {
        self.behind.iter().copied()
    }

    /// Jobs and arrays that wait for others.
    pub fn dependent(&self) -> impl Iterator<Item = JobId> + '_ {
        self.dependent.iter().copied()
    }

    /// Jobs that may not start before a moment of their own, which may have come.
    pub fn delayed(&self) -> impl Iterator<Item = JobId> + '_ {
        self.delayed.iter().copied()
    }

    /// Enters a job that is pending.
    pub(super) fn insert(&mut self, job: &Job) {
        match stand(job) {
            Stand::Dependent => _ = self.dependent.insert(job.id),
            Stand::Delayed => _ = self.delayed.insert(job.id),
            Stand::Cohort => self.add(CohortKey::of(job), [CohortPlace::of(job)]),
        }
    }

    /// Takes out a job that was entered like this.
    pub(super) fn remove(&mut self, job: &Job) {
        match stand(job) {
            Stand::Dependent => _ = self.dependent.remove(&job.id),
            Stand::Delayed => _ = self.delayed.remove(&job.id),
            Stand::Cohort => self.subtract(&CohortKey::of(job), [CohortPlace::of(job)]),
        }
    }

    /// Enters the tasks of an array that wait.
    pub(super) fn insert_array(&mut self, array: &Job) {
        let Some(tasks) = waiting(array) else { return };
        let stand = stand_of_array(array);
        if stand != ArrayStand::Dependent && tasks.behind.is_some() {
            self.behind.insert(array.id);
        }
        match stand {
            ArrayStand::Dependent => _ = self.dependent.insert(array.id),
            ArrayStand::Limited => _ = self.limited.insert(array.id),
            ArrayStand::Cohort => {
                self.add(CohortKey::of(array), CohortPlace::of_tasks(array, &tasks.ready()));
            }
        }
    }

    /// Takes out the tasks of an array that were entered like this.
    pub(super) fn remove_array(&mut self, array: &Job) {
        let Some(tasks) = waiting(array) else { return };
        self.behind.remove(&array.id);
        match stand_of_array(array) {
            ArrayStand::Dependent => _ = self.dependent.remove(&array.id),
            ArrayStand::Limited => _ = self.limited.remove(&array.id),
            ArrayStand::Cohort => {
                self.subtract(&CohortKey::of(array), CohortPlace::of_tasks(array, &tasks.ready()));
            }
        }
    }

    fn add(&mut self, key: CohortKey, places: impl IntoIterator<Item = CohortPlace>) {
        let mut places = places.into_iter().peekable();
        if places.peek().is_none() {
            return;
        }
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => self.enter(key),
        };
        if let Some(cohort) = self.table.get_mut(number.0 as usize).and_then(Option::as_mut) {
            cohort.jobs.add(places);
        }
    }

    fn enter(&mut self, key: CohortKey) -> CohortNumber {
        let kind = self.kinds.enter(&Kind(key.clone()));
        let project = self.projects.enter(&key.spec().project);
        let limit_s = key.spec().time_limit_s;
        let cohort = Some(Cohort::of(key.clone(), kind, project));
        let number = match self.free.pop() {
            Some(number) => {
                self.table[number.0 as usize] = cohort;
                number
            }
            None => {
                self.table.push(cohort);
                CohortNumber(u32::try_from(self.table.len() - 1).unwrap_or(u32::MAX))
            }
        };
        *self.wanting.entry((Wants::of(&key.spec().per_node.gpus), project)).or_default() += 1;
        self.numbers.insert(key, number);
        self.by_kind.insert((kind, project, limit_s, number));
        self.by_limit.insert((kind, limit_s, number));
        number
    }

    fn subtract(&mut self, key: &CohortKey, places: impl IntoIterator<Item = CohortPlace>) {
        let Some(number) = self.numbers.get(key).copied() else { return };
        let Some(place) = self.table.get_mut(number.0 as usize) else { return };
        if let Some(cohort) = place {
            cohort.jobs.subtract(places);
        }
        if let Some(gone) = place.take_if(|cohort| cohort.jobs.is_empty()) {
            self.numbers.remove(key);
            self.by_kind.remove(&(gone.kind, gone.project, gone.wish.limit_s, number));
            self.by_limit.remove(&(gone.kind, gone.wish.limit_s, number));
            self.no_longer_wants((Wants::of(&key.spec().per_node.gpus), gone.project));
            self.free.push(number);
            self.kinds.leave(gone.kind);
            self.projects.leave(gone.project);
        }
    }

    fn no_longer_wants(&mut self, one: (Wants, u32)) {
        if let Entry::Occupied(mut cohorts) = self.wanting.entry(one) {
            *cohorts.get_mut() -= 1;
            if *cohorts.get() == 0 {
                cohorts.remove();
            }
        }
    }
}

fn stand(job: &Job) -> Stand {
    if !job.status.waits_for.is_empty() {
        Stand::Dependent
    } else if job.status.not_before > job.status.queued {
        Stand::Delayed
    } else {
        Stand::Cohort
    }
}

fn stand_of_array(array: &Job) -> ArrayStand {
    let limit = array.spec.array.as_ref().and_then(|array| array.at_once);
    match (array.status.waits_for.as_slice(), limit) {
        ([_, ..], _) => ArrayStand::Dependent,
        ([], Some(_)) => ArrayStand::Limited,
        ([], None) => ArrayStand::Cohort,
    }
}

/// Its tasks, if any of them waits and is no job of its own.
fn waiting(array: &Job) -> Option<&ArrayTasks> {
    array.status.tasks.as_deref().filter(|tasks| !tasks.waiting.is_empty())
}
