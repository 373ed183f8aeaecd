//! Workers and shims of different releases: what one wrote, the other reads.
//!
//! The files in `fixtures/` were written by the release that their directory is named after, and are never changed.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gotgan_worker::journal::Journal;
use gotgan_worker::shim::events;
use gotgan_worker::shim::launcher::Launched;
use gotgan_worker::shim::protocol::{
    Ending, EventLine, Exit, Launch, SPEC, ShimEvent, ShimSpec, StepSpec, TaskSpec, VERSION,
};

use crate::cluster::eventually;

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures").join(name)
}

fn orders(version: u32) -> ShimSpec {
    let task =
        TaskSpec { argv: vec!["/bin/true".into()], directory: "/".into(), ..TaskSpec::default() };
    ShimSpec {
        version,
        time_limit_ms: 0,
        grace_ms: 10,
        warning: None,
        batch: false,
        step: StepSpec { tasks: vec![task], ..StepSpec::default() },
        confinement: Default::default(),
        container: None,
    }
}

fn launcher() -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gotgan-shim"));
    command.arg("--launcher").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Has a launcher start a shim by this line, waits for its end, and returns what it said.
async fn launch(directory: &Path, line: &str) -> Vec<EventLine> {
    let mut launcher = launcher();
    writeln!(launcher.stdin.take().unwrap(), "{line}").unwrap();
    let said = || events::read(directory).unwrap();
    let is_last = |line: &EventLine| matches!(line.event, ShimEvent::Ended { .. });
    eventually("the shim has said its last word", || said().last().is_some_and(is_last)).await;
    launcher.wait().unwrap();
    said()
}

/// Runs a shim on these orders, left in its directory as the first releases did, and returns what it said.
async fn run(orders: &[u8]) -> Vec<EventLine> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(SPEC), orders).unwrap();
    launch(directory.path(), &directory.path().display().to_string()).await
}

fn end_of(events: &[EventLine]) -> (Ending, String, Exit) {
    match &events.last().unwrap().event {
        ShimEvent::Ended { ending, reason, exit } => (*ending, reason.clone(), *exit),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_shim_starts_nothing_on_orders_newer_than_itself() {
    let newer = serde_json::to_vec(&orders(VERSION + 1)).unwrap();
    let events = run(&newer).await;
    let (ending, reason, _) = end_of(&events);
    assert_eq!(ending, Ending::Stopped(3));
    assert!(reason.contains("gotgan-shim on this node is older than its worker"), "{reason}");
    let started = |line: &EventLine| matches!(line.event, ShimEvent::TaskStarted { .. });
    assert!(!events.iter().any(started), "{events:?}");
}

#[tokio::test]
async fn a_shim_whose_orders_came_with_the_call_leaves_none_of_them_behind() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().display().to_string();
    let call = Launch { directory: place, spec: orders(VERSION) };
    let events = launch(directory.path(), &serde_json::to_string(&call).unwrap()).await;
    assert_eq!(end_of(&events), (Ending::Own, String::new(), Exit::code(0)));
    assert!(!directory.path().join(SPEC).exists());
}

#[tokio::test]
async fn orders_that_nobody_can_read_are_refused_by_the_launcher() {
    let mut launcher = launcher();
    let line = "{\"directory\": \"/a/7.1\", \"spec\": 5}";
    writeln!(launcher.stdin.take().unwrap(), "{line}").unwrap();
    let answer = std::io::read_to_string(launcher.stdout.take().unwrap()).unwrap();
    launcher.wait().unwrap();
    let Launched::Failed(directory, why) = serde_json::from_str(&answer).unwrap() else {
        panic!("{answer}")
    };
    assert_eq!(directory, "/a/7.1");
    assert!(why.starts_with("its orders: "), "{why}");
}

#[tokio::test]
async fn orders_of_the_first_release_are_obeyed() {
    let events = run(&std::fs::read(fixture("0.1.0/spec.json")).unwrap()).await;
    assert_eq!(end_of(&events), (Ending::Own, "rank 0 exited with code 5".into(), Exit::code(5)));
}

#[test]
fn what_a_shim_of_the_first_release_said_is_understood_whole() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("0.1.0/events"), directory.path().join("events")).unwrap();
    let events = events::read(directory.path()).unwrap();
    let lines = std::fs::read_to_string(fixture("0.1.0/events")).unwrap();
    assert_eq!(events.len(), lines.lines().count());
    assert!(matches!(events[0].event, ShimEvent::Started { pid: 4242, version: 1, .. }));
    assert_eq!(end_of(&events).0, Ending::Own);
}

#[test]
fn the_journal_of_a_worker_of_the_first_release_is_remembered() {
    let image = Journal::peek(&fixture("0.1.0/journal")).unwrap();
    let held: Vec<_> = image.attempts.values().collect();
    let told: Vec<_> = held
        .iter()
        .map(|it| (it.key.job_id, it.start_ordered, it.ended, it.reports.len()))
        .collect();
    // One that has ended and whose reports nobody acknowledged, and one that runs.
    assert_eq!(told, [(7, true, true, 5), (8, true, false, 3)]);
    assert_eq!(image.epoch, 5);
}
