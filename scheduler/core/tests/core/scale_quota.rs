//! How long entitlements take for a large tree. Asserts no times; run it by hand, in release:
//! `cargo test --release -p gotgan-core --test core -- --ignored --nocapture scale_quota`.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "measures from outside and prints what it found"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_core::amount::GpuMilli;
use gotgan_core::ids::{GpuClass, ProjectPath};
use gotgan_core::quota::entitle::{Arena, Entitlements, NodeIndex};
use gotgan_core::quota::{QuotaNode, QuotaTree};

const PROGRAMMES: u32 = 12;
const LEAVES: u32 = 1125;
const CLASSES: [&str; 6] = ["b200", "b300", "gh200", "h200", "ng", "rtx"];

/// One root, twelve programmes, 1,125 leaves with guarantees of every class and some limits.
fn tree() -> QuotaTree {
    let mut tree = QuotaTree::default();
    let mut add = |path: &str, node: QuotaNode| {
        tree.nodes.insert(ProjectPath::new(path).unwrap(), node);
    };
    add("public", QuotaNode::default());
    for programme in 0..PROGRAMMES {
        let weight = 1 + programme % 4;
        add(&format!("public/p{programme}"), QuotaNode { weight, ..QuotaNode::default() });
    }
    for leaf in 0..LEAVES {
        let mut node = QuotaNode::default();
        for class in CLASSES.map(|class| GpuClass::new(class).unwrap()) {
            node.guarantees.insert(class.clone(), GpuMilli::whole(1 + leaf % 13));
            if leaf % 3 == 0 {
                node.limits.insert(class, GpuMilli::whole(16));
            }
        }
        add(&format!("public/p{}/leaf-{leaf}", leaf % PROGRAMMES), node);
    }
    tree
}

fn demand(node: NodeIndex) -> GpuMilli {
    GpuMilli::whole(u32::try_from(node.get() * 7 % 31).unwrap())
}

/// The shortest of many runs, which is the one least disturbed.
fn shortest(runs: u32, mut run: impl FnMut(u32)) -> Duration {
    let time = |number| {
        let before = Instant::now();
        run(number);
        before.elapsed()
    };
    (0..runs).map(time).min().unwrap()
}

#[test]
#[ignore = "asserts no times"]
fn the_reference_tree_in_full_and_leaf_by_leaf() {
    let tree = tree();
    let built = shortest(20, |_| drop(Arena::of(&tree)));
    let arena = Arc::new(Arena::of(&tree));
    let classes = CLASSES.map(|class| GpuClass::new(class).unwrap());
    // Too little for all guarantees, and more than that: 1,125 leaves are guaranteed 7,868 of each class.
    for capacity in [7_000, 9_000] {
        let capacity = GpuMilli::whole(capacity);
        let full = shortest(20, |_| {
            for class in &classes {
                drop(Entitlements::new(Arc::clone(&arena), &tree, class, capacity, demand));
            }
        });
        let mut of = Entitlements::new(Arc::clone(&arena), &tree, &classes[0], capacity, demand);
        let leaves: Vec<_> = arena.indexes().filter(|node| arena.is_leaf(*node)).collect();
        let mut times: Vec<Duration> = (0..LEAVES * 4)
            .map(|number| {
                let leaf = leaves[(number * 89 % LEAVES) as usize];
                let asked = GpuMilli::whole(number * 5 % 37);
                let before = Instant::now();
                of.set_demand(leaf, asked);
                before.elapsed()
            })
            .collect();
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!(
            "{capacity} of each of 6 classes: arena {built:?}, all 6 in full {full:?}, one leaf's demand: \
             median {median:?}, 99th of a hundred {worst:?}"
        );
    }
}
