//! From the call that submits a job to the first instruction of its process, on one real worker with nothing to do.

use std::path::Path;
use std::time::Duration;

use gotgan_proto::v1::jobs_client::JobsClient;

use super::country::timed_submit;
use super::{Figures, INSTRUCTION_P50, INSTRUCTION_P99};
use crate::api::Line;
use crate::bench::load::connection;
use crate::bench::{Backend, Setup};
use crate::jobs::{Shape, command};
use crate::virtual_worker::session::now_us;
use crate::{Cluster, deadline, programs};

/// Milliseconds, for half of the jobs and for all but one in a hundred.
const P50_MARK: f64 = 8.0;
const P99_MARK: f64 = 20.0;
/// The program that writes down the time.
pub const STAMP: &str = "gotgan-stamp";
/// Jobs for each second that a run of this benchmark is to take.
const JOBS_PER_S: f64 = 4.0;
/// Before the clock starts: pages are warm and caches are filled.
const WARM_UP: usize = 5;

/// Measures jobs one after the other.
pub async fn measure(setup: &Setup, figures: &mut Figures) {
    let mut cluster = setup.cluster(Backend::Sqlite).await;
    cluster.add_worker("node-a", "8xB200").await;
    let directory = cluster.scratch("stamps");
    let mut client = connection(&cluster).jobs();
    let jobs = WARM_UP + (setup.duration.as_secs_f64() * JOBS_PER_S).ceil() as usize;
    let mut times = Vec::with_capacity(jobs);
    for number in 0..jobs {
        times.push(one(&cluster, &mut client, &directory.join(number.to_string())).await);
    }
    times.drain(..WARM_UP);
    figures.times(INSTRUCTION_P50, P50_MARK, times.clone());
    figures.slowest(INSTRUCTION_P99, P99_MARK, times);
}

async fn one(cluster: &Cluster, client: &mut JobsClient<Line>, stamp: &Path) -> Duration {
    let (program, file) =
        (programs::path(STAMP).display().to_string(), stamp.display().to_string());
    let spec = command(&[&program, &file]).gpus(1);
    let sent_us = now_us();
    let (_, job) = timed_submit(client, spec).await;
    cluster.api.wait_for_end(job).await;
    let at_us =
        deadline::until("a stamp", async || read_stamp(stamp).ok_or_else(String::new)).await;
    Duration::from_micros(u64::try_from(at_us - sent_us).unwrap_or(0))
}

/// What it has written down, Unix microseconds.
pub fn read_stamp(stamp: &Path) -> Option<i64> {
    std::fs::read_to_string(stamp).ok()?.trim().parse().ok()
}
