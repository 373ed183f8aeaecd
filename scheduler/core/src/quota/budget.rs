//! Budgets: how much normalised GPU time a node of the tree, with all below it, may use in a period.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};

use super::dated::{Dated, Interval};
use super::moment::SITE_OFFSET;
use crate::account::Accounts;
use crate::amount::{MICROS_PER_SECOND, Ngh, UnixMicros};

/// What is not over in a period: the whole of it, in thousandths.
pub const WHOLE_MILLI: u32 = 1000;

/// How long an account runs before it begins anew, by the calendar of Korea.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// A month.
    Month,
    /// Three months, from January, April, July and October.
    Quarter,
    /// From January to December.
    Year,
    /// All the time for which the node is there.
    Grant,
}

impl Period {
    /// All periods.
    pub const ALL: [Period; 4] = [Period::Month, Period::Quarter, Period::Year, Period::Grant];

    /// The word in files and listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Period::Month => "month",
            Period::Quarter => "quarter",
            Period::Year => "year",
            Period::Grant => "grant",
        }
    }

    /// The period of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.word() == word)
    }

    /// Its months; `None` for a grant.
    fn months(self) -> Option<i8> {
        match self {
            Period::Month => Some(1),
            Period::Quarter => Some(3),
            Period::Year => Some(12),
            Period::Grant => None,
        }
    }

    /// The period that `at` lies in, for a node that is there for `valid`; beyond the calendar, all time.
    #[must_use]
    pub fn around(self, at: UnixMicros, valid: Interval) -> Interval {
        match self.months() {
            Some(months) => months_around(at, months).unwrap_or(Interval::ALWAYS),
            None => valid,
        }
    }

    /// What people call the one that begins then: `2026-08`, `2026-Q3`, `2026`, `the grant`.
    #[must_use]
    pub fn name(self, from: UnixMicros) -> String {
        let Some(date) = date_of(from).filter(|_| self != Period::Grant) else {
            return "the grant".to_owned();
        };
        match self {
            Period::Month => format!("{:04}-{:02}", date.year(), date.month()),
            Period::Quarter => format!("{:04}-Q{}", date.year(), (date.month() + 2) / 3),
            Period::Year | Period::Grant => format!("{:04}", date.year()),
        }
    }
}

/// The month that `at` lies in; accounts are kept by months, so that every longer period is a sum of them.
#[must_use]
pub fn month_around(at: UnixMicros) -> Interval {
    Period::Month.around(at, Interval::ALWAYS)
}

fn date_of(at: UnixMicros) -> Option<Date> {
    let timestamp = Timestamp::from_microsecond(at.0).ok()?;
    Some(timestamp.to_zoned(TimeZone::fixed(SITE_OFFSET)).date())
}

/// The stretch of so many months, counted from January, that `at` lies in.
fn months_around(at: UnixMicros, months: i8) -> Option<Interval> {
    let date = date_of(at)?;
    let first = Date::new(date.year(), (date.month() - 1) / months * months + 1, 1).ok()?;
    let next = first.checked_add(jiff::Span::new().months(months)).ok()?;
    Some(Interval { from: midnight(first)?, until: midnight(next)? })
}

fn midnight(date: Date) -> Option<UnixMicros> {
    let timestamp = SITE_OFFSET.to_timestamp(date.to_datetime(civil::Time::midnight())).ok()?;
    Some(UnixMicros(timestamp.as_second().saturating_mul(MICROS_PER_SECOND)))
}

/// A budget as it was written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetTerms {
    /// When the account begins anew.
    pub period: Period,
    /// For each period; where there is no value, the node has no budget.
    pub ngh: Dated<Ngh>,
    /// What goes on to the next period.
    pub carry: Carry,
    /// The nodes right below may have more together.
    pub promises_beyond: bool,
}

/// Which part of what was not used goes on to the next period, once: there it is used last, and lapses at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// Hundredths; 0 for nothing.
    pub percent: u32,
    /// The most that goes on.
    pub most: Option<Ngh>,
}

impl Carry {
    /// What goes on of a budget of which so much was used.
    #[must_use]
    pub fn of(self, budget: Ngh, used: Ngh) -> Ngh {
        let part = (budget - used).or_zero().part(self.percent, 100);
        self.most.map_or(part, |most| part.min(most))
    }
}

