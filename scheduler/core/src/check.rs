//! Is this plan allowed, and does this world add up?
//!
//! Written from the invariants and sharing no code with the planner, so that one mistake is not made twice. It
//! trusts what the world says is free and held when it looks at decisions, and re-derives exactly that from jobs
//! and attempts when it looks at a world.

mod blocks;
mod channels;
mod fabric;
mod kept;
mod power;
mod preempt;
mod reckoning;
mod start;
mod terms;
mod windows;
mod world;

use std::fmt;

use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::plan::{Decision, Plan};
use crate::world::World;

use start::Shadow;

pub use reckoning::Reckoning;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it is about: a job, a node, a quota path.
    pub subject: String,
    /// What is wrong with it.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

/// Why a decision may not be committed to a world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("job {job} may not start or be stopped: {reason}")]
pub struct Refusal {
    /// The job that was to start, or to be stopped.
    pub job: JobId,
    /// What forbids it.
    pub reason: String,
}

/// Whether one decision may be committed to `world` as it is at the moment `now`.
///
/// # Errors
/// [`Refusal`] with the first thing that forbids it.
pub fn decision(world: &World, decision: &Decision, now: UnixMicros) -> Result<(), Refusal> {
    next_decision(&mut Reckoning::default(), world, decision, now)
}

/// The same for one of several that are committed one after the other, with what was reckoned for those before it.
///
/// # Errors
/// [`Refusal`] with the first thing that forbids it.
pub(crate) fn next_decision(
    reckoning: &mut Reckoning,
    world: &World,
    decision: &Decision,
    now: UnixMicros,
) -> Result<(), Refusal> {
    let (job, reasons) = judge(&mut Shadow::of(world, reckoning), decision, Some(now));
    match reasons.into_iter().next() {
        Some(reason) => Err(Refusal { job, reason }),
        None => Ok(()),
    }
}

/// Whom the decision starts or stops, and everything wrong with that.
fn judge(
    shadow: &mut Shadow<'_>,
    decision: &Decision,
    now: Option<UnixMicros>,
) -> (JobId, Vec<String>) {
    match decision {
        Decision::Start { job, placement } => (*job, shadow.start(*job, placement, now)),
        Decision::Preempt { attempt, for_job, .. } => {
            (attempt.job, shadow.preempt(*attempt, *for_job))
        }
    }
}

/// Everything wrong with committing these decisions to `world` one after the other, at whatever moment.
#[must_use]
pub fn check(world: &World, plan_decisions: &[Decision]) -> Vec<Violation> {
    violations(world, plan_decisions, None)
}

/// Everything wrong with a whole plan for `world`, at the moment it was made.
#[must_use]
pub fn plan(world: &World, plan: &Plan) -> Vec<Violation> {
    let mut found = violations(world, &plan.decisions, Some(plan.planned));
    if plan.base != world.version {
        let text = format!("made from version {}, the world is at {}", plan.base, world.version);
        found.push(Violation { subject: "plan".to_owned(), text });
    }
    for decision in &plan.decisions {
        let (job, text) = match decision {
            Decision::Start { job, .. } => (job, "both starts and waits"),
            Decision::Preempt { for_job, .. } => {
                (for_job, "others stop for it and it does not wait")
            }
        };
        let starts = matches!(decision, Decision::Start { .. });
        if plan.report.jobs.contains_key(job) == starts {
            found.push(Violation { subject: format!("job {job}"), text: text.to_owned() });
        }
    }
    found
}

/// Everything in `world` that does not follow from its jobs, attempts and nodes.
#[must_use]
pub fn world(world: &World) -> Vec<Violation> {
    world::violations(world)
}

fn violations(world: &World, decisions: &[Decision], now: Option<UnixMicros>) -> Vec<Violation> {
    let mut reckoning = Reckoning::default();
    let mut shadow = Shadow::of(world, &mut reckoning);
    let mut found = Vec::new();
    for decision in decisions {
        let (job, reasons) = judge(&mut shadow, decision, now);
        if let Decision::Preempt { attempt, .. } = decision {
            shadow.reckoning.stops(world, *attempt);
        }
        let named = |text| Violation { subject: format!("job {job}"), text };
        found.extend(reasons.into_iter().map(named));
    }
    found
}
