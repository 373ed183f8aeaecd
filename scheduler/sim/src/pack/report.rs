//! What came of the experiment, in numbers that are the same on every machine but for the decisions a second.

use serde::Serialize;

use super::policy::Policy;
use super::{Experiment, LOAD_PERCENT, Moment, Run};

/// Version of the JSON form.
const SCHEMA: &str = "gotgan.pack/1";

/// The whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackReport {
    /// Version of this form.
    pub schema: &'static str,
    /// Nothing of it ran.
    pub simulated: bool,
    /// Name of the list of tasks.
    pub list: String,
    /// Who chose.
    pub policy: &'static str,
    /// What decided between nodes with the same score.
    pub ties: &'static str,
    /// What happened to scores that are no whole numbers.
    pub rounding: &'static str,
    /// What the policy took for the jobs to come.
    pub mix: &'static str,
    /// Nodes with GPUs.
    pub nodes: usize,
    /// GPUs.
    pub gpus: u64,
    /// What was asked for in all, percent of the GPUs.
    pub load_percent: u64,
    /// How often.
    pub seeds: usize,
    /// GPUs given away in the end, percent, mean of all seeds.
    pub allocated_percent_mean: f64,
    /// Its standard deviation.
    pub allocated_percent_sd: f64,
    /// Free GPUs that the list's typical tasks cannot use, percent of all GPUs, mean of all seeds.
    pub fragmented_percent_mean: f64,
    /// Tasks decided about in a second of this machine; 0 if nobody looked at a clock.
    pub decisions_per_s: u64,
    /// Each seed.
    pub runs: Vec<PackRun>,
    /// Given away, percent, mean: when each whole percent of the GPUs had been asked for, from 0.
    pub allocated_percent_by_asked: Vec<f64>,
    /// Fragmented, percent, mean, at the same moments.
    pub fragmented_percent_by_asked: Vec<f64>,
}

/// One seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackRun {
    /// The seed.
    pub seed: u64,
    /// Tasks that came.
    pub arrived: u64,
    /// Tasks that found a place.
    pub placed: u64,
    /// GPUs given away in the end, percent.
    pub allocated_percent: f64,
    /// Free GPUs that typical tasks cannot use, percent of all GPUs.
    pub fragmented_percent: f64,
}

impl PackReport {
    /// Of these runs.
    #[must_use]
    pub fn of(experiment: &Experiment, list: String, policy: Policy, runs: &[Run]) -> Self {
        let percent = Percent::of(experiment);
        let last = |run: &Run| run.moments.last().copied().unwrap_or_default();
        let allocated: Vec<f64> = runs.iter().map(|run| percent.allocated(last(run))).collect();
        let fragmented: Vec<f64> = runs.iter().map(|run| percent.fragmented(last(run))).collect();
        PackReport {
            schema: SCHEMA,
            simulated: true,
            list,
            policy: policy.name(),
            ties: policy.ties(),
            rounding: policy.rounding(),
            mix: policy.mix(),
            nodes: experiment.hosts.len(),
            gpus: experiment.capacity().0 / 1000,
            load_percent: LOAD_PERCENT,
            seeds: runs.len(),
            allocated_percent_mean: rounded(mean(&allocated)),
            allocated_percent_sd: rounded(deviation(&allocated)),
            fragmented_percent_mean: rounded(mean(&fragmented)),
            decisions_per_s: 0,
            runs: runs.iter().map(|run| percent.run(run, last(run))).collect(),
            allocated_percent_by_asked: by_asked(runs, |moment| percent.allocated(moment)),
            fragmented_percent_by_asked: by_asked(runs, |moment| percent.fragmented(moment)),
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "SIMULATED  {}: {} nodes, {} GPUs, {} % of them asked for, {} seeds\n\
             {}: {:.2} % allocated (standard deviation {:.2}), {:.2} % fragmented, {} decisions a second\n\
             ties: {}; rounding: {}; jobs to come: {}\n\n\
             seed  arrived  placed  allocated  fragmented\n",
            self.list,
            self.nodes,
            self.gpus,
            self.load_percent,
            self.seeds,
            self.policy,
            self.allocated_percent_mean,
            self.allocated_percent_sd,
            self.fragmented_percent_mean,
            self.decisions_per_s,
            self.ties,
            self.rounding,
            self.mix,
        );
        for run in &self.runs {
            text += &format!(
                "{:>4}  {:>7}  {:>6}  {:>7.2} %  {:>8.2} %\n",
                run.seed, run.arrived, run.placed, run.allocated_percent, run.fragmented_percent
            );
        }
        text
    }
}

/// What turns amounts into percent of the cluster.
struct Percent {
    gpus: f64,
    tasks: f64,
}

impl Percent {
    fn of(experiment: &Experiment) -> Self {
        let tasks = experiment.typical.tasks().max(1) as f64;
        Percent { gpus: experiment.capacity().0.max(1) as f64, tasks }
    }

    fn allocated(&self, moment: Moment) -> f64 {
        moment.allocated.0 as f64 * 100.0 / self.gpus
    }

    fn fragmented(&self, moment: Moment) -> f64 {
        moment.fragments as f64 * 100.0 / self.gpus / self.tasks
    }

    fn run(&self, run: &Run, last: Moment) -> PackRun {
        PackRun {
            seed: run.seed,
            arrived: run.arrived,
            placed: run.placed,
            allocated_percent: rounded(self.allocated(last)),
            fragmented_percent: rounded(self.fragmented(last)),
        }
    }
}

fn by_asked(runs: &[Run], value: impl Fn(Moment) -> f64) -> Vec<f64> {
    let moments = runs.first().map_or(0, |run| run.moments.len());
    let at = |place: usize| -> Vec<f64> {
        runs.iter().filter_map(|run| run.moments.get(place)).map(|moment| value(*moment)).collect()
    };
    (0..moments).map(|place| rounded(mean(&at(place)))).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Of a sample.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

/// To four places.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
