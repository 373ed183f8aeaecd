//! The order of a tree by either rule, in small cases told by hand; and use that fades, carried through to the order.

use std::collections::BTreeMap;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::fairshare::{DecayedUse, HalfLife, OrderRule, Part, Standing, Turn, order};
use gotgan_core::ids::ProjectPath;
use proptest::prelude::*;

type Tree = BTreeMap<ProjectPath, Standing>;

const RULES: [OrderRule; 2] = [OrderRule::UsePerShare, OrderRule::FairTree];

fn path(text: &str) -> ProjectPath {
    ProjectPath::new(text).unwrap()
}

/// Path, share and use of each node.
fn tree(nodes: &[(&str, u32, u64)]) -> Tree {
    nodes.iter().map(|&(name, share, used)| (path(name), Standing::of_use(share, used))).collect()
}

/// Leaves with their points, first to come first: `a/x 2, a/y 1`.
fn turns(tree: &Tree, rule: OrderRule) -> String {
    let told = |turn: &Turn| format!("{} {}", turn.project, turn.points);
    order(tree, rule).iter().map(told).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_tree_without_leaves_has_no_order() {
    for rule in RULES {
        assert_eq!(order(&Tree::new(), rule), []);
    }
}

#[test]
fn least_use_for_its_share_comes_first_and_points_fall_by_one() {
    let tree = tree(&[("a", 10, 50), ("b", 30, 60), ("c", 1, 1)]);
    for rule in RULES {
        assert_eq!(turns(&tree, rule), "c 3, b 2, a 1", "{rule:?}");
        assert!(order(&tree, rule).iter().all(|turn| turn.of == 3));
    }
}

#[test]
fn what_is_decided_higher_up_is_not_undone_below() {
    let tree = tree(&[
        ("big", 70, 30),
        ("big/x", 1, 29),
        ("big/y", 1, 1),
        ("small", 30, 70),
        ("small/x", 100, 1),
        ("small/y", 1, 69),
    ]);
    for rule in RULES {
        assert_eq!(turns(&tree, rule), "big/y 4, big/x 3, small/x 2, small/y 1", "{rule:?}");
    }
}

#[test]
fn children_of_equal_siblings_are_merged_with_the_burden_they_have_at_home() {
    // Both have twice their share. At home x is at half of its share and y at three halves, m and n at the same.
    let tree = tree(&[
        ("a", 10, 20),
        ("a/x", 50, 5),
        ("a/y", 50, 15),
        ("b", 100, 200),
        ("b/m", 7, 50),
        ("b/n", 7, 150),
        ("c", 1, 1000),
    ]);
    for rule in RULES {
        assert_eq!(turns(&tree, rule), "a/x 5, b/m 5, a/y 3, b/n 3, c 1", "{rule:?}");
    }
}

#[test]
fn a_leaf_equal_to_a_node_with_children_shares_the_turn_of_the_first_of_them() {
    let tree = tree(&[("a", 10, 20), ("a/x", 1, 5), ("a/y", 1, 15), ("leaf", 5, 10), ("z", 1, 90)]);
    for rule in RULES {
        assert_eq!(turns(&tree, rule), "a/x 4, leaf 4, a/y 2, z 1", "{rule:?}");
    }
}

#[test]
fn without_a_share_a_node_is_last_whatever_it_used() {
    let tree = tree(&[("a", 0, 0), ("b", 0, 7), ("c", 1, 1_000_000), ("d", 1, 0)]);
    assert_eq!(turns(&tree, OrderRule::FairTree), "d 4, c 3, a 2, b 2");
    // Only c has any use among those with a share, so it is the mean that d stands at.
    assert_eq!(turns(&tree, OrderRule::UsePerShare), "c 4, d 4, a 2, b 2");
}

#[test]
fn where_nobody_used_anything_all_are_equal_whatever_their_shares() {
    let tree = tree(&[("a", 1, 0), ("a/x", 3, 0), ("a/y", 4, 0), ("b", 9, 0), ("c", 5, 0)]);
    for rule in RULES {
        assert_eq!(turns(&tree, rule), "a/x 4, a/y 4, b 4, c 4", "{rule:?}");
    }
}

#[test]
fn without_use_the_fair_tree_puts_a_node_first_and_use_per_share_in_the_middle() {
    let tree = tree(&[("greedy", 10, 80), ("modest", 10, 20), ("new", 3, 0)]);
    assert_eq!(turns(&tree, OrderRule::FairTree), "new 3, modest 2, greedy 1");
    assert_eq!(turns(&tree, OrderRule::UsePerShare), "modest 3, new 2, greedy 1");
}

#[test]
fn one_unit_of_use_more_is_seen_however_large_the_use() {
    let tree = tree(&[("a", u32::MAX, (1 << 45) + 1), ("b", u32::MAX, 1 << 45)]);
    for rule in RULES {
        assert_eq!(turns(&tree, rule), "b 2, a 1", "{rule:?}");
    }
}

#[test]
fn the_greatest_numbers_do_not_panic() {
    let greatest = Standing { share: u32::MAX, used: u64::MAX, asked: Part(u64::MAX) };
    let tree: Tree = ["a", "a/x", "b", "c"].map(|name| (path(name), greatest)).into();
    for rule in RULES {
        assert_eq!(order(&tree, rule).len(), 3, "{rule:?}");
    }
}

#[test]
fn a_node_whose_parent_is_missing_stands_among_the_roots() {
    let tree = tree(&[("a", 1, 1), ("gone/x", 1, 2), ("z", 1, 3)]);
    for rule in RULES {
        assert_eq!(turns(&tree, rule), "a 3, gone/x 2, z 1", "{rule:?}");
    }
}

/// A project as the scheduler would keep it.
struct Watched {
    used: DecayedUse,
    asked: DecayedUse,
}

/// Projects of equal shares on a machine of 100 GPUs, over days.
struct Story {
    day: i64,
    capacity: DecayedUse,
    always: DecayedUse,
    projects: BTreeMap<&'static str, Watched>,
}

impl Story {
    fn new() -> Self {
        let nothing = DecayedUse::new(HalfLife::default());
        let always = nothing.clone();
        Story { day: 20_000, capacity: nothing, always, projects: BTreeMap::new() }
    }

    fn now(&self) -> UnixMicros {
        UnixMicros(0).plus_seconds(self.day * 86_400)
    }

    /// Lets days pass in which those projects ask, and hold so many GPUs.
    fn days(&mut self, days: i64, asking: &[(&'static str, u32)]) {
        let from = self.now();
        self.day += days;
        let until = self.now();
        self.capacity.add(GpuMilli::whole(100), from, until);
        self.always.add(GpuMilli::WHOLE, from, until);
        for &(name, gpus) in asking {
            let nothing = DecayedUse::new(HalfLife::default());
            let new = || Watched { used: nothing.clone(), asked: nothing.clone() };
            let project = self.projects.entry(name).or_insert_with(new);
            project.used.add(GpuMilli::whole(gpus), from, until);
            project.asked.add(GpuMilli::WHOLE, from, until);
        }
    }

    fn turns(&self) -> String {
        let worth = |used: &DecayedUse| u64::try_from(used.value_at(self.now()).0).unwrap();
        let part = |used: &DecayedUse, all: &DecayedUse| Part::of(worth(used), worth(all));
        let standing = |project: &Watched| Standing {
            share: 1,
            used: part(&project.used, &self.capacity).0,
            asked: part(&project.asked, &self.always),
        };
        let tree = self.projects.iter().map(|(name, known)| (path(name), standing(known)));
        turns(&tree.collect(), OrderRule::UsePerShare)
    }
}

#[test]
fn a_new_project_begins_in_the_middle_and_moves_with_what_it_gets() {
    let mut story = Story::new();
    story.days(60, &[("greedy", 60), ("modest", 40)]);
    story.days(0, &[("new", 0)]);
    assert_eq!(story.turns(), "modest 3, new 2, greedy 1");
    // A first day of a little does not put it in front of everybody.
    story.days(1, &[("greedy", 55), ("modest", 40), ("new", 5)]);
    assert_eq!(story.turns(), "modest 3, new 2, greedy 1");
    // Weeks of asking for more and getting only that do.
    story.days(20, &[("greedy", 55), ("modest", 40), ("new", 5)]);
    assert_eq!(story.turns(), "new 3, modest 2, greedy 1");
    // And getting most puts it behind everybody.
    story.days(40, &[("greedy", 10), ("modest", 20), ("new", 70)]);
    assert_eq!(story.turns(), "greedy 3, modest 2, new 1");
}

#[test]
fn a_project_that_was_idle_for_long_comes_back_to_the_middle() {
    let mut story = Story::new();
    story.days(60, &[("greedy", 50), ("modest", 40), ("sleeper", 10)]);
    assert_eq!(story.turns(), "sleeper 3, modest 2, greedy 1");
    story.days(200, &[("greedy", 60), ("modest", 40)]);
    assert_eq!(story.turns(), "modest 3, sleeper 2, greedy 1");
}

#[test]
fn a_project_that_asks_and_gets_nothing_comes_first() {
    let mut story = Story::new();
    story.days(60, &[("greedy", 60), ("modest", 40)]);
    story.days(14, &[("greedy", 60), ("modest", 40), ("starved", 0)]);
    assert_eq!(story.turns(), "starved 3, modest 2, greedy 1");
}

/// Any tree of up to three levels.
fn any_tree() -> impl Strategy<Value = Tree> {
    let name = prop_oneof!["[ab]", "[ab]/[abc]", "[ab]/[abc]/[abcd]"];
    let standing = (0..4_u32, 0..6_u64, 0..=4_u64).prop_map(|(share, used, quarters)| Standing {
        share,
        used,
        asked: Part(Part::WHOLE.0 / 4 * quarters),
    });
    proptest::collection::btree_map(name.prop_map(|name| path(&name)), standing, 0..30)
}

fn any_rule() -> impl Strategy<Value = OrderRule> {
    prop_oneof![Just(OrderRule::UsePerShare), Just(OrderRule::FairTree)]
}

proptest! {
    #[test]
    fn every_leaf_has_one_turn_and_points_count_those_not_before_it(tree in any_tree(), rule in any_rule()) {
        let turns = order(&tree, rule);
        let is_leaf = |path: &ProjectPath| !tree.keys().any(|other| other.parent() == Some(path.as_str()));
        let leaves: Vec<_> = tree.keys().filter(|path| is_leaf(path)).cloned().collect();
        let mut found: Vec<_> = turns.iter().map(|turn| turn.project.clone()).collect();
        found.sort();
        prop_assert_eq!(found, leaves);
        for turn in &turns {
            let not_before = turns.iter().filter(|other| other.points <= turn.points).count();
            prop_assert_eq!(turn.points as usize, not_before);
            prop_assert_eq!(turn.of as usize, turns.len());
        }
    }

    #[test]
    fn only_proportions_of_use_and_of_shares_matter(tree in any_tree(), rule in any_rule(), times in 1..1000_u32) {
        let scale = |node: &Standing| Standing {
            share: node.share * times, used: node.used * u64::from(times), asked: node.asked,
        };
        let scaled: Tree = tree.iter().map(|(path, node)| (path.clone(), scale(node))).collect();
        prop_assert_eq!(order(&tree, rule), order(&scaled, rule));
    }

    #[test]
    fn more_use_of_a_leaf_among_leaves_never_brings_it_forward(
        mut level in proptest::collection::vec((1..9_u32, 0..99_u64), 2..9), more in 1..50_u64, rule in any_rule(),
    ) {
        let points = |level: &[(u32, u64)]| {
            let standing = |&(share, used): &(u32, u64)| Standing { share, used, asked: Part::WHOLE };
            let tree: Tree = level.iter().enumerate()
                .map(|(index, node)| (path(&format!("p{index}")), standing(node))).collect();
            order(&tree, rule).iter().find(|turn| turn.project == path("p0")).unwrap().points
        };
        let before = points(&level);
        level[0].1 += more;
        prop_assert!(points(&level) <= before);
    }
}
