//! `gotgan quota drift`: where the tree in force and the files differ.

use std::path::PathBuf;

use clap::Args;
use gotgan_proto::v1;

use super::files::read_files;
use crate::{
    context::Context,
    error::{Error, Exit},
    output::table::{Table, column},
    view::quota_plan::DriftView,
};

/// Show where the tree in force and the files differ
#[derive(Args, Debug)]
#[command(
    after_help = "Ends with 0 if they agree, with 2 if they do not. Applying the files would make the tree what they \
                  say;\nwhat a command changed meanwhile is not put back unasked.\n\nExample:\n  gotgan quota drift quota/"
)]
pub struct Drift {
    /// TOML files, or folders of them
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
}

impl Drift {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let proposal = v1::QuotaProposal { files: read_files(&self.paths)?, ..Default::default() };
        let request = v1::PlanQuotaRequest { proposal: Some(proposal) };
        let plan =
            context.client()?.call(async |api| api.quota().plan(request.clone()).await).await?;
        let view = DriftView::of(&plan);
        let output = &context.output;
        if output.json {
            output.document("gotgan.quota_drift/1", &view)?;
        } else if view.differences.is_empty() {
            output.line(&format!("the files agree with revision {}", view.revision))?;
        } else {
            output.table(&table(&view))?;
        }
        Ok(if view.differences.is_empty() { Exit::Ok } else { Exit::Planned }.code())
    }
}

fn table(view: &DriftView) -> Table {
    let mut table = Table::new(&[
        column("PATH").shrink(16).keep_end(),
        column("CHANGED BY COMMAND").shrink(8),
        column("IN FORCE -> FILES").shrink(16),
    ]);
    for difference in &view.differences {
        let by = match (&difference.by, difference.revision) {
            (Some(by), Some(revision)) => format!("{by}, revision {revision}"),
            _ => "-".to_owned(),
        };
        table.row([difference.path.clone(), by, difference.text.clone()]);
    }
    table
}
