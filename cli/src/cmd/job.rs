//! `gotgan job`: everything about one job.

use clap::Args;

use crate::{
    context::Context,
    error::{Error, Exit},
    output::{
        table::{Table, Tone, column, fields},
        time,
    },
    refer::JobRef,
    view::{
        amount,
        dependency::DependencyView,
        job::{
            AllocationView, ArrayTasksView, AttemptView, ExitView, JobDetail, JobView,
            ResourcesView, tone_of_state,
        },
        measured::{self, Held},
        step::StepView,
    },
    watch,
};

/// Show one job with its attempts, steps and tasks
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct JobCommand {
    #[arg(value_name = "JOB", value_parser = JobRef::parse_one)]
    job: JobRef,
}

const EXAMPLES: &str = "\
Examples:
  gotgan job 42
  gotgan job 42 --json | jq '.attempts[-1].steps[].tasks[] | {rank, exit}'";

impl JobCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let client = context.client()?;
        let job_id = self.job.resolve(&client).await?;
        let detail = JobDetail::of(&watch::get_job(&client, job_id).await?);
        let output = &context.output;
        if output.json {
            output.document("gotgan.job/1", &detail)?;
            return Ok(Exit::Ok.code());
        }
        let now_us = time::now_us();
        output.text(&summary(&detail.job, now_us))?;
        for attempt in &detail.attempts {
            output.text(&attempt_summary(attempt, now_us))?;
            output.table(&task_table(attempt))?;
        }
        Ok(Exit::Ok.code())
    }
}

fn summary(job: &JobView, now_us: i64) -> String {
    let exit = job.exit.as_ref().filter(|_| job.ended_us.is_some()).map(ExitView::text);
    let dependencies: Vec<String> = job.dependencies.iter().map(DependencyView::text).collect();
    let starts = job.start.as_ref().map(|start| start.text(now_us)).unwrap_or_default();
    let cost =
        if job.attempt == 0 { String::new() } else { amount::gpu_time(job.paid_gpu_milli_seconds) };
    fields(&[
        ("Job", format!("{} {}", job.label(), job.name)),
        ("Number", job.array_job_id.map(|_| job.job_id.to_string()).unwrap_or_default()),
        ("State", with_note(&job.state, job.simulated)),
        ("Array", job.array.clone().unwrap_or_default()),
        ("Tasks", job.array_tasks.as_ref().map(ArrayTasksView::text).unwrap_or_default()),
        ("Detail", job.detail.clone()),
        ("Project", job.project.clone()),
        ("Owner", job.owner.clone()),
        ("Work", work_text(job)),
        ("Image", job.image.clone()),
        ("Asked for", resources_text(&job.resources)),
        ("Power", power_text(&job.resources)),
        ("Together", job.blocks.text()),
        ("Reservation", job.reservation.clone()),
        ("Time limit", limit_text(job.time_limit_s)),
        ("Priority", if job.priority == 0 { String::new() } else { job.priority.to_string() }),
        ("After", dependencies.join(", ")),
        ("Starts", starts),
        ("Starts by", moment(job.start_by_us)),
        ("Comment", job.comment.clone()),
        ("Submitted", moment(job.submitted_us)),
        ("Started", moment(job.started_us)),
        ("Ended", moment(job.ended_us)),
        ("Exit", exit.unwrap_or_default()),
        ("Cause", job.cause.clone().unwrap_or_default()),
        ("Nodes", job.nodes.join(", ")),
        ("Paid", cost),
    ])
}

fn with_note(state: &str, simulated: bool) -> String {
    if simulated { format!("{state} (simulated: not on real GPUs)") } else { state.to_owned() }
}

fn work_text(job: &JobView) -> String {
    format!("{} {}", job.work, job.argv.join(" ")).trim_end().to_owned()
}

fn moment(us: Option<i64>) -> String {
    us.map(time::local).unwrap_or_default()
}

fn limit_text(seconds: i64) -> String {
    if seconds == 0 { String::new() } else { time::span(seconds.saturating_mul(1_000_000)) }
}

/// What it asks its GPUs to be capped at.
fn power_text(asked: &ResourcesView) -> String {
    asked.gpu_cap_watts.map_or_else(String::new, |watts| format!("at most {watts} W a GPU"))
}

