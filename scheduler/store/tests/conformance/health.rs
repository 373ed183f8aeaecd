//! How hardware stands is loaded as it was, breakers too; what happened to a node is read newest first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::MemoryMib;
use gotgan_core::change::{Change, EventKind, Subject};
use gotgan_core::health::lemon::Mark;
use gotgan_core::health::{
    Blame, Breaker, Complaint, Condition, GpuHealth, Journal, NodeHealth, Repair, Signal, Standing,
    State,
};
use gotgan_core::ids::{AttemptId, GpuUuid, JobId};
use gotgan_core::mig::{CutPlan, Mig, MigCut, MigInstance, MigProfile};
use gotgan_core::node::Inventory;

use crate::harness::Place;
use crate::things::{Leader, at, event, inventory, node_name, user};

fn standing(state: State, signal: Signal) -> Standing {
    Standing {
        passed: Some(at(5)),
        state,
        since: at(5),
        signal: Some(signal),
        reason: "GPU 0: \"bad\"\0 메모리".to_owned(),
    }
}

fn health(state: State) -> Arc<NodeHealth> {
    let gpu = GpuHealth {
        standing: standing(state, Signal::Xid(79)),
        conditions: BTreeMap::from([(Condition::RemapPending, at(3))]),
        complaints: vec![Complaint { at: at(4), user: user("lee") }],
    };
    let attempt = AttemptId { job: JobId(7), number: 2 };
    Arc::new(NodeHealth {
        node: standing(State::Out { repair: Repair::Reboot }, Signal::MissingGpus),
        gpus: BTreeMap::from([(GpuUuid::new("GPU-n1-0").unwrap(), gpu)]),
        missing: BTreeSet::from([GpuUuid::new("GPU-gone").unwrap()]),
        blamed: vec![Blame { attempt, at: at(5), reason: "Xid 79".to_owned() }],
        journal: Journal { id: "j".to_owned(), seq: u64::MAX },
        cuts: BTreeMap::from([
            (GpuUuid::new("GPU-n1-1").unwrap(), cut(Some("1c.3g.40gb"), None)),
            (GpuUuid::new("GPU-n1-2").unwrap(), cut(None, Some("in use (code 19)"))),
        ]),
        marks: vec![
            Mark { at: at(6), user: Some(user("lee")), nodes: 2 },
            Mark { at: at(7), user: None, nodes: 1 },
        ],
    })
}

fn cut(profile: Option<&str>, failed: Option<&str>) -> CutPlan {
    CutPlan {
        profiles: profile.map(|profile| vec![MigProfile::new(profile).unwrap()]),
        by: user("lee"),
        since: at(6),
        failed: failed.map(str::to_owned),
    }
}

fn with_instances(node: &str) -> Inventory {
    let instance = |number: u32| MigInstance {
        uuid: GpuUuid::new(&format!("MIG-{node}-{number}")).unwrap(),
        profile: MigProfile::new("3g.40gb").unwrap(),
        slices: 3,
        memory_mib: MemoryMib(40_448),
        gpu_instance: number,
        compute_instance: 0,
    };
    let mut inventory = inventory(node);
    inventory.gpus[6].mig = Mig::Cut(MigCut::new(7, vec![instance(1), instance(2)]));
    inventory.gpus[7].mig = Mig::Cut(MigCut::new(7, Vec::new()));
    inventory
}

fn moved(state: State) -> Change {
    Change::NodeHealth { node: node_name("n1"), health: health(state), changes_room: true }
}

fn breaker(broken: bool) -> Change {
    let (scope, reason) = ("hall h1".to_owned(), "3 of 5".to_owned());
    Change::BreakerMoved(Arc::new(Breaker { scope, broken: broken.then(|| at(6)), reason }))
}

pub async fn how_hardware_stands_is_loaded_as_it_was(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let nodes = ["n1", "n2"].map(|node| Change::NodeRegistered(Arc::new(inventory(node))));
    leader.commit(nodes.to_vec()).await;
    leader.assert_reloads().await;
    leader.commit(vec![Change::NodeRegistered(Arc::new(with_instances("n3")))]).await;
    leader.assert_reloads().await;
    let suspect = State::Suspect { repair: Some(Repair::Reset), held_back: true };
    leader.commit(vec![moved(suspect), moved(State::Out { repair: Repair::Service })]).await;
    leader.assert_reloads().await;
    leader.commit(vec![moved(State::Verifying), breaker(true)]).await;
    leader.assert_reloads().await;
    // A node that registers again keeps what is known of it.
    leader.commit(vec![Change::NodeRegistered(Arc::new(inventory("n1")))]).await;
    leader.commit(vec![breaker(false)]).await;
    leader.assert_reloads().await;
    let well =
        Change::NodeHealth { node: node_name("n1"), health: Arc::default(), changes_room: true };
    leader.commit(vec![well]).await;
    leader.assert_reloads().await;
}

pub async fn the_last_events_of_a_node_come_newest_first(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let of = |seq: u64, node: &str| {
        let subject = Subject::Node(node_name(node));
        event(seq, subject, EventKind::HardwareSign, &format!("sign {seq}"))
    };
    let other = event(4, Subject::Quota, EventKind::QuotaApplied, "revision 2");
    leader.commit(vec![of(1, "n1"), of(2, "n2"), of(3, "n1"), other, of(5, "n1")]).await;
    let found = leader.store.events_of_node(&node_name("n1"), 2).await.unwrap();
    let texts: Vec<&str> = found.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(texts, ["sign 5", "sign 3"]);
    assert_eq!(found[0].kind, EventKind::HardwareSign);
    assert!(leader.store.events_of_node(&node_name("n3"), 9).await.unwrap().is_empty());
}
