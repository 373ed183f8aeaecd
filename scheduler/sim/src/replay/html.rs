//! The report of a replay as one HTML page that needs nothing else: no scripts, no fonts, no pictures from elsewhere.

use std::fmt::Write as _;

use super::estimates::EstimatesPart;
use super::figures::Waits;
use super::plot::{Axis, Line, escaped, plot};
use super::report::{ReplayReport, Replayed, TenantLine};
use super::series::{curves, over_time};
use super::text::{estimates_row, span, thousands};

/// How the page looks, by day and by night.
const STYLE: &str = include_str!("report.css");

/// Waits that are marked on their axis, seconds.
const WAIT_TICKS: [(f64, &str); 8] = [
    (1.0, "1 s"),
    (10.0, "10 s"),
    (60.0, "1 min"),
    (600.0, "10 min"),
    (3_600.0, "1 h"),
    (36_000.0, "10 h"),
    (259_200.0, "3 d"),
    (2_592_000.0, "30 d"),
];

/// Seconds of a day and of an hour.
const DAY_S: f64 = 86_400.0;
const HOUR_S: f64 = 3_600.0;

/// The page.
#[must_use]
pub fn page(replayed: Replayed<'_>, report: &ReplayReport) -> String {
    let title = format!("{}: {}", report.trace.file, report.policy);
    let title = escaped(&title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    head(&mut html, report);
    cards(&mut html, report);
    plots(&mut html, replayed, report);
    sizes(&mut html, report);
    tenants(&mut html, report);
    estimates(&mut html, report);
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn head(html: &mut String, report: &ReplayReport) {
    let jobs = thousands(report.all.jobs);
    let gpus = thousands(u64::from(report.capacity_gpus));
    // Writing to a text cannot fail.
    let _ = writeln!(
        html,
        "<header><h1>{}</h1><p>{} &middot; {jobs} jobs of {} tenants on {gpus} GPUs</p>\
         <p class=\"simulated\">Simulated: nothing of this ran on a GPU.</p>",
        escaped(&report.policy),
        escaped(&report.trace.file),
        report.tenants.len(),
    );
    for skipped in &report.trace.skipped {
        let _ = writeln!(html, "<p>Left out: {}</p>", escaped(&skipped.to_string()));
    }
    if report.never_started > 0 {
        let _ = writeln!(html, "<p>Never started: {} jobs</p>", thousands(report.never_started));
    }
    html.push_str("</header>\n");
}

fn cards(html: &mut String, report: &ReplayReport) {
    let share = |number: Option<f64>| number.map_or("-".to_owned(), |one| format!("{one:.3}"));
    let large = report.large.as_ref().map_or("-".to_owned(), mean);
    let cards = [
        ("mean wait", mean(&report.all)),
        ("median wait", span(report.all.median_wait_s)),
        ("99 % waited less than", span(report.all.p99_wait_s)),
        ("mean wait, 16 GPUs or more", large),
        ("GPUs in use", format!("{:.1} %", report.machine.utilisation_percent)),
        ("makespan", span(report.machine.makespan_s)),
        ("least fairness", share(report.fairness.least)),
        ("Jain's index", share(report.fairness.jain)),
    ];
    html.push_str("<section class=\"cards\">\n");
    for (name, value) in cards {
        let _ = writeln!(html, "<div><b>{}</b><span>{name}</span></div>", escaped(&value));
    }
    html.push_str("</section>\n");
}

fn plots(html: &mut String, replayed: Replayed<'_>, report: &ReplayReport) {
    let over = over_time(replayed, report.machine.makespan_s);
    let (unit_s, unit) = if report.machine.makespan_s as f64 > 3.0 * DAY_S {
        (DAY_S, "days since the first submission")
    } else {
        (HOUR_S, "hours since the first submission")
    };
    let time = Axis::up_to(unit, report.machine.makespan_s as f64 / unit_s);
    let middle = |number: usize| (number as f64 + 0.5) * over.bin_s / unit_s;
    let line = |values: &[f64], filled| Line {
        name: String::new(),
        points: values.iter().enumerate().map(|(at, value)| (middle(at), *value)).collect(),
        filled,
    };
    let gpus = Axis::up_to("GPUs", f64::from(report.capacity_gpus));
    figure(html, "GPUs in use", &time, &gpus, &[line(&over.used_gpus, true)]);
    let most = over.waiting_jobs.iter().copied().fold(0.0, f64::max);
    let jobs = Axis::from_zero("jobs", most);
    figure(html, "Jobs that wait", &time, &jobs, &[line(&over.waiting_jobs, true)]);
    waits(html, replayed, report);
}

/// The part of jobs that waited no longer than, by size class.
fn waits(html: &mut String, replayed: Replayed<'_>, report: &ReplayReport) {
    let longest_s = report.all.max_wait_s.max(10);
    let line = |curve: super::series::Curve| Line {
        name: if curve.gpus == "1" { "1 GPU".to_owned() } else { format!("{} GPUs", curve.gpus) },
        points: curve.points.iter().map(|(wait, part)| (wait.log10(), *part)).collect(),
        filled: false,
    };
    let lines: Vec<Line> = curves(replayed, longest_s).into_iter().map(line).collect();
    let most = (longest_s as f64).log10();
    let ticks = WAIT_TICKS.iter().map(|(wait, text)| (wait.log10(), (*text).to_owned()));
    let wait = Axis {
        title: "wait, on a scale of tenfold steps".to_owned(),
        least: 0.0,
        most,
        ticks: ticks.filter(|(at, _)| *at <= most).collect(),
    };
    let part = Axis {
        title: "% of jobs".to_owned(),
        least: 0.0,
        most: 100.0,
        ticks: [0, 25, 50, 75, 100].map(|at| (f64::from(at), at.to_string())).to_vec(),
    };
    figure(html, "Jobs that waited no longer, by size", &wait, &part, &lines);
}

fn figure(html: &mut String, title: &str, x: &Axis, y: &Axis, lines: &[Line]) {
    let _ = writeln!(
        html,
        "<section><h2>{}</h2>\n{}</section>",
        escaped(title),
        plot(title, x, y, lines)
    );
}

fn sizes(html: &mut String, report: &ReplayReport) {
    let heads = ["GPUs", "jobs", "mean wait", "median", "90 %", "99 %", "longest", "slowdown"];
    let all = std::iter::once(("all", &report.all));
    let sizes = report.sizes.iter().map(|size| (size.gpus.as_str(), &size.waits));
    let row = |(name, waits): (&str, &Waits)| {
        vec![
            name.to_owned(),
            thousands(waits.jobs),
            mean(waits),
            span(waits.median_wait_s),
            span(waits.p90_wait_s),
            span(waits.p99_wait_s),
            span(waits.max_wait_s),
            format!("{:.2}", waits.mean_bounded_slowdown),
        ]
    };
    table(html, "Waits by size", &heads, all.chain(sizes).map(row));
}

fn tenants(html: &mut String, report: &ReplayReport) {
    let heads = ["tenant", "jobs", "mean wait", "median", "99 %", "share", "GPU-hours", "fairness"];
    let row = |tenant: &TenantLine| {
        let nothing = || "-".to_owned();
        let waits = tenant.waits.as_ref();
        vec![
            tenant.tenant.clone(),
            waits.map_or_else(nothing, |waits| thousands(waits.jobs)),
            waits.map_or_else(nothing, mean),
            waits.map_or_else(nothing, |waits| span(waits.median_wait_s)),
            waits.map_or_else(nothing, |waits| span(waits.p99_wait_s)),
            thousands(u64::from(tenant.share)),
            thousands(tenant.used_gpu_s / 3600),
            tenant.fairness.map_or_else(nothing, |fairness| format!("{fairness:.3}")),
        ]
    };
    table(html, "Tenants", &heads, report.tenants.iter().map(row));
    html.push_str(
        "<p class=\"note\">Fairness: GPU-seconds held over those that were due while the tenant asked for any. \
         1 is what was due.</p>\n",
    );
}

fn estimates(html: &mut String, report: &ReplayReport) {
    let Some(estimates) = &report.estimates else { return };
    let heads =
        ["estimates", "told", "held", "width", "wait", "width of wait", "by past waits", "width"];
    let row = |(name, part): (String, &EstimatesPart)| {
        std::iter::once(name).chain(estimates_row(part)).collect()
    };
    table(html, "Estimated starts", &heads, estimates.rows().into_iter().map(row));
    html.push_str(
        "<p class=\"note\">Ranges that jobs were told while they waited, and whether they started within them; medians. \
         On the right the same by what such jobs waited before, and by nothing else.</p>\n",
    );
}

fn table(html: &mut String, title: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = write!(html, "<section><h2>{}</h2>\n<table><tr>", escaped(title));
    for head in heads {
        let _ = write!(html, "<th>{}</th>", escaped(head));
    }
    html.push_str("</tr>\n");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escaped(&cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></section>\n");
}

fn mean(waits: &Waits) -> String {
    span(waits.mean_wait_s.round() as i64)
}
