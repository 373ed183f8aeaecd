//! Amounts as people write them: times, memory, GPUs, node lists, dependencies, signals.
//!
//! Every form has one pure function here, used for flags and for directives alike; an error says which forms
//! are right.

use std::collections::BTreeSet;

use gotgan_proto::v1;

use crate::refer::JobRef;

/// Seconds of the largest time that can be written, far above any site's limit: 10,000 days.
const TIME_MAX_S: i64 = 864_000_000;

/// Names one node list may stand for; the largest gang.
const NODE_LIST_MAX: usize = 10_000;

/// Seconds before the end when `--signal` names none, as people know it from Slurm.
const SIGNAL_AHEAD_DEFAULT_S: u32 = 60;

const TIME_FORMS: &str = "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS, or 30s, 10m, 2h, 7d";

/// Reads a time limit, in seconds.
///
/// # Errors
/// Says which forms there are; a time of zero is refused as well.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let seconds = time_parts(text).ok_or_else(|| format!("not a time; write {TIME_FORMS}"))?;
    match seconds {
        0 => Err("a time of zero; ask for at least one second".to_owned()),
        1..=TIME_MAX_S => Ok(seconds),
        _ => Err("more than 10,000 days; ask for less".to_owned()),
    }
}

fn time_parts(text: &str) -> Option<i64> {
    if let Some((days, rest)) = text.split_once('-') {
        let fields: Vec<i64> = rest.split(':').map(number).collect::<Option<_>>()?;
        let clock = match fields[..] {
            [hours] => hours.checked_mul(3600)?,
            [hours, minutes] => sum(hours, minutes, 0)?,
            [hours, minutes, seconds] => sum(hours, minutes, seconds)?,
            _ => return None,
        };
        return number(days)?.checked_mul(86_400)?.checked_add(clock);
    }
    if text.contains(':') {
        let fields: Vec<i64> = text.split(':').map(number).collect::<Option<_>>()?;
        return match fields[..] {
            [minutes, seconds] => sum(0, minutes, seconds),
            [hours, minutes, seconds] => sum(hours, minutes, seconds),
            _ => None,
        };
    }
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return number(text)?.checked_mul(60),
    };
    number(&text[..text.len() - 1])?.checked_mul(unit)
}

fn sum(hours: i64, minutes: i64, seconds: i64) -> Option<i64> {
    hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)
}

/// Digits only: no sign, no blank.
fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// Reads an amount of memory, in MiB; without a unit it is MiB, K is rounded up.
///
/// # Errors
/// Says which forms there are; zero is refused.
pub fn parse_memory_mib(text: &str) -> Result<u64, String> {
    let wrong = || "not an amount of memory; write MiB, or with a unit: 512M, 8G, 1T".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let amount = u64::try_from(number(&text[..digits]).ok_or_else(wrong)?).map_err(|_| wrong())?;
    let unit = text[digits..].to_ascii_lowercase();
    let mib = match unit.trim_end_matches('b').trim_end_matches('i') {
        "k" => Some(amount.div_ceil(1024)),
        "" | "m" => Some(amount),
        "g" => amount.checked_mul(1 << 10),
        "t" => amount.checked_mul(1 << 20),
        _ => None,
    };
    match mib {
        Some(0) => Err("no memory; ask for at least 1M".to_owned()),
        Some(mib) => Ok(mib),
        None => Err(wrong()),
    }
}

/// Reads CPUs, in thousandths: `4` or `0.5`.
///
/// # Errors
/// Says what is right; zero and more than three decimals are refused.
pub fn parse_cpu_milli(text: &str) -> Result<u64, String> {
    let wrong = || "not a number of CPUs; write as in 4 or 0.5".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.len() > 3 {
        return Err("at most three decimals of a CPU".to_owned());
    }
    let whole = number(whole).and_then(|whole| whole.checked_mul(1000)).ok_or_else(wrong)?;
    let part = number(&format!("{decimals:0<3}")).ok_or_else(wrong)?;
    match whole.checked_add(part).and_then(|milli| u64::try_from(milli).ok()) {
        Some(0) => Err("no CPU; ask for more than 0".to_owned()),
        Some(milli) => Ok(milli),
        None => Err(wrong()),
    }
}

