//! `gotgan-sim replay` as people call it: what it prints and writes, and how it refuses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Eight GPUs are busy until 100; then a job of all eight, a short one that may pass it and a long one that may not.
const TRACE: &str = "id,submit_s,duration_s,gpus,vc\n\
    0,0,100,6,ant\n\
    1,1,50,8,bee\n\
    2,2,90,2,<i>cat</i>\n\
    3,3,500,2,ant\n\
    4,4,10,9,bee\n";

fn program(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gotgan-sim"));
    command.current_dir(folder).arg("replay").args(arguments.split(' ')).output().unwrap()
}

fn folder(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

fn report(folder: &Path, arguments: &str) -> Value {
    let output = program(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts by the CSV file that is written, empty for a job that never started.
fn starts(folder: &Path, arguments: &str) -> Vec<String> {
    let output = program(folder, &format!("{arguments} --csv out.csv"));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.join("out.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("id,submit_s,start_s,end_s,gpus,tenant"));
    lines.map(|line| line.split(',').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn each_rule_starts_jobs_when_it_says() {
    let (_kept, folder) = folder("trace.csv", TRACE);
    let by = |rule: &str| starts(&folder, &format!("--trace trace.csv --gpus 8 {rule}"));
    assert_eq!(by("--backfill none"), ["0", "100", "150", "150", ""]);
    assert_eq!(by("--backfill skip"), ["0", "592", "2", "92", ""]);
    assert_eq!(by("--backfill easy"), ["0", "100", "2", "150", ""]);
    assert_eq!(by("--backfill conservative"), ["0", "100", "2", "150", ""]);
    assert_eq!(by("--backfill reserved:2"), ["0", "100", "2", "150", ""]);
    assert_eq!(by("--backfill easy --estimate bucketed"), ["0", "100", "150", "150", ""]);
    assert_eq!(by("--order sjf"), ["0", "100", "150", "150", ""]);
}

#[test]
fn the_scheduler_itself_replays_a_trace_on_nodes() {
    let (_kept, folder) = folder("trace.csv", TRACE);
    let found = report(&folder, "--trace trace.csv --policy gotgan --nodes 1x8 --json");
    assert_eq!(found["policy"], "gotgan, bucketed, nodes 1x8");
    assert_eq!((&found["jobs"], &found["never_started"]), (&Value::from(4), &Value::from(1)));
}

#[test]
fn json_has_the_figures_by_their_names() {
    let (_kept, folder) = folder("trace.csv", TRACE);
    let found = report(&folder, "--trace trace.csv --gpus 8 --backfill easy --json");
    assert_eq!(found["schema"], "gotgan.replay/1");
    assert_eq!(found["simulated"], true);
    assert_eq!(found["policy"], "fifo/easy, exact");
    // 0, 99, 0 and 147 seconds.
    assert_eq!(found["total_wait_s"], 246);
    assert_eq!(found["mean_wait_s"], 61.5);
    assert_eq!(found["makespan_s"], 650);
    assert_eq!(found["mean_wait_of_jobs_ge16_s"], Value::Null);
    assert_eq!(found["tenants"].as_array().unwrap().len(), 3);
    assert_eq!(found["sizes"][0]["gpus"], "2");
}

#[test]
fn the_text_is_no_wider_than_a_terminal_and_says_that_it_is_simulated() {
    let (_kept, folder) = folder("trace.csv", TRACE);
    let output = program(&folder, "--trace trace.csv --gpus 8");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.starts_with("SIMULATED: trace.csv, fifo/none, exact\n"), "{text}");
    assert!(text.contains("never started    1\n"), "{text}");
    assert_eq!(output.stderr, b"", "no progress where there is no terminal");
}

#[test]
fn the_page_needs_nothing_else_and_names_cannot_become_tags() {
    let (_kept, folder) = folder("trace.csv", TRACE);
    let output = program(&folder, "--trace trace.csv --gpus 8 --html out.html");
    assert_eq!(output.status.code(), Some(0));
    let page = std::fs::read_to_string(folder.join("out.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains("&lt;i&gt;cat&lt;/i&gt;") && !page.contains("<i>cat"));
    assert!(!page.contains("<script") && !page.contains("http"));
}

#[test]
fn a_standard_workload_is_replayed_and_what_is_left_out_is_said() {
    let text = "; Computer: some\n1 0 -1 100 4 -1 -1 4 3600 -1 1 1 7 -1 1 -1 -1 -1\n\
                2 5 -1 -1 4 -1 -1 4 3600 -1 0 1 7 -1 1 -1 -1 -1\n";
    let (_kept, folder) = folder("some.swf", text);
    let output = program(&folder, "--trace some.swf --gpus 8 --estimate asked");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("left out         1 jobs without a run time\n"), "{text}");
    assert!(text.contains("  group-7  "), "{text}");
}

#[test]
fn what_cannot_be_replayed_is_refused_with_its_place() {
    let (_kept, folder) = folder("trace.csv", "id,submit_s,duration_s,gpus,vc\n0,0,100,many,ant\n");
    std::fs::write(folder.join("good.csv"), TRACE).unwrap();
    std::fs::write(folder.join("shares.csv"), "tenant,shares\nant,1\n").unwrap();
    let refused = [
        ("--trace trace.csv --gpus 8", "line 2, column \"gpus\""),
        ("--trace none.csv --gpus 8", "cannot read none.csv"),
        ("--trace good.csv --gpus 8 --order sjf --backfill conservative", "its order is fifo"),
        ("--trace good.csv --gpus 8 --shares shares.csv", "has no shares for"),
        ("--trace good.csv --gpus 1", "no job of the trace fits"),
        ("--trace good.csv --policy gotgan --nodes 8", "neither COUNTxGPUS"),
        ("--trace good.csv --policy gotgan --nodes 1x8 --order sjf", "has its own"),
        ("--trace good.csv --gpus 8 --format jobs", "is not what gotgan jobs --all --json prints"),
    ];
    for (arguments, words) in refused {
        let output = program(&folder, arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments}: {text}");
        assert!(text.contains(words), "{arguments}: {text}");
        let output = program(&folder, &format!("{arguments} --json"));
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(
            (&error["schema"], &error["hint"]),
            (&"gotgan.error/1".into(), &"docs/simulator.md".into())
        );
    }
}
