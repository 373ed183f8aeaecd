//! `gotgan why`: what a job waits for, by the pass that passed it over.

use clap::Args;
use gotgan_proto::v1;

use crate::{
    cmd::order,
    context::Context,
    error::{Error, Exit, printable},
    output::time,
    refer::JobRef,
    view::event::ExplanationView,
};

/// Say why a job waits, or why it started before another
///
/// With --before it says what decided between a job that has started and one that had not started then, and shows the
/// numbers that were compared. --check compares them again here, by the scheduler's own function.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Why {
    #[arg(value_name = "JOB", value_parser = JobRef::parse_one)]
    job: JobRef,
    /// Why it started before this one
    #[arg(long, value_name = "JOB", value_parser = JobRef::parse_one)]
    before: Option<JobRef>,
    /// Compare the numbers again here; fails if they give another order
    #[arg(long, requires = "before")]
    check: bool,
}

const EXAMPLES: &str = "\
Examples:
  gotgan why 42
  gotgan why 42 --json | jq -r '.blockers[0].subject'
  gotgan why 42 --before 57
  gotgan why 42 --before 57 --check";

impl Why {
    /// The question about that job.
    pub(crate) fn of(job_id: u64) -> Self {
        Self { job: JobRef { job_id, tasks: String::new() }, before: None, check: false }
    }

    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let client = context.client()?;
        if let Some(before) = &self.before {
            let jobs = (self.job.resolve(&client).await?, before.resolve(&client).await?);
            return order::run(context, &client, jobs, self.check).await;
        }
        let request = v1::ExplainRequest { job_id: self.job.resolve(&client).await? };
        let answer = client.call(async |api| api.jobs().explain(request).await).await?;
        let view = ExplanationView::of(&answer);
        if context.output.json {
            context.output.document("gotgan.why/1", &view)?;
        } else {
            context.output.text(&text(&view, time::now_us()))?;
        }
        Ok(Exit::Ok.code())
    }
}

fn text(view: &ExplanationView, now_us: i64) -> String {
    let mut lines = vec![format!("Job {} is {}: {}", view.job_id, view.state, view.summary)];
    for blocker in &view.blockers {
        let subject = if blocker.subject.is_empty() {
            String::new()
        } else {
            format!(" ({})", blocker.subject)
        };
        lines.push(format!("  {}{subject}: {}", blocker.kind.replace('_', " "), blocker.text));
        if let Some(hint) = &blocker.hint {
            lines.push(format!("    try: {hint}"));
        }
    }
    if view.jobs_ahead > 0 {
        lines.push(format!("  jobs ahead: {}", view.jobs_ahead));
    }
    if let Some(start) = &view.start {
        lines.push(format!("  starts: {}", start.text(now_us)));
    }
    if let Some(planned) = view.planned_us {
        lines.push(format!("As of the planning pass {}.", time::ago(planned, now_us)));
    }
    lines.iter().map(|line| format!("{}\n", printable(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocker_is_named_with_what_would_help() {
        let blocker = v1::Blocker {
            kind: v1::BlockerKind::ParentLimit.into(),
            subject: "public/nup".to_owned(),
            text: "16 of 16 b200 are in use, the job needs 8".to_owned(),
            hint: "wait, or ask for a larger limit".to_owned(),
            ..Default::default()
        };
        let explanation = v1::Explanation {
            job_id: 42,
            state: v1::JobState::Pending.into(),
            summary: "the limit of public/nup is reached".to_owned(),
            blockers: vec![blocker],
            planned_us: 1_000_000,
            jobs_ahead: 3,
            start: None,
        };
        insta::assert_snapshot!(text(&ExplanationView::of(&explanation), 4_000_000), @"
        Job 42 is pending: the limit of public/nup is reached
          parent limit (public/nup): 16 of 16 b200 are in use, the job needs 8
            try: wait, or ask for a larger limit
          jobs ahead: 3
        As of the planning pass 3s ago.
        ");
    }
}
