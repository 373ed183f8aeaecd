//! Changes of the quota tree with who made them, and the tree as it was.

use gotgan_core::amount::UnixMicros;
use gotgan_core::quota::audit::AuditBody;
use gotgan_core::quota::{Approval, QuotaBook, QuotaNode};
use serde::Serialize;

use crate::output::time;
use crate::view::quota::QuotaTermView;

/// Who changed the terms of a thing.
#[derive(Clone, Debug, Serialize)]
pub struct WhoView {
    pub subject: String,
    /// Oldest first.
    pub changes: Vec<WhoChangeView>,
}

/// One change of one term.
#[derive(Clone, Debug, Serialize)]
pub struct WhoChangeView {
    pub seq: u64,
    pub revision: u64,
    pub at_us: i64,
    pub at: Option<String>,
    pub effective_from_us: i64,
    pub by: String,
    pub requester: String,
    pub source: &'static str,
    pub reason: String,
    pub plan: Option<String>,
    pub approvals: Vec<ApprovalView>,
    pub decision: Option<String>,
    pub field: String,
    pub before: String,
    pub after: String,
}

/// Who approved a change.
#[derive(Clone, Debug, Serialize)]
pub struct ApprovalView {
    pub by: String,
    pub document: String,
    pub at_us: i64,
}

impl WhoView {
    /// Changes of the terms that begin with `field`.
    #[must_use]
    pub fn of(subject: &str, bodies: &[AuditBody], field: &str) -> Self {
        let changes = bodies.iter().flat_map(|body| {
            let fields = body.edit.fields().into_iter();
            let wanted = fields.filter(|found| is_named(&found.name, field));
            wanted.map(|found| WhoChangeView {
                seq: body.seq,
                revision: body.revision,
                at_us: body.at.0,
                at: time::rfc3339(body.at.0),
                effective_from_us: body.effective_from.0,
                by: body.warrant.by.to_string(),
                requester: body.warrant.requester.to_string(),
                source: body.warrant.source.word(),
                reason: body.warrant.reason.clone(),
                plan: body.warrant.plan.as_ref().map(ToString::to_string),
                approvals: body.warrant.approvals.iter().map(ApprovalView::of).collect(),
                decision: body.decision.clone(),
                field: found.name,
                before: found.before,
                after: found.after,
            })
        });
        WhoView { subject: subject.to_owned(), changes: changes.collect() }
    }
}

/// Whether `name` is that field, or one of its kind as `guarantee h200` is of `guarantee`.
fn is_named(name: &str, field: &str) -> bool {
    field.is_empty()
        || name == field
        || name.strip_prefix(field).is_some_and(|rest| rest.starts_with(' '))
}

impl ApprovalView {
    fn of(approval: &Approval) -> Self {
        ApprovalView {
            by: approval.by.to_string(),
            document: approval.document.clone(),
            at_us: approval.at.0,
        }
    }
}

/// The tree at a past moment.
#[derive(Clone, Debug, Serialize)]
pub struct TreeView {
    pub at_us: i64,
    pub revision: u64,
    pub nodes: Vec<TreeNodeView>,
}

/// A node of it.
#[derive(Clone, Debug, Serialize)]
pub struct TreeNodeView {
    pub path: String,
    pub title: String,
    pub weight: u32,
    pub any_limit_gpu_milli: Option<u64>,
    /// Sorted by class.
    pub classes: Vec<TreeClassView>,
    /// What else held.
    pub terms: Vec<QuotaTermView>,
}

/// What it had of a class.
#[derive(Clone, Debug, Serialize)]
pub struct TreeClassView {
    pub gpu_class: String,
    pub guaranteed_gpu_milli: u64,
    pub limit_gpu_milli: Option<u64>,
}

impl TreeView {
    /// What the book has for that moment, at `below` and under it; everything if `below` is empty.
    #[must_use]
    pub fn of(book: &QuotaBook, at: UnixMicros, below: &str) -> Self {
        let tree = book.at(at);
        let nodes = tree.nodes.iter().filter(|(path, _)| below.is_empty() || path.is_within(below));
        let nodes = nodes.map(|(path, node)| TreeNodeView::of(path.as_str(), node)).collect();
        TreeView { at_us: at.0, revision: tree.revision, nodes }
    }
}

impl TreeNodeView {
    fn of(path: &str, node: &QuotaNode) -> Self {
        let mut names: Vec<_> = node.guarantees.keys().chain(node.limits.keys()).collect();
        names.sort();
        names.dedup();
        let classes = names.into_iter().map(|class| TreeClassView {
            gpu_class: class.to_string(),
            guaranteed_gpu_milli: node.guarantees.get(class).map_or(0, |gpus| gpus.0),
            limit_gpu_milli: node.limits.get(class).map(|gpus| gpus.0),
        });
        TreeNodeView {
            path: path.to_owned(),
            title: node.title.clone(),
            weight: node.weight,
            any_limit_gpu_milli: node.any_limit.map(|gpus| gpus.0),
            classes: classes.collect(),
            terms: node
                .bounds
                .words()
                .into_iter()
                .map(|(name, value)| QuotaTermView { name, value })
                .collect(),
        }
    }
}
