//! How many nodes and what each gives: resolves totals, fills in defaults, and refuses what the machine never had.

use super::AdmitContext;
use super::fault::{FaultReason, Findings};
use super::fleet::{NodeSize, Sizes};
use super::near::suggestion;
use super::power;
use super::request::ResourcesRequest;
use super::work::shown;
use crate::amount::{CpuMilli, MemoryMib};
use crate::explain::memory_words;
use crate::ids::GpuClass;
use crate::mig::{MigKind, MigProfile};
use crate::spec::{GpuRequest, NodeRequest};

/// Nodes of a gang; more than the largest machine planned for.
pub(super) const NODES_MAX: u32 = 10_000;
/// Thousandths of one GPU in a share; a thousand is a whole one.
const SHARE_MAX: u32 = 999;
/// Thousandths of CPUs on one node: ten thousand CPUs, far more than any node has and far from overflow.
const CPU_MILLI_MAX: u64 = 10_000_000;
/// MiB on one node: 1 PiB.
const MEMORY_MIB_MAX: u64 = 1 << 30;

/// Nodes of the gang and what each gives.
pub(super) fn resources(
    request: &ResourcesRequest,
    context: &AdmitContext,
    findings: &mut Findings,
) -> (u32, NodeRequest) {
    conflicts(request, findings);
    ranges(request, findings);
    let class = gpu_class(request, context, findings);
    let kind = mig_kind(request, class.as_ref().ok(), context, findings);
    let known = class.is_ok() && kind.is_ok();
    let (class, kind) = (class.unwrap_or_default(), kind.unwrap_or_default());
    let (nodes, gpus) = gang(request, (class, kind), context, findings);
    let machine = Machine { context, class: gpus.class().cloned(), gpus: &gpus };
    let gpu_cap_watts = power::cap(request, &gpus, context, findings);
    let per_node = NodeRequest { gpu_cap_watts, ..machine.with_defaults(request, &gpus) };
    if known {
        machine.require_room(request, nodes, &per_node, findings);
    }
    (nodes, per_node)
}

/// Nodes of which each could give so much if it were empty, of the class that has the most of them; 0 if no node that
/// could serve has registered.
pub(super) fn capable(per_node: &NodeRequest, context: &AdmitContext) -> u32 {
    let gpus = &per_node.gpus;
    Machine { context, class: gpus.class().cloned(), gpus }.capable(per_node)
}

fn conflicts(request: &ResourcesRequest, findings: &mut Findings) {
    let whole = request.gpus_per_node > 0 || request.gpus_total > 0;
    if request.gpus_per_node > 0 && request.gpus_total > 0 {
        let message = "is given beside resources.gpus_per_node; give one of the two";
        findings.fault("resources.gpus_total", FaultReason::Conflict, message);
    }
    if whole && request.gpu_share_milli > 0 {
        let message = "is given beside whole GPUs; a job has a share of one GPU or whole GPUs";
        findings.fault("resources.gpu_share_milli", FaultReason::Conflict, message);
    }
    let mig = !request.mig_profile.is_empty();
    if mig && request.gpu_share_milli > 0 {
        let message = "is given beside resources.gpu_share_milli; an instance is given as a whole: \
                       leave the share out";
        findings.fault("resources.mig_profile", FaultReason::Conflict, message);
    }
    if !whole && !mig && request.gpu_share_milli == 0 && !request.gpu_class.is_empty() {
        let message = "names a class and the job asks for no GPU; add resources.gpus_per_node or \
                       leave the class out";
        findings.fault("resources.gpu_class", FaultReason::Conflict, message);
    }
}

fn ranges(request: &ResourcesRequest, findings: &mut Findings) {
    let ResourcesRequest { nodes, gpu_share_milli, .. } = *request;
    if nodes > NODES_MAX {
        findings.require_range("resources.nodes", nodes.into(), 1, NODES_MAX.into(), "nodes");
    }
    if gpu_share_milli > SHARE_MAX {
        let message = format!(
            "is {gpu_share_milli}; a share is 1 to {SHARE_MAX} thousandths of one GPU: for whole \
             GPUs give resources.gpus_per_node"
        );
        findings.fault("resources.gpu_share_milli", FaultReason::OutOfRange, message);
    }
    if request.cpu_milli_per_node > CPU_MILLI_MAX {
        let message = format!("is {}; at most {CPU_MILLI_MAX}", request.cpu_milli_per_node);
        findings.fault("resources.cpu_milli_per_node", FaultReason::OutOfRange, message);
    }
    if request.memory_mib_per_node > MEMORY_MIB_MAX {
        let message = format!("is {}; at most {MEMORY_MIB_MAX}", request.memory_mib_per_node);
        findings.fault("resources.memory_mib_per_node", FaultReason::OutOfRange, message);
    }
}

