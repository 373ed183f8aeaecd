//! Budgets in the pass: how a start stands against them, and the turn of those that are beyond one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Pass, Want};
use crate::account::Standing;
use crate::amount::Ngh;
use crate::ids::{JobId, NodeName};
use crate::meter::slice_s;
use crate::planner::fair::Tier;
use crate::planner::limits::ProjectIndex;
use crate::planner::request::FamilyId;
use crate::planner::score::ClassIndex;
use crate::planner::turns::{Claim, Fate, Turn, Turns};
use crate::spec::JobSpec;
use crate::world::Wish;

impl<'w> Pass<'w> {
    /// Those beyond a budget, after all others: one of each cohort in turn.
    pub(super) fn run_beyond_budgets(&mut self, turns: &mut Turns<'w>) {
        if !self.beyond.is_empty() {
            self.note_wanted();
        }
        while !self.has_decided_enough() {
            let Some((cohort, claim)) = self.beyond.pop_front() else { break };
            let Some(place) = turns.cohort(cohort).members().first() else { continue };
            let claim = Claim { tier: Tier::Overuse, ..claim };
            let turn = Turn { job: place.job, cohort, claim };
            if self.take_turn(turns, &turn) == Fate::Next {
                turns.cohort_mut(cohort).advance();
                self.beyond.push_back((cohort, claim));
            }
        }
    }

    /// Notes the classes that jobs within their budgets wait for and could be given.
    fn note_wanted(&mut self) {
        let known = self.known.iter().map(|known| (known.want, known.first));
        let told = self.waiting.iter().map(|waiting| (waiting.want, waiting.job));
        let mut waiting: BTreeMap<Want, JobId> = BTreeMap::new();
        for (want, job) in told.chain(known) {
            waiting.entry(want).or_insert(job);
        }
        for (want, job) in waiting {
            for place in 0..self.families.get(want.family).tries.len() {
                let class = self.families.get(want.family).tries[place].class;
                let could = self.families.get_mut(want.family).capable(place, &self.machine);
                if could >= want.nodes && self.allowed(want, class) {
                    self.wanted.entry(class).or_insert(job);
                }
            }
        }
    }

    /// What jobs of that specification, which avoid those nodes, compete for.
    pub(super) fn want(
        &mut self,
        spec: &'w JobSpec,
        avoid: &'w BTreeSet<NodeName>,
        project: ProjectIndex,
    ) -> Want {
        let family = self.families.of((spec, avoid), self.closed_to(spec), &self.machine);
        self.want_in(family, Wish::of(spec), project)
    }

    /// What jobs of that family compete for.
    pub(super) fn want_in(&mut self, family: FamilyId, wish: Wish, project: ProjectIndex) -> Want {
        let Wish { nodes, limit_s, scavenger: scavenges, .. } = wish;
        let bound = !scavenges && self.budgets.binds(project, self.limits.path(project));
        let slice_s = if bound { slice_s(limit_s) } else { 0 };
        Want { family, nodes, project, scavenges, limit_s, slice_s }
    }

    /// How a start on nodes of that class stands against the budgets of its project.
    pub(super) fn standing(&self, want: Want, class: Option<ClassIndex>) -> Standing {
        self.budgets.standing(want.project, self.hold(want, class))
    }

    /// What must be set aside for a start on nodes of that class.
    pub(super) fn hold(&self, want: Want, class: Option<ClassIndex>) -> Ngh {
        let Some(class) = class.filter(|_| want.slice_s > 0) else {
            return Ngh::ZERO;
        };
        let gpus = self.families.gpus(want);
        self.budgets.hold(self.machine.class_name(class), gpus, want.slice_s)
    }

    /// The job within its budgets that a start beyond one must leave the class to.
    pub(super) fn own_later(
        &self,
        claim: Claim,
        want: Want,
        class: Option<ClassIndex>,
    ) -> Option<JobId> {
        let ahead = self.wanted.get(&class).copied()?;
        let beyond = claim.tier == Tier::Overuse && self.standing(want, class) != Standing::Within;
        beyond.then_some(ahead)
    }
}
