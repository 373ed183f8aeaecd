//! How well planned starts held: by when jobs were told that they would start, and when they did.

use serde::Serialize;

use super::Played;

/// What became of the starts that the planner planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedLine {
    /// Jobs that were told by when they would start.
    pub jobs: u64,
    /// Those that started by then.
    pub on_time: u64,
    /// Half of them started so much before they were told, or more, seconds.
    pub median_early_s: i64,
    /// Half of them were told so long before, or longer, seconds.
    pub median_told_ahead_s: i64,
}

impl PlannedLine {
    /// Of a replay; `None` if nothing was planned.
    #[must_use]
    pub fn of(played: &Played) -> Option<Self> {
        let started = |(job, told): (&usize, &super::Told)| {
            let start = played.jobs.get(*job)?.as_ref()?.start;
            let seconds = |millis: i64| millis.div_euclid(1000);
            Some((seconds(told.by.millis_since(start)), seconds(told.by.millis_since(told.at))))
        };
        let told: Vec<(i64, i64)> = played.told.iter().filter_map(started).collect();
        let mut early: Vec<i64> = told.iter().map(|(early, _)| *early).collect();
        let mut ahead: Vec<i64> = told.iter().map(|(_, ahead)| *ahead).collect();
        early.sort_unstable();
        ahead.sort_unstable();
        Some(PlannedLine {
            jobs: told.len() as u64,
            on_time: early.iter().filter(|early| **early >= 0).count() as u64,
            median_early_s: *early.get(early.len() / 2)?,
            median_told_ahead_s: *ahead.get(ahead.len() / 2)?,
        })
    }
}
