//! How well estimated starts held: between which moments jobs were told that they would start, and when they did.

use gotgan_core::amount::UnixMicros;
use serde::Serialize;

use super::Played;
use super::figures::{quotient, size_class, size_class_name};
use super::trace::Trace;

/// A range of moments.
type Range = (UnixMicros, UnixMicros);

/// What a job was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimated {
    /// When.
    pub at: UnixMicros,
    /// Since when it waited then.
    pub queued: UnixMicros,
    /// Whether it was told for the first time.
    pub first: bool,
    /// Between which moments it was to start.
    pub range: Range,
    /// The same by what jobs of its size waited, and by nothing else.
    pub naive: Range,
}

/// What became of estimated starts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EstimatesLine {
    /// All of them.
    #[serde(flatten)]
    pub all: EstimatesPart,
    /// Those that were told first of each job.
    pub first: Option<EstimatesPart>,
    /// Those that were told later, each time a job had waited twice as long.
    pub again: Option<EstimatesPart>,
    /// By size class, the smallest first.
    pub sizes: Vec<SizeLine>,
    /// By tenant, by name.
    pub tenants: Vec<TenantPart>,
}

/// Estimated starts of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EstimatesPart {
    /// How many were told, of jobs that started.
    pub told: u64,
    /// Of these, the part in which the job did start, percent.
    pub inside_percent: f64,
    /// Half of them were so wide, or wider, seconds.
    pub median_width_s: i64,
    /// Half of the jobs waited so long from then on, or longer, seconds.
    pub median_wait_s: i64,
    /// Half of them were so many times as wide as the wait from then on (a minute at least), or more.
    pub median_width_of_wait: f64,
    /// The part that ranges by past waits alone would have held, percent.
    pub naive_inside_percent: f64,
    /// Half of those would have been so wide, or wider, seconds.
    pub naive_median_width_s: i64,
    /// Half of those would have been so many times as wide as the wait, or more.
    pub naive_median_width_of_wait: f64,
}

/// Estimated starts of jobs of a size class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeLine {
    /// GPUs of its jobs: `1`, `2`, `3-4`, `5-8`.
    pub gpus: String,
    /// What became of them.
    #[serde(flatten)]
    pub part: EstimatesPart,
}

/// Estimated starts of the jobs of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TenantPart {
    /// Its name.
    pub tenant: String,
    /// What became of them.
    #[serde(flatten)]
    pub part: EstimatesPart,
}

/// One that is known to have held or not.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    told: Estimated,
    size: u32,
    tenant: usize,
    start: UnixMicros,
}

impl EstimatesLine {
    /// Of a replay; `None` if nobody was told anything.
    #[must_use]
    pub fn of(trace: &Trace, played: &Played) -> Option<Self> {
        let outcomes: Vec<Outcome> = played
            .estimated
            .iter()
            .filter_map(|(place, told)| {
                let (job, start) =
                    (trace.jobs.get(*place)?, played.jobs.get(*place)?.as_ref()?.start);
                Some(Outcome {
                    told: *told,
                    size: size_class(job.gpus),
                    tenant: job.tenant.0,
                    start,
                })
            })
            .collect();
        let part = |keep: &dyn Fn(&Outcome) -> bool| {
            EstimatesPart::of(outcomes.iter().filter(|one| keep(one)).copied().collect())
        };
        let mut sizes: Vec<u32> = outcomes.iter().map(|one| one.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let size = |size: u32| {
            let (gpus, part) = (size_class_name(size), part(&|one| one.size == size)?);
            Some(SizeLine { gpus, part })
        };
        let tenant = |(place, name): (usize, &String)| {
            let part = part(&|one| one.tenant == place)?;
            Some(TenantPart { tenant: name.clone(), part })
        };
        Some(EstimatesLine {
            all: part(&|_| true)?,
            first: part(&|one| one.told.first),
            again: part(&|one| !one.told.first),
            sizes: sizes.into_iter().filter_map(size).collect(),
            tenants: trace.tenants.iter().enumerate().filter_map(tenant).collect(),
        })
    }
}

impl EstimatesLine {
    /// Every part that is shown to people, with its name; tenants are left to JSON.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, &EstimatesPart)> {
        let whole = [("all", Some(&self.all)), ("first", self.first.as_ref())];
        let whole = whole.into_iter().chain([("later", self.again.as_ref())]);
        let whole = whole.filter_map(|(name, part)| Some((name.to_owned(), part?)));
        let unit = |gpus: &str| if gpus == "1" { "GPU" } else { "GPUs" };
        let sizes = self.sizes.iter();
        let sizes = sizes.map(|size| (format!("{} {}", size.gpus, unit(&size.gpus)), &size.part));
        whole.chain(sizes).collect()
    }
}

impl EstimatesPart {
    fn of(outcomes: Vec<Outcome>) -> Option<Self> {
        let ours = |one: &Outcome| one.told.range;
        let naive = |one: &Outcome| one.told.naive;
        Some(EstimatesPart {
            told: outcomes.len() as u64,
            inside_percent: inside_percent(&outcomes, ours),
            median_width_s: median(outcomes.iter().map(|one| width_s(ours(one))))?,
            median_wait_s: median(outcomes.iter().map(Outcome::wait_s))?,
            median_width_of_wait: width_of_wait(&outcomes, ours)?,
            naive_inside_percent: inside_percent(&outcomes, naive),
            naive_median_width_s: median(outcomes.iter().map(|one| width_s(naive(one))))?,
            naive_median_width_of_wait: width_of_wait(&outcomes, naive)?,
        })
    }
}

impl Outcome {
    /// From when it was told on.
    fn wait_s(&self) -> i64 {
        self.start.whole_seconds() - self.told.at.whole_seconds()
    }
}

fn inside_percent(outcomes: &[Outcome], of: impl Fn(&Outcome) -> Range) -> f64 {
    let is_inside = |one: &&Outcome| {
        let (from, until) = of(one);
        from.whole_seconds() <= one.start.whole_seconds() && one.start <= until
    };
    let inside = outcomes.iter().filter(is_inside).count();
    quotient(100 * inside as u128, outcomes.len() as u128, 2)
}

fn width_s((from, until): Range) -> i64 {
    until.whole_seconds() - from.whole_seconds()
}

/// The median of widths over waits, in thousandths cut down.
fn width_of_wait(outcomes: &[Outcome], of: impl Fn(&Outcome) -> Range) -> Option<f64> {
    let milli = |one: &Outcome| width_s(of(one)).saturating_mul(1000) / one.wait_s().max(60);
    let median = median(outcomes.iter().map(milli))?;
    Some(quotient(u128::from(median.unsigned_abs()), 1000, 3))
}

fn median(values: impl Iterator<Item = i64>) -> Option<i64> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
