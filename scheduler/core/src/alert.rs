//! Alerts: people are told when a part of a budget has been used, to the second, while it happens.
//!
//! What counts is what was used: what was charged, and what attempts that live have used since they were settled last.
//! What is set aside counts for starts and not here: most of it may never be used.

use crate::account::Accounts;
use crate::amount::{Ngh, UnixMicros};
use crate::ids::ProjectPath;
use crate::quota::Interval;
use crate::quota::budget::Budget;

/// Somebody was told that a part of a budget is used, or is not any more; never changed once written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Position of its event.
    pub seq: u64,
    /// When.
    pub at: UnixMicros,
    /// Whose budget.
    pub node: ProjectPath,
    /// Which part of it, hundredths.
    pub percent: u32,
    /// What happened.
    pub kind: AlertKind,
    /// Beginning of the period.
    pub from: UnixMicros,
    /// What people call the period.
    pub period: String,
    /// For the period, without what was carried into it.
    pub budget: Ngh,
    /// Carried into the period.
    pub carried: Ngh,
    /// Used in the period by then, to the second.
    pub used: Ngh,
}

/// What happened with a part of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertKind {
    /// It was used up.
    Passed,
    /// A larger budget took the use under it again; when it passes once more, that is told.
    Under,
    /// A larger budget did not take the use under it.
    Still,
}

impl AlertKind {
    /// All kinds.
    pub const ALL: [AlertKind; 3] = [AlertKind::Passed, AlertKind::Under, AlertKind::Still];

    /// The word in listings and in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            AlertKind::Passed => "passed",
            AlertKind::Under => "under",
            AlertKind::Still => "still",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether the part was used up after it.
    fn is_over(self) -> bool {
        match self {
            AlertKind::Passed | AlertKind::Still => true,
            AlertKind::Under => false,
        }
    }
}

impl Alert {
    /// One line for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let Alert { node, percent, period, used, .. } = self;
        let verb = match self.kind {
            AlertKind::Passed => "used",
            AlertKind::Under => "is again under",
            AlertKind::Still => "is still past",
        };
        let all = self.budget + self.carried;
        format!("{node} {verb} {percent} % of its budget for {period}: {used} of {all} NGH")
    }
}

/// What was last said of a part of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Beginning of the period it was said of.
    from: UnixMicros,
    /// What the budget was then, without what was carried.
    budget: Ngh,
    /// Whether the part was used up.
    over: bool,
}

impl Told {
    /// What that alert said.
    #[must_use]
    pub fn by(alert: &Alert) -> Self {
        Told { from: alert.from, budget: alert.budget, over: alert.kind.is_over() }
    }
}

/// What there is to watch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// That the part is used up.
    Pass,
    /// Whether a larger budget took the use under it.
    Enlarged,
    /// Nothing: it was said.
    Nothing,
}

fn watch(told: Option<&Told>, budget: &Budget) -> Watch {
    match told {
        Some(told) if told.from == budget.span.from && told.over => {
            if told.budget < budget.ngh {
                Watch::Enlarged
            } else {
                Watch::Nothing
            }
        }
        Some(_) | None => Watch::Pass,
    }
}

/// The account of a node, as alerts look at it.
#[derive(Debug)]
pub struct Watched<'a> {
    path: &'a str,
    budget: &'a Budget,
    accounts: &'a Accounts,
    carried: Ngh,
}

impl<'a> Watched<'a> {
    /// The account of `path`, which has that budget; `None` for a budget of nothing, of which there are no parts.
    #[must_use]
    pub fn of(path: &'a str, budget: &'a Budget, accounts: &'a Accounts) -> Option<Self> {
        let carried = budget.carried(path, accounts);
        let all = budget.ngh + carried;
        (all > Ngh::ZERO).then_some(Watched { path, budget, accounts, carried })
    }

    /// How much that part is, rounded up.
    fn part(&self, percent: u32) -> Ngh {
        let all = self.budget.ngh + self.carried;
        Ngh::ZERO - (Ngh::ZERO - all).part(percent, 100)
    }

    fn charged(&self) -> Ngh {
        self.accounts.used(self.path, self.budget.span)
    }

    /// What was used by `now`, to the second.
    #[must_use]
    pub fn used(&self, now: UnixMicros) -> Ngh {
        self.charged() + self.accounts.pace(self.path).uncharged(now)
    }

    /// When there will be something to say of that part, if nothing else changes; `None`: not by time alone.
    #[must_use]
    pub fn due(&self, percent: u32, told: Option<&Told>) -> Option<UnixMicros> {
        match watch(told, self.budget) {
            Watch::Nothing => None,
            Watch::Enlarged => Some(Interval::ALWAYS.from),
            Watch::Pass => {
                let left = self.part(percent) - self.charged();
                self.accounts.pace(self.path).reaches(left)
            }
        }
    }

    /// What there is to say of that part at `now`.
    #[must_use]
    pub fn judge(&self, percent: u32, told: Option<&Told>, now: UnixMicros) -> Option<AlertKind> {
        let over = self.used(now) >= self.part(percent);
        match watch(told, self.budget) {
            Watch::Nothing => None,
            Watch::Enlarged if over => Some(AlertKind::Still),
            Watch::Enlarged => Some(AlertKind::Under),
            Watch::Pass => over.then_some(AlertKind::Passed),
        }
    }

    /// The alert of that kind, before it has its position.
    #[must_use]
    pub fn alert(
        &self,
        node: &ProjectPath,
        percent: u32,
        kind: AlertKind,
        now: UnixMicros,
    ) -> Alert {
        Alert {
            seq: 0,
            at: now,
            node: node.clone(),
            percent,
            kind,
            from: self.budget.span.from,
            period: self.budget.period_name(),
            budget: self.budget.ngh,
            carried: self.carried,
            used: self.used(now),
        }
    }
}
