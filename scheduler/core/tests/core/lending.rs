//! Loans and reservations in quota files.

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::ids::ProjectPath;
use gotgan_core::quota::audit::edits;
use gotgan_core::quota::{ChangeSize, QuotaBook, parse, read_moment};
use insta::assert_snapshot;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reference;

/// What a team asks for, beside the reference tree.
pub const ASKED: &str = include_str!("../../../../examples/scenarios/six-weeks/asked.toml");
/// The same once everybody has consented.
const AGREED: &str = include_str!("../../../../examples/scenarios/six-weeks/agreed.toml");

/// The files of the reference tree and one more.
pub fn with(more: &str) -> Vec<(String, String)> {
    let mut files = reference::files();
    files.push(("six-weeks.toml".to_owned(), more.to_owned()));
    files
}

fn at(date: &str) -> UnixMicros {
    read_moment(date).unwrap()
}

fn guaranteed(book: &QuotaBook, path: &str, date: &str) -> u64 {
    let tree = book.at(at(date));
    let node = tree.get(&ProjectPath::new(path).unwrap());
    node.and_then(|node| node.guarantees.get("b300")).map_or(0, |gpus| gpus.0 / 1000)
}

#[test]
fn whoever_asks_is_told_what_is_missing_who_has_not_consented_and_what_fits() {
    let faults = parse(&with(ASKED)).unwrap_err();
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let (silent, missing): (Vec<_>, Vec<_>) =
        faults.iter().partition(|fault| fault.contains(".consent: "));
    assert_eq!(silent.len(), 9, "each lender is named");
    assert_snapshot!(silent[6], @r#"six-weeks.toml:69: loan.six-weeks-nap.consent: public/nap has not consented to lend 2000 b300 to public/fm/fm-team-001 from 2027-03-02T10:00:00+09:00 until 2027-04-13T10:00:00+09:00: name its document, as in consent = "GPU-2027-021""#);
    assert_snapshot!(missing[0], @"six-weeks.toml:8: reservation.six-weeks.gpus: from 2027-03-02T10:00:00+09:00 public/fm/fm-team-001 is guaranteed 896 b300 of its own and 8000 are reserved, 7104 are missing: 0 are lent with consent and 7104 without (not consented: public/acad 1500, public/fm/fm-eval-001 32, public/fm/fm-spec-001 192, public/fm/fm-spec-002 192, public/fm/fm-team-002 896, public/fm/fm-team-003 896, public/fm/fm-team-004 896, public/nap 2000, public/reserve 500); only gov26-a (8000 in quota) fits");
    assert_snapshot!(missing[1], @"six-weeks.toml:9: reservation.six-weeks.cluster: only gov26-a (8000 in quota) fits for 8000 b300 in one fabric: name the cluster");
}

#[test]
fn with_consent_the_borrower_has_all_of_one_cluster_and_the_others_have_the_rest() {
    let book = parse(&with(AGREED)).unwrap();
    let begin = "2027-03-02T10:00";
    let lenders = [("public/nap", 2000, 0), ("public/acad", 2000, 500), ("public/reserve", 500, 0)];
    for (path, before, during) in lenders {
        assert_eq!(guaranteed(&book, path, "2027-03-02"), before);
        assert_eq!(guaranteed(&book, path, begin), during);
        assert_eq!(guaranteed(&book, path, "2027-04-13T10:00"), before);
    }
    let of = |path: &str| guaranteed(&book, path, begin);
    assert_eq!([of("public/fm/fm-team-001"), of("public/fm"), of("public")], [8000, 8000, 13_000]);
    let rest = ["ind", "nup", "phys", "acad", "edu", "edge"];
    let rest = rest.map(|programme| of(&format!("public/{programme}")));
    assert_eq!(rest, [2700, 600, 600, 500, 400, 200]);
    assert_eq!(rest.iter().sum::<u64>(), 5000);
}

#[test]
fn gpu_hours_that_are_lent_sum_to_what_is_reserved_less_what_is_own() {
    let book = parse(&with(AGREED)).unwrap();
    let hours = |path: &str| -> i64 {
        let lent = book.loans.values().filter(|loan| loan.lender.is_within(path));
        lent.map(|loan| loan.gpu_time().0).sum::<i64>() / 3_600_000
    };
    let lent = ["public/fm", "public/nap", "public/acad", "public/reserve"].map(hours);
    assert_eq!(lent, [3_128_832, 2_016_000, 1_512_000, 504_000]);
    let reserved = book.reservations["six-weeks"].gpu_time().0 / 3_600_000;
    assert_eq!((reserved, reserved - lent.iter().sum::<i64>()), (8_064_000, 903_168));
}

#[test]
fn a_node_sees_what_it_lends_and_borrows_beyond_itself() {
    let book = parse(&with(AGREED)).unwrap();
    let of = |path: &str| {
        let views = book.loans_of(&ProjectPath::new(path).unwrap(), UnixMicros(0));
        let sum = |lends| -> GpuMilli {
            views.iter().filter(|view| view.lends == lends).map(|view| view.terms.gpus).sum()
        };
        (sum(true).0 / 1000, sum(false).0 / 1000)
    };
    assert_eq!(of("public/nap"), (2000, 0));
    assert_eq!(of("public/fm"), (0, 4000));
    assert_eq!(of("public/fm/fm-team-001"), (0, 7104));
    assert_eq!(of("public"), (0, 0));
}

#[test]
fn a_book_with_loans_is_kept_whole_and_one_without_is_kept_as_ever() {
    let book = parse(&with(AGREED)).unwrap();
    let text = serde_json::to_string(&book).unwrap();
    assert_eq!(serde_json::from_str::<QuotaBook>(&text).unwrap(), book);
    let plain = serde_json::to_string(&parse(&reference::files()).unwrap()).unwrap();
    assert!(!plain.contains("reservations") && !plain.contains("loans"));
}

#[test]
fn every_loan_and_reservation_is_a_change_with_its_document_and_its_size() {
    let (old, new) = (parse(&reference::files()).unwrap(), parse(&with(AGREED)).unwrap());
    let changes = edits(&old, &new);
    let subjects: Vec<String> = changes.iter().map(|edit| edit.subject()).collect();
    assert_eq!(subjects.len(), 10);
    assert_eq!(subjects[0], "reservation six-weeks");
    assert_eq!(ChangeSize::of(&changes), ChangeSize::Gpus(GpuMilli::whole(2 * 7104)));
    let (now, begin) = (at("2027-02-27"), at("2027-03-02T10:00"));
    assert_eq!(changes[0].effective_from(now), now, "what starts is kept off at once");
    assert_eq!(changes[1].effective_from(now), begin);
}

/// A tree with room, some loans and reservations in it.
fn text(
    loans: &[(usize, usize, u32, u32, u32)],
    reservations: &[(usize, u32, u32, u32)],
) -> String {
    const NODES: [&str; 4] = ["public/a/x", "public/a/y", "public/b", "public/c"];
    let mut text = String::from(
        "[class.b200]\n[cluster.one]\nclass = \"b200\"\n[lot.one]\ncluster = \"one\"\ndue = \"2027-01-01\"\n\
         batch = [{ gpus = 40 }]\n[node.public]\ndecision = \"D\"\nguarantee = { b200 = 40 }\n[node.\"public/a\"]\n\
         guarantee = { b200 = 20 }\n",
    );
    text = text
        .replace("guarantee = { b200 = 40 }", "from = \"2027-01-01\"\nguarantee = { b200 = 40 }");
    for node in NODES {
        text.push_str(&format!("[node.\"{node}\"]\nguarantee = {{ b200 = 10 }}\n"));
    }
    for (index, (lender, borrower, gpus, from, days)) in loans.iter().enumerate() {
        text.push_str(&format!(
            "[[loan]]\nid = \"l{index}\"\nlender = \"{}\"\nborrower = \"{}\"\nclass = \"b200\"\ngpus = {gpus}\n\
             from = \"2027-02-{from:02}\"\nuntil = \"2027-03-{days:02}\"\nconsent = \"D\"\n",
            NODES[*lender], NODES[*borrower]
        ));
    }
    for (index, (holder, gpus, from, days)) in reservations.iter().enumerate() {
        text.push_str(&format!(
            "[[reservation]]\nid = \"r{index}\"\nnode = \"{}\"\nclass = \"b200\"\ngpus = {gpus}\ncluster = \"one\"\n\
             from = \"2027-02-{from:02}\"\nuntil = \"2027-03-{days:02}\"\ndecision = \"D\"\n",
            NODES[*holder]
        ));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_never_breaks_nesting_and_loans_leave_the_sum_as_it_was(
        loans in vec((0..4_usize, 0..4_usize, 1..7_u32, 1..28_u32, 1..28_u32), 0..6),
        reservations in vec((0..4_usize, 1..16_u32, 1..28_u32, 1..28_u32), 0..3),
    ) {
        let text = text(&loans, &reservations);
        let Ok(book) = parse(&[("all.toml".to_owned(), text)]) else { return Ok(()) };
        for at in book.breakpoints() {
            let tree = book.at(at);
            let of = |path: &str| -> u64 {
                tree.nodes.get(path).and_then(|node| node.guarantees.get("b200")).map_or(0, |gpus| gpus.0)
            };
            prop_assert!(of("public/a/x") + of("public/a/y") <= of("public/a"));
            let top = of("public/a") + of("public/b") + of("public/c");
            prop_assert!(top <= of("public"));
            // Nobody is there before.
            if tree.nodes.contains_key("public") {
                prop_assert_eq!(top, 40_000);
                prop_assert_eq!(of("public/a/x") + of("public/a/y"), of("public/a"));
                prop_assert!(of("public") <= 40_000);
            }
            let now: Vec<_> =
                book.reservations.values().filter(|terms| terms.during.contains(at)).collect();
            prop_assert!(now.len() <= 1);
            for terms in now {
                prop_assert!(terms.gpus.0 <= of(terms.holder.as_str()));
            }
        }
    }
}
