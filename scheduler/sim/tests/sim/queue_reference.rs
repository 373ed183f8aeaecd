//! Every row of a table of exact results on a published trace is reproduced, where both are beside the repository: in
//! `philly/` below the directory that the environment names as `GOTGAN_TRACES`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use gotgan_sim::replay::figures::{LARGE_GPUS, MachineUse, Waits, hash_of_starts, seen};
use gotgan_sim::replay::play::play;
use gotgan_sim::replay::rule::{Backfill, Estimate, Order, Rule};
use gotgan_sim::replay::trace::{Format, Trace, read};
use gotgan_sim::table::Table;

const TRACE: &str = "philly-2017-09-10.csv.gz";
const TABLE: &str = "queue-reference.csv";
const COLUMNS: [&str; 9] = [
    "total_wait_s",
    "mean_wait_s",
    "mean_jct_s",
    "median_wait_s",
    "p99_wait_s",
    "max_wait_s",
    "mean_bounded_slowdown",
    "mean_wait_of_jobs_ge16_s",
    "makespan_s",
];

/// Relative to the root of the workspace, unless the path is absolute; `None`, and said aloud, if there is nothing.
fn file(name: &str) -> Option<PathBuf> {
    let traces = std::env::var("GOTGAN_TRACES").unwrap_or_else(|_| "../shared/traces".to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(traces).join("philly").join(name);
    if path.exists() {
        return Some(path);
    }
    // Past the capture of the test harness: whoever reads the log must see that nothing was compared.
    let text = format!("SKIPPED: {} is not there; set GOTGAN_TRACES\n", path.display());
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    None
}

fn rule(name: &str) -> Rule {
    let (order, backfill, estimate) = match name {
        "FIFO" => (Order::Fifo, Backfill::None, Estimate::Exact),
        "SKIP" => (Order::Fifo, Backfill::Skip, Estimate::Exact),
        "SJF" => (Order::Sjf, Backfill::None, Estimate::Exact),
        "EASY" => (Order::Fifo, Backfill::Easy, Estimate::Exact),
        "EASY-bucketed" => (Order::Fifo, Backfill::Easy, Estimate::Bucketed),
        "CONS" => (Order::Fifo, Backfill::Conservative, Estimate::Exact),
        _ => panic!("no rule is called {name}"),
    };
    Rule { order, backfill, estimate }
}

/// The figures as the table writes them, then the hash.
fn figures(trace: &Trace, gpus: u32, rule: Rule) -> Vec<String> {
    let played = play(trace, gpus, rule, &vec![1; trace.tenants.len()], &mut |_| {});
    let all = Waits::of(seen(trace, &played)).unwrap();
    let large = seen(trace, &played).filter(|seen| seen.job.gpus >= LARGE_GPUS);
    let large = Waits::of(large).unwrap();
    vec![
        all.total_wait_s.to_string(),
        format!("{:.2}", all.mean_wait_s),
        format!("{:.2}", all.mean_jct_s),
        all.median_wait_s.to_string(),
        all.p99_wait_s.to_string(),
        all.max_wait_s.to_string(),
        format!("{:.3}", all.mean_bounded_slowdown),
        format!("{:.2}", large.mean_wait_s),
        MachineUse::of(trace, &played, gpus).makespan_s.to_string(),
        format!("{:016x}", hash_of_starts(trace, &played)),
    ]
}

#[test]
fn every_row_of_the_reference_table_is_reproduced() {
    let (Some(trace), Some(table)) = (file(TRACE), file(TABLE)) else { return };
    let trace = read(&trace, Format::Csv).unwrap();
    let mut table = Table::open(&table).unwrap();
    let mut rows = 0;
    while let Some(row) = table.row().unwrap() {
        let (gpus, policy) = (row.value("capacity_gpus").unwrap(), row.text("policy").unwrap());
        let columns = COLUMNS.iter().chain(&["fnv1a64_of_starts"]);
        let expected: Vec<&str> = columns.map(|column| row.text(column).unwrap()).collect();
        assert_eq!(figures(&trace, gpus, rule(policy)), expected, "{policy} on {gpus} GPUs");
        rows += 1;
    }
    assert_eq!(rows, 12, "rows of the table");
}

#[test]
fn one_reservation_is_easy_backfilling() {
    let Some(trace) = file(TRACE) else { return };
    let trace = read(&trace, Format::Csv).unwrap();
    let shares = vec![1; trace.tenants.len()];
    let played = |backfill, estimate| {
        let rule = Rule { order: Order::Fifo, backfill, estimate };
        play(&trace, 640, rule, &shares, &mut |_| {})
    };
    for estimate in [Estimate::Exact, Estimate::Bucketed] {
        let easy = played(Backfill::Easy, estimate);
        assert_eq!(played(Backfill::Reserved(1), estimate), easy);
    }
}
