//! The scenarios in `examples/scenarios` come out as they say, and one that expects something else does not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gotgan_sim::report::ScenarioReport;
use gotgan_sim::setup::SetupError;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Every scenario there is; each has a test of its own below.
const EXAMPLES: [&str; 11] = [
    "elastic",
    "five-phases",
    "late-delivery",
    "long-weekend",
    "maintenance",
    "moving-in",
    "nvlink-domains",
    "recall",
    "scavengers",
    "six-weeks",
    "six-weeks-failure",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scenarios")
}

fn example(name: &str) -> ScenarioReport {
    let report = gotgan_sim::run(&folder().join(format!("{name}.toml"))).unwrap();
    assert!(report.passed, "{}", report.text());
    assert!(report.simulated);
    report
}

/// Writes a scenario to a file of its own.
fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scenario.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

fn run_text(text: &str) -> Result<ScenarioReport, SetupError> {
    let (_folder, file) = written(text);
    gotgan_sim::run(&file)
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gotgan-sim")).args(arguments).output().unwrap()
}

#[test]
fn every_example_is_run() {
    let files = std::fs::read_dir(folder()).unwrap().flatten().map(|file| file.path());
    let scenarios = files.filter(|path| path.extension().is_some_and(|suffix| suffix == "toml"));
    let mut names: Vec<_> =
        scenarios.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, EXAMPLES);
}

#[test]
fn a_budget_that_ends_on_a_friday_night_stops_nothing_that_runs_and_wakes_nobody() {
    example("long-weekend");
}

#[test]
fn five_thousand_associations_move_in_and_a_change_by_hand_shows_and_stays() {
    let report = example("moving-in");
    assert!(report.classes.iter().any(|class| class.class.as_str() == "b200"));
}

#[test]
fn gangs_keep_to_nvlink_domains_and_a_drained_tray_blocks_no_rack() {
    let report = example("nvlink-domains");
    assert!(report.classes.iter().any(|class| class.class.as_str() == "gb200"));
}

#[test]
fn files_that_should_be_refused_and_are_not_fail_the_scenario() {
    let text = std::fs::read_to_string(folder().join("moving-in.toml")).unwrap();
    let text = text.replace("as_written = true", "as_written = false");
    let text = text.replace("moving-in/", &format!("{}/moving-in/", folder().display()));
    let text = text.replace("../quota", &format!("{}/../quota", folder().display()));
    let report = run_text(&text).unwrap();
    assert!(!report.passed);
    assert!(
        report.violations.iter().any(|text| text.contains("should be refused")),
        "{}",
        report.text()
    );
}

#[test]
fn a_late_delivery_is_shared_out_in_proportion_and_stops_nobody() {
    let report = example("late-delivery");
    assert_eq!(report.jobs.stopped, 0);
}

#[test]
fn what_was_lent_comes_back_and_what_borrowed_goes_on_from_its_checkpoint() {
    example("recall");
}

#[test]
fn maintenance_keeps_jobs_off_by_their_limits_and_is_over_by_itself() {
    example("maintenance");
}

#[test]
fn five_phases_come_by_their_dates() {
    example("five-phases");
}

#[test]
fn an_elastic_job_goes_on_with_the_nodes_that_are_left() {
    example("elastic");
}

#[test]
fn scavengers_use_what_a_gang_waits_for_and_are_gone_when_it_starts() {
    example("scavengers");
}

#[test]
fn a_team_has_8000_gpus_for_six_weeks_and_startups_keep_their_service() {
    example("six-weeks");
}

#[test]
fn a_gang_of_a_thousand_nodes_gets_over_the_loss_of_one() {
    example("six-weeks-failure");
}

/// A cluster of four nodes, a lender and a borrower; `more` is added.
fn small(seed: u64, more: &str) -> String {
    format!(
        r#"
title = "small"
from = "2027-01-01"
until = "2027-01-02"
seed = {seed}
[quota.text]
"all.toml" = """
[node.public]
decision = "EX-1"
guarantee = {{ b200 = 24 }}
[node."public/a"]
guarantee = {{ b200 = 16 }}
[node."public/b"]
guarantee = {{ b200 = 8 }}
"""
[policy]
min_runtime_before_preemption_s = 60
[[cluster]]
name = "c"
class = "b200"
nodes = 4
gpus_per_node = 8
spare_nodes = 1
[[stream]]
name = "a"
project = "public/a"
arrive = {{ poisson = {{ mean = "20m", step = "1ms" }} }}
size = [{{ gpus = 1, weight = 3 }}, {{ gpus = 8 }}, {{ nodes = 2, gpus = 4 }}]
duration = {{ exponential = {{ mean = "40m", most = "3h", step = "1ms" }} }}
job = {{ class = "b200", time_limit = "2h", checkpoint = "5m" }}
[[stream]]
name = "b"
project = "public/b"
arrive = {{ fill_gpus = 32 }}
size = [{{ gpus = 2 }}, {{ gpus = 8 }}]
duration = {{ uniform = {{ least = "10m", most = "5h", step = "1ms" }} }}
job = {{ class = "b200", time_limit = "6h", grace = "10s" }}
{more}
"#
    )
}

