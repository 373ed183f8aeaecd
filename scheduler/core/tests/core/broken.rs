//! Ways to break the quota files in `examples/quota/public-50k`, each with words of the fault that must come of it. The
//! core is tested with them, and the command line with the same ones.

/// What a text of one file becomes, and words of the fault that must come of it.
pub type Broken = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// In `fleet.toml`.
const BROKEN_FLEET: [Broken; 16] = [
    ("fleet.toml", "[class.h200]", "[class.h200", &["fleet.toml:4", "not TOML"]),
    ("fleet.toml", "[class.h200]", "[klass.h200]", &["fleet.toml:4", "klass", "not enforced"]),
    ("fleet.toml", "[class.h200]", "[class.H200]", &["class.H200", "lower-case"]),
    (
        "fleet.toml",
        "weight_milli = 600",
        "weight_milli = 0",
        &["class.rtx.weight_milli", "must be 1 to 1000000"],
    ),
    ("fleet.toml", "weight_milli = 600", "weight = 600", &["class.rtx.weight", "not enforced"]),
    (
        "fleet.toml",
        "weight_milli = 600",
        "weight_milli = [{ value = 600, until = \"2028-01-01\" }, { value = 700, from = \"2027-06-01\" }]",
        &["class.rtx.weight_milli", "two values hold from 2027-06-01"],
    ),
    (
        "fleet.toml",
        "class = \"gh200\"",
        "class = \"gb200\"",
        &["cluster.hangang.class", "no class gb200"],
    ),
    ("fleet.toml", "class = \"gh200\"", "nodes = 2124", &["cluster.hangang", "not enforced"]),
    (
        "fleet.toml",
        "cluster = \"hangang\"",
        "cluster = \"hangan\"",
        &["lot.hangang.cluster", "no cluster hangan"],
    ),
    (
        "fleet.toml",
        "gpus = 8000, spare = 496",
        "gpus = -8000",
        &["lot.hangang.batch.gpus", "not -8000"],
    ),
    (
        "fleet.toml",
        "gpus = 8000, spare = 496",
        "gpus = 8000.5",
        &["lot.hangang.batch.gpus", "whole GPUs"],
    ),
    (
        "fleet.toml",
        "gpus = 8000, spare = 496",
        "gpus = 99999999999999999999",
        &["lot.hangang.batch.gpus", "must be 0 to"],
    ),
    (
        "fleet.toml",
        "gpus = 8000, spare = 496",
        "spares = 496",
        &["lot.hangang.batch", "not enforced"],
    ),
    (
        "fleet.toml",
        "gpus = 8000, spare = 496",
        "gpus = 7999, spare = 497",
        &[
            "public.toml",
            "node.\"public\".guarantee.gh200",
            "from 2026-07-01 8000 gh200",
            "7999 in all",
            "by 1",
        ],
    ),
    (
        "fleet.toml",
        "due = \"2026-07-01\"",
        "due = \"2026-13-01\"",
        &["lot.hangang.due", "must be a date"],
    ),
    ("fleet.toml", "due = \"2026-07-01\"\n", "", &["lot.hangang", "needs cluster, due"]),
];

