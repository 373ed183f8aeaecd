//! The quota book of 50,000 GPUs in `examples/quota/public-50k`: it is sound, its sums are the published ones, and
//! changed in any of some eighty ways it is refused with the place, the date and the sum that fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, Ngh, UnixMicros};
use gotgan_core::ids::{GpuClass, ProjectPath};
use gotgan_core::quota::entitle::{Arena, Entitlements};
use gotgan_core::quota::{QuotaBook, QuotaFault, QuotaTree, parse, show_moment};

use crate::broken;

const FLEET: &str = include_str!("../../../../examples/quota/public-50k/fleet.toml");
const PUBLIC: &str = include_str!("../../../../examples/quota/public-50k/public.toml");

/// The programmes with what each is guaranteed at the five phases, over all classes.
const PROGRAMMES: [(&str, &str, [u64; 5]); 12] = [
    (
        "fm",
        include_str!("../../../../examples/quota/public-50k/fm.toml"),
        [3000, 4000, 8000, 8000, 12_000],
    ),
    (
        "nap",
        include_str!("../../../../examples/quota/public-50k/nap.toml"),
        [1500, 1500, 3500, 3500, 6000],
    ),
    (
        "reserve",
        include_str!("../../../../examples/quota/public-50k/reserve.toml"),
        [500, 500, 1000, 1200, 1500],
    ),
    (
        "ind",
        include_str!("../../../../examples/quota/public-50k/ind.toml"),
        [2400, 4000, 6700, 7300, 8500],
    ),
    (
        "nup",
        include_str!("../../../../examples/quota/public-50k/nup.toml"),
        [400, 400, 1000, 1400, 1500],
    ),
    (
        "phys",
        include_str!("../../../../examples/quota/public-50k/phys.toml"),
        [200, 200, 800, 2500, 3000],
    ),
    ("naicc", include_str!("../../../../examples/quota/public-50k/naicc.toml"), [0, 0, 0, 0, 5000]),
    (
        "acad",
        include_str!("../../../../examples/quota/public-50k/acad.toml"),
        [1700, 3100, 5100, 5100, 6500],
    ),
    (
        "edu",
        include_str!("../../../../examples/quota/public-50k/edu.toml"),
        [200, 200, 600, 800, 800],
    ),
    (
        "edge",
        include_str!("../../../../examples/quota/public-50k/edge.toml"),
        [100, 100, 300, 1200, 1200],
    ),
    (
        "sci",
        include_str!("../../../../examples/quota/public-50k/sci.toml"),
        [0, 3600, 3600, 3600, 3600],
    ),
    (
        "qhyb",
        include_str!("../../../../examples/quota/public-50k/qhyb.toml"),
        [0, 400, 400, 400, 400],
    ),
];

/// First days of the phases, and what the classes have from then on: b200, h200, gh200, b300, rtx, ng.
const PHASES: [(&str, [u64; 6]); 5] = [
    ("2025-12-31", [7776, 2224, 0, 0, 0, 0]),
    ("2026-07-01", [7776, 2224, 8000, 0, 0, 0]),
    ("2027-01-04", [7776, 2224, 8000, 13_000, 0, 0]),
    ("2027-10-01", [7776, 2224, 8000, 13_000, 4000, 0]),
    ("2028-06-01", [7776, 2224, 8000, 13_000, 4000, 15_000]),
];

const CLASSES: [&str; 6] = ["b200", "h200", "gh200", "b300", "rtx", "ng"];

pub fn files() -> Vec<(String, String)> {
    let programmes = PROGRAMMES.iter().map(|(name, text, _)| (format!("{name}.toml"), *text));
    let others = [("fleet.toml".to_owned(), FLEET), ("public.toml".to_owned(), PUBLIC)];
    others.into_iter().chain(programmes).map(|(name, text)| (name, text.to_owned())).collect()
}

fn reference() -> QuotaBook {
    parse(&files()).unwrap()
}

/// The moment that is shown like this.
fn moment(book: &QuotaBook, date: &str) -> UnixMicros {
    let mut moments = book.breakpoints().into_iter();
    moments.find(|at| show_moment(*at) == date).unwrap()
}

fn guaranteed(tree: &QuotaTree, path: &str, class: &str) -> u64 {
    let node = tree.get(&ProjectPath::new(path).unwrap());
    node.and_then(|node| node.guarantees.get(class)).map_or(0, |gpus| gpus.0 / 1000)
}

#[test]
fn the_phases_are_the_only_moments_at_which_anything_changes() {
    let dates: Vec<String> = reference().breakpoints().into_iter().map(show_moment).collect();
    assert_eq!(dates, PHASES.map(|(date, _)| date));
}

