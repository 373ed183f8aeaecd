//! What the pass tells: why each job waits, by what is left at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::beforehand::Known;
use super::{Pass, Waiting, Who};
use crate::ids::JobId;
use crate::plan::{Blocker, CohortLists, Decision, Report};
use crate::planned::PlannedStarts;
use crate::planner::bearings::{Bearings, Kept, Refusing};
use crate::planner::budgets::Budgets;
use crate::planner::fair::Fair;
use crate::planner::limits::Limits;
use crate::planner::reasons::{Ground, Outlook, Reasons};
use crate::planner::request::UsualReasons;
use crate::planner::shares::Shares;
use crate::planner::turns::{Name, Turns};
use crate::precedence::PassTurns;
use crate::world::{CohortKey, CohortNumber, World};

/// Of fewer than one in so many cohorts, sorting what is said is faster than to look at them all in their order.
const FEW: usize = 16;

/// What a full pass leaves behind.
pub(in crate::planner) struct Ended {
    /// What to do.
    pub decisions: Vec<Decision>,
    /// Why the others wait.
    pub report: Report,
    /// By what order jobs start.
    pub turns: Option<PassTurns>,
    /// What passes for events go by.
    pub bearings: Bearings,
}

/// Blockers.
type List = Arc<Vec<Blocker>>;

/// Lists found so far.
struct Lists<'w> {
    world: &'w World,
    jobs: Vec<(JobId, List)>,
    /// By the number of a cohort of the world.
    of_world: Vec<Option<List>>,
    apart: BTreeMap<CohortKey, List>,
    usual: UsualReasons,
}

impl<'w> Pass<'w> {
    /// What the pass found.
    pub(super) fn report(mut self, turns: &Turns<'w>) -> Ended {
        let is_calm = self.is_calm();
        let lists = self.lists(turns);
        let waiting = usize::try_from(self.world.waiting_jobs()).unwrap_or(usize::MAX);
        let record = self.finish_record();
        let (mut fair, planned) =
            (self.fair.take(), Arc::new(std::mem::take(&mut self.plans.starts)));
        fair.iter_mut().for_each(Fair::settle);
        let deferred = waiting.saturating_sub(self.considered);
        let kept = fair.as_ref().filter(|_| is_calm).cloned();
        let kept = kept.and_then(|fair| self.keep(fair, &planned, deferred > 0));
        let shares = fair.map(|fair| Shares::of(fair, &self.machine, &self.demands));
        let (jobs, cohorts, usual) = lists.into_parts();
        let report = Report {
            jobs,
            cohorts,
            considered: self.considered,
            deferred,
            shares: Arc::new(shares.unwrap_or_default()),
            planned,
            crowded: self.families.crowded(usual),
        };
        let bearings = kept.map(Bearings::of).unwrap_or_default();
        Ended { decisions: self.decisions, report, turns: record, bearings }
    }

    /// What passes for events go by, where some jobs may not have been looked at. It is made here, since people wait for
    /// those passes.
    fn keep(&mut self, fair: Fair, planned: &Arc<PlannedStarts>, has_more: bool) -> Option<Kept> {
        let (whole, demands) = (Arc::clone(&self.whole), self.demands.clone());
        let (places, contested) = (self.places.clone()?, std::mem::take(&mut self.contested));
        let (version, planned) = (self.world.version, Arc::clone(planned));
        let mut kept = Kept::of(version, whole, (places, fair), demands, planned, contested);
        kept.note(&self.decisions, |job| self.jobs.get(job));
        kept.refusing = refusing(&self.limits, &self.budgets, self.lending.is_some());
        kept.fresh.has_more = has_more;
        kept.fresh.nodes.append(&mut self.given_up);
        Some(kept)
    }