/// In `public.toml`.
const BROKEN_ROOT: [Broken; 11] = [
    (
        "public.toml",
        "[node.public]",
        "[node.private]\n[node.public]",
        &["node.\"public\"", "from one root", "private"],
    ),
    (
        "public.toml",
        "decision = \"GPU-2025-001\"",
        "decision = \"\"",
        &["node.\"public\".decision", "document"],
    ),
    (
        "public.toml",
        "decision = \"GPU-2025-001\"\n",
        "",
        &["node.\"public\".decision", "rests on a decision"],
    ),
    (
        "public.toml",
        "limit = { any = 50_000 }",
        "limit = { any = 49_999 }",
        &["node.\"public\".limit.any", "from 2028-06-01", "49999", "sum to 50000", "by 1"],
    ),
    (
        "public.toml",
        "limit = { any = 50_000 }",
        "limit = { any = 50_000, b300 = 12_999 }",
        &["node.\"public\".limit.b300", "from 2027-01-04", "12999", "13000"],
    ),
    (
        "public.toml",
        "limit = { any = 50_000 }",
        "limit = { any = \"all\" }",
        &["node.\"public\".limit.any", "unlimited"],
    ),
    (
        "public.toml",
        "limit = { any = 50_000 }",
        "limits = { any = 50_000 }",
        &["node.\"public\".limits", "not enforced"],
    ),
    ("public.toml", "[node.public]", "[node.Public]", &["node.\"Public\"", "lower-case"]),
    (
        "public.toml",
        "[node.public]",
        "[node.other]",
        &["node.\"public/fm\"", "its parent is missing"],
    ),
    (
        "public.toml",
        "gpus = 13000, from = \"2027-01-04\"",
        "gpus = 13000, from = \"2027-01-05\"",
        &["node.\"public\".guarantee.b300", "from 2027-01-04", "13000 b300", "it has 0 itself"],
    ),
    (
        "public.toml",
        "gpus = 13000, from = \"2027-01-04\"",
        "gpus = 13001, from = \"2027-01-04\"",
        &["node.\"public\".guarantee.b300", "13001", "13000 are due", "by 1"],
    ),
];

/// In the programmes' files.
const BROKEN_PROGRAMME: [Broken; 22] = [
    (
        "nup.toml",
        "class = \"h200\", gpus = 2,",
        "class = \"h200\", gpus = 3,",
        &[
            "nup.toml",
            "node.\"public/nup\".guarantee.h200",
            "from 2025-12-31",
            "475 h200",
            "has 324",
            "by 151",
        ],
    ),
    (
        "nup.toml",
        "class = \"b300\", gpus = 3, from = \"2028-06-01\"",
        "class = \"b300\", gpus = 3, from = \"2026-06-01\"",
        &["node.\"public/nup\".guarantee.b300", "from 2026-06-01", "453 b300", "has 0"],
    ),
    ("nup.toml", "count = 151", "count = 152", &["node.\"public/nup\".guarantee.h200", "326 h200"]),
    (
        "nup.toml",
        "count = 151",
        "count = 0",
        &["node.\"public/nup\".group.count", "must be 1 to 10000"],
    ),
    (
        "nup.toml",
        "count = 151",
        "count = \"many\"",
        &["node.\"public/nup\".group.count", "number of members"],
    ),
    ("nup.toml", "count = 151\n", "", &["node.\"public/nup\".group", "needs id and count"]),
    (
        "nup.toml",
        "id = \"nup-shared\"",
        "id = \"nup-startup\"",
        &["node.\"public/nup/nup-startup-001\"", "there already at nup.toml"],
    ),
    (
        "nup.toml",
        "id = \"nup-shared\"",
        "id = \"NUP\"",
        &["node.\"public/nup\".group.id", "lower-case"],
    ),
    (
        "nup.toml",
        "class = \"h200\", gpus = 2,",
        "class = \"h2oo\", gpus = 2,",
        &["guarantee.h2oo", "no class h2oo"],
    ),
    (
        "nup.toml",
        "class = \"h200\", gpus = 2,",
        "gpus = 2,",
        &["group.each.guarantee.class", "is missing"],
    ),
    (
        "nup.toml",
        "class = \"h200\", gpus = 2,",
        "class = \"h200\", gpu = 2,",
        &["guarantee.h200.gpu", "not enforced"],
    ),
    (
        "nup.toml",
        "class = \"h200\", gpus = 2,",
        "class = \"h200\",",
        &["guarantee.h200.gpus", "is missing"],
    ),
    (
        "nup.toml",
        "class = \"h200\", gpus = 2,",
        "class = \"any\", gpus = 2,",
        &["guarantee.any", "name it"],
    ),
    (
        "nup.toml",
        "kind = \"industry\"",
        "price_class = 3",
        &["node.\"public/nup\".price_class", "not enforced"],
    ),
    (
        "nup.toml",
        "kind = \"industry\"",
        "kind = 3",
        &["node.\"public/nup\".kind", "must be a text"],
    ),
    (
        "nup.toml",
        "kind = \"industry\"",
        "weight = 0",
        &["node.\"public/nup\".weight", "must be 1 to"],
    ),
    (
        "nup.toml",
        "kind = \"industry\"",
        "allocator = \"중기부\"",
        &["node.\"public/nup\".allocator", "letters"],
    ),
    (
        "nup.toml",
        "kind = \"industry\"",
        "until = \"2025-01-01\"\nfrom = \"2025-12-31\"",
        &["node.\"public/nup\".until", "ends at 2025-01-01"],
    ),
    (
        "nup.toml",
        "kind = \"industry\"",
        "limit = { h200 = 323 }",
        &["node.\"public/nup\".limit.h200", "323", "324", "by 1"],
    ),
    (
        "acad.toml",
        "{ class = \"b200\", gpus = 0, from = \"2026-07-01\" },\n    { class = \"gh200\"",
        "{ class = \"gh200\"",
        &["node.\"public/acad\".guarantee.b200", "from 2026-07-01", "960 b200", "has 0"],
    ),
    (
        "acad.toml",
        "gpus = 1000, from = \"2025-12-31\"",
        "gpus = 1000, from = \"2025-12-31\", until = \"2026-08-01\"",
        &["node.\"public/acad\".guarantee.b200", "two values hold from 2026-07-01"],
    ),
    (
        "acad.toml",
        "gpus = 1000, from = \"2025-12-31\"",
        "gpus = 1000, from = \"2025-12-31\", until = \"2025-12-31\"",
        &["node.\"public/acad\".guarantee.b200.until", "the end must be later"],
    ),
];

