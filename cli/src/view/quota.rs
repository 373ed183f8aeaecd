//! The quota tree, what a new one changes, and the ledger.

use gotgan_proto::v1;
use serde::Serialize;

use crate::{output::time, view::word};

/// The tree with what is in use.
#[derive(Clone, Debug, Serialize)]
pub struct QuotaView {
    pub revision: u64,
    pub nodes: Vec<QuotaNodeView>,
}

/// A node of the tree.
#[derive(Clone, Debug, Serialize)]
pub struct QuotaNodeView {
    pub path: String,
    pub title: String,
    pub pending_jobs: u64,
    pub running_jobs: u64,
    pub weight: u32,
    pub classes: Vec<QuotaClassView>,
    /// Null if it has none of its own.
    pub budget: Option<QuotaBudgetView>,
    /// At which parts of the budget people are told, hundredths.
    pub alert_percents: Vec<u32>,
    /// What else holds, its labels among it.
    pub terms: Vec<QuotaTermView>,
}

/// A term in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaTermView {
    pub name: String,
    pub value: String,
}

/// Its account for a period, in thousandths of normalised GPU-hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaBudgetView {
    pub period: String,
    pub ngh_milli: u64,
    pub carried_ngh_milli: u64,
    pub used_ngh_milli: u64,
    pub held_ngh_milli: u64,
    pub cap_ngh_milli: u64,
}

impl QuotaBudgetView {
    fn of(budget: &v1::QuotaBudget) -> Self {
        Self {
            period: budget.period.clone(),
            ngh_milli: budget.ngh_milli,
            carried_ngh_milli: budget.carried_ngh_milli,
            used_ngh_milli: budget.used_ngh_milli,
            held_ngh_milli: budget.held_ngh_milli,
            cap_ngh_milli: budget.cap_ngh_milli,
        }
    }

    /// What it may use with what was carried into the period.
    #[must_use]
    pub fn whole_ngh_milli(&self) -> u64 {
        self.ngh_milli.saturating_add(self.carried_ngh_milli)
    }
}

/// What it has of one class; without a limit it has what its parent has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaClassView {
    pub gpu_class: String,
    pub guaranteed_gpu_milli: u64,
    pub limit_gpu_milli: Option<u64>,
    /// The limit is spelled out as "unlimited".
    pub unlimited: bool,
    pub in_use_gpu_milli: u64,
}

impl QuotaView {
    /// As the API has it.
    #[must_use]
    pub fn of(tree: &v1::QuotaTree) -> Self {
        Self { revision: tree.revision, nodes: tree.nodes.iter().map(QuotaNodeView::of).collect() }
    }
}

impl QuotaNodeView {
    fn of(node: &v1::QuotaNode) -> Self {
        let limits = node.limits.iter().map(|limit| limit.gpu_class.clone());
        let amounts = node.in_use.iter().chain(&node.guarantees);
        let mut classes: Vec<String> =
            limits.chain(amounts.map(|amount| amount.gpu_class.clone())).collect();
        classes.sort();
        classes.dedup();
        Self {
            path: node.path.clone(),
            title: node.title.clone(),
            pending_jobs: node.pending_jobs,
            running_jobs: node.running_jobs,
            weight: node.weight,
            classes: classes.into_iter().map(|class| class_of(node, class)).collect(),
            budget: node.budget.as_ref().map(QuotaBudgetView::of),
            alert_percents: node.alert_percents.clone(),
            terms: node
                .terms
                .iter()
                .map(|term| QuotaTermView { name: term.name.clone(), value: term.value.clone() })
                .collect(),
        }
    }

    /// Whether the node carries the label with that value.
    #[must_use]
    pub fn carries(&self, key: &str, value: &str) -> bool {
        let name = format!("labels {key}");
        self.terms.iter().any(|term| term.name == name && term.value == value)
    }
}

fn class_of(node: &v1::QuotaNode, gpu_class: String) -> QuotaClassView {
    let limit = node.limits.iter().find(|limit| limit.gpu_class == gpu_class);
    let amount = |amounts: &[v1::QuotaUse]| {
        let found = amounts.iter().find(|amount| amount.gpu_class == gpu_class);
        found.map_or(0, |amount| amount.gpu_milli)
    };
    QuotaClassView {
        guaranteed_gpu_milli: amount(&node.guarantees),
        limit_gpu_milli: limit.and_then(|limit| limit.gpu_milli),
        unlimited: limit.is_some_and(|limit| limit.gpu_milli.is_none()),
        in_use_gpu_milli: amount(&node.in_use),
        gpu_class,
    }
}

/// An entry of the ledger.
#[derive(Clone, Debug, Serialize)]
pub struct EntryView {
    pub seq: u64,
    pub at_us: Option<i64>,
    pub at: Option<String>,
    pub kind: String,
    pub project: String,
    pub gpu_class: String,
    pub gpu_milli_seconds: i64,
    pub job_id: u64,
    pub attempt: u32,
    pub counter_account: String,
    pub from_us: i64,
    pub until_us: i64,
    pub weight_milli: u32,
}

impl EntryView {
    /// As the API has it.
    #[must_use]
    pub fn of(entry: &v1::LedgerEntry) -> Self {
        Self {
            seq: entry.seq,
            at_us: time::set(entry.at_us),
            at: time::rfc3339(entry.at_us),
            kind: word::ledger_kind(entry.kind),
            project: entry.project.clone(),
            gpu_class: entry.gpu_class.clone(),
            gpu_milli_seconds: entry.gpu_milli_seconds,
            job_id: entry.job_id,
            attempt: entry.attempt,
            counter_account: entry.counter_account.clone(),
            from_us: entry.from_us,
            until_us: entry.until_us,
            weight_milli: entry.weight_milli,
        }
    }
}

/// Sums of the ledger.
#[derive(Clone, Debug, Serialize)]
pub struct BalanceView {
    pub balanced: bool,
    pub differences: Vec<String>,
    pub projects: Vec<ProjectBalanceView>,
}

/// Sums of one project and class.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectBalanceView {
    pub project: String,
    pub gpu_class: String,
    pub charged_gpu_milli_seconds: i64,
    pub refunded_gpu_milli_seconds: i64,
    pub held_gpu_milli_seconds: i64,
    pub overuse_gpu_milli_seconds: i64,
}

impl BalanceView {
    /// As the API has it.
    #[must_use]
    pub fn of(answer: v1::BalanceResponse) -> Self {
        let project = |found: v1::ProjectBalance| ProjectBalanceView {
            project: found.project,
            gpu_class: found.gpu_class,
            charged_gpu_milli_seconds: found.charged_gpu_milli_seconds,
            refunded_gpu_milli_seconds: found.refunded_gpu_milli_seconds,
            held_gpu_milli_seconds: found.held_gpu_milli_seconds,
            overuse_gpu_milli_seconds: found.overuse_gpu_milli_seconds,
        };
        Self {
            balanced: answer.balanced,
            differences: answer.differences,
            projects: answer.projects.into_iter().map(project).collect(),
        }
    }
}
