//! What must hold of entitlements in every tree.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What is drawn for one node, in GPUs: guarantee, limit (0: none), weight, demand.
type Drawn = (u64, u64, u32, u64);

/// A node with its leaves.
type Inner = (Drawn, Vec<Drawn>);

/// Up to four tops with up to five nodes each and up to four below those.
#[derive(Debug, Clone)]
struct Sketch(Vec<(Drawn, Vec<Inner>)>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let guarantee = prop_oneof![Just(0), 0..20_u64];
    let limit = prop_oneof![2 => Just(0), 1 => 1..40_u64];
    (guarantee, limit, 1..6_u32, 0..40_u64)
}

fn sketch() -> impl Strategy<Value = Sketch> {
    vec((drawn(), vec((drawn(), vec(drawn(), 0..4)), 0..5)), 1..4).prop_map(Sketch)
}

struct Built {
    tree: QuotaTree,
    demands: BTreeMap<ProjectPath, GpuMilli>,
}

impl Sketch {
    /// The tree, entered in one order or the other.
    fn build(&self, backwards: bool) -> Built {
        let mut nodes = Vec::new();
        for (a, (top, inner)) in self.0.iter().enumerate() {
            nodes.push((format!("t{a}"), *top));
            for (b, (node, leaves)) in inner.iter().enumerate() {
                nodes.push((format!("t{a}/n{b}"), *node));
                let leaf = |(c, leaf): (usize, &Drawn)| (format!("t{a}/n{b}/l{c}"), *leaf);
                nodes.extend(leaves.iter().enumerate().map(leaf));
            }
        }
        if backwards {
            nodes.reverse();
        }
        let mut built = Built { tree: QuotaTree::default(), demands: BTreeMap::new() };
        for (path, drawn) in nodes {
            built.add(&path, drawn);
        }
        built
    }
}

impl Built {
    fn add(&mut self, path: &str, (guarantee, limit, weight, demand): Drawn) {
        let path = ProjectPath::new(path).unwrap();
        let mut node = QuotaNode { weight, ..QuotaNode::default() };
        // Not whole: 0.7 of each.
        node.guarantees.insert(class(), GpuMilli(guarantee * 700));
        if limit > 0 {
            node.limits.insert(class(), GpuMilli(limit * 1000));
        }
        self.demands.insert(path.clone(), GpuMilli(demand * 333));
        self.tree.nodes.insert(path, node);
    }

    fn at(&self, capacity: u64) -> Entitlements {
        let arena = Arc::new(Arena::of(&self.tree));
        let shape = Arc::clone(&arena);
        let demand = |node: NodeIndex| self.demands[shape.path(node)];
        Entitlements::new(arena, &self.tree, &class(), GpuMilli(capacity), demand)
    }
}

fn class() -> GpuClass {
    GpuClass::new("b200").unwrap()
}

fn all(of: &Entitlements) -> Vec<Entitlement> {
    of.arena.indexes().map(|node| of.of(node)).collect()
}