pub const BUDGET: &str = "budget = { period = \"quarter\", ngh = 1_800_000, carry = \"none\" }";
const EACH: &str = "budget = { period = \"quarter\", ngh = 4000 }";

/// Budgets, in the programmes' files.
const BROKEN_BUDGET: [Broken; 27] = [
    (
        "nup.toml",
        "ngh = 4000",
        "ngh = 12_000",
        &[
            "node.\"public/nup\".budget.ngh",
            "1,812,000 NGH a quarter",
            "1,800,000 itself",
            "by 12,000",
        ],
    ),
    (
        "nup.toml",
        "ngh = 4000",
        "ngh = [{ value = 4000 }, { value = 12_000, from = \"2027-01-01\" }]",
        &["node.\"public/nup\".budget.ngh", "from 2027-01-01", "by 12,000"],
    ),
    (
        "nup.toml",
        "ngh = 1_800_000",
        "ngh = 0",
        &[
            "nup.toml",
            "node.\"public/nup\".budget.ngh",
            "604,000 NGH",
            "it has 0 itself",
            "by 604,000",
        ],
    ),
    ("nup.toml", "ngh = 4000", "ngh = -1", &["group.each.budget.ngh", "must be 0 to", "not -1"]),
    ("nup.toml", "ngh = 4000", "ngh = 4000.5", &["group.each.budget.ngh", "normalised GPU-hours"]),
    ("nup.toml", "ngh = 4000", "ngh = 1_000_000_000_001", &["budget.ngh", "must be 0 to"]),
    ("nup.toml", "ngh = 4000", "ngh = 99999999999999999999", &["budget.ngh", "must be 0 to"]),
    ("nup.toml", "ngh = 4000", "gpus = 4000", &["each.budget.gpus", "not enforced"]),
    ("nup.toml", ", ngh = 4000", "", &["each.budget", "needs period and ngh"]),
    (
        "nup.toml",
        "ngh = 4000",
        "ngh = [{ value = 1, until = \"2028-01-01\" }, { value = 2, from = \"2027-06-01\" }]",
        &["each.budget.ngh", "two values hold from 2027-06-01"],
    ),
    ("nup.toml", "ngh = 4000", "ngh = [{ ngh = 4000 }]", &["each.budget.ngh", "only value, from"]),
    ("nup.toml", EACH, "budget = { ngh = 4000 }", &["each.budget", "needs period and ngh"]),
    ("nup.toml", EACH, "budget = 4000", &["each.budget", "must be a table"]),
    (
        "nup.toml",
        EACH,
        "budget = { period = \"week\", ngh = 4000 }",
        &["each.budget.period", "\"month\", \"quarter\", \"year\", \"grant\""],
    ),
    ("nup.toml", EACH, "", &["each.overuse", "no budget"]),
    ("nup.toml", "cap = 1.25", "cap = 0.99", &["each.overuse.cap", "1 to 10 times", "not 0.99"]),
    ("nup.toml", "cap = 1.25", "cap = 1.2505", &["each.overuse.cap", "three decimals"]),
    ("nup.toml", "cap = 1.25", "cap = 1e1", &["each.overuse.cap", "not 1e1"]),
    ("nup.toml", "cap = 1.25", "cap = \"1.25\"", &["each.overuse.cap", "as in 1.25"]),
    ("nup.toml", "cap = 1.25", "cap = 11", &["each.overuse.cap", "not 11"]),
    ("nup.toml", "cap = 1.25", "top = 1.25", &["each.overuse.top", "not enforced"]),
    ("nup.toml", "{ cap = 1.25 }", "1.25", &["each.overuse", "must be a table"]),
    ("nup.toml", "carry = \"none\"", "carry = \"all\"", &["budget.carry", "must be \"none\""]),
    ("nup.toml", "carry = \"none\"", "promise = \"more\"", &["budget.promise", "beyond"]),
    (
        "nup.toml",
        BUDGET,
        "budget = { period = \"grant\", ngh = 1_800_000, carry = { percent = 10 } }",
        &["budget.carry", "no next period"],
    ),
    ("sci.toml", "percent = 10", "percent = 101", &["budget.carry.percent", "1 to 100", "101"]),
    ("sci.toml", "percent = 10, ", "", &["budget.carry.percent", "is missing"]),
];

