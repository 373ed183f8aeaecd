//! What is moved in from Slurm: quota files, and what became of every association.

use std::collections::BTreeMap;
use std::path::Path;

use gotgan_core::ids::ProjectPath;
use gotgan_core::quota::import::{Imported, VerdictKind, import, read_dump, read_usage};

use crate::fault::ScenarioFault;
use crate::scenario::{MovedVerdict, SlurmFiles};
use crate::setup::{QuotaTexts, SetupError, read_text};

/// What a dump and a list of jobs became.
#[derive(Debug, Clone, Default)]
pub struct MovedIn {
    /// One an association.
    verdicts: Vec<VerdictKind>,
    /// GPU-seconds by node of the tree.
    used: BTreeMap<ProjectPath, u128>,
}

impl MovedIn {
    /// Reads what Slurm wrote; the quota files that it makes, and what became of its parts.
    ///
    /// # Errors
    /// [`SetupError`] for what cannot be read.
    pub fn read(files: &SlurmFiles, folder: &Path) -> Result<(QuotaTexts, Self), SetupError> {
        let dump = read_text(&folder.join(&files.dump))?;
        let (_, associations) =
            read_dump(&dump).map_err(|fault| told(&files.dump, fault.line, &fault.what))?;
        let imported = import(&files.root, &associations);
        let mut moved = MovedIn {
            verdicts: imported.verdicts.iter().map(|verdict| verdict.kind).collect(),
            ..MovedIn::default()
        };
        if let Some(usage) = &files.usage {
            moved.read_usage(usage, folder, &imported)?;
        }
        Ok((imported.files.into_iter().collect(), moved))
    }

    fn read_usage(
        &mut self,
        usage: &str,
        folder: &Path,
        imported: &Imported,
    ) -> Result<(), SetupError> {
        let text = read_text(&folder.join(usage))?;
        let totals = read_usage(&text).map_err(|fault| told(usage, fault.line, &fault.what))?;
        for (account, seconds) in totals.by_account {
            let Some(path) = imported.accounts.get(&account) else {
                return Err(told(usage, 0, &format!("the dump has no account {account}")));
            };
            *self.used.entry(path.clone()).or_default() += seconds;
        }
        Ok(())
    }

    /// Associations of which this became, or all.
    #[must_use]
    pub fn associations(&self, verdict: Option<MovedVerdict>) -> usize {
        let wanted = verdict.map(|verdict| match verdict {
            MovedVerdict::Taken => VerdictKind::Taken,
            MovedVerdict::Mapped => VerdictKind::Mapped,
            MovedVerdict::Refused => VerdictKind::Refused,
        });
        let is_wanted = |kind: &&VerdictKind| wanted.is_none_or(|wanted| **kind == wanted);
        self.verdicts.iter().filter(is_wanted).count()
    }

    /// GPU-seconds of the accounts at and below a node.
    #[must_use]
    pub fn used(&self, node: &ProjectPath) -> u128 {
        let below = self.used.iter().filter(|(path, _)| path.is_within(node.as_str()));
        below.map(|(_, seconds)| seconds).sum()
    }
}

fn told(file: &str, line: usize, what: &str) -> SetupError {
    let (file, key, message) = (file.to_owned(), String::new(), what.to_owned());
    SetupError::Faults(vec![ScenarioFault { file, line, key, message }])
}