impl fmt::Display for Carry {
    /// `none`, `50 %`, `50 %, at most 1,000 NGH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percent, self.most) {
            (0, _) => write!(f, "none"),
            (percent, None) => write!(f, "{percent} %"),
            (percent, Some(most)) => write!(f, "{percent} %, at most {most} NGH"),
        }
    }
}

/// The budget in force at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// When the account begins anew.
    pub period: Period,
    /// The period that the moment lies in.
    pub span: Interval,
    /// For this period.
    pub ngh: Ngh,
    /// How much may be used in all, thousandths of the budget; 1000 where there is no overuse.
    pub cap_milli: u32,
    /// The period before, if a part of what was left of it goes on to this one.
    pub before: Option<Before>,
}

impl Budget {
    /// What people call its period.
    #[must_use]
    pub fn period_name(&self) -> String {
        self.period.name(self.span.from)
    }

    /// What was carried into its period, for the node at `path`.
    #[must_use]
    pub fn carried(&self, path: &str, accounts: &Accounts) -> Ngh {
        let before = self.before.as_ref();
        let carried =
            before.map(|before| before.carry.of(before.ngh, accounts.used(path, before.span)));
        carried.unwrap_or_default()
    }
}

/// The period before one, of which something goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// From when until when.
    pub span: Interval,
    /// Its budget, as it was at its end.
    pub ngh: Ngh,
    /// What of it goes on.
    pub carry: Carry,
}

impl BudgetTerms {
    /// What holds at `at` for a node that is there for `valid` and may use up to `cap_milli`.
    #[must_use]
    pub fn at(&self, at: UnixMicros, valid: Interval, cap_milli: u32) -> Option<Budget> {
        let ngh = *self.ngh.at(at)?;
        let span = self.period.around(at, valid);
        Some(Budget { period: self.period, span, ngh, cap_milli, before: self.before(span, valid) })
    }

    fn before(&self, span: Interval, valid: Interval) -> Option<Before> {
        let carries = self.period != Period::Grant && self.carry.percent > 0;
        let last = UnixMicros(span.from.0.saturating_sub(1));
        if !carries || !valid.contains(last) {
            return None;
        }
        let span = self.period.around(last, valid);
        Some(Before { span, ngh: *self.ngh.at(last)?, carry: self.carry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::moment;

    fn at(text: &str) -> UnixMicros {
        moment::read(text).unwrap()
    }

    fn span(period: Period, text: &str) -> [String; 2] {
        let span = period.around(at(text), Interval::ALWAYS);
        [span.from, span.until].map(moment::show)
    }

    #[test]
    fn periods_are_those_of_the_calendar_in_korea() {
        assert_eq!(span(Period::Month, "2026-12-31T23:59:59Z"), ["2027-01-01", "2027-02-01"]);
        assert_eq!(span(Period::Quarter, "2026-08-14T22:40"), ["2026-07-01", "2026-10-01"]);
        assert_eq!(span(Period::Quarter, "2026-12-31"), ["2026-10-01", "2027-01-01"]);
        assert_eq!(span(Period::Year, "2028-02-29"), ["2028-01-01", "2029-01-01"]);
    }

    #[test]
    fn the_first_moment_belongs_to_a_period_and_the_last_to_the_next() {
        let edge = at("2026-10-01");
        let before = UnixMicros(edge.0 - 1);
        assert_eq!(Period::Quarter.around(edge, Interval::ALWAYS).from, edge);
        assert_eq!(Period::Quarter.around(before, Interval::ALWAYS).until, edge);
    }

    #[test]
    fn a_period_has_the_name_people_use() {
        let names = Period::ALL.map(|period| period.name(at("2026-07-01")));
        assert_eq!(names, ["2026-07", "2026-Q3", "2026", "the grant"]);
    }

    #[test]
    fn what_is_carried_is_a_part_of_what_was_left_up_to_its_cap() {
        let carry = Carry { percent: 50, most: Some(Ngh::whole(1000)) };
        let left = |used| carry.of(Ngh::whole(4000), Ngh::whole(used));
        let expected = [1000, 250, 0, 0].map(Ngh::whole);
        assert_eq!([0, 3500, 4000, 4100].map(left), expected);
    }

    #[test]
    fn the_end_of_time_is_in_no_calendar() {
        let end = UnixMicros(i64::MAX - 1);
        assert_eq!(Period::Year.around(end, Interval::ALWAYS), Interval::ALWAYS);
    }
}