/// As in "2 nodes, 8 b200 each, 16 CPUs and 64 GiB each".
fn resources_text(asked: &ResourcesView) -> String {
    let class = asked.gpu_class.as_deref().map(|class| format!(" {class}")).unwrap_or_default();
    let mut parts = vec![match (asked.nodes, asked.nodes_max) {
        (0, _) => String::new(),
        (least, Some(most)) => format!("{least} to {most} nodes"),
        (1, None) => "1 node".to_owned(),
        (nodes, None) => format!("{nodes} nodes"),
    }];
    let units = asked.mig_profile.as_ref().map(|profile| format!(" {profile} instances"));
    let units = units.unwrap_or_else(|| " GPUs".to_owned());
    if asked.gpus_total > 0 {
        parts.push(format!("{}{class}{units} in all", asked.gpus_total));
    }
    if asked.gpus_per_node > 0 {
        parts.push(format!("{}{class}{units} a node", asked.gpus_per_node));
    }
    if asked.gpu_share_milli > 0 {
        parts.push(format!(
            "{} of a{class} GPU a node",
            amount::milli(asked.gpu_share_milli.into())
        ));
    }
    if asked.cpu_milli_per_node > 0 {
        parts.push(format!("{} CPUs a node", amount::milli(asked.cpu_milli_per_node)));
    }
    if asked.memory_mib_per_node > 0 {
        parts.push(format!("{} a node", amount::memory(asked.memory_mib_per_node)));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

fn attempt_summary(attempt: &AttemptView, now_us: i64) -> String {
    let exit = attempt.exit.as_ref().filter(|_| attempt.ended_us.is_some()).map(ExitView::text);
    let refunded = attempt.refunded_gpu_milli_seconds;
    let cost = match refunded {
        0 => amount::gpu_time(attempt.charged_gpu_milli_seconds),
        _ => format!(
            "{}, refunded {}",
            amount::gpu_time(attempt.charged_gpu_milli_seconds),
            amount::gpu_time(refunded)
        ),
    };
    let (used, note) = used_texts(attempt, now_us);
    let mut text = format!("\nAttempt {}: {}\n", attempt.attempt, attempt.state);
    text.push_str(&fields(&[
        ("  Detail", attempt.detail.clone()),
        ("  Cause", attempt.cause.clone().unwrap_or_default()),
        ("  Exit", exit.unwrap_or_default()),
        ("  Placed", moment(attempt.leased_us)),
        ("  Started", moment(attempt.started_us)),
        ("  Ended", moment(attempt.ended_us)),
        ("  Power", cap_text(attempt)),
        ("  Charged", cost),
        ("  Used", used),
        ("  Idle", idle_text(attempt)),
        ("  Note", note),
    ]));
    for held in &attempt.allocation {
        let gpus: u64 = held.gpus.iter().map(|gpu| u64::from(gpu.gpu_milli)).sum();
        let note = if held.simulated { " (simulated)" } else { "" };
        let (cpus, memory) = (amount::milli(held.cpu_milli), amount::memory(held.memory_mib));
        text.push_str(&format!(
            "  {}{note}: {} GPUs, {cpus} CPUs, {memory}\n",
            held.node,
            amount::milli(gpus)
        ));
        for gpu in &held.gpus {
            let part = if gpu.gpu_milli == 1000 {
                String::new()
            } else {
                format!(" ({} of it)", amount::milli(gpu.gpu_milli.into()))
            };
            text.push_str(&format!("    {}{part}\n", gpu.uuid));
        }
        if let Some(channel) = held.imex_channel {
            text.push_str(&format!("    IMEX channel {channel} of {}\n", held.imex_domain));
        }
    }
    text
}

/// What its GPUs are capped at, as set when it started.
fn cap_text(attempt: &AttemptView) -> String {
    let watts = attempt.gpu_cap_watts;
    watts.map_or_else(String::new, |watts| format!("each GPU capped at {watts} W"))
}

/// What its GPUs did of what it held, and what is to be known of that.
fn used_texts(attempt: &AttemptView, now_us: i64) -> (String, String) {
    let Some(measured) = &attempt.measured else { return Default::default() };
    let gpus = |held: &AllocationView| held.gpus.iter().map(|gpu| u64::from(gpu.gpu_milli)).sum();
    let gpus: Vec<u64> = attempt.allocation.iter().map(gpus).filter(|gpus| *gpus > 0).collect();
    let until_us = attempt.ended_us.unwrap_or(now_us);
    let held_us = until_us - attempt.leased_us.unwrap_or(until_us);
    let held_ms = u64::try_from(held_us / 1000).unwrap_or(0);
    let held = Held {
        gpu_ms: gpus.iter().sum::<u64>().saturating_mul(held_ms) / 1000,
        nodes: gpus.len(),
        simulated: attempt.allocation.iter().any(|held| held.simulated),
        so_far: attempt.ended_us.is_none(),
    };
    (measured.text(&held), measured.note(&held))
}

/// That its GPUs do nothing, or for how long one of them did nothing.
fn idle_text(attempt: &AttemptView) -> String {
    let longest_ms = attempt.measured.as_ref().and_then(|measured| measured.longest_idle_ms);
    measured::idle_text(attempt.idle_ms, longest_ms.unwrap_or(0), attempt.idle_told_us)
}

fn task_table(attempt: &AttemptView) -> Table {
    let mut table = Table::new(&[
        column("  STEP").right(),
        column("KIND").drop(4),
        column("NAME").shrink(8).drop(3),
        column("RANK").right(),
        column("NODE").shrink(8),
        column("STATE"),
        column("EXIT"),
        column("TIME").right().drop(1),
        column("DETAIL").shrink(12).drop(2),
    ]);
    for step in &attempt.steps {
        add_tasks(&mut table, step);
    }
    table
}

fn add_tasks(table: &mut Table, step: &StepView) {
    for task in &step.tasks {
        let ran = match (task.started_us, task.ended_us) {
            (Some(started), Some(ended)) => time::run_span(ended - started),
            _ => String::new(),
        };
        let tone = match (task.failed(), task.state.as_str()) {
            (true, _) => Tone::Bad,
            (false, "ended") => Tone::Good,
            (false, state) => tone_of_state(state),
        };
        table.toned_row([
            (step.step.to_string(), Tone::Plain),
            (step.kind.clone(), Tone::Plain),
            (step.name.clone(), Tone::Plain),
            (task.rank.to_string(), Tone::Plain),
            (task.node.clone(), Tone::Plain),
            (task.state.clone(), Tone::Plain),
            (task.exit.as_ref().map(ExitView::text).unwrap_or_default(), tone),
            (ran, Tone::Plain),
            (task.detail.clone(), Tone::Plain),
        ]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::view::measured::MeasuredView;
    use gotgan_proto::v1;

    fn task(rank: u32, code: i32) -> v1::Task {
        v1::Task {
            rank,
            node: format!("node{}", rank + 1),
            state: v1::TaskState::Ended.into(),
            exit: Some(v1::ExitStatus { code, signal: 0 }),
            started_us: 1_000_000,
            ended_us: 4_000_000,
            ..Default::default()
        }
    }

    fn attempt() -> AttemptView {
        let step = v1::Step {
            number: 1,
            kind: v1::StepKind::Run.into(),
            name: "check".to_owned(),
            tasks: vec![task(0, 0), task(1, 7)],
            ..Default::default()
        };
        let gpu = v1::GpuAllocation { uuid: "GPU-1".to_owned(), milli: 250 };
        let held = v1::NodeAllocation {
            node: "node1".to_owned(),
            gpus: vec![gpu],
            cpu_milli: 4000,
            memory_mib: 8192,
            simulated: true,
            ..Default::default()
        };
        let attempt = v1::Attempt {
            number: 1,
            state: v1::AttemptState::Ended.into(),
            allocation: vec![held],
            cause: v1::Cause::User.into(),
            detail: "step 1: rank 1 on node2: exit 7".to_owned(),
            charged_gpu_milli_seconds: 7_200_000,
            refunded_gpu_milli_seconds: 200_000,
            steps: vec![step],
            ..Default::default()
        };
        let job = v1::Job { attempts: vec![attempt], ..Default::default() };
        JobDetail::of(&job).attempts.remove(0)
    }

    #[test]
    fn an_attempt_tells_its_tasks_apart() {
        insta::assert_snapshot!(attempt_summary(&attempt(), 0), @"
        Attempt 1: ended
          Detail:   step 1: rank 1 on node2: exit 7
          Cause:    user
          Charged:  7200 GPU-s (2 GPU-h), refunded 200 GPU-s
          node1 (simulated): 0.25 GPUs, 4 CPUs, 8 GiB
            GPU-1 (0.25 of it)
        ");
        insta::assert_snapshot!(task_table(&attempt()).render(Some(80), false), @"
        STEP  KIND  NAME   RANK  NODE   STATE  EXIT      TIME
           1  run   check     0  node1  ended  exit 0  3.000s
           1  run   check     1  node2  ended  exit 7  3.000s
        ");
    }

    #[test]
    fn an_attempt_tells_what_its_gpus_did() {
        let mut measured = attempt();
        (measured.leased_us, measured.ended_us) = (Some(0), Some(14_400_000_000));
        measured.measured = Some(MeasuredView::of(&v1::MeasuredUse {
            nodes: 1,
            observed_gpu_ms: 3_600_000,
            busy_gpu_ms: Some(2_700_000),
            energy_mj: Some(1_234_000_000),
            peak_memory_mib: Some(20_000),
            longest_idle_ms: Some(600_000),
            estimated: true,
        }));
        let text = attempt_summary(&measured, 0);
        let start = text.find("  Charged").unwrap();
        insta::assert_snapshot!(&text[start..], @"
          Charged:  7200 GPU-s (2 GPU-h), refunded 200 GPU-s
          Used:     2700 GPU-s of 3600 GPU-s (75 %), 342.7 Wh, peak 19.5 GiB
          Idle:     a GPU for 10m00s at a time
          Note:     simulated; of a part of a GPU that part of what the whole did
          node1 (simulated): 0.25 GPUs, 4 CPUs, 8 GiB
            GPU-1 (0.25 of it)
        ");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn an_attempt_tells_its_channel_in_80_columns() {
        let mut sharing = attempt();
        let held = &mut sharing.allocation[0];
        held.imex_channel = Some(2047);
        held.imex_domain = "a1b2c3d4-0000-0000-0000-000000000001.7".to_owned();
        let text = attempt_summary(&sharing, 0);
        let last = text.lines().last().unwrap();
        assert_eq!(last, "    IMEX channel 2047 of a1b2c3d4-0000-0000-0000-000000000001.7");
    }

    #[test]
    fn what_was_asked_for_is_one_line() {
        let asked = ResourcesView {
            nodes: 2,
            gpus_per_node: 8,
            gpu_class: Some("b200".to_owned()),
            cpu_milli_per_node: 16_000,
            memory_mib_per_node: 65_536,
            ..Default::default()
        };
        assert_eq!(
            resources_text(&asked),
            "2 nodes, 8 b200 GPUs a node, 16 CPUs a node, 64 GiB a node"
        );
    }

    #[test]
    fn the_document_keeps_its_form() {
        let detail = attempt();
        insta::assert_snapshot!(crate::output::json::document("test", &detail).unwrap(), @r#"
        {
          "schema": "test",
          "attempt": 1,
          "state": "ended",
          "cause": "user",
          "detail": "step 1: rank 1 on node2: exit 7",
          "exit": null,
          "leased_us": null,
          "leased": null,
          "started_us": null,
          "started": null,
          "ended_us": null,
          "ended": null,
          "charged_gpu_milli_seconds": 7200000,
          "refunded_gpu_milli_seconds": 200000,
          "measured": null,
          "idle_ms": 0,
          "idle_told_us": null,
          "idle_told": null,
          "allocation": [
            {
              "node": "node1",
              "simulated": true,
              "cpu_milli": 4000,
              "memory_mib": 8192,
              "gpus": [
                {
                  "uuid": "GPU-1",
                  "gpu_milli": 250
                }
              ]
            }
          ],
          "steps": [
            {
              "step": 1,
              "kind": "run",
              "name": "check",
              "argv": [],
              "started_us": null,
              "started": null,
              "ended_us": null,
              "ended": null,
              "tasks": [
                {
                  "rank": 0,
                  "local_rank": 0,
                  "node": "node1",
                  "state": "ended",
                  "exit": {
                    "code": 0,
                    "signal": null
                  },
                  "detail": "",
                  "started_us": 1000000,
                  "started": "1970-01-01T00:00:01Z",
                  "ended_us": 4000000,
                  "ended": "1970-01-01T00:00:04Z"
                },
                {
                  "rank": 1,
                  "local_rank": 0,
                  "node": "node2",
                  "state": "ended",
                  "exit": {
                    "code": 7,
                    "signal": null
                  },
                  "detail": "",
                  "started_us": 1000000,
                  "started": "1970-01-01T00:00:01Z",
                  "ended_us": 4000000,
                  "ended": "1970-01-01T00:00:04Z"
                }
              ]
            }
          ]
        }
        "#);
    }
}
