//! `gotgan quota`: the tree of limits, changing it from files, and the ledger.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use gotgan_core::amount::UnixMicros;
use gotgan_proto::v1;

use crate::{
    cmd::{
        ledger::{Balance, Ledger},
        validate::ValidateQuota,
    },
    context::Context,
    error::{Error, Exit},
    output::table::{Table, Tone, column},
    view::{
        amount,
        quota::{AppliedView, QuotaNodeView, QuotaView},
    },
};

/// Largest quota file the API takes, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Deepest folder read; a tree of programmes needs two or three, a loop of links none.
const DEPTH_MAX: usize = 8;

/// Show and change quotas, and read the ledger
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct QuotaCommand {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  gotgan quota show public/nup
  gotgan quota validate quota/
  gotgan quota apply quota/ --dry-run
  gotgan quota ledger --project public/nup --json
  gotgan quota balance";

#[derive(Debug, Subcommand)]
enum Action {
    Show(ShowQuota),
    Validate(ValidateQuota),
    Apply(ApplyQuota),
    Ledger(Ledger),
    Balance(Balance),
}

/// Show the tree with what is in use
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan quota show public/nup\n  gotgan quota show --at 2027-01-04"
)]
struct ShowQuota {
    /// This node and what is below [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    path: String,
    /// As it will be at that date by what is applied now, as in 2027-01-04 (midnight, KST)
    #[arg(long, value_name = "DATE", value_parser = gotgan_core::quota::read_moment)]
    at: Option<UnixMicros>,
}

/// Replace the tree by files, all or nothing
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan quota apply quota/ --dry-run\n  gotgan quota apply quota/ --base-revision 7"
)]
struct ApplyQuota {
    /// TOML files, or folders of them
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Check and compare only
    #[arg(long)]
    dry_run: bool,
    /// Refuse if the tree is at another revision than this one
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    base_revision: u64,
}

impl QuotaCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        match self.action {
            Action::Show(command) => command.run(context).await?,
            Action::Validate(command) => return command.run(context),
            Action::Apply(command) => command.run(context).await?,
            Action::Ledger(command) => command.run(context).await?,
            Action::Balance(command) => return command.run(context).await,
        }
        Ok(Exit::Ok.code())
    }
}

impl ShowQuota {
    async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::GetQuotaRequest { path: self.path, at_us: self.at.map_or(0, |at| at.0) };
        let tree =
            context.client()?.call(async |api| api.quota().get(request.clone()).await).await?;
        let view = QuotaView::of(&tree);
        if context.output.json {
            return context.output.document("gotgan.quota/1", &view);
        }
        context.output.table(&table(&view))?;
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

impl ApplyQuota {
    async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::ApplyQuotaRequest {
            idempotency_key: context.idempotency_key()?,
            files: read_files(&self.paths)?,
            base_revision: self.base_revision,
            dry_run: self.dry_run,
        };
        let answer =
            context.client()?.call(async |api| api.quota().apply(request.clone()).await).await?;
        let view = AppliedView::of(answer, self.dry_run);
        let output = &context.output;
        if output.json {
            return output.document("gotgan.quota_apply/1", &view);
        }
        let mut changes = Table::new(&[
            column("CHANGE"),
            column("PATH").shrink(16).keep_end(),
            column("WHAT").shrink(16),
        ]);
        for change in &view.changes {
            changes.row([change.kind.clone(), change.path.clone(), change.text.clone()]);
        }
        if !view.changes.is_empty() {
            output.table(&changes)?;
        }
        output.line(&match (view.changes.len(), self.dry_run) {
            (0, _) => format!("nothing to change; revision {}", view.revision),
            (count, true) => format!("{count} changes; nothing was stored (--dry-run)"),
            (count, false) => format!("{count} changes applied; revision {}", view.revision),
        })
    }
}

/// The files by name, from files and folders; in folders those that end in .toml.
pub(super) fn read_files(paths: &[PathBuf]) -> Result<Vec<v1::QuotaFile>, Error> {
    let mut found = BTreeMap::new();
    for path in paths {
        if path.is_dir() {
            find_files(path, path, 0, &mut found)?;
        } else {
            let name = path.file_name().map(PathBuf::from).unwrap_or_else(|| path.clone());
            add_file(name, path.clone(), &mut found)?;
        }
    }
    if found.is_empty() {
        return Err(Error::invalid(
            "no file there ends in .toml",
            "name the folder of quota files",
        ));
    }
    found.into_iter().map(|(name, path)| read_file(name, &path)).collect()
}

fn find_files(
    base: &Path,
    folder: &Path,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    let failed = |source| Error::File { path: folder.display().to_string(), source };
    if depth > DEPTH_MAX {
        return Err(Error::invalid(
            format!("{}: too deep a folder", folder.display()),
            "put the files higher",
        ));
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            find_files(base, &path, depth + 1, found)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.strip_prefix(base).unwrap_or(&path).to_path_buf();
            add_file(name, path, found)?;
        }
    }
    Ok(())
}

fn add_file(
    name: PathBuf,
    path: PathBuf,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    let name = name.to_string_lossy().into_owned();
    match found.insert(name.clone(), path.clone()) {
        Some(other) if other != path => Err(Error::invalid(
            format!("{name} is named twice: {} and {}", other.display(), path.display()),
            "give each file a name of its own",
        )),
        _ => Ok(()),
    }
}

fn read_file(name: String, path: &Path) -> Result<v1::QuotaFile, Error> {
    let failed = |source| Error::File { path: path.display().to_string(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_MAX_BYTES {
        return Err(Error::invalid(
            format!("{}: larger than 1 MiB", path.display()),
            "split the file",
        ));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Ok(v1::QuotaFile { name, text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_of_folders_are_sorted_and_others_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["b.toml", "a.toml", "sub/c.toml", "notes.md"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let files = read_files(&[folder.path().to_path_buf()]).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.toml", "b.toml", "sub/c.toml"]);
    }

    #[test]
    fn a_folder_without_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_files(&[folder.path().to_path_buf()]).is_err());
    }

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
        };
        let root = v1::QuotaNode { path: "public".to_owned(), ..Default::default() };
        let view = QuotaView::of(&v1::QuotaTree { revision: 7, nodes: vec![root, node] });
        insta::assert_snapshot!(table(&view).render(Some(80), false), @"
        PATH        TITLE  CLASS  IN USE  GUARANTEE      LIMIT  RUNNING  PENDING
        public             -           -          -          -        0        0
        public/nup  엔업   b200       16          8         16        2        3
                           h200        0          -  unlimited
        ");
    }
}
