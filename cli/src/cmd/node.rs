//! `gotgan node`: one machine with its GPUs; taking it out of service and back.

use clap::{Args, Subcommand};
use gotgan_proto::v1;
use serde::Serialize;

use super::health::{History, ResetBreaker, Verify, health_table, reasons};
use super::maintenance::Maintenance;
use super::mig::Mig;
use crate::{
    context::Context,
    error::{Error, Exit},
    output::{
        table::{Table, Tone, column, fields},
        text::filled,
        time,
    },
    view::{
        amount, blocks,
        node::{GpuView, NodeView},
        word,
    },
};

/// Show a node, drain it or put it back, verify its hardware, or plan maintenance of some
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, override_usage = "gotgan node NAME\n       gotgan node drain NAME --reason TEXT\n       gotgan node resume NAME\n       gotgan node verify NAME [--gpu GPU]\n       gotgan node reset-breaker SCOPE\n       gotgan node history NAME\n       gotgan node mig NAME --gpu GPU --profiles PROFILES\n       gotgan node maintenance NODES... --for TIME --reason TEXT [--from WHEN]")]
pub struct NodeCommand {
    /// Name of the node
    #[arg(required = true)]
    name: Option<String>,
    #[command(subcommand)]
    action: Option<Action>,
}

const EXAMPLES: &str = "\
Examples:
  gotgan node gpu-001
  gotgan node drain gpu-001 --reason 'fan of GPU 3'    (what runs goes on)
  gotgan node resume gpu-001
  gotgan node verify gpu-001 --gpu 3    (it was repaired)
  gotgan node history gpu-001
  gotgan node mig gpu-001 --gpu 3 --profiles 3g.40gb,2g.20gb,2g.20gb
  gotgan node maintenance rack=r12 --from +6h --for 2h --reason 'new fans'";

#[derive(Debug, Subcommand)]
enum Action {
    /// Start nothing new on it; what runs goes on
    #[command(after_help = "Example:\n  gotgan node drain gpu-001 --reason 'fan of GPU 3'")]
    Drain {
        name: String,
        /// Why; shown to everybody
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Take a drain back
    #[command(after_help = "Example:\n  gotgan node resume gpu-001")]
    Resume {
        name: String,
    },
    Verify(Verify),
    ResetBreaker(ResetBreaker),
    History(History),
    Mig(Mig),
    Maintenance(Box<Maintenance>),
}

#[derive(Serialize)]
struct Done {
    name: String,
    changed: bool,
    admin: String,
}

impl NodeCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        match (self.action, self.name) {
            (Some(Action::Drain { name, reason }), _) => drain(name, reason, context).await?,
            (Some(Action::Resume { name }), _) => resume(name, context).await?,
            (Some(Action::Verify(command)), _) => command.run(context).await?,
            (Some(Action::ResetBreaker(command)), _) => command.run(context).await?,
            (Some(Action::History(command)), _) => command.run(context).await?,
            (Some(Action::Mig(command)), _) => command.run(context).await?,
            (Some(Action::Maintenance(command)), _) => command.run(context).await?,
            (None, name) => show(name.unwrap_or_default(), context).await?,
        }
        Ok(Exit::Ok.code())
    }
}

async fn drain(name: String, reason: String, context: &Context) -> Result<(), Error> {
    let idempotency_key = context.idempotency_key()?;
    let request = v1::DrainRequest { idempotency_key, name: name.clone(), reason };
    let answer =
        context.client()?.call(async |api| api.nodes().drain(request.clone()).await).await?;
    tell(name, &answer, context)
}

async fn resume(name: String, context: &Context) -> Result<(), Error> {
    let idempotency_key = context.idempotency_key()?;
    let request = v1::ResumeRequest { idempotency_key, name: name.clone() };
    let answer =
        context.client()?.call(async |api| api.nodes().resume(request.clone()).await).await?;
    tell(name, &answer, context)
}

fn tell(name: String, answer: &v1::NodeActionResponse, context: &Context) -> Result<(), Error> {
    let done = Done { name, changed: answer.changed, admin: word::node_admin(answer.admin) };
    if context.output.json {
        return context.output.document("gotgan.node_action/1", &done);
    }
    let note = if done.changed { "" } else { " (was so already)" };
    context.output.line(&format!("node {} {}{note}", done.name, done.admin))
}

