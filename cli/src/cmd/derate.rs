//! `gotgan admin derate`: less power for a part of the machine, for a time.

use clap::Args;
use gotgan_proto::v1;

use super::maintenance::{Selector, names_and_labels, selector, staying_table};
use crate::{
    context::Context,
    error::Error,
    output::{table::fields, time},
    units,
    view::{derate::DerateView, maintenance::nodes_short},
};

/// Bring the power of a hall or of other nodes down for a time
///
/// So many nodes stand idle that the rest draws no more than is wanted: first those on which nothing runs. What must stop for it
/// is warned and ends with its grace: scavengers first, then what is beyond a budget, then what borrows, then what is
/// guaranteed, and of each what loses least. It waits again with its age, and what it was charged is given back. At the end
/// the nodes take jobs again by themselves; `gotgan node maintenance --cancel ID` ends it early.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Derate {
    /// Names, as in gpu-[001-018], or a label that the nodes carry, as in hall=h2
    #[arg(value_parser = selector, value_name = "NODES", required_unless_present = "gpu_class")]
    nodes: Vec<Selector>,
    /// Only nodes with GPUs of this class
    #[arg(long, value_parser = units::parse_gpu_class, value_name = "CLASS")]
    gpu_class: Option<String>,
    /// To how much of what they may draw, as in 50%
    #[arg(long, value_parser = percent, value_name = "PERCENT")]
    to: u32,
    /// For how long: minutes, HH:MM:SS, D-HH:MM:SS, or 30s, 10m, 2h, 7d
    #[arg(long = "for", value_parser = units::parse_time, value_name = "TIME")]
    duration_s: i64,
    /// Why; shown to everybody
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Say what would stand idle and what would stop, and do nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  gotgan admin derate hall=h2 --to 50% --for 4h --reason 'heat wave' --dry-run
  gotgan admin derate hall=h2 --to 50% --for 4h --reason 'heat wave'
  gotgan admin derate gpu-[001-100] --to 80% --for 30m --reason 'chiller 3'";

fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    number
        .ok()
        .filter(|percent| (1..=99).contains(percent))
        .ok_or_else(|| "write 1% to 99% of what the nodes may draw".to_owned())
}

impl Derate {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let request = self.request(context.idempotency_key()?);
        let client = context.client()?;
        let answer = client.call(async |api| api.nodes().derate(request.clone()).await).await?;
        let derated = DerateView::of(answer);
        let output = &context.output;
        if output.json {
            return output.document("gotgan.derate/1", &derated);
        }
        output.line(detail(&derated).trim_end())?;
        if derated.dry_run {
            output.aside("nothing is changed: this was a dry run");
        }
        if derated.stopped_attempts.is_empty() {
            return output.line("nothing stops for it");
        }
        let stops = if derated.dry_run { "would stop" } else { "stops" };
        output.line(&format!("\n{stops}, each with its grace: {}", derated.stopped))?;
        output.table(&staying_table(&derated.stopped_attempts))
    }

    fn request(self, idempotency_key: String) -> v1::DerateRequest {
        let (nodes, labels) = names_and_labels(self.nodes);
        v1::DerateRequest {
            idempotency_key,
            nodes,
            labels: labels.into_iter().collect(),
            gpu_class: self.gpu_class.unwrap_or_default(),
            to_percent: self.to,
            duration_s: self.duration_s,
            reason: self.reason,
            dry_run: self.dry_run,
        }
    }
}

fn detail(derated: &DerateView) -> String {
    let DerateView { gpus, gpus_idle, full_watts, watts, .. } = derated;
    let maintenance = derated.maintenance.as_ref();
    let until = maintenance.and_then(|it| it.until_us).map(time::local);
    fields(&[
        ("Maintenance", maintenance.map(|it| it.id.to_string()).unwrap_or_default()),
        ("Idle", nodes_short(&derated.idle_nodes)),
        ("GPUs", format!("{} of {gpus} stay", gpus - gpus_idle)),
        ("Power", format!("at most {:.1} of {:.1} kW", kilo(*watts), kilo(*full_watts))),
        ("Until", until.unwrap_or_default()),
    ])
}

fn kilo(watts: u64) -> f64 {
    watts as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_said_in_percent() {
        assert_eq!(percent("50%"), Ok(50));
        assert_eq!(percent("80"), Ok(80));
        for bad in ["0%", "100%", "half", "-3"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