/// The class asked for, `Ok(None)` if any will do, `Err` with a fault noted.
fn gpu_class(
    request: &ResourcesRequest,
    context: &AdmitContext,
    findings: &mut Findings,
) -> Result<Option<GpuClass>, ()> {
    let asked = request.gpu_class.as_str();
    if asked.is_empty() {
        return Ok(None);
    }
    let class = GpuClass::new(asked).ok();
    let has_nodes = context.fleet.classes().next().is_some();
    match class {
        Some(class) if context.fleet.class(&class).is_some() => Ok(Some(class)),
        Some(class) if !has_nodes && in_quota(context, &class) => {
            findings.warn(format!(
                "no node with {class} GPUs has registered yet; the job waits for one"
            ));
            Ok(Some(class))
        }
        Some(_) | None => {
            let known: Vec<&str> = if has_nodes {
                context.fleet.classes().map(|(class, _)| class.as_str()).collect()
            } else {
                classes_in_quota(context).map(GpuClass::as_str).collect()
            };
            let near = suggestion(asked, known.into_iter(), "classes");
            let message = format!("there is no GPU class \"{}\"{near}", shown(asked));
            findings.fault("resources.gpu_class", FaultReason::UnknownClass, message);
            Err(())
        }
    }
}

fn classes_in_quota(context: &AdmitContext) -> impl Iterator<Item = &GpuClass> {
    context.quota.nodes.values().flat_map(|node| node.limits.keys())
}

fn in_quota(context: &AdmitContext, class: &GpuClass) -> bool {
    classes_in_quota(context).any(|known| known == class)
}

/// The kind of instance asked for, `Ok(None)` if none is, `Err` with a fault noted. What an instance counts is taken from
/// those there are, so a kind that no node has cannot be asked for.
fn mig_kind(
    request: &ResourcesRequest,
    class: Option<&Option<GpuClass>>,
    context: &AdmitContext,
    findings: &mut Findings,
) -> Result<Option<MigKind>, ()> {
    let (field, asked) = ("resources.mig_profile", request.mig_profile.as_str());
    let Some(class) = class.filter(|_| !asked.is_empty()) else { return Ok(None) };
    let profile = MigProfile::new(asked).map_err(|bad| {
        findings.fault(field, FaultReason::Malformed, format!("is malformed: {bad}"));
    })?;
    let fleet = &context.fleet;
    let of_class = |kind: &MigKind| {
        fleet.instances(*kind).any(|(own, _)| class.as_ref().is_none_or(|c| c == own))
    };
    let kinds: Vec<MigKind> = fleet.kinds().filter(of_class).collect();
    if let Some(kind) = kinds.iter().find(|kind| kind.profile == profile) {
        return Ok(Some(*kind));
    }
    let of = class.as_ref().map(|class| format!("{class} ")).unwrap_or_default();
    let near = match kinds.is_empty() {
        true => "; none has MIG instances at all".to_owned(),
        false => suggestion(asked, kinds.iter().map(|kind| kind.profile.as_str()), "profiles"),
    };
    let message = format!("no {of}GPU is cut into instances of {profile}{near}");
    findings.fault(field, FaultReason::UnknownProfile, message);
    Err(())
}

/// Nodes of the gang, and GPUs on each.
fn gang(
    request: &ResourcesRequest,
    (class, kind): (Option<GpuClass>, Option<MigKind>),
    context: &AdmitContext,
    findings: &mut Findings,
) -> (u32, GpuRequest) {
    let nodes = request.nodes.max(1);
    if let Some(MigKind { profile, milli }) = kind {
        let of_kind = || context.fleet.instances(MigKind { profile, milli });
        let most = || largest_node(class.as_ref(), of_kind());
        let (nodes, count) = match request.gpus_total {
            0 => (nodes, request.gpus_per_node.max(1)),
            total => {
                let nodes = nodes_for_total(request, most(), findings);
                (nodes, (total / nodes).max(1))
            }
        };
        return (nodes, GpuRequest::Mig { count, profile, milli, class });
    }
    if request.gpus_per_node > 0 {
        return (nodes, GpuRequest::Whole { count: request.gpus_per_node, class });
    }
    if request.gpus_total > 0 {
        let largest = largest_node(class.as_ref(), context.fleet.classes());
        let nodes = nodes_for_total(request, largest, findings);
        let count = (request.gpus_total / nodes).max(1);
        return (nodes, GpuRequest::Whole { count, class });
    }
    if request.gpu_share_milli > 0 {
        let milli = request.gpu_share_milli.min(SHARE_MAX);
        return (nodes, GpuRequest::Share { milli, class });
    }
    (nodes, GpuRequest::None)
}