/// Whether there is enough for all guarantees at each level.
fn suffices(of: &Entitlements) -> bool {
    of.guarantee == of.scaled
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn children_get_exactly_the_least_of_what_there_is_and_what_they_ask(
        sketch in sketch(), capacity in 0..150_000_u64,
    ) {
        let built = sketch.build(false);
        let of = built.at(capacity);
        let inner = of.arena.indexes().filter(|node| !of.arena.is_leaf(*node)).map(Some);
        for node in std::iter::once(None).chain(inner) {
            let has = node.map_or(capacity, |node| of.entitled[node.get()]);
            let children = of.arena.children(node);
            let given: u64 = children.iter().map(|child| of.entitled[child.get()]).sum();
            let asked: u64 = children.iter().map(|child| of.demand[child.get()]).sum();
            prop_assert_eq!(given, has.min(asked));
        }
    }

    #[test]
    fn nobody_is_above_a_limit_or_a_demand_and_the_parts_add_up(
        sketch in sketch(), capacity in 0..150_000_u64,
    ) {
        let built = sketch.build(false);
        let of = built.at(capacity);
        for node in of.arena.indexes() {
            let found = of.of(node);
            prop_assert!(found.entitled.0 <= of.limit[node.get()].min(of.demand[node.get()]));
            prop_assert_eq!(found.guaranteed + found.borrowed, found.entitled);
            prop_assert!(found.guaranteed <= of.scaled_guarantee(node));
        }
    }

    #[test]
    fn what_is_asked_of_a_guarantee_is_given_and_all_of_it_where_capacity_suffices(
        sketch in sketch(), capacity in 0..150_000_u64,
    ) {
        let built = sketch.build(false);
        let of = built.at(capacity);
        for node in of.arena.indexes() {
            let at = node.get();
            prop_assert!(of.entitled[at] >= of.scaled[at].min(of.demand[at]));
            prop_assert!(of.scaled[at] <= of.guarantee[at]);
        }
        let tops: u64 = of.arena.tops.iter().map(|top| of.guarantee[top.get()]).sum();
        if tops <= capacity {
            let cut = |node: &NodeIndex| of.scaled[node.get()] < of.guarantee[node.get()];
            // Only a limit above can then be in the way.
            for node in of.arena.indexes().filter(cut) {
                let mut above = of.arena.self_and_ancestors(node).skip(1);
                prop_assert!(above.any(|above| of.guarantee[above.get()] == of.limit[above.get()]));
            }
        }
    }

    #[test]
    fn the_order_in_which_nodes_were_entered_changes_nothing(
        sketch in sketch(), capacity in 0..150_000_u64,
    ) {
        let (there, back) = (sketch.build(false).at(capacity), sketch.build(true).at(capacity));
        prop_assert_eq!(all(&there), all(&back));
    }

    #[test]
    fn siblings_in_another_order_get_the_same_but_for_rounding(
        has in 0..100_000_u64, claims in vec((0..20_000_u64, 0..20_000_u64, 1..6_u64), 1..12),
    ) {
        let claim = |(sure, more, weight): &(u64, u64, u64)| Claim {
            sure: *sure, asked: sure + more, weight: *weight,
        };
        let claims: Vec<Claim> = claims.iter().map(claim).collect();
        let has = has.max(claims.iter().map(|claim| claim.sure).sum());
        let there = spread(has, &claims);
        let mut back = spread(has, &claims.iter().rev().copied().collect::<Vec<_>>());
        back.reverse();
        for ((there, back), claim) in there.iter().zip(&back).zip(&claims) {
            prop_assert!(there.abs_diff(*back) <= claim.weight);
        }
    }

    #[test]
    fn a_change_of_one_demand_ends_where_a_fresh_start_does(
        sketch in sketch(), capacity in 0..150_000_u64, changes in vec((any::<usize>(), 0..40_u64), 1..12),
    ) {
        let mut built = sketch.build(false);
        let mut of = built.at(capacity);
        let leaves: Vec<NodeIndex> =
            of.arena.indexes().filter(|node| of.arena.is_leaf(*node)).collect();
        for (which, demand) in changes {
            let leaf = leaves[which % leaves.len()];
            built.demands.insert(of.arena.path(leaf).clone(), GpuMilli(demand * 333));
            of.set_demand(leaf, GpuMilli(demand * 333));
            let fresh = built.at(capacity);
            prop_assert_eq!(all(&of), all(&fresh));
            prop_assert_eq!(&of.demand, &fresh.demand);
        }
    }

    #[test]
    fn more_in_service_takes_nothing_from_anybody_once_all_guarantees_are_met(
        sketch in sketch(), capacity in 0..150_000_u64, more in 0..20_000_u64,
    ) {
        let built = sketch.build(false);
        let before = built.at(capacity);
        let mut after = before.clone();
        after.set_capacity(GpuMilli(capacity + more));
        prop_assert_eq!(all(&after), all(&built.at(capacity + more)));
        let total = |of: &Entitlements| -> u64 {
            of.arena.tops.iter().map(|top| of.entitled[top.get()]).sum()
        };
        prop_assert!(total(&before) <= total(&after));
        if suffices(&before) {
            for node in before.arena.indexes() {
                prop_assert!(before.of(node).entitled <= after.of(node).entitled);
            }
        }
    }

    #[test]
    fn scaled_guarantees_are_whole_shares_that_use_up_what_there_is(
        has in 0..60_u64, wanted in vec(0..20_u64, 1..10),
    ) {
        let wanted: Vec<u64> = wanted.into_iter().map(|gpus| gpus * 1000).collect();
        let scaled = scale(has * 1000, &wanted);
        let sum: u64 = wanted.iter().sum();
        prop_assert_eq!(scaled.iter().sum::<u64>(), sum.min(has * 1000));
        for (scaled, wanted) in scaled.iter().zip(&wanted) {
            prop_assert!(scaled <= wanted && scaled.is_multiple_of(1000));
            let exact = u128::from(*wanted) * u128::from(sum.min(has * 1000));
            prop_assert!((u128::from(*scaled) * u128::from(sum)).abs_diff(exact) < 1000 * u128::from(sum.max(1)));
        }
    }
}

/// A purchase of 13,000 GPUs of which 9,000 have been accepted.
#[test]
fn guarantees_that_wait_for_hardware_are_scaled_by_largest_remainder() {
    let wanted = [4000, 2000, 500, 2700, 600, 600, 2000, 400, 200].map(|gpus| gpus * 1000);
    let scaled: Vec<u64> =
        scale(9_000_000, &wanted).into_iter().map(|milli| milli / 1000).collect();
    assert_eq!(scaled, [2769, 1385, 346, 1869, 415, 415, 1385, 277, 139]);
}

