//! Values of a job's options, and how they are read.

use clap::ValueEnum;
use gotgan_proto::v1;

use crate::units;

/// Nodes named by a list with ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeList(pub Vec<String>);

/// How many nodes a job is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCount {
    /// The fewest.
    pub least: u32,
    /// The most, where it can do with more than the fewest.
    pub most: Option<u32>,
}

/// Jobs to wait for, and whether for all of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    pub jobs: Vec<v1::Dependency>,
    pub singleton: bool,
}

/// By when a job must have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Unix microseconds.
    AtUs(i64),
    /// Seconds after the submission.
    WithinS(i64),
}

/// What one task is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TasksPer {
    Node,
    Gpu,
}

pub(super) fn dependencies(text: &str) -> Result<Dependencies, String> {
    let (alone, others): (Vec<&str>, Vec<&str>) =
        text.split(',').partition(|part| *part == "singleton");
    let jobs = match others.as_slice() {
        [] => Vec::new(),
        others => units::parse_dependencies(&others.join(","))?,
    };
    Ok(Dependencies { jobs, singleton: !alone.is_empty() })
}

pub(super) fn deadline(text: &str) -> Result<Deadline, String> {
    if let Some(from_now) = text.strip_prefix('+') {
        return units::parse_time(from_now).map(Deadline::WithinS);
    }
    let moment = gotgan_core::quota::read_moment(text);
    moment.map(|moment| Deadline::AtUs(moment.0)).map_err(|why| format!("{why}; or write +2h"))
}

pub(super) fn node_list(text: &str) -> Result<NodeList, String> {
    units::parse_node_list(text).map(NodeList)
}

pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    units::parse_variable(text, |key| std::env::var(key).ok())
}

/// Reads `4` or `4-16`.
pub(super) fn node_count(text: &str) -> Result<NodeCount, String> {
    let Some((least, most)) = text.split_once('-') else {
        return count(text).map(|least| NodeCount { least, most: None });
    };
    let wrong = |why: String| format!("{why}; or the fewest and the most, as in 4-16");
    let (least, most) = (count(least).map_err(wrong)?, count(most).map_err(wrong)?);
    if most < least {
        return Err(
            "the most nodes are fewer than the fewest; write the lower number first".to_owned()
        );
    }
    Ok(NodeCount { least, most: (most > least).then_some(most) })
}

pub(super) fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("zero; ask for at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a number; write one number from 1".to_owned()),
    }
}

pub(super) fn gpu_share(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(share @ 1..=999) => Ok(share),
        _ => Err("not a share; write thousandths of a GPU from 1 to 999".to_owned()),
    }
}

/// What GPUs are to be capped at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuPower {
    /// So many watts each.
    Watts(u32),
    /// As a word of the site says.
    Mode(String),
}

impl GpuPower {
    /// The watts; 0 where a word is given.
    pub fn watts(&self) -> u32 {
        match self {
            GpuPower::Watts(watts) => *watts,
            GpuPower::Mode(_) => 0,
        }
    }

    /// The word; empty where watts are given.
    pub fn mode(&self) -> String {
        match self {
            GpuPower::Watts(_) => String::new(),
            GpuPower::Mode(mode) => mode.clone(),
        }
    }
}

/// Reads `600`, `600W` or a word.
pub(super) fn gpu_power(text: &str) -> Result<GpuPower, String> {
    let number = text.strip_suffix(['W', 'w']).unwrap_or(text);
    if number.starts_with(|letter: char| letter.is_ascii_digit()) {
        let watts = number.parse().ok().filter(|watts| *watts > 0);
        return watts
            .map(GpuPower::Watts)
            .ok_or_else(|| "not a number of watts; write one from 1, as 600".to_owned());
    }
    if text.is_empty() {
        return Err("empty; write watts, as 600, or a word of the site".to_owned());
    }
    Ok(GpuPower::Mode(text.to_owned()))
}

pub(super) fn grace(text: &str) -> Result<u32, String> {
    if text == "0" {
        return Ok(0);
    }
    // A bare number is seconds here: graces are short.
    let with_unit = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("{text}s")
    } else {
        text.to_owned()
    };
    let seconds = units::parse_time(&with_unit)?;
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= 3600)
        .ok_or_else(|| "more than an hour".to_owned())
}
