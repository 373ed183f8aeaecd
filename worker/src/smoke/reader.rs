//! Whether the process that reads GPUs for the daemon does so on this machine: it starts, reads each GPU, waits for
//! its events, and ends when its input does.

use std::io::BufReader;
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::report::microseconds;
use crate::inventory::InventoryPlan;
use crate::reader::frames::{self, Said, Watching};
use crate::reader::keeper;

/// How often GPUs are read meanwhile.
const INTERVAL: Duration = Duration::from_millis(200);
/// It ends at once, or it hangs.
const END_PATIENCE: Duration = Duration::from_secs(5);
const END_LOOK: Duration = Duration::from_millis(5);
/// Messages not looked at yet; who says more waits.
const QUEUE: usize = 64;

/// What was seen of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReaderReport {
    /// From its start until the driver was open and described.
    pub opened_us: Option<u64>,
    /// GPUs that it read.
    pub read: Vec<String>,
    /// From its start until every GPU had been read.
    pub all_read_us: Option<u64>,
    /// GPUs whose events it waits for.
    pub watched: Vec<String>,
    /// GPUs whose events it does not wait for, with why not.
    pub unwatched: Vec<(String, String)>,
    /// From the end of its input to its own.
    pub ended_us: Option<u64>,
    /// What went wrong.
    pub failure: Option<String>,
}

/// Lets it read these GPUs once.
pub(super) fn check(library: Option<&str>, uuids: &[String], patience: Duration) -> ReaderReport {
    let mut report = ReaderReport::default();
    report.failure = run(library, uuids, patience, &mut report).err();
    report
}

fn run(
    library: Option<&str>,
    uuids: &[String],
    patience: Duration,
    report: &mut ReaderReport,
) -> Result<(), String> {
    let plan = InventoryPlan {
        nvml_library: library.map(str::to_owned),
        reading_interval: INTERVAL,
        ..Default::default()
    };
    let began = Instant::now();
    let mut child = keeper::spawn(&plan, &[]).map_err(|error| format!("cannot start: {error}"))?;
    let heard = match child.stdout.take() {
        Some(output) => listen(output, uuids, began, patience, report),
        None => Err("it has no output".to_owned()),
    };
    heard.and(end(&mut child, report))
}

/// Hears it until it has said all that is expected.
fn listen(
    output: ChildStdout,
    uuids: &[String],
    began: Instant,
    patience: Duration,
    report: &mut ReaderReport,
) -> Result<(), String> {
    let told = hear(output).map_err(|error| error.to_string())?;
    let took = || microseconds(began.elapsed());
    while !is_done(report, uuids) {
        let left = patience.saturating_sub(began.elapsed());
        match told.recv_timeout(left) {
            Ok(Said::Opened(_)) => report.opened_us = Some(took()),
            Ok(Said::Seen(look)) => note(&mut report.read, look.reading.uuid),
            Ok(Said::Watching(watching)) => watched(report, watching),
            Ok(Said::NoDriver(why)) => return Err(format!("it finds no driver: {why}")),
            Ok(Said::Alive(_) | Said::Happened(_)) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("it died".to_owned()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(unfinished(report, uuids, patience));
            }
        }
        if report.all_read_us.is_none() && has_all(&report.read, uuids) {
            report.all_read_us = Some(took());
        }
    }
    Ok(())
}

fn hear(output: ChildStdout) -> std::io::Result<Receiver<Said>> {
    let (tell, told) = mpsc::sync_channel(QUEUE);
    let mut output = BufReader::new(output);
    let pass_on = move || {
        while let Ok(Some(said)) = frames::read(&mut output) {
            if tell.send(said).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("gpu-reader".into()).spawn(pass_on)?;
    Ok(told)
}

fn note(list: &mut Vec<String>, uuid: String) {
    if !list.contains(&uuid) {
        list.push(uuid);
    }
}

fn watched(report: &mut ReaderReport, watching: Watching) {
    let Watching { uuid, failure } = watching;
    if failure.is_empty() {
        note(&mut report.watched, uuid);
    } else if report.unwatched.iter().all(|(known, _)| *known != uuid) {
        report.unwatched.push((uuid, failure));
    }
}

fn has_all(list: &[String], uuids: &[String]) -> bool {
    uuids.iter().all(|uuid| list.contains(uuid))
}

fn is_done(report: &ReaderReport, uuids: &[String]) -> bool {
    let told = |uuid: &String| {
        report.watched.contains(uuid) || report.unwatched.iter().any(|(known, _)| known == uuid)
    };
    report.opened_us.is_some() && has_all(&report.read, uuids) && uuids.iter().all(told)
}

fn unfinished(report: &ReaderReport, uuids: &[String], patience: Duration) -> String {
    let (read, all) = (report.read.len(), uuids.len());
    let watched = report.watched.len() + report.unwatched.len();
    format!("after {patience:?} it has read {read} of {all} GPUs and told of events of {watched}")
}

/// Ends it as the daemon's end does.
fn end(child: &mut Child, report: &mut ReaderReport) -> Result<(), String> {
    drop(child.stdin.take());
    let began = Instant::now();
    while began.elapsed() < END_PATIENCE {
        match child.try_wait() {
            Ok(Some(_)) => {
                report.ended_us = Some(microseconds(began.elapsed()));
                return Ok(());
            }
            Ok(None) => std::thread::sleep(END_LOOK),
            Err(error) => return Err(error.to_string()),
        }
    }
    // What does not end by itself may not end by this either.
    let _ = child.kill();
    Err(format!("it does not end within {END_PATIENCE:?} after its input"))
}
