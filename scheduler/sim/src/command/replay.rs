//! `gotgan-sim replay`: replays a trace and tells what its jobs waited.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::ValueEnum;
use gotgan_sim::replay::bounds::GPUS_MAX;
use gotgan_sim::replay::nodes::Machine;
use gotgan_sim::replay::play::play;
use gotgan_sim::replay::production;
use gotgan_sim::replay::report::{ReplayReport, Replayed};
use gotgan_sim::replay::rule::{Backfill, Estimate, Order, Rule};
use gotgan_sim::replay::trace::{self, Format, Trace};
use gotgan_sim::replay::{Played, rows, shares};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, complain, say};

const HINT: &str = "docs/simulator.md";

/// What is asked for.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The trace: CSV, the Standard Workload Format, or what gotgan jobs --all --json prints; packed with gzip or not
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// What the trace is [default: by the name of the file, .swf, .json, else CSV]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Who decides
    #[arg(long, value_enum, default_value = "rule")]
    policy: Policy,
    /// GPUs of the machine, one pool
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(GPUS_MAX)), required_if_eq("policy", "rule"), conflicts_with = "nodes")]
    gpus: Option<u32>,
    /// Who comes first: fifo, sjf (shortest estimate) or fair (least use for its share) [default: fifo]
    #[arg(long)]
    order: Option<Order>,
    /// Who may pass one that does not fit: none, skip, easy, conservative or reserved:COUNT [default: none]
    #[arg(long)]
    backfill: Option<Backfill>,
    /// Nodes for --policy gotgan: COUNTxGPUS, as in 58x8 or 58x8,4x4, or a CSV file with a column gpus
    #[arg(long, value_name = "CSV or COUNTxGPUS", required_if_eq("policy", "gotgan"))]
    nodes: Option<String>,
    /// What is believed of jobs: exact, bucketed or asked [default: exact; with --policy gotgan: bucketed]
    #[arg(long)]
    estimate: Option<Estimate>,
    /// Shares of tenants, a CSV file with the columns tenant and shares [default: equal shares]
    #[arg(long, value_name = "FILE")]
    shares: Option<PathBuf>,
    /// Write a row for each job to this CSV file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a report with plots to this HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

/// What the file of a trace is.
#[derive(ValueEnum, Debug, Clone, Copy)]
enum FormatName {
    /// A table with a header
    Csv,
    /// The Standard Workload Format
    Swf,
    /// What gotgan jobs --all --json prints
    Jobs,
}

/// Who decides.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// A rule over one pool: --order and --backfill
    Rule,
    /// The scheduler's own planner, on a machine of nodes
    Gotgan,
}

impl FormatName {
    fn format(self) -> Format {
        match self {
            FormatName::Csv => Format::Csv,
            FormatName::Swf => Format::Swf,
            FormatName::Jobs => Format::Jobs,
        }
    }
}

/// Runs it.
pub fn run(arguments: &Arguments) -> ExitCode {
    match replay(arguments) {
        Ok(text) => say(&text, 0),
        Err(failure) => complain(&failure, arguments.json),
    }
}

/// What was played, on how many GPUs, and what the rule is called.
struct Outcome {
    played: Played,
    gpus: u32,
    policy: String,
}

fn replay(arguments: &Arguments) -> Result<String, Failure> {
    let path = &arguments.trace;
    let format = arguments.format.map_or_else(|| Format::of(path), FormatName::format);
    let trace = trace::read(path, format).map_err(|error| Failure::of(&error, HINT))?;
    let shares = shares::read(arguments.shares.as_deref(), &trace.tenants)
        .map_err(|error| Failure::of(&error, HINT))?;
    let began = Instant::now();
    let bar = bar(trace.jobs.len());
    let found = match arguments.policy {
        Policy::Rule => by_rule(arguments, &trace, &shares, &bar),
        Policy::Gotgan => by_gotgan(arguments, &trace, &shares, &bar),
    };
    bar.finish_and_clear();
    let Outcome { played, gpus, policy } = found?;
    let elapsed = began.elapsed();
    let replayed = Replayed { trace: &trace, played: &played, gpus, shares: &shares };
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    let report = ReplayReport::of(replayed, &name, &policy, elapsed)
        .ok_or_else(|| wrong("no job of the trace fits the machine"))?;
    write_files(arguments, replayed, &report)?;
    Ok(said(&report, arguments.json))
}

fn by_rule(
    arguments: &Arguments,
    trace: &Trace,
    shares: &[u32],
    bar: &ProgressBar,
) -> Result<Outcome, Failure> {
    let estimate = arguments.estimate.unwrap_or(Estimate::Exact);
    let rule = Rule {
        order: arguments.order.unwrap_or(Order::Fifo),
        backfill: arguments.backfill.unwrap_or(Backfill::None),
        estimate,
    };
    rule.check().map_err(wrong)?;
    let gpus = arguments.gpus.ok_or_else(|| wrong("--gpus is needed"))?;
    let played = play(trace, gpus, rule, shares, &mut |over| bar.set_position(over as u64));
    Ok(Outcome { played, gpus, policy: rule.to_string() })
}

fn by_gotgan(
    arguments: &Arguments,
    trace: &Trace,
    shares: &[u32],
    bar: &ProgressBar,
) -> Result<Outcome, Failure> {
    if arguments.order.is_some() || arguments.backfill.is_some() {
        return Err(wrong("--order and --backfill make a rule, and --policy gotgan has its own"));
    }
    let nodes = arguments.nodes.as_deref().ok_or_else(|| wrong("--nodes is needed"))?;
    let machine = Machine::read(nodes).map_err(|error| Failure::of(&error, HINT))?;
    let estimate = arguments.estimate.unwrap_or(Estimate::Bucketed);
    let mut watch = |submitted: usize| bar.set_position(submitted as u64);
    let played = production::play(trace, &machine, estimate, shares, &mut watch)
        .map_err(|error| Failure::of(&error, HINT))?;
    let policy = format!("gotgan, {estimate}, nodes {machine}");
    Ok(Outcome { played, gpus: machine.gpus(), policy })
}

fn write_files(
    arguments: &Arguments,
    replayed: Replayed<'_>,
    report: &ReplayReport,
) -> Result<(), Failure> {
    let write = |path: &Path, text: String| {
        let failed = |error| wrong(&format!("cannot write {}: {error}", path.display()));
        std::fs::write(path, text).map_err(failed)
    };
    if let Some(path) = &arguments.csv {
        write(path, rows::text(replayed))?;
    }
    if let Some(path) = &arguments.html {
        write(path, gotgan_sim::replay::html::page(replayed, report))?;
    }
    Ok(())
}

fn said(report: &ReplayReport, json: bool) -> String {
    if json {
        return serde_json::to_string_pretty(report).map(|text| text + "\n").unwrap_or_default();
    }
    report.text()
}

/// On a terminal only: it hides itself elsewhere.
fn bar(jobs: usize) -> ProgressBar {
    let bar = ProgressBar::new(jobs as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} jobs, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

fn wrong(message: &str) -> Failure {
    Failure { messages: vec![message.to_owned()], violations: Vec::new(), hint: HINT }
}
