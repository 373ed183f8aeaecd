//! The report of a replay for people, in 80 columns. Times are told in the unit that fits them.

use std::fmt::Write as _;

use super::estimates::EstimatesPart;
use super::figures::Waits;
use super::report::{ReplayReport, TenantLine};

/// Tenants that are shown, those with most use first; JSON has all.
const TENANTS_MAX: usize = 20;

/// Width of the first column of the tables.
const FIRST: usize = 16;

/// A table's columns after its first: what is above them, and their widths.
const WAITS: [(&str, usize); 7] = [
    ("jobs", 9),
    ("mean", 8),
    ("median", 8),
    ("90 %", 8),
    ("99 %", 8),
    ("longest", 8),
    ("slowdown", 9),
];
const ESTIMATES: [(&str, usize); 7] = [
    ("told", 9),
    ("held", 8),
    ("width", 8),
    ("wait", 8),
    ("of wait", 8),
    ("by waits", 9),
    ("width", 8),
];
const TENANTS: [(&str, usize); 7] = [
    ("jobs", 9),
    ("mean", 8),
    ("median", 8),
    ("99 %", 8),
    ("share", 7),
    ("GPU-h", 10),
    ("fairness", 9),
];

impl ReplayReport {
    /// The report as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.head();
        row(&mut text, "waits", WAITS.map(|(name, _)| name.to_owned()), WAITS);
        row(&mut text, "all", waits_row(&self.all), WAITS);
        if let Some(large) = &self.large {
            row(&mut text, "16 GPUs or more", waits_row(large), WAITS);
        }
        for size in &self.sizes {
            let unit = if size.gpus == "1" { "GPU" } else { "GPUs" };
            row(&mut text, &format!("{} {unit}", size.gpus), waits_row(&size.waits), WAITS);
        }
        text.push('\n');
        self.tenants_table(&mut text);
        self.estimates_table(&mut text);
        self.tail(&mut text);
        text
    }

    fn head(&self) -> String {
        let ReplayReport { trace, machine, capacity_gpus, .. } = self;
        let mut text = format!("SIMULATED: {}, {}\n\n", trace.file, self.policy);
        let mut line = |name: &str, value: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "  {name:<FIRST$} {value}");
        };
        line("machine", format!("{} GPUs", thousands(u64::from(*capacity_gpus))));
        line("jobs", format!("{} of {} tenants", thousands(self.all.jobs), self.tenants.len()));
        for skipped in &trace.skipped {
            line("left out", skipped.to_string());
        }
        if self.never_started > 0 {
            line("never started", thousands(self.never_started));
        }
        line("makespan", format!("{}, first submission to last end", span(machine.makespan_s)));
        line("used", format!("{:.2} % of the GPUs in that time", machine.utilisation_percent));
        let share = |number: Option<f64>| number.map_or("-".to_owned(), |one| format!("{one:.3}"));
        let (least, jain) = (share(self.fairness.least), share(self.fairness.jain));
        line("fairness", format!("least {least}, Jain's index {jain}"));
        if let Some(planned) = &self.planned {
            let (jobs, on_time) = (thousands(planned.jobs), thousands(planned.on_time));
            let ahead = span(planned.median_told_ahead_s);
            line(
                "planned",
                format!("{jobs} starts, half of them {ahead} ahead; {on_time} in time"),
            );
        }
        line("starts", format!("hash {}", self.fnv1a64_of_starts));
        text.push('\n');
        text
    }

    fn tenants_table(&self, text: &mut String) {
        row(text, "tenants", TENANTS.map(|(name, _)| name.to_owned()), TENANTS);
        let mut tenants: Vec<&TenantLine> = self.tenants.iter().collect();
        tenants.sort_by_key(|tenant| std::cmp::Reverse(tenant.used_gpu_s));
        for tenant in tenants.iter().take(TENANTS_MAX) {
            row(text, &tenant.tenant, tenant_row(tenant), TENANTS);
        }
        let more = tenants.len().saturating_sub(TENANTS_MAX);
        if more > 0 {
            let _ = writeln!(text, "  {more} more with --json");
        }
    }

    fn estimates_table(&self, text: &mut String) {
        let Some(estimates) = &self.estimates else { return };
        text.push('\n');
        row(text, "estimates", ESTIMATES.map(|(name, _)| name.to_owned()), ESTIMATES);
        for (name, part) in estimates.rows() {
            row(text, &name, estimates_row(part), ESTIMATES);
        }
    }

    fn tail(&self, text: &mut String) {
        let run = &self.run;
        let per_second = run.starts.saturating_mul(1000).checked_div(run.elapsed_ms.max(1));
        let _ = writeln!(
            text,
            "\n{} starts in {} passes took {}.{:03} s: {} starts a second (simulated)",
            thousands(run.starts),
            thousands(run.passes),
            run.elapsed_ms / 1000,
            run.elapsed_ms % 1000,
            thousands(per_second.unwrap_or(0)),
        );
    }
}

