//! `gotgan admin reservation`: nodes that are for some projects alone from one moment until another.

use clap::{Args, Subcommand};
use gotgan_proto::v1;

use super::maintenance::{Beginning, at_us, moment, staying_table};
use crate::{
    context::Context,
    error::Error,
    output::{
        table::{Table, Tone, column, fields},
        time,
    },
    units,
    view::{
        maintenance::nodes_short,
        reservation::{CreatedView, Listing, ReservationView},
    },
};

const EXAMPLES: &str = "\
Examples:
  gotgan admin reservation create course -A public/nup/ai-101 --count 4 --for 3h
  gotgan admin reservation extend course --for 1h
  gotgan admin reservation list
  gotgan admin reservation show course
  gotgan admin reservation cancel course
A job asks for its nodes with: gotgan submit --reservation course ...";

#[derive(Debug, Subcommand)]
pub(super) enum ReservationAction {
    Create(Box<Create>),
    Extend(Extend),
    /// List what is planned or holds
    List {
        /// With those that are over or cancelled
        #[arg(long)]
        all: bool,
    },
    /// Show one with all its nodes
    Show {
        /// Its name
        name: String,
    },
    /// Take one back; what runs goes on
    Cancel {
        /// Its name
        name: String,
    },
}

/// Keep nodes for projects from one moment until another
///
/// From now on nothing of others starts on them that would not be over by the beginning, time limit and grace together;
/// while it holds, only jobs of these projects do, if their time limit is over by its end. Nothing is stopped for it: what
/// may still run at the beginning is listed.
#[derive(Args, Debug)]
#[command(after_help = CREATE_EXAMPLES, override_usage = "gotgan admin reservation create NAME -A PATH... -w NODES --for TIME\n       gotgan admin reservation create NAME -A PATH... --count N --for TIME")]
pub(super) struct Create {
    /// What it is called: lower-case letters, digits and hyphens
    name: String,
    /// Project that it is for, with all below it; may be repeated
    #[arg(
        long = "project",
        short = 'A',
        value_name = "PATH",
        required = true,
        value_delimiter = ','
    )]
    projects: Vec<String>,
    /// These nodes, as in gpu-[001-018]
    #[arg(long, short = 'w', value_parser = nodes, value_name = "NODES", required_unless_present = "count")]
    nodes: Option<Nodes>,
    /// So many nodes, on which fewest jobs still run then, close together
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N", conflicts_with = "nodes")]
    count: Option<u32>,
    /// Only nodes with GPUs of this class
    #[arg(long, value_parser = units::parse_gpu_class, value_name = "CLASS", conflicts_with = "nodes")]
    gpu_class: Option<String>,
    /// Only nodes of this block, as in rack=r12
    #[arg(long, value_name = "LEVEL=NAME", conflicts_with = "nodes")]
    block: Option<String>,
    /// When it begins, as in +2h or 2026-11-30T18:00:00+09:00 [default: now]
    #[arg(long, value_parser = moment, value_name = "WHEN")]
    from: Option<Beginning>,
    /// How long it holds: minutes, HH:MM:SS, D-HH:MM:SS, or 30s, 10m, 2h, 7d
    #[arg(long = "for", value_parser = units::parse_time, value_name = "TIME", required_unless_present = "until")]
    duration_s: Option<i64>,
    /// Until when it holds, as --from
    #[arg(long, value_parser = moment, value_name = "WHEN", conflicts_with = "duration_s")]
    until: Option<Beginning>,
    /// Why; shown to everybody
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Say what would come of it, and do nothing
    #[arg(long)]
    dry_run: bool,
}

const CREATE_EXAMPLES: &str = "\
Examples:
  gotgan admin reservation create course -A public/nup/ai-101 --count 4 \\
    --from +2h --for 3h
  gotgan admin reservation create demo -A public/fm/team-1,public/fm/team-2 \\
    -w 'gpu-[001-004]' --from 2026-11-30T18:00:00+09:00 --for 4h \\
    --reason 'live demo'
  gotgan admin reservation create big -A public/fm --count 16 \\
    --gpu-class b200 --block rack=r12 --from +24h --for 12h --dry-run";

