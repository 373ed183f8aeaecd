//! `gotgan quota transfer`, `adjust` and `void`: budget is moved on a decision.

use clap::Args;
use gotgan_proto::v1;
use serde::Serialize;

use crate::{context::Context, error::Error};

/// On which grounds.
#[derive(Args, Debug)]
struct Grounds {
    /// The document that decided it
    #[arg(long, value_name = "DOCUMENT")]
    decision: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Move budget of the period in force from one node to another
#[derive(Args, Debug)]
#[command(
    after_help = "Both must have a budget for the same period. Nodes above only one of them that have a budget move \
                  with it.\n\nExample:\n  gotgan quota transfer public/nup/startup-001 public/nup/startup-042 --ngh 500 \\\n    \
                  --decision GPU-2026-044 --reason \"startup-001 has ended early\""
)]
pub struct Transfer {
    /// Who gives
    from: String,
    /// Who gets
    to: String,
    /// Normalised GPU-hours, at most three decimals
    #[arg(long, value_name = "NGH", value_parser = ngh_milli)]
    ngh: u64,
    #[command(flatten)]
    grounds: Grounds,
    /// Take more than is free (administrators)
    #[arg(long)]
    overdraw: bool,
}

/// Correct the budget of a node for the period in force (administrators)
#[derive(Args, Debug)]
#[command(
    after_help = "The nodes above that have a budget are corrected with it.\n\nExample:\n  gotgan quota adjust \
                  public/nup/startup-042 --ngh=-120 --decision GPU-2026-045 --reason \"counted twice\""
)]
pub struct Adjust {
    /// Whose budget
    path: String,
    /// Normalised GPU-hours, as in +100 or -12.5
    #[arg(long, value_name = "NGH", value_parser = signed_ngh_milli, allow_hyphen_values = true)]
    ngh: i64,
    #[command(flatten)]
    grounds: Grounds,
}

/// Undo a transfer or a correction, once
#[derive(Args, Debug)]
#[command(
    after_help = "Its number is in `gotgan quota ledger NODE`. It is undone in the period in which it counts.\n\n\
                  Example:\n  gotgan quota void 3 --decision GPU-2026-046 --reason \"wrong node\""
)]
pub struct Void {
    /// Number of the movement
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    movement: u64,
    #[command(flatten)]
    grounds: Grounds,
}

#[derive(Serialize)]
struct MovedView {
    movement: u64,
    revision: u64,
}

impl Transfer {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::TransferBudgetRequest {
            idempotency_key: context.idempotency_key()?,
            from: self.from,
            to: self.to,
            ngh_milli: self.ngh,
            decision: self.grounds.decision,
            reason: self.grounds.reason,
            overdraw: self.overdraw,
        };
        let client = context.client()?;
        let moved = client.call(async |api| api.quota().transfer(request.clone()).await).await?;
        told(&moved, context)
    }
}

impl Adjust {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::AdjustBudgetRequest {
            idempotency_key: context.idempotency_key()?,
            path: self.path,
            ngh_milli: self.ngh,
            decision: self.grounds.decision,
            reason: self.grounds.reason,
        };
        let client = context.client()?;
        let moved = client.call(async |api| api.quota().adjust(request.clone()).await).await?;
        told(&moved, context)
    }
}

impl Void {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::VoidMovementRequest {
            idempotency_key: context.idempotency_key()?,
            movement: self.movement,
            decision: self.grounds.decision,
            reason: self.grounds.reason,
        };
        let client = context.client()?;
        let moved = client.call(async |api| api.quota().void(request.clone()).await).await?;
        told(&moved, context)
    }
}

fn told(moved: &v1::MovedBudgetResponse, context: &Context) -> Result<(), Error> {
    let view = MovedView { movement: moved.movement, revision: moved.revision };
    if context.output.json {
        return context.output.document("gotgan.quota_moved/1", &view);
    }
    context.output.line(&format!("movement {}; revision {}", view.movement, view.revision))
}

/// Normalised GPU-hours of more than nothing, as thousandths: "500" is 500000, "12.5" is 12500.
fn ngh_milli(text: &str) -> Result<u64, String> {
    let wrong = || "not a number of normalised GPU-hours, as in 500 or 12.5".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let milli = format!("{whole}{part:0<3}").parse().map_err(|_| wrong())?;
    if milli == 0 { Err("must be more than 0".to_owned()) } else { Ok(milli) }
}

/// The same with a sign: "-12.5" is -12500.
fn signed_ngh_milli(text: &str) -> Result<i64, String> {
    let (sign, amount) = match text.strip_prefix('-') {
        Some(amount) => (-1, amount),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let milli = i64::try_from(ngh_milli(amount)?).map_err(|_| "is too much".to_owned())?;
    Ok(sign * milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_to_the_thousandth_and_no_further() {
        assert_eq!(ngh_milli("500"), Ok(500_000));
        assert_eq!(ngh_milli("12.5"), Ok(12_500));
        assert_eq!(signed_ngh_milli("-0.001"), Ok(-1));
        assert_eq!(signed_ngh_milli("+100"), Ok(100_000));
        for wrong in
            ["", "0", "0.000", "1.2345", "-", "+-1", "1e3", ".5", "5.", "99999999999999999999"]
        {
            assert!(signed_ngh_milli(wrong).is_err(), "{wrong}");
        }
    }
}