/// As few nodes as have so many GPUs, each with equally many.
fn nodes_for_total(request: &ResourcesRequest, largest: u32, findings: &mut Findings) -> u32 {
    let total = request.gpus_total;
    let nodes = match (request.nodes, largest) {
        (0, 0) => 1,
        (0, largest) => total.div_ceil(largest),
        (nodes, _) => nodes,
    };
    if total.is_multiple_of(nodes) {
        return nodes;
    }
    let lower = total - total % nodes;
    let upper = lower.saturating_add(nodes);
    let totals = if lower == 0 { format!("{upper}") } else { format!("{lower} or {upper}") };
    let message = format!(
        "{total} GPUs do not spread evenly over {nodes} nodes; ask for {totals} GPUs, or give \
         resources.nodes and resources.gpus_per_node"
    );
    findings.fault("resources.gpus_total", FaultReason::Conflict, message);
    nodes
}

/// Most GPUs of the class, or of any, on one node; 0 if no node is known.
fn largest_node<'a>(
    class: Option<&GpuClass>,
    classes: impl Iterator<Item = (&'a GpuClass, &'a Sizes)>,
) -> u32 {
    let asked = classes.filter(|(own, _)| class.is_none_or(|class| class == *own));
    asked.map(|(_, sizes)| sizes.largest().gpus).max().unwrap_or(0)
}

/// The part of the machine that may serve the request.
struct Machine<'a> {
    context: &'a AdmitContext,
    class: Option<GpuClass>,
    gpus: &'a GpuRequest,
}

