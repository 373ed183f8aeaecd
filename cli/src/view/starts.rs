//! When a job that waits is going to start.

use gotgan_proto::v1;
use serde::Serialize;

use crate::output::time;

/// Ranges that must be known before it is said how many held.
const KNOWN_LEAST: u32 = 10;

/// A range of moments, or why there is none.
#[derive(Clone, Debug, Serialize)]
pub struct StartView {
    pub from_us: Option<i64>,
    pub from: Option<String>,
    pub until_us: Option<i64>,
    pub until: Option<String>,
    pub held: u32,
    pub told: u32,
    pub looked_us: Option<i64>,
    pub looked: Option<String>,
    pub reason: Option<String>,
}

impl StartView {
    /// As the API has it.
    #[must_use]
    pub fn of(start: &v1::StartEstimate) -> Self {
        Self {
            from_us: time::set(start.from_us),
            from: time::rfc3339(start.from_us),
            until_us: time::set(start.until_us),
            until: time::rfc3339(start.until_us),
            held: start.held,
            told: start.told,
            looked_us: time::set(start.looked_us),
            looked: time::rfc3339(start.looked_us),
            reason: (!start.reason.is_empty()).then(|| start.reason.clone()),
        }
    }

    /// As a sentence without its subject: "between 14:10 and 17:40 (8 of 10 such estimates held)".
    #[must_use]
    pub fn text(&self, now_us: i64) -> String {
        match (self.from_us.zip(self.until_us), &self.reason) {
            (Some((from, until)), _) => {
                let (from, until) = time::between(from, until, now_us);
                format!("between {from} and {until}{}", self.held_text())
            }
            (None, Some(reason)) => format!("not known: {reason}"),
            (None, None) => "not known yet; the scheduler looks ahead every half minute".to_owned(),
        }
    }

    fn held_text(&self) -> String {
        if self.told < KNOWN_LEAST {
            return " (rough: few such jobs have started so far)".to_owned();
        }
        let of_ten = (u64::from(self.held) * 10 + u64::from(self.told) / 2) / u64::from(self.told);
        format!(" ({of_ten} of 10 such estimates held)")
    }

    /// The same for a column.
    #[must_use]
    pub fn cell(&self, now_us: i64) -> String {
        match (self.from_us.zip(self.until_us), &self.reason) {
            (Some((from, until)), _) => {
                let (from, until) = time::between(from, until, now_us);
                format!("{from} - {until}")
            }
            (None, Some(reason)) => reason.clone(),
            (None, None) => "-".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_without_a_range_says_why() {
        let held = v1::StartEstimate { reason: "is held".to_owned(), ..Default::default() };
        assert_eq!(StartView::of(&held).text(1), "not known: is held");
        assert_eq!(StartView::of(&held).cell(1), "is held");
        let yet = StartView::of(&v1::StartEstimate::default());
        assert!(yet.text(1).starts_with("not known yet"));
        assert_eq!(yet.cell(1), "-");
    }

    #[test]
    fn of_ten_ranges_as_many_held_as_of_all() {
        let start = |held, told| v1::StartEstimate { held, told, ..Default::default() };
        assert_eq!(StartView::of(&start(79, 100)).held_text(), " (8 of 10 such estimates held)");
        assert!(StartView::of(&start(9, 9)).held_text().starts_with(" (rough"));
    }
}
