//! `gotgan node maintenance`: nodes that take no jobs from one moment until another.

use std::collections::BTreeMap;

use clap::Args;
use gotgan_proto::v1;

use crate::{
    context::Context,
    error::Error,
    output::{
        table::{Table, Tone, column, fields},
        time,
    },
    units,
    view::maintenance::{Listing, MaintenanceView, PlannedView, StayingView, nodes_short},
};

/// Take nodes out of service from one moment until another
///
/// From now on nothing starts on them that would not be over by then, time limit and grace together. What runs past the
/// beginning is listed, and goes on unless --stop-running is given. At the end the nodes take jobs again by themselves.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = "gotgan node maintenance NODES... --for TIME --reason TEXT [--from WHEN] [--stop-running]\n       gotgan node maintenance --list\n       gotgan node maintenance --cancel ID")]
pub struct Maintenance {
    /// Names, as in gpu-[001-018], or a label that the nodes carry, as in rack=r12
    #[arg(value_parser = selector, value_name = "NODES")]
    nodes: Vec<Selector>,
    /// Only nodes with GPUs of this class
    #[arg(long, value_parser = units::parse_gpu_class, value_name = "CLASS")]
    gpu_class: Option<String>,
    /// When it begins, as in +2h or 2026-11-30T18:00:00+09:00 [default: now]
    #[arg(long, value_parser = moment, value_name = "WHEN")]
    from: Option<Beginning>,
    /// How long it takes: minutes, HH:MM:SS, D-HH:MM:SS, or 30s, 10m, 2h, 7d
    #[arg(long = "for", value_parser = units::parse_time, value_name = "TIME", required_unless_present_any = ["list", "cancel"])]
    duration_s: Option<i64>,
    /// Why; shown to everybody
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["list", "cancel"])]
    reason: Option<String>,
    /// Stop what still runs at the beginning, each with its grace
    #[arg(long)]
    stop_running: bool,
    /// List what is planned or under way
    #[arg(long, conflicts_with_all = ["nodes", "gpu_class", "from", "duration_s", "reason", "stop_running", "cancel"])]
    list: bool,
    /// Take it back; what is under way ends
    #[arg(long, value_name = "ID", conflicts_with_all = ["nodes", "gpu_class", "from", "duration_s", "reason", "stop_running"])]
    cancel: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  gotgan node maintenance gpu-[001-018] --from 2026-11-30T18:00:00+09:00 --for 4h --reason 'new switch'
  gotgan node maintenance rack=r12 --from +6h --for 2h --reason 'new fans' --stop-running
  gotgan node maintenance --list
  gotgan node maintenance --cancel 3";

/// Which nodes, as one argument says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    Names(Vec<String>),
    Label(String, String),
}

/// When it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    AtUs(i64),
    InS(i64),
}

impl Beginning {
    /// The moment, microseconds.
    fn at_us(self, now_us: i64) -> i64 {
        match self {
            Beginning::AtUs(at) => at,
            Beginning::InS(seconds) => now_us.saturating_add(seconds.saturating_mul(1_000_000)),
        }
    }
}

/// The moment, microseconds; 0 where none is said.
pub(super) fn at_us(moment: Option<Beginning>, now_us: i64) -> i64 {
    moment.map_or(0, |moment| moment.at_us(now_us))
}

pub(super) fn selector(text: &str) -> Result<Selector, String> {
    if text.contains('=') {
        return units::parse_label(text).map(|(key, value)| Selector::Label(key, value));
    }
    units::parse_node_list(text).map(Selector::Names)
}

/// All names, and all labels.
pub(super) fn names_and_labels(
    selectors: Vec<Selector>,
) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut nodes, mut labels) = (Vec::new(), BTreeMap::new());
    for selector in selectors {
        match selector {
            Selector::Names(names) => nodes.extend(names),
            Selector::Label(key, value) => _ = labels.insert(key, value),
        }
    }
    (nodes, labels)
}

pub(super) fn moment(text: &str) -> Result<Beginning, String> {
    if let Some(from_now) = text.strip_prefix('+') {
        return units::parse_time(from_now).map(Beginning::InS);
    }
    let moment = gotgan_core::quota::read_moment(text);
    moment.map(|moment| Beginning::AtUs(moment.0)).map_err(|why| format!("{why}; or write +2h"))
}

impl Maintenance {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        match (self.list, self.cancel) {
            (true, _) => list(context).await,
            (false, Some(id)) => cancel(id, context).await,
            (false, None) => self.plan(context).await,
        }
    }

    async fn plan(self, context: &Context) -> Result<(), Error> {
        let request = self.request(context.idempotency_key()?, time::now_us());
        let client = context.client()?;
        let answer =
            client.call(async |api| api.nodes().plan_maintenance(request.clone()).await).await?;
        let planned = PlannedView::of(answer);
        let output = &context.output;
        if output.json {
            return output.document("gotgan.maintenance/1", &planned);
        }
        output.line(&sentence(&planned.maintenance))?;
        if planned.staying.is_empty() {
            return output.line("nothing runs past its beginning");
        }
        let stopped = if planned.maintenance.stop_running { "is stopped then" } else { "goes on" };
        let count = planned.maintenance.staying;
        output.line(&format!("\nmay still run at its beginning and {stopped}: {count}"))?;
        output.table(&staying_table(&planned.staying))
    }

    fn request(self, idempotency_key: String, now_us: i64) -> v1::PlanMaintenanceRequest {
        let (nodes, labels) = names_and_labels(self.nodes);
        v1::PlanMaintenanceRequest {
            idempotency_key,
            nodes,
            labels: labels.into_iter().collect(),
            gpu_class: self.gpu_class.unwrap_or_default(),
            from_us: at_us(self.from, now_us),
            duration_s: self.duration_s.unwrap_or_default(),
            reason: self.reason.unwrap_or_default(),
            stop_running: self.stop_running,
        }
    }
}

