//! Of random trees exactly those are accepted that keep what the office promised: what the root is guaranteed is there
//! by then, siblings fit what is above them, and nobody has too much of it.

use gotgan_core::quota::parse;
use proptest::prelude::*;

/// The two stretches of time of these trees: before this day, and from it on.
const LATER: &str = "2027-01-04";
/// Values of the label.
const ORGANISATIONS: [&str; 3] = ["acme", "beta", "gamma"];

/// A tree with one level below its root.
#[derive(Debug, Clone)]
struct Office {
    /// Delivered before, and due on the day.
    lots: [u32; 2],
    /// Guaranteed to the root in each stretch.
    root: [u32; 2],
    /// Most of it that one organisation may have, hundredths.
    most_percent: u32,
    /// Guarantees of each project in both stretches, and its organisation.
    projects: Vec<([u32; 2], usize)>,
}

fn offices() -> impl Strategy<Value = Office> {
    let amounts = |least: u32, most: u32| [least..most, least..most];
    let projects = prop::collection::vec((amounts(0, 12), 0..ORGANISATIONS.len()), 1..6);
    (amounts(20, 80), amounts(0, 90), 20..100_u32, projects).prop_map(
        |(lots, root, most_percent, projects)| Office { lots, root, most_percent, projects },
    )
}

impl Office {
    fn text(&self) -> String {
        let dated = |[now, later]: [u32; 2]| {
            format!(
                "[{{ class = \"b200\", gpus = {now}, from = \"1970-01-01\" }}, {{ class = \"b200\", gpus = {later}, from = \"{LATER}\" }}]"
            )
        };
        let [there, due] = self.lots;
        let mut text = format!(
            "[class.b200]\n[cluster.c]\nclass = \"b200\"\n\
             [lot.first]\ncluster = \"c\"\ndue = \"1970-01-01\"\nbatch = [{{ gpus = {}, accepted = \"1970-01-01\" }}]\n\
             [lot.second]\ncluster = \"c\"\ndue = \"{LATER}\"\nbatch = [{{ gpus = {} }}]\n\
             [node.p]\ndecision = \"D\"\nguarantee = {}\n\
             concentration = {{ label = \"organisation\", most_percent = {} }}\n",
            there + 1,
            due + 1,
            dated(self.root),
            self.most_percent
        );
        for (number, (gpus, organisation)) in self.projects.iter().enumerate() {
            text.push_str(&format!(
                "[node.\"p/n{number}\"]\nguarantee = {}\nlabels = {{ organisation = \"{}\" }}\n",
                dated(*gpus),
                ORGANISATIONS[*organisation]
            ));
        }
        text
    }

    /// Whether all is kept in one of the stretches, counted here.
    fn is_sound(&self, stretch: usize) -> bool {
        let sum = |of: Option<usize>| -> u32 {
            let projects = self.projects.iter();
            let projects =
                projects.filter(|(_, organisation)| of.is_none_or(|of| of == *organisation));
            projects.map(|(gpus, _)| gpus[stretch]).sum()
        };
        let there: u32 = self.lots[..=stretch].iter().map(|gpus| gpus + 1).sum();
        let part = |of: usize| sum(Some(of)) * 100 <= self.root[stretch] * self.most_percent;
        self.root[stretch] <= there
            && sum(None) <= self.root[stretch]
            && (0..ORGANISATIONS.len()).all(part)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_accepted_exactly_if_it_fits_what_is_there_and_nobody_has_too_much_of_it(office in offices()) {
        let text = office.text();
        let accepted = parse(&[("q.toml".to_owned(), text.clone())]);
        let sound = office.is_sound(0) && office.is_sound(1);
        prop_assert_eq!(accepted.is_ok(), sound, "{}\n{:?}", text, accepted.err());
    }
}
