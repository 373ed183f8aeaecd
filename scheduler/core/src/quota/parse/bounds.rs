//! Reads what a node keeps, lends and may borrow, how large and how many its jobs may be, and its labels.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::FileReader;
use super::value;
use crate::quota::bounds::{BoundTerms, ClassAmount, Concentration, DatedAmount};
use crate::quota::duration;

/// Terms that are read here.
pub(super) const NAMES: [&str; 7] =
    ["lend", "borrow", "max_gang", "max_walltime", "max_jobs", "labels", "concentration"];

/// Shortest time to call back what was lent, seconds: a round of planning may last some of them, and killing what
/// does not end by itself takes one more.
const RECALL_LEAST_S: i64 = 5;
/// Most labels of a node.
const LABELS_MAX: usize = 16;
/// Longest key or value of a label, characters.
const LABEL_MAX: usize = 63;

impl FileReader<'_> {
    /// One of the terms in [`NAMES`].
    pub(super) fn read_bound(
        &mut self,
        name: &str,
        field: &str,
        key: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'_>>,
        bounds: &mut BoundTerms,
    ) {
        self.note(key, field);
        match name {
            "lend" => self.read_lend(field, value, bounds),
            "borrow" => self.read_borrow(field, value, bounds),
            "max_gang" => bounds.max_gang = self.read_amount(field, value),
            "max_walltime" => {
                bounds.max_walltime_s = self.read_dated(field, value, value::seconds);
            }
            "max_jobs" => bounds.max_jobs = self.read_dated(field, value, value::jobs),
            "labels" => bounds.labels = self.read_labels(field, value),
            _ => bounds.concentration = self.read_concentration(field, value),
        }
    }

    /// `{ keep_idle = 4, max = 8, recall = "10m" }`.
    fn read_lend(&mut self, field: &str, value: &Spanned<DeValue<'_>>, bounds: &mut BoundTerms) {
        let Some(table) = self.table(field, value, "lend = { keep_idle = 4, recall = \"10m\" }")
        else {
            return;
        };
        for (key, value) in table {
            let field = format!("{field}.{}", key.get_ref());
            self.note(key, &field);
            match key.get_ref().as_ref() {
                "keep_idle" => bounds.keep_idle = self.read_amount(&field, value),
                "max" => bounds.lend_max = self.read_amount(&field, value),
                "recall" => bounds.recall_s = self.value(&field, value, recall_s),
                _ => self.unknown(key, &field, "only keep_idle, max and recall are"),
            }
        }
    }

    /// `{ max = 8 }`.
    fn read_borrow(&mut self, field: &str, value: &Spanned<DeValue<'_>>, bounds: &mut BoundTerms) {
        let Some(table) = self.table(field, value, "borrow = { max = 8 }") else { return };
        for (key, value) in table {
            let field = format!("{field}.{}", key.get_ref());
            self.note(key, &field);
            match key.get_ref().as_ref() {
                "max" => bounds.borrow_max = self.read_amount(&field, value),
                _ => self.unknown(key, &field, "only max is"),
            }
        }
    }

    /// `{ organisation = "acme" }`.
    fn read_labels(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let Some(table) = self.table(field, value, "labels = { organisation = \"acme\" }") else {
            return labels;
        };
        if table.len() > LABELS_MAX {
            let message = format!("has {} labels: at most {LABELS_MAX}", table.len());
            self.fault(value, field, message);
        }
        for (key, value) in table {
            let field = format!("{field}.{}", key.get_ref());
            if let Err(message) = label_key(key.get_ref()) {
                self.fault(key, &field, message);
            }
            if let Some(text) = self.value(&field, value, label_value) {
                labels.insert(key.get_ref().to_string(), text);
            }
        }
        labels
    }

    /// `{ label = "organisation", most_percent = 10 }`.
    fn read_concentration(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Concentration> {
        let form = "concentration = { label = \"organisation\", most_percent = 10 }";
        let (mut label, mut most_percent) = (None, None);
        for (key, value) in self.table(field, value, form)? {
            let field = format!("{field}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "label" => {
                    let key = |value: &DeValue<'_>| {
                        label_key(value.as_str().unwrap_or_default()).map(str::to_owned)
                    };
                    label = Some(self.value(&field, value, key)?);
                }
                "most_percent" => most_percent = Some(self.value(&field, value, most)?),
                _ => self.unknown(key, &field, "only label and most_percent are"),
            }
        }
        let both = label.zip(most_percent);
        if both.is_none() {
            self.fault(value, field, "needs label and most_percent");
        }
        both.map(|(label, most_percent)| Concentration { label, most_percent })
    }

    /// `8`, `{ b200 = 8 }`, or a list of either with dates.
    fn read_amount(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> Option<DatedAmount> {
        match value.get_ref() {
            DeValue::Table(_) => self.read_amounts(field, value),
            DeValue::Array(entries) if entries.iter().any(has_class) => {
                self.read_amounts(field, value)
            }
            DeValue::Array(_) | DeValue::Integer(_) => {
                let dated = self.read_dated(field, value, value::gpus);
                (!dated.is_empty()).then_some(ClassAmount::Every(dated))
            }
            DeValue::String(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
                self.fault(value, field, "must be whole GPUs, as in 8 or { b200 = 8 }");
                None
            }
        }
    }

    fn read_amounts(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> Option<DatedAmount> {
        let no_any = "name a class, or give one number for each class";
        let classes = self.read_classes_only(field, value, no_any);
        (!classes.is_empty()).then_some(ClassAmount::ByClass(classes))
    }

    /// The table that a term is; a fault with its form if it is none, or has nothing in it.
    fn table<'t, 'v>(
        &mut self,
        field: &str,
        value: &'t Spanned<DeValue<'v>>,
        form: &str,
    ) -> Option<&'t DeTable<'v>> {
        match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => Some(table),
            _ => {
                self.fault(value, field, format!("must be a table, as in {form}"));
                None
            }
        }
    }
}

/// Whether an entry of a list names its class.
fn has_class(entry: &Spanned<DeValue<'_>>) -> bool {
    entry.get_ref().as_table().is_some_and(|table| table.contains_key("class"))
}

fn recall_s(value: &DeValue<'_>) -> Result<i64, String> {
    let seconds = value::seconds(value)?;
    if seconds >= RECALL_LEAST_S {
        return Ok(seconds);
    }
    Err(format!(
        "{} cannot be kept: finding what is to stop and killing it takes up to {}, so that is the least",
        duration::show(seconds),
        duration::show(RECALL_LEAST_S)
    ))
}

/// A part that binds anybody.
fn most(value: &DeValue<'_>) -> Result<u32, String> {
    let found = value::number(value, 1, 99, "percent")?;
    u32::try_from(found).map_err(|_| "must be 1 to 99 percent".to_owned())
}

fn label_key(key: &str) -> Result<&str, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if !key.is_empty() && key.len() <= LABEL_MAX && key.chars().all(allowed) {
        return Ok(key);
    }
    Err(format!(
        "must be 1 to {LABEL_MAX} lower-case letters, digits, hyphens or underscores, as in organisation"
    ))
}

fn label_value(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().unwrap_or_default();
    let printed = !text.chars().any(|c| c.is_control() || c == '=' || c == ',');
    if !text.trim().is_empty() && text.chars().count() <= LABEL_MAX && printed {
        return Ok(text.to_owned());
    }
    Err(format!("must be a text of 1 to {LABEL_MAX} characters without \"=\" and \",\""))
}
