//! `gotgan quota import slurm`: quota files from another scheduler's tree, with a verdict for each of its parts.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::{Args, Subcommand};
use gotgan_core::ids::ProjectPath;
use gotgan_core::quota::import::{
    Imported, UsageTotals, Verdict, VerdictKind, import, read_dump, read_usage,
};
use serde::Serialize;

use crate::{
    context::Context,
    error::Error,
    output::table::{Table, Tone, column},
};

/// Make quota files from another scheduler's tree
#[derive(Args, Debug)]
pub struct ImportQuota {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Slurm(ImportSlurm),
}

/// Make quota files from Slurm's associations; no scheduler is asked
#[derive(Args, Debug)]
#[command(
    after_help = "Every association is listed with its verdict: taken, mapped (in other words), or refused (something it \
                  says\nhas no counterpart, and is not in the files).\n\nExample:\n  sacctmgr dump gpu1 file=gpu1.dump\n  \
                  sacct -a -P -S 2026-01-01 -o JobIDRaw,Account,AllocTRES,ElapsedRaw > gpu1.usage\n  gotgan quota import \
                  slurm --assoc gpu1.dump --usage gpu1.usage -o quota/\n  gotgan quota plan quota/"
)]
struct ImportSlurm {
    /// What `sacctmgr dump CLUSTER` wrote
    #[arg(long, value_name = "FILE")]
    assoc: PathBuf,
    /// What `sacct -P -o JobIDRaw,Account,AllocTRES,ElapsedRaw` wrote: sums by project
    #[arg(long, value_name = "FILE")]
    usage: Option<PathBuf>,
    /// Folder for the files; made if it is not there
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Node above all accounts [default: the name of the cluster]
    #[arg(long, value_name = "PATH")]
    root: Option<String>,
}

impl ImportQuota {
    pub(crate) fn run(self, context: &Context) -> Result<(), Error> {
        let Action::Slurm(command) = self.action;
        command.run(context)
    }
}

impl ImportSlurm {
    fn run(self, context: &Context) -> Result<(), Error> {
        let shown = self.assoc.display().to_string();
        let dump = read_dump(&read(&self.assoc)?);
        let (cluster, associations) = dump.map_err(|fault| {
            Error::invalid(format!("{shown}: {fault}"), "name a file of `sacctmgr dump`")
        })?;
        let root = self.root.unwrap_or_else(|| cluster.to_ascii_lowercase());
        let root = ProjectPath::new(&root).map_err(|bad| {
            Error::invalid(format!("--root: {bad}"), "name a node, as in public/slurm")
        })?;
        let imported = import(&root, &associations);
        let usage = self.usage.as_ref().map(|path| usage(path, &imported)).transpose()?;
        write(&self.output, &imported.files)?;
        let view = ImportView::of(&imported, usage);
        let output = &context.output;
        if output.json {
            return output.document("gotgan.quota_import/1", &view);
        }
        output.table(&verdict_table(&view))?;
        if let Some(usage) = &view.usage {
            output.line("")?;
            output.table(&usage_table(usage))?;
        }
        output.aside(&format!(
            "{} associations: {} taken, {} mapped, {} refused; {} files in {}",
            view.associations.len(),
            view.taken,
            view.mapped,
            view.refused,
            imported.files.len(),
            self.output.display()
        ));
        Ok(())
    }
}

fn read(path: &PathBuf) -> Result<String, Error> {
    let bytes = fs::read(path)
        .map_err(|source| Error::File { path: path.display().to_string(), source })?;
    // Descriptions may be in any encoding; what is not UTF-8 shows as such and is never a key.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn usage(path: &PathBuf, imported: &Imported) -> Result<UsageView, Error> {
    let totals = read_usage(&read(path)?).map_err(|fault| {
        let message = format!("{}: {fault}", path.display());
        Error::invalid(
            message,
            "list jobs with sacct -a -P -o JobIDRaw,Account,AllocTRES,ElapsedRaw",
        )
    })?;
    Ok(UsageView::of(&totals, imported))
}

fn write(folder: &PathBuf, files: &[(String, String)]) -> Result<(), Error> {
    let failed = |path: &PathBuf| {
        let path = path.display().to_string();
        move |source| Error::File { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct ImportView {
    taken: usize,
    mapped: usize,
    refused: usize,
    associations: Vec<VerdictView>,
    usage: Option<UsageView>,
}

#[derive(Serialize)]
struct VerdictView {
    line: usize,
    account: String,
    user: Option<String>,
    path: Option<String>,
    verdict: &'static str,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct UsageView {
    jobs: u64,
    gpu_seconds: u128,
    /// By path; what was used by accounts that have no place stands under their own names.
    projects: BTreeMap<String, u128>,
}

impl ImportView {
    fn of(imported: &Imported, usage: Option<UsageView>) -> Self {
        let count = |kind| imported.verdicts.iter().filter(|verdict| verdict.kind == kind).count();
        ImportView {
            taken: count(VerdictKind::Taken),
            mapped: count(VerdictKind::Mapped),
            refused: count(VerdictKind::Refused),
            associations: imported.verdicts.iter().map(VerdictView::of).collect(),
            usage,
        }
    }
}

impl VerdictView {
    fn of(verdict: &Verdict) -> Self {
        VerdictView {
            line: verdict.line,
            account: verdict.account.clone(),
            user: verdict.user.clone(),
            path: verdict.path.as_ref().map(ToString::to_string),
            verdict: verdict.kind.word(),
            notes: verdict.notes.clone(),
        }
    }
}

impl UsageView {
    fn of(totals: &UsageTotals, imported: &Imported) -> Self {
        let mut projects = BTreeMap::new();
        for (account, seconds) in &totals.by_account {
            let place = imported.accounts.get(account);
            let place = place.map_or_else(|| format!("(account {account})"), ToString::to_string);
            *projects.entry(place).or_default() += seconds;
        }
        UsageView { jobs: totals.jobs, gpu_seconds: totals.total(), projects }
    }
}

fn verdict_table(view: &ImportView) -> Table {
    let mut table = Table::new(&[
        column("LINE").right().drop(2),
        column("ACCOUNT").shrink(8),
        column("USER").shrink(6),
        column("VERDICT"),
        column("PATH").shrink(16).keep_end().drop(1),
        column("WHY").shrink(16),
    ]);
    for verdict in &view.associations {
        let tone = match verdict.verdict {
            "refused" => Tone::Warning,
            _ => Tone::Plain,
        };
        let plain = |text: String| (text, Tone::Plain);
        table.toned_row([
            plain(verdict.line.to_string()),
            plain(verdict.account.clone()),
            plain(verdict.user.clone().unwrap_or_default()),
            (verdict.verdict.to_owned(), tone),
            plain(verdict.path.clone().unwrap_or_else(|| "-".to_owned())),
            plain(verdict.notes.join("; ")),
        ]);
    }
    table
}

fn usage_table(usage: &UsageView) -> Table {
    let mut table = Table::new(&[column("PROJECT").shrink(16).keep_end(), column("GPU-S").right()]);
    for (project, seconds) in &usage.projects {
        table.row([project.clone(), seconds.to_string()]);
    }
    table.row([format!("total of {} jobs", usage.jobs), usage.gpu_seconds.to_string()]);
    table
}