#[test]
fn every_programme_and_every_class_sums_to_what_was_published() {
    let book = reference();
    for (phase, (date, by_class)) in PHASES.iter().enumerate() {
        let tree = book.at(moment(&book, date));
        for (programme, _, totals) in PROGRAMMES {
            let path = format!("public/{programme}");
            let total: u64 = CLASSES.iter().map(|class| guaranteed(&tree, &path, class)).sum();
            assert_eq!(total, totals[phase], "{programme} at {date}");
        }
        for (class, expected) in CLASSES.iter().zip(by_class) {
            let sum: u64 = PROGRAMMES
                .iter()
                .map(|(programme, ..)| guaranteed(&tree, &format!("public/{programme}"), class))
                .sum();
            assert_eq!(
                (sum, guaranteed(&tree, "public", class)),
                (*expected, *expected),
                "{class} at {date}"
            );
        }
    }
}

#[test]
fn the_fleet_is_2000_larger_than_its_quotas_and_only_what_was_accepted_counts() {
    let book = reference();
    let of_lots = |pick: fn(&gotgan_core::quota::Batch) -> GpuMilli| -> u64 {
        book.lots.values().flat_map(|lot| &lot.batches).map(|batch| pick(batch).0 / 1000).sum()
    };
    assert_eq!((of_lots(|batch| batch.gpus), of_lots(|batch| batch.spare)), (50_000, 2_000));
    let capacity = book.capacity(moment(&book, "2027-01-04"));
    assert_eq!(capacity["b300"].accepted, GpuMilli::ZERO);
    assert_eq!(capacity["b300"].promised, GpuMilli::whole(13_000));
    assert_eq!(capacity["gh200"].accepted, GpuMilli::whole(8_000));
}

#[test]
fn the_root_holds_no_more_than_what_was_accepted() {
    let mut book = reference();
    let opening = moment(&book, "2027-01-04");
    let most = |book: &QuotaBook, at| book.at(at).nodes["public"].limits["b300"];
    assert_eq!(most(&book, opening), GpuMilli::ZERO, "13,000 are due, none was accepted");
    let lot = book.lots.get_mut("gov26-a").unwrap();
    lot.batches[0].accepted = Some(UnixMicros(opening.0 - 1));
    lot.batches[1].accepted = Some(UnixMicros(opening.0 + 1));
    assert_eq!(most(&book, opening), GpuMilli::whole(1000));
    assert_eq!(book.next_change(opening), UnixMicros(opening.0 + 1));
    assert_eq!(most(&book, UnixMicros(opening.0 + 1)), GpuMilli::whole(2000));
    assert_eq!(most(&book, UnixMicros(i64::MAX - 1)), GpuMilli::whole(2000), "a promise is no GPU");
}

/// What is guaranteed of `b300` to each programme on the second purchase's day, with so many of its 13 batches of
/// 1,000 accepted, while everybody asks for everything.
fn guaranteed_with(batches: usize) -> BTreeMap<String, u64> {
    let mut book = reference();
    let opening = moment(&book, "2027-01-04");
    let all =
        book.lots.values_mut().filter(|lot| lot.due == opening).flat_map(|lot| &mut lot.batches);
    all.take(batches).for_each(|batch| batch.accepted = Some(opening));
    let (tree, class) = (book.at(opening), GpuClass::new("b300").unwrap());
    let arena = Arc::new(Arena::of(&tree));
    let everything = |_| GpuMilli::whole(1_000_000);
    // All 13,000 stand in their racks; what was not accepted counts for nothing.
    let there = GpuMilli::whole(13_000);
    let entitlements = Entitlements::new(Arc::clone(&arena), &tree, &class, there, everything);
    let programmes = PROGRAMMES.iter().map(|(name, ..)| (*name).to_owned());
    let scaled = programmes.map(|name| {
        let node = arena.find(&format!("public/{name}")).unwrap();
        (name, entitlements.scaled_guarantee(node).0 / 1000)
    });
    scaled.filter(|(_, gpus)| *gpus > 0).collect()
}

#[test]
fn guarantees_of_a_late_delivery_shrink_by_largest_remainder_and_grow_with_every_batch() {
    let nine = [
        ("acad", 1385),
        ("edge", 139),
        ("edu", 277),
        ("fm", 2769),
        ("ind", 1869),
        ("nap", 1385),
        ("nup", 415),
        ("phys", 415),
        ("reserve", 346),
    ];
    assert_eq!(guaranteed_with(9), nine.map(|(name, gpus)| (name.to_owned(), gpus)).into());
    for batches in 0..=13_u64 {
        let sum: u64 = guaranteed_with(usize::try_from(batches).unwrap()).values().sum();
        assert_eq!(sum, batches * 1000, "with {batches} batches");
    }
    let book = reference();
    let tree = book.at(moment(&book, "2027-01-04"));
    for (name, gpus) in guaranteed_with(13) {
        assert_eq!(gpus, guaranteed(&tree, &format!("public/{name}"), "b300"), "{name}");
    }
}

