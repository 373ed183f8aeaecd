//! `gotgan jobs`: the listing.

use std::sync::mpsc;

use clap::Args;
use gotgan_proto::v1;
use serde::{Serialize, Serializer, ser::Error as _};

use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    listing::{JobPages, PAGE_MAX},
    output::{
        json,
        table::{Table, Tone, column},
        time,
    },
    refer::{self, JobRef},
    view::job::{JobView, tone_of_state},
};

/// Pages that are there and not written yet; then fetching waits.
const PAGES_AHEAD: usize = 4;

/// List jobs, newest first
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Jobs {
    /// Only these states: held, pending, starting, running, completed, failed, cancelled, timed_out
    #[arg(long, short, value_delimiter = ',', value_parser = job_state, value_name = "STATE")]
    state: Vec<v1::JobState>,
    /// Only this project and what is below it
    #[arg(long, short = 'A', alias = "account", value_name = "PATH")]
    project: Option<String>,
    /// Only this person's
    #[arg(long, short = 'u', alias = "user", value_name = "NAME")]
    owner: Option<String>,
    /// Only mine
    #[arg(long, conflicts_with = "owner")]
    mine: bool,
    /// Only of this name
    #[arg(long, short = 'n')]
    name: Option<String>,
    /// Only these jobs
    #[arg(value_name = "JOB", value_parser = JobRef::parse_one)]
    jobs: Vec<JobRef>,
    /// Also the tasks of arrays that have started, a line each
    #[arg(long, alias = "expand")]
    tasks: bool,
    /// Only the tasks of this array that have started
    #[arg(long, value_parser = crate::units::parse_job_id, value_name = "JOB", conflicts_with = "jobs")]
    array: Option<u64>,
    /// Say of those that wait between which moments they are going to start
    #[arg(long)]
    starts: bool,
    /// Every page, not only the first
    #[arg(long)]
    all: bool,
    /// Entries of a page, 1 to 1000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    limit: u32,
    /// Go on from the page before
    #[arg(long, value_name = "TOKEN", conflicts_with = "all")]
    page: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  gotgan jobs --mine
  gotgan jobs --state pending,running --project public/nup
  gotgan jobs --array 42 --state failed
  gotgan jobs --mine --state pending --starts
  gotgan jobs --all --json | jq '.jobs[] | select(.simulated | not) | .job_id'";

impl Jobs {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let client = context.client()?;
        let owner =
            if self.mine { who_am_i(&client).await? } else { self.owner.unwrap_or_default() };
        let request = v1::ListJobsRequest {
            states: self.state.iter().map(|state| i32::from(*state)).collect(),
            project: self.project.unwrap_or_default(),
            owner,
            name: self.name.unwrap_or_default(),
            page: None,
            job_ids: refer::resolve_all(&self.jobs, &client).await?,
            tasks: self.tasks,
            array_job_id: self.array.unwrap_or_default(),
            starts: self.starts,
        };
        let size = if self.all { PAGE_MAX } else { self.limit };
        let token = self.page.unwrap_or_default();
        let pages = JobPages { request, size, token, all: self.all };
        if context.output.json {
            let text = document(pages, &client).await?;
            context.output.text(&text)?;
        } else {
            show(pages, &client, self.starts, context).await?;
        }
        Ok(Exit::Ok.code())
    }
}

/// The document of all of these pages; each is written, by a thread of its own, while those after it are fetched.
async fn document(pages: JobPages, client: &Client) -> Result<String, Error> {
    let (listing, sender, tell_next) = arriving();
    let writing = tokio::task::spawn_blocking(move || json::document("gotgan.jobs/1", &listing));
    // Nobody takes a page only where those before it could not be written, which the thread says by itself.
    let fetched = pages.each(client, |page| drop(sender.send(page))).await;
    drop(sender);
    let _ = tell_next.send(fetched?);
    writing.await.map_err(|problem| Error::Unexpected(problem.to_string()))?
}

/// What is written while it comes: its pages first, until their sender is dropped, and then where to go on.
#[derive(Serialize)]
struct Listing {
    jobs: Arriving,
    next_page: Later,
}

fn arriving() -> (Listing, mpsc::SyncSender<Vec<v1::Job>>, mpsc::SyncSender<Option<String>>) {
    let (sender, pages) = mpsc::sync_channel(PAGES_AHEAD);
    let (tell_next, next_page) = mpsc::sync_channel(1);
    (Listing { jobs: Arriving(pages), next_page: Later(next_page) }, sender, tell_next)
}

/// Jobs that come page by page.
struct Arriving(mpsc::Receiver<Vec<v1::Job>>);

impl Serialize for Arriving {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().flatten().map(|job| JobView::of(&job)))
    }
}

