//! `gotgan whoami`: who the caller is to the scheduler.

use clap::Args;
use gotgan_proto::v1;

use crate::{
    context::Context,
    error::{Error, Exit},
    output::{table::fields, time},
    view::cluster::WhoAmIView,
};

/// Show who you are to the scheduler
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  gotgan whoami")]
pub struct WhoAmI {}

impl WhoAmI {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let client = context.client()?;
        let answer =
            client.call(async |api| api.cluster().who_am_i(v1::WhoAmIRequest {}).await).await?;
        let view = WhoAmIView::of(answer);
        if context.output.json {
            context.output.document("gotgan.whoami/1", &view)?;
        } else {
            context.output.text(&fields(&[
                ("Subject", view.subject.clone()),
                ("Role", view.role.clone()),
                ("Projects", view.projects.join(", ")),
                ("Expires", view.expires_us.map_or_else(|| "never".to_owned(), time::local)),
            ]))?;
        }
        Ok(Exit::Ok.code())
    }
}