async fn show(name: String, context: &Context) -> Result<(), Error> {
    let request = v1::GetNodeRequest { name };
    let answer = context.client()?.call(async |api| api.nodes().get(request.clone()).await).await?;
    let node = NodeView::of(&answer);
    let output = &context.output;
    if output.json {
        return output.document("gotgan.node/1", &node);
    }
    output.text(&summary(&node, time::now_us()))?;
    for line in
        confinement(&node).into_iter().chain(images(&node)).chain(caps(&node)).chain(imex(&node))
    {
        output.line(&line)?;
    }
    if let Some(health) = health_table(&node, time::now_us()) {
        output.line("")?;
        output.table(&health)?;
        for line in reasons(&node) {
            output.line(&line)?;
        }
    }
    for line in score(&node).into_iter().chain(cut_plans(&node)) {
        output.line(&line)?;
    }
    if node.gpus.is_empty() {
        return Ok(());
    }
    output.line("")?;
    output.table(&gpu_table(&node.gpus))?;
    let details = detail_table(&node.gpus);
    if let Some(details) = &details {
        output.line("")?;
        output.table(details)?;
    }
    if node.gpus.iter().any(|gpu| !gpu.detail.mig_devices.is_empty()) {
        output.line("")?;
        output.table(&mig_table(&node.gpus))?;
    }
    Ok(())
}

/// What speaks against it, if anything does.
fn score(node: &NodeView) -> Vec<String> {
    let score = node.score.iter();
    score.flat_map(|score| filled("-", &score.text())).collect()
}

/// Which of its GPUs are to be cut anew, and how far that is.
fn cut_plans(node: &NodeView) -> Vec<String> {
    let name = |uuid: &str| {
        let gpu = node.gpus.iter().find(|gpu| gpu.uuid == uuid);
        gpu.map_or(uuid.to_owned(), |gpu| gpu.index.to_string())
    };
    let lines = node.cut_plans.iter().map(|plan| plan.text(&name(&plan.gpu_uuid)));
    lines.flat_map(|text| filled("-", &text)).collect()
}

/// The maintenance that it is in or that comes next, in words.
fn maintenance(node: &NodeView) -> String {
    let Some(it) = &node.maintenance else { return String::new() };
    let local = |at: Option<i64>| time::local(at.unwrap_or_default());
    let from = match it.state.as_str() {
        "open" => String::new(),
        _ => format!("from {} ", local(it.from_us)),
    };
    format!("{from}until {}: {} (by {}; {})", local(it.until_us), it.reason, it.by, it.id)
}

/// For whom it is reserved now or next, and until when, in words.
fn reservation(node: &NodeView) -> String {
    let Some(it) = &node.reservation else { return String::new() };
    let local = |at: Option<i64>| time::local(at.unwrap_or_default());
    let from = match it.state.as_str() {
        "holds" => String::new(),
        _ => format!("from {} ", local(it.from_us)),
    };
    let until = local(it.until_us);
    format!("for {} {from}until {until} ({}, by {})", it.holders.join(", "), it.name, it.by)
}

/// That its cluster is of another class, if it is.
fn misplaced(node: &NodeView) -> String {
    match node.cluster_gpu_class.as_str() {
        "" => String::new(),
        class => format!("its label says a cluster whose GPUs are {class}, and its own are not"),
    }
}

/// What jobs on it are confined by; and what they should be and are not: loud, since nobody else says it.
fn confinement(node: &NodeView) -> Vec<String> {
    let Some(it) = &node.confinement else { return Vec::new() };
    let by = match it.applied.is_empty() {
        true => format!("nothing ({})", it.mode),
        false => it.applied.join(", "),
    };
    let mut lines = filled("Jobs are confined by", &by);
    if !it.missing.is_empty() {
        lines.push("NOT CONFINED, though asked for:".to_owned());
        lines.extend(it.missing.iter().flat_map(|why| filled(" ", why)));
    }
    lines
}

/// Whether jobs with an image can run on it, and why not where the site asks for it.
fn images(node: &NodeView) -> Vec<String> {
    node.images.as_ref().map_or_else(Vec::new, |images| filled("Images are", &images.text()))
}

