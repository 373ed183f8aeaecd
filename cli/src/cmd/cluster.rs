//! `gotgan cluster`: the state of the whole.

use clap::{Args, Subcommand};
use gotgan_proto::v1;

use crate::{
    context::Context,
    error::{Error, Exit},
    output::{
        table::{Table, Tone, column, fields},
        text::filled,
        time,
    },
    view::{
        amount,
        cluster::{ClusterView, PowerView},
    },
};

/// Show the state of the cluster
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan cluster\n  gotgan cluster --json | jq '.classes[] | {gpu_class, free_gpu_milli}'"
)]
pub struct ClusterCommand {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show its state; the same as `gotgan cluster`
    Status,
}

impl ClusterCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        match self.action {
            None | Some(Action::Status) => status(context).await?,
        }
        Ok(Exit::Ok.code())
    }
}

async fn status(context: &Context) -> Result<(), Error> {
    let client = context.client()?;
    let status = client.call(async |api| api.cluster().status(v1::StatusRequest {}).await).await?;
    let (view, output) = (ClusterView::of(status), &context.output);
    if output.json {
        output.document("gotgan.cluster/1", &view)?;
        return Ok(());
    }
    output.text(&summary(&view, time::now_us()))?;
    for line in alarms(&view) {
        output.line(&line)?;
    }
    if !view.classes.is_empty() {
        output.line("")?;
        output.table(&class_table(&view))?;
    }
    if !view.power.is_empty() {
        output.line("")?;
        output.table(&power_table(&view.power))?;
    }
    Ok(())
}

fn summary(view: &ClusterView, now_us: i64) -> String {
    let started =
        view.started_us.map(|us| format!(", up {}", time::span(now_us - us))).unwrap_or_default();
    let simulated =
        if view.any_simulated { "some nodes are simulated: their GPUs are invented" } else { "" };
    let jobs = format!(
        "{} running, {} starting, {} pending, {} held",
        view.jobs_running, view.jobs_starting, view.jobs_pending, view.jobs_held
    );
    fields(&[
        ("Scheduler", format!("{} on {}{started}", view.version, view.database)),
        ("Leader", format!("{}, epoch {}", view.leader, view.epoch)),
        ("Nodes", format!("{} ready, {} not", view.nodes_ready, view.nodes_unavailable)),
        ("Jobs", jobs),
        ("Planning", format!("{} passes, the last in {} us", view.passes, view.last_pass_us)),
        ("Hardware", hardware(view)),
        ("Note", simulated.to_owned()),
    ])
}

/// GPUs that are not sound, in words; empty if all are.
fn hardware(view: &ClusterView) -> String {
    match (view.gpus_out, view.gpus_suspect) {
        (0, 0) => String::new(),
        (out, 0) => format!("{out} GPUs out"),
        (0, suspect) => format!("{suspect} GPUs suspect"),
        (out, suspect) => format!("{out} GPUs out, {suspect} suspect"),
    }
}

/// What somebody has to look at now.
fn alarms(view: &ClusterView) -> Vec<String> {
    let breakers = view.broken_breakers.iter().map(|it| {
        format!(
            "{}: nothing is taken out by itself any more: {}. Once that is mended: \
             gotgan node reset-breaker '{}'",
            it.scope, it.reason, it.scope
        )
    });
    let building = view.facility_alarms.iter().cloned();
    breakers.chain(building).flat_map(|text| filled("ALARM", &text)).collect()
}

fn power_table(limits: &[PowerView]) -> Table {
    let mut table = Table::new(&[
        column("POWER OF").shrink(12),
        column("NODES").right().drop(1),
        column("RESERVED").right(),
        column("LIMIT").right(),
        column("PART").right(),
    ]);
    for limit in limits {
        let percent = limit.reserved_watts.saturating_mul(100) / limit.limit_watts.max(1);
        let tone = if limit.reserved_watts > limit.limit_watts { Tone::Bad } else { Tone::Plain };
        let watts = |watts| format!("{} W", amount::grouped(watts));
        table.toned_row([
            (format!("{} {}", limit.level, limit.name).trim_end().to_owned(), Tone::Plain),
            (limit.nodes.to_string(), Tone::Plain),
            (watts(limit.reserved_watts), tone),
            (watts(limit.limit_watts), Tone::Plain),
            (format!("{percent} %"), tone),
        ]);
    }
    table
}

fn class_table(view: &ClusterView) -> Table {
    let mut table = Table::new(&[
        column("CLASS"),
        column("GPUS").right(),
        column("FREE").right(),
        column("ALLOCATED").right(),
        column("DOWN").right(),
        column("NOTE").drop(1),
    ]);
    for class in &view.classes {
        let plain = |milli: u64| (amount::milli(milli), Tone::Plain);
        let note = if class.simulated { "simulated" } else { "" };
        let down = if class.down_gpu_milli > 0 { Tone::Bad } else { Tone::Plain };
        table.toned_row([
            (class.gpu_class.clone(), Tone::Plain),
            plain(class.capacity_gpu_milli),
            plain(class.free_gpu_milli),
            plain(class.allocated_gpu_milli),
            (amount::milli(class.down_gpu_milli), down),
            (note.to_owned(), Tone::Warning),
        ]);
    }
    table
}
