//! Accounts: what every node of the quota tree has used and set aside, in normalised GPU time, against its budget.
//!
//! What was used is a sum of the ledger, kept by the month (and the grant) in which it was used, so that the account
//! of any period is a sum of few numbers and a refund finds its way back to the period that paid. What is set aside is
//! a sum over attempts that live. A budget decides whether something may start; it never stops anything.

mod pace;

use std::collections::BTreeMap;

use crate::amount::{Ngh, UnixMicros};
use crate::ids::ProjectPath;
use crate::quota::budget::{Budget, WHOLE_MILLI};
use crate::quota::{Interval, QuotaTree};

pub use pace::Pace;

/// What every path has used and set aside, each summed over everything below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    by_path: BTreeMap<String, Sums>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sums {
    /// By the beginning of the stretch of time it was used in; none is zero.
    used: BTreeMap<UnixMicros, Ngh>,
    /// For attempts that live.
    held: Ngh,
    /// How fast those use.
    pace: Pace,
}

impl Accounts {
    /// What `path` used in the stretches that begin in `span`.
    #[must_use]
    pub fn used(&self, path: &str, span: Interval) -> Ngh {
        let sums = self.by_path.get(path);
        let stretches = sums.map(|sums| sums.used.range(span.from..span.until));
        stretches.into_iter().flatten().map(|(_, ngh)| *ngh).sum()
    }

    /// What is set aside for attempts of `path`.
    #[must_use]
    pub fn held(&self, path: &str) -> Ngh {
        self.by_path.get(path).map(|sums| sums.held).unwrap_or_default()
    }

    /// What attempts of `path` that live use.
    #[must_use]
    pub fn pace(&self, path: &str) -> Pace {
        self.by_path.get(path).map(|sums| sums.pace).unwrap_or_default()
    }

    /// Every path with what is set aside for it.
    pub fn holds(&self) -> impl Iterator<Item = (&str, Ngh)> {
        self.by_path.iter().map(|(path, sums)| (path.as_str(), sums.held))
    }

    /// Enters what a project used, or less than nothing if it is given back, in the stretch that begins at `account`.
    pub fn enter(&mut self, project: &ProjectPath, account: UnixMicros, ngh: Ngh) {
        self.each_level(project, |sums| {
            let used = sums.used.entry(account).or_default();
            *used += ngh;
            if *used == Ngh::ZERO {
                sums.used.remove(&account);
            }
        });
    }

    /// Enters what is set aside for an attempt.
    pub fn hold(&mut self, project: &ProjectPath, ngh: Ngh) {
        self.each_level(project, |sums| sums.held += ngh);
    }

    /// Takes back what was set aside for an attempt.
    pub fn release(&mut self, project: &ProjectPath, ngh: Ngh) {
        self.each_level(project, |sums| sums.held -= ngh);
    }

    /// Enters how fast an attempt uses.
    pub fn begin(&mut self, project: &ProjectPath, pace: Pace) {
        self.each_level(project, |sums| sums.pace = sums.pace.and(pace));
    }

    /// Takes back how fast an attempt used.
    pub fn stop(&mut self, project: &ProjectPath, pace: Pace) {
        self.each_level(project, |sums| sums.pace = sums.pace.without(pace));
    }

    fn each_level(&mut self, project: &ProjectPath, change: impl Fn(&mut Sums)) {
        for path in project.self_and_ancestors() {
            if let Some(sums) = self.by_path.get_mut(path) {
                change(sums);
                if *sums == Sums::default() {
                    self.by_path.remove(path);
                }
            } else {
                let mut sums = Sums::default();
                change(&mut sums);
                if sums != Sums::default() {
                    self.by_path.insert(path.to_owned(), sums);
                }
            }
        }
    }
}

/// How a start would stand against budgets, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Every budget has what is set aside for it.
    Within,
    /// Some budget has not, and allows more than it has where nobody else wants the GPUs.
    Overuse,
    /// Some budget has not, and allows no more.
    Exhausted,
}

/// The account of one node for the period in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What its period is called.
    pub period: String,
    /// For the period, with what was carried into it.
    pub budget: Ngh,
    /// Of that, what was carried.
    pub carried: Ngh,
    /// The most that may be used in all; the budget where there is no overuse.
    pub cap: Ngh,
    /// Charged in this period, less what was given back.
    pub used: Ngh,
    /// Set aside for attempts that live.
    pub held: Ngh,
}

impl Account {
    /// The account of `path`, which has that budget.
    #[must_use]
    pub fn of(path: &str, budget: &Budget, accounts: &Accounts) -> Self {
        let carried = budget.carried(path, accounts);
        let all = budget.ngh + carried;
        Account {
            period: budget.period_name(),
            budget: all,
            carried,
            cap: all.part(budget.cap_milli, WHOLE_MILLI),
            used: accounts.used(path, budget.span),
            held: accounts.held(path),
        }
    }

    /// What neither was used nor is set aside; less than nothing after overuse.
    #[must_use]
    pub fn free(&self) -> Ngh {
        self.budget - self.used - self.held
    }

