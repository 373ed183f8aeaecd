//! Quota trees from files, and what differs between two.

use gotgan_core::amount::UnixMicros;
use gotgan_core::quota::{QuotaBook, diff, parse};
use insta::assert_snapshot;
use proptest::prelude::*;

fn files(texts: &[(&str, &str)]) -> Vec<(String, String)> {
    texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn read(text: &str) -> QuotaBook {
    parse(&files(&[("quota.toml", text)])).unwrap()
}

/// All faults, one a line.
fn faults(texts: &[(&str, &str)]) -> String {
    let faults = parse(&files(texts)).unwrap_err();
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_union_of_all_files_is_the_tree_whatever_their_order() {
    let root = ("root.toml", "[node.public]\nlimit = { b200 = 1024, any = 2048 }\n");
    let nup = (
        "nup.toml",
        "[node.\"public/nup\"]\ntitle = \"Startups\"\nlimit = { b200 = 24, h200 = \"unlimited\" }\n",
    );
    let tree = parse(&files(&[root, nup])).unwrap();
    assert_eq!(tree, parse(&files(&[nup, root])).unwrap());
    let tree = tree.at(UnixMicros(0));
    assert_snapshot!(serde_json::to_string(&tree).unwrap(), @r#"{"revision":0,"nodes":{"public":{"title":"","guarantees":{},"weight":1,"limits":{"b200":1024000},"any_limit":2048000,"budget":null,"alert":[50,75,90,100,125]},"public/nup":{"title":"Startups","guarantees":{},"weight":1,"limits":{"b200":24000},"any_limit":null,"budget":null,"alert":[50,75,90,100,125]}},"weights":{}}"#);
}

#[test]
fn a_fault_is_one_line_whatever_is_in_a_key() {
    let text = "[node.public]\n[node.\"public/\\nup: all is well\"]\n\"a\\u001b[2Jb\" = 1\n";
    let faults = parse(&files(&[("a.toml", text)])).unwrap_err();
    for fault in &faults {
        assert!(!fault.to_string().contains(char::is_control), "{fault:?}");
    }
    assert!(faults[0].field.contains("public/\\nup"), "{faults:?}");
}

#[test]
fn the_example_tree_is_sound() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quota/small/public.toml");
    assert!(folder.ends_with(".toml"));
    let texts = [
        ("public.toml", include_str!("../../../../examples/quota/small/public.toml")),
        ("nup.toml", include_str!("../../../../examples/quota/small/nup.toml")),
        ("academia.toml", include_str!("../../../../examples/quota/small/academia.toml")),
    ];
    let tree = parse(&files(&texts)).unwrap();
    assert!(tree.nodes.len() >= 3);
}

#[test]
fn every_fault_is_named_with_its_line_and_fix() {
    let text = r#"
owner = "kim"
[node.public]
limit = { b200 = -1, h200 = 1.5, "B200" = 3, a100 = "many", any = true }
price = 7
[node."public/x/y"]
title = 3
[node."Public"]
[node."public/z"]
limit = 8
"#;
    assert_snapshot!(faults(&[("q.toml", text)]), @r#"
    q.toml:2: owner: not enforced by this version (only [node."PATH"], [class.NAME], [cluster.NAME], [lot.NAME], [[approval]], [[reservation]] and [[loan]] are): remove it
    q.toml:4: node."public".limit.B200: GPU class "B200" must be 1 to 32 lower-case letters, digits or inner hyphens
    q.toml:4: node."public".limit.a100: must be whole GPUs, as in 16, or "unlimited"
    q.toml:4: node."public".limit.any: must be whole GPUs, as in 16, or "unlimited"
    q.toml:4: node."public".limit.b200: must be 0 to 1000000000 whole GPUs, not -1
    q.toml:4: node."public".limit.h200: must be whole GPUs, as in 16, or "unlimited"
    q.toml:5: node."public".price: not enforced by this version (only title, kind, decision, allocator, from, until, guarantee, limit, weight, budget, overuse, alert, lend, borrow, max_gang, max_walltime, max_jobs, labels, concentration and group are): remove it
    q.toml:6: node."public/x/y": its parent is missing: add [node."public/x"] to any file
    q.toml:7: node."public/x/y".title: must be a text of at most 256 characters
    q.toml:8: node."Public": project path "Public" must be 1 to 16 parts of lower-case letters, digits or inner hyphens, joined by /, at most 255 characters
    q.toml:10: node."public/z".limit: must be a table of classes, as in limit = { b200 = 16 }
    "#);
}

#[test]
fn rules_of_approval_that_make_no_sense_are_refused() {
    let rule = |rules: &str| faults(&[("q.toml", &format!("approval = {rules}\n[node.a]\n"))]);
    let refused = [
        rule("3"),
        rule("[{ above_gpus = 1 }]"),
        rule("[{ above_gpus = 1, approvers = 0 }]"),
        rule("[{ above_gpus = 1, approvers = 1, by = \"kim\" }]"),
        rule("[{ above_gpus = 1, approvers = 1 }, { above_gpus = 1, approvers = 2 }]"),
        rule("[{ above_gpus = 1, approvers = 2 }, { above_gpus = 9, approvers = 1 }]"),
    ];
    insta::assert_snapshot!(refused.join("\n"), @r"
    q.toml:1: approval: must be a list: write [[approval]]
    q.toml:1: approval: needs above_gpus and approvers
    q.toml:1: approval.approvers: must be 1 to 10 people, not 0
    q.toml:1: approval.by: not enforced by this version (only above_gpus and approvers are): remove it
    q.toml:1: approval.above_gpus: two rules are for changes above 1 GPUs: keep one
    q.toml:1: approval.approvers: above 1 GPUs 2 must approve, and above 9 only 1: a larger change never needs fewer
    ");
    let twice = "approval = [{ above_gpus = 1, approvers = 1 }]\n";
    insta::assert_snapshot!(faults(&[("a.toml", twice), ("b.toml", twice)]), @"b.toml:1: approval: is there already at a.toml:1: keep one of them");
}

#[test]
fn a_node_twice_names_both_places() {
    let text = "[node.public]\n";
    assert_snapshot!(faults(&[("a.toml", text), ("b.toml", text)]), @r#"b.toml:1: node."public": is there already at a.toml:1: keep one of them"#);
}

#[test]
fn text_that_is_not_toml_names_the_line() {
    assert_snapshot!(faults(&[("a.toml", "[node.public]\nlimit = {\n")]), @"a.toml:2: not TOML: unclosed inline table, expected `}`");
}

#[test]
fn a_difference_is_one_line_a_node_sorted_by_path() {
    let old = read(
        "[node.public]\nlimit = { b200 = 16 }\n[node.\"public/a\"]\nlimit = { any = 4 }\n\
         [node.\"public/b\"]\n",
    );
    let new = read(
        "[node.public]\ntitle = \"All\"\nlimit = { b200 = 32, h200 = 8 }\n[node.\"public/b\"]\n\
         [node.\"public/c\"]\nlimit = { b200 = 1 }\n",
    );
    let lines: Vec<_> = diff(&old, &new)
        .iter()
        .map(|change| format!("{} {} {}", change.path, change.kind.word(), change.text))
        .collect();
    assert_snapshot!(lines.join("\n"), @r#"
    public changed limit b200: 16 -> 32, limit h200: unlimited -> 8, title: "" -> "All"
    public/a removed limit any: 4
    public/c added limit b200: 1
    "#);
    assert_eq!(diff(&old, &old), []);
}

#[test]
fn a_path_is_a_leaf_if_nothing_lies_below_it() {
    let tree = read("[node.a]\n[node.\"a-b\"]\n[node.\"a-b/c\"]\n[node.\"a0\"]\n[node.\"a/x\"]\n");
    let tree = tree.at(UnixMicros(0));
    let leaf = |path| tree.is_leaf(&gotgan_core::ids::ProjectPath::new(path).unwrap());
    assert_eq!(["a", "a-b", "a-b/c", "a0", "a/x"].map(leaf), [false, false, true, true, true]);
}

#[test]
fn a_dated_change_is_told_with_its_dates() {
    let old = read("[node.public]\nlimit = { b200 = 16 }\n[class.b200]\nweight_milli = 2000\n");
    let new = read(
        "[node.public]\ndecision = \"D-1\"\nweight = 2\nlimit = [{ class = \"b200\", gpus = 16 },\n\
         { class = \"b200\", gpus = \"unlimited\", from = \"2027-01-04\", until = \"2028-01-01\" }]\n\
         guarantee = [{ class = \"b200\", gpus = 8, from = \"2026-02-01\" }]\n[class.b200]\nweight_milli = 2500\n\
         [cluster.a]\nclass = \"b200\"\n[lot.a]\ncluster = \"a\"\ndue = \"2026-01-01\"\n\
         batch = [{ gpus = 16, spare = 8, accepted = \"2026-02-01\" }, { gpus = 8 }]\n",
    );
    let lines: Vec<_> = diff(&old, &new)
        .iter()
        .map(|change| format!("{} {} {}", change.path, change.kind.word(), change.text))
        .collect();
    assert_snapshot!(lines.join("\n"), @r#"
    class b200 changed weight_milli: 2000 -> 2500
    cluster a added class: b200
    lot a added batch 001: 16 and 8 spare, accepted 2026-02-01, batch 002: 8 and 0 spare, not accepted, cluster: a, due: 2026-01-01
    public changed decision: none -> D-1, guarantee b200: none -> 8 from 2026-02-01, limit b200: 16 -> 16, unlimited from 2027-01-04 until 2028-01-01, weight: 1 -> 2
    "#);
}

#[test]
fn the_tree_in_force_follows_the_dates() {
    let book = read(
        "[node.public]\nlimit = [{ class = \"b200\", gpus = 16 }, { class = \"b200\", gpus = 8, from = \"2027-01-04\" }]\n\
         [node.\"public/lab\"]\nfrom = \"2026-06-01\"\nuntil = \"2028-01-01\"\n\
         [node.\"public/lab/a\"]\n",
    );
    let mut seen = Vec::new();
    let mut at = UnixMicros(0);
    while at < gotgan_core::quota::Interval::ALWAYS.until {
        let tree = book.at(at);
        let nodes: Vec<&str> = tree.nodes.keys().map(|path| path.as_str()).collect();
        seen.push(format!("{} b200 {}", nodes.join(" "), tree.nodes["public"].limits["b200"]));
        at = book.next_change(at);
    }
    assert_snapshot!(seen.join("\n"), @"
    public b200 16
    public public/lab public/lab/a b200 16
    public public/lab public/lab/a b200 8
    public b200 8
    ");
}

/// Terms of each kind, in two files.
const WITH_TERMS: [(&str, &str); 2] = [
    (
        "root.toml",
        "[node.public]\ndecision = \"D-1\"\nguarantee = { b200 = 100 }\n\
         concentration = { label = \"organisation\", most_percent = 40 }\nmax_walltime = \"42d\"\n\
         max_jobs = [{ value = 5 }, { value = 7, from = \"2027-01-04\" }]\n",
    ),
    (
        "lab.toml",
        "[node.\"public/lab\"]\nguarantee = { b200 = 40 }\n\
         lend = { keep_idle = 4, max = [{ class = \"b200\", gpus = 8, from = \"2027-01-04\" }], recall = \"90s\" }\n\
         borrow = { max = { b200 = 0 } }\nmax_gang = 16\nlabels = { organisation = \"acme\", region = \"busan\" }\n\
         [[node.\"public\".group]]\nid = \"team\"\ncount = 2\n[node.\"public\".group.each]\n\
         guarantee = { b200 = 10 }\nlabels = { organisation = \"beta\" }\n",
    ),
];

#[test]
fn terms_hold_by_their_dates_and_are_the_same_when_read_back() {
    let [root, lab] = WITH_TERMS;
    let lab_first = [("a.toml", lab.1), ("b.toml", root.1)];
    // A group stands in the table of its parent.
    let one = format!(
        "{}{}",
        root.1,
        lab.1.replace("[[node.\"public\".group]]", "[[node.public.group]]")
    );
    assert!(parse(&files(&lab_first)).is_err(), "the group is not in its parent's table");
    let one = one.replace("[node.\"public\".group.each]", "[node.public.group.each]");
    let book = read(&one);
    let words = |path: &str, at: i64| {
        let words = book.at(UnixMicros(at)).nodes[path].bounds.words();
        words.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ")
    };
    let later = 2_000_000_000_000_000;
    assert_snapshot!(words("public/lab", 0), @"lend keep_idle: 4, borrow max b200: 0, max_gang: 16, lend recall: 90s, labels organisation: acme, labels region: busan");
    assert_snapshot!(words("public/lab", later), @"lend keep_idle: 4, lend max b200: 8, borrow max b200: 0, max_gang: 16, lend recall: 90s, labels organisation: acme, labels region: busan");
    assert_snapshot!(words("public", later), @"max_walltime: 42d, max_jobs: 7, concentration: at most 40 % for a value of organisation");
    assert_snapshot!(words("public/team-002", 0), @"labels organisation: beta");
    let again: QuotaBook = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
    assert_eq!(again, book);
    assert_eq!(
        book.next_change(UnixMicros(0)),
        gotgan_core::quota::read_moment("2027-01-04").unwrap()
    );
}

#[test]
fn no_value_of_a_label_has_more_than_its_part_and_one_in_another_counts_once() {
    let text = |acme: u32, inner: &str| {
        format!(
            "[node.p]\ndecision = \"D\"\nguarantee = [{{ class = \"b200\", gpus = 100 }}, {{ class = \"h200\", gpus = 100, from = \"2027-01-04\" }}]\n\
             concentration = {{ label = \"org\", most_percent = 10 }}\n\
             [node.\"p/a\"]\nguarantee = [{{ class = \"b200\", gpus = 10 }}, {{ class = \"h200\", gpus = {acme}, from = \"2027-01-04\" }}]\n\
             labels = {{ org = \"acme\" }}\n\
             [node.\"p/a/x\"]\nguarantee = {{ b200 = 9 }}\nlabels = {{ org = \"{inner}\" }}\n\
             [node.\"p/b\"]\nlabels = {{ org = \"beta\" }}\nguarantee = {{ b200 = 2 }}\n"
        )
    };
    let faults = |acme, inner: &str| faults(&[("a.toml", &text(acme, inner))]);
    assert!(parse(&files(&[("a.toml", &text(10, "acme"))])).is_ok());
    assert_snapshot!(faults(11, "acme"), @r#"a.toml:4: node."p".concentration: from 2027-01-04 org = "acme" is guaranteed 21 of the 200 GPUs here, more than 10 %: lower its guarantees to 20"#);
    assert_snapshot!(faults(10, "beta"), @r#"a.toml:4: node."p".concentration: from the beginning org = "beta" is guaranteed 11 of the 100 GPUs here, more than 10 %: lower its guarantees to 10"#);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_whatever_makes_the_parser_panic(text in "\\PC{0,200}|[\\[\\]{}=.\"\\na-z0-9 -]{0,200}") {
        let _ = parse(&[("x.toml".to_owned(), text)]);
    }

    #[test]
    fn nor_does_a_sound_file_cut_or_changed_anywhere(at in 0..330_usize, byte in any::<char>()) {
        let sound = "[node.public]\ntitle = \"All\"\nlimit = { b200 = 16, any = \"unlimited\" }\n\
                     [node.\"public/nup\"]\nlimit = { h200 = 0x10 }\nguarantee = [{ class = \"h200\", gpus = 1, \
                     from = 2027-01-04 }]\n[[node.\"public/nup\".group]]\nid = \"a\"\ncount = 3\n";
        let at = at.min(sound.len());
        let changed = format!("{}{byte}{}", &sound[..at], &sound[at..]);
        for text in [changed, sound[..at].to_owned()] {
            if let Err(faults) = parse(&[("x.toml".to_owned(), text)]) {
                prop_assert!(!faults.is_empty());
            }
        }
    }
}