/// Where to go on, which is known once all jobs have come.
struct Later(mpsc::Receiver<Option<String>>);

impl Serialize for Later {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.recv().map_err(S::Error::custom)?.serialize(serializer)
    }
}

async fn who_am_i(client: &Client) -> Result<String, Error> {
    let answer =
        client.call(async |api| api.cluster().who_am_i(v1::WhoAmIRequest {}).await).await?;
    Ok(answer.subject)
}

fn job_state(text: &str) -> Result<v1::JobState, String> {
    let name = format!("JOB_STATE_{}", text.to_ascii_uppercase().replace('-', "_"));
    match v1::JobState::from_str_name(&name) {
        Some(state) if state != v1::JobState::Unspecified => Ok(state),
        _ => Err(
            "not a state; there are held, pending, starting, running, completed, failed, cancelled and timed_out"
                .to_owned(),
        ),
    }
}

async fn show(
    pages: JobPages,
    client: &Client,
    starts: bool,
    context: &Context,
) -> Result<(), Error> {
    let (output, mut jobs) = (&context.output, Vec::new());
    let next_page = pages.each(client, |page| jobs.extend(page.iter().map(JobView::of))).await?;
    if jobs.is_empty() {
        output.aside("no jobs");
        return Ok(());
    }
    let table = if starts { starts_table } else { table };
    output.table(&table(&jobs, time::now_us()))?;
    if let Some(token) = next_page {
        output.aside(&format!("more: --page {token}, or --all"));
    }
    Ok(())
}

/// The table of these jobs.
fn table(jobs: &[JobView], now_us: i64) -> Table {
    let mut table = Table::new(&[
        column("JOB").right(),
        column("NAME").shrink(8),
        column("PROJECT").shrink(10).keep_end().drop(3),
        column("OWNER").shrink(6).drop(4),
        column("STATE"),
        column("NODES").right().drop(5),
        column("GPUS").right().drop(2),
        column("TIME").right().drop(1),
        column("AGE").right().drop(6),
        column("DETAIL").shrink(16).drop(7),
        column("NOTE").drop(1),
    ]);
    for job in jobs {
        let note = job.array_tasks.as_ref().map_or_else(|| notes(job), |tasks| tasks.text());
        table.toned_row([
            (job.label(), Tone::Plain),
            (job.name.clone(), Tone::Plain),
            (job.project.clone(), Tone::Plain),
            (job.owner.clone(), Tone::Plain),
            (job.state.clone(), tone_of_state(&job.state)),
            (job.node_count(), Tone::Plain),
            (job.gpus_text(), Tone::Plain),
            (job.run_time(now_us), Tone::Plain),
            (job.submitted_us.map(|us| time::span(now_us - us)).unwrap_or_default(), Tone::Dim),
            (job.detail.clone(), Tone::Plain),
            (note, if warns(job) { Tone::Warning } else { Tone::Plain }),
        ]);
    }
    table
}

/// Whether there is something about the job that its owner should see.
fn warns(job: &JobView) -> bool {
    job.simulated || job.idle_told_us.is_some()
}

/// That its GPUs do nothing, and that they are no real ones.
fn notes(job: &JobView) -> String {
    let notes = [("idle", job.idle_told_us.is_some()), ("simulated", job.simulated)];
    let there: Vec<&str> = notes.iter().filter(|(_, is)| *is).map(|(note, _)| *note).collect();
    there.join(", ")
}

