//! A small world in which most of what a request can name is there: two nodes, a quota tree, jobs in several states.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::admit::{self, AdmitContext, Fleet};
use gotgan_core::amount::UnixMicros;
use gotgan_core::change::Change;
use gotgan_core::digest::Digest;
use gotgan_core::ids::{Epoch, IdempotencyKey, NodeName, UserName};
use gotgan_core::lifecycle::{self, Draft, Submission};
use gotgan_core::planned::PlannedStarts;
use gotgan_core::planner::plan_full;
use gotgan_core::policy::Policy;
use gotgan_core::quota;
use gotgan_core::world::World;
use gotgan_proto::v1;
use gotgan_scheduler::api::convert;

/// Leadership of everything here.
pub const EPOCH: Epoch = Epoch(1);

/// The quota tree.
const QUOTA: &str = r#"
[class.h100]
[cluster.c1]
class = "h100"
[node."public"]
decision = "D-1"
limit = { h100 = 64 }
guarantee = { h100 = 4 }
[node."public/lab"]
limit = { h100 = 8 }
guarantee = { h100 = 2 }
budget = { ngh = 100000, period = "month" }
[node."public/other"]
budget = { ngh = 1000, period = "month" }
"#;

/// The inventory of a node: four GPUs, one of them cut.
pub fn inventory(node: &str) -> v1::NodeInventory {
    let gpu = |index: u32| v1::GpuDevice {
        uuid: format!("GPU-{node}-{index}"),
        index,
        name: "H100".to_owned(),
        gpu_class: "h100".to_owned(),
        memory_mib: 81_920,
        cap_min_watts: 200,
        cap_max_watts: 700,
        mig: (index == 3).then(|| v1::MigCut {
            slices: 7,
            instances: (0..2)
                .map(|number| v1::MigInstance {
                    uuid: format!("MIG-{node}-{number}"),
                    profile: "3g.40gb".to_owned(),
                    memory_mib: 40_960,
                    slices: 3,
                    gpu_instance: number + 1,
                    ..v1::MigInstance::default()
                })
                .collect(),
        }),
        ..v1::GpuDevice::default()
    };
    v1::NodeInventory {
        node: node.to_owned(),
        boot_id: "boot".to_owned(),
        cpu_milli: 64_000,
        memory_mib: 262_144,
        gpus: (0..4).map(gpu).collect(),
        labels: [("cluster", "c1"), ("rack", "r1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        power_caps: Some(v1::PowerCaps { able: true, missing: String::new() }),
        images: Some(v1::Images { able: true, by: "runc".to_owned(), ..v1::Images::default() }),
        ..v1::NodeInventory::default()
    }
}

/// The world at that moment.
pub fn world(policy: &Policy, now: UnixMicros) -> World {
    let files = [("a.toml".to_owned(), QUOTA.to_owned())];
    let book = quota::parse(&files).unwrap_or_else(|faults| panic!("{faults:?}"));
    let mut world = World::default();
    world.apply(&Change::QuotaApplied { book: Arc::new(book), at: now });
    let mut draft = Draft::new(&mut world, policy, EPOCH, now);
    for name in ["n1", "n2"] {
        let name = NodeName::new(name).expect("a name");
        let known = convert::inventory_from(inventory(name.as_str()), &name).expect("an inventory");
        lifecycle::register(&mut draft, known, &[]);
        lifecycle::hear(&mut draft, &name);
    }
    for spec in jobs() {
        submit(&mut draft, spec);
    }
    let (plan, _) = plan_full(&PlannedStarts::default(), draft.world, policy, now);
    let refused = lifecycle::commit_plan(&mut draft, &plan);
    assert!(refused.is_empty(), "{refused:?}");
    world
}

/// Jobs 1 to 5: two that start, one of them on both nodes; one that is too large for now; one held; an array.
fn jobs() -> [v1::JobSpec; 5] {
    let job = |nodes: u32, gpus: u32| v1::JobSpec {
        project: "public/lab".to_owned(),
        work: Some(v1::job_spec::Work::Script(v1::Script {
            text: "#!/bin/sh\ntrue\n".to_owned(),
            arguments: Vec::new(),
        })),
        resources: Some(v1::Resources { nodes, gpus_per_node: gpus, ..v1::Resources::default() }),
        ..v1::JobSpec::default()
    };
    let array = v1::JobSpec { array: "0-3".to_owned(), ..job(1, 1) };
    [job(1, 1), job(2, 1), job(2, 3), v1::JobSpec { hold: true, ..job(1, 0) }, array]
}

fn submit(draft: &mut Draft<'_>, spec: v1::JobSpec) {
    let context = AdmitContext {
        quota: Arc::clone(&draft.world.quota),
        fleet: Arc::new(Fleet::of(draft.world)),
        policy: Arc::new(draft.policy.clone()),
    };
    let admitted = admit::admit(convert::job_request(spec), &context);
    let spec = admitted.unwrap_or_else(|faults| panic!("{faults:?}")).spec;
    let key = format!("key-{}", draft.world.jobs.len());
    let submission = Submission {
        owner: UserName::new("lee").expect("a name"),
        key: IdempotencyKey::new(&key).expect("a key"),
        digest: Digest::of(&[key.as_bytes()]),
        spec: Arc::new(spec),
        outcomes: BTreeMap::new(),
    };
    let stored = lifecycle::submit(draft, vec![submission]);
    assert!(stored.is_ok(), "{stored:?}");
}
