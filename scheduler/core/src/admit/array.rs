//! The tasks of an array, as people write them: `0-99`, `0-98:2`, `1,5,9`, and `%10` behind for at most ten at once.

use super::fault::{FaultReason, Findings};
use crate::array::{ARRAY_TASKS_MAX, ArraySpec};

/// Characters of a list of indexes.
const TEXT_MAX: usize = 16 * 1024;

/// Ranges of a list of indexes.
const PARTS_MAX: usize = 4_096;

/// The array asked for; `None` if none is, or with a fault noted. A limit of 0 is none.
pub(super) fn array(
    text: &str,
    limit: u32,
    tasks_max: u32,
    findings: &mut Findings,
) -> Option<ArraySpec> {
    if text.is_empty() {
        if limit > 0 {
            let text = "is for arrays; give spec.array, as in 0-99, or leave it out";
            findings.fault("array_limit", FaultReason::Conflict, text);
        }
        return None;
    }
    let (list, in_text) = match text.split_once('%') {
        Some((list, most)) => (list, Some(most)),
        None => (text, None),
    };
    let at_once = at_once(in_text, limit, findings);
    let tasks_max = tasks_max.min(ARRAY_TASKS_MAX);
    let array = indexes(list, tasks_max).map(|indexes| ArraySpec::new(indexes, at_once));
    match array.and_then(shown_as_shortly) {
        Ok(array) => Some(array),
        Err((reason, message)) => {
            findings.fault("array", reason, message);
            None
        }
    }
}

/// An array that was admitted, from how it is shown.
///
/// # Errors
/// What is wrong with it.
pub fn read_array(text: &str) -> Result<ArraySpec, String> {
    let mut findings = Findings::default();
    let found = array(text, 0, ARRAY_TASKS_MAX, &mut findings);
    match findings.faults.first() {
        Some(fault) => Err(fault.message.clone()),
        None => found.ok_or_else(|| "is no array".to_owned()),
    }
}

/// Ranges of indexes, ends included, as in `4` or `5-9,12`.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn index_ranges(text: &str) -> Result<Vec<(u32, u32)>, String> {
    if text.len() > TEXT_MAX {
        return Err(format!("has {} characters; give at most {TEXT_MAX}", text.len()));
    }
    let simple = |part: &str| match range(part)? {
        (first, last, 1) => Ok((first, last)),
        (..) => Err(format!("has \"{part}\"; name tasks without a step, as in 5-9,12")),
    };
    text.split(',').map(simple).collect()
}

fn at_once(in_text: Option<&str>, limit: u32, findings: &mut Findings) -> Option<u32> {
    let beside = (limit > 0).then_some(limit);
    let Some(text) = in_text else { return beside };
    let Some(most) = text.parse::<u32>().ok().filter(|most| *most > 0) else {
        let message = format!("has %{text}; give a number of tasks from 1 behind %, as in 0-99%10");
        findings.fault("array", FaultReason::Malformed, message);
        return None;
    };
    if beside.is_some_and(|limit| limit != most) {
        let message = format!("is {limit} and spec.array says %{most}; keep one");
        findings.fault("array_limit", FaultReason::Conflict, message);
    }
    Some(most)
}

type Refused = (FaultReason, String);

/// Ranges of different steps that lie over each other can come to thousands of pieces, which are stored and shown wherever the job
/// is.
fn shown_as_shortly(array: ArraySpec) -> Result<ArraySpec, Refused> {
    let shown = array.to_string();
    let parts = shown.split(',').count();
    if shown.len() <= TEXT_MAX && parts <= PARTS_MAX {
        return Ok(array);
    }
    let message = format!(
        "comes to {parts} ranges once each index is named once; give at most {PARTS_MAX}: submit ranges of \
         different steps as arrays of their own"
    );
    Err((FaultReason::TooLong, message))
}

