//! Terms of a node beside its guarantees, limits and budget: what it keeps and lends of its guarantee, how much it may
//! borrow, how large, how long and how many its jobs may be, and its labels.
//!
//! [`BoundTerms`] is what was written down, over all time; [`Bounds`] is what of it holds at a moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dated::Dated;
use super::duration;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::GpuClass;

/// An amount of GPUs: the same for every class, or by class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassAmount<T = GpuMilli> {
    /// For each class alike.
    Every(T),
    /// For the classes that are named; nothing is said of others.
    ByClass(BTreeMap<GpuClass, T>),
}

/// An amount of GPUs over time.
pub type DatedAmount = ClassAmount<Dated<GpuMilli>>;

impl ClassAmount {
    /// What is said of the class.
    #[must_use]
    pub fn of(&self, class: &GpuClass) -> Option<GpuMilli> {
        match self {
            ClassAmount::Every(gpus) => Some(*gpus),
            ClassAmount::ByClass(gpus) => gpus.get(class).copied(),
        }
    }
}

impl DatedAmount {
    /// What holds at `at`.
    #[must_use]
    pub fn at(&self, at: UnixMicros) -> Option<ClassAmount> {
        match self {
            ClassAmount::Every(dated) => dated.at(at).copied().map(ClassAmount::Every),
            ClassAmount::ByClass(classes) => {
                let there = classes.iter();
                let there =
                    there.filter_map(|(class, dated)| Some((class.clone(), *dated.at(at)?)));
                let there: BTreeMap<_, _> = there.collect();
                (!there.is_empty()).then_some(ClassAmount::ByClass(there))
            }
        }
    }

    /// The classes that are named; none where all are meant.
    pub fn classes(&self) -> impl Iterator<Item = &GpuClass> {
        match self {
            ClassAmount::Every(_) => None,
            ClassAmount::ByClass(classes) => Some(classes.keys()),
        }
        .into_iter()
        .flatten()
    }

    /// Each part with the class it is of, `None` for all classes.
    pub(super) fn parts(&self) -> Vec<(Option<&GpuClass>, &Dated<GpuMilli>)> {
        match self {
            ClassAmount::Every(dated) => vec![(None, dated)],
            ClassAmount::ByClass(classes) => {
                classes.iter().map(|(class, dated)| (Some(class), dated)).collect()
            }
        }
    }
}

impl From<ClassAmount> for DatedAmount {
    /// The same at all times.
    fn from(amount: ClassAmount) -> Self {
        match amount {
            ClassAmount::Every(gpus) => ClassAmount::Every(Dated::always(gpus)),
            ClassAmount::ByClass(classes) => {
                let always = |(class, gpus)| (class, Dated::always(gpus));
                ClassAmount::ByClass(classes.into_iter().map(always).collect())
            }
        }
    }
}

/// No value of a label may have too much of what the node guarantees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concentration {
    /// Which label.
    pub label: String,
    /// Most of the guarantees of all classes together, hundredths.
    pub most_percent: u32,
}

/// What was written down, over all time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoundTerms {
    /// GPUs of its unused guarantee that nobody outside the node may borrow.
    pub keep_idle: Option<DatedAmount>,
    /// Most of its unused guarantee that others may use at once.
    pub lend_max: Option<DatedAmount>,
    /// A demand within the guarantee of the node or one below waits no longer for what was lent, seconds.
    pub recall_s: Option<i64>,
    /// Most that it may hold beyond its own guarantee.
    pub borrow_max: Option<DatedAmount>,
    /// Most GPUs of one job.
    pub max_gang: Option<DatedAmount>,
    /// Longest time limit of a job, seconds.
    pub max_walltime_s: Dated<i64>,
    /// Most jobs that run at once, at the node and below it together.
    pub max_jobs: Dated<u64>,
    /// For people and for [`Concentration`], by key.
    pub labels: BTreeMap<String, String>,
    /// How much one value of a label may have of what is guaranteed below.
    pub concentration: Option<Concentration>,
}

/// What holds at a moment; the fields are those of [`BoundTerms`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// GPUs of its unused guarantee that nobody outside the node may borrow.
    pub keep_idle: Option<ClassAmount>,
    /// Most of its unused guarantee that others may use at once.
    pub lend_max: Option<ClassAmount>,
    /// A demand within the guarantee of the node or one below waits no longer for what was lent, seconds.
    pub recall_s: Option<i64>,
    /// Most that it may hold beyond its own guarantee.
    pub borrow_max: Option<ClassAmount>,
    /// Most GPUs of one job.
    pub max_gang: Option<ClassAmount>,
    /// Longest time limit of a job, seconds.
    pub max_walltime_s: Option<i64>,
    /// Most jobs that run at once, at the node and below it together.
    pub max_jobs: Option<u64>,
    /// By key.
    pub labels: BTreeMap<String, String>,
    /// How much one value of a label may have of what is guaranteed below.
    pub concentration: Option<Concentration>,
}

