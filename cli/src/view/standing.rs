//! How a node of the quota tree stands.

use gotgan_core::{amount::UnixMicros, quota::show_moment};
use gotgan_proto::v1;
use serde::Serialize;

use crate::view::amount;

/// Thousandths of GPU-seconds of a GPU-hour.
const GPU_HOUR_MILLI_SECONDS: i64 = 3_600_000;

/// A node, class by class.
#[derive(Clone, Debug, Serialize)]
pub struct ExplanationView {
    pub path: String,
    pub pending_jobs: u64,
    pub running_jobs: u64,
    pub classes: Vec<StandingView>,
    pub loans: Vec<LoanView>,
}

/// A guarantee that is lent for a while.
#[derive(Clone, Debug, Serialize)]
pub struct LoanView {
    pub name: String,
    /// Whether the node that was asked about lends; else it borrows.
    pub lends: bool,
    /// `null`: not yours to see.
    pub lender: Option<String>,
    /// `null`: not yours to see.
    pub borrower: Option<String>,
    pub gpu_class: String,
    pub gpu_milli: u64,
    pub from_us: i64,
    pub until_us: i64,
    pub consent: String,
    pub gpu_milli_seconds: i64,
}

/// How it stands in one class.
#[derive(Clone, Debug, Serialize)]
pub struct StandingView {
    pub gpu_class: String,
    pub guarantee_gpu_milli: u64,
    pub scaled_gpu_milli: u64,
    pub entitled_gpu_milli: u64,
    pub held_gpu_milli: u64,
    pub asked_gpu_milli: u64,
    pub borrowed_gpu_milli: u64,
    pub lent_gpu_milli: u64,
    pub kept_gpu_milli: u64,
    pub scavenged_gpu_milli: u64,
    pub limit: Option<LimitView>,
    pub borrowers: Vec<BorrowerView>,
    pub waits_for: Vec<BatchView>,
}

/// The limit that binds.
#[derive(Clone, Debug, Serialize)]
pub struct LimitView {
    pub path: String,
    pub limit_gpu_milli: u64,
    pub held_gpu_milli: u64,
}

/// Somebody who holds more than is guaranteed to them.
#[derive(Clone, Debug, Serialize)]
pub struct BorrowerView {
    /// `null`: not yours to see.
    pub path: Option<String>,
    pub gpu_milli: u64,
}

/// A batch that is due and not accepted.
#[derive(Clone, Debug, Serialize)]
pub struct BatchView {
    pub lot: String,
    pub batch: u32,
}

impl ExplanationView {
    /// As the API has it.
    #[must_use]
    pub fn of(found: v1::QuotaExplanation) -> Self {
        ExplanationView {
            path: found.path,
            pending_jobs: found.pending_jobs,
            running_jobs: found.running_jobs,
            classes: found.classes.into_iter().map(StandingView::of).collect(),
            loans: found.loans.into_iter().map(LoanView::of).collect(),
        }
    }

    /// The sentences for a person.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let head =
            format!("{}: {} jobs run, {} wait", self.path, self.running_jobs, self.pending_jobs);
        let mut lines = vec![head];
        lines.extend(self.classes.iter().flat_map(StandingView::lines));
        lines.extend(self.loans.iter().map(LoanView::line));
        if self.classes.is_empty() {
            lines.push("no class of GPUs is guaranteed, limited, held or asked for".to_owned());
        }
        lines
    }
}

impl LoanView {
    fn of(found: v1::QuotaLoan) -> Self {
        let seen = |path: String| Some(path).filter(|path| !path.is_empty());
        LoanView {
            name: found.name,
            lends: found.lends,
            lender: seen(found.lender),
            borrower: seen(found.borrower),
            gpu_class: found.gpu_class,
            gpu_milli: found.gpu_milli,
            from_us: found.from_us,
            until_us: found.until_us,
            consent: found.consent,
            gpu_milli_seconds: found.gpu_milli_seconds,
        }
    }

    fn line(&self) -> String {
        let name = |side: &Option<String>| side.clone().unwrap_or("another project".to_owned());
        let (lender, borrower) = (name(&self.lender), name(&self.borrower));
        let who = if self.lends {
            format!("{lender} lends {borrower}")
        } else {
            format!("{borrower} borrows from {lender}")
        };
        let [from, until] = [self.from_us, self.until_us].map(|us| show_moment(UnixMicros(us)));
        format!(
            "{who} {} {} of guarantee from {from} until {until}, {} GPU-hours ({}, consent {})",
            amount::milli(self.gpu_milli),
            self.gpu_class,
            self.gpu_milli_seconds / GPU_HOUR_MILLI_SECONDS,
            self.name,
            self.consent
        )
    }
}