#[test]
fn an_allocator_may_change_what_lies_below_the_nodes_that_name_them() {
    let mut book = reference();
    let path = |text: &str| ProjectPath::new(text).unwrap();
    let office = gotgan_core::ids::UserName::new("mss").unwrap();
    assert!(!book.names_allocators());
    book.nodes.get_mut("public/nup").unwrap().allocator = Some(office.clone());
    let may = |text: &str| book.may_change(&office, &path(text));
    assert_eq!(
        [
            "public",
            "public/nup",
            "public/nup/nup-startup-042",
            "public/nup/new/below",
            "public/fm/x"
        ]
        .map(may),
        [false, false, true, true, false]
    );
}

#[test]
fn projects_sum_to_their_programmes_where_all_of_them_are_known() {
    let book = reference();
    for (date, leaves) in [("2025-12-31", 378), ("2028-06-01", 1125)] {
        let tree = book.at(moment(&book, date));
        let leaf =
            |path: &&ProjectPath| tree.is_leaf(path) && path.as_str().matches('/').count() == 2;
        assert_eq!(tree.nodes.keys().filter(leaf).count(), leaves, "{date}");
        let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for path in tree.nodes.keys().filter(leaf) {
            for class in CLASSES {
                *sums.entry((path.parent().unwrap(), class)).or_default() +=
                    guaranteed(&tree, path.as_str(), class);
            }
        }
        for ((programme, class), sum) in sums {
            assert_eq!(sum, guaranteed(&tree, programme, class), "{programme} {class} at {date}");
        }
    }
}

#[test]
fn the_order_of_files_changes_nothing() {
    let mut files = files();
    let forward = parse(&files).unwrap();
    files.reverse();
    assert_eq!(parse(&files).unwrap(), forward);
}

fn faults_of(broken: &broken::Broken) -> Vec<QuotaFault> {
    let (name, from, to, _) = broken;
    let mut files = files();
    let text = &mut files.iter_mut().find(|(file, _)| file == name).unwrap().1;
    assert!(text.contains(from), "{name} has no {from}");
    *text = text.replacen(from, to, 1);
    parse(&files).err().unwrap_or_default()
}

#[test]
fn every_broken_variant_is_refused_with_its_place_date_and_sum() {
    for broken in broken::all() {
        let lines: Vec<String> = faults_of(broken).iter().map(ToString::to_string).collect();
        let wanted = broken.3;
        let named = lines.iter().any(|line| wanted.iter().all(|word| line.contains(word)));
        assert!(
            named,
            "{broken:?}\nmust be refused with {wanted:?}, and got\n{}",
            lines.join("\n")
        );
    }
}

#[test]
fn a_parent_may_promise_beyond_its_budget_if_it_says_so() {
    let beyond = |period: &str, promise: &str| {
        let budget = format!("budget = {{ period = \"{period}\", ngh = 1000{promise} }}");
        let mut files = files();
        let text = &mut files.iter_mut().find(|(file, _)| file == "nup.toml").unwrap().1;
        *text = text.replacen(broken::BUDGET, &budget, 1);
        parse(&files).is_ok()
    };
    assert!(!beyond("quarter", ""));
    assert!(beyond("quarter", ", promise = \"beyond\""));
    assert!(beyond("year", ""), "a year's budget and a quarter's are not one sum");
}

#[test]
fn budgets_begin_anew_with_their_periods_and_change_by_their_dates() {
    let book = reference();
    let opening = moment(&book, "2027-01-04");
    assert_eq!(show_moment(book.next_change(opening)), "2027-02-01", "months of edu");
    let tree = book.at(opening);
    let budget = |path: &str| tree.nodes[path].budget.clone().unwrap();
    let startup = budget("public/nup/nup-startup-042");
    assert_eq!(
        (startup.period_name(), startup.ngh, startup.cap_milli),
        ("2027-Q1".to_owned(), Ngh::whole(4000), 1250)
    );
    let science = budget("public/sci").before.unwrap();
    assert_eq!(show_moment(science.span.from), "2026-01-01");
    assert_eq!(science.carry.of(science.ngh, Ngh::whole(30_000_000)), Ngh::whole(100_000));
    assert_eq!(tree.weight_milli(&GpuClass::new("b300").unwrap()), 2500);
    let again: QuotaBook = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
    assert_eq!(again, book);
}