/// A number of GPUs, perhaps of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuAmount {
    pub gpu_class: Option<String>,
    pub count: u32,
}

/// Reads `8` or `b200:8`.
///
/// # Errors
/// Says which forms there are; zero is refused.
pub fn parse_gpus(text: &str) -> Result<GpuAmount, String> {
    let (gpu_class, count) = match text.rsplit_once(':') {
        Some((class, count)) => (Some(parse_gpu_class(class)?), count),
        None => (None, text),
    };
    match number(count).and_then(|count| u32::try_from(count).ok()) {
        Some(0) => Err("no GPU; leave the option out for a job without GPUs".to_owned()),
        Some(count) => Ok(GpuAmount { gpu_class, count }),
        None => Err("not a number of GPUs; write as in 8 or b200:8".to_owned()),
    }
}

/// Reads the name of a GPU class.
///
/// # Errors
/// When it is empty or has other characters than a class can have.
pub fn parse_gpu_class(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > 63 || !text.bytes().all(fits) {
        return Err("not a GPU class; write as in b200 (`gotgan cluster` lists them)".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

/// Reads a node list such as `node[1-3,7],login1`, with leading zeros kept.
///
/// # Errors
/// Says what is wrong with the brackets or the range, or that it stands for more than 10,000 names.
pub fn parse_node_list(text: &str) -> Result<Vec<String>, String> {
    let mut names = Names::default();
    for part in split_outside_brackets(text)? {
        expand_names(&part, &mut names)?;
    }
    if names.list.is_empty() {
        return Err("an empty node list; write as in node1 or node[1-3,7]".to_owned());
    }
    Ok(names.list)
}

/// Names that a list stands for, each once.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    known: BTreeSet<String>,
    /// With those that were there already: a short text can name the same ones without end.
    written: usize,
}

fn split_outside_brackets(text: &str) -> Result<Vec<String>, String> {
    let (mut parts, mut inside) = (vec![String::new()], false);
    for letter in text.chars() {
        match letter {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return Err("brackets do not match; write as in node[1-3,7]".to_owned()),
            ',' if !inside => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    if inside {
        return Err("a bracket is not closed; write as in node[1-3,7]".to_owned());
    }
    Ok(parts)
}

fn expand_names(part: &str, names: &mut Names) -> Result<(), String> {
    let Some((prefix, rest)) = part.split_once('[') else {
        return push_name(part.trim().to_owned(), names);
    };
    let Some((ranges, suffix)) = rest.split_once(']') else {
        return Err("a bracket is not closed; write as in node[1-3,7]".to_owned());
    };
    if suffix.contains('[') {
        return Err("one pair of brackets a name; write the names out".to_owned());
    }
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let wrong = || format!("`{range}` is not a range of numbers; write as in 1-3");
        let (from, to) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
        if from > to {
            return Err(format!("`{range}` goes backwards; write the smaller number first"));
        }
        for value in from..=to {
            push_name(
                format!("{}{value:0>width$}{suffix}", prefix.trim(), width = first.len()),
                names,
            )?;
        }
    }
    Ok(())
}

fn push_name(name: String, names: &mut Names) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if name.is_empty() || name.len() > 63 || !name.bytes().all(fits) {
        return Err(format!("`{name}` is not a node name; write as in node1 or node[1-3,7]"));
    }
    if names.written >= NODE_LIST_MAX {
        return Err(format!("stands for more than {NODE_LIST_MAX} nodes"));
    }
    names.written += 1;
    if names.known.insert(name.clone()) {
        names.list.push(name);
    }
    Ok(())
}

/// Reads dependencies such as `afterok:1:2,afterany:3_7`, where `3_7` is a task of an array.
///
/// # Errors
/// Names the part that is wrong and the kinds there are.
pub fn parse_dependencies(text: &str) -> Result<Vec<v1::Dependency>, String> {
    let mut dependencies = Vec::new();
    for part in text.split(',') {
        let (kind, ids) = part.split_once(':').ok_or_else(|| {
            format!("`{part}` is not a dependency; write as in afterok:1:2,afterany:3")
        })?;
        let kind = dependency_kind(kind)?;
        for id in ids.split(':') {
            let JobRef { job_id, tasks } = JobRef::parse_one(id)?;
            let task_index = tasks.parse().ok();
            dependencies.push(v1::Dependency { kind: kind.into(), job_id, task_index });
        }
    }
    Ok(dependencies)
}

fn dependency_kind(text: &str) -> Result<v1::DependencyKind, String> {
    match text {
        "after" => Ok(v1::DependencyKind::After),
        "afterok" => Ok(v1::DependencyKind::AfterOk),
        "afternotok" => Ok(v1::DependencyKind::AfterNotOk),
        "afterany" => Ok(v1::DependencyKind::AfterAny),
        "aftercorr" => Ok(v1::DependencyKind::AfterCorr),
        _ => Err(format!(
            "`{text}` is no kind of dependency; there are after, afterok, afternotok, afterany and aftercorr"
        )),
    }
}

/// Reads a job id, a positive number.
///
/// # Errors
/// When it is anything else.
pub fn parse_job_id(text: &str) -> Result<u64, String> {
    match number(text).and_then(|id| u64::try_from(id).ok()) {
        Some(id) if id > 0 => Ok(id),
        _ => Err(format!("`{text}` is not a job id; ids are numbers from 1")),
    }
}

/// Signals by name; their numbers on Linux.
const SIGNALS: [(&str, i32); 26] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("WINCH", 28),
    ("SYS", 31),
];

/// The name of a signal, as in "SIGTERM", or its number.
#[must_use]
pub fn signal_name(number: i32) -> String {
    match SIGNALS.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

/// Reads `[B:]SIGNAL[@SECONDS]`, the signal by name or number.
///
/// # Errors
/// Says which forms there are; signals that a process cannot catch are refused.
pub fn parse_warning_signal(text: &str) -> Result<v1::WarningSignal, String> {
    let (batch_only, rest) = match text.strip_prefix("B:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (name, ahead_s) = match rest.split_once('@') {
        Some((name, seconds)) => (name, parse_ahead_s(seconds)?),
        None => (rest, SIGNAL_AHEAD_DEFAULT_S),
    };
    match signal_number(name) {
        Some(9 | 19) => Err(format!("{name} cannot be caught; choose another, as in USR1")),
        Some(signal) => Ok(v1::WarningSignal { signal, ahead_s, batch_only }),
        None => Err(format!("`{name}` is no signal; write [B:]SIGNAL[@SECONDS], as in B:USR1@120")),
    }
}

fn parse_ahead_s(text: &str) -> Result<u32, String> {
    match number(text).and_then(|seconds| u32::try_from(seconds).ok()) {
        Some(seconds @ 1..=86_400) => Ok(seconds),
        _ => Err(format!("`{text}` is not a number of seconds from 1 to 86400")),
    }
}

fn signal_number(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    by_name.or_else(|| {
        number(text)
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| (1..=31).contains(number))
    })
}

/// Reads `KEY=VALUE` for an environment, or `KEY`, whose value `lookup` knows.
///
/// # Errors
/// When the name cannot be one, or `lookup` does not know it.
pub fn parse_variable(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<(String, String), String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, lookup(text)),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if key.is_empty() || !key.bytes().all(fits) || key.as_bytes()[0].is_ascii_digit() {
        return Err(format!("`{key}` is not a name of a variable; write as in SEED=42"));
    }
    match value {
        Some(value) => Ok((key.to_owned(), value)),
        None => Err(format!("{key} is not set here; write {key}=VALUE")),
    }
}

