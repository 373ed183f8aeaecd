//! `gotgan node verify`, `reset-breaker` and `history`: hardware that was not well, and what happened to a node.

use clap::Args;
use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    context::Context,
    error::Error,
    output::{
        table::{Table, Tone, column},
        text::filled,
        time,
    },
    view::{
        health::HealthView,
        node::{GpuView, NodeView},
    },
};

/// Let hardware come back that is out: it is watched for a while, and takes work if it stays well
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan node verify gpu-001            (the node and all its GPUs)\n  gotgan node verify gpu-001 --gpu 3    (one GPU, by its number or its UUID)"
)]
pub struct Verify {
    /// Name of the node
    name: String,
    /// Only this GPU: its number on the node, or its UUID
    #[arg(long, value_name = "GPU")]
    gpu: Option<String>,
}

#[derive(Serialize)]
struct Done {
    name: String,
    changed: bool,
}

impl Verify {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let gpu_uuid = match &self.gpu {
            Some(gpu) => uuid_of(&self.name, gpu, context).await?,
            None => String::new(),
        };
        let idempotency_key = context.idempotency_key()?;
        let request = v1::VerifyRequest { idempotency_key, name: self.name.clone(), gpu_uuid };
        let client = context.client()?;
        let answer = client.call(async |api| api.nodes().verify(request.clone()).await).await?;
        let done = Done { name: self.name, changed: answer.changed };
        if context.output.json {
            return context.output.document("gotgan.node_verify/1", &done);
        }
        let what = self.gpu.map(|gpu| format!("GPU {gpu} of ")).unwrap_or_default();
        let name = &done.name;
        context.output.line(&match done.changed {
            true => {
                format!("{what}node {name}: what was out is verified, what was watched is sound")
            }
            false => format!("{what}node {name}: nothing was out or watched"),
        })
    }
}

/// The UUID of a GPU of a node; a number is its place there.
pub(super) async fn uuid_of(name: &str, gpu: &str, context: &Context) -> Result<String, Error> {
    let Ok(index) = gpu.parse::<u32>() else { return Ok(gpu.to_owned()) };
    let request = v1::GetNodeRequest { name: name.to_owned() };
    let client = context.client()?;
    let node = client.call(async |api| api.nodes().get(request.clone()).await).await?;
    let found = node.inventory.unwrap_or_default().gpus.into_iter();
    let found = found.filter(|found| found.index == index).map(|found| found.uuid).next();
    found.ok_or_else(|| {
        let message = format!("node {name} has no GPU {index}");
        Error::Usage { message, hint: format!("gotgan node {name}") }
    })
}

/// Let hardware of a hall be taken out by itself again, after its circuit breaker broke
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  gotgan node reset-breaker 'hall h2'    (as gotgan cluster names it)"
)]
pub struct ResetBreaker {
    /// What the breaker is of, as in 'hall h2'
    scope: String,
}

impl ResetBreaker {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let idempotency_key = context.idempotency_key()?;
        let request = v1::ResetBreakerRequest { idempotency_key, scope: self.scope.clone() };
        let client = context.client()?;
        client.call(async |api| api.nodes().reset_breaker(request.clone()).await).await?;
        if context.output.json {
            let done = Done { name: self.scope, changed: true };
            return context.output.document("gotgan.breaker_reset/1", &done);
        }
        context.output.line(&format!("the breaker of {} is reset", self.scope))
    }
}

/// What happened to a node, the newest first
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  gotgan node history gpu-001 --last 100")]
pub struct History {
    /// Name of the node
    name: String,
    /// So many events, up to 1000
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: u32,
}

/// What happened to a node.
#[derive(Serialize)]
struct HistoryView {
    name: String,
    /// The newest first.
    events: Vec<NodeEventView>,
}

#[derive(Serialize)]
struct NodeEventView {
    seq: u64,
    at_us: i64,
    at: Option<String>,
    kind: String,
    text: String,
}

impl History {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let name = self.name;
        let request = v1::NodeHistoryRequest { name: name.clone(), size: self.last };
        let client = context.client()?;
        let answer = client.call(async |api| api.nodes().history(request.clone()).await).await?;
        let events = answer.events.into_iter().map(event).collect();
        let history = HistoryView { name, events };
        if context.output.json {
            return context.output.document("gotgan.node_history/1", &history);
        }
        for line in history.events.iter().flat_map(lines) {
            context.output.line(&line)?;
        }
        Ok(())
    }
}

