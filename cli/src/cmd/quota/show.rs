//! `gotgan quota show`: the tree with what is in use, now, before or later.

use clap::Args;
use gotgan_core::amount::{Ngh, UnixMicros};
use gotgan_proto::v1;

use crate::{
    context::Context,
    error::Error,
    output::table::{Table, Tone, column},
    view::{
        amount,
        quota::{QuotaNodeView, QuotaView},
    },
};

/// Show the tree with what is in use
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan quota show public/nup\n  gotgan quota show --at 2027-01-04"
)]
pub struct ShowQuota {
    /// This node and what is below [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    path: String,
    /// As it was at that date, or will be by what is applied now, as in 2027-01-04 (midnight, KST)
    #[arg(long, value_name = "DATE", value_parser = gotgan_core::quota::read_moment)]
    at: Option<UnixMicros>,
    /// Only nodes that carry this label; more than once: all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let both = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
    let form = || "must be a key and a value, as in organisation=acme".to_owned();
    both.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(form)
}

impl ShowQuota {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::GetQuotaRequest { path: self.path, at_us: self.at.map_or(0, |at| at.0) };
        let tree =
            context.client()?.call(async |api| api.quota().get(request.clone()).await).await?;
        let mut view = QuotaView::of(&tree);
        let carries =
            |node: &QuotaNodeView| self.labels.iter().all(|(key, value)| node.carries(key, value));
        view.nodes.retain(carries);
        if context.output.json {
            return context.output.document("gotgan.quota/1", &view);
        }
        context.output.table(&table(&view))?;
        if let Some(budgets) = budgets(&view) {
            context.output.line("")?;
            context.output.table(&budgets)?;
        }
        if let Some(terms) = terms(&view) {
            context.output.line("")?;
            context.output.table(&terms)?;
        }
        context.output.aside(&format!("revision {}", view.revision));
        Ok(())
    }
}

fn table(view: &QuotaView) -> Table {
    let mut table = Table::new(&[
        column("PATH").shrink(16).keep_end(),
        column("TITLE").shrink(8).drop(1),
        column("CLASS"),
        column("IN USE").right(),
        column("GUARANTEE").right().drop(4),
        column("LIMIT").right(),
        column("RUNNING").right().drop(2),
        column("PENDING").right().drop(3),
    ]);
    for node in &view.nodes {
        add_node(&mut table, node);
    }
    table
}

/// Accounts of the nodes that have a budget, in normalised GPU-hours.
fn budgets(view: &QuotaView) -> Option<Table> {
    let mut table = Table::new(&[
        column("PATH").shrink(16).keep_end(),
        column("PERIOD"),
        column("BUDGET NGH").right(),
        column("CARRIED").right().drop(1),
        column("USED").right(),
        column("HELD").right(),
        column("LEFT").right(),
        column("CAP").right().drop(2),
        column("ALERTS %").drop(3),
    ]);
    let mut any = false;
    for node in &view.nodes {
        let Some(budget) = &node.budget else { continue };
        any = true;
        let whole = budget.whole_ngh_milli();
        let spent = budget.used_ngh_milli.saturating_add(budget.held_ngh_milli);
        let ngh = |milli| Ngh::thousandths(milli).to_string();
        let tone = if spent >= whole { Tone::Warning } else { Tone::Plain };
        table.toned_row([
            (node.path.clone(), Tone::Plain),
            (budget.period.clone(), Tone::Plain),
            (ngh(budget.ngh_milli), Tone::Plain),
            (ngh(budget.carried_ngh_milli), Tone::Plain),
            (ngh(budget.used_ngh_milli), Tone::Plain),
            (ngh(budget.held_ngh_milli), Tone::Plain),
            (ngh(whole.saturating_sub(spent)), tone),
            (ngh(budget.cap_ngh_milli), Tone::Plain),
            (percents(&node.alert_percents), Tone::Dim),
        ]);
    }
    any.then_some(table)
}

