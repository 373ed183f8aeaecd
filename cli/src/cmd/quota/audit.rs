//! `gotgan quota audit`: who changed what and on whose decision, what was in force when, and whether the chain holds.

use clap::{Args, Subcommand};
use gotgan_core::amount::UnixMicros;
use gotgan_core::quota::audit::{AuditBody, AuditEntry, Source};
use gotgan_core::quota::{read_moment, show_moment};
use serde::Serialize;

use super::chain;
use crate::{
    context::Context,
    error::{Error, Exit},
    output::table::{Table, column},
    view::{
        amount,
        audit::{TreeNodeView, TreeView, WhoChangeView, WhoView},
    },
};

/// Who changed what, what was in force when, and whether the chain holds
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan quota audit who public/nup guarantee.h200\n  gotgan quota audit when 2027-01-04\n  gotgan quota audit verify"
)]
pub struct AuditCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Who(Who),
    When(When),
    Verify(Verify),
}

/// Show who changed a term of a node, when, on whose approval and on which decision
#[derive(Args, Debug)]
struct Who {
    /// Path of a node, or "lot NAME", "class NAME", "cluster NAME", "approval"
    #[arg(value_name = "NODE")]
    subject: String,
    /// As in guarantee.h200, limit.any, weight [default: every term]
    #[arg(value_name = "FIELD", default_value = "", hide_default_value = true)]
    field: String,
}

/// Show the tree that was in force at a past moment, rebuilt from the chain
#[derive(Args, Debug)]
struct When {
    /// As in 2027-01-04 (midnight, KST) or 2027-01-04T10:00:00+09:00
    #[arg(value_name = "TIME", value_parser = read_moment)]
    at: UnixMicros,
    /// This node and what is below [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    path: String,
}

/// Check every entry of the chain, and that it leads to the tree in force
#[derive(Args, Debug)]
struct Verify {
    /// Digest of an entry, noted earlier: it must still be in the chain
    #[arg(long, value_name = "DIGEST")]
    noted: Option<String>,
}

impl AuditCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        match self.action {
            Action::Who(command) => command.run(context).await,
            Action::When(command) => command.run(context).await,
            Action::Verify(command) => command.run(context).await,
        }
    }
}

impl Who {
    async fn run(self, context: &Context) -> Result<u8, Error> {
        let subject = subject_of(&self.subject);
        let (entries, _) = chain::fetch(&context.client()?, &subject).await?;
        let bodies: Result<Vec<AuditBody>, _> = entries.iter().map(AuditEntry::read).collect();
        let bodies = bodies.map_err(|fault| Error::Unexpected(fault.to_string()))?;
        let view = WhoView::of(&subject, &bodies, &self.field.replace('.', " "));
        let output = &context.output;
        if output.json {
            output.document("gotgan.quota_audit_who/1", &view)?;
        } else if view.changes.is_empty() {
            output.aside("nobody changed that; see `gotgan quota show` for the nodes there are");
        } else {
            who_lines(&view).iter().try_for_each(|line| output.line(line))?;
        }
        Ok(Exit::Ok.code())
    }
}

/// A path is a node's; anything else is named with its kind.
fn subject_of(text: &str) -> String {
    let kinds = ["node ", "lot ", "class ", "cluster "];
    if text == "approval" || kinds.iter().any(|kind| text.starts_with(kind)) {
        text.to_owned()
    } else {
        format!("node {text}")
    }
}

/// A block a revision: when and by whom, on which grounds, and each term.
fn who_lines(view: &WhoView) -> Vec<String> {
    let (mut lines, mut last) = (Vec::new(), None);
    for change in &view.changes {
        if last.replace(change.revision) != Some(change.revision) {
            let at = show_moment(UnixMicros(change.at_us));
            let asked = match change.requester == change.by {
                true => String::new(),
                false => format!(", asked for by {}", change.requester),
            };
            lines.push(format!("revision {}, {at}, by {}{asked}", change.revision, change.by));
            lines.extend(grounds(change).into_iter().map(|line| format!("    {line}")));
        }
        lines.push(format!("    {}: {} -> {}", change.field, change.before, change.after));
    }
    lines
}