/// Between which its GPUs can be capped, or why they cannot; nothing of a node without GPUs.
fn caps(node: &NodeView) -> Vec<String> {
    let caps = node.caps.as_ref().filter(|_| !node.gpus.is_empty());
    caps.map_or_else(Vec::new, |caps| filled("Power caps are", &caps.text()))
}

/// Whether its GPUs share memory across nodes; nothing of a node whose driver has no channels for it.
fn imex(node: &NodeView) -> Vec<String> {
    node.imex.as_ref().map_or_else(Vec::new, |imex| filled("IMEX channels are", &imex.text()))
}

fn summary(node: &NodeView, now_us: i64) -> String {
    let own = node.labels.iter().filter(|(key, _)| !node.blocks.contains_key(*key));
    let labels: Vec<String> = own.map(|(key, value)| format!("{key}={value}")).collect();
    let blocks: Vec<String> = blocks::of_labels(&node.labels)
        .into_iter()
        .map(|(level, name)| format!("{level} {name}"))
        .collect();
    let note = if node.simulated { " (simulated: its GPUs are invented)" } else { "" };
    let of =
        |free: u64, all: u64| format!("{} free of {}", amount::milli(free), amount::milli(all));
    let memory = format!(
        "{} free of {}",
        amount::memory(node.free_memory_mib),
        amount::memory(node.memory_mib)
    );
    fields(&[
        ("Node", format!("{}{note}", node.name)),
        ("State", node.state()),
        ("Reason", node.admin_reason.clone()),
        ("Maintenance", maintenance(node)),
        ("Reserved", reservation(node)),
        ("Note", misplaced(node)),
        ("NVLink", node.nvlink_disagreement.clone()),
        ("Heard", time::ago(node.last_heartbeat_us.unwrap_or_default(), now_us)),
        ("Address", node.address.clone()),
        ("GPUs", of(node.free_gpu_milli, node.gpu_milli)),
        ("CPUs", of(node.free_cpu_milli, node.cpu_milli)),
        ("Memory", memory),
        ("Jobs", node.attempts.join(", ")),
        ("Blocks", blocks.join(", ")),
        ("Labels", labels.join(", ")),
        ("System", [node.os.as_str(), node.kernel.as_str()].join(" ").trim().to_owned()),
        ("Driver", node.driver_version.clone()),
        ("CUDA", node.cuda_version.clone()),
        ("Worker", node.worker_version.clone()),
    ])
}

/// What drivers tell beyond the readings that every GPU has; none if none tells anything. Notes are never shortened: other
/// columns make room for them.
fn detail_table(gpus: &[GpuView]) -> Option<Table> {
    let mut table = Table::new(&[
        column("GPU").right(),
        column("SERIAL").drop(4),
        column("ENERGY").right().drop(3),
        column("NVLINKS").right().drop(2),
        column("FABRIC").drop(1),
        column("NOTES"),
    ]);
    let mut has_any = false;
    for gpu in gpus {
        let detail = &gpu.detail;
        let cells = [
            detail.serial.clone().unwrap_or_default(),
            detail.energy(),
            detail.links(),
            detail.fabric(),
            detail.notes().join("; "),
        ];
        has_any |= cells.iter().any(|cell| !cell.is_empty());
        let [serial, energy, links, fabric, notes] = cells;
        table.toned_row([
            (gpu.index.to_string(), Tone::Plain),
            (serial, Tone::Plain),
            (energy, Tone::Plain),
            (links, Tone::Plain),
            (fabric, Tone::Plain),
            (notes, Tone::Warning),
        ]);
    }
    has_any.then_some(table)
}

/// The devices that GPUs are cut into.
fn mig_table(gpus: &[GpuView]) -> Table {
    let mut table = Table::new(&[
        column("GPU").right(),
        column("MIG"),
        column("MEMORY").right(),
        column("COUNTS").right().drop(1),
        column("IN USE"),
        column("INSTANCES").drop(1),
        column("UUID").shrink(12).drop(2),
    ]);
    let of = |gpu: &GpuView| (gpu.index, gpu.detail.mig_devices.clone());
    let cut = gpus.iter().map(of);
    for (index, device) in cut.flat_map(|(index, all)| all.into_iter().map(move |it| (index, it))) {
        table.row([
            index.to_string(),
            device.profile,
            amount::memory(device.memory_mib),
            amount::milli(device.milli.into()),
            if device.in_use { "yes" } else { "no" }.to_owned(),
            format!("{}/{}", device.gpu_instance, device.compute_instance),
            device.uuid,
        ]);
    }
    table
}

