//! Replays a trace by the scheduler itself: the run of a scenario that nobody wrote, with the same world, planner,
//! commands and checks as in production.
//!
//! Tenants are projects below one node of the quota tree, with their shares as weights and nothing guaranteed. Workers
//! take no time, so that a job runs exactly as long as it did; its time limit is what is believed of it. All GPUs are
//! of one class.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{BadName, ClusterName, GpuClass, JobId, ProjectPath};
use gotgan_core::policy::Policy;

use super::bounds::SECONDS_MAX;
use super::nodes::Machine;
use super::rule::Estimate;
use super::trace::{Trace, TraceJob};
use super::{Played, Ran};
use crate::books::Books;
use crate::engine;
use crate::fault::ScenarioFault;
use crate::record::{JobFacts, Record};
use crate::scenario::{ClusterFile, EventAction, EventFile, JobTerms, SubmitFile, WorkerPace};
use crate::setup::{QuotaTexts, Setup};
use crate::units::{Moment, Span};

/// The class of all GPUs.
const CLASS: &str = "gpu";

/// Node of the quota tree above all tenants.
const ROOT: &str = "trace";

/// Why a trace cannot be replayed, or what went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ProductionError {
    /// The quota files made for it are refused.
    #[error("the quota files made of the tenants are refused: {0}")]
    Quota(String),
    /// A name made for it is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// Something happened that must never happen.
    #[error("the replay went wrong: {0}")]
    Violated(String),
}

/// Replays `trace` on `machine`, with a share for each tenant. `watch` is told how many jobs are submitted.
///
/// # Errors
/// [`ProductionError`]
pub fn play(
    trace: &Trace,
    machine: &Machine,
    estimate: Estimate,
    shares: &[u32],
    watch: &mut dyn FnMut(usize),
) -> Result<Played, ProductionError> {
    let setup = setup(trace, machine, estimate, shares)?;
    let mut submitted = |now: UnixMicros| {
        watch(trace.jobs.partition_point(|job| job.submit <= now));
    };
    let outcome = engine::run_estimating(&setup, &setup.books, &mut submitted);
    let record = &outcome.record;
    if let Some(violation) = record.violations.first() {
        return Err(ProductionError::Violated(violation.clone()));
    }
    if let Some(refused) = record.refused.first() {
        return Err(ProductionError::Violated(refused.reason.clone()));
    }
    let jobs = (0..trace.jobs.len()).map(|place| ran(record, place)).collect();
    let place = |(name, job): (&String, &JobId)| Some((name.parse().ok()?, *record.told.get(job)?));
    let told = record.named.iter().filter_map(place).collect();
    let places: BTreeMap<JobId, usize> =
        record.named.iter().filter_map(|(name, job)| Some((*job, name.parse().ok()?))).collect();
    let place = |(job, estimated): &(JobId, _)| Some((*places.get(job)?, *estimated));
    let estimated = record.estimated.iter().filter_map(place).collect();
    Ok(Played { jobs, passes: record.passes, told, estimated })
}

fn ran(record: &Record, place: usize) -> Option<Ran> {
    let facts: &JobFacts = record.jobs.get(record.named.get(&place.to_string())?)?;
    let (start, end) = (facts.starts.first()?, facts.ends.last()?);
    Some(Ran { start: *start, end: end.at })
}

fn setup(
    trace: &Trace,
    machine: &Machine,
    estimate: Estimate,
    shares: &[u32],
) -> Result<Setup, ProductionError> {
    let texts = QuotaTexts::from([("trace.toml".to_owned(), quota_text(shares))]);
    let books = Books::of(&texts, &BTreeMap::new(), &BTreeSet::new()).map_err(told)?;
    let first = trace.jobs.first().map_or(UnixMicros(0), |job| job.submit);
    let most_s = trace.jobs.iter().map(|job| estimate.of(job)).max().unwrap_or(1);
    let mut events = Vec::with_capacity(trace.jobs.len());
    for (place, job) in trace.jobs.iter().enumerate() {
        if let Some((nodes, gpus)) = machine.split(job.gpus) {
            events.push(event(place, job, nodes, gpus, estimate)?);
        }
    }
    Ok(Setup {
        title: String::new(),
        from: Moment(first),
        until: Moment(last_end(trace)),
        seed: 0,
        policy: Arc::new(policy(trace.jobs.len() as u64, most_s)),
        pace: pace(),
        clusters: clusters(machine)?,
        streams: Vec::new(),
        events,
        expects: Vec::new(),
        books,
        moved: Default::default(),
        counterfactual: None,
    })
}

