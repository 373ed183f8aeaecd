//! Windows: what is planned or open is loaded as it was, what is over stays away, and a number is used once.

use std::collections::BTreeSet;
use std::sync::Arc;

use gotgan_core::change::Change;
use gotgan_core::fairshare::HalfLife;
use gotgan_core::quota::Interval;
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
        reason: "new \"switch\"\0 스위치".to_owned(),
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