    fn lists(&mut self, turns: &Turns<'w>) -> Lists<'w> {
        let mut lists = Lists::of(self.world, std::mem::take(&mut self.lists));
        for (name, list) in std::mem::take(&mut self.outside) {
            lists.tell(&name, list);
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let known = std::mem::take(&mut self.known);
        let mut recorder = std::mem::take(&mut self.recorder);
        let mut aside = recorder.aside();
        let nobody_expects = self.expecting.is_empty();
        let mut reasons = self.reasons();
        let mut others = Vec::new();
        for known in known {
            let Known { first, want, claim, lacks_room, .. } = known;
            if lacks_room && nobody_expects && reasons.are_usual(want, claim.node) {
                let of_family = lists.usual.entry(want.family).or_default();
                let usual = of_family.entry(want.nodes);
                let usual = usual.or_insert_with(|| reasons.usual(want, first));
                aside.add(first, || usual.worst(want.limit_s));
            } else {
                others.push(known);
            }
        }
        waiting.extend(others.iter().map(|known| self.waiting_of(known)));
        let mut reasons = self.reasons();
        let mut passed = Vec::new();
        for (at, waiting) in waiting.into_iter().enumerate() {
            let list = reasons.list(&waiting);
            if let Who::Known(_) = waiting.who {
                aside.add(waiting.job, || list.first().cloned());
            } else if recorder.keeps(at) {
                passed.push((waiting.clone(), Arc::clone(&list)));
            }
            lists.add(turns, &waiting, list);
        }
        for (at, (waiting, list)) in passed.iter().enumerate() {
            recorder.note_passed(at, waiting, list, &self.plans.starts);
        }
        recorder.note_aside(aside);
        self.recorder = recorder;
        lists
    }

    /// Reasons by what is left now.
    fn reasons(&mut self) -> Reasons<'_, 'w> {
        let ground = Ground {
            machine: &self.machine,
            limits: &self.limits,
            budgets: &self.budgets,
            fair: self.fair.as_ref().filter(|fair| fair.has_tiers),
            lending: self.lending.as_ref(),
            outlook: Outlook {
                horizon: &self.horizon,
                starts: &self.plans.starts,
                now: self.now,
                grace_s: self.policy.default_grace_s.into(),
            },
        };
        Reasons::of(ground, &mut self.families)
    }
}

impl<'w> Lists<'w> {
    fn of(world: &'w World, jobs: Vec<(JobId, List)>) -> Self {
        let of_world = vec![None; world.cohorts.sizes()[0]];
        Lists { world, jobs, of_world, apart: BTreeMap::new(), usual: UsualReasons::new() }
    }

    fn add(&mut self, turns: &Turns<'w>, waiting: &Waiting, list: List) {
        match waiting.who {
            Who::Job => self.jobs.push((waiting.job, list)),
            Who::Cohort(cohort) => self.tell(&turns.cohort(cohort).common.name, list),
            Who::Known(number) => self.of_world[number.0 as usize] = Some(list),
        }
    }

    fn tell(&mut self, name: &Name, list: List) {
        match name {
            Name::World { number, .. } => self.of_world[number.0 as usize] = Some(list),
            Name::Apart(key) => _ = self.apart.insert(key.clone(), list),
        }
    }

    /// Lists of cohorts of the world, in the order of their keys.
    fn in_order(&mut self) -> Vec<(CohortKey, List)> {
        let said = self.of_world.iter().flatten().count();
        let mut ordered = Vec::with_capacity(said);
        // A key is copied only where there is a list: a hundred thousand copies cost more than all lists.
        if said < self.of_world.len() / FEW {
            let all = self.world.cohorts.iter();
            ordered.extend(all.filter_map(|(number, of)| self.named(&of.key, number)));
            ordered.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        } else {
            let all = self.world.cohorts.in_order();
            ordered.extend(all.filter_map(|(key, number)| self.named(key, number)));
        }
        ordered
    }

    fn named(&mut self, key: &CohortKey, number: CohortNumber) -> Option<(CohortKey, List)> {
        let list = self.of_world[number.0 as usize].take()?;
        Some((key.clone(), list))
    }

    fn into_parts(mut self) -> (BTreeMap<JobId, List>, CohortLists, UsualReasons) {
        let ordered = self.in_order();
        (self.jobs.into_iter().collect(), CohortLists::of(ordered, self.apart), self.usual)
    }
}

/// What kept somebody from starting beside room.
pub(super) fn refusing(limits: &Limits<'_>, budgets: &Budgets<'_>, by_all: bool) -> Refusing {
    let paths = limits.refusing().chain(budgets.refusing()).map(str::to_owned).collect();
    Refusing { paths, by_all }
}
