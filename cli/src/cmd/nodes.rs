//! `gotgan nodes`: the machines.

use clap::Args;
use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    context::Context,
    error::{Error, Exit},
    listing::PAGE_MAX,
    output::{
        table::{Table, Tone, column},
        time,
    },
    view::{amount, blocks, job::tone_of_state, node::NodeView},
};

/// List the nodes
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Nodes {
    /// Only nodes with GPUs of this class
    #[arg(long, value_name = "CLASS", default_value = "", hide_default_value = true)]
    gpu_class: String,
}

const EXAMPLES: &str = "\
Examples:
  gotgan nodes
  gotgan nodes --gpu-class b200 --json | jq '.nodes[] | {name, free_gpu_milli}'";

#[derive(Serialize)]
struct Listing {
    nodes: Vec<NodeView>,
}

impl Nodes {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let client = context.client()?;
        let (mut nodes, mut token) = (Vec::new(), String::new());
        loop {
            let page = Some(v1::PageRequest { size: PAGE_MAX, token });
            let request = v1::ListNodesRequest { gpu_class: self.gpu_class.clone(), page };
            let answer = client.call(async |api| api.nodes().list(request.clone()).await).await?;
            nodes.extend(answer.nodes.iter().map(NodeView::of));
            token = answer.next_token;
            if token.is_empty() {
                break;
            }
        }
        if context.output.json {
            context.output.document("gotgan.nodes/1", &Listing { nodes })?;
        } else if nodes.is_empty() {
            context.output.aside("no nodes");
        } else {
            context.output.table(&table(&nodes, time::now_us()))?;
        }
        Ok(Exit::Ok.code())
    }
}

fn table(nodes: &[NodeView], now_us: i64) -> Table {
    let mut table = Table::new(&[
        column("NODE").shrink(24),
        column("STATE"),
        column("CLASS").drop(4),
        column("FREE GPUS").right(),
        column("FREE CPUS").right().drop(5),
        column("FREE MEMORY").right().drop(6),
        column("JOBS").right().drop(3),
        column("HEARD").right().drop(7),
        column("NOTE").shrink(44).drop(1),
        column("REASON").shrink(12).drop(8),
        column("BLOCK").shrink(12).drop(9),
    ]);
    for node in nodes {
        let of = |free: u64, all: u64| format!("{}/{}", amount::milli(free), amount::milli(all));
        table.toned_row([
            (node.name.clone(), Tone::Plain),
            (node.state(), tone(node)),
            (node.gpu_classes.join(","), Tone::Plain),
            (of(node.free_gpu_milli, node.gpu_milli), Tone::Plain),
            (of(node.free_cpu_milli, node.cpu_milli), Tone::Plain),
            (amount::memory(node.free_memory_mib), Tone::Plain),
            (node.attempts.len().to_string(), Tone::Plain),
            (time::ago(node.last_heartbeat_us.unwrap_or_default(), now_us), Tone::Dim),
            (node.note(now_us), Tone::Warning),
            (node.admin_reason.clone(), Tone::Plain),
            (narrowest_block(node), Tone::Plain),
        ]);
    }
    table
}

/// The narrowest block that the node belongs to, as in "nvlink hall-1/rack-07".
fn narrowest_block(node: &NodeView) -> String {
    let blocks = blocks::of_labels(&node.labels);
    blocks.last().map(|(level, name)| format!("{level} {name}")).unwrap_or_default()
}

fn tone(node: &NodeView) -> Tone {
    match node.state().as_str() {
        "ready" => Tone::Good,
        "unknown" => Tone::Warning,
        _ if node.liveness == "lost" => Tone::Bad,
        state => match tone_of_state(state) {
            Tone::Plain => Tone::Warning,
            other => other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, liveness: v1::NodeLiveness, admin: v1::NodeAdmin) -> v1::Node {
        let gpu =
            |index| v1::GpuDevice { index, gpu_class: "b200".to_owned(), ..Default::default() };
        let inventory = v1::NodeInventory {
            cpu_milli: 128_000,
            memory_mib: 2 << 20,
            gpus: (0..8).map(gpu).collect(),
            simulated: true,
            ..Default::default()
        };
        v1::Node {
            name: name.to_owned(),
            liveness: liveness.into(),
            admin: admin.into(),
            inventory: Some(inventory),
            free_gpu_milli: 3750,
            free_cpu_milli: 64_000,
            free_memory_mib: 1 << 20,
            attempts: vec!["42.1".to_owned()],
            last_heartbeat_us: 1_000_000,
            ..Default::default()
        }
    }

    #[test]
    fn the_listing_looks_good_on_80_columns() {
        let mut drained = node("gpu-node-002", v1::NodeLiveness::Ready, v1::NodeAdmin::Draining);
        drained.admin_reason = "kim: fan of GPU 3 is loud".to_owned();
        let first = node("gpu-node-001", v1::NodeLiveness::Ready, v1::NodeAdmin::Active);
        let nodes = [NodeView::of(&first), NodeView::of(&drained)];
        insta::assert_snapshot!(table(&nodes, 4_000_000).render(Some(80), false), @"
        NODE          STATE     CLASS  FREE GPUS  FREE CPUS  JOBS  NOTE
        gpu-node-001  ready     b200      3.75/8     64/128     1  simulated
        gpu-node-002  draining  b200      3.75/8     64/128     1  simulated
        ");
    }

    #[test]
    fn for_whom_a_node_is_reserved_is_seen_on_80_columns() {
        let mut reserved = node("gpu-node-001", v1::NodeLiveness::Ready, v1::NodeAdmin::Active);
        reserved.reservation = Some(v1::Reservation {
            state: v1::ReservationState::Holds.into(),
            holders: vec!["public/nup/ai-101".to_owned()],
            from_us: 1_000_000,
            until_us: 9_000_000,
            ..Default::default()
        });
        let text = table(&[NodeView::of(&reserved)], 4_000_000).render(Some(80), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("reserved for public/nup/ai-101"), "{text}");
    }
}