impl Bounds {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Bounds::default()
    }

    /// Whether it keeps anything of its guarantee from others.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.keep_idle.is_some() || self.lend_max.is_some()
    }

    /// Of so many GPUs of its guarantee that it does not use, those that nobody outside may borrow.
    #[must_use]
    pub fn kept_of(&self, class: &GpuClass, unused: GpuMilli) -> GpuMilli {
        let of = |amount: &Option<ClassAmount>| amount.as_ref().and_then(|amount| amount.of(class));
        let idle = of(&self.keep_idle).unwrap_or_default().min(unused);
        let not_lent = of(&self.lend_max).map_or(GpuMilli::ZERO, |max| unused.saturating_sub(max));
        idle.max(not_lent)
    }

    /// What is said, in words: what each term is called, and its value.
    #[must_use]
    pub fn words(&self) -> Vec<(String, String)> {
        BoundTerms::from(self.clone()).words(&|dated| {
            dated.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
        })
    }
}

impl From<Bounds> for BoundTerms {
    /// The same at all times.
    fn from(bounds: Bounds) -> Self {
        BoundTerms {
            keep_idle: bounds.keep_idle.map(Into::into),
            lend_max: bounds.lend_max.map(Into::into),
            recall_s: bounds.recall_s,
            borrow_max: bounds.borrow_max.map(Into::into),
            max_gang: bounds.max_gang.map(Into::into),
            max_walltime_s: bounds.max_walltime_s.map_or_else(Dated::default, Dated::always),
            max_jobs: bounds.max_jobs.map_or_else(Dated::default, Dated::always),
            labels: bounds.labels,
            concentration: bounds.concentration,
        }
    }
}

impl BoundTerms {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == BoundTerms::default()
    }

    /// What holds at `at`.
    #[must_use]
    pub fn at(&self, at: UnixMicros) -> Bounds {
        let amount = |of: &Option<DatedAmount>| of.as_ref().and_then(|dated| dated.at(at));
        Bounds {
            keep_idle: amount(&self.keep_idle),
            lend_max: amount(&self.lend_max),
            recall_s: self.recall_s,
            borrow_max: amount(&self.borrow_max),
            max_gang: amount(&self.max_gang),
            max_walltime_s: self.max_walltime_s.at(at).copied(),
            max_jobs: self.max_jobs.at(at).copied(),
            labels: self.labels.clone(),
            concentration: self.concentration.clone(),
        }
    }

    /// Amounts of GPUs, each with its name in the files.
    pub(super) fn amounts(&self) -> impl Iterator<Item = (&'static str, &DatedAmount)> {
        let all = [
            ("lend.keep_idle", &self.keep_idle),
            ("lend.max", &self.lend_max),
            ("borrow.max", &self.borrow_max),
            ("max_gang", &self.max_gang),
        ];
        all.into_iter().filter_map(|(name, amount)| Some((name, amount.as_ref()?)))
    }

    /// Every moment at which something changes.
    pub(super) fn edges(&self) -> impl Iterator<Item = UnixMicros> {
        let amounts = self.amounts().flat_map(|(_, amount)| amount.parts());
        let amounts = amounts.flat_map(|(_, dated)| dated.edges());
        amounts.chain(self.max_walltime_s.edges()).chain(self.max_jobs.edges())
    }

    /// What is said, in words: what each term is called, and its value; `spell` writes amounts with their dates.
    pub(super) fn words(&self, spell: &dyn Fn(&Dated<String>) -> String) -> Vec<(String, String)> {
        let mut words = Vec::new();
        for (name, amount) in self.amounts() {
            let name = name.replace('.', " ");
            for (class, dated) in amount.parts() {
                let name = class.map_or_else(|| name.clone(), |class| format!("{name} {class}"));
                words.push((name, spell(&dated.spelt(GpuMilli::to_string))));
            }
        }
        let mut say = |name: &str, value: String| words.push((name.to_owned(), value));
        if let Some(recall_s) = self.recall_s {
            say("lend recall", duration::show(recall_s));
        }
        if !self.max_walltime_s.is_empty() {
            let spelt = self.max_walltime_s.spelt(|seconds| duration::show(*seconds));
            say("max_walltime", spell(&spelt));
        }
        if !self.max_jobs.is_empty() {
            say("max_jobs", spell(&self.max_jobs.spelt(u64::to_string)));
        }
        for (key, value) in &self.labels {
            say(&format!("labels {key}"), value.clone());
        }
        if let Some(Concentration { label, most_percent }) = &self.concentration {
            say("concentration", format!("at most {most_percent} % for a value of {label}"));
        }
        words
    }
}
