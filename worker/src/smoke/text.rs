//! A report for people.

use serde_json::Value;

use super::reader::ReaderReport;
use super::report::{EventRound, GpuReport, Latency, PowerSetting, SmokeReport, Verdict};
use crate::nvml::Reading;

/// What the three durations of a reading are.
const DURATIONS: &str = "Durations: the first of five calls / their median / their maximum.";
/// Width of the names of readings.
const NAME_WIDTH: usize = 24;
/// Width of a line.
const LINE_WIDTH: usize = 80;
/// Width of short values, so that most durations stand below each other.
const VALUE_WIDTH: usize = 32;

impl SmokeReport {
    /// For programs.
    pub fn as_json(&self) -> String {
        // Its parts are text, numbers and lists.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people.
    pub fn as_text(&self) -> String {
        let mut lines = vec![
            format!("gotgan-worker {}, gpu-smoke", self.worker_version),
            format!("system   {}, kernel {}", self.os, self.kernel),
            format!("library  {}", self.library),
        ];
        lines.extend(self.driver_lines());
        for gpu in &self.gpus {
            lines.push(String::new());
            lines.extend(gpu_lines(gpu));
        }
        if self.gpus.iter().any(|gpu| !gpu.readings.is_empty()) {
            lines.extend([String::new(), DURATIONS.to_owned()]);
        }
        lines.extend(self.reader.iter().map(reader_line));
        lines.push(String::new());
        lines.extend(self.faults.iter().map(|fault| format!("FAULT    {fault}")));
        lines.extend(self.notes.iter().map(|note| format!("note     {note}")));
        lines.push(self.verdict_line());
        lines.join("\n")
    }

    fn driver_lines(&self) -> Vec<String> {
        let Some(versions) = &self.versions else {
            return Vec::new();
        };
        let double = if versions.double { "  SIMULATED: a double, no real GPUs" } else { "" };
        let mut lines = vec![format!("driver   {}{double}", or_reason(&versions.driver))];
        lines.push(format!(
            "NVML     {}, CUDA {}",
            or_reason(&versions.library),
            or_reason(&versions.cuda)
        ));
        lines.extend(self.start.map(|start| format!("started  in {}", duration(start.max_us))));
        let there = self.functions - self.missing_functions.len();
        lines.push(format!("knows    {there} of {} functions", self.functions));
        lines.extend(self.missing_functions.iter().map(|name| format!("lacks    {name}")));
        lines
    }

    fn verdict_line(&self) -> String {
        let gpus = match self.gpus.len() {
            1 => "1 GPU".to_owned(),
            count => format!("{count} GPUs"),
        };
        let readings = self.gpus.iter().flat_map(|gpu| &gpu.readings);
        let (there, all) = readings.fold((0, 0), |(there, all), reading| {
            (there + usize::from(reading.value.is_some()), all + 1)
        });
        match self.verdict {
            Verdict::Sound => format!("SOUND    {gpus}, {there} of {all} readings"),
            Verdict::Faults => {
                format!("FAULTS   {}; {gpus}, {there} of {all} readings", self.faults.len())
            }
            Verdict::NoDriver => "NO DRIVER".into(),
        }
    }
}

fn gpu_lines(gpu: &GpuReport) -> Vec<String> {
    let uuid = gpu.uuid.as_deref().unwrap_or("without a UUID");
    let mut lines = vec![format!("GPU {}    {uuid}", gpu.index)];
    lines.extend(gpu.unreadable.map(|missing| format!("  cannot be read: {missing}")));
    for reading in &gpu.readings {
        let shown = match (&reading.value, reading.missing) {
            (Some(value), _) => plain(value),
            (None, Some(missing)) => vec![missing.to_string()],
            (None, None) => Vec::new(),
        };
        lines.extend(reading_lines(reading.name, &shown, reading.latency));
    }
    lines.extend(gpu.events.iter().map(event_line));
    lines.extend(gpu.power.iter().map(power_line));
    lines
}

fn reading_lines(name: &str, shown: &[String], latency: Latency) -> Vec<String> {
    let Latency { first_us, median_us, max_us } = latency;
    let took = [first_us, median_us, max_us].map(duration).join(" / ");
    match shown {
        [only] if only.chars().count() <= VALUE_WIDTH => {
            vec![format!("  {name:NAME_WIDTH$}{only:VALUE_WIDTH$}{took}")]
        }
        many => {
            let mut lines = vec![format!("  {name:NAME_WIDTH$}{:VALUE_WIDTH$}{took}", "")];
            lines.extend(many.iter().flat_map(|line| wrapped(line)));
            lines
        }
    }
}

/// Lines that are not too long, cut between members.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split_inclusive(", ") {
        match lines.last_mut() {
            Some(line) if line.len() + part.trim_end().len() <= LINE_WIDTH => line.push_str(part),
            Some(_) => lines.push(format!("      {part}")),
            None => lines.push(format!("    {part}")),
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

fn event_line(events: &EventRound) -> String {
    let result = match &events.result {
        Ok(None) => "registered, waited, none came, freed".to_owned(),
        Ok(Some(event)) => format!("one came: kind {:#x}, data {}", event.kind, event.data),
        Err(missing) => missing.to_string(),
    };
    format!("  {:NAME_WIDTH$}{result}, {}", "events", duration(events.took_us))
}

fn reader_line(reader: &ReaderReport) -> String {
    let shown = |took: Option<u64>| took.map_or("never".to_owned(), duration);
    format!(
        "reader   open in {}, {} read in {}, {} watched, ended in {}",
        shown(reader.opened_us),
        reader.read.len(),
        shown(reader.all_read_us),
        reader.watched.len(),
        shown(reader.ended_us),
    )
}

fn power_line(power: &PowerSetting) -> String {
    let may = match (&power.set, power.root) {
        (Some(Ok(())), _) => "was set to what it is".to_owned(),
        (Some(Err(missing)), _) => format!("cannot be set: {missing}"),
        (None, true) => "not tried; this is root, who may".to_owned(),
        (None, false) => "not tried; this is not root, who alone may".to_owned(),
    };
    format!("  {:NAME_WIDTH$}{may}", "setting a power limit")
}

fn or_reason(reading: &Reading<String>) -> String {
    match reading {
        Ok(text) => text.clone(),
        Err(missing) => format!("({missing})"),
    }
}

fn duration(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!("{microseconds} us"),
        10_000.. => format!("{} ms", microseconds / 1000),
    }
}

/// A value in lines: lists of things with members have one for each.
fn plain(value: &Value) -> Vec<String> {
    match value {
        Value::Array(entries) if entries.is_empty() => vec!["none".into()],
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            entries.iter().map(words).collect()
        }
        other => vec![words(other)],
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => entries.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| match value {
                Value::Object(_) => format!("{name}: {}", words(value)),
                plain => format!("{name} {}", words(plain)),
            };
            members.iter().map(member).collect::<Vec<_>>().join(", ")
        }
    }
}
