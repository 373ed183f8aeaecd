//! What a worker says must not take the scheduler down, not even by a fault of the scheduler's own. If drafting what it
//! said panics, the round is lost and the world is rebuilt from the store; what it was about is laid aside, so that the
//! same words, which are sent again, do no more harm: the attempt ends on the node as lost, its job is held, and the node
//! takes no new work until a person has looked.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};

use gotgan_core::attempt::Cause;
use gotgan_core::ids::{AttemptId, NodeName, UserName};
use gotgan_core::lifecycle::{self, Action, Actor, Draft, MemberEvent, Report};

/// Things that are laid aside are remembered; the oldest of more are forgotten.
const ASIDE_MAX: usize = 4_096;

/// Whose words a command follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The scheduler's own, or a person's.
    Own,
    /// A worker's, about one of its attempts or about its node.
    Worker {
        /// Which.
        node: NodeName,
        /// About which attempt.
        attempt: Option<AttemptId>,
    },
}

/// What is done to lay something aside, each in a round of its own: the second may fail as the words did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Measure {
    /// No new work there.
    Drain(NodeName, String),
    /// It has ended there, and is not tried again by itself.
    End(NodeName, AttemptId, String),
}

/// What is laid aside.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    aside: BTreeSet<Origin>,
    order: VecDeque<Origin>,
    measures: VecDeque<Measure>,
}

impl Quarantine {
    /// Whether these words are not listened to any more.
    pub(super) fn has(&self, origin: &Origin) -> bool {
        *origin != Origin::Own && self.aside.contains(origin)
    }

    /// Lays it aside, once.
    pub(super) fn lay_aside(&mut self, origin: &Origin, why: &str) {
        let Origin::Worker { node, attempt } = origin else { return };
        if !self.aside.insert(origin.clone()) {
            return;
        }
        self.order.push_back(origin.clone());
        if self.order.len() > ASIDE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.aside.remove(&oldest);
        }
        let reason = format!("what its worker said made the scheduler fail: {why}");
        self.measures.push_back(Measure::Drain(node.clone(), reason.clone()));
        if let Some(attempt) = attempt {
            self.measures.push_back(Measure::End(node.clone(), *attempt, reason));
        }
    }

    /// What is to be done in the next round.
    pub(super) fn next(&mut self) -> Option<Measure> {
        self.measures.pop_front()
    }

    /// Whether there is something to do.
    pub(super) fn is_due(&self) -> bool {
        !self.measures.is_empty()
    }

    /// After the round with the measure was not committed.
    pub(super) fn again(&mut self, measure: Measure) {
        self.measures.push_front(measure);
    }
}

impl Measure {
    /// Drafts it.
    pub(super) fn draft(&self, draft: &mut Draft<'_>) {
        let by = UserName::scheduler();
        match self {
            Measure::Drain(node, reason) => {
                lifecycle::drain(draft, node, &by, reason);
            }
            Measure::End(node, attempt, reason) => {
                end(draft, node, *attempt, reason);
                let actor = Actor { name: by, for_site: true };
                // A job that goes on elsewhere, or has ended, is not held.
                let _ = lifecycle::act(draft, attempt.job, Action::Hold, &actor, reason);
            }
        }
    }

    /// Whose stream is to end: it registers anew, and is told to end what it still runs.
    pub(super) fn node(&self) -> &NodeName {
        match self {
            Measure::Drain(node, _) | Measure::End(node, _, _) => node,
        }
    }
}

/// As if the worker had told that it is gone.
fn end(draft: &mut Draft<'_>, node: &NodeName, id: AttemptId, reason: &str) {
    let attempt = draft.world.attempts.get(&id);
    let member = attempt.and_then(|attempt| attempt.members.get(attempt.rank_of(node)?));
    let Some(member) = member else { return };
    let (seq, at, reason) = (member.last_seq + 1, draft.now, reason.to_owned());
    let event = MemberEvent::Ended { cause: Cause::Node, reason, exit: None };
    lifecycle::fold(draft, &Report { node: node.clone(), attempt: id, seq, at, event });
}

/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no words".to_owned()).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_core::ids::JobId;

    use super::*;

    #[test]
    fn the_same_words_are_laid_aside_once_and_people_never_are() {
        let mut quarantine = Quarantine::default();
        quarantine.lay_aside(&Origin::Own, "x");
        assert!(!quarantine.is_due() && !quarantine.has(&Origin::Own));
        let attempt = Some(AttemptId { job: JobId(1), number: 1 });
        let origin = Origin::Worker { node: NodeName::new("n1").unwrap(), attempt };
        quarantine.lay_aside(&origin, "x");
        quarantine.lay_aside(&origin, "x");
        assert!(quarantine.has(&origin));
        assert!(matches!(quarantine.next(), Some(Measure::Drain(..))));
        assert!(matches!(quarantine.next(), Some(Measure::End(..))));
        assert_eq!(quarantine.next(), None);
    }
}
