//! Which parts of which budgets were said to be used, and when there will be something to say again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::World;
use crate::alert::{Alert, Told, Watched};
use crate::amount::UnixMicros;
use crate::ids::ProjectPath;

/// What was said, and what is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alerts {
    /// By node and percentage.
    told: BTreeMap<ProjectPath, BTreeMap<u32, Told>>,
    /// Nodes of which there will be something to say, if nothing else changes, by when.
    dues: BTreeSet<(UnixMicros, ProjectPath)>,
    /// The same by node.
    by_node: BTreeMap<ProjectPath, UnixMicros>,
}

impl Alerts {
    /// Remembers that it was said.
    pub(super) fn tell(&mut self, alert: &Alert) {
        let node = self.told.entry(alert.node.clone()).or_default();
        node.insert(alert.percent, Told::by(alert));
    }

    fn told(&self, path: &str, percent: u32) -> Option<&Told> {
        self.told.get(path)?.get(&percent)
    }

    fn expect(&mut self, path: &ProjectPath, due: Option<UnixMicros>) {
        if self.by_node.get(path).copied() == due {
            return;
        }
        let before = match due {
            Some(due) => {
                self.dues.insert((due, path.clone()));
                self.by_node.insert(path.clone(), due)
            }
            None => self.by_node.remove(path),
        };
        if let Some(before) = before {
            self.dues.remove(&(before, path.clone()));
        }
    }
}

impl World {
    /// Nodes of which there is something to say by `now`, the longest due first.
    pub fn alerts_due_by(&self, now: UnixMicros) -> impl Iterator<Item = &ProjectPath> + '_ {
        self.alerts.dues.iter().take_while(move |(due, _)| *due <= now).map(|(_, path)| path)
    }

    /// When there is something to say of a budget next; `None` if not by time alone.
    #[must_use]
    pub fn next_alert(&self) -> Option<UnixMicros> {
        self.alerts.dues.first().map(|(due, _)| *due)
    }

    /// What there is to say of the budget of `path` at `now`, in rising order; alerts have no position yet.
    #[must_use]
    pub fn alerts_of(&self, path: &ProjectPath, now: UnixMicros) -> Vec<Alert> {
        let node = self.quota.get(path);
        let Some((node, watched)) = node.and_then(|node| Some((node, self.watched(path)?))) else {
            return Vec::new();
        };
        let alerts = node.alert.percents().filter_map(|percent| {
            let told = self.alerts.told(path.as_str(), percent);
            let kind = watched.judge(percent, told, now)?;
            Some(watched.alert(path, percent, kind, now))
        });
        alerts.collect()
    }

    /// Use of a project, or the pace of it, is another: looks at it and all above.
    pub(super) fn expect_alerts(&mut self, project: &ProjectPath) {
        let quota = Arc::clone(&self.quota);
        for path in project.self_and_ancestors() {
            let node = quota.nodes.get_key_value(path).filter(|(_, node)| node.budget.is_some());
            if let Some((path, _)) = node {
                let due = self.alert_due(path);
                self.alerts.expect(path, due);
            }
        }
    }

    /// Another tree is in force.
    pub(super) fn expect_all_alerts(&mut self) {
        let nodes = self.quota.nodes.iter().filter(|(_, node)| node.budget.is_some());
        let due = |(path, _): (&ProjectPath, _)| Some((path.clone(), self.alert_due(path)?));
        let by_node: BTreeMap<ProjectPath, UnixMicros> = nodes.filter_map(due).collect();
        self.alerts.dues = by_node.iter().map(|(path, due)| (*due, path.clone())).collect();
        self.alerts.by_node = by_node;
    }

    fn alert_due(&self, path: &ProjectPath) -> Option<UnixMicros> {
        let watched = self.watched(path)?;
        let percents = self.quota.get(path)?.alert.percents();
        let due = |percent| watched.due(percent, self.alerts.told(path.as_str(), percent));
        percents.filter_map(due).min()
    }

    fn watched<'a>(&'a self, path: &'a ProjectPath) -> Option<Watched<'a>> {
        let budget = self.quota.get(path)?.budget.as_ref()?;
        Watched::of(path.as_str(), budget, &self.accounts)
    }
}
