//! How jobs stand towards guarantees and shares as a pass left them, found when somebody asks: a hundred thousand jobs
//! wait, and people look at a few.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use super::fair::{Demand, Fair};
use super::fit::Machine;
use super::score::ClassIndex;
use super::standing::Standings;
use crate::ids::{GpuClass, ProjectPath};
use crate::plan::Blocker;
use crate::quota::entitle::NodeIndex;
use crate::spec::JobSpec;

/// Whom fair share puts behind others, by project and the class its jobs want; `None`: any.
type Turns = BTreeMap<(ProjectPath, Option<GpuClass>), Blocker>;

/// What a pass left of guarantees and shares.
#[derive(Default)]
pub struct Shares(Option<Box<Left>>);

struct Left {
    fair: Fair,
    classes: Vec<GpuClass>,
    /// Who waited for what.
    waiting: Vec<(NodeIndex, Option<ClassIndex>)>,
    /// Found once asked for.
    turns: OnceLock<Turns>,
}

impl Shares {
    /// What is left, where these waited.
    pub(super) fn of(fair: Fair, machine: &Machine<'_>, demands: &[Demand]) -> Self {
        let (classes, waiting) = (machine.classes.clone(), Demand::of_gpus(demands));
        Shares(Some(Box::new(Left { fair, classes, waiting, turns: OnceLock::new() })))
    }

    /// Whom fair share puts before the jobs of a project that want a class; `None`: any class.
    #[must_use]
    pub fn turn(&self, project: &ProjectPath, class: Option<&GpuClass>) -> Option<Blocker> {
        self.turns()?.get(&(project.clone(), class.cloned())).cloned()
    }

    /// In which tier such a job competes, and who has what it is guaranteed; `None` where nobody is guaranteed anything
    /// or it asks for no GPUs.
    #[must_use]
    pub fn standing(&self, spec: &JobSpec) -> Option<Blocker> {
        let left = self.0.as_ref().filter(|left| left.fair.has_tiers)?;
        let gpus = spec.total_gpus();
        if gpus.is_zero() {
            return None;
        }
        let asked = spec.per_node.gpus.class();
        let serves = |class: &ClassIndex| {
            asked.is_none_or(|asked| left.classes.get(usize::from(class.0)) == Some(asked))
        };
        let classes = left.fair.class_indexes().filter(serves);
        Standings::of(&left.fair, &left.classes).find(&spec.project, classes, gpus)
    }

    fn turns(&self) -> Option<&Turns> {
        let left = self.0.as_ref()?;
        Some(left.turns.get_or_init(|| left.fair.turns(&left.classes, &left.waiting)))
    }
}

impl PartialEq for Shares {
    fn eq(&self, other: &Self) -> bool {
        let held = |of: &Self| of.0.as_ref().map(|left| left.fair.all_guaranteed());
        self.turns() == other.turns() && held(self) == held(other)
    }
}

impl Eq for Shares {}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shares").field(&self.turns()).finish()
    }
}
