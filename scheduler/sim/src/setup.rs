//! Reading a scenario: the file and the quota files it names, checked against itself before anything runs.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gotgan_core::policy::Policy;

use crate::books::Books;
use crate::fault::{ScenarioFault, Source};
use crate::moving::MovedIn;
use crate::scenario::{
    AcceptFile, ApplyFile, ClusterFile, EventAction, EventFile, ExpectFile, QuotaFiles,
    ScenarioFile, StreamFile, WorkerPace,
};
use crate::units::Moment;

/// A scenario that can be run.
#[derive(Debug)]
pub struct Setup {
    /// One line for the report.
    pub title: String,
    /// The first moment.
    pub from: Moment,
    /// The last moment.
    pub until: Moment,
    /// What draws begin with.
    pub seed: u64,
    /// Numbers of the site.
    pub policy: Arc<Policy>,
    /// How fast workers are.
    pub pace: WorkerPace,
    /// What there is.
    pub clusters: Vec<ClusterFile>,
    /// Jobs that come by a rule.
    pub streams: Vec<StreamFile>,
    /// What happens, in the order of the file.
    pub events: Vec<EventFile>,
    /// What must come of it.
    pub expects: Vec<ExpectFile>,
    /// Quota books of the run.
    pub books: Books,
    /// What was moved in from Slurm: at the beginning, and by the place of the event.
    pub moved: (MovedIn, BTreeMap<usize, MovedIn>),
    /// Events that the counterfactual leaves out, with its quota books, if there is one.
    pub counterfactual: Option<(BTreeSet<usize>, Books)>,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something is wrong with what the files say; all of it that could be found at once.
    #[error("{} faults", .0.len())]
    Faults(Vec<ScenarioFault>),
}

/// What the quota files of a folder are told by.
const QUOTA_SUFFIX: &str = "toml";

/// Texts of quota files, by name.
pub type QuotaTexts = BTreeMap<String, String>;

/// A change of the quota book, in the order of the file.
#[derive(Debug)]
pub enum BookStep<'a> {
    /// Files are applied.
    Apply {
        /// Which.
        texts: QuotaTexts,
        /// Whether they replace all that was there.
        replaces: bool,
        /// How.
        apply: &'a ApplyFile,
    },
    /// Files are looked at; true if they would replace all that is there. What must be said of them.
    Plan(QuotaTexts, bool, &'a [String]),
    /// A batch is accepted.
    Accept(&'a AcceptFile),
}

/// Reads the scenario in the file at `path`.
///
/// # Errors
/// [`SetupError`]
pub fn read(path: &Path) -> Result<Setup, SetupError> {
    let text = read_text(path)?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    let source = Source { name: &name, text: &text };
    let file = parse(&name, &text)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let setup = assemble(file, folder)?;
    let faults = check::unknown_nodes(&setup, source);
    if faults.is_empty() { Ok(setup) } else { Err(SetupError::Faults(faults)) }
}

/// Reads the text of a scenario, without the files that it names; `name` is for faults.
///
/// # Errors
/// [`SetupError::Faults`]
pub fn parse(name: &str, text: &str) -> Result<ScenarioFile, SetupError> {
    let source = Source { name, text };
    let file: ScenarioFile = toml::from_str(text)
        .map_err(|error| SetupError::Faults(vec![source.unreadable(&error)]))?;
    let faults = check::faults(&file, source);
    if faults.is_empty() { Ok(file) } else { Err(SetupError::Faults(faults)) }
}

fn assemble(file: ScenarioFile, folder: &Path) -> Result<Setup, SetupError> {
    let (first, moved_first) = read_quota(&file.quota, folder)?;
    let mut moved = (moved_first.unwrap_or_default(), BTreeMap::new());
    let events: Vec<EventFile> = file.event.into_iter().map(toml::Spanned::into_inner).collect();
    let mut steps = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        if let Some((step, moved_in)) = book_step(&event.action, folder)? {
            steps.insert((event.at, index), step);
            moved.1.extend(moved_in.map(|moved_in| (index, moved_in)));
        }
    }
    let none = BTreeSet::new();
    let books = Books::of(&first, &steps, &none).map_err(SetupError::Faults)?;
    let counterfactual = match file.compare {
        None => None,
        Some(compare) => {
            let left_out = left_out(&events, &compare.without);
            let books = Books::of(&first, &steps, &left_out).map_err(SetupError::Faults)?;
            Some((left_out, books))
        }
    };
    Ok(Setup {
        title: file.title,
        from: file.from,
        until: file.until,
        seed: file.seed,
        policy: Arc::new(file.policy),
        pace: file.worker,
        clusters: file.cluster,
        streams: file.stream.into_iter().map(toml::Spanned::into_inner).collect(),
        expects: file.expect.into_iter().map(toml::Spanned::into_inner).collect(),
        books,
        moved,
        counterfactual,
        events,
    })
}

fn left_out(events: &[EventFile], names: &[String]) -> BTreeSet<usize> {
    let named = |event: &EventFile| event.name.as_ref().is_some_and(|name| names.contains(name));
    events.iter().enumerate().filter(|(_, event)| named(event)).map(|(index, _)| index).collect()
}

fn book_step<'a>(
    action: &'a EventAction,
    folder: &Path,
) -> Result<Option<(BookStep<'a>, Option<MovedIn>)>, SetupError> {
    Ok(match action {
        EventAction::Apply(apply) => {
            let replaces = apply.quota.folder.is_some();
            let (texts, moved) = read_quota(&apply.quota, folder)?;
            Some((BookStep::Apply { texts, replaces, apply }, moved))
        }
        EventAction::Plan(plan) => {
            let replaces = plan.quota.folder.is_some();
            let (texts, _) = read_quota(&plan.quota, folder)?;
            Some((BookStep::Plan(texts, replaces, &plan.refused), None))
        }
        EventAction::Accept(accept) => Some((BookStep::Accept(accept), None)),
        EventAction::Submit(_)
        | EventAction::Cancel(_)
        | EventAction::Lose(_)
        | EventAction::Return(_)
        | EventAction::Drain(_)
        | EventAction::Resume(_)
        | EventAction::Maintain(_)
        | EventAction::Restart => None,
    })
}

/// The texts of all files that are named, and what was moved in from Slurm.
fn read_quota(
    files: &QuotaFiles,
    folder: &Path,
) -> Result<(QuotaTexts, Option<MovedIn>), SetupError> {
    let mut paths = Vec::new();
    if let Some(below) = &files.folder {
        let below = folder.join(below);
        let unreadable = |source| SetupError::Unreadable { path: below.clone(), source };
        for entry in std::fs::read_dir(&below).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|suffix| suffix == QUOTA_SUFFIX) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.extend(files.files.iter().map(|file| folder.join(file)));
    let mut texts = QuotaTexts::new();
    for path in paths {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
        texts.insert(name, read_text(&path)?);
    }
    texts.extend(files.text.clone());
    let moved = files.slurm.as_ref().map(|slurm| MovedIn::read(slurm, folder)).transpose()?;
    let Some((made, moved)) = moved else { return Ok((texts, None)) };
    texts.extend(made);
    Ok((texts, Some(moved)))
}

/// The text of a file.
///
/// # Errors
/// [`SetupError::Unreadable`]
pub(crate) fn read_text(path: &Path) -> Result<String, SetupError> {
    let unreadable = |source| SetupError::Unreadable { path: path.to_owned(), source };
    std::fs::read_to_string(path).map_err(unreadable)
}