/// The table of these jobs that says when they are going to start.
fn starts_table(jobs: &[JobView], now_us: i64) -> Table {
    let mut table = Table::new(&[
        column("JOB").right(),
        column("NAME").shrink(8),
        column("PROJECT").shrink(10).keep_end().drop(2),
        column("STATE"),
        column("GPUS").right().drop(1),
        column("STARTS").shrink(27),
    ]);
    for job in jobs {
        table.toned_row([
            (job.label(), Tone::Plain),
            (job.name.clone(), Tone::Plain),
            (job.project.clone(), Tone::Plain),
            (job.state.clone(), tone_of_state(&job.state)),
            (job.gpus_text(), Tone::Plain),
            (job.start.as_ref().map(|start| start.cell(now_us)).unwrap_or_default(), Tone::Plain),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const START: i64 = 1_795_305_600_000_000;

    fn job(job_id: u64, name: &str, state: v1::JobState) -> v1::Job {
        let resources = v1::Resources {
            nodes: 2,
            gpus_per_node: 8,
            gpu_class: "b200".to_owned(),
            ..Default::default()
        };
        let spec = v1::JobSpec {
            name: name.to_owned(),
            project: "public/nup/startup-042".to_owned(),
            resources: Some(resources),
            ..Default::default()
        };
        v1::Job {
            job_id,
            spec: Some(spec),
            owner: "kim".to_owned(),
            state: state.into(),
            submitted_us: START,
            ..Default::default()
        }
    }

    fn failed_job() -> v1::Job {
        let mut failed = job(41, "pretrain-with-a-very-long-name", v1::JobState::Failed);
        failed.started_us = START;
        failed.ended_us = START + 3_725_000_000;
        failed.detail = "rank 3 on node2: exit 7".to_owned();
        failed.simulated = true;
        failed.nodes = vec!["node1".to_owned(), "node2".to_owned()];
        failed
    }

    fn listing() -> Vec<JobView> {
        let mut pending = job(1042, "사전학습", v1::JobState::Pending);
        pending.detail = "waits for 16 GPUs of b200".to_owned();
        vec![JobView::of(&pending), JobView::of(&failed_job())]
    }

    #[test]
    fn the_listing_looks_good_on_80_columns() {
        let table = table(&listing(), START + 7_200_000_000);
        insta::assert_snapshot!(table.render(Some(80), false), @"
         JOB  NAME         PROJECT      OWNER  STATE    NODES     GPUS   TIME  NOTE
        1042  사전학습     …tartup-042  kim    pending      2  16 b200
          41  pretrain-w…  …tartup-042  kim    failed       2  16 b200  1h02m  simulated
        ");
        insta::assert_snapshot!(table.render(Some(50), false), @"
         JOB  NAME      STATE       GPUS   TIME  NOTE
        1042  사전학습  pending  16 b200
          41  pretrai…  failed   16 b200  1h02m  simulated
        ");
    }

    #[test]
    fn the_listing_of_starts_fits_80_columns() {
        let mut pending = job(1042, "pretrain", v1::JobState::Pending);
        let (from_us, until_us) = (START + 90_000_000_000, START + 180_000_000_000);
        pending.start = Some(v1::StartEstimate { from_us, until_us, ..Default::default() });
        let mut held = job(1043, "later", v1::JobState::Held);
        let reason = "is held until somebody releases it".to_owned();
        held.start = Some(v1::StartEstimate { reason, ..Default::default() });
        let jobs = [JobView::of(&pending), JobView::of(&held)];
        let text = starts_table(&jobs, START).render(Some(80), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("STARTS") && text.contains("is held"), "{text}");
    }

    #[test]
    fn the_listing_is_whole_in_a_pipe() {
        let text = table(&listing(), START + 7_200_000_000).render(None, false);
        assert!(text.contains("pretrain-with-a-very-long-name") && text.contains("simulated"));
    }

    #[test]
    fn the_document_keeps_its_form() {
        let (listing, pages, next_page) = arriving();
        pages.send(vec![failed_job()]).unwrap();
        drop(pages);
        next_page.send(None).unwrap();
        insta::assert_snapshot!(crate::output::json::document("gotgan.jobs/1", &listing).unwrap(), @r#"
        {
          "schema": "gotgan.jobs/1",
          "jobs": [
            {
              "job_id": 41,
              "name": "pretrain-with-a-very-long-name",
              "project": "public/nup/startup-042",
              "owner": "kim",
              "state": "failed",
              "detail": "rank 3 on node2: exit 7",
              "work": "unknown",
              "argv": [],
              "resources": {
                "nodes": 2,
                "gpus_per_node": 8,
                "gpus_total": 0,
                "gpu_share_milli": 0,
                "gpu_class": "b200",
                "cpu_milli_per_node": 0,
                "memory_mib_per_node": 0
              },
              "time_limit_s": 0,
              "priority": 0,
              "comment": "",
              "image": "",
              "dependencies": [],
              "attempt": 0,
              "nodes": [
                "node1",
                "node2"
              ],
              "simulated": true,
              "cause": null,
              "exit": null,
              "submitted_us": 1795305600000000,
              "submitted": "2026-11-22T00:00:00Z",
              "queued_us": null,
              "queued": null,
              "started_us": 1795305600000000,
              "started": "2026-11-22T00:00:00Z",
              "ended_us": 1795309325000000,
              "ended": "2026-11-22T01:02:05Z",
              "paid_gpu_milli_seconds": 0,
              "blocks": {
                "one": null,
                "prefer": null,
                "segment_nodes": null,
                "segment_level": null
              }
            }
          ],
          "next_page": null
        }
        "#);
    }

    #[test]
    fn states_are_read_as_they_are_shown() {
        assert_eq!(job_state("timed_out"), Ok(v1::JobState::TimedOut));
        assert!(job_state("unspecified").is_err());
    }
}
