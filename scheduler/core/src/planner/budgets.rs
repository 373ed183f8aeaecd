//! Budgets of the pass: how each account stands, counting what this pass sets aside.
//!
//! Where no node of the tree has a budget there are no accounts, and nothing here costs anything.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::limits::ProjectIndex;
use crate::account::{Account, Standing};
use crate::amount::{GpuMilli, Ngh};
use crate::ids::{GpuClass, ProjectPath};
use crate::meter::hold_for;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::quota::QuotaTree;
use crate::world::World;

/// What a blocker calls the tier of those who start last.
pub(crate) const OVERUSE: &str = "overuse";

/// Accounts of every node that has a budget.
#[derive(Debug)]
pub(super) struct Budgets<'w> {
    tree: &'w QuotaTree,
    accounts: Vec<(&'w str, Account)>,
    account_of: BTreeMap<&'w str, usize>,
    /// Of each whether somebody was beyond its budget. Nothing is decided by that within a pass.
    refusing: Vec<Cell<bool>>,
    /// Accounts of each project that was looked at, its own first.
    bound: BTreeMap<ProjectIndex, Vec<usize>>,
}

impl<'w> Budgets<'w> {
    /// Accounts as the world has them.
    pub fn of(world: &'w World) -> Self {
        let tree: &QuotaTree = &world.quota;
        let nodes = tree.nodes.iter().filter_map(|(path, node)| {
            Some((
                path.as_str(),
                Account::of(path.as_str(), node.budget.as_ref()?, &world.accounts),
            ))
        });
        let accounts: Vec<(&str, Account)> = nodes.collect();
        let account_of = accounts.iter().enumerate().map(|(at, (path, _))| (*path, at)).collect();
        let refusing = accounts.iter().map(|_| Cell::new(false)).collect();
        Budgets { tree, accounts, account_of, refusing, bound: BTreeMap::new() }
    }

    /// Whether any budget binds the project.
    pub fn binds(&mut self, project: ProjectIndex, path: &ProjectPath) -> bool {
        if self.accounts.is_empty() {
            return false;
        }
        let found = || path.self_and_ancestors().filter_map(|path| self.account_of.get(path));
        let bound = self.bound.entry(project).or_insert_with(|| found().copied().collect());
        !bound.is_empty()
    }

    /// What must be set aside for a start.
    pub fn hold(&self, class: &GpuClass, gpus: GpuMilli, seconds: i64) -> Ngh {
        Ngh::of(hold_for(gpus, seconds), self.tree.weight_milli(class))
    }

    /// How a start stands where it stands worst.
    pub fn standing(&self, project: ProjectIndex, more: Ngh) -> Standing {
        let judge = |at: &usize| {
            let standing = self.accounts[*at].1.judge(more);
            if standing != Standing::Within {
                self.refusing[*at].set(true);
            }
            standing
        };
        let judged = self.bound.get(&project).into_iter().flatten().map(judge);
        judged.max().unwrap_or(Standing::Within)
    }

    /// Nodes of the tree beyond whose budgets somebody was.
    pub fn refusing(&self) -> Vec<&'w str> {
        let marked = self.accounts.iter().zip(&self.refusing);
        marked.filter(|(_, refused)| refused.get()).map(|((path, _), _)| *path).collect()
    }

    /// Counts what the pass sets aside.
    pub fn take(&mut self, project: ProjectIndex, more: Ngh) {
        for at in self.bound.get(&project).into_iter().flatten() {
            self.accounts[*at].1.held += more;
        }
    }

    /// The budgets that keep so much more from the project: its own first, then upwards.
    pub fn blockers(&self, project: ProjectIndex, more: Ngh) -> Vec<Blocker> {
        let exhausted = self
            .of_project(project)
            .filter(|(_, account)| account.judge(more) == Standing::Exhausted);
        exhausted.map(|(path, account)| exhausted_blocker(path, account, more)).collect()
    }

    /// Tells that a start is beyond a budget: the nearest one that it is beyond.
    pub fn beyond(&self, project: ProjectIndex, more: Ngh) -> Option<Blocker> {
        let mut levels = self.of_project(project);
        let (path, account) =
            levels.find(|(_, account)| account.judge(more) == Standing::Overuse)?;
        let blocker = exhausted_blocker(path, account, more);
        Some(Blocker {
            kind: BlockerKind::Tier,
            note: format!("{OVERUSE} {}", blocker.note),
            ..blocker
        })
    }

    fn of_project(&self, project: ProjectIndex) -> impl Iterator<Item = (&'w str, &Account)> {
        let bound = self.bound.get(&project).into_iter().flatten();
        bound.map(|at| (self.accounts[*at].0, &self.accounts[*at].1))
    }
}

/// The note has what was used, what is set aside, what was carried, the cap, and the period.
fn exhausted_blocker(path: &str, account: &Account, more: Ngh) -> Blocker {
    let [used, held, carried, cap] =
        [account.used, account.held, account.carried, account.cap].map(Ngh::thousandths_up);
    Blocker {
        kind: BlockerKind::Budget,
        subject: path.to_owned(),
        needed: more.thousandths_up(),
        available: account.free().thousandths_down(),
        limit: account.budget.thousandths_down(),
        unit: Unit::NghMilli,
        note: format!("{used} {held} {carried} {cap} {}", account.period),
    }
}