/// Let one hold longer
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan admin reservation extend course --for 1h\n  gotgan admin reservation extend course --until 2026-11-30T23:00:00+09:00"
)]
pub(super) struct Extend {
    /// Its name
    name: String,
    /// So much longer than now
    #[arg(long = "for", value_parser = units::parse_time, value_name = "TIME", required_unless_present = "until")]
    duration_s: Option<i64>,
    /// Until when, as in +2h or 2026-11-30T18:00:00+09:00
    #[arg(long, value_parser = moment, value_name = "WHEN", conflicts_with = "duration_s")]
    until: Option<Beginning>,
}

/// Names of nodes as one argument says them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nodes(Vec<String>);

fn nodes(text: &str) -> Result<Nodes, String> {
    units::parse_node_list(text).map(Nodes)
}

/// Nodes that are kept for projects by command, for some hours
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Reservation {
    #[command(subcommand)]
    action: ReservationAction,
}

impl Reservation {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        match self.action {
            ReservationAction::Create(create) => create.run(context).await,
            ReservationAction::Extend(extend) => extend.run(context).await,
            ReservationAction::List { all } => list(all, context).await,
            ReservationAction::Show { name } => show(name, context).await,
            ReservationAction::Cancel { name } => cancel(name, context).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<(), Error> {
        let dry_run = self.dry_run;
        let request = self.request(context.idempotency_key()?, time::now_us());
        let client = context.client()?;
        let answer =
            client.call(async |api| api.nodes().create_reservation(request.clone()).await).await?;
        let created = CreatedView::of(answer, dry_run);
        let output = &context.output;
        if output.json {
            return output.document("gotgan.reservation_created/1", &created);
        }
        output.line(detail(&created.reservation).trim_end())?;
        if dry_run {
            output.aside("nothing is reserved: this was a dry run");
        }
        if created.staying.is_empty() {
            return output.line("nothing runs past its beginning");
        }
        let count = created.reservation.staying;
        output.line(&format!("\nmay still run at its beginning and goes on: {count}"))?;
        output.table(&staying_table(&created.staying))
    }

    fn request(self, idempotency_key: String, now_us: i64) -> v1::CreateReservationRequest {
        v1::CreateReservationRequest {
            idempotency_key,
            name: self.name,
            holders: self.projects,
            nodes: self.nodes.map(|nodes| nodes.0).unwrap_or_default(),
            count: self.count.unwrap_or_default(),
            gpu_class: self.gpu_class.unwrap_or_default(),
            block: self.block.unwrap_or_default(),
            from_us: at_us(self.from, now_us),
            duration_s: self.duration_s.unwrap_or_default(),
            until_us: at_us(self.until, now_us),
            reason: self.reason,
            dry_run: self.dry_run,
        }
    }
}

impl Extend {
    async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::ExtendReservationRequest {
            idempotency_key: context.idempotency_key()?,
            name: self.name,
            until_us: at_us(self.until, time::now_us()),
            duration_s: self.duration_s.unwrap_or_default(),
        };
        let client = context.client()?;
        let answer =
            client.call(async |api| api.nodes().extend_reservation(request.clone()).await).await?;
        let extended = ReservationView::of(answer.reservation.unwrap_or_default());
        if context.output.json {
            return context.output.document("gotgan.reservation_extended/1", &extended);
        }
        context.output.line(detail(&extended).trim_end())
    }
}

async fn cancel(name: String, context: &Context) -> Result<(), Error> {
    let idempotency_key = context.idempotency_key()?;
    let request = v1::CancelReservationRequest { idempotency_key, name };
    let client = context.client()?;
    let answer =
        client.call(async |api| api.nodes().cancel_reservation(request.clone()).await).await?;
    let cancelled = ReservationView::of(answer.reservation.unwrap_or_default());
    if context.output.json {
        return context.output.document("gotgan.reservation_cancelled/1", &cancelled);
    }
    let nodes = nodes_short(&cancelled.nodes);
    context.output.line(&format!("reservation {} of {nodes} cancelled", cancelled.name))
}

async fn fetch(
    name: String,
    ended: bool,
    context: &Context,
) -> Result<Vec<ReservationView>, Error> {
    let request = v1::ListReservationsRequest { name, ended };
    let client = context.client()?;
    let answer =
        client.call(async |api| api.nodes().list_reservations(request.clone()).await).await?;
    Ok(answer.reservations.into_iter().map(ReservationView::of).collect())
}

