//! `gotgan watch`: events of jobs as they are committed.

use clap::Args;

use crate::{
    context::Context,
    error::{Error, Exit},
    output::time,
    refer::{self, JobRef},
    view::{event::EventView, job::is_terminal},
    watch::{JobWatch, WATCH_MAX},
};

/// Print events of jobs as they happen
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// Jobs to watch until they have ended [default: all, until Ctrl-C]
    #[arg(value_name = "JOB", value_parser = JobRef::parse_one, num_args = 0..=WATCH_MAX)]
    jobs: Vec<JobRef>,
    /// Only events after this one
    #[arg(long, default_value_t = 0, value_name = "SEQ", hide_default_value = true)]
    after: u64,
}

const EXAMPLES: &str = "\
Examples:
  gotgan watch 42
  gotgan watch --json | jq -c 'select(.state == \"failed\")'";

impl Watch {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let client = context.client()?;
        let job_ids = refer::resolve_all(&self.jobs, &client).await?;
        let mut open: std::collections::BTreeSet<u64> = job_ids.iter().copied().collect();
        let mut watch = JobWatch::new(&client, job_ids, self.after);
        let everything = open.is_empty();
        while everything || !open.is_empty() {
            let event = watch.next().await?;
            show(&EventView::of(&event), context)?;
            if is_terminal(event.state) {
                open.remove(&event.job_id);
            }
        }
        Ok(Exit::Ok.code())
    }
}

fn show(event: &EventView, context: &Context) -> Result<(), Error> {
    if context.output.json {
        return context.output.event("gotgan.event/1", event);
    }
    let at = time::local(event.at_us.unwrap_or_default());
    let text = crate::error::printable(&event.text);
    context.output.line(&format!("{at}  job {}  {:<10}  {text}", event.job_id, event.state))
}