/// `75, 90, 100`, or `-`.
fn percents(percents: &[u32]) -> String {
    let words: Vec<String> = percents.iter().map(u32::to_string).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// Everything else that nodes say, in words.
fn terms(view: &QuotaView) -> Option<Table> {
    let mut table =
        Table::new(&[column("PATH").shrink(16).keep_end(), column("TERM"), column("VALUE")]);
    let mut any = false;
    for node in &view.nodes {
        for term in &node.terms {
            any = true;
            table.row([node.path.clone(), term.name.clone(), term.value.clone()]);
        }
    }
    any.then_some(table)
}

/// One row a class; what is not of a class stands in the first.
fn add_node(table: &mut Table, node: &QuotaNodeView) {
    let jobs = [node.running_jobs, node.pending_jobs].map(|count| (count.to_string(), Tone::Plain));
    let [running, pending] = jobs;
    let head = [(node.path.clone(), Tone::Plain), (node.title.clone(), Tone::Dim)];
    let [path, title] = head;
    if node.classes.is_empty() {
        let dash = || ("-".to_owned(), Tone::Dim);
        table.toned_row([path, title, dash(), dash(), dash(), dash(), running, pending]);
        return;
    }
    let empty = || (String::new(), Tone::Plain);
    let mut first = Some((path, title, running, pending));
    for class in &node.classes {
        let limit = match (class.limit_gpu_milli, class.unlimited) {
            (Some(limit), _) => amount::milli(limit),
            (None, true) => "unlimited".to_owned(),
            (None, false) => "-".to_owned(),
        };
        let full =
            class.limit_gpu_milli.is_some_and(|limit| class.in_use_gpu_milli >= limit && limit > 0);
        let tone = if full { Tone::Warning } else { Tone::Plain };
        let (path, title, running, pending) =
            first.take().unwrap_or_else(|| (empty(), empty(), empty(), empty()));
        let used = (amount::milli(class.in_use_gpu_milli), tone);
        let sure_of = match class.guaranteed_gpu_milli {
            0 => ("-".to_owned(), Tone::Dim),
            gpus => (amount::milli(gpus), Tone::Plain),
        };
        table.toned_row([
            path,
            title,
            (class.gpu_class.clone(), Tone::Plain),
            used,
            sure_of,
            (limit, Tone::Plain),
            running,
            pending,
        ]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_tree_is_one_row_a_class() {
        let limit =
            |class: &str, gpu_milli| v1::QuotaLimit { gpu_class: class.to_owned(), gpu_milli };
        let used = v1::QuotaUse { gpu_class: "b200".to_owned(), gpu_milli: 16_000 };
        let node = v1::QuotaNode {
            path: "public/nup".to_owned(),
            title: "엔업".to_owned(),
            limits: vec![limit("b200", Some(16_000)), limit("h200", None)],
            guarantees: vec![v1::QuotaUse { gpu_milli: 8_000, ..used.clone() }],
            in_use: vec![used],
            weight: 1,
            pending_jobs: 3,
            running_jobs: 2,
            alert_percents: vec![75, 90, 100],
            budget: Some(v1::QuotaBudget {
                period: "2026-Q3".to_owned(),
                ngh_milli: 1_800_000_000,
                carried_ngh_milli: 0,
                used_ngh_milli: 1_700_000_500,
                held_ngh_milli: 12_000,
                cap_ngh_milli: 1_800_000_000,
            }),
            terms: vec![v1::QuotaTerm { name: "lend recall".to_owned(), value: "10m".to_owned() }],
        };
        let root = v1::QuotaNode { path: "public".to_owned(), ..Default::default() };
        let view = QuotaView::of(&v1::QuotaTree { revision: 7, nodes: vec![root, node] });
        insta::assert_snapshot!(table(&view).render(Some(80), false), @"
        PATH        TITLE  CLASS  IN USE  GUARANTEE      LIMIT  RUNNING  PENDING
        public             -           -          -          -        0        0
        public/nup  엔업   b200       16          8         16        2        3
                           h200        0          -  unlimited
        ");
        insta::assert_snapshot!(budgets(&view).unwrap().render(Some(90), false), @"
        PATH        PERIOD   BUDGET NGH  CARRIED         USED  HELD      LEFT        CAP
        public/nup  2026-Q3   1,800,000        0  1,700,000.5    12  99,987.5  1,800,000
        ");
        insta::assert_snapshot!(terms(&view).unwrap().render(Some(80), false), @"
        PATH        TERM         VALUE
        public/nup  lend recall  10m
        ");
    }
}
