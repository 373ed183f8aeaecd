//! `gotgan-sim pack`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use gotgan_sim::pack::policy::Policy;
use gotgan_sim::pack::read;
use gotgan_sim::pack::report::PackReport;
use gotgan_sim::table::TableError;

use super::{Failure, complain, say};

const HINT: &str = "docs/placement.md";

/// What is asked.
#[derive(Args, Debug)]
pub struct Pack {
    /// Nodes, a CSV file: sn, cpu_milli, memory_mib, gpu, model
    #[arg(long)]
    nodes: PathBuf,
    /// Tasks, a CSV file, packed with gzip or not: cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec
    #[arg(long)]
    tasks: PathBuf,
    /// random, dotprod, bestfit, gpupacking, gpuclustering, fgd or gotgan
    #[arg(long)]
    policy: Policy,
    /// How often, each time with other draws
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// The first seed; each next one is one more
    #[arg(long, default_value_t = 42)]
    first_seed: u64,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the experiment and says what came of it.
pub fn run(pack: &Pack) -> ExitCode {
    match pack.run() {
        Ok(text) => say(&text, 0),
        Err(error) => complain(&Failure::of(&error, HINT), pack.json),
    }
}

impl Pack {
    /// Runs the experiment, and writes what came of it.
    ///
    /// # Errors
    /// [`TableError`] if a file cannot be read.
    fn run(&self) -> Result<String, TableError> {
        let experiment = read::read(&self.nodes, &self.tasks)?;
        let before = Instant::now();
        let seeds = (0..self.seeds).map(|more| self.first_seed.wrapping_add(more));
        let runs: Vec<_> = seeds.map(|seed| experiment.run(self.policy, seed)).collect();
        let took = before.elapsed();
        let mut report = PackReport::of(&experiment, name_of(&self.tasks), self.policy, &runs);
        report.decisions_per_s = per_second(runs.iter().map(|run| run.arrived).sum(), took);
        Ok(if self.json {
            serde_json::to_string_pretty(&report).map(|text| text + "\n").unwrap_or_default()
        } else {
            report.text()
        })
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn per_second(decisions: u64, took: Duration) -> u64 {
    let micros = took.as_micros().max(1);
    u64::try_from(u128::from(decisions) * 1_000_000 / micros).unwrap_or(u64::MAX)
}
