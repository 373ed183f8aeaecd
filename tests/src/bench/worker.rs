//! One worker alone: how soon a job's first instruction runs after the order, how many short jobs a second, what a
//! thousand running attempts cost, and what reading output at speed does to heartbeats.
//!
//! But for the short jobs the scheduler is played by this program and stores nothing, so that what is measured is the worker.

mod desk;

use std::path::Path;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{LogData, ReadLog};

use super::report::Unit;
use super::scale::{STAMP, process, read_stamp};
use super::{Mark, Measure, Setup, lifecycle};
use crate::programs;
use crate::virtual_worker::session::now_us;
use desk::{Desk, Heard};

const FIRST_P50: &str = "worker/first-instruction/p50";
const FIRST_P99: &str = "worker/first-instruction/p99";
const LIVES: &str = "worker/lifecycles";
const HELD_CPU: &str = "worker/held/cpu";
const HELD_MEMORY: &str = "worker/held/memory";
const HELD_SHIMS: &str = "worker/held/all-shims";
const LOGS_RATE: &str = "worker/logs/rate";
const LOGS_BEAT: &str = "worker/logs/beat-late";

/// Attempts that run while their cost is measured.
const HELD: u64 = 1_000;
/// Some heartbeats, and enough for hundredths of a second to be fine.
const HELD_MIN: Duration = Duration::from_secs(30);
/// Output that is read again and again.
const OUTPUT_BYTES: u64 = 256 << 20;
/// The most that one read may ask for.
const READ_BYTES: u32 = 256 << 10;
/// Reads on their way at once: as many people as may follow one node's output.
const READS: u64 = 8;
/// Between two heartbeats while their lateness is measured.
const BEAT_MS: u32 = 200;
/// As in production.
const USUAL_BEAT_MS: u32 = 5_000;
/// Before the clock starts: pages are warm and caches are filled.
const WARM_UP: usize = 5;
/// Jobs, one after the other, for each second that a run is to take.
const FIRSTS_PER_S: f64 = 20.0;

/// Measures everything that is wanted.
pub async fn measure(setup: &Setup) -> Vec<Measure> {
    let mut measures = Vec::new();
    let wants = |names: &[&str]| names.iter().any(|name| name.contains(&setup.only));
    if wants(&[FIRST_P50, FIRST_P99]) {
        measures.extend(first_instructions(setup).await);
    }
    if wants(&[LIVES]) {
        measures.push(lifecycle::on_one_worker(setup, LIVES).await);
    }
    if wants(&[HELD_CPU, HELD_MEMORY, HELD_SHIMS]) {
        measures.extend(held(setup).await);
    }
    if wants(&[LOGS_RATE, LOGS_BEAT]) {
        measures.extend(output_at_speed(setup).await);
    }
    measures.retain(|measure| measure.name.contains(&setup.only));
    measures
}

/// From the order, handed to the stream, to the first thing that the job's process does.
async fn first_instructions(setup: &Setup) -> [Measure; 2] {
    let mut desk = Desk::open(&setup.directory, USUAL_BEAT_MS).await;
    let program = programs::path(STAMP).display().to_string();
    let jobs = WARM_UP + (setup.duration.as_secs_f64() * FIRSTS_PER_S).ceil() as usize;
    let mut times = Vec::with_capacity(jobs);
    for job in 1..=jobs as u64 {
        let stamp = desk.directory().join(format!("stamp-{job}"));
        let file = stamp.display().to_string();
        let ordered_us = now_us();
        desk.run(job, &[&program, &file]).await;
        desk.until_ended(job).await;
        let at_us = read_stamp(&stamp).expect("a job that has ended has left its stamp");
        times.push(Duration::from_micros(u64::try_from(at_us - ordered_us).unwrap_or(0)));
    }
    times.drain(..WARM_UP);
    [
        Measure::of_times(FIRST_P50, Unit::Milliseconds, Mark::AtMost(5.0), times.clone()),
        Measure::of_slowest(FIRST_P99, Unit::Milliseconds, Mark::AtMost(20.0), times),
    ]
}

