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

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::ids::{GpuClass, ProjectPath, UserName};
use gotgan_core::quota::audit::{AuditEntry, ChainHead, Replay, Source, Warrant, record};
use gotgan_core::quota::entitle::{Arena, Entitlements, NodeIndex};
use gotgan_core::quota::{QuotaBook, QuotaNode, QuotaTree};

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

/// Entries of the audit chain that are verified.
const ENTRIES: usize = 100_000;

/// The tree, and then one project after another that gets a GPU more.
fn chain() -> Vec<AuditEntry> {
    let warrant = Warrant {
        by: UserName::new("office").unwrap(),
        requester: UserName::new("office").unwrap(),
        source: Source::Files,
        reason: "more work".to_owned(),
        plan: None,
        approvals: Vec::new(),
    };
    let mut book = QuotaBook::from(tree());
    book.revision = 1;
    let mut head = ChainHead::default();
    let mut entries = record(&head, &QuotaBook::default(), &book, &warrant, UnixMicros(1));
    while entries.len() < ENTRIES {
        head.pass(entries.last().unwrap());
        let number = u32::try_from(entries.len()).unwrap();
        let path = format!("public/p{}/leaf-{}", number % LEAVES % PROGRAMMES, number % LEAVES);
        // Only what the chain looks at, so that making it does not take minutes.
        let path = ProjectPath::new(&path).unwrap();
        let (mut old, mut new) = (QuotaBook::default(), QuotaBook::default());
        old.nodes.insert(path.clone(), book.nodes[&path].clone());
        let mut terms = book.nodes[&path].clone();
        terms.title = format!("revision {number}");
        new.nodes.insert(path.clone(), terms.clone());
        new.revision = book.revision + 1;
        entries.extend(record(&head, &old, &new, &warrant, UnixMicros(i64::from(number))));
        book.nodes.insert(path, terms);
        book.revision += 1;
    }
    entries
}

#[test]
#[ignore = "asserts no times"]
fn an_audit_chain_of_100_000_entries_is_verified_and_searched() {
    let entries = chain();
    let bytes: usize = entries.iter().map(|entry| entry.body.len()).sum();
    let digests = shortest(3, |_| {
        let mut head = ChainHead::default();
        entries.iter().for_each(|entry| head.check(entry).unwrap());
    });
    let replayed = shortest(3, |_| {
        let mut replay = Replay::default();
        entries.iter().for_each(|entry| drop(replay.take(entry).unwrap()));
    });
    let subject = entries[ENTRIES / 2].subject.clone();
    let found = shortest(3, |_| {
        let of = entries.iter().filter(|entry| entry.subject == subject);
        of.for_each(|entry| drop(entry.read().unwrap().edit.fields()));
    });
    println!(
        "{} entries, {} MiB: digests {digests:?}, digests and book {replayed:?}, who changed one node {found:?}",
        entries.len(),
        bytes >> 20
    );
}
