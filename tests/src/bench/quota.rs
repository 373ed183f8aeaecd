//! Quotas at the size of a country: the example of 50,000 GPUs in its fifth phase, with 1,125 projects and six classes.
//!
//! Everything but the plan is measured in this process, on one core and without a database, by the core's own code.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::ids::{GpuClass, ProjectPath, UserName};
use gotgan_core::quota::audit::{AuditEntry, ChainHead, Replay, Source, Warrant, record};
use gotgan_core::quota::entitle::{Arena, Entitlements, NodeIndex};
use gotgan_core::quota::{QuotaBook, QuotaTree, parse, read_moment};

use super::report::Unit;
use super::{Backend, Mark, Measure, Setup};

/// A day of the fifth phase.
const FIFTH_PHASE: &str = "2028-07-01";
/// Entries of the audit chain that is verified and searched.
const ENTRIES: usize = 100_000;
/// Computations of one sort, of which the median counts.
const COMPUTATIONS: u32 = 51;
/// Demands that change one by one.
const DEMANDS: u32 = 5_000;

/// Measures everything that needs no database.
///
/// # Panics
/// If the example is not there or not sound.
#[must_use]
pub fn measure(setup: &Setup) -> Vec<Measure> {
    let book = example();
    let mut measures = Vec::new();
    let mut add = |name: &str, unit, most, measure: &dyn Fn() -> Vec<Duration>| {
        if name.contains(&setup.only) {
            let measure = Measure::of_times(name, unit, Mark::AtMost(most), measure());
            eprintln!("{name}: {:.3} {}", measure.value, measure.unit);
            measures.push(measure);
        }
    };
    let at = read_moment(FIFTH_PHASE).expect("a date");
    let (tree, capacity) = (book.at(at), capacity(&book, at));
    add("quota/entitlement/all-classes", Unit::Milliseconds, 5.0, &|| {
        all_classes(&tree, &capacity)
    });
    add("quota/entitlement/one-demand", Unit::Microseconds, 50.0, &|| one_demand(&tree, &capacity));
    let chain = chain(&book);
    add("quota/audit/verify-100k", Unit::Milliseconds, 1000.0, &|| {
        times(setup.runs, || verify(&chain))
    });
    add("quota/audit/who-100k", Unit::Milliseconds, 1000.0, &|| times(setup.runs, || who(&chain)));
    measures
}

/// Measures the plan of the whole tree, by the command line and a scheduler that has none yet.
///
/// # Panics
/// If the plan is refused.
pub async fn measure_plan(setup: &Setup, backend: Backend) -> Option<Measure> {
    let name = format!("quota/plan/{}", backend.word());
    if !name.contains(&setup.only) {
        return None;
    }
    let cluster = setup.cluster(backend).await;
    let (admin, folder) = (cluster.gotgan(), folder());
    let folder = folder.display().to_string();
    let plan = || {
        let ran = admin.run(&["quota", "plan", &folder]);
        assert_eq!(ran.code, CHANGES_PLANNED, "{ran:?}");
    };
    let measure = Measure::of_times(
        &name,
        Unit::Milliseconds,
        Mark::AtMost(2000.0),
        times(setup.runs.max(5), plan),
    );
    eprintln!("{name}: {:.3} {}", measure.value, measure.unit);
    Some(measure)
}

/// Exit code of a plan that changes something.
const CHANGES_PLANNED: i32 = 2;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quota/public-50k")
}

fn example() -> QuotaBook {
    let files = fs::read_dir(folder()).expect("the example");
    let files = files.map(|file| {
        let path = file.expect("a file of the example").path();
        (path.display().to_string(), fs::read_to_string(&path).expect("a text"))
    });
    parse(&files.collect::<Vec<_>>()).expect("a sound example")
}

