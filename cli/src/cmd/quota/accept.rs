//! `gotgan quota phase accept`: a batch of a delivery counts from now on.

use clap::{Args, Subcommand};
use gotgan_proto::v1;
use serde::Serialize;

use crate::{context::Context, error::Error};

/// Accept deliveries, batch by batch
#[derive(Args, Debug)]
pub struct Phase {
    #[command(subcommand)]
    action: PhaseAction,
}

#[derive(Debug, Subcommand)]
enum PhaseAction {
    Accept(Accept),
}

/// Accept a batch of a lot: from now on its GPUs can be given out
#[derive(Args, Debug)]
#[command(
    after_help = "The files do not know of it until somebody writes it there; `gotgan quota drift` shows it, and \
                  applying\nfiles does not put it back unasked.\n\nExample:\n  gotgan quota phase accept gov26-a 3 --reason GPU-2027-002"
)]
struct Accept {
    /// Name of the lot
    lot: String,
    /// Which batch, from 1
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// The acceptance document, or why
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Serialize)]
struct AcceptedView<'a> {
    lot: &'a str,
    batch: u32,
    revision: u64,
}

impl Phase {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let PhaseAction::Accept(Accept { lot, batch, reason }) = self.action;
        let request = v1::AcceptBatchRequest {
            idempotency_key: context.idempotency_key()?,
            lot: lot.clone(),
            batch,
            reason,
        };
        let client = context.client()?;
        let answer =
            client.call(async |api| api.quota().accept_batch(request.clone()).await).await?;
        let revision = answer.revision;
        if context.output.json {
            let view = AcceptedView { lot: &lot, batch, revision };
            return context.output.document("gotgan.quota_accepted/1", &view);
        }
        context.output.line(&format!("batch {batch} of {lot} accepted; revision {revision}"))
    }
}