impl Machine<'_> {
    /// GPUs a node must have to serve.
    fn gpus(&self) -> u32 {
        match self.gpus {
            GpuRequest::None => 0,
            GpuRequest::Whole { count, .. } => *count,
            GpuRequest::Share { .. } => 1,
            GpuRequest::Mig { count, .. } => *count,
        }
    }

    /// Every pool of nodes that may serve: one a class, or all nodes for work without GPUs.
    fn pools(&self) -> Vec<&Sizes> {
        let fleet = &self.context.fleet;
        if *self.gpus == GpuRequest::None {
            return vec![fleet.all()];
        }
        let of_class = |own: &GpuClass| self.class.as_ref().is_none_or(|class| class == own);
        if let Some(kind) = self.gpus.kind() {
            let asked = fleet.instances(kind).filter(|(own, _)| of_class(own));
            return asked.map(|(_, sizes)| sizes).collect();
        }
        let asked = fleet.classes().filter(|(own, _)| of_class(own));
        asked.map(|(_, sizes)| sizes).collect()
    }

    fn with_defaults(&self, request: &ResourcesRequest, gpus: &GpuRequest) -> NodeRequest {
        let (cpu, memory) = self.defaults();
        let asked_or = |asked: u64, default: u64| if asked > 0 { asked } else { default };
        NodeRequest {
            gpus: gpus.clone(),
            cpu_milli: CpuMilli(asked_or(request.cpu_milli_per_node, cpu)),
            memory_mib: MemoryMib(asked_or(request.memory_mib_per_node, memory)),
            gpu_cap_watts: None,
        }
    }

    /// The site's defaults, but no more than the GPUs' part of a node, so that as many jobs fit a node as it has
    /// GPUs for.
    fn defaults(&self) -> (u64, u64) {
        let policy = &self.context.policy;
        let milli = self.gpus.amount().0;
        if milli == 0 {
            let most = self.context.fleet.all().largest();
            return (
                capped(policy.default_cpu.0, most.cpu_milli.0),
                capped(policy.default_memory.0, most.memory_mib.0),
            );
        }
        let scaled = |per_gpu: u64| per_gpu.saturating_mul(milli).div_ceil(1000);
        let part =
            |whole: u64, gpus: u32| whole.saturating_mul(milli) / (u64::from(gpus).max(1) * 1000);
        let serving = || {
            let sizes = self.pools().into_iter().flat_map(Sizes::iter).map(|(size, _)| *size);
            sizes.filter(|size| size.gpus >= self.gpus()).collect::<Vec<NodeSize>>()
        };
        let cpu = serving().iter().map(|size| part(size.cpu_milli.0, size.cards)).max();
        let memory = serving().iter().map(|size| part(size.memory_mib.0, size.cards)).max();
        (
            capped(scaled(policy.default_cpu_per_gpu.0), cpu.unwrap_or(0)),
            capped(scaled(policy.default_memory_per_gpu.0), memory.unwrap_or(0)),
        )
    }

    fn size(&self, per_node: &NodeRequest) -> NodeSize {
        let NodeRequest { cpu_milli, memory_mib, .. } = *per_node;
        NodeSize { gpus: self.gpus(), cpu_milli, memory_mib, cards: 0 }
    }

    fn capable(&self, per_node: &NodeRequest) -> u32 {
        let size = self.size(per_node);
        self.pools().iter().map(|sizes| sizes.covering(&size)).max().unwrap_or(0)
    }

    /// Refuses what the whole machine could not give if it were empty.
    fn require_room(
        &self,
        request: &ResourcesRequest,
        nodes: u32,
        per_node: &NodeRequest,
        findings: &mut Findings,
    ) {
        let pools = self.pools();
        if pools.iter().all(|sizes| sizes.is_empty()) {
            if pools.len() <= 1 && self.class.is_none() {
                findings.warn("no node that could serve has registered yet; the job waits for one");
            }
            return;
        }
        let (size, most) = (self.size(per_node), self.capable(per_node));
        if most >= nodes {
            return;
        }
        let (field, message) = self
            .too_large(request, &size, most)
            .unwrap_or_else(|| self.too_many(request, nodes, &size, most));
        findings.fault(field, FaultReason::LargerThanMachine, message);
    }

    /// What is asked of, as in `b200 GPUs` or `1g.10gb instances`.
    fn units_word(&self) -> String {
        let class = self.class.as_ref().map(|class| format!("{class} ")).unwrap_or_default();
        match self.gpus.kind() {
            Some(kind) => format!("{class}{} instances", kind.profile),
            None => format!("{class}GPUs"),
        }
    }

    /// What of one node is more than the largest node has.
    fn too_large(
        &self,
        request: &ResourcesRequest,
        size: &NodeSize,
        most: u32,
    ) -> Option<(&'static str, String)> {
        if most > 0 {
            return None;
        }
        let largest = self.pools().into_iter().map(Sizes::largest).reduce(|a, b| NodeSize {
            gpus: a.gpus.max(b.gpus),
            cpu_milli: a.cpu_milli.max(b.cpu_milli),
            memory_mib: a.memory_mib.max(b.memory_mib),
            cards: a.cards.max(b.cards),
        })?;
        let units = self.units_word();
        if size.gpus > largest.gpus {
            let field = match (request.gpus_total, request.gpu_share_milli) {
                (0, 0) => "resources.gpus_per_node",
                (0, _) => "resources.gpu_share_milli",
                (_, _) => "resources.gpus_total",
            };
            if largest.gpus == 0 {
                let message = format!(
                    "asks for whole {units} or a share of one; all of them are cut into MIG instances: \
                     ask for one of those with resources.mig_profile"
                );
                return Some((field, message));
            }
            let message = format!(
                "asks for {} {units} on one node; the largest has {}: ask for more nodes with at most \
                 {} each",
                size.gpus, largest.gpus, largest.gpus
            );
            return Some((field, message));
        }
        if size.cpu_milli > largest.cpu_milli {
            let message = format!(
                "asks for {} CPUs on one node; the largest has {}",
                size.cpu_milli, largest.cpu_milli
            );
            return Some(("resources.cpu_milli_per_node", message));
        }
        (size.memory_mib > largest.memory_mib).then(|| {
            let message = format!(
                "asks for {} memory on one node; the largest has {}",
                memory_words(size.memory_mib),
                memory_words(largest.memory_mib)
            );
            ("resources.memory_mib_per_node", message)
        })
    }

    /// Names the field that the nodes come from.
    fn too_many(
        &self,
        request: &ResourcesRequest,
        nodes: u32,
        size: &NodeSize,
        most: u32,
    ) -> (&'static str, String) {
        let gpus = match size.gpus {
            0 => String::new(),
            gpus => format!("{gpus} {}, ", self.units_word()),
        };
        let message = format!(
            "asks for {nodes} nodes with {gpus}{} CPUs and {} memory each; the machine has {most} of them: \
             ask for fewer nodes or for less on each",
            size.cpu_milli,
            memory_words(size.memory_mib)
        );
        let total = request.nodes == 0 && request.gpus_total > 0;
        (if total { "resources.gpus_total" } else { "resources.nodes" }, message)
    }
}

/// `value`, but no more than `most`; 0 says that nothing is known of the most.
fn capped(value: u64, most: u64) -> u64 {
    if most == 0 { value } else { value.min(most) }
}
