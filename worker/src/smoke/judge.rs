//! What of a report is not sound, and what is worth a look.

use serde_json::Value;

use super::report::{GpuReport, SmokeReport, Verdict};

/// Words for what slows a GPU down that should not.
const SLOWED: [&str; 4] = ["hardware_slowdown", "thermal", "hardware_thermal", "power_brake"];

/// Fills in faults, notes and the verdict.
pub(super) fn judge(report: &mut SmokeReport) {
    if report.gpus.is_empty() && report.faults.is_empty() {
        report.notes.push("the driver has no GPUs".into());
    }
    if let Some(missing) = report.versions.as_ref().and_then(|it| it.driver.as_ref().err()) {
        report.faults.push(format!("the driver does not say its version: {missing}"));
    }
    for gpu in &report.gpus {
        let of_gpu = |text: String| format!("GPU {}: {text}", gpu.index);
        report.faults.extend(faults(gpu).into_iter().map(of_gpu));
        report.notes.extend(notes(gpu).into_iter().map(of_gpu));
    }
    judge_reader(report);
    report.verdict = if report.faults.is_empty() { Verdict::Sound } else { Verdict::Faults };
}

/// A GPU without events is none: some have no such thing.
fn judge_reader(report: &mut SmokeReport) {
    let Some(reader) = &report.reader else {
        return;
    };
    let failed = reader.failure.iter().map(|why| format!("the process that reads GPUs: {why}"));
    report.faults.extend(failed);
    for (uuid, why) in &reader.unwatched {
        let gpu = report.gpus.iter().find(|gpu| gpu.uuid.as_ref() == Some(uuid));
        let index = gpu.map_or_else(|| "?".to_owned(), |gpu| gpu.index.to_string());
        report.notes.push(format!("GPU {index}: its events are not waited for: {why}"));
    }
}

fn faults(gpu: &GpuReport) -> Vec<String> {
    let mut faults = Vec::new();
    faults.extend(gpu.unreadable.map(|missing| format!("cannot be read: {missing}")));
    let failed = gpu.readings.iter().filter(|reading| reading.fault);
    let failed = failed.filter_map(|reading| Some((reading.name, reading.missing?)));
    faults.extend(failed.map(|(name, missing)| format!("{name}: {missing}")));
    if let Some(Err(missing)) = gpu.events.as_ref().map(|events| &events.result)
        && missing.is_fault()
    {
        faults.push(format!("events: {missing}"));
    }
    if let Some(Some(Err(missing))) = gpu.power.as_ref().map(|power| &power.set) {
        faults.push(format!("setting the power limit: {missing}"));
    }
    faults.extend(unsound(gpu));
    faults
}

/// What the driver itself says is wrong.
fn unsound(gpu: &GpuReport) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(action) = gpu.value(&["recovery_action"]).filter(|action| **action != "none") {
        wrong.push(format!("the driver asks for {action}"));
    }
    if gpu.value(&["remapped_rows", "failed"]) == Some(&Value::Bool(true)) {
        wrong
            .push("a bad row of memory could not be replaced: the board is to be exchanged".into());
    }
    if gpu.value(&["remapped_rows", "pending"]) == Some(&Value::Bool(true)) {
        wrong.push("bad rows of memory wait for a reset to be replaced".into());
    }
    let uncorrected = gpu.value(&["ecc_since_load", "uncorrected"]).and_then(Value::as_u64);
    if let Some(count @ 1..) = uncorrected {
        wrong.push(format!("{count} errors of memory that could not be corrected"));
    }
    wrong
}

fn notes(gpu: &GpuReport) -> Vec<String> {
    let mut notes = Vec::new();
    let words = gpu.value(&["clock_reasons"]).and_then(Value::as_array);
    let slowed = words.into_iter().flatten().filter_map(Value::as_str);
    let slowed: Vec<&str> = slowed.filter(|word| SLOWED.contains(word)).collect();
    if !slowed.is_empty() {
        notes.push(format!("slowed down: {}", slowed.join(", ")));
    }
    let links = gpu.value(&["nvlinks"]).and_then(Value::as_array);
    let down = |link: &&Value| link.get("active") == Some(&Value::Bool(false));
    let down = links.map_or(0, |links| links.iter().filter(down).count());
    if down > 0 {
        notes.push(format!("{down} NVLinks are down"));
    }
    let width = |name| gpu.value(&["pcie", name]).and_then(Value::as_u64);
    if let (Some(width), Some(most)) = (width("width"), width("width_max"))
        && width < most
    {
        notes.push(format!("PCIe has {width} of {most} lanes"));
    }
    notes
}