/// A reservation that would be sound, with a part of it as said; written before the first class of `fleet.toml`.
macro_rules! reservation {
    ($node:literal, $class:literal, $gpus:literal, $cluster:literal, $dates:literal, $more:literal) => {
        concat!(
            "[[reservation]]\nid = \"r\"\nnode = \"",
            $node,
            "\"\nclass = \"",
            $class,
            "\"\ngpus = ",
            $gpus,
            "\ncluster = \"",
            $cluster,
            "\"\n",
            $dates,
            "\n",
            $more,
            "\n[class.h200]"
        )
    };
}

/// The same for a loan.
macro_rules! loan {
    ($lender:literal, $borrower:literal, $class:literal, $gpus:literal, $dates:literal, $more:literal) => {
        concat!(
            "[[loan]]\nid = \"l\"\nlender = \"",
            $lender,
            "\"\nborrower = \"",
            $borrower,
            "\"\nclass = \"",
            $class,
            "\"\ngpus = ",
            $gpus,
            "\n",
            $dates,
            "\n",
            $more,
            "\n[class.h200]"
        )
    };
}

/// Reservations that are wrong, in `fleet.toml`.
#[rustfmt::skip]
const BROKEN_RESERVATION: [Broken; 15] = [
    ("fleet.toml", "[class.h200]", "[reservation.r]\n[class.h200]", &["reservation", "must be a list"]),
    ("fleet.toml", "[class.h200]", "[[reservation]]\nnode = \"public/fm\"\n[class.h200]", &["reservation", "needs an id"]),
    ("fleet.toml", "[class.h200]", "[[reservation]]\nid = \"r\"\n[class.h200]", &["reservation.r", "needs node, class"]),
    ("fleet.toml", "[class.h200]", "[[reservation]]\nid = \"R\"\n[class.h200]", &["reservation.R", "needs node, class"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b300", "896", "gov26-a", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", ""), &["reservation.r", "decision"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-009", "b300", "896", "gov26-a", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.node", "no node public/fm/fm-team-009"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b400", "896", "gov26-a", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.class", "no class b400"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b300", "896", "gov26-c", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.cluster", "no cluster gov26-c"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b200", "600", "gov26-a", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.cluster", "gov26-a has b300 GPUs, not b200"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b300", "896", "gov26-a", "from = \"2027-04-13\"\nuntil = \"2027-03-02\"", "decision = \"D\""), &["reservation.r.until", "ends at 2027-03-02 and begins later"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b300", "0", "gov26-a", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.gpus", "at least one"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm", "b300", "6000", "gov26-b", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.cluster", "gov26-b has 5000", "only gov26-a (8000 in quota) fits"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b300", "900", "gov26-a", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.gpus", "guaranteed 896 b300 of its own", "4 are missing", "0 are lent with consent"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b300", "896", "gov26-a", "from = \"2026-12-01\"\nuntil = \"2027-04-13\"", "decision = \"D\""), &["reservation.r.gpus", "from 2026-12-01", "guaranteed 0 b300"]),
    ("fleet.toml", "[class.h200]", reservation!("public/fm/fm-team-001", "b300", "800", "gov26-a", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "decision = \"D\"\n[[reservation]]\nid = \"s\"\nnode = \"public/nap\"\nclass = \"b300\"\ngpus = 8\ncluster = \"gov26-a\"\nfrom = \"2027-04-12\"\nuntil = \"2027-04-20\"\ndecision = \"D\""), &["reservation.s.cluster", "gov26-a is reserved by r", "may not overlap"]),
];

