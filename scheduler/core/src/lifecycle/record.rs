//! Committing a plan: every decision that still holds, and what is written down of the order of its starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::Draft;
use super::start::commit_each;
use crate::change::{Change, PassRecord};
use crate::check::Refusal;
use crate::ids::{AttemptId, JobId};
use crate::plan::{Decision, Plan};
use crate::precedence::PassTurns;

/// Commits the decisions of a plan one by one, with the record of those that start something. What the present world no
/// longer allows is answered, and left for the next pass.
pub fn commit_plan(draft: &mut Draft<'_>, plan: &Plan) -> Vec<Refusal> {
    let (mut refused, mut started) = (Vec::new(), BTreeMap::new());
    for (result, decision) in commit_each(draft, &plan.decisions).into_iter().zip(&plan.decisions) {
        match (result, decision) {
            (Ok(()), Decision::Start { job, .. }) => {
                started.extend(attempt_of(draft, *job).map(|attempt| (*job, attempt)));
            }
            (Ok(()), Decision::Preempt { .. }) => {}
            (Err(refusal), _) => refused.push(refusal),
        }
    }
    if let Some(turns) = plan.turns.as_ref().filter(|_| !started.is_empty()) {
        record(draft, turns, &started);
    }
    refused
}

fn attempt_of(draft: &Draft<'_>, job: JobId) -> Option<AttemptId> {
    let number = draft.world.jobs.get(&job)?.status.attempt;
    Some(AttemptId { job, number })
}

/// What was refused is no start; it counted for those behind it all the same, and stays among what the pass gave.
fn record(draft: &mut Draft<'_>, turns: &PassTurns, started: &BTreeMap<JobId, AttemptId>) {
    let starts = turns.starts.iter();
    let starts = starts.filter_map(|start| Some((*started.get(&start.job)?, start.clone())));
    let record = PassRecord {
        number: draft.world.sequences.next_pass,
        epoch: draft.epoch,
        sheet: turns.sheet.clone(),
        starts: starts.collect(),
    };
    draft.push(Change::PassRecorded(Arc::new(record)));
}