/// What attempts cost that only run.
async fn held(setup: &Setup) -> [Measure; 3] {
    let mut desk = Desk::open(&setup.directory, USUAL_BEAT_MS).await;
    for job in 1..=HELD {
        desk.run(job, &["/bin/sleep", "100000"]).await;
    }
    desk.until_started(HELD).await;
    let id = desk.worker_id();
    let (before, begun) = (process::cpu_of_all(id), Instant::now());
    desk.listen_for(setup.duration.max(HELD_MIN)).await;
    let used = process::cpu_of_all(id).saturating_sub(before).as_secs_f64();
    let percent = used / begun.elapsed().as_secs_f64() * 100.0;
    let memory_mib = process::memory(id).now_mib as f64;
    let shims_mib = desk.shims().into_iter().map(process::proportional_kib).sum::<u64>() >> 10;
    let value = |name, unit, mark, value| Measure::of_values(name, unit, mark, &[value]);
    [
        value(HELD_CPU, "% core", Some(Mark::AtMost(5.0)), percent),
        value(HELD_MEMORY, "MiB", Some(Mark::AtMost(100.0)), memory_mib),
        value(HELD_SHIMS, "MiB", None, shims_mib as f64),
    ]
}

/// How fast output can be read, and by how much the latest heartbeat came too late meanwhile.
async fn output_at_speed(setup: &Setup) -> [Measure; 2] {
    let mut desk = Desk::open(&setup.directory, BEAT_MS).await;
    let pour = format!("head -c {OUTPUT_BYTES} /dev/zero");
    desk.run(1, &["/bin/sh", "-c", &pour]).await;
    desk.until_ended(1).await;
    let mut reader = Reader::default();
    for _ in 0..READS {
        desk.order_read(reader.next()).await;
    }
    let (begun, mut beat_at, mut latest) = (Instant::now(), None, Duration::ZERO);
    let due = Duration::from_millis(BEAT_MS.into());
    while begun.elapsed() < setup.duration {
        match desk.hear().await {
            Heard::Log(data) => {
                reader.take(&data);
                desk.order_read(reader.next()).await;
            }
            Heard::Beat => {
                let gap = beat_at.replace(Instant::now()).map(|at| at.elapsed());
                latest = latest.max(gap.unwrap_or_default().saturating_sub(due));
            }
            Heard::Else => {}
        }
    }
    let rate = reader.bytes as f64 / begun.elapsed().as_secs_f64() / 1e6;
    let late_ms = latest.as_secs_f64() * 1e3;
    [
        Measure::of_values(LOGS_RATE, "MB/s", Some(Mark::AtLeast(100.0)), &[rate]),
        Measure::of_values(LOGS_BEAT, "ms", Some(Mark::AtMost(100.0)), &[late_ms]),
    ]
}

/// Reads one output again and again.
#[derive(Debug, Default)]
struct Reader {
    asked: u64,
    bytes: u64,
}

impl Reader {
    fn next(&mut self) -> ReadLog {
        let parts = OUTPUT_BYTES / u64::from(READ_BYTES);
        let offset = self.asked % parts * u64::from(READ_BYTES);
        self.asked += 1;
        ReadLog {
            request: self.asked,
            job_id: 1,
            attempt: 1,
            stream: gotgan_proto::v1::LogStream::Stdout.into(),
            offset,
            max_bytes: READ_BYTES,
            ..Default::default()
        }
    }

    fn take(&mut self, data: &LogData) {
        assert!(data.error.is_empty() && !data.data.is_empty(), "{}", data.error);
        self.bytes += data.data.len() as u64;
    }
}

/// Where a worker's state lies while it is measured: on a disk, and not below `/tmp`, which jobs have for their own.
fn place(directory: &Path) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("gotgan-bench-")
        .tempdir_in(directory)
        .expect("a directory can be made where databases lie")
}
