//! What every node of the quota tree holds now, and how many jobs it has.

use std::collections::BTreeMap;

use crate::amount::GpuMilli;
use crate::attempt::Attempt;
use crate::ids::{GpuClass, ProjectPath};

/// Use by path, each summed over everything below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    by_path: BTreeMap<String, PathUsage>,
}

/// What one node of the tree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathUsage {
    /// GPUs held, by class, without what scavengers hold; no entry is zero.
    pub held: BTreeMap<GpuClass, GpuMilli>,
    /// GPUs that scavengers hold, by class; no entry is zero.
    pub scavenged: BTreeMap<GpuClass, GpuMilli>,
    /// Jobs waiting, held ones included.
    pub waiting: u64,
    /// Jobs starting or running.
    pub active: u64,
}

impl Usage {
    /// What `path` holds of `class`, without what its scavengers hold.
    #[must_use]
    pub fn held(&self, path: &str, class: &GpuClass) -> GpuMilli {
        self.get(path).and_then(|usage| usage.held.get(class)).copied().unwrap_or_default()
    }

    /// What scavengers of `path` hold of `class`.
    #[must_use]
    pub fn scavenged(&self, path: &str, class: &GpuClass) -> GpuMilli {
        self.get(path).and_then(|usage| usage.scavenged.get(class)).copied().unwrap_or_default()
    }

    /// What `path` holds of all classes, without what its scavengers hold.
    #[must_use]
    pub fn held_any(&self, path: &str) -> GpuMilli {
        self.get(path).map(|usage| usage.held.values().copied().sum()).unwrap_or_default()
    }

    /// Jobs that wait below `path`.
    #[must_use]
    pub fn waiting(&self, path: &str) -> u64 {
        self.get(path).map_or(0, |usage| usage.waiting)
    }

    /// Whether jobs of more than one project wait, held ones included.
    #[must_use]
    pub fn several_projects_wait(&self) -> bool {
        // What one project and those above it count, each next one is below the one before.
        let mut waiting = self.by_path.iter().filter(|(_, usage)| usage.waiting > 0);
        let Some((mut last, mut above)) = waiting.next() else { return false };
        waiting.any(|(path, usage)| {
            let below = path.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with('/'));
            let all = usage.waiting == above.waiting;
            (last, above) = (path, usage);
            !(below && all)
        })
    }

    /// Everything about `path`, `None` if there is nothing.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&PathUsage> {
        self.by_path.get(path)
    }

    /// Every path with what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PathUsage)> {
        self.by_path.iter().map(|(path, usage)| (path.as_str(), usage))
    }

    /// Counts what an attempt took.
    pub(super) fn begin(&mut self, attempt: &Attempt) {
        let Some(class) = &attempt.placement.class else { return };
        let gpus = attempt.gpus();
        if attempt.scavenges() {
            self.each_level(&attempt.project, |usage| {
                *usage.scavenged.entry(class.clone()).or_default() += gpus;
            });
        } else {
            self.take(&attempt.project, class, gpus);
        }
    }

    /// Counts what an attempt gave back.
    pub(super) fn end(&mut self, attempt: &Attempt) {
        let Some(class) = &attempt.placement.class else { return };
        let gpus = attempt.gpus();
        if attempt.scavenges() {
            let of = |usage: &mut PathUsage| less(&mut usage.scavenged, class, gpus);
            self.each_level(&attempt.project, of);
        } else {
            self.each_level(&attempt.project, |usage| less(&mut usage.held, class, gpus));
        }
    }

    /// Counts GPUs that are given to a project.
    pub fn take(&mut self, project: &ProjectPath, class: &GpuClass, gpus: GpuMilli) {
        self.each_level(project, |usage| *usage.held.entry(class.clone()).or_default() += gpus);
    }

    /// Counts so many jobs more or less that wait.
    pub(super) fn count_waiting(&mut self, project: &ProjectPath, jobs: u64, more: bool) {
        if jobs > 0 {
            self.each_level(project, |usage| usage.waiting = step(usage.waiting, jobs, more));
        }
    }

    /// Counts one job more or less that starts or runs.
    pub(super) fn count_active(&mut self, project: &ProjectPath, more: bool) {
        self.each_level(project, |usage| usage.active = step(usage.active, 1, more));
    }

    fn each_level(&mut self, project: &ProjectPath, change: impl Fn(&mut PathUsage)) {
        for path in project.self_and_ancestors() {
            if let Some(usage) = self.by_path.get_mut(path) {
                change(usage);
                if *usage == PathUsage::default() {
                    self.by_path.remove(path);
                }
            } else {
                let mut usage = PathUsage::default();
                change(&mut usage);
                self.by_path.insert(path.to_owned(), usage);
            }
        }
    }
}

fn less(held: &mut BTreeMap<GpuClass, GpuMilli>, class: &GpuClass, gpus: GpuMilli) {
    if let Some(held) = held.get_mut(class) {
        *held = held.saturating_sub(gpus);
    }
    held.retain(|_, held| !held.is_zero());
}

fn step(count: u64, jobs: u64, more: bool) -> u64 {
    if more { count.saturating_add(jobs) } else { count.saturating_sub(jobs) }
}
