//! `gotgan quota plan`, `approve` and `apply`: what a change would do, who stands for it, and making it so.

use std::{collections::BTreeSet, fs, path::PathBuf};

use clap::Args;
use gotgan_core::{amount::UnixMicros, quota::show_moment};
use gotgan_proto::v1;
use serde::{Deserialize, Serialize};

use super::files::read_files;
use crate::{
    context::Context,
    error::{Error, Exit},
    output::table::{Table, Tone, column},
    view::{
        amount,
        quota_plan::{AppliedView, ChangeView, PlanView},
    },
};

/// What a plan file is, so that another file is not taken for one.
const PLAN_SCHEMA: &str = "gotgan.quota_plan_file/1";

/// Most jobs and projects that are named; the rest is counted.
const NAMED_MAX: usize = 10;

/// Show what applying files would change and do; changes nothing
#[derive(Args, Debug)]
#[command(
    after_help = "Ends with 0 if there is nothing to do, with 2 if there is, with 3 if the files or what they would do \
                  is refused.\n\nExamples:\n  gotgan quota plan quota/\n  gotgan quota plan quota/ -o quota.plan --reason \"second purchase\""
)]
pub struct PlanQuota {
    /// TOML files, or folders of them
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Write the plan there, for `approve` and `apply`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    terms: ProposalTerms,
}

/// What is said about a change beside its files.
#[derive(Args, Debug, Default)]
struct ProposalTerms {
    /// Why; kept in the audit chain
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    reason: String,
    /// Agree that running jobs are stopped for others because of the change
    #[arg(long)]
    allow_stop: bool,
    /// Agree that what commands changed since files were applied last is put back
    #[arg(long)]
    overwrite: bool,
}

/// Stand for a plan that somebody else made
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  gotgan quota approve quota.plan --doc GPU-2026-031")]
pub struct ApproveQuota {
    /// Written by `gotgan quota plan -o`
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// The document that approves it
    #[arg(long = "doc", value_name = "REF")]
    document: String,
    /// Refuse unless the token is this person's
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

/// Replace the tree by a plan or by files, all or nothing
#[derive(Args, Debug)]
#[command(
    after_help = "Ends with 4 if the tree has moved since the plan was made, with 5 if it is not approved.\n\n\
                  Examples:\n  gotgan quota apply quota.plan\n  gotgan quota apply quota/ --dry-run\n  \
                  gotgan quota apply quota/ --base-revision 7"
)]
pub struct ApplyQuota {
    /// A plan, or TOML files, or folders of them
    #[arg(required = true, value_name = "PLAN|DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Check and compare only
    #[arg(long)]
    dry_run: bool,
    /// Refuse if the tree is at another revision than this one
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    base_revision: u64,
    #[command(flatten)]
    terms: ProposalTerms,
}

/// A plan on disk: everything that is sent again when it is approved and applied.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    schema: String,
    digest: String,
    base_revision: u64,
    requester: String,
    reason: String,
    allow_stop: bool,
    overwrite: bool,
    files: Vec<PlannedFile>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlannedFile {
    name: String,
    text: String,
}

impl PlanFile {
    fn of(proposal: v1::QuotaProposal, plan: &v1::QuotaPlan) -> Self {
        let file = |file: v1::QuotaFile| PlannedFile { name: file.name, text: file.text };
        PlanFile {
            schema: PLAN_SCHEMA.to_owned(),
            digest: plan.digest.clone(),
            base_revision: plan.base_revision,
            requester: plan.requester.clone(),
            reason: proposal.reason,
            allow_stop: proposal.allow_stop,
            overwrite: proposal.overwrite,
            files: proposal.files.into_iter().map(file).collect(),
        }
    }

    fn read(path: &PathBuf) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| Error::File { path: shown.clone(), source })?;
        let hint = "make one with `gotgan quota plan DIR -o FILE`";
        let plan: PlanFile = serde_json::from_str(&text)
            .map_err(|bad| Error::invalid(format!("{shown}: not a quota plan: {bad}"), hint))?;
        if plan.schema != PLAN_SCHEMA {
            let message = format!("{shown}: a plan of another version: {}", plan.schema);
            return Err(Error::invalid(message, hint));
        }
        Ok(plan)
    }

    fn into_proposal(self) -> v1::QuotaProposal {
        let file = |file: PlannedFile| v1::QuotaFile { name: file.name, text: file.text };
        v1::QuotaProposal {
            files: self.files.into_iter().map(file).collect(),
            base_revision: self.base_revision,
            requester: self.requester,
            reason: self.reason,
            allow_stop: self.allow_stop,
            overwrite: self.overwrite,
        }
    }
}

impl ProposalTerms {
    fn proposal(self, paths: &[PathBuf]) -> Result<v1::QuotaProposal, Error> {
        Ok(v1::QuotaProposal {
            files: read_files(paths)?,
            reason: self.reason,
            allow_stop: self.allow_stop,
            overwrite: self.overwrite,
            ..Default::default()
        })
    }
}

