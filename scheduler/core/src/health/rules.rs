//! Which response each sign calls for: data with a version, and what a site changes of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Deserialize;

use super::{Condition, Repair, Response, Signal};

/// The rules that come with this version.
const BUILT_IN: &str = include_str!("rules.toml");
/// Numbers of Xids are small; a range beyond this is a slip.
const XID_MAX: u32 = 9_999;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What follows.
    pub response: Response,
    /// Why, to a person.
    pub why: String,
}

/// The rule of every sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Of the rules that come with this version; with what a site changed, both versions.
    pub version: String,
    by_signal: BTreeMap<Signal, Arc<Rule>>,
    other_xid: Arc<Rule>,
}

/// What is wrong with a file of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("{0}")]
    Parse(String),
    /// A rule cannot be.
    #[error("rule {number}: {field}: {reason}")]
    Rule {
        /// Place in the file, from 1.
        number: usize,
        /// Which field.
        field: &'static str,
        /// What is wrong, and what to write instead.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default)]
    rule: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    on: Vec<String>,
    response: String,
    repair: Option<Repair>,
    why: String,
}

/// What a rule is about.
enum About {
    Xids(RangeInclusive<u32>),
    OtherXids,
    One(Signal),
}

impl Default for Rules {
    fn default() -> Self {
        // A test of this file makes sure that these rules can be read; an empty set would take out every GPU for a
        // person, which is the safe side.
        Rules::read(&Rules::none(), BUILT_IN).unwrap_or_else(|_| Rules::none())
    }
}

impl Rules {
    /// Every sign takes the GPU out for a person.
    fn none() -> Self {
        let response = Response::Drain(Repair::Service);
        let why = "there is no rule for it".to_owned();
        Rules {
            version: String::new(),
            by_signal: BTreeMap::new(),
            other_xid: Arc::new(Rule { response, why }),
        }
    }

    /// These rules, changed by those of a file.
    ///
    /// # Errors
    /// [`RulesError`], which names the rule and the field.
    pub fn changed_by(&self, text: &str) -> Result<Self, RulesError> {
        let mut changed = Rules::read(self, text)?;
        changed.version = format!("{} with {}", self.version, changed.version);
        Ok(changed)
    }

    fn read(before: &Rules, text: &str) -> Result<Self, RulesError> {
        let file: File =
            toml::from_str(text).map_err(|error| RulesError::Parse(error.to_string()))?;
        let mut rules = Rules { version: file.version, ..before.clone() };
        for (place, row) in file.rule.into_iter().enumerate() {
            rules.add(place + 1, row)?;
        }
        Ok(rules)
    }

    fn add(&mut self, number: usize, row: Row) -> Result<(), RulesError> {
        let wrong = |field, reason| RulesError::Rule { number, field, reason };
        let response = Response::of_word(&row.response, row.repair)
            .ok_or_else(|| wrong("response", why_no_response(&row.response, row.repair)))?;
        if row.on.is_empty() {
            return Err(wrong("on", "names no sign".to_owned()));
        }
        let rule = Arc::new(Rule { response, why: row.why });
        for word in &row.on {
            match about(word).ok_or_else(|| wrong("on", why_no_sign(word)))? {
                About::OtherXids => self.other_xid = Arc::clone(&rule),
                About::One(signal) => _ = self.by_signal.insert(signal, Arc::clone(&rule)),
                About::Xids(numbers) => {
                    let signals = numbers.map(|number| (Signal::Xid(number), Arc::clone(&rule)));
                    self.by_signal.extend(signals);
                }
            }
        }
        Ok(())
    }

    /// The rule for a sign.
    #[must_use]
    pub fn of(&self, signal: Signal) -> &Rule {
        self.by_signal.get(&signal).unwrap_or(&self.other_xid)
    }
}

fn about(word: &str) -> Option<About> {
    let Some(numbers) = word.strip_prefix("xid ") else {
        return Signal::of_word(word).map(About::One);
    };
    if numbers == "*" {
        return Some(About::OtherXids);
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last <= XID_MAX).then_some(About::Xids(first..=last))
}

fn why_no_sign(word: &str) -> String {
    let words = Condition::ALL.iter().map(|condition| condition.word());
    let words: Vec<&str> = words.chain(["uncorrected_errors", "missing_gpus", "lemon"]).collect();
    format!(
        "{word:?} is no sign; write \"xid N\", \"xid N-M\", \"xid *\" or one of: {}",
        words.join(", ")
    )
}

