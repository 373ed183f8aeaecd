//! Reads what there is to give out: classes, clusters, and lots with their batches.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::FileReader;
use super::value;
use crate::amount::GpuMilli;
use crate::ids::{ClusterName, GpuClass, LotName};
use crate::quota::book::{Batch, ClassTerms, ClusterTerms, Lot};
use crate::quota::dated::Dated;

impl FileReader<'_> {
    pub(super) fn read_classes(&mut self, classes: &DeTable<'_>) {
        for (key, field, table) in self.named(classes, "class") {
            let mut terms = ClassTerms { title: String::new(), weight_milli: Dated::default() };
            for (key, value) in table {
                let name = key.get_ref().as_ref();
                let field = format!("{field}.{name}");
                match name {
                    "title" => terms.title = self.text(&field, value),
                    "weight_milli" => {
                        terms.weight_milli = self.read_dated(&field, value, value::weight_milli);
                    }
                    _ => self.unknown(key, &field, "only title and weight_milli are"),
                }
            }
            match GpuClass::new(key.get_ref()) {
                Ok(class) => {
                    self.reading.book.classes.insert(class, terms);
                }
                Err(bad) => self.fault(key, &field, bad.to_string()),
            }
        }
    }

    pub(super) fn read_clusters(&mut self, clusters: &DeTable<'_>) {
        for (key, field, table) in self.named(clusters, "cluster") {
            let (mut title, mut class) = (String::new(), None);
            for (key, value) in table {
                let name = key.get_ref().as_ref();
                let field = format!("{field}.{name}");
                match name {
                    "title" => title = self.text(&field, value),
                    "class" => {
                        self.note(key, &field);
                        class = Some(self.text(&field, value));
                    }
                    _ => self.unknown(key, &field, "only title and class are"),
                }
            }
            let Some(class) = class else {
                self.fault(
                    key,
                    &format!("{field}.class"),
                    "is missing: of which class are its GPUs?",
                );
                continue;
            };
            match (ClusterName::new(key.get_ref()), GpuClass::new(&class)) {
                (Ok(name), Ok(class)) => {
                    let terms = ClusterTerms { title, class };
                    self.reading.book.clusters.insert(name, terms);
                }
                (Err(bad), _) | (_, Err(bad)) => self.fault(key, &field, bad.to_string()),
            }
        }
    }

    pub(super) fn read_lots(&mut self, lots: &DeTable<'_>) {
        for (key, field, table) in self.named(lots, "lot") {
            let (mut cluster, mut due, mut batches) = (None, None, Vec::new());
            for (key, value) in table {
                let name = key.get_ref().as_ref();
                let field = format!("{field}.{name}");
                match (name, value.get_ref()) {
                    ("cluster", _) => {
                        self.note(key, &field);
                        cluster = Some(self.text(&field, value));
                    }
                    ("due", _) => due = self.value(&field, value, value::moment),
                    ("batch", DeValue::Array(list)) => {
                        batches =
                            list.iter().filter_map(|one| self.read_batch(&field, one)).collect();
                    }
                    ("batch", _) => {
                        self.fault(value, &field, "must be a list, as in [{ gpus = 1000 }]")
                    }
                    _ => self.unknown(key, &field, "only cluster, due and batch are"),
                }
            }
            let (Some(cluster), Some(due), false) = (cluster, due, batches.is_empty()) else {
                self.fault(key, &field, "needs cluster, due and at least one batch");
                continue;
            };
            match (LotName::new(key.get_ref()), ClusterName::new(&cluster)) {
                (Ok(name), Ok(cluster)) => {
                    self.reading.book.lots.insert(name, Lot { cluster, due, batches });
                }
                (Err(bad), _) | (_, Err(bad)) => self.fault(key, &field, bad.to_string()),
            }
        }
    }

    fn read_batch(&mut self, field: &str, batch: &Spanned<DeValue<'_>>) -> Option<Batch> {
        let DeValue::Table(table) = batch.get_ref() else {
            self.fault(batch, field, "must be { gpus = 1000, accepted = \"2027-01-04\" }");
            return None;
        };
        let mut read = Batch { gpus: GpuMilli::ZERO, spare: GpuMilli::ZERO, accepted: None };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let field = format!("{field}.{name}");
            match name {
                "gpus" => read.gpus = self.value(&field, value, value::gpus)?,
                "spare" => read.spare = self.value(&field, value, value::gpus)?,
                "accepted" => read.accepted = Some(self.value(&field, value, value::moment)?),
                _ => self.unknown(key, &field, "only gpus, spare and accepted are"),
            }
        }
        if read.gpus.is_zero() && read.spare.is_zero() {
            self.fault(batch, &format!("{field}.gpus"), "is missing: how many?");
            return None;
        }
        Some(read)
    }

    /// The tables of a kind that are new, each with its key and the name of its field.
    fn named<'t, 'i>(
        &mut self,
        tables: &'t DeTable<'i>,
        kind: &str,
    ) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, String, &'t DeTable<'i>)> {
        let mut found = Vec::new();
        for (key, value) in tables {
            let field = format!("{kind}.{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if self.is_new(key, &field) => {
                    found.push((key, field, table))
                }
                DeValue::Table(_) => {}
                _ => self.fault(key, &field, format!("must be a table, as in [{kind}.NAME]")),
            }
        }
        found
    }
}
