//! `gotgan quota ledger` and `balance`: what was used, entry by entry and in sums.

use clap::Args;
use gotgan_core::amount::UnixMicros;
use gotgan_proto::v1;
use serde::Serialize;

use super::statement;
use crate::{
    context::Context,
    error::{Error, Exit},
    listing::PAGE_MAX,
    output::{
        table::{Table, Tone, column},
        time,
    },
    units,
    view::{
        amount,
        quota::{BalanceView, EntryView},
    },
};

/// Print the account of a node line by line with its balance, or entries of the ledger
#[derive(Args, Debug)]
#[command(
    after_help = "With NODE: what was granted, carried, moved, set aside and used in a period, in normalised GPU-hours. \
                  Without:\nentries as they were booked, in GPU-seconds.\n\nExamples:\n  gotgan quota ledger public/nup\n  \
                  gotgan quota ledger public/nup --from 2026-07-01 --to 2026-08-15\n  gotgan quota ledger --project \
                  public/nup --job 42"
)]
pub struct Ledger {
    /// A node with a budget
    #[arg(conflicts_with_all = ["project", "job"])]
    node: Option<String>,
    /// From when, as in 2026-07-01 (midnight, KST) [default: the beginning of the period in force]
    #[arg(long, requires = "node", value_name = "DATE", value_parser = gotgan_core::quota::read_moment)]
    from: Option<UnixMicros>,
    /// Until when [default: now]
    #[arg(long, requires = "node", value_name = "DATE", value_parser = gotgan_core::quota::read_moment)]
    to: Option<UnixMicros>,
    /// Only this project and what is below
    #[arg(long, short = 'A', default_value = "", hide_default_value = true, value_name = "PATH")]
    project: String,
    /// Only this job
    #[arg(long, value_parser = units::parse_job_id, value_name = "JOB")]
    job: Option<u64>,
}

/// Print sums by project, and whether the ledger agrees with what ran
#[derive(Args, Debug)]
#[command(
    after_help = "Exits with 1 if the ledger does not agree.\n\nExample:\n  gotgan quota balance public/nup"
)]
pub struct Balance {
    /// This project and what is below [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    project: String,
}

#[derive(Serialize)]
struct Listing {
    entries: Vec<EntryView>,
}

impl Ledger {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        if let Some(node) = self.node {
            let range = statement::Range { from: self.from, to: self.to };
            return statement::run(node, range, context).await;
        }
        let client = context.client()?;
        let (mut entries, mut token) = (Vec::new(), String::new());
        loop {
            let request = v1::LedgerRequest {
                project: self.project.clone(),
                job_id: self.job.unwrap_or_default(),
                page: Some(v1::PageRequest { size: PAGE_MAX, token }),
            };
            let answer = client.call(async |api| api.quota().ledger(request.clone()).await).await?;
            entries.extend(answer.entries.iter().map(EntryView::of));
            token = answer.next_token;
            if token.is_empty() {
                break;
            }
        }
        if context.output.json {
            return context.output.document("gotgan.ledger/1", &Listing { entries });
        }
        if entries.is_empty() {
            context.output.aside("no entries");
            return Ok(());
        }
        context.output.table(&entry_table(&entries))
    }
}

fn entry_table(entries: &[EntryView]) -> Table {
    let mut table = Table::new(&[
        column("SEQ").right().drop(4),
        column("TIME").drop(2),
        column("KIND"),
        column("PROJECT").shrink(12).keep_end(),
        column("CLASS"),
        column("GPU-S").right(),
        column("JOB").right(),
        column("ATTEMPT").right().drop(3),
        column("AGAINST").shrink(6).drop(1),
    ]);
    for entry in entries {
        table.row([
            entry.seq.to_string(),
            time::local(entry.at_us.unwrap_or_default()),
            entry.kind.clone(),
            entry.project.clone(),
            entry.gpu_class.clone(),
            amount::gpu_seconds(entry.gpu_milli_seconds),
            entry.job_id.to_string(),
            entry.attempt.to_string(),
            entry.counter_account.clone(),
        ]);
    }
    table
}

impl Balance {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let request = v1::BalanceRequest { project: self.project };
        let answer =
            context.client()?.call(async |api| api.quota().balance(request.clone()).await).await?;
        let view = BalanceView::of(answer);
        show(&view, context)?;
        Ok(if view.balanced { Exit::Ok } else { Exit::Failed }.code())
    }
}

fn show(view: &BalanceView, context: &Context) -> Result<(), Error> {
    let output = &context.output;
    if output.json {
        return output.document("gotgan.balance/1", view);
    }
    let mut table = Table::new(&[
        column("PROJECT").shrink(16).keep_end(),
        column("CLASS"),
        column("CHARGED GPU-S").right(),
        column("OVERUSE").right().drop(2),
        column("REFUNDED").right(),
        column("PAID").right(),
        column("HELD").right().drop(1),
    ]);
    for sums in &view.projects {
        let (charged, refunded) = (sums.charged_gpu_milli_seconds, sums.refunded_gpu_milli_seconds);
        let plain = |amount_of: i64| (amount::gpu_seconds(amount_of), Tone::Plain);
        table.toned_row([
            (sums.project.clone(), Tone::Plain),
            (sums.gpu_class.clone(), Tone::Plain),
            plain(charged),
            plain(sums.overuse_gpu_milli_seconds),
            plain(refunded),
            plain(charged.saturating_sub(refunded)),
            plain(sums.held_gpu_milli_seconds),
        ]);
    }
    if !view.projects.is_empty() {
        output.table(&table)?;
    }
    output.line(if view.balanced {
        "balanced: the ledger agrees with every ended attempt"
    } else {
        "NOT BALANCED:"
    })?;
    view.differences.iter().try_for_each(|difference| output.line(&format!("  {difference}")))
}