impl PlanQuota {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        let (allow_stop, overwrite) = (self.terms.allow_stop, self.terms.overwrite);
        let proposal = self.terms.proposal(&self.paths)?;
        let request = v1::PlanQuotaRequest { proposal: Some(proposal.clone()) };
        let plan =
            context.client()?.call(async |api| api.quota().plan(request.clone()).await).await?;
        let view = PlanView::of(&plan);
        if let Some(path) = &self.output {
            write_plan(path, &PlanFile::of(proposal, &plan))?;
        }
        if context.output.json {
            context.output.document("gotgan.quota_plan/1", &view)?;
        } else {
            show(&view, context)?;
        }
        let refused =
            (!view.stopped.is_empty() && !allow_stop) || (!view.undone.is_empty() && !overwrite);
        let exit = match (view.changes.is_empty(), refused) {
            (true, _) => Exit::Ok,
            (false, true) => Exit::Invalid,
            (false, false) => Exit::Planned,
        };
        Ok(exit.code())
    }
}

fn write_plan(path: &PathBuf, plan: &PlanFile) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(plan)
        .map_err(|problem| Error::Unexpected(problem.to_string()))?;
    text.push('\n');
    fs::write(path, text).map_err(|source| Error::File { path: path.display().to_string(), source })
}

/// Everything a reviewer asks: what, when, by which right, is there enough, and whom does it hit.
fn show(view: &PlanView, context: &Context) -> Result<(), Error> {
    let output = &context.output;
    if view.changes.is_empty() {
        return output.line(&format!("nothing to do; revision {}", view.base_revision));
    }
    change_lines(&view.changes).iter().try_for_each(|line| output.line(line))?;
    if !view.capacity.is_empty() {
        output.line("")?;
        output.table(&capacity_table(view))?;
    }
    output.line("")?;
    for line in effects(view).into_iter().chain(needs(view)) {
        output.line(&line)?;
    }
    Ok(())
}

/// Two lines a change, so that no term of it is cut off.
fn change_lines(changes: &[ChangeView]) -> Vec<String> {
    let lines = changes.iter().flat_map(|change| {
        let from = match change.effective_from_us {
            Some(at) => format!(", from {}", show_moment(UnixMicros(at))),
            None => String::new(),
        };
        [format!("{} {}{from}", change.kind, change.path), format!("    {}", change.text)]
    });
    lines.collect()
}

/// By which right the changes are made, if there are any.
fn rights(changes: &[ChangeView]) -> String {
    let rights: BTreeSet<&str> = changes.iter().map(|change| change.allowed_by.as_str()).collect();
    rights.into_iter().collect::<Vec<_>>().join(", ")
}

fn capacity_table(view: &PlanView) -> Table {
    let mut table = Table::new(&[
        column("CAPACITY FROM"),
        column("CLASS"),
        column("GUARANTEED").right(),
        column("ACCEPTED").right(),
        column("DUE").right(),
        column("WAITING").right(),
    ]);
    for check in &view.capacity {
        let plain = |gpus| (amount::milli(gpus), Tone::Plain);
        // Where no lot is known nothing is scaled.
        let known = check.accepted_gpu_milli + check.promised_gpu_milli > 0;
        let short = check.guaranteed_gpu_milli.saturating_sub(check.accepted_gpu_milli);
        let waiting = match short {
            short if known && short > 0 => (amount::milli(short), Tone::Warning),
            _ => ("-".to_owned(), Tone::Dim),
        };
        table.toned_row([
            (
                check.at_us.map_or_else(|| "now".to_owned(), |at| show_moment(UnixMicros(at))),
                Tone::Plain,
            ),
            (check.gpu_class.clone(), Tone::Plain),
            plain(check.guaranteed_gpu_milli),
            plain(check.accepted_gpu_milli),
            plain(check.promised_gpu_milli),
            waiting,
        ]);
    }
    table
}

/// Jobs that may run into a reservation.
fn overstays(view: &PlanView) -> Option<String> {
    let named = view.overstay.iter().take(NAMED_MAX).map(|one| {
        let ends = show_moment(UnixMicros(one.ends_us));
        format!("{}.{} of {} until {ends}", one.job_id, one.attempt, one.project)
    });
    let (named, count) = (named.collect::<Vec<_>>().join(", "), view.overstay.len());
    let more = if count > NAMED_MAX { " …" } else { "" };
    (count > 0).then(|| {
        format!(
            "{count} running jobs may still be on reserved nodes then, and go on: {named}{more}"
        )
    })
}

