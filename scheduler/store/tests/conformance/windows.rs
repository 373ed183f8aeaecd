//! Windows: what is planned or open is loaded as it was, what is over stays away unless it is a reservation, and a number is
//! used once.

use std::collections::BTreeSet;
use std::sync::Arc;

use gotgan_core::change::Change;
use gotgan_core::fairshare::HalfLife;
use gotgan_core::ids::{ProjectPath, ReservationName};
use gotgan_core::quota::Interval;
use gotgan_core::reservation::{Reserved, Withdrawn};
use gotgan_core::window::{Window, WindowId, WindowState};
use gotgan_core::world::World;

use crate::harness::Place;
use crate::things::{Leader, at, inventory, node_name, user};

fn window(id: u64, state: WindowState) -> Window {
    Window {
        id: WindowId(id),
        nodes: BTreeSet::from([node_name("n1"), node_name("n2")]),
        during: Interval { from: at(10), until: at(20) },
        stop_running: true,
        reserved: None,
        reason: "new \"switch\"\0 스위치".to_owned(),
        for_repair: id.is_multiple_of(2),
        by: user("kim"),
        made: at(1),
        state,
    }
}

fn moved(id: u64, state: WindowState) -> Change {
    Change::WindowMoved(Arc::new(window(id, state)))
}

pub async fn windows_are_loaded_while_they_count(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let nodes = ["n1", "n2"].map(|node| Change::NodeRegistered(Arc::new(inventory(node))));
    leader.commit(nodes.to_vec()).await;
    leader.commit(vec![moved(1, WindowState::Planned), moved(2, WindowState::Planned)]).await;
    leader.assert_reloads().await;
    leader.commit(vec![moved(1, WindowState::Open)]).await;
    leader.assert_reloads().await;
    assert!(leader.world.nodes["n1"].maintenance.is_some());
    // Of several changes of a round the last one counts.
    let ends = vec![
        moved(2, WindowState::Open),
        moved(2, WindowState::Cancelled),
        moved(1, WindowState::Over),
    ];
    leader.commit(ends).await;
    leader.assert_reloads().await;
    let loaded = leader.store.load(HalfLife::default(), at(30)).await.unwrap();
    assert!(loaded.windows.is_empty());
    assert_eq!(World::restore(loaded, at(30)).sequences.next_window, 3);
}

/// A reservation until then.
fn reserved(id: u64, name: &str, until_s: i64, state: WindowState) -> Change {
    let cancelled =
        (state == WindowState::Cancelled).then(|| Withdrawn { at: at(3), by: user("lee") });
    let reserved = Reserved {
        name: ReservationName::new(name).unwrap(),
        holders: BTreeSet::from(
            ["public/a", "public/b/c"].map(|path| ProjectPath::new(path).unwrap()),
        ),
        cancelled,
    };
    let during = Interval { from: at(10), until: at(until_s) };
    let reserved = Some(reserved);
    let window = Window { stop_running: false, reserved, during, ..window(id, state) };
    Change::WindowMoved(Arc::new(window))
}

pub async fn reservations_are_loaded_as_they_stand_and_once_over_for_those_who_ask(
    place: Arc<Place>,
) {
    let mut leader = Leader::at(&place).await;
    let nodes = ["n1", "n2"].map(|node| Change::NodeRegistered(Arc::new(inventory(node))));
    leader.commit(nodes.to_vec()).await;
    let planned = vec![reserved(1, "r", 20, WindowState::Planned), moved(2, WindowState::Planned)];
    leader.commit(planned).await;
    leader.assert_reloads().await;
    // It begins, and is extended.
    leader.commit(vec![reserved(1, "r", 30, WindowState::Open)]).await;
    leader.assert_reloads().await;
    assert!(leader.world.nodes["n1"].maintenance.is_none(), "reserved nodes take work");
    let loaded = leader.store.load(HalfLife::default(), at(15)).await.unwrap();
    assert_eq!(loaded.windows[0].during.until, at(30));
    leader.commit(vec![reserved(1, "r", 30, WindowState::Cancelled)]).await;
    leader.commit(vec![reserved(3, "r", 40, WindowState::Open), moved(2, WindowState::Over)]).await;
    leader.commit(vec![reserved(3, "r", 40, WindowState::Over)]).await;
    leader.assert_reloads().await;
    let loaded = leader.store.load(HalfLife::default(), at(50)).await.unwrap();
    let ids: Vec<u64> = loaded.windows.iter().map(|window| window.id.0).collect();
    assert_eq!(ids, [1, 3], "maintenance that is over stays away");
    let world = World::restore(loaded, at(50));
    let last = world.windows.reservation(&ReservationName::new("r").unwrap()).unwrap();
    assert_eq!((last.id, last.state), (WindowId(3), WindowState::Over));
}
