//! Sums what `sacct --parsable2 --format=JobIDRaw,Account,AllocTRES,ElapsedRaw` lists.

use std::collections::BTreeMap;

/// What a list of jobs used, GPU-seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// By account, as Slurm calls it.
    pub by_account: BTreeMap<String, u128>,
    /// Jobs that were counted; their steps are part of them.
    pub jobs: u64,
}

/// A line that cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct UsageFault {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Columns that are looked at, by their places.
struct Columns {
    job: usize,
    account: usize,
    tres: usize,
    elapsed: usize,
}

impl UsageTotals {
    /// Over all accounts.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.by_account.values().sum()
    }
}

/// Sums the list. The first line names the columns; others than the four are not looked at.
///
/// # Errors
/// The first line that cannot be counted: a sum without it would be wrong.
pub fn read(text: &str) -> Result<UsageTotals, UsageFault> {
    let mut lines = (1..).zip(text.lines());
    let head = lines.next().map(|(_, head)| head).unwrap_or_default();
    let columns = columns(head)?;
    let mut totals = UsageTotals::default();
    for (line, row) in lines.filter(|(_, row)| !row.trim().is_empty()) {
        let cells: Vec<&str> = row.split('|').collect();
        let cell = |place: usize| {
            let missing = || UsageFault { line, what: "has too few columns".to_owned() };
            cells.get(place).copied().ok_or_else(missing)
        };
        // A step, as 17.batch, is part of its job.
        if cell(columns.job)?.contains('.') {
            continue;
        }
        let seconds = number(line, "ElapsedRaw", cell(columns.elapsed)?)?;
        let gpus = gpus(line, cell(columns.tres)?)?;
        totals.jobs += 1;
        *totals.by_account.entry(cell(columns.account)?.to_owned()).or_default() +=
            u128::from(gpus) * u128::from(seconds);
    }
    Ok(totals)
}

fn columns(head: &str) -> Result<Columns, UsageFault> {
    let names: Vec<String> = head.split('|').map(|name| name.trim().to_ascii_lowercase()).collect();
    let place = |name: &str| {
        let missing = || UsageFault {
            line: 1,
            what: format!(
                "names no column {name}: list with --parsable2 --format=JobIDRaw,Account,AllocTRES,ElapsedRaw"
            ),
        };
        names.iter().position(|found| found == &name.to_ascii_lowercase()).ok_or_else(missing)
    };
    Ok(Columns {
        job: place("JobIDRaw")?,
        account: place("Account")?,
        tres: place("AllocTRES")?,
        elapsed: place("ElapsedRaw")?,
    })
}

/// GPUs of an AllocTRES: `gres/gpu` counts all of them, so typed ones count only where it is absent.
fn gpus(line: usize, tres: &str) -> Result<u64, UsageFault> {
    let (mut all, mut typed) = (None, 0_u64);
    for part in tres.split(',').filter(|part| !part.is_empty()) {
        let (name, count) = part.split_once('=').unwrap_or((part, ""));
        if name == "gres/gpu" {
            all = Some(number(line, name, count)?);
        } else if name.starts_with("gres/gpu:") {
            typed = typed.saturating_add(number(line, name, count)?);
        }
    }
    Ok(all.unwrap_or(typed))
}

fn number(line: usize, what: &str, text: &str) -> Result<u64, UsageFault> {
    let wrong = |_| UsageFault { line, what: format!("{what} is \"{text}\" and no whole number") };
    text.trim().parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn jobs_are_summed_to_the_gpu_second_and_steps_are_not_counted_again() {
        let list = "\
JobIDRaw|Account|User|AllocTRES|ElapsedRaw
1|acad|kim|billing=8,cpu=8,gres/gpu=2,gres/gpu:h200=2,mem=64G,node=1|100
1.batch|acad||cpu=8,gres/gpu=2,mem=64G,node=1|100
2|acad|kim|cpu=8,gres/gpu:h200=3|7
3|ind|lee|cpu=8|1000
";
        let totals = read(list).unwrap();
        assert_eq!(
            totals.by_account,
            BTreeMap::from([("acad".to_owned(), 221), ("ind".to_owned(), 0)])
        );
        assert_eq!((totals.jobs, totals.total()), (3, 221));
    }

    #[test]
    fn a_line_that_cannot_be_counted_is_named() {
        let fault = |text: &str| read(text).unwrap_err().to_string();
        assert!(fault("JobID|Account").starts_with("line 1: names no column JobIDRaw"));
        let head = "JobIDRaw|Account|AllocTRES|ElapsedRaw\n";
        assert_eq!(fault(&format!("{head}1|a|gres/gpu=1")), "line 2: has too few columns");
        assert_eq!(
            fault(&format!("{head}1|a|gres/gpu=x|5")),
            "line 2: gres/gpu is \"x\" and no whole number"
        );
    }
}
