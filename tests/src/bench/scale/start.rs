//! A full country with a long queue: how soon a job starts that finds a free GPU, and how soon one is acknowledged.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};

use super::country::{Country, timed_submit};
use super::{Figures, START, SUBMIT, fill};
use crate::bench::Setup;
use crate::bench::load::connection;
use crate::jobs::{ALPHA, Shape};
use crate::swarm::fleet::FREE_CLASS;
use crate::swarm::words;
use crate::virtual_worker::session::now_us;

/// Milliseconds for all but one in a hundred.
const START_MARK: f64 = 50.0;
const SUBMIT_MARK: f64 = 20.0;
/// People who submit at the same time, and how long each thinks before the next.
const CLIENTS: u64 = 4;
const THINKING: Duration = Duration::from_millis(20);
/// Between a start and the next submission, milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..180;
/// How long a started job runs.
const RUNS_FOR: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A job that has not started by then counts as this.
const GIVE_UP: Duration = Duration::from_secs(10);

/// From the call to the node that starts it, one job after the other on a class that is free.
pub async fn measure_starts(country: &mut Country, setup: &Setup, figures: &mut Figures) {
    let mut client = connection(&country.cluster).jobs();
    let (began, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || began.elapsed() < setup.duration / 2 {
        let spec = words::runs_for(RUNS_FOR).project(ALPHA).class(FREE_CLASS).gpus(1);
        let sent_us = now_us();
        let (_, job) = timed_submit(&mut client, spec).await;
        times.push(start(country, job, sent_us).await);
        let pause = country.random.random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    eprintln!("  {}", of_the_last_pass(country).await);
    figures.slowest(START, START_MARK, times);
}

async fn start(country: &Country, job: u64, sent_us: i64) -> Duration {
    let asked = Instant::now();
    loop {
        let times = country.swarm.board().of(job);
        if times.started > 0 {
            return Duration::from_micros(u64::try_from(times.started_us - sent_us).unwrap_or(0));
        }
        if asked.elapsed() > GIVE_UP {
            return GIVE_UP;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How long a submission takes while others submit and passes run over the whole queue.
pub async fn measure_submissions(country: &mut Country, setup: &Setup, figures: &mut Figures) {
    let before = country.api().status().await.expect("a status").passes;
    let mut people = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = connection(&country.cluster).jobs();
        let (fleet, until) = (country.fleet.clone(), Instant::now() + setup.duration / 2);
        let mut random = rand::rngs::StdRng::seed_from_u64(setup.seed + number);
        people.spawn(async move {
            let mut times = Vec::new();
            while times.is_empty() || Instant::now() < until {
                let spec = fill::for_full_class(&mut random, &fleet);
                times.push(timed_submit(&mut client, spec).await.0);
                tokio::time::sleep(THINKING).await;
            }
            times
        });
    }
    let times = people.join_all().await.concat();
    let passes = country.api().status().await.expect("a status").passes - before;
    eprintln!("  {passes} passes; {}", of_the_last_pass(country).await);
    figures.slowest(SUBMIT, SUBMIT_MARK, times);
}

async fn of_the_last_pass(country: &Country) -> String {
    let status = country.api().status().await.expect("a status");
    format!(
        "the last pass took {} us with {} jobs waiting",
        status.last_pass_us, status.jobs_pending
    )
}
