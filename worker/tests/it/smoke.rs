//! `gotgan-worker gpu-smoke` on a double of the driver's library.

use std::process::Command;

use serde_json::{Value, json};

use crate::double::{Double, gpus};

/// Its exit code and what it prints.
fn smoke(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gotgan-worker"));
    let output = command.arg("gpu-smoke").args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn report(double: &Double, arguments: &[&str]) -> (i32, Value) {
    let library = double.library();
    let mut all = vec!["--json", "--library", &library];
    all.extend(arguments);
    let (code, text) = smoke(&all);
    (code, serde_json::from_str(&text).unwrap())
}

fn reading<'report>(report: &'report Value, gpu: usize, name: &str) -> &'report Value {
    let readings = report["gpus"][gpu]["readings"].as_array().unwrap();
    readings.iter().find(|reading| reading["name"] == name).unwrap()
}

#[test]
fn a_sound_machine_is_said_to_be_sound() {
    let double = Double::new(&gpus(2));
    let (code, text) = smoke(&["--library", &double.library()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("SIMULATED") && text.contains("\nSOUND    2 GPUs"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    let (code, report) = report(&double, &[]);
    assert_eq!((code, &report["verdict"]), (0, &json!("sound")));
    assert_eq!(reading(&report, 1, "power_range")["value"]["max_mw"], 700_000);
    assert_eq!(reading(&report, 1, "numa_node")["missing"], "not supported by this GPU");
    assert!(reading(&report, 1, "energy_mj")["median_us"].as_u64().is_some());
    assert_eq!(report["gpus"][0]["events"]["result"], Value::Null);
    let reader = &report["reader"];
    assert_eq!((reader["read"].as_array().unwrap().len(), &reader["failure"]), (2, &Value::Null));
    assert_eq!(reader["watched"].as_array().unwrap().len(), 2);
    assert!(reader["ended_us"].as_u64().is_some() && text.contains("\nreader   open"), "{text}");
}

#[test]
fn what_is_not_sound_is_named_and_the_rest_still_read() {
    let mut state = gpus(3);
    state["gpus"][0]["answers"] = json!({ "nvmlDeviceGetSerial": { "code": 4711 } });
    state["gpus"][1]["lost"] = json!(true);
    state["gpus"][2]["recovery_action"] = json!(1);
    state["gpus"][2]["remapped_rows"] = json!([0, 1, 0, 1]);
    let (code, report) = report(&Double::new(&state), &[]);
    assert_eq!((code, &report["verdict"]), (1, &json!("faults")));
    let faults: Vec<&str> =
        report["faults"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert_eq!(faults[0], "GPU 0: serial: code 4711");
    assert!(faults[1].contains("GPU 1: cannot be read: GPU is lost"), "{faults:?}");
    assert!(faults[2].contains("reset_gpu") && faults[3].contains("exchanged"), "{faults:?}");
    assert_eq!(reading(&report, 0, "temperature_c")["value"], 40);
}

#[test]
fn without_a_driver_it_ends_with_two() {
    let (code, text) = smoke(&["--library", "/nowhere/libnvidia-ml.so.1"]);
    assert_eq!(code, 2);
    assert!(text.ends_with("NO DRIVER\n"), "{text}");
}

#[test]
fn nothing_is_set_unless_asked_for() {
    let mut state = gpus(1);
    state["count_calls"] = json!(true);
    let double = Double::new(&state);
    report(&double, &[]);
    assert_eq!(double.calls("nvmlDeviceSetPowerManagementLimit"), 0);
    let (code, report) = report(&double, &["--touch"]);
    assert_eq!((code, &report["gpus"][0]["power"]["set"]), (0, &json!("success")));
    assert_eq!(double.calls("nvmlDeviceSetPowerManagementLimit"), 1);
    // Those of the two processes that read for the daemon end with these.
    assert_eq!(double.calls("nvmlEventSetCreate"), double.calls("nvmlEventSetFree") + 2);
}

#[test]
fn a_driver_that_hangs_is_a_fault_that_names_the_reading() {
    let mut state = gpus(1);
    state["gpus"][0]["answers"] = json!({ "nvmlDeviceGetPowerUsage": { "hang": true } });
    let (code, report) = report(&Double::new(&state), &["--patience", "1"]);
    assert_eq!(code, 1);
    let fault = report["faults"][0].as_str().unwrap();
    assert_eq!(fault, "driver_unresponsive: no answer for 1s; asked GPU 0 for power_mw");
}
