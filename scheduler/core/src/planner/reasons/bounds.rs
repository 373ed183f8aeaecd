//! Limits, budgets and what others keep, as reasons for waiting.

use super::{Reasons, Want};
use crate::account::Standing;
use crate::amount::Ngh;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::planner::standing::SCAVENGER;
use crate::quota::entitle::NodeIndex;

impl Reasons<'_, '_> {
    /// What must be set aside for it, for the class that needs least; `None` where no budget binds it.
    fn least_hold(&self, want: Want) -> Option<Ngh> {
        let (family, gpus) = (self.families.get(want.family), self.families.gpus(want));
        let classes = family.tries.iter().filter(|_| want.slice_s > 0);
        let classes = classes.filter_map(|attempt| attempt.class);
        let hold = |class| self.budgets.hold(self.machine.class_name(class), gpus, want.slice_s);
        classes.map(hold).min()
    }

    pub(super) fn budget_blockers(&self, want: Want) -> Vec<Blocker> {
        let hold = self.least_hold(want);
        hold.map(|hold| self.budgets.blockers(want.project, hold)).unwrap_or_default()
    }

    /// Tells that it is beyond a budget and starts last.
    pub(super) fn beyond(&self, want: Want) -> Option<Blocker> {
        let hold = self.least_hold(want)?;
        let overuse = self.budgets.standing(want.project, hold) == Standing::Overuse;
        self.budgets.beyond(want.project, hold).filter(|_| overuse)
    }

    /// Tells that it starts after all others and stops for anybody.
    pub(super) fn scavenger(&self, want: Want) -> Option<Blocker> {
        want.scavenges.then(|| Blocker {
            kind: BlockerKind::Tier,
            subject: self.limits.path(want.project).to_string(),
            needed: self.families.gpus(want).0,
            available: 0,
            limit: 0,
            unit: Unit::GpuMilli,
            note: SCAVENGER.to_owned(),
        })
    }

    pub(super) fn limit_blockers(&self, want: Want) -> Vec<Blocker> {
        let family = self.families.get(want.family);
        let mut blockers = self.limits.walltime_blockers(want.project, want.limit_s);
        for attempt in &family.tries {
            let asked = self.families.asked(self.machine, want, attempt.class);
            for blocker in self.limits.blockers(want.project, asked) {
                // The limit over all classes binds each of them.
                if !blockers.contains(&blocker) {
                    blockers.push(blocker);
                }
            }
        }
        blockers
    }

    /// Who keeps what it could be given otherwise, for each class that would serve.
    pub(super) fn kept_blockers(&self, want: Want) -> Vec<Blocker> {
        let Some((_, fair)) = self.lending else { return Vec::new() };
        self.kept_from(want, fair.find(self.limits.path(want.project))).collect()
    }

    /// The same for a project at that node of the tree.
    pub(super) fn kept_from(
        &self,
        want: Want,
        node: Option<NodeIndex>,
    ) -> impl Iterator<Item = Blocker> + '_ {
        let gpus = self.families.gpus(want);
        let classes = self.families.get(want.family).tries.iter();
        let places = classes.filter_map(move |attempt| node.zip(attempt.class));
        places.filter_map(move |place| {
            let (lending, fair) = self.lending?;
            lending.blocker(fair, self.machine, place, gpus, want.scavenges)
        })
    }
}