fn gpu_table(gpus: &[GpuView]) -> Table {
    let mut table = Table::new(&[
        column("GPU").right(),
        column("NAME").shrink(10),
        column("USED BY JOBS").right(),
        column("BUSY").right().drop(2),
        column("MEMORY").right().drop(3),
        column("TEMP").right().drop(4),
        column("POWER").right().drop(5),
        column("ECC").right().drop(6),
        column("UUID").shrink(12).drop(7),
        column("PROBLEM").shrink(12).drop(1),
    ]);
    for gpu in gpus {
        let memory =
            |used| format!("{} / {}", amount::memory(used), amount::memory(gpu.memory_mib));
        let ecc = gpu.ecc_uncorrected.map(|errors| errors.to_string());
        let ecc_tone =
            if gpu.ecc_uncorrected.unwrap_or_default() > 0 { Tone::Bad } else { Tone::Plain };
        table.toned_row([
            (gpu.index.to_string(), Tone::Plain),
            (gpu.name.clone(), Tone::Plain),
            (amount::milli(gpu.allocated_milli.into()), Tone::Plain),
            (
                gpu.utilisation_percent.map(|percent| format!("{percent}%")).unwrap_or_default(),
                Tone::Plain,
            ),
            (
                gpu.memory_used_mib.map_or_else(|| amount::memory(gpu.memory_mib), memory),
                Tone::Plain,
            ),
            (
                gpu.temperature_c.map(|degrees| format!("{degrees} C")).unwrap_or_default(),
                Tone::Plain,
            ),
            (
                gpu.power_mw.map(|power| format!("{} W", power / 1000)).unwrap_or_default(),
                Tone::Plain,
            ),
            (ecc.unwrap_or_default(), ecc_tone),
            (gpu.uuid.clone(), Tone::Dim),
            (gpu.error.clone().unwrap_or_default(), Tone::Bad),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(detail: crate::view::gpu::GpuDetail) -> GpuView {
        let node = v1::Node {
            inventory: Some(v1::NodeInventory {
                gpus: vec![v1::GpuDevice::default()],
                ..Default::default()
            }),
            ..Default::default()
        };
        let gpu = NodeView::of(&node).gpus.remove(0);
        GpuView { detail, ..gpu }
    }

    #[test]
    fn what_no_driver_tells_takes_no_room() {
        assert!(detail_table(&[view(Default::default())]).is_none());
    }

    #[test]
    fn what_a_node_lacks_to_confine_jobs_is_said_loudly() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let told = v1::Confinement {
            mode: v1::ConfinementMode::BestEffort.into(),
            applied: words(&[
                "cgroup",
                "CPU limit",
                "namespaces",
                "private /tmp",
                "device filter",
                "no new privileges",
            ]),
            missing: words(&[
                "memory limit: no memory controller in /sys/fs/cgroup/system.slice/gotgan-jobs.service",
                "own user: tasks run as root and can undo the rest; see [users]",
            ]),
        };
        let inventory = v1::NodeInventory { confinement: Some(told), ..Default::default() };
        let node = NodeView::of(&v1::Node { inventory: Some(inventory), ..Default::default() });
        insta::assert_snapshot!(confinement(&node).join("\n"), @"
        Jobs are confined by cgroup, CPU limit, namespaces, private /tmp, device filter,
           no new privileges
        NOT CONFINED, though asked for:
          memory limit: no memory controller in
            /sys/fs/cgroup/system.slice/gotgan-jobs.service
          own user: tasks run as root and can undo the rest; see [users]
        ");
        assert!(confinement(&NodeView::of(&v1::Node::default())).is_empty());
    }

    #[test]
    fn whether_images_run_is_told_with_the_reason_if_not() {
        let told = |images: v1::Images| {
            let inventory = v1::NodeInventory { images: Some(images), ..Default::default() };
            let node = v1::Node { inventory: Some(inventory), ..Default::default() };
            images_lines(&NodeView::of(&node))
        };
        let by = "runc 1.1.5".to_owned();
        let able = v1::Images { able: true, by, ..Default::default() };
        assert_eq!(told(able), "Images are run by runc 1.1.5");
        assert_eq!(told(v1::Images::default()), "Images are not run here");
        let missing = "[users] gives jobs no user of their own, and no container runs as root";
        let unable = v1::Images { missing: missing.to_owned(), ..Default::default() };
        insta::assert_snapshot!(told(unable), @"
        Images are NOT RUN, though asked for: [users] gives jobs no user of their own,
           and no container runs as root
        ");
        assert_eq!(images_lines(&NodeView::of(&v1::Node::default())), "");
    }

    #[test]
    fn channels_of_a_node_are_told_where_its_driver_has_any() {
        let told = |count, missing: &str| {
            let imex_channels = Some(v1::ImexChannels { count, missing: missing.to_owned() });
            let inventory = Some(v1::NodeInventory { imex_channels, ..Default::default() });
            imex(&NodeView::of(&v1::Node { inventory, ..Default::default() })).join("\n")
        };
        let able = told(2_048, "");
        assert_eq!(able, "IMEX channels are given out, of 2048 that its driver has");
        assert_eq!(told(0, "no root"), "IMEX channels are not to be had: no root");
        assert_eq!(told(0, ""), "");
    }

    #[test]
    fn what_speaks_against_a_node_is_told_with_its_numbers() {
        let told = v1::NodeScore { milli: 1966, users: 1, losses: 2, lemon_from: 3 };
        let node = NodeView::of(&v1::Node { score: Some(told), ..Default::default() });
        insta::assert_snapshot!(score(&node).join("\n"), @"
        - score 1.9, a lemon from 3: jobs of 1 user failed here and hardly elsewhere, 2
           losses of the node
        ");
        assert!(score(&NodeView::of(&v1::Node::default())).is_empty());
        let health =
            v1::HardwareHealth { state: v1::HealthState::Suspect.into(), ..Default::default() };
        let node = NodeView::of(&v1::Node { health: Some(health), ..Default::default() });
        assert_eq!(node.note(0), "suspect");
    }

    fn images_lines(node: &NodeView) -> String {
        images(node).join("\n")
    }

    #[test]
    fn details_and_devices_fit_80_columns() {
        let fabric = v1::GpuFabric {
            state: v1::GpuFabricState::Completed.into(),
            health: v1::GpuFabricHealth::LimitedCapacity.into(),
            ..Default::default()
        };
        let instance = v1::MigInstance {
            uuid: "MIG-00000000-0000-4000-8000-000000000009".to_owned(),
            profile: "3g.40gb".to_owned(),
            gpu_instance: 2,
            slices: 3,
            memory_mib: 40_448,
            ..Default::default()
        };
        let held = [instance.uuid.clone()];
        let mig = Some(v1::MigCut { slices: 7, instances: vec![instance] });
        let reading = v1::GpuReading {
            clock_reasons: Some(0x20),
            energy_mj: Some(4_140_000_000),
            recovery_action: v1::GpuRecoveryAction::DrainAndReset.into(),
            fabric: Some(fabric),
            nvlinks: Some(18),
            nvlinks_up: Some(17),
            ..Default::default()
        };
        let gpu = v1::GpuDevice { serial: "1650000000000".to_owned(), mig, ..Default::default() };
        let gpus = [view(crate::view::gpu::GpuDetail::of(&gpu, &reading, &held))];
        insta::assert_snapshot!(detail_table(&gpus).unwrap().render(Some(80), false), @"
        GPU  FABRIC            NOTES
          0  limited_capacity  driver asks for drain_and_reset; clocks held by thermal
        ");
        insta::assert_snapshot!(mig_table(&gpus).render(Some(80), false), @"
        GPU  MIG        MEMORY  COUNTS  IN USE  INSTANCES  UUID
          0  3g.40gb  39.5 GiB   0.428  yes     2/0        MIG-00000000-0000-4000-8000-…
        ");
    }
}