/// The indexes, ascending and each once. They are counted before they are written out: a short text can name very many.
fn indexes(list: &str, tasks_max: u32) -> Result<Vec<u32>, Refused> {
    let parts = list.split(',').count();
    if list.len() > TEXT_MAX || parts > PARTS_MAX {
        let message = format!(
            "has {} characters and {parts} ranges; give at most {TEXT_MAX} and {PARTS_MAX}",
            list.len()
        );
        return Err((FaultReason::TooLong, message));
    }
    let ranges = list.split(',').map(range).collect::<Result<Vec<_>, _>>();
    let ranges = ranges.map_err(|why| (FaultReason::Malformed, why))?;
    let count = |(first, last, step): &(u32, u32, u32)| u64::from((last - first) / step) + 1;
    if ranges.iter().map(count).sum::<u64>() > u64::from(tasks_max) {
        let message = format!("has more than {tasks_max} tasks; submit several smaller arrays");
        return Err((FaultReason::OutOfRange, message));
    }
    let all =
        ranges.into_iter().flat_map(|(first, last, step)| (first..=last).step_by(step as usize));
    let mut indexes: Vec<u32> = all.collect();
    indexes.sort_unstable();
    indexes.dedup();
    Ok(indexes)
}

/// First, last and step of one range.
fn range(part: &str) -> Result<(u32, u32, u32), String> {
    let malformed = || {
        let part: String = part.chars().take(40).collect();
        format!("has \"{part}\"; give indexes and ranges, as in 0-99, 0-98:2 or 1,5,9")
    };
    let (ends, step) = match part.split_once(':') {
        Some((ends, step)) if ends.contains('-') => (ends, number(step).ok_or_else(malformed)?),
        Some(_) => return Err(malformed()),
        None => (part, 1),
    };
    let (first, last) = ends.split_once('-').unwrap_or((ends, ends));
    let (first, last) = number(first).zip(number(last)).ok_or_else(malformed)?;
    if last < first {
        return Err(format!(
            "has \"{part}\", which ends before it begins; give the lower index first"
        ));
    }
    if step == 0 {
        return Err(format!("has \"{part}\"; a step is at least 1"));
    }
    Ok((first, last, step))
}

/// A number without a sign; the highest there is would leave no room for one behind it.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number < u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(text: &str, limit: u32) -> Result<ArraySpec, String> {
        let mut findings = Findings::default();
        let array = array(text, limit, 1_000, &mut findings);
        let faults: Vec<String> = findings.faults.iter().map(ToString::to_string).collect();
        if faults.is_empty() { Ok(array.unwrap()) } else { Err(faults.join("; ")) }
    }

    #[test]
    fn an_array_is_read_as_it_is_shown() {
        for text in ["0-99", "0-98:2", "1-9:4", "7", "0-3,10,20-22%2"] {
            assert_eq!(asked(text, 0).unwrap().to_string(), text);
        }
        assert_eq!(asked("5,1,3,1-3", 0).unwrap().to_string(), "1-3,5");
        assert_eq!(asked("0-9", 4).unwrap().to_string(), "0-9%4");
        assert_eq!(asked("0-9%4", 4).unwrap().at_once, Some(4));
    }

    #[test]
    fn what_is_wrong_with_an_array_is_told_with_the_field_and_the_way_out() {
        for (text, limit, field, part) in [
            ("a-b", 0, "spec.array:", "0-99, 0-98:2 or 1,5,9"),
            ("5-1", 0, "spec.array:", "the lower index first"),
            ("0-9:0", 0, "spec.array:", "at least 1"),
            ("3:2", 0, "spec.array:", "\"3:2\""),
            ("0-9%", 0, "spec.array:", "0-99%10"),
            ("0-9%0", 0, "spec.array:", "0-99%10"),
            ("0-1000", 0, "spec.array:", "more than 1000 tasks"),
            ("0-4294967295", 0, "spec.array:", "give indexes"),
            ("0-9%3", 4, "spec.array_limit:", "keep one"),
            ("", 4, "spec.array_limit:", "leave it out"),
        ] {
            let message = asked(text, limit).unwrap_err();
            assert!(message.starts_with(field) && message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn an_array_that_comes_to_very_many_pieces_is_refused() {
        let refused = read_array("0-99999:21,0-99999:11,0-99999:13").unwrap_err();
        assert!(refused.contains("of their own"), "{refused}");
    }
}