fn why_no_response(word: &str, repair: Option<Repair>) -> String {
    let takes_out = matches!(word, "drain" | "fail" | "drain_node" | "fail_node");
    match repair {
        None if takes_out => {
            format!("{word:?} needs a `repair`: \"reset\", \"reboot\" or \"service\"")
        }
        Some(_) if Response::of_word(word, None).is_some() => {
            format!("{word:?} takes nothing out: leave `repair` away")
        }
        Some(_) | None => format!(
            "{word:?} is no response; write one of: log, job, ticket, watch, reset_when_idle, lost, drain, fail, \
             drain_node, fail_node"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(rules: &Rules, signal: Signal) -> Response {
        rules.of(signal).response
    }

    #[test]
    fn the_rules_that_come_with_it_can_be_read_and_know_every_sign() {
        let rules = Rules::read(&Rules::none(), BUILT_IN).unwrap();
        assert_eq!(rules, Rules::default());
        for condition in Condition::ALL {
            assert!(rules.by_signal.contains_key(&Signal::Condition(*condition)), "{condition:?}");
        }
        for signal in [Signal::UncorrectedErrors, Signal::MissingGpus, Signal::Lemon] {
            assert!(rules.by_signal.contains_key(&signal), "{signal}");
        }
    }

    #[test]
    fn errors_of_programs_take_no_hardware_out() {
        let rules = Rules::default();
        for number in [13, 31, 43, 45, 69] {
            assert!(response(&rules, Signal::Xid(number)).takes_out().is_none(), "{number}");
        }
    }

    #[test]
    fn a_row_that_waits_for_its_replacement_kills_nothing() {
        let rules = Rules::default();
        assert_eq!(response(&rules, Signal::Xid(63)), Response::ResetWhenIdle);
        assert!(!response(&rules, Signal::Xid(63)).hardware_pays());
        assert_eq!(response(&rules, Signal::Xid(94)), Response::Lost);
        assert_eq!(response(&rules, Signal::Xid(95)), Response::Fail(Repair::Reset));
        assert_eq!(response(&rules, Signal::Xid(79)), Response::FailNode(Repair::Reboot));
    }

    #[test]
    fn an_xid_that_no_rule_names_takes_the_gpu_out_for_a_person() {
        let rules = Rules::default();
        assert_eq!(response(&rules, Signal::Xid(777)), Response::Drain(Repair::Service));
    }

    #[test]
    fn a_site_changes_single_rules_and_both_versions_are_named() {
        let text = r#"
            version = "site 7"
            [[rule]]
            on = ["xid 119-120", "leftover_processes"]
            response = "ticket"
            why = "known with this driver"
        "#;
        let rules = Rules::default().changed_by(text).unwrap();
        assert_eq!(response(&rules, Signal::Xid(119)), Response::Ticket);
        let leftover = Signal::Condition(Condition::LeftoverProcesses);
        assert_eq!(response(&rules, leftover), Response::Ticket);
        assert_eq!(response(&rules, Signal::Xid(95)), Response::Fail(Repair::Reset));
        assert!(rules.version.ends_with("with site 7"), "{}", rules.version);
    }

    #[test]
    fn a_bad_rule_is_refused_with_its_number_its_field_and_the_fix() {
        let refused = |on: &str, rest: &str| {
            let text = format!("version = \"x\"\n[[rule]]\non = [{on}]\n{rest}\nwhy = \"w\"");
            Rules::default().changed_by(&text).unwrap_err().to_string()
        };
        let error = refused("\"xid 9-3\"", "response = \"log\"");
        assert!(
            error.starts_with("rule 1: on: \"xid 9-3\" is no sign; write \"xid N\""),
            "{error}"
        );
        let error = refused("\"xid 79\"", "response = \"fail\"");
        assert_eq!(
            error,
            "rule 1: response: \"fail\" needs a `repair`: \"reset\", \"reboot\" or \"service\""
        );
        let error = refused("\"xid 79\"", "response = \"log\"\nrepair = \"reset\"");
        assert_eq!(error, "rule 1: response: \"log\" takes nothing out: leave `repair` away");
        let error = refused("\"xid 79\"", "response = \"explode\"");
        assert!(error.starts_with("rule 1: response: \"explode\" is no response"), "{error}");
        let error = refused("", "response = \"log\"");
        assert_eq!(error, "rule 1: on: names no sign");
        let error = refused("\"xid 79\"", "response = \"log\"\nwhen = \"now\"");
        assert!(error.contains("unknown field `when`"), "{error}");
    }
}
