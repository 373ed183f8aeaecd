//! Hardware goes out of service.

use super::super::draft::Draft;
use super::super::end::{grace_of, order_stop};
use super::sign::{Sign, suspect};
use super::{blame, put};
use crate::attempt::{Cause, Stop};
use crate::change::{Change, EventKind};
use crate::health::{Repair, Response, Signal, Standing, State, breaker};
use crate::ids::AttemptId;

/// Takes out what the response says, unless too much of the hall is out already, and ends what is to fail now.
pub(super) fn respond(draft: &mut Draft<'_>, sign: &Sign<'_>, response: Response, reason: &str) {
    let Some(repair) = response.takes_out() else { return };
    if !may_go(draft, sign) {
        suspect(draft, sign, Some(repair), true, reason);
        return;
    }
    take_out(draft, sign, repair, reason);
    if response.takes_the_node() && sign.gpu.is_some() {
        take_out(draft, &Sign { gpu: None, ..*sign }, repair, reason);
    }
    match response {
        Response::Fail(_) => fail(draft, sign, reason),
        Response::FailNode(_) => fail(draft, &Sign { gpu: None, ..*sign }, reason),
        _ => {}
    }
}

/// Asks the circuit breaker. A GPU on which nothing can be computed goes in any case: jobs there would only be lost.
fn may_go(draft: &mut Draft<'_>, sign: &Sign<'_>) -> bool {
    if sign.signal.is_dead() {
        return true;
    }
    match breaker::ruling(draft.world, sign.node, &draft.policy.health, draft.now) {
        breaker::Ruling::Holds => true,
        breaker::Ruling::Broken => false,
        breaker::Ruling::Breaks(broken) => {
            let text = format!(
                "{}: {}; no more is taken out by itself until the breaker is reset",
                broken.scope, broken.reason
            );
            draft.push(Change::BreakerMoved(broken.into()));
            draft.tell_node(sign.node, EventKind::BreakerBroke, text);
            false
        }
    }
}

fn take_out(draft: &mut Draft<'_>, sign: &Sign<'_>, repair: Repair, reason: &str) {
    let Some(known) = draft.world.nodes.get(sign.node) else { return };
    let before = known.health.state(sign.gpu);
    let repair = match before {
        State::Ok | State::Suspect { .. } => repair,
        // What the driver itself wants done stands above all rules.
        State::Out { .. } if is_of_the_driver(sign.signal) => repair,
        State::Out { repair: before } if before >= repair => return,
        State::Out { .. } => repair,
        // What was done did not help.
        State::Verifying => Repair::Service,
    };
    if before == (State::Out { repair }) {
        return;
    }
    stand(draft, sign, State::Out { repair }, reason);
    let what = if sign.gpu.is_some() { "GPU" } else { "node" };
    let text = format!("{what} out for {}: {reason}", repair.word());
    draft.tell_node(sign.node, EventKind::HardwareOut, text);
}

fn is_of_the_driver(signal: Signal) -> bool {
    matches!(signal, Signal::Condition(condition) if condition.is_recovery())
}

/// Writes down how the GPU of a sign, or its node, stands from now on.
pub(super) fn stand(draft: &mut Draft<'_>, sign: &Sign<'_>, state: State, reason: &str) {
    let (since, signal, reason) = (draft.now, Some(sign.signal), reason.to_owned());
    put(draft, sign.node, sign.gpu, Standing { state, since, signal, reason, passed: None });
}

/// Tells what has the GPU, or runs on the node, to stop: the hardware is the cause.
fn fail(draft: &mut Draft<'_>, sign: &Sign<'_>, reason: &str) {
    let Some(known) = draft.world.nodes.get(sign.node) else { return };
    let attempts = blame::attempts_on(draft.world, known, sign.gpu);
    blame::note(draft, &Sign { attempts: Some(&attempts), ..*sign }, reason);
    for id in attempts {
        stop(draft, id, format!("{}: {reason}", sign.node));
    }
}

fn stop(draft: &mut Draft<'_>, id: AttemptId, reason: String) {
    let Some(attempt) = draft.world.attempts.get(&id) else { return };
    let grace_s = grace_of(draft, attempt);
    order_stop(draft, id, Stop { cause: Cause::Hardware, reason, exit: None, grace_s });
}
