//! The account of a node for a period, with its balance after each line.

use gotgan_core::amount::{Ngh, UnixMicros};
use gotgan_proto::v1;
use serde::{Serialize, Serializer};

use crate::{error::Error, output::time};

/// One period.
#[derive(Clone, Debug, Serialize)]
pub struct SectionView {
    pub period: String,
    /// Before the first line.
    #[serde(serialize_with = "units")]
    pub opening: Ngh,
    pub lines: Vec<StatementLineView>,
    /// After the last line.
    #[serde(serialize_with = "units")]
    pub closing: Ngh,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct StatementLineView {
    pub at_us: i64,
    pub at: Option<String>,
    pub kind: String,
    /// What it adds to the balance.
    #[serde(serialize_with = "units")]
    pub ngh: Ngh,
    /// After it.
    #[serde(serialize_with = "units")]
    pub balance: Ngh,
    pub counter_account: String,
    pub seq: u64,
    pub movement: u64,
    pub project: String,
    pub gpu_class: String,
    pub job_id: u64,
    pub attempt: u32,
}

/// Digits, since a program that reads numbers as floats would lose some.
fn units<S: Serializer>(ngh: &Ngh, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&ngh.0)
}

impl SectionView {
    /// As the API has it: lines before `from` are summed into the opening balance, lines from `to` on left out.
    ///
    /// # Errors
    /// If the scheduler sent an amount that is none.
    pub fn of(
        period: &v1::StatementResponse,
        lines: &[v1::StatementLine],
        from: Option<UnixMicros>,
        to: Option<UnixMicros>,
    ) -> Result<Self, Error> {
        let (mut opening, mut balance, mut told) = (Ngh::ZERO, Ngh::ZERO, Vec::new());
        for line in lines.iter().filter(|line| to.is_none_or(|to| line.at_us < to.0)) {
            let ngh = amount(&line.units)?;
            balance += ngh;
            if from.is_some_and(|from| line.at_us < from.0) {
                opening += ngh;
            } else {
                told.push(StatementLineView::of(line, ngh, balance));
            }
        }
        let period = period.period.clone();
        Ok(SectionView { period, opening, lines: told, closing: balance })
    }
}

impl StatementLineView {
    fn of(line: &v1::StatementLine, ngh: Ngh, balance: Ngh) -> Self {
        StatementLineView {
            at_us: line.at_us,
            at: time::rfc3339(line.at_us),
            kind: line.kind.clone(),
            ngh,
            balance,
            counter_account: line.counter_account.clone(),
            seq: line.seq,
            movement: line.movement,
            project: line.project.clone(),
            gpu_class: line.gpu_class.clone(),
            job_id: line.job_id,
            attempt: line.attempt,
        }
    }
}

fn amount(digits: &str) -> Result<Ngh, Error> {
    digits.parse().map(Ngh).map_err(|_| {
        Error::invalid(
            format!("the scheduler sent an amount that cannot be read: {digits}"),
            "is it of another version? see `gotgan cluster`",
        )
    })
}