fn event(event: v1::NodeEvent) -> NodeEventView {
    let v1::NodeEvent { seq, at_us, kind, text } = event;
    NodeEventView { seq, at_us, at: time::rfc3339(at_us), kind, text }
}

/// An event in words.
fn lines(event: &NodeEventView) -> Vec<String> {
    filled(&time::local(event.at_us), &format!("{}: {}", event.kind.replace('_', " "), event.text))
}

/// The node and those of its GPUs about which there is something to say; nothing if all are sound.
pub(super) fn health_table(node: &NodeView, now_us: i64) -> Option<Table> {
    let mut table = Table::new(&[
        column("HARDWARE"),
        column("STATE"),
        column("SINCE").right().drop(2),
        column("TO DO").drop(1),
    ]);
    let mut some = false;
    let gpu = |gpu: &GpuView| (format!("GPU {}", gpu.index), gpu.health.clone());
    let all = std::iter::once(("node".to_owned(), node.health.clone()));
    for (name, health) in all.chain(node.gpus.iter().map(gpu)) {
        if health.is_ok() {
            continue;
        }
        some = true;
        table.toned_row([
            (name, Tone::Plain),
            (health.state.clone(), tone(&health)),
            (time::ago(health.since_us.unwrap_or_default(), now_us), Tone::Dim),
            (health.to_do(), Tone::Warning),
        ]);
    }
    some.then_some(table)
}

/// Why they stand so, in whole sentences.
pub(super) fn reasons(node: &NodeView) -> Vec<String> {
    let gpus = node.gpus.iter().map(|gpu| &gpu.health);
    let all = std::iter::once(&node.health).chain(gpus);
    let mut reasons: Vec<&str> = Vec::new();
    for reason in all.map(|health| health.reason.as_str()).filter(|reason| !reason.is_empty()) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons.into_iter().flat_map(|reason| filled("-", reason)).collect()
}

fn tone(health: &HealthView) -> Tone {
    match health.is_out() {
        true => Tone::Bad,
        false => Tone::Warning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(state: v1::HealthState, repair: &str, reason: &str) -> v1::HardwareHealth {
        v1::HardwareHealth {
            state: state.into(),
            since_us: 1_000_000,
            reason: reason.to_owned(),
            repair: repair.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_wrong_with_the_hardware_is_seen_on_80_columns() {
        let gpus = (0..3).map(|index| v1::GpuDevice { index, ..Default::default() }).collect();
        let fell = "GPU 1: Xid 79: the GPU has fallen off the bus (process 4711; GPU has fallen off the bus)";
        let watched = "GPU 2: bad rows of its memory are replaced at the next reset";
        let node = v1::Node {
            liveness: v1::NodeLiveness::Ready.into(),
            inventory: Some(v1::NodeInventory { gpus, ..Default::default() }),
            health: Some(health(v1::HealthState::Draining, "reboot", fell)),
            gpu_health: vec![
                health(v1::HealthState::Ok, "", ""),
                health(v1::HealthState::Out, "reboot", fell),
                health(v1::HealthState::Suspect, "reset", watched),
            ],
            ..Default::default()
        };
        let node = NodeView::of(&node);
        insta::assert_snapshot!(health_table(&node, 91_000_000).unwrap().render(Some(80), false), @"
        HARDWARE  STATE         SINCE  TO DO
        node      draining  1m30s ago  reboot
        GPU 1     out       1m30s ago  reboot
        GPU 2     suspect   1m30s ago  reset when idle
        ");
        insta::assert_snapshot!(reasons(&node).join("\n"), @"
        - GPU 1: Xid 79: the GPU has fallen off the bus (process 4711; GPU has fallen
           off the bus)
        - GPU 2: bad rows of its memory are replaced at the next reset
        ");
        assert_eq!(node.state(), "draining");
        assert_eq!(node.note(0), "1 GPU out, 1 GPU suspect");
        assert!(health_table(&NodeView::of(&v1::Node::default()), 0).is_none());
    }
}