fn capacity(book: &QuotaBook, at: UnixMicros) -> Vec<(GpuClass, GpuMilli)> {
    let there = book.capacity(at).into_iter();
    there.map(|(class, there)| (class, there.accepted + there.promised)).collect()
}

fn times(runs: usize, mut run: impl FnMut()) -> Vec<Duration> {
    let time = |_| {
        let began = Instant::now();
        run();
        began.elapsed()
    };
    (0..runs).map(time).collect()
}

/// What the node wants in this benchmark: some less than their guarantee, some more.
fn demand(node: NodeIndex) -> GpuMilli {
    GpuMilli::whole(u32::try_from(node.get() * 7 % 61).expect("a small number"))
}

/// The whole tree for each class, from nothing.
fn all_classes(tree: &QuotaTree, capacity: &[(GpuClass, GpuMilli)]) -> Vec<Duration> {
    times(COMPUTATIONS as usize, || {
        let arena = Arc::new(Arena::of(tree));
        for (class, there) in capacity {
            black_box(Entitlements::new(Arc::clone(&arena), tree, class, *there, demand));
        }
    })
}

/// One project asks for another amount, as when a job of it starts or ends.
fn one_demand(tree: &QuotaTree, capacity: &[(GpuClass, GpuMilli)]) -> Vec<Duration> {
    let arena = Arc::new(Arena::of(tree));
    let (class, there) = capacity.iter().max_by_key(|(_, there)| *there).expect("a class");
    let mut due = Entitlements::new(Arc::clone(&arena), tree, class, *there, demand);
    let leaves: Vec<_> = arena.indexes().filter(|node| arena.is_leaf(*node)).collect();
    let mut number = 0_u32;
    times(DEMANDS as usize, || {
        number += 1;
        let leaf = leaves[number as usize * 89 % leaves.len()];
        due.set_demand(leaf, GpuMilli::whole(number * 5 % 67));
    })
}

/// The example applied, and then one project after another that is renamed.
fn chain(book: &QuotaBook) -> Vec<AuditEntry> {
    let office = UserName::new("office").expect("a name");
    let warrant = Warrant {
        by: office.clone(),
        requester: office,
        source: Source::Files,
        reason: "more work".to_owned(),
        plan: None,
        approvals: Vec::new(),
    };
    let mut head = ChainHead::default();
    let mut book = QuotaBook { revision: 1, ..book.clone() };
    let mut entries = record(&head, &QuotaBook::default(), &book, &warrant, UnixMicros(1));
    let paths: Vec<ProjectPath> = book.nodes.keys().cloned().collect();
    while entries.len() < ENTRIES {
        head.pass(entries.last().expect("at least one"));
        let number = entries.len();
        let path = &paths[number % paths.len()];
        // Books of one node give the same entries as whole ones, and making the chain does not take minutes.
        let (mut old, mut new) = (QuotaBook::default(), QuotaBook::default());
        let before = book.nodes[path].clone();
        let mut after = before.clone();
        after.title = format!("revision {number}");
        old.nodes.insert(path.clone(), before);
        new.nodes.insert(path.clone(), after.clone());
        new.revision = book.revision + 1;
        let at = UnixMicros(i64::try_from(number).expect("a small number"));
        entries.extend(record(&head, &old, &new, &warrant, at));
        book.nodes.insert(path.clone(), after);
        book.revision += 1;
    }
    entries
}

/// Every digest, what each entry found, approvals, and the book at the end.
fn verify(chain: &[AuditEntry]) {
    let mut replay = Replay::default();
    for entry in chain {
        replay.take(entry).expect("a sound chain");
    }
    replay.finish().expect("a sound chain");
    black_box(replay.book().expect("a readable chain"));
}

/// Every change of one project, field by field.
fn who(chain: &[AuditEntry]) {
    let subject = &chain[chain.len() / 2].subject;
    for entry in chain.iter().filter(|entry| entry.subject == *subject) {
        black_box(entry.read().expect("a readable entry").edit.fields());
    }
}
