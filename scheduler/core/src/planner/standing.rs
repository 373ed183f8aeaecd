//! In which tier a job competes, who has what its project is guaranteed, and whom fair share puts before it.

use std::collections::BTreeMap;

use super::burden::Behind;
use super::fair::{Borrower, Fair, Tier};
use super::score::ClassIndex;
use crate::amount::GpuMilli;
use crate::fairshare::Part;
use crate::ids::{GpuClass, ProjectPath};
use crate::plan::{Blocker, BlockerKind, Unit};

/// What a blocker calls the better tier.
pub(crate) const GUARANTEED: &str = "guaranteed";

/// What a blocker calls the tier of scavengers.
pub(crate) const SCAVENGER: &str = "scavenger";

/// What a blocker calls the other one.
const BORROWED: &str = "borrowed";

/// What fair share says of a node and of the others on its level.
pub(super) fn behind_others(path: &ProjectPath, behind: Behind) -> Blocker {
    let per_mille = |part: Part| part.0.saturating_mul(1000) / Part::WHOLE.0;
    Blocker {
        kind: BlockerKind::FairShare,
        subject: path.to_string(),
        needed: 0,
        available: per_mille(behind.used),
        limit: per_mille(behind.share),
        unit: Unit::PerMille,
        note: behind.ahead.to_string(),
    }
}

/// Standings by what is held at the end of the pass.
#[derive(Debug)]
pub(super) struct Standings<'a> {
    fair: &'a Fair,
    /// Names of classes.
    classes: &'a [GpuClass],
    borrowers: BTreeMap<ClassIndex, Option<Borrower>>,
}

impl<'a> Standings<'a> {
    /// Standings by what `fair` says is held and due of these classes.
    pub fn of(fair: &'a Fair, classes: &'a [GpuClass]) -> Self {
        Standings { fair, classes, borrowers: BTreeMap::new() }
    }

    /// How a job of that project stands in the best of the classes it may have; `None` if there is nothing to say,
    /// for one that asks no GPUs or whose project is not in the tree.
    pub fn find(
        &mut self,
        project: &ProjectPath,
        classes: impl Iterator<Item = ClassIndex>,
        gpus: GpuMilli,
    ) -> Option<Blocker> {
        let node = self.fair.find(project)?;
        let (tier, class) =
            classes.map(|class| (self.fair.tier(node, class, gpus), class)).min()?;
        let (guarantee, held) = self.fair.guaranteed(node, class);
        let name = &self.classes[usize::from(class.0)];
        let unit = Unit::GpuMilli;
        if let (Tier::Guaranteed, Some(borrower)) = (tier, self.borrower(class)) {
            return Some(Blocker {
                kind: BlockerKind::Lent,
                subject: borrower.path.to_string(),
                needed: gpus.0,
                available: 0,
                limit: borrower.excess.0,
                unit,
                note: format!("{name} {project} {}", borrower.others),
            });
        }
        let word = match tier {
            Tier::Guaranteed => GUARANTEED,
            Tier::Borrowed | Tier::Overuse | Tier::Scavenger => BORROWED,
        };
        Some(Blocker {
            kind: BlockerKind::Tier,
            subject: project.to_string(),
            needed: gpus.0,
            available: guarantee.saturating_sub(held).0,
            limit: guarantee.0,
            unit,
            note: format!("{word} {name}"),
        })
    }

    fn borrower(&mut self, class: ClassIndex) -> Option<&Borrower> {
        let fair = self.fair;
        self.borrowers.entry(class).or_insert_with(|| fair.borrower(class)).as_ref()
    }
}
