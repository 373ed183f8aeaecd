//! Checks of what a node keeps, lends and guarantees below it by label: a term that could never bind anybody is
//! refused, and no value of a label has more than it may.

use std::collections::BTreeMap;

use super::Checker;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{GpuClass, ProjectPath};
use crate::quota::book::NodeTerms;
use crate::quota::bounds::{Concentration, DatedAmount};
use crate::quota::moment;
use crate::quota::parse::node_field;

impl<'a> Checker<'a> {
    /// Terms that have nothing to be about, whatever the date.
    pub(super) fn check_bounds(&mut self) {
        for (path, node) in &self.book.nodes {
            self.check_lending(path, node);
            let concentration = node.bounds.concentration.as_ref();
            if let Some(rule) = concentration.filter(|rule| !self.is_carried(path, &rule.label)) {
                let message = format!(
                    "no node below carries the label {}: add it to them or remove this",
                    rule.label
                );
                self.tell(format!("{}.concentration.label", node_field(path)), message);
            }
        }
    }

    /// Only what is guaranteed can be lent.
    fn check_lending(&mut self, path: &ProjectPath, node: &NodeTerms) {
        let terms =
            [("keep_idle", &node.bounds.keep_idle), ("max", &node.bounds.lend_max)].into_iter();
        let lacking = terms
            .filter_map(|(name, amount)| Some((name.to_owned(), lacking(node, amount.as_ref()?)?)));
        let nothing = node.bounds.recall_s.is_some() && node.guarantees.is_empty();
        let recall = nothing.then(|| ("recall".to_owned(), None));
        for (name, class) in lacking.chain(recall).collect::<Vec<_>>() {
            let of = class.map_or_else(String::new, |class| format!(" of {class}"));
            let message = format!("there is no guarantee{of} here that could be lent: remove it");
            self.tell(format!("{}.lend.{name}", node_field(path)), message);
        }
    }

    fn is_carried(&self, above: &ProjectPath, label: &str) -> bool {
        let mut below = self.book.nodes.iter().filter(|(path, _)| is_below(path, above));
        below.any(|(_, node)| node.bounds.labels.contains_key(label))
    }

    /// No value of the label has more of the guarantees below than it may.
    pub(super) fn check_concentration(
        &mut self,
        path: &ProjectPath,
        node: &NodeTerms,
        at: UnixMicros,
    ) {
        let Some(Concentration { label, most_percent }) = &node.bounds.concentration else {
            return;
        };
        let all = guaranteed(node, at);
        for (value, sum) in self.sums_by_label(path, label, at) {
            let most = u128::from(all.0) * u128::from(*most_percent);
            if u128::from(sum.0) * 100 > most {
                let message = format!(
                    "from {} {label} = \"{value}\" is guaranteed {sum} of the {all} GPUs here, more than \
                     {most_percent} %: lower its guarantees to {}",
                    moment::show(at),
                    most / 100_000
                );
                self.tell(format!("{}.concentration", node_field(path)), message);
            }
        }
    }

    /// What nodes below are guaranteed, by what they carry of the label. Of nodes in each other with one value, the
    /// upper one has it all.
    fn sums_by_label(
        &self,
        above: &ProjectPath,
        label: &str,
        at: UnixMicros,
    ) -> BTreeMap<&'a str, GpuMilli> {
        let mut sums: BTreeMap<&'a str, GpuMilli> = BTreeMap::new();
        let below = self.book.nodes.iter();
        let below = below.filter(|(path, _)| is_below(path, above));
        for (path, node) in below.filter(|(path, _)| self.book.is_valid(path, at)) {
            let Some(value) = node.bounds.labels.get(label) else { continue };
            let between = path.self_and_ancestors().skip(1);
            let mut between = between.take_while(|between| *between != above.as_str());
            let counted = between.any(|between| {
                let node = self.book.nodes.get(between);
                node.is_some_and(|node| node.bounds.labels.get(label) == Some(value))
            });
            if !counted {
                *sums.entry(value).or_default() += guaranteed(node, at);
            }
        }
        sums
    }
}

/// The first class of an amount that the node has no guarantee of; `None` inside where it has none at all.
fn lacking(node: &NodeTerms, amount: &DatedAmount) -> Option<Option<GpuClass>> {
    if node.guarantees.is_empty() {
        return Some(None);
    }
    let mut classes = amount.classes();
    classes.find(|class| !node.guarantees.contains_key(*class)).map(|class| Some(class.clone()))
}

fn is_below(path: &ProjectPath, above: &ProjectPath) -> bool {
    path != above && path.is_within(above.as_str())
}

/// Over all classes together.
fn guaranteed(node: &NodeTerms, at: UnixMicros) -> GpuMilli {
    node.guarantees.keys().map(|class| node.guarantee(class, at)).sum()
}
