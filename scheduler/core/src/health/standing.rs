//! How a GPU, or a node as a whole, stands; kept in the store with the node.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::lemon::Mark;
use super::{Condition, Repair, Signal};
use crate::amount::UnixMicros;
use crate::ids::{AttemptId, GpuUuid, UserName};
use crate::mig::CutPlan;

/// Where hardware stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Sound, as far as anybody knows.
    #[default]
    Ok,
    /// It takes work and is watched.
    Suspect {
        /// What is to be done once nothing is on it.
        repair: Option<Repair>,
        /// It would be out if too much of its hall were not out already.
        held_back: bool,
    },
    /// It takes no new work. While something runs on it, it is said to be draining.
    Out {
        /// What is to be done before it can come back.
        repair: Repair,
    },
    /// Something was done about it; it takes no work until it has been well for a while.
    Verifying,
}

impl State {
    /// Whether new work may be placed on it.
    #[must_use]
    pub fn takes_work(self) -> bool {
        match self {
            State::Ok | State::Suspect { .. } => true,
            State::Out { .. } | State::Verifying => false,
        }
    }
}

/// How hardware stands, why, and since when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where.
    pub state: State,
    /// Since when.
    pub since: UnixMicros,
    /// The sign that brought it there.
    pub signal: Option<Signal>,
    /// In words, for a person; empty if it is sound.
    pub reason: String,
    /// Since when it was verified when it passed the site's check last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<UnixMicros>,
}

impl Standing {
    /// Whether it is out.
    #[must_use]
    pub fn is_out(&self) -> bool {
        matches!(self.state, State::Out { .. })
    }

    /// Whether it is being verified, and has not passed the site's check since that began.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.state == State::Verifying && self.passed != Some(self.since)
    }
}

/// A GPU about which there is something to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuHealth {
    /// How it stands.
    pub standing: Standing,
    /// What lasts, and since when.
    pub conditions: BTreeMap<Condition, UnixMicros>,
    /// Jobs that failed on it by their own doing lately.
    pub complaints: Vec<Complaint>,
}

impl GpuHealth {
    /// Whether there is nothing to say any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.standing.state == State::Ok && self.conditions.is_empty() && self.complaints.is_empty()
    }
}

/// A job that failed on a GPU, by the driver's word by its own doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// When.
    pub at: UnixMicros,
    /// Whose job.
    pub user: UserName,
}

/// Hardware under an attempt went wrong: a failure soon after is put down to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// Which attempt.
    pub attempt: AttemptId,
    /// When.
    pub at: UnixMicros,
    /// What went wrong, in words.
    pub reason: String,
}

/// Which findings of a worker were taken in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Name of the worker's journal.
    pub id: String,
    /// Number of the last finding in it.
    pub seq: u64,
}

/// What is known of the health of a node and its GPUs; of most nodes, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// How the node as a whole stands.
    pub node: Standing,
    /// GPUs about which there is something to say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpus: BTreeMap<GpuUuid, GpuHealth>,
    /// GPUs that it had and has no longer.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<GpuUuid>,
    /// Attempts whose hardware went wrong lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blamed: Vec<Blame>,
    /// Which findings were taken in.
    #[serde(default)]
    pub journal: Journal,
    /// GPUs that are to be cut anew, and into what.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cuts: BTreeMap<GpuUuid, CutPlan>,
    /// What failed on it of late without a sign of the hardware; see [`super::lemon`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
}

impl NodeHealth {
    /// How a GPU stands.
    #[must_use]
    pub fn gpu(&self, uuid: &GpuUuid) -> State {
        self.state(Some(uuid))
    }

    /// How a GPU stands, or without one the node as a whole; `None` if there is nothing to say of the GPU.
    #[must_use]
    pub fn standing(&self, gpu: Option<&GpuUuid>) -> Option<&Standing> {
        match gpu {
            Some(uuid) => self.gpus.get(uuid).map(|gpu| &gpu.standing),
            None => Some(&self.node),
        }
    }

    /// Where a GPU stands, or without one the node as a whole.
    #[must_use]
    pub fn state(&self, gpu: Option<&GpuUuid>) -> State {
        self.standing(gpu).map_or(State::Ok, |standing| standing.state)
    }

    /// The node as a whole (`None`), and its GPUs about which there is something to say.
    pub fn places(&self) -> impl Iterator<Item = Option<&GpuUuid>> {
        std::iter::once(None).chain(self.gpus.keys().map(Some))
    }

    /// Whether any of its GPUs has this now.
    #[must_use]
    pub fn has(&self, condition: Condition) -> bool {
        self.gpus.values().any(|gpu| gpu.conditions.contains_key(&condition))
    }

    /// Whether a GPU may be given out: it is not out, and not to be cut anew.
    #[must_use]
    pub fn offers(&self, uuid: &GpuUuid) -> bool {
        self.gpu(uuid).takes_work() && !self.cuts.contains_key(uuid)
    }

    /// Why a GPU is not given out, in words; empty if it is.
    #[must_use]
    pub fn why_not_offered(&self, uuid: &GpuUuid) -> String {
        match (self.gpus.get(uuid), self.cuts.get(uuid)) {
            (Some(gpu), _) if !gpu.standing.state.takes_work() => gpu.standing.reason.clone(),
            (_, Some(CutPlan { failed: Some(why), .. })) => why.clone(),
            (_, Some(plan)) => format!("to be {} (by {})", plan.words(), plan.by),
            (Some(_) | None, None) => String::new(),
        }
    }

    /// Why the node as a whole takes no work; `None` if that is not for its health.
    #[must_use]
    pub fn why_no_work(&self) -> Option<String> {
        let Standing { state, reason, .. } = &self.node;
        match state {
            State::Ok | State::Suspect { .. } => None,
            State::Out { repair } => Some(format!("out for {}: {reason}", repair.word())),
            State::Verifying => Some(format!("being verified: {reason}")),
        }
    }

    /// What went wrong under the attempt, not longer ago than `within_s`.
    #[must_use]
    pub fn blame_of(&self, attempt: AttemptId, now: UnixMicros, within_s: i64) -> Option<&Blame> {
        let recent = |blame: &&Blame| now.millis_since(blame.at) <= within_s.saturating_mul(1000);
        self.blamed.iter().filter(|blame| blame.attempt == attempt).find(recent)
    }

    /// Every standing of it, the node's own first.
    pub fn standings(&self) -> impl Iterator<Item = &Standing> {
        std::iter::once(&self.node).chain(self.gpus.values().map(|gpu| &gpu.standing))
    }

    /// When its hardware, or the first of it, went out; `None` if nothing is out.
    #[must_use]
    pub fn out_since(&self) -> Option<UnixMicros> {
        self.standings().filter(|standing| standing.is_out()).map(|standing| standing.since).min()
    }

    /// Whether any of it is being verified.
    #[must_use]
    pub fn is_verifying(&self) -> bool {
        self.standings().any(|standing| standing.state == State::Verifying)
    }
}
