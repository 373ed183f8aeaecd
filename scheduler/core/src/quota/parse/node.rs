//! Reads nodes of the tree and groups of them.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::FileReader;
use super::{bounds, value};
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{GpuClass, ProjectPath, UserName};
use crate::quota::book::NodeTerms;
use crate::quota::dated::{Dated, Interval};
use crate::quota::moment;

/// Key of a limit over all classes together; no class may be called so.
const ANY: &str = "any";
/// Most members of one group.
const GROUP_MAX: i64 = 10_000;
/// Nodes that all files together may have; a limit on what one request can make the scheduler hold.
const NODES_MAX: usize = 100_000;

/// Stretches of a value as they were read.
type Stretches<T> = Vec<Stretch<T>>;
/// From when, until when if that was said, and what.
type Stretch<T> = (UnixMicros, Option<UnixMicros>, T);

impl FileReader<'_> {
    pub(super) fn read_nodes(&mut self, nodes: &DeTable<'_>) {
        for (key, value) in nodes {
            let field = format!("node.\"{}\"", key.get_ref());
            let path = match ProjectPath::new(key.get_ref()) {
                Ok(path) => path,
                Err(bad) => {
                    self.fault(key, &field, bad.to_string());
                    continue;
                }
            };
            let DeValue::Table(table) = value.get_ref() else {
                self.fault(key, &field, "must be a table with title, guarantee, limit and so on");
                continue;
            };
            if self.is_new(key, &field) {
                let terms = self.read_terms(&field, table, Some(&path));
                self.enter(key, path, terms);
            }
        }
    }

    fn enter<T>(&mut self, at: &Spanned<T>, path: ProjectPath, terms: NodeTerms) {
        let nodes = &mut self.reading.book.nodes;
        if nodes.len() < NODES_MAX {
            nodes.insert(path, terms);
        } else {
            let field = format!("node.\"{path}\"");
            self.fault(at, &field, format!("is one node too many: at most {NODES_MAX} in all"));
        }
    }

    /// Terms of one node; `parent` is the node itself where groups may stand in it.
    fn read_terms(
        &mut self,
        field: &str,
        table: &DeTable<'_>,
        parent: Option<&ProjectPath>,
    ) -> NodeTerms {
        let mut terms = NodeTerms::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let field = format!("{field}.{name}");
            match name {
                "title" => terms.title = self.text(&field, value),
                "kind" => terms.kind = self.text(&field, value),
                "decision" => terms.decision = self.decision(&field, value),
                "allocator" => terms.allocator = self.allocator(&field, value),
                "from" => {
                    let from = self.value(&field, value, value::moment);
                    terms.valid.from = from.unwrap_or(terms.valid.from);
                }
                "until" => {
                    let until = self.value(&field, value, value::moment);
                    terms.valid.until = until.unwrap_or(terms.valid.until);
                }
                "weight" => terms.weight = self.read_dated(&field, value, value::weight),
                "guarantee" => terms.guarantees = self.read_guarantees(&field, value),
                "limit" => self.read_limits(&field, value, &mut terms),
                "budget" => terms.budget = self.read_budget(&field, value),
                "overuse" => terms.overuse_milli = self.read_overuse(&field, value),
                "alert" => terms.alert = self.read_alert(&field, value),
                name if bounds::NAMES.contains(&name) => {
                    self.read_bound(name, &field, key, value, &mut terms.bounds);
                }
                "group" if parent.is_some() => {}
                _ => self.unknown_term(key, &field),
            }
        }
        self.require_budget(field, table);
        if terms.valid.from >= terms.valid.until {
            let message =
                format!("ends at {} and begins later or then", moment::show(terms.valid.until));
            self.fault_in(table, &format!("{field}.until"), message);
        }
        if let (Some(parent), Some((key, groups))) = (parent, table.get_key_value("group")) {
            self.read_groups(parent, key, groups);
        }
        terms
    }

    fn unknown_term(&mut self, key: &Spanned<impl AsRef<str>>, field: &str) {
        let known = format!(
            "only title, kind, decision, allocator, from, until, guarantee, limit, weight, budget, overuse, alert, {} and \
             group are",
            bounds::NAMES.join(", ")
        );
        self.unknown(key, field, &known);
    }

    /// A fault at the first key of a table.
    fn fault_in(&mut self, table: &DeTable<'_>, field: &str, message: String) {
        if let Some((key, _)) = table.iter().next() {
            self.fault(key, field, message);
        }
    }

    fn decision(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let decision = self.text(field, value);
        if decision.trim().is_empty() {
            self.fault(value, field, "must name the document, as in \"GPU-2026-014\"");
            return None;
        }
        Some(decision)
    }

    fn allocator(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> Option<UserName> {
        let name = self.text(field, value);
        UserName::new(&name).map_err(|bad| self.fault(value, field, bad.to_string())).ok()
    }

    fn read_guarantees(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> BTreeMap<GpuClass, Dated<GpuMilli>> {
        self.read_classes_only(field, value, "a guarantee is of one class: name it")
    }

    /// Amounts by class, where a word for all classes together has no meaning.
    pub(super) fn read_classes_only(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
        no_any: &str,
    ) -> BTreeMap<GpuClass, Dated<GpuMilli>> {
        let mut amounts = BTreeMap::new();
        for (name, dated) in self.read_by_class(field, value, value::gpus) {
            match GpuClass::new(&name) {
                Ok(class) if name != ANY => {
                    amounts.insert(class, dated);
                }
                Ok(_) => self.fault(value, &format!("{field}.{name}"), no_any),
                Err(bad) => self.fault(value, &format!("{field}.{name}"), bad.to_string()),
            }
        }
        amounts
    }

    fn read_limits(&mut self, field: &str, value: &Spanned<DeValue<'_>>, terms: &mut NodeTerms) {
        for (name, dated) in self.read_by_class(field, value, value::limit) {
            if name == ANY {
                terms.any_limit = dated;
                continue;
            }
            match GpuClass::new(&name) {
                Ok(class) => {
                    terms.limits.insert(class, dated);
                }
                Err(bad) => self.fault(value, &format!("{field}.{name}"), bad.to_string()),
            }
        }
    }

    /// `{ h200 = 324 }`, or `[{ class = "h200", gpus = 324, from = "2025-12-31" }]`.
    fn read_by_class<T>(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> BTreeMap<String, Dated<T>> {
        let mut by_class: BTreeMap<String, Stretches<T>> = BTreeMap::new();
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    let field = format!("{field}.{}", key.get_ref());
                    self.note(key, &field);
                    let found = self.value(&field, value, &read);
                    let stretch = found.map(|found| (Interval::ALWAYS.from, None, found));
                    by_class.entry(key.get_ref().to_string()).or_default().extend(stretch);
                }
            }
            DeValue::Array(entries) => {
                for entry in entries {
                    if let Some((class, stretch)) = self.read_entry(field, entry, &read) {
                        by_class.entry(class).or_default().push(stretch);
                    }
                }
            }
            _ => {
                let message =
                    format!("must be a table of classes, as in {} = {{ b200 = 16 }}", last(field));
                self.fault(value, field, message);
            }
        }
        let dated = by_class.into_iter().filter(|(_, stretches)| !stretches.is_empty());
        let dated: Vec<_> = dated.collect();
        dated
            .into_iter()
            .map(|(class, stretches)| {
                let dated = self.join(&format!("{field}.{class}"), value, stretches);
                (class, dated)
            })
            .collect()
    }

    /// One of `[{ class, gpus, from, until }]`.
    fn read_entry<T>(
        &mut self,
        field: &str,
        entry: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<(String, Stretch<T>)> {
        let DeValue::Table(table) = entry.get_ref() else {
            self.fault(
                entry,
                field,
                "must be { class = \"b200\", gpus = 16, from = \"2027-01-04\" }",
            );
            return None;
        };
        let class =
            table.get("class").and_then(|class| class.get_ref().as_str().map(str::to_owned));
        let Some(class) = class else {
            self.fault(entry, &format!("{field}.class"), "is missing: which class?");
            return None;
        };
        let field = format!("{field}.{class}");
        self.note(entry, &field);
        let (from, until, found) =
            self.read_stretch(&field, entry, table, "gpus", &["class"], read)?;
        Some((class, (from, until, found)))
    }

    /// `4`, or `[{ value = 4, from = "2027-01-04" }]`.
    pub(super) fn read_dated<T>(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Dated<T> {
        let DeValue::Array(entries) = value.get_ref() else {
            return self.value(field, value, read).map_or_else(Dated::default, Dated::always);
        };
        let mut stretches = Vec::new();
        for entry in entries {
            match entry.get_ref() {
                DeValue::Table(table) => {
                    stretches.extend(self.read_stretch(field, entry, table, "value", &[], &read));
                }
                _ => self.fault(entry, field, "must be { value = 4, from = \"2027-01-04\" }"),
            }
        }
        self.join(field, value, stretches)
    }

    /// The value of one stretch with its ends; `others` are keys that were read already.
    fn read_stretch<T>(
        &mut self,
        field: &str,
        entry: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
        amount: &str,
        others: &[&str],
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Stretch<T>> {
        let (mut from, mut until, mut found) = (Interval::ALWAYS.from, None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                name if others.contains(&name) => {}
                name if name == amount => found = Some(self.value(field, value, &read)?),
                "from" => from = self.value(&format!("{field}.from"), value, value::moment)?,
                "until" => {
                    until = Some(self.value(&format!("{field}.until"), value, value::moment)?)
                }
                other => {
                    let known = format!("only {amount}, from and until are");
                    self.unknown(key, &format!("{field}.{other}"), &known);
                }
            }
        }
        if until.is_some_and(|until| until <= from) {
            let message = format!("it begins at {}: the end must be later", moment::show(from));
            self.fault(entry, &format!("{field}.until"), message);
            return None;
        }
        if found.is_none() {
            self.fault(entry, &format!("{field}.{amount}"), "is missing");
        }
        Some((from, until, found?))
    }

    fn join<T, A>(&mut self, field: &str, at: &Spanned<A>, stretches: Stretches<T>) -> Dated<T> {
        Dated::of(stretches).unwrap_or_else(|overlap| {
            let message = format!(
                "two values hold from {}: end the one before it by then, or drop one",
                moment::show(overlap.later.from)
            );
            self.fault(at, field, message);
            Dated::default()
        })
    }

    fn read_groups(
        &mut self,
        parent: &ProjectPath,
        key: &Spanned<impl AsRef<str>>,
        groups: &Spanned<DeValue<'_>>,
    ) {
        let field = format!("node.\"{parent}\".group");
        let DeValue::Array(groups) = groups.get_ref() else {
            return self.fault(key, &field, format!("must be a list: write [[{field}]]"));
        };
        for group in groups {
            match group.get_ref() {
                DeValue::Table(table) => self.read_group(parent, &field, group, table),
                _ => self.fault(group, &field, format!("must be a table: write [[{field}]]")),
            }
        }
    }

    /// `id`-001 and so on, each with the same terms.
    fn read_group(
        &mut self,
        parent: &ProjectPath,
        field: &str,
        group: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
    ) {
        let (mut id, mut count, mut first, mut terms) = (None, None, 1, NodeTerms::default());
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let field = format!("{field}.{name}");
            let members = |value: &DeValue<'_>| value::number(value, 1, GROUP_MAX, "members");
            match (name, value.get_ref()) {
                ("id", _) => id = Some(self.text(&field, value)),
                ("count", _) => count = self.value(&field, value, members),
                ("first", _) => first = self.value(&field, value, members).unwrap_or(1),
                ("each", DeValue::Table(each)) => terms = self.read_terms(&field, each, None),
                ("each", _) => self.fault(value, &field, "must be a table of a node's terms"),
                _ => self.unknown(key, &field, "only id, count, first and each are"),
            }
        }
        let (Some(id), Some(count)) = (id, count) else {
            return self.fault(group, field, "needs id and count");
        };
        for number in first..first.saturating_add(count) {
            let path = format!("{parent}/{id}-{number:03}");
            match ProjectPath::new(&path) {
                Ok(path) => {
                    if self.is_new(group, &format!("node.\"{path}\"")) {
                        self.enter(group, path, terms.clone());
                    }
                }
                Err(bad) => return self.fault(group, &format!("{field}.id"), bad.to_string()),
            }
        }
    }
}

/// The last word of a field's name.
fn last(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}