    /// How a start stands for which so much must be set aside. One that needs nothing is always within.
    #[must_use]
    pub fn judge(&self, more: Ngh) -> Standing {
        let after = self.used + self.held + more;
        if more == Ngh::ZERO || after <= self.budget {
            Standing::Within
        } else if after <= self.cap {
            Standing::Overuse
        } else {
            Standing::Exhausted
        }
    }
}

/// How a start of `project` stands for which so much must be set aside: as it does where it stands worst, at the
/// project or any node above it.
#[must_use]
pub fn standing(
    tree: &QuotaTree,
    accounts: &Accounts,
    project: &ProjectPath,
    more: Ngh,
) -> Standing {
    let levels = project.self_and_ancestors().filter_map(|path| {
        let budget = tree.nodes.get(path)?.budget.as_ref()?;
        Some(Account::of(path, budget, accounts).judge(more))
    });
    levels.max().unwrap_or(Standing::Within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JULY: UnixMicros = UnixMicros(7);
    const AUGUST: UnixMicros = UnixMicros(8);
    const QUARTER: Interval = Interval { from: JULY, until: UnixMicros(10) };

    fn path(text: &str) -> ProjectPath {
        ProjectPath::new(text).unwrap()
    }

    fn account(used: u64, held: u64) -> Account {
        Account {
            period: "2026-Q3".to_owned(),
            budget: Ngh::whole(4000),
            carried: Ngh::ZERO,
            cap: Ngh::whole(5000),
            used: Ngh::whole(used),
            held: Ngh::whole(held),
        }
    }

    #[test]
    fn a_start_is_within_up_to_the_budget_and_overuse_up_to_the_cap() {
        let stand = |used, held, more| account(used, held).judge(Ngh::whole(more));
        assert_eq!(stand(3000, 900, 100), Standing::Within);
        assert_eq!(stand(3000, 901, 100), Standing::Overuse);
        assert_eq!(stand(4100, 800, 100), Standing::Overuse);
        assert_eq!(stand(4100, 800, 101), Standing::Exhausted);
        assert_eq!(stand(9000, 0, 0), Standing::Within, "it needs nothing");
    }

    #[test]
    fn a_period_is_the_sum_of_its_months_and_a_refund_goes_back_to_its_own() {
        let (mut accounts, project) = (Accounts::default(), path("public/nup"));
        accounts.enter(&project, UnixMicros(6), Ngh(1000));
        accounts.enter(&project, JULY, Ngh(30));
        accounts.enter(&project, AUGUST, Ngh(12));
        accounts.enter(&project, JULY, Ngh(-30));
        let one = |account| Interval { from: account, until: UnixMicros(account.0 + 1) };
        assert_eq!(accounts.used("public", QUARTER), Ngh(12));
        assert_eq!(accounts.used("public", one(JULY)), Ngh::ZERO);
        assert_eq!(accounts.used("public", one(UnixMicros(6))), Ngh(1000));
    }

    proptest! {
        #[test]
        fn what_lies_below_a_node_sums_to_its_own_account(
            entries in proptest::collection::vec((0..3_usize, 0..4_i64, 0..1000_i128), 0..40),
        ) {
            let leaves = ["a/x", "a/y", "b/z"].map(path);
            let mut accounts = Accounts::default();
            for (leaf, account, ngh) in &entries {
                accounts.enter(&leaves[*leaf], UnixMicros(*account), Ngh(*ngh));
                accounts.hold(&leaves[*leaf], Ngh(*ngh));
            }
            let sum = |paths: &[&str]| -> Ngh {
                paths.iter().map(|path| accounts.used(path, Interval::ALWAYS)).sum()
            };
            prop_assert_eq!(sum(&["a"]), sum(&["a/x", "a/y"]));
            let all: i128 = entries.iter().map(|entry| entry.2).sum();
            prop_assert_eq!(sum(&["a", "b"]), Ngh(all));
            prop_assert_eq!(accounts.held("a") + accounts.held("b"), Ngh(all));
        }

        #[test]
        fn what_is_taken_back_leaves_no_trace(
            entries in proptest::collection::vec((0..3_usize, 0..4_i64, -9..1000_i128), 0..40),
        ) {
            let leaves = ["a/x", "a/y", "b/z"].map(path);
            let mut accounts = Accounts::default();
            for (leaf, account, ngh) in &entries {
                accounts.enter(&leaves[*leaf], UnixMicros(*account), Ngh(*ngh));
                accounts.hold(&leaves[*leaf], Ngh(*ngh));
            }
            for (leaf, account, ngh) in entries.iter().rev() {
                accounts.enter(&leaves[*leaf], UnixMicros(*account), Ngh(-*ngh));
                accounts.release(&leaves[*leaf], Ngh(*ngh));
            }
            prop_assert_eq!(accounts, Accounts::default());
        }

        #[test]
        fn no_start_takes_use_past_the_cap(
            starts in proptest::collection::vec(0..700_u64, 0..60),
        ) {
            let mut account = account(0, 0);
            for more in starts.into_iter().map(Ngh::whole) {
                if account.judge(more) != Standing::Exhausted {
                    account.held += more;
                }
                prop_assert!(account.used + account.held <= account.cap);
            }
        }
    }
}