/// Loans that are wrong, in `fleet.toml`.
#[rustfmt::skip]
const BROKEN_LOAN: [Broken; 9] = [
    ("fleet.toml", "[class.h200]", "[loan.l]\n[class.h200]", &["loan", "must be a list"]),
    ("fleet.toml", "[class.h200]", loan!("public/nap", "public/fm", "b300", "8", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", ""), &["loan.l.consent", "public/nap has not consented to lend 8 b300 to public/fm"]),
    ("fleet.toml", "[class.h200]", loan!("public/nap", "public/fm", "b300", "8", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "consent = \" \""), &["loan.l.consent", "must name the document"]),
    ("fleet.toml", "[class.h200]", loan!("public/nope", "public/fm", "b300", "8", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "consent = \"D\""), &["loan.l.lender", "no node public/nope"]),
    ("fleet.toml", "[class.h200]", loan!("public/nap", "public/nope", "b300", "8", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "consent = \"D\""), &["loan.l.borrower", "no node public/nope"]),
    ("fleet.toml", "[class.h200]", loan!("public/nap", "public/nap", "b300", "8", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "consent = \"D\""), &["loan.l.borrower", "from a node to itself"]),
    ("fleet.toml", "[class.h200]", loan!("public/nap", "public/fm", "b300", "2008", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "consent = \"D\""), &["loan.l.gpus", "lends 2008 b300", "guaranteed 2000", "lend 8 less"]),
    ("fleet.toml", "[class.h200]", loan!("public/nap", "public/fm", "b300", "8", "from = \"2027-04-13\"\nuntil = \"2027-04-13\"", "consent = \"D\""), &["loan.l.until", "begins later or then"]),
    ("fleet.toml", "[class.h200]", loan!("public/nap", "public/fm", "b300", "8", "from = \"2027-03-02\"\nuntil = \"2027-04-13\"", "price = 3"), &["loan.l.price", "not enforced"]),
];

const KIND: &str = "kind = \"industry\"";

/// What a node keeps and may borrow, its jobs and its labels, in the programmes' files.
const BROKEN_BOUNDS: [Broken; 29] = [
    ("nup.toml", KIND, "borrow = 3", &["nup\".borrow", "borrow = { max = 8 }"]),
    ("nup.toml", KIND, "borrow = {}", &["nup\".borrow", "borrow = { max = 8 }"]),
    ("nup.toml", KIND, "borrow = { max = -1 }", &["nup\".borrow.max", "must be 0 to", "not -1"]),
    ("nup.toml", KIND, "borrow = { max = \"all\" }", &["borrow.max", "8 or { b200 = 8 }"]),
    ("nup.toml", KIND, "borrow = { min = 3 }", &["borrow.min", "only max is"]),
    ("nup.toml", KIND, "borrow = { max = { any = 3 } }", &["borrow.max.any", "name a class"]),
    ("nup.toml", KIND, "borrow = { max = { h2oo = 3 } }", &["borrow.max.h2oo", "no class h2oo"]),
    (
        "nup.toml",
        KIND,
        "borrow = { max = [{ class = \"h200\", gpus = 3 }, { value = 3 }] }",
        &["borrow.max.class", "is missing"],
    ),
    (
        "nup.toml",
        KIND,
        "borrow = { max = [{ value = 3 }, { value = 4, from = \"2027-01-01\", until = \"2026-01-01\" }] }",
        &["borrow.max.until", "the end must be later"],
    ),
    ("nup.toml", KIND, "max_gang = 1.5", &["nup\".max_gang", "must be whole GPUs"]),
    ("nup.toml", KIND, "max_walltime = 42", &["max_walltime", "as in \"42d\""]),
    ("nup.toml", KIND, "max_walltime = \"42 days\"", &["max_walltime", "as in \"42d\""]),
    ("nup.toml", KIND, "max_jobs = \"few\"", &["max_jobs", "number of jobs"]),
    (
        "nup.toml",
        KIND,
        "max_jobs = [{ value = 1 }, { value = 2 }]",
        &["max_jobs", "two values hold from"],
    ),
    ("nup.toml", KIND, "lend = 4", &["nup\".lend", "lend = { keep_idle = 4"]),
    ("nup.toml", KIND, "lend = { keep = 4 }", &["lend.keep", "only keep_idle, max and recall"]),
    (
        "nup.toml",
        KIND,
        "lend = { keep_idle = { gh200 = 4 } }",
        &["nup\".lend.keep_idle", "no guarantee of gh200"],
    ),
    ("nup.toml", KIND, "lend = { recall = \"0s\" }", &["lend.recall", "as in \"42d\""]),
    (
        "nup.toml",
        KIND,
        "lend = { recall = \"4s\" }",
        &["lend.recall", "4s cannot be kept", "to 5s"],
    ),
    ("nup.toml", KIND, "lend = { recall = 600 }", &["lend.recall", "\"10m\""]),
    (
        "nup.toml",
        KIND,
        "labels = { Organisation = \"acme\" }",
        &["labels.Organisation", "lower-case"],
    ),
    ("nup.toml", KIND, "labels = { organisation = \"\" }", &["labels.organisation", "1 to 63"]),
    ("nup.toml", KIND, "labels = { a = \"b=c\" }", &["labels.a", "without \"=\""]),
    ("nup.toml", KIND, "labels = \"acme\"", &["nup\".labels", "must be a table"]),
    (
        "nup.toml",
        KIND,
        "concentration = { label = \"organisation\", most_percent = 10 }",
        &["concentration.label", "no node below carries the label organisation"],
    ),
    ("nup.toml", KIND, "concentration = {}", &["nup\".concentration", "must be a table"]),
    ("nup.toml", KIND, "concentration = { most_percent = 10 }", &["concentration", "needs label"]),
    (
        "nup.toml",
        KIND,
        "concentration = { label = \"organisation\", most_percent = 100 }",
        &["concentration.most_percent", "must be 1 to 99"],
    ),
    (
        "public.toml",
        "limit = { any = 50_000 }",
        "concentration = { label = \"region\", most_percent = 5 }\nlimit = { any = 50_000 }",
        &["concentration.label", "no node below carries the label region"],
    ),
];

/// Every variant there is.
pub fn all() -> impl Iterator<Item = &'static Broken> {
    BROKEN_FLEET
        .iter()
        .chain(&BROKEN_ROOT)
        .chain(&BROKEN_PROGRAMME)
        .chain(&BROKEN_BUDGET)
        .chain(&BROKEN_RESERVATION)
        .chain(&BROKEN_LOAN)
        .chain(&BROKEN_BOUNDS)
}