/// The tenants, with nothing guaranteed.
fn quota_text(shares: &[u32]) -> String {
    let mut text = format!("[node.{ROOT}]\n");
    for (place, share) in shares.iter().enumerate() {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "[node.\"{}\"]\nweight = {share}", project(place));
    }
    text
}

fn project(place: usize) -> String {
    format!("{ROOT}/tenant-{place:06}")
}

fn told(faults: Vec<ScenarioFault>) -> ProductionError {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    ProductionError::Quota(faults.join("; "))
}

fn event(
    place: usize,
    job: &TraceJob,
    nodes: u32,
    gpus: u32,
    estimate: Estimate,
) -> Result<EventFile, ProductionError> {
    let terms = JobTerms {
        class: Some(GpuClass::new(CLASS)?),
        time_limit: Some(seconds(estimate.of(job))),
        ..JobTerms::default()
    };
    let submit = SubmitFile {
        name: place.to_string(),
        project: ProjectPath::new(&project(job.tenant.0))?,
        nodes,
        gpus,
        duration: seconds(job.duration_s),
        job: terms,
    };
    Ok(EventFile { at: Moment(job.submit), name: None, action: EventAction::Submit(submit) })
}

/// Nodes with as many GPUs are a cluster; a job may be on nodes of several.
fn clusters(machine: &Machine) -> Result<Vec<ClusterFile>, ProductionError> {
    let cluster = |(gpus_per_node, nodes)| {
        let name = ClusterName::new(&format!("nodes-of-{gpus_per_node}"))?;
        let class = GpuClass::new(CLASS)?;
        let blocks = BTreeMap::new();
        Ok(ClusterFile { name, class, nodes, gpus_per_node, spare_nodes: 0, blocks })
    };
    machine.kinds().map(cluster).collect()
}

/// The scheduler's own numbers, but for limits that would refuse what the trace has.
fn policy(jobs: u64, longest_s: i64) -> Policy {
    let own = Policy::default();
    Policy {
        max_time_limit_s: own.max_time_limit_s.max(longest_s),
        max_pending: own.max_pending.max(jobs),
        max_pending_per_project: own.max_pending_per_project.max(jobs),
        ..own
    }
}

/// Workers that take no time.
fn pace() -> WorkerPace {
    let none = Span::millis(0);
    WorkerPace { accept: none, start: none, stop: none, ..WorkerPace::default() }
}

/// When the last job would be over if all ran one after the other.
fn last_end(trace: &Trace) -> UnixMicros {
    let last = trace.jobs.last().map_or(UnixMicros(0), |job| job.submit);
    let all = trace.jobs.iter().fold(0_i64, |sum, job| sum.saturating_add(job.duration_s));
    last.plus_seconds(all.min(SECONDS_MAX))
}

fn seconds(seconds: i64) -> Span {
    Span::millis(seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::super::trace::TenantIndex;
    use super::*;

    #[test]
    fn jobs_run_as_long_as_they_did_on_nodes_that_have_room() {
        let at = |second| UnixMicros(0).plus_seconds(second);
        let job = |id, submit, duration_s, gpus, tenant| TraceJob {
            id,
            submit: at(submit),
            duration_s,
            asked_s: None,
            gpus,
            tenant: TenantIndex(tenant),
        };
        // Of two nodes with four GPUs each, the third job must wait for the first although four are free, two on each.
        let jobs = vec![
            job(0, 0, 500, 2, 0),
            job(1, 0, 900, 4, 1),
            job(2, 10, 100, 4, 0),
            job(3, 20, 50, 8, 1),
            job(4, 30, 50, 9, 1),
        ];
        let tenants = vec!["A b".to_owned(), "B".to_owned()];
        let trace = Trace { jobs, tenants, skipped: Vec::new() };
        let machine = Machine::read("2x4").unwrap();
        let played = play(&trace, &machine, Estimate::Bucketed, &[1, 2], &mut |_| {}).unwrap();
        let ran = |start, end| Some(Ran { start: at(start), end: at(end) });
        let expected = [ran(0, 500), ran(0, 900), ran(500, 600), ran(900, 950), None];
        assert_eq!(played.jobs, expected);
    }
}