/// Reads `key=value`, a label a node must carry.
///
/// # Errors
/// When there is no `=` or the key is empty.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(format!("`{text}` is not a label; write key=value, as in hall=a")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_in_every_form_people_know() {
        let cases = [
            ("90", 5400),
            ("10:30", 630),
            ("1:00:00", 3600),
            ("2-3", 2 * 86_400 + 3 * 3600),
            ("1-0:30", 86_400 + 1800),
            ("1-02:03:04", 86_400 + 7384),
            ("30s", 30),
            ("10m", 600),
            ("2h", 7200),
            ("7d", 604_800),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn wrong_times_are_refused() {
        for text in
            ["", "0", "0:00", "-1", "1:2:3:4", "1-", "-", "h", "1.5h", "99999999999999d", "é"]
        {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_has_units_and_is_mib_without() {
        for (text, mib) in [("512", 512), ("8G", 8192), ("8GiB", 8192), ("1t", 1 << 20), ("1K", 1)]
        {
            assert_eq!(parse_memory_mib(text), Ok(mib), "{text}");
        }
        for text in ["", "0", "G", "8X", "-1", "1.5G", "8é", "99999999999999999999"] {
            assert!(parse_memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_thousandths() {
        for (text, milli) in [("4", 4000), ("0.5", 500), ("1.25", 1250)] {
            assert_eq!(parse_cpu_milli(text), Ok(milli), "{text}");
        }
        for text in ["", "0", "0.0", "1.2345", ".", "-1", "x"] {
            assert!(parse_cpu_milli(text).is_err(), "{text}");
        }
    }

    #[test]
    fn gpus_may_name_their_class() {
        assert_eq!(parse_gpus("8"), Ok(GpuAmount { gpu_class: None, count: 8 }));
        let classed = GpuAmount { gpu_class: Some("b200".to_owned()), count: 8 };
        assert_eq!(parse_gpus("B200:8"), Ok(classed));
        for text in ["", "0", "b200:", ":8", "b200:0", "-1", "a b:1"] {
            assert!(parse_gpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_short_list_that_names_the_same_nodes_without_end_is_refused() {
        let text = "n[1-9999],".repeat(1_000);
        assert!(parse_node_list(&text).unwrap_err().contains("more than 10000 nodes"));
    }

    #[test]
    fn node_lists_expand_ranges_with_their_zeros() {
        let names = parse_node_list("node[1-3,7],login1").unwrap_or_default();
        assert_eq!(names, ["node1", "node2", "node3", "node7", "login1"]);
        assert_eq!(parse_node_list("n[08-10]").unwrap_or_default(), ["n08", "n09", "n10"]);
        for text in ["", "n[", "n]", "n[3-1]", "n[a]", "n[1-99999]", "a,,b", "n[1][2]", "n[[1]]"] {
            assert!(parse_node_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dependencies_have_kinds_and_ids() {
        use v1::DependencyKind::{AfterAny, AfterOk};
        let found = parse_dependencies("afterok:1:2_0,afterany:3");
        let on = |kind: v1::DependencyKind, job_id, task_index| v1::Dependency {
            kind: kind.into(),
            job_id,
            task_index,
        };
        let wanted = vec![on(AfterOk, 1, None), on(AfterOk, 2, Some(0)), on(AfterAny, 3, None)];
        assert_eq!(found, Ok(wanted));
        for text in ["", "afterok", "afterok:", "before:1", "afterok:0", "afterok:x", "afterok:1_"]
        {
            assert!(parse_dependencies(text).is_err(), "{text}");
        }
        assert!(parse_dependencies("afterok:1_[2-3]").is_err_and(|why| why.contains("name one")));
    }

    #[test]
    fn signals_are_read_by_name_and_number() {
        let signal =
            |signal, ahead_s, batch_only| v1::WarningSignal { signal, ahead_s, batch_only };
        assert_eq!(parse_warning_signal("B:USR1@120"), Ok(signal(10, 120, true)));
        assert_eq!(parse_warning_signal("sigterm"), Ok(signal(15, 60, false)));
        assert_eq!(parse_warning_signal("2@5"), Ok(signal(2, 5, false)));
        for text in ["", "KILL", "9", "USR1@", "USR1@0", "NOPE", "99"] {
            assert!(parse_warning_signal(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,40}") {
            let _ = parse_time(&text);
            let _ = parse_memory_mib(&text);
            let _ = parse_cpu_milli(&text);
            let _ = parse_gpus(&text);
            let _ = parse_node_list(&text);
            let _ = parse_dependencies(&text);
            let _ = parse_warning_signal(&text);
            let _ = parse_variable(&text, |_| None);
            let _ = parse_label(&text);
        }

        #[test]
        fn a_clock_time_is_its_seconds(days in 0_i64..1000, hours in 0_i64..24, minutes in 0_i64..60, seconds in 1_i64..60) {
            let text = format!("{days}-{hours:02}:{minutes:02}:{seconds:02}");
            prop_assert_eq!(parse_time(&text), Ok(days * 86_400 + hours * 3600 + minutes * 60 + seconds));
        }
    }
}