/// Decision, approvals, reason, and from when it counts, as far as there is something to say.
fn grounds(change: &WhoChangeView) -> Vec<String> {
    let mut lines = Vec::new();
    if change.effective_from_us > change.at_us {
        lines.push(format!("counts from {}", show_moment(UnixMicros(change.effective_from_us))));
    }
    lines.extend(change.decision.iter().map(|decision| format!("decision {decision}")));
    for approval in &change.approvals {
        lines.push(format!("approved by {}, {}", approval.by, approval.document));
    }
    if !change.reason.is_empty() {
        lines.push(format!("reason: {}", change.reason));
    }
    if change.source == Source::Command.word() {
        lines.push("by command, not from files".to_owned());
    }
    lines
}

impl When {
    async fn run(self, context: &Context) -> Result<u8, Error> {
        let (entries, _) = chain::fetch(&context.client()?, "").await?;
        let known = entries.partition_point(|entry| entry.at <= self.at);
        let replay = chain::replay(&entries[..known]).map_err(Error::Unexpected)?;
        let book = replay.book().map_err(|fault| Error::Unexpected(fault.to_string()))?;
        let view = TreeView::of(&book, self.at, &self.path);
        let output = &context.output;
        if output.json {
            output.document("gotgan.quota_audit_when/1", &view)?;
        } else {
            output.table(&tree_table(&view.nodes))?;
            output.aside(&format!("revision {}, {known} entries of the chain", view.revision));
        }
        Ok(Exit::Ok.code())
    }
}

fn tree_table(nodes: &[TreeNodeView]) -> Table {
    let mut table = Table::new(&[
        column("PATH").shrink(16).keep_end(),
        column("TITLE").shrink(8).drop(1),
        column("CLASS"),
        column("GUARANTEE").right(),
        column("LIMIT").right(),
    ]);
    for node in nodes {
        if node.classes.is_empty() {
            let dash = || "-".to_owned();
            table.row([node.path.clone(), node.title.clone(), dash(), dash(), dash()]);
        }
        for class in &node.classes {
            let limit = class.limit_gpu_milli.map_or_else(|| "-".to_owned(), amount::milli);
            table.row([
                node.path.clone(),
                node.title.clone(),
                class.gpu_class.clone(),
                amount::milli(class.guaranteed_gpu_milli),
                limit,
            ]);
        }
    }
    table
}

#[derive(Serialize)]
struct VerifiedView {
    verified: bool,
    entries: usize,
    revision: u64,
    head_digest: String,
    fault: Option<String>,
}

impl Verify {
    async fn run(self, context: &Context) -> Result<u8, Error> {
        let (entries, claim) = chain::fetch(&context.client()?, "").await?;
        let checked =
            chain::replay(&entries).and_then(|replay| chain::contradiction(&replay, &claim));
        let fault = checked.unwrap_or_else(Some);
        let fault = fault.or_else(|| self.missing(&entries));
        let view = VerifiedView {
            verified: fault.is_none(),
            entries: entries.len(),
            revision: claim.book_revision,
            head_digest: claim.head_digest,
            fault,
        };
        let output = &context.output;
        if output.json {
            output.document("gotgan.quota_audit_verify/1", &view)?;
        } else {
            output.line(&match &view.fault {
                Some(fault) => format!("NOT VERIFIED: {fault}"),
                None => format!(
                    "verified: {} entries lead to the tree in force, revision {}\nnewest digest {}",
                    view.entries, view.revision, view.head_digest
                ),
            })?;
        }
        Ok(if view.verified { Exit::Ok } else { Exit::Failed }.code())
    }

    /// The digest that was noted, if it is not in the chain any more.
    fn missing(&self, entries: &[AuditEntry]) -> Option<String> {
        let noted = self.noted.as_ref()?;
        let there = entries.iter().any(|entry| entry.digest.as_str() == noted);
        (!there).then(|| format!("no entry has the digest {noted}: the chain was cut or replaced"))
    }
}