async fn list(all: bool, context: &Context) -> Result<(), Error> {
    let reservations = fetch(String::new(), all, context).await?;
    if context.output.json {
        return context.output.document("gotgan.reservations/1", &Listing { reservations });
    }
    if reservations.is_empty() {
        context.output.aside("no reservation is planned or holds");
        return Ok(());
    }
    context.output.table(&table(&reservations))
}

async fn show(name: String, context: &Context) -> Result<(), Error> {
    let found = fetch(name, true, context).await?;
    for one in &found {
        if context.output.json {
            context.output.document("gotgan.reservation/1", one)?;
        } else {
            context.output.line(detail(one).trim_end())?;
        }
    }
    Ok(())
}

fn detail(one: &ReservationView) -> String {
    let local = |at: Option<i64>| time::local(at.unwrap_or_default());
    let cancelled = match one.cancelled_by.as_str() {
        "" => String::new(),
        by => format!("{} by {by}", local(one.cancelled_us)),
    };
    fields(&[
        ("Reservation", one.name.clone()),
        ("State", one.state.clone()),
        ("For", one.holders.join(", ")),
        ("Nodes", one.nodes.join(", ")),
        ("From", local(one.from_us)),
        ("Until", local(one.until_us)),
        ("Reason", one.reason.clone()),
        ("By", one.by.clone()),
        ("Cancelled", cancelled),
    ])
}

fn table(listed: &[ReservationView]) -> Table {
    let mut table = Table::new(&[
        column("NAME").shrink(12),
        column("STATE"),
        column("FOR").shrink(14),
        column("NODES").right(),
        column("FROM"),
        column("UNTIL"),
        column("RUN PAST IT").right().drop(2),
        column("BY").drop(3),
        column("REASON").shrink(12).drop(1),
    ]);
    for one in listed {
        let tone = match one.state.as_str() {
            "holds" => Tone::Warning,
            "planned" => Tone::Plain,
            _ => Tone::Dim,
        };
        let local = |at: Option<i64>| time::local(at.unwrap_or_default());
        table.toned_row([
            (one.name.clone(), Tone::Plain),
            (one.state.clone(), tone),
            (one.holders.join(","), Tone::Plain),
            (one.nodes.len().to_string(), Tone::Plain),
            (local(one.from_us), Tone::Plain),
            (local(one.until_us), Tone::Plain),
            (one.staying.to_string(), Tone::Plain),
            (one.by.clone(), Tone::Dim),
            (one.reason.clone(), Tone::Plain),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn request(words: &str) -> Result<v1::CreateReservationRequest, clap::Error> {
        let line = <Line as clap::Parser>::try_parse_from(words.split(' '))?;
        Ok(line.create.request("key".to_owned(), 1_000_000))
    }

    #[test]
    fn nodes_are_named_or_counted_and_the_end_is_said_one_way() {
        let named = request("x r -A public/a,public/b --nodes n[1-2] --from +1h --for 2h").unwrap();
        assert_eq!((named.holders.len(), named.nodes.len(), named.count), (2, 2, 0));
        assert_eq!((named.from_us, named.duration_s), (3_601_000_000, 7200));
        let counted = request("x r -A public/a --count 3 --block rack=r1 --until +1h").unwrap();
        assert_eq!((counted.count, counted.block.as_str()), (3, "rack=r1"));
        assert_eq!((counted.until_us, counted.duration_s), (3_601_000_000, 0));
        for bad in [
            "x r --count 3 --for 1h",
            "x r -A public/a --for 1h",
            "x r -A public/a --count 0 --for 1h",
            "x r -A public/a --count 3 --nodes n1 --for 1h",
            "x r -A public/a --count 3",
            "x r -A public/a --count 3 --for 1h --until +2h",
            "x r -A public/a --nodes n1 --block rack=r1 --for 1h",
        ] {
            assert!(request(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_listing_fits_80_columns() {
        let one = v1::Reservation {
            name: "course-of-november".to_owned(),
            state: v1::ReservationState::Planned.into(),
            holders: vec!["public/nup/startup-042".to_owned()],
            nodes: (1..=18).map(|number| format!("gpu-{number:03}")).collect(),
            reason: "live demo".to_owned(),
            by: "kim".to_owned(),
            staying: 2,
            ..Default::default()
        };
        let text = table(&[ReservationView::of(one)]).render(Some(80), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("public/nup") && text.contains("planned"), "{text}");
    }
}
