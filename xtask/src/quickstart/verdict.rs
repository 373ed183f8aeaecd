//! What came of it, in numbers that the programs themselves report.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Jobs by state.
    jobs: BTreeMap<String, u64>,
    /// Charged less refunded.
    gpu_seconds: i64,
    ledger_balanced: bool,
}

impl Verdict {
    /// From `gotgan jobs --all --json` and `gotgan quota balance --json`.
    pub fn of(jobs: &Value, balance: &Value) -> Result<Self> {
        let mut states = BTreeMap::new();
        for job in jobs["jobs"].as_array().context("no list of jobs")? {
            let state = job["state"].as_str().context("a job without a state")?;
            *states.entry(state.to_owned()).or_default() += 1;
        }
        let projects = balance["projects"].as_array().context("no list of balances")?;
        let sum =
            |key: &str| projects.iter().filter_map(|project| project[key].as_i64()).sum::<i64>();
        let paid = sum("charged_gpu_milli_seconds") - sum("refunded_gpu_milli_seconds");
        let balanced = balance["balanced"].as_bool().context("no word on the balance")?;
        Ok(Self { jobs: states, gpu_seconds: paid / 1000, ledger_balanced: balanced })
    }

    /// Fails unless every job completed and the ledger agrees with the attempts.
    pub fn insist(&self) -> Result<()> {
        if self.jobs.keys().any(|state| state != "completed") || self.jobs.is_empty() {
            bail!("not all jobs completed: {:?}", self.jobs);
        }
        if !self.ledger_balanced {
            bail!("the ledger disagrees with the attempts; `gotgan quota balance` shows where");
        }
        Ok(())
    }

    /// In the order in which a person reads it.
    pub fn to_json(&self) -> String {
        let (jobs, gpu_seconds, balanced) =
            (json!(self.jobs), self.gpu_seconds, self.ledger_balanced);
        format!(
            r#"{{"quickstart":"ok","jobs":{jobs},"gpu_seconds":{gpu_seconds},"ledger_balanced":{balanced}}}"#
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn verdict(states: &[&str], balanced: bool) -> Verdict {
        let jobs: Vec<_> = states.iter().map(|state| json!({"state": state})).collect();
        let project =
            json!({"charged_gpu_milli_seconds": 9000, "refunded_gpu_milli_seconds": 2000});
        let balance = json!({"balanced": balanced, "projects": [project, project]});
        Verdict::of(&json!({"jobs": jobs}), &balance).unwrap()
    }

    #[test]
    fn the_json_has_what_happened() {
        let found: Value =
            serde_json::from_str(&verdict(&["completed", "completed"], true).to_json()).unwrap();
        let wanted = json!({"quickstart": "ok", "jobs": {"completed": 2}, "gpu_seconds": 14, "ledger_balanced": true});
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_failed_job_or_a_wrong_ledger_is_no_success() {
        assert!(verdict(&["completed"], true).insist().is_ok());
        assert!(verdict(&["completed", "failed"], true).insist().is_err());
        assert!(verdict(&["completed"], false).insist().is_err());
        assert!(verdict(&[], true).insist().is_err());
    }
}