/// What it would do to jobs.
fn effects(view: &PlanView) -> Vec<String> {
    let mut lines = Vec::new();
    if !view.stopped.is_empty() {
        let named = view.stopped.iter().take(NAMED_MAX);
        let named: Vec<String> =
            named.map(|one| format!("{}.{} of {}", one.job_id, one.attempt, one.project)).collect();
        let count = view.stopped.len();
        let more = if count > NAMED_MAX { " …" } else { "" };
        lines.push(format!(
            "WOULD STOP {count} RUNNING JOBS for others (agree with --allow-stop): {}{more}",
            named.join(", ")
        ));
    } else {
        lines.push("stops no running job".to_owned());
    }
    for above in &view.above_limit {
        lines.push(format!(
            "{} holds {} {} and may hold {}: what runs goes on, nothing more starts",
            above.path,
            amount::milli(above.held_gpu_milli),
            above.gpu_class,
            amount::milli(above.limit_gpu_milli)
        ));
    }
    lines.extend(overstays(view));
    for (projects, word) in [
        (&view.starts_gained, "would start at once, and would not otherwise"),
        (&view.starts_lost, "would not start now, and would otherwise"),
    ] {
        let jobs: u64 = projects.iter().map(|project| project.jobs).sum();
        if jobs > 0 {
            let named = projects.iter().take(NAMED_MAX);
            let named: Vec<String> =
                named.map(|project| format!("{} {}", project.project, project.jobs)).collect();
            lines.push(format!("{jobs} waiting jobs {word}: {}", named.join(", ")));
        }
    }
    for undone in &view.undone {
        lines.push(format!(
            "WOULD UNDO what {} changed by command in revision {} (agree with --overwrite): {}",
            undone.by, undone.revision, undone.subject
        ));
    }
    lines
}

/// What it needs before it can be applied.
fn needs(view: &PlanView) -> Vec<String> {
    let size = match view.size_gpu_milli {
        Some(gpus) => format!("moves {} GPUs", amount::milli(gpus)),
        None => "moves what no number of GPUs says".to_owned(),
    };
    let approvals = match view.approvers_needed {
        0 => "needs no approval".to_owned(),
        1 => "needs the approval of 1 other person".to_owned(),
        count => format!("needs the approval of {count} other people"),
    };
    let (count, right) = (view.changes.len(), rights(&view.changes));
    vec![
        format!(
            "{count} changes of revision {}, as {right}; {size}; {approvals}",
            view.base_revision
        ),
        format!("plan {}", view.digest),
    ]
}

impl ApproveQuota {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let plan = PlanFile::read(&self.plan)?;
        let client = context.client()?;
        if let Some(name) = self.name {
            let caller =
                client.call(async |api| api.cluster().who_am_i(v1::WhoAmIRequest {}).await);
            let subject = caller.await?.subject;
            if subject != name {
                let message = format!("--as {name}: the token is of {subject}");
                return Err(Error::invalid(message, "use the token of who approves"));
            }
        }
        let request = v1::ApproveQuotaRequest {
            idempotency_key: context.idempotency_key()?,
            plan_digest: plan.digest.clone(),
            proposal: Some(plan.into_proposal()),
            document: self.document,
        };
        let answer = client.call(async |api| api.quota().approve(request.clone()).await).await?;
        let (given, needed) = (answer.approvers, answer.approvers_needed);
        if context.output.json {
            let view = ApprovedView {
                plan: request.plan_digest,
                approvers: given,
                approvers_needed: needed,
            };
            return context.output.document("gotgan.quota_approval/1", &view);
        }
        context.output.line(&format!("approved by {given} of {needed} needed"))
    }
}

#[derive(Serialize)]
struct ApprovedView {
    plan: String,
    approvers: u32,
    approvers_needed: u32,
}

impl ApplyQuota {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let dry_run = self.dry_run;
        let (proposal, plan_digest) = self.proposal()?;
        let request = v1::ApplyQuotaRequest {
            idempotency_key: context.idempotency_key()?,
            proposal: Some(proposal),
            dry_run,
            plan_digest,
        };
        let answer =
            context.client()?.call(async |api| api.quota().apply(request.clone()).await).await?;
        let view = AppliedView::of(answer, dry_run);
        let output = &context.output;
        if output.json {
            return output.document("gotgan.quota_apply/1", &view);
        }
        change_lines(&view.changes).iter().try_for_each(|line| output.line(line))?;
        output.line(&match (view.changes.len(), dry_run) {
            (0, _) => format!("nothing to change; revision {}", view.revision),
            (count, true) => format!("{count} changes; nothing was stored (--dry-run)"),
            (count, false) => format!("{count} changes applied; revision {}", view.revision),
        })
    }

    /// From the plan with its digest, or from the files.
    fn proposal(self) -> Result<(v1::QuotaProposal, String), Error> {
        let is_toml = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "toml");
        match self.paths.as_slice() {
            [path] if path.is_file() && !is_toml(path) => {
                let ProposalTerms { reason, allow_stop, overwrite } = &self.terms;
                if !reason.is_empty() || *allow_stop || *overwrite || self.base_revision != 0 {
                    let message = "--reason, --allow-stop, --overwrite and --base-revision are part of the plan";
                    return Err(Error::invalid(message, "say them when the plan is made"));
                }
                let plan = PlanFile::read(path)?;
                let digest = plan.digest.clone();
                Ok((plan.into_proposal(), digest))
            }
            paths => {
                let mut proposal = self.terms.proposal(paths)?;
                proposal.base_revision = self.base_revision;
                Ok((proposal, String::new()))
            }
        }
    }
}