async fn cancel(id: u64, context: &Context) -> Result<(), Error> {
    let idempotency_key = context.idempotency_key()?;
    let request = v1::CancelMaintenanceRequest { idempotency_key, id };
    let client = context.client()?;
    let answer =
        client.call(async |api| api.nodes().cancel_maintenance(request.clone()).await).await?;
    let cancelled = MaintenanceView::of(answer.maintenance.unwrap_or_default());
    if context.output.json {
        return context.output.document("gotgan.maintenance_cancelled/1", &cancelled);
    }
    let nodes = nodes_short(&cancelled.nodes);
    context.output.line(&format!("maintenance {id} of {nodes} cancelled"))
}

async fn list(context: &Context) -> Result<(), Error> {
    let request = v1::ListMaintenanceRequest {};
    let client = context.client()?;
    let answer = client.call(async |api| api.nodes().list_maintenance(request).await).await?;
    let maintenance: Vec<_> = answer.maintenance.into_iter().map(MaintenanceView::of).collect();
    if context.output.json {
        return context.output.document("gotgan.maintenances/1", &Listing { maintenance });
    }
    if maintenance.is_empty() {
        context.output.aside("no maintenance is planned or under way");
        return Ok(());
    }
    context.output.table(&table(&maintenance))
}

fn sentence(planned: &MaintenanceView) -> String {
    let when = [planned.from_us, planned.until_us].map(|at| time::local(at.unwrap_or_default()));
    fields(&[
        ("Maintenance", planned.id.to_string()),
        ("Nodes", nodes_short(&planned.nodes)),
        ("From", when[0].clone()),
        ("Until", when[1].clone()),
        ("Reason", planned.reason.clone()),
    ])
    .trim_end()
    .to_owned()
}

fn table(listed: &[MaintenanceView]) -> Table {
    let mut table = Table::new(&[
        column("ID").right(),
        column("STATE"),
        column("NODES").shrink(16),
        column("FROM"),
        column("UNTIL"),
        column("RUN PAST IT").right().drop(2),
        column("THEN").drop(3),
        column("BY").drop(4),
        column("REASON").shrink(12).drop(1),
    ]);
    for one in listed {
        let tone = if one.state == "open" { Tone::Warning } else { Tone::Plain };
        let local = |at: Option<i64>| time::local(at.unwrap_or_default());
        table.toned_row([
            (one.id.to_string(), Tone::Plain),
            (one.state.clone(), tone),
            (nodes_short(&one.nodes), Tone::Plain),
            (local(one.from_us), Tone::Plain),
            (local(one.until_us), Tone::Plain),
            (one.staying.to_string(), Tone::Plain),
            (if one.stop_running { "stopped" } else { "go on" }.to_owned(), Tone::Plain),
            (one.by.clone(), Tone::Dim),
            (one.reason.clone(), Tone::Plain),
        ]);
    }
    table
}

pub(super) fn staying_table(staying: &[StayingView]) -> Table {
    let mut table = Table::new(&[
        column("JOB").right(),
        column("OWNER"),
        column("PROJECT").shrink(12).drop(1),
        column("NODES").right(),
        column("OVER BY"),
    ]);
    for one in staying {
        table.toned_row([
            (one.job_id.to_string(), Tone::Plain),
            (one.owner.clone(), Tone::Plain),
            (one.project.clone(), Tone::Plain),
            (one.nodes.to_string(), Tone::Plain),
            (time::local(one.ends_us.unwrap_or_default()), Tone::Plain),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nodes_are_named_by_ranges_or_by_a_label() {
        let names = ["n1", "n2"].map(ToOwned::to_owned).to_vec();
        assert_eq!(selector("n[1-2]"), Ok(Selector::Names(names)));
        let label = Selector::Label("rack".to_owned(), "r12".to_owned());
        assert_eq!(selector("rack=r12"), Ok(label));
        assert!(selector("rack=").is_err() && selector("n[2-1]").is_err());
    }

    #[test]
    fn a_beginning_is_a_moment_or_a_time_from_now() {
        assert_eq!(moment("+2h"), Ok(Beginning::InS(7200)));
        assert_eq!(moment("1970-01-01T09:00:01+09:00"), Ok(Beginning::AtUs(1_000_000)));
        assert!(moment("soon").unwrap_err().contains("+2h"));
    }

    #[test]
    fn the_listing_fits_80_columns() {
        let one = v1::Maintenance {
            id: 3,
            state: v1::MaintenanceState::Planned.into(),
            nodes: (1..=18).map(|number| format!("gpu-{number:03}")).collect(),
            reason: "new switch".to_owned(),
            by: "kim".to_owned(),
            staying: 2,
            ..Default::default()
        };
        let text = table(&[MaintenanceView::of(one)]).render(Some(80), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("gpu-001") && text.contains("planned"), "{text}");
    }
}