#[test]
fn what_one_sibling_leaves_goes_to_the_others_by_weight() {
    let claim = |sure, asked, weight| Claim { sure, asked, weight };
    let claims = [claim(0, 0, 1), claim(4000, 20_000, 3), claim(4000, 20_000, 1)];
    assert_eq!(spread(16_000, &claims), [0, 10_000, 6000]);
}

#[test]
fn a_guarantee_is_not_scaled_because_its_sibling_asks_for_nothing() {
    let mut built = Built { tree: QuotaTree::default(), demands: BTreeMap::new() };
    built.add("t", (20, 0, 1, 0));
    built.add("t/a", (10, 0, 1, 20));
    built.add("t/b", (10, 0, 1, 0));
    let of = built.at(100_000);
    let a = of.of(of.arena.find("t/a").unwrap());
    assert_eq!((a.entitled, a.guaranteed), (GpuMilli(6660), GpuMilli(6660)));
}

impl Built {
    /// Makes nodes keep and borrow by these numbers, one a node and again from the first.
    fn keep(&mut self, numbers: &[(u64, u64, u64)]) {
        let every = |gpus: u64| (gpus < 6).then_some(ClassAmount::Every(GpuMilli(gpus * 900)));
        for (node, (idle, max, borrow)) in self.tree.nodes.values_mut().zip(numbers.iter().cycle())
        {
            let bounds = &mut node.bounds;
            (bounds.keep_idle, bounds.lend_max) = (every(*idle), every(*max));
            bounds.borrow_max = every(*borrow);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_given_to_nobody_and_no_guarantee_suffers(
        sketch in sketch(), capacity in 0..150_000_u64, numbers in vec((0..9_u64, 0..9_u64, 0..9_u64), 1..9),
    ) {
        let mut built = sketch.build(false);
        built.keep(&numbers);
        let of = built.at(capacity);
        let tops = of.arena.children(None).to_vec();
        let given: u64 = tops.iter().map(|top| of.of(*top).entitled.0 + of.kept(*top).0).sum();
        prop_assert!(given <= capacity, "{given} of {capacity}");
        for node in of.arena.indexes() {
            let found = of.of(node).entitled.0;
            let (scaled, demand) = (of.scaled_guarantee(node).0, of.demand[node.get()]);
            prop_assert!(found <= demand);
            let kept = of.kept(node).0;
            prop_assert!(found + kept >= scaled.min(demand), "{found} of {scaled}, {demand} asked, {kept} kept");
            let borrow = of.terms.borrow[node.get()];
            prop_assert!(found.saturating_sub(scaled) <= borrow);
            let own = built.tree.nodes[of.arena.path(node)].bounds.kept_of(&class(), GpuMilli(scaled.saturating_sub(demand)));
            let below: u64 = of.arena.children(Some(node)).iter().map(|child| of.kept(*child).0).sum();
            prop_assert_eq!(of.kept(node).0, own.0.max(below));
        }
    }

    #[test]
    fn with_kept_parts_a_change_of_demand_or_capacity_ends_where_a_fresh_start_does(
        sketch in sketch(), capacity in 0..150_000_u64, numbers in vec((0..9_u64, 0..9_u64, 0..9_u64), 1..9),
        changes in vec((any::<usize>(), 0..40_u64), 1..8),
    ) {
        let mut built = sketch.build(false);
        built.keep(&numbers);
        let mut of = built.at(capacity);
        let leaves: Vec<NodeIndex> =
            of.arena.indexes().filter(|node| of.arena.is_leaf(*node)).collect();
        for (which, demand) in changes {
            let leaf = leaves[which % leaves.len()];
            built.demands.insert(of.arena.path(leaf).clone(), GpuMilli(demand * 333));
            of.set_demand(leaf, GpuMilli(demand * 333));
            prop_assert_eq!(all(&of), all(&built.at(capacity)));
            of.set_capacity(GpuMilli(capacity / 2));
            prop_assert_eq!(all(&of), all(&built.at(capacity / 2)));
            of.set_capacity(GpuMilli(capacity));
        }
    }
}

#[test]
fn a_node_without_kept_parts_of_its_own_leaves_those_below_it_alone() {
    let mut built = Built { tree: QuotaTree::default(), demands: BTreeMap::new() };
    built.add("n", (30, 0, 1, 0));
    built.add("n/eager", (20, 0, 1, 60));
    built.add("n/idle", (10, 0, 1, 0));
    built.add("m", (10, 0, 1, 60));
    built.keep(&[(9, 9, 9), (9, 9, 9), (9, 9, 9), (5, 9, 9)]);
    // Of 28 GPUs, n/idle keeps its 4.5 of 7; the guarantees of the others come first, and both borrow what is left.
    let of = built.at(28_000);
    let found = |path: &str| of.of(of.arena.find(path).unwrap()).entitled.0;
    assert_eq!((found("n/idle"), of.kept(of.arena.find("n").unwrap())), (0, GpuMilli(4500)));
    assert_eq!(found("n") + found("m"), 23_500);
    assert_eq!(found("n"), found("n/eager"));
}