#[test]
fn a_wrong_expectation_fails_with_both_numbers_and_all_are_told() {
    let text = small(
        1,
        r#"
        [[expect]]
        at = "2027-01-01T12:00"
        value.guaranteed = { node = "public/a", class = "b200" }
        equals = 17
        [[expect]]
        value.guaranteed = { node = "public/b", class = "b200" }
        equals = 8
        "#,
    );
    let (_folder, file) = written(&text);
    let output = program(&["scenario", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stdout).unwrap();
    let wrong = "FAILED  2027-01-01T12:00:00+09:00 guaranteed public/a b200: expected 17, found\n          16";
    assert!(said.contains(wrong), "{said}");
    assert!(
        said.contains("ok      2027-01-02 guaranteed public/b b200: expected 8, found 8"),
        "{said}"
    );
    assert!(said.contains("FAILED: 1 of 2 expectations met (simulated)"), "{said}");
    assert!(said.starts_with("SIMULATED: small\n"), "{said}");
}

#[test]
fn the_same_scenario_gives_the_same_bytes_and_none_is_wide() {
    let text = small(7, "");
    let (_folder, file) = written(&text);
    let file = file.to_str().unwrap();
    let (first, second) = (program(&["scenario", file]), program(&["scenario", file]));
    assert_eq!(first.status.code(), Some(0));
    assert_eq!(first.stdout, second.stdout);
    for line in String::from_utf8(first.stdout).unwrap().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let (first, second) =
        (program(&["scenario", file, "--json"]), program(&["scenario", file, "--json"]));
    assert_eq!(first.stdout, second.stdout);
    let document: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(document["schema"], "gotgan.scenario/1");
    assert_eq!(document["simulated"], true);
}

#[test]
fn another_seed_gives_another_run() {
    let passes = |seed| run_text(&small(seed, "")).unwrap().text();
    assert_ne!(passes(1), passes(2));
}

/// A line that is wrong, and words of the fault that must come of it.
const BROKEN: [(&str, &[&str]); 14] = [
    ("[[stream]]\nnam = \"x\"", &["scenario.toml:39: nam: unknown field `nam`"]),
    (
        "[[expect]]\nvalue.held = { node = \"public/c\", class = \"b200\" }\nequals = 1",
        &["public/c", "no quota file"],
    ),
    (
        "[[expect]]\nvalue.held = { node = \"public/a\", class = \"b200\" }",
        &["scenario.toml:38: expect: equals"],
    ),
    (
        "[[expect]]\nat = \"2028-01-01\"\nvalue.preempted = {}\nequals = 0",
        &["expect: at", "not within"],
    ),
    (
        "[[expect]]\nat = \"tomorrow\"\nvalue.preempted = {}\nequals = 0",
        &["scenario.toml:39: at", "tomorrow"],
    ),
    ("[[expect]]\nvalue.moved_starts = {}\nequals = 0", &["[compare]"]),
    (
        "[[expect]]\nvalue.state = { job = \"x\" }\nequals = \"held\"",
        &["no event submits", "\"x\""],
    ),
    ("[[expect]]\nvalue.stopped = { stream = \"z\" }\nequals = 0", &["no stream is named"]),
    (
        "[[event]]\nat = \"2027-01-01\"\ndo.lose = \"c-0006\"",
        &["event: do", "no cluster has a node c-0006"],
    ),
    ("[[event]]\nat = \"2027-01-01\"\ndo.explode = \"c-0001\"", &["scenario.toml:40", "explode"]),
    ("[[event]]\nat = \"2027-01-01\"\ndo.cancel = \"x\"", &["event: do.cancel"]),
    (
        "[[event]]\nat = \"2027-01-01\"\ndo.accept = { lot = \"x\", batch = 1 }",
        &["do.accept", "batch 1", "lot x"],
    ),
    ("[compare]\nwithout = [\"x\"]", &["compare.without", "no event"]),
    (
        "[[event]]\nat = \"2027-01-01\"\ndo.apply.quota = { text = { \"all.toml\" = \"[node.public]\\nfoo = 1\" } }",
        &["all.toml", "foo"],
    ),
];

#[test]
fn what_is_wrong_is_told_with_file_line_and_key() {
    for (more, words) in BROKEN {
        let Err(SetupError::Faults(faults)) = run_text(&small(1, more)) else {
            panic!("accepted: {more}");
        };
        let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        for word in words {
            assert!(text.contains(word), "{more}\n{text}\nhas no {word}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_told_with_its_path() {
    let output = program(&["scenario", "/nowhere/at/all.toml", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["schema"], "gotgan.error/1");
    assert!(error["message"].as_str().unwrap().contains("/nowhere/at/all.toml"));
}

#[test]
fn a_counterfactual_without_anything_left_out_is_the_same_run() {
    let more = r#"
        [compare]
        without = []
        [[expect]]
        value.moved_starts = {}
        equals = 0
        [[expect]]
        value.start_delay_ms = { percentile = 50 }
        equals_counterfactual = true
        at_most_counterfactual_milli = 1000
    "#;
    let report = run_text(&small(3, more)).unwrap();
    assert!(report.passed, "{}", report.text());
}

#[test]
fn a_limit_that_comes_later_is_one_that_jobs_end_at() {
    let more = r#"
        [[event]]
        at = "2027-01-01T01:00"
        do.submit = { name = "long", project = "public/a", gpus = 1, duration = "3h", job = { time_limit = "1h" } }
        [[event]]
        at = "2027-01-01T01:00"
        do.submit = { name = "cut", project = "public/a", gpus = 1, duration = "30m" }
        [[event]]
        at = "2027-01-01T01:10"
        do.cancel = "cut"
        [[expect]]
        value.state = { job = "long" }
        equals = "timed_out"
        [[expect]]
        value.state = { job = "cut" }
        equals = "cancelled"
    "#;
    let report = run_text(&small(3, more)).unwrap();
    assert!(report.passed, "{}", report.text());
}

/// One thing that happens to a machine.
fn trouble() -> impl Strategy<Value = String> {
    let at = (0..24_u32, 0..60_u32).prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}"));
    let action = prop_oneof![
        (1..=5_u32).prop_map(|node| format!("do.lose = \"c-000{node}\"")),
        (1..=5_u32).prop_map(|node| format!("do.return = \"c-000{node}\"")),
        (1..=5_u32).prop_map(|node| format!("do.drain = \"c-000{node}\"")),
        (1..=5_u32).prop_map(|node| format!("do.resume = \"c-000{node}\"")),
        Just("do = \"restart\"".to_owned()),
    ];
    (at, action).prop_map(|(at, action)| format!("[[event]]\nat = \"2027-01-01T{at}\"\n{action}\n"))
}

#[test]
fn a_restart_in_the_moment_in_which_a_node_falls_silent_changes_nothing_else() {
    let lost = "[[event]]\nat = \"2027-01-01T00:34\"\ndo.lose = \"c-0001\"\n";
    let restart = "[[event]]\nat = \"2027-01-01T00:34\"\ndo = \"restart\"\n";
    let report = run_text(&small(0, &format!("{lost}{restart}"))).unwrap();
    assert!(report.passed, "{}", report.text());
}

/// Jobs that take what the others leave.
const SCAVENGERS: &str = r#"
[[stream]]
name = "c"
project = "public/b"
arrive = { fill_gpus = 48 }
size = [{ gpus = 1 }, { nodes = 2, gpus = 3 }]
duration = { exponential = { mean = "30m", most = "3h", step = "1ms" } }
job = { class = "b200", time_limit = "2h", scavenger = true, checkpoint = "5m" }
"#;

/// Whole simulations take long: a few each time, and as many as somebody asks for.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES");
    asked.map_or(24, |number| number.parse().expect("a number of cases"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_gpu_is_somewhere_and_every_second_is_charged_once(
        seed in 0..u64::MAX / 2,
        troubles in proptest::collection::vec(trouble(), 0..12),
        scavengers in any::<bool>(),
    ) {
        let more = if scavengers { SCAVENGERS } else { "" };
        let report = run_text(&small(seed, &(more.to_owned() + &troubles.concat()))).unwrap();
        prop_assert!(report.passed, "{}", report.text());
    }
}

/// Jobs that come and go in minutes.
fn busy(seed: u64, more: &str) -> String {
    small(seed, more)
        .replace("mean = \"20m\"", "mean = \"30s\"")
        .replace("mean = \"40m\", most = \"3h\"", "mean = \"2m\", most = \"1h\"")
        .replace("least = \"10m\", most = \"5h\"", "least = \"30s\", most = \"12m\"")
}

#[test]
#[ignore = "takes about as long as a meal; GOTGAN_TEST_JOBS says how many"]
fn a_million_jobs_among_losses_and_restarts_leave_nothing_wrong() {
    let asked = std::env::var("GOTGAN_TEST_JOBS");
    let wanted: usize = asked.map_or(1_000_000, |number| number.parse().expect("a number of jobs"));
    let mut runner = TestRunner::deterministic();
    let troubles = proptest::collection::vec(trouble(), 0..24);
    let (mut jobs, mut stopped, mut runs) = (0, 0, 0);
    while jobs < wanted {
        let troubles = troubles.new_tree(&mut runner).unwrap().current().concat();
        let more = if runs % 2 == 0 { SCAVENGERS.to_owned() + &troubles } else { troubles };
        let report = run_text(&busy(runs, &more)).unwrap();
        assert!(report.passed, "seed {runs}: {}\n{more}", report.text());
        jobs += report.jobs.submitted;
        stopped += report.jobs.stopped;
        runs += 1;
    }
    println!("{jobs} jobs in {runs} runs, {stopped} attempts stopped or lost: nothing wrong");
}