fn waits_row(waits: &Waits) -> [String; 7] {
    [
        thousands(waits.jobs),
        mean(waits),
        span(waits.median_wait_s),
        span(waits.p90_wait_s),
        span(waits.p99_wait_s),
        span(waits.max_wait_s),
        format!("{:.2}", waits.mean_bounded_slowdown),
    ]
}

/// The figures of estimated starts, as every report shows them.
pub(super) fn estimates_row(part: &EstimatesPart) -> [String; 7] {
    [
        thousands(part.told),
        format!("{:.1} %", part.inside_percent),
        span(part.median_width_s),
        span(part.median_wait_s),
        format!("{:.2}", part.median_width_of_wait),
        format!("{:.1} %", part.naive_inside_percent),
        span(part.naive_median_width_s),
    ]
}

fn tenant_row(tenant: &TenantLine) -> [String; 7] {
    let nothing = || "-".to_owned();
    let waits = tenant.waits.as_ref();
    [
        thousands(waits.map_or(0, |waits| waits.jobs)),
        waits.map_or_else(nothing, mean),
        waits.map_or_else(nothing, |waits| span(waits.median_wait_s)),
        waits.map_or_else(nothing, |waits| span(waits.p99_wait_s)),
        tenant.share.to_string(),
        thousands(tenant.used_gpu_s / 3600),
        tenant.fairness.map_or_else(nothing, |fairness| format!("{fairness:.3}")),
    ]
}

fn mean(waits: &Waits) -> String {
    let total = i64::try_from(waits.total_wait_s).unwrap_or(i64::MAX);
    span(total / i64::try_from(waits.jobs.max(1)).unwrap_or(i64::MAX))
}

fn row(text: &mut String, first: &str, cells: [String; 7], columns: [(&str, usize); 7]) {
    let first: String = first.chars().take(FIRST).collect();
    let mut line = format!("  {first:<FIRST$}");
    for (cell, (_, width)) in cells.iter().zip(columns) {
        let _ = write!(line, "{cell:>width$}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Seconds in the largest unit of which there are two at least: days and hours to tenths.
#[must_use]
pub fn span(seconds: i64) -> String {
    let (unit_s, unit) = match seconds {
        172_800.. => (86_400, "d"),
        7_200.. => (3_600, "h"),
        120.. => return format!("{} min", seconds / 60),
        _ => return format!("{seconds} s"),
    };
    let tenths = (seconds * 10 + unit_s / 2) / unit_s;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// `52849` as `52,849`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800, 8_640_000].map(span);
        let expected = ["0 s", "119 s", "2 min", "119 min", "2.0 h", "48.0 h", "2.0 d", "100.0 d"];
        assert_eq!(told, expected);
    }

    #[test]
    fn rows_are_no_wider_than_a_terminal() {
        for columns in [WAITS, TENANTS, ESTIMATES] {
            let width: usize = columns.iter().map(|(_, width)| width).sum();
            assert!(2 + FIRST + width <= 80, "{width}");
        }
    }
}
