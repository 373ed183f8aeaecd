//! One job on hundreds of nodes: from the decision to the last worker that hears of it.

use std::time::Duration;

use super::country::Country;
use super::{Figures, GANG_STARTED, GANG_TOLD};
use crate::bench::{Measure, Setup, report::Unit};
use crate::deadline;
use crate::jobs::{ALPHA, Shape};
use crate::swarm::fleet::{FREE_CLASS, GPUS};
use crate::swarm::words;
use crate::virtual_worker::board::Times;

/// Milliseconds to the last order to run.
const MARK: f64 = 200.0;
/// Nodes of the gang, if there are so many.
const NODES: usize = 512;

/// Measures one gang after the other on the class that is free.
pub async fn measure(country: &Country, setup: &Setup, figures: &mut Figures) {
    let nodes = country.fleet.nodes_of(FREE_CLASS).min(NODES);
    let (mut told, mut started) = (Vec::new(), Vec::new());
    for _ in 0..setup.runs {
        let (decided_us, times) = run(country, nodes).await;
        told.push(since(decided_us, times.told_us));
        started.push(since(decided_us, times.started_us));
    }
    figures.times(GANG_TOLD, MARK, told);
    let started =
        Measure::of_times(GANG_STARTED, Unit::Milliseconds, super::Mark::AtMost(0.0), started);
    figures.add(Measure { mark: None, ..started });
}

/// When the gang was decided on, and when its nodes heard of it; it is gone afterwards.
async fn run(country: &Country, nodes: usize) -> (i64, Times) {
    let count = u32::try_from(nodes).unwrap_or(u32::MAX);
    let spec = words::runs_for_ever().project(ALPHA).class(FREE_CLASS).nodes(count).gpus(GPUS);
    let job = country.api().submit(spec).await;
    let what = format!("a gang of {nodes} nodes to start");
    let times = deadline::until(&what, async || {
        let times = country.swarm.board().of(job);
        if times.started == count { Ok(times) } else { Err(format!("{times:?}")) }
    })
    .await;
    let decided_us = country.api().job(job).await.attempts.first().map_or(0, |one| one.leased_us);
    country.cancel(vec![job]).await;
    country.api().wait_for_end(job).await;
    (decided_us, times)
}

fn since(decided_us: i64, us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us - decided_us).unwrap_or(0))
}
