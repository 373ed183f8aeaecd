//! `gotgan quota explain`: how a node stands, or why a job waits.

use clap::Args;
use gotgan_proto::v1;

use crate::{
    cmd::why::Why, context::Context, error::Error, units, view::standing::ExplanationView,
};

/// Say how a node stands: what it is sure of, holds, lends and borrows, and what binds it
#[derive(Args, Debug)]
#[command(
    after_help = "For a job it is `gotgan why`.\n\nExamples:\n  gotgan quota explain public/nup\n  gotgan quota explain 42"
)]
pub struct ExplainQuota {
    /// Path of a node, or the number of a job
    #[arg(value_name = "NODE|JOB")]
    subject: String,
}

impl ExplainQuota {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        if let Ok(job) = units::parse_job_id(&self.subject) {
            return Why::of(job).run(context).await;
        }
        let request = v1::ExplainQuotaRequest { path: self.subject };
        let found =
            context.client()?.call(async |api| api.quota().explain(request.clone()).await).await?;
        let view = ExplanationView::of(found);
        if context.output.json {
            context.output.document("gotgan.quota_explanation/1", &view)?;
        } else {
            view.lines().iter().try_for_each(|line| context.output.line(line))?;
        }
        Ok(crate::error::Exit::Ok.code())
    }
}