impl StandingView {
    fn of(found: v1::QuotaStanding) -> Self {
        let limit = found.limit.map(|limit| LimitView {
            path: limit.path,
            limit_gpu_milli: limit.limit_gpu_milli,
            held_gpu_milli: limit.held_gpu_milli,
        });
        let borrower = |borrower: v1::Borrower| BorrowerView {
            path: Some(borrower.path).filter(|path| !path.is_empty()),
            gpu_milli: borrower.gpu_milli,
        };
        let batch = |batch: v1::WaitingBatch| BatchView { lot: batch.lot, batch: batch.batch };
        StandingView {
            gpu_class: found.gpu_class,
            guarantee_gpu_milli: found.guarantee_gpu_milli,
            scaled_gpu_milli: found.scaled_gpu_milli,
            entitled_gpu_milli: found.entitled_gpu_milli,
            held_gpu_milli: found.held_gpu_milli,
            asked_gpu_milli: found.asked_gpu_milli,
            borrowed_gpu_milli: found.borrowed_gpu_milli,
            lent_gpu_milli: found.lent_gpu_milli,
            kept_gpu_milli: found.kept_gpu_milli,
            scavenged_gpu_milli: found.scavenged_gpu_milli,
            limit,
            borrowers: found.borrowers.into_iter().map(borrower).collect(),
            waits_for: found.waits_for.into_iter().map(batch).collect(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let gpus = amount::milli;
        let mut lines = vec![format!(
            "{}: holds {} of {} guaranteed; asks for {}; {} would be fair now",
            self.gpu_class,
            gpus(self.held_gpu_milli),
            gpus(self.guarantee_gpu_milli),
            gpus(self.asked_gpu_milli),
            gpus(self.entitled_gpu_milli)
        )];
        lines.extend(self.shortage());
        if self.kept_gpu_milli > 0 {
            let kept = gpus(self.kept_gpu_milli);
            lines.push(format!("  of what nobody asks for it keeps {kept} from others"));
        }
        if self.scavenged_gpu_milli > 0 {
            let scavenged = gpus(self.scavenged_gpu_milli);
            lines.push(format!("  its scavengers hold {scavenged} more, until anybody wants them"));
        }
        if self.borrowed_gpu_milli > 0 {
            lines.push(format!(
                "  {} are borrowed: whoever is guaranteed them may have them back",
                gpus(self.borrowed_gpu_milli)
            ));
        }
        if self.lent_gpu_milli > 0 {
            let named: Vec<String> = self.borrowers.iter().map(BorrowerView::words).collect();
            lines.push(format!(
                "  {} are lent and come back when a job within the guarantee asks for them; beyond their own hold: {}",
                gpus(self.lent_gpu_milli),
                named.join(", ")
            ));
        }
        if let Some(limit) = &self.limit {
            lines.push(format!(
                "  the limit of {} binds: {} of {} held",
                limit.path,
                gpus(limit.held_gpu_milli),
                gpus(limit.limit_gpu_milli)
            ));
        }
        lines
    }

    /// What is missing of its guarantee, and on which batches it waits.
    fn shortage(&self) -> Option<String> {
        let short =
            self.guarantee_gpu_milli.checked_sub(self.scaled_gpu_milli).filter(|s| *s > 0)?;
        let batches: Vec<String> =
            self.waits_for.iter().map(|one| format!("{} batch {}", one.lot, one.batch)).collect();
        let why = match batches.is_empty() {
            true => "less is in service than was guaranteed".to_owned(),
            false => format!("waiting for {}", batches.join(", ")),
        };
        let (scaled, short) = (amount::milli(self.scaled_gpu_milli), amount::milli(short));
        Some(format!("  {scaled} of the guarantee can be had: {short} {why}"))
    }
}

impl BorrowerView {
    fn words(&self) -> String {
        let path = self.path.as_deref().unwrap_or("another project");
        format!("{path} {}", amount::milli(self.gpu_milli))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_told_in_sentences() {
        let standing = v1::QuotaStanding {
            gpu_class: "b300".to_owned(),
            guarantee_gpu_milli: 600_000,
            scaled_gpu_milli: 415_000,
            entitled_gpu_milli: 100_000,
            held_gpu_milli: 100_000,
            asked_gpu_milli: 100_000,
            borrowed_gpu_milli: 0,
            lent_gpu_milli: 15_000,
            kept_gpu_milli: 20_000,
            scavenged_gpu_milli: 3_000,
            limit: Some(v1::BindingLimit {
                path: "public".to_owned(),
                limit_gpu_milli: 9_000_000,
                held_gpu_milli: 8_000_000,
            }),
            borrowers: vec![
                v1::Borrower { path: "public/ind".to_owned(), gpu_milli: 10_000 },
                v1::Borrower { path: String::new(), gpu_milli: 5_000 },
            ],
            waits_for: vec![v1::WaitingBatch { lot: "gov26-b".to_owned(), batch: 4 }],
        };
        let found = v1::QuotaExplanation {
            path: "public/nup".to_owned(),
            pending_jobs: 0,
            running_jobs: 9,
            classes: vec![standing],
            loans: vec![v1::QuotaLoan {
                name: "six-weeks-nup".to_owned(),
                lends: true,
                lender: "public/nup".to_owned(),
                borrower: "public/fm".to_owned(),
                gpu_class: "b300".to_owned(),
                gpu_milli: 500_000,
                from_us: 1_803_949_200_000_000,
                until_us: 1_807_578_000_000_000,
                consent: "NUP-2027-11".to_owned(),
                gpu_milli_seconds: 1_814_400_000_000,
            }],
        };
        insta::assert_snapshot!(ExplanationView::of(found).lines().join("\n"), @r"
        public/nup: 9 jobs run, 0 wait
        b300: holds 100 of 600 guaranteed; asks for 100; 100 would be fair now
          415 of the guarantee can be had: 185 waiting for gov26-b batch 4
          of what nobody asks for it keeps 20 from others
          its scavengers hold 3 more, until anybody wants them
          15 are lent and come back when a job within the guarantee asks for them; beyond their own hold: public/ind 10, another project 5
          the limit of public binds: 8000 of 9000 held
        public/nup lends public/fm 500 b300 of guarantee from 2027-03-02T10:00:00+09:00 until 2027-04-13T10:00:00+09:00, 504000 GPU-hours (six-weeks-nup, consent NUP-2027-11)
        ");
    }
}
