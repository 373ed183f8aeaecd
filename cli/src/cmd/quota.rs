//! `gotgan quota`: the tree of limits and guarantees, changing it from files, who changed it, alerts, and the ledger.

mod accept;
mod alerts;
mod audit;
mod chain;
mod drift;
mod explain;
mod files;
mod fmt;
mod import;
mod ledger;
mod movement;
mod plan;
mod show;
mod statement;
mod validate;

use clap::{Args, Subcommand};

use self::{
    accept::Phase,
    alerts::Alerts,
    audit::AuditCommand,
    drift::Drift,
    explain::ExplainQuota,
    fmt::FormatQuota,
    import::ImportQuota,
    ledger::{Balance, Ledger},
    movement::{Adjust, Transfer, Void},
    plan::{ApplyQuota, ApproveQuota, PlanQuota},
    show::ShowQuota,
    validate::ValidateQuota,
};
use crate::{
    context::Context,
    error::{Error, Exit},
};

/// Show and change quotas, see who changed them, and read the ledger
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct QuotaCommand {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  gotgan quota show public/nup
  gotgan quota validate quota/
  gotgan quota plan quota/ -o quota.plan
  gotgan quota approve quota.plan --doc GPU-2026-031
  gotgan quota apply quota.plan
  gotgan quota audit who public/nup guarantee.h200";

#[derive(Debug, Subcommand)]
enum Action {
    Show(ShowQuota),
    Explain(ExplainQuota),
    Fmt(FormatQuota),
    Validate(ValidateQuota),
    Plan(PlanQuota),
    Approve(ApproveQuota),
    Apply(ApplyQuota),
    Drift(Drift),
    Import(ImportQuota),
    Phase(Phase),
    Audit(AuditCommand),
    Alerts(Alerts),
    Transfer(Transfer),
    Adjust(Adjust),
    Void(Void),
    Ledger(Ledger),
    Balance(Balance),
}

impl QuotaCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        match self.action {
            Action::Show(command) => command.run(context).await?,
            Action::Explain(command) => return command.run(context).await,
            Action::Fmt(command) => return command.run(context),
            Action::Validate(command) => return command.run(context),
            Action::Plan(command) => return command.run(context).await,
            Action::Approve(command) => command.run(context).await?,
            Action::Apply(command) => command.run(context).await?,
            Action::Drift(command) => return command.run(context).await,
            Action::Import(command) => command.run(context)?,
            Action::Phase(command) => command.run(context).await?,
            Action::Audit(command) => return command.run(context).await,
            Action::Alerts(command) => command.run(context).await?,
            Action::Transfer(command) => command.run(context).await?,
            Action::Adjust(command) => command.run(context).await?,
            Action::Void(command) => command.run(context).await?,
            Action::Ledger(command) => command.run(context).await?,
            Action::Balance(command) => return command.run(context).await,
        }
        Ok(Exit::Ok.code())
    }
}
