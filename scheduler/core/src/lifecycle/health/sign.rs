//! One sign of bad health, and what the rules call for.

use std::collections::BTreeSet;

use super::super::draft::Draft;
use super::{blame, change, long_ago, name_of, take_out};
use crate::change::EventKind;
use crate::health::{Complaint, Condition, Repair, Response, Signal, State};
use crate::ids::{AttemptId, GpuUuid, NodeName, UserName};

/// One sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign<'s> {
    pub node: &'s NodeName,
    /// The GPU it is about; `None`: the node.
    pub gpu: Option<&'s GpuUuid>,
    pub signal: Signal,
    /// In words; may be empty.
    pub detail: &'s str,
    /// Attempts that had it; `None`: those that have it now.
    pub attempts: Option<&'s [AttemptId]>,
}

impl<'s> Sign<'s> {
    /// That something lasts on a GPU.
    pub fn lasting(node: &'s NodeName, gpu: &'s GpuUuid, condition: Condition) -> Self {
        let signal = Signal::Condition(condition);
        Sign { node, gpu: Some(gpu), signal, detail: "", attempts: None }
    }

    /// Whether it says what it is about: an error of the driver should name a GPU, and does not always.
    fn knows_its_hardware(&self) -> bool {
        self.gpu.is_some() || !matches!(self.signal, Signal::Xid(_) | Signal::UncorrectedErrors)
    }
}

/// Tells the sign and does what the rules call for.
pub(super) fn take_in(draft: &mut Draft<'_>, sign: &Sign<'_>) {
    let (response, reason) = judge(draft, sign);
    let told = format!("{reason}; {}", response.text());
    draft.tell_node(sign.node, EventKind::HardwareSign, told);
    respond(draft, sign, response, &reason);
}

/// What the rules call for, and what is wrong in words.
pub(super) fn judge(draft: &Draft<'_>, sign: &Sign<'_>) -> (Response, String) {
    let rule = draft.policy.health.rules.of(sign.signal);
    let response = match sign.knows_its_hardware() {
        true => rule.response,
        false => of_unknown_gpu(rule.response),
    };
    (response, reason(draft, sign, &rule.why))
}

/// What is wrong, in words.
fn reason(draft: &Draft<'_>, sign: &Sign<'_>, why: &str) -> String {
    let name = name_of(draft, sign.node, sign.gpu);
    let number = match sign.signal {
        Signal::Xid(number) => format!(" Xid {number}:"),
        Signal::UncorrectedErrors | Signal::Condition(_) | Signal::MissingGpus | Signal::Lemon => {
            String::new()
        }
    };
    let detail = if sign.detail.is_empty() { String::new() } else { format!(" ({})", sign.detail) };
    format!("{name}:{number} {why}{detail}")
}

/// What an error calls for of which nobody knows the GPU: its node takes no new work where it would take a GPU out, but
/// nobody's job is ended or blamed on it.
fn of_unknown_gpu(response: Response) -> Response {
    match response.takes_out() {
        Some(repair) => Response::DrainNode(repair),
        None => match response {
            Response::Lost | Response::ResetWhenIdle | Response::Watch => Response::Ticket,
            other => other,
        },
    }
}

/// Does what a sign calls for.
pub(super) fn respond(draft: &mut Draft<'_>, sign: &Sign<'_>, response: Response, reason: &str) {
    if sign.knows_its_hardware() && response.hardware_pays() {
        blame::note(draft, sign, reason);
    }
    match response {
        Response::Log => {}
        Response::Job => complain(draft, sign),
        Response::Ticket | Response::Watch => suspect(draft, sign, None, false, reason),
        Response::ResetWhenIdle | Response::Lost => {
            suspect(draft, sign, Some(Repair::Reset), false, reason);
        }
        Response::Drain(_) | Response::Fail(_) | Response::DrainNode(_) | Response::FailNode(_) => {
            take_out::respond(draft, sign, response, reason);
        }
    }
}

/// It is watched from now on, unless it is out or was watched for more.
pub(super) fn suspect(
    draft: &mut Draft<'_>,
    sign: &Sign<'_>,
    repair: Option<Repair>,
    held_back: bool,
    reason: &str,
) {
    let Some(known) = draft.world.nodes.get(sign.node) else { return };
    let before = known.health.state(sign.gpu);
    let wanted = match before {
        State::Out { .. } | State::Verifying => return,
        State::Ok => State::Suspect { repair, held_back },
        State::Suspect { repair: before, held_back: held } => {
            State::Suspect { repair: repair.max(before), held_back: held_back || held }
        }
    };
    if wanted == before {
        return;
    }
    take_out::stand(draft, sign, wanted, reason);
    let after = match (repair, held_back) {
        (_, true) => "too much is out already, so it stays",
        (Some(_), false) => "to be reset when idle",
        (None, false) => "watched",
    };
    draft.tell_node(sign.node, EventKind::HardwareSuspect, format!("{reason}; {after}"));
}

/// A job failed on it by its own doing. Where jobs of several users do, it may be the GPU after all.
fn complain(draft: &mut Draft<'_>, sign: &Sign<'_>) {
    let Some(gpu) = sign.gpu else { return };
    let users = users_of(draft, sign.attempts.unwrap_or_default());
    let (now, within_s) = (draft.now, draft.policy.health.complaints_s);
    let long_ago = long_ago(now, within_s);
    let mut all = BTreeSet::new();
    change(draft, sign.node, |health| {
        let complaints = &mut health.gpus.entry(gpu.clone()).or_default().complaints;
        complaints.retain(|complaint| complaint.at > long_ago && !users.contains(&complaint.user));
        complaints.extend(users.iter().map(|user| Complaint { at: now, user: user.clone() }));
        all = complaints.iter().map(|complaint| complaint.user.clone()).collect();
    });
    if all.len() >= 2 {
        let name = name_of(draft, sign.node, sign.gpu);
        let reason = format!(
            "{name}: programs of {} users failed on it within {} h as if by their own doing",
            all.len(),
            within_s / 3600
        );
        suspect(draft, sign, None, false, &reason);
    }
}

fn users_of(draft: &Draft<'_>, attempts: &[AttemptId]) -> BTreeSet<UserName> {
    let jobs = attempts.iter().filter_map(|id| draft.world.jobs.get(&id.job));
    jobs.map(|job| job.owner.clone()).collect()
}

/// What lasts on a GPU of the node and would take it out; what the driver wants done before all else.
pub(super) fn worst(
    draft: &Draft<'_>,
    node: &NodeName,
    gpu: &GpuUuid,
) -> Option<(Condition, Response)> {
    let known = draft.world.nodes.get(node)?.health.gpus.get(gpu)?;
    let rules = &draft.policy.health.rules;
    let bad = known.conditions.keys().filter_map(|condition| {
        let response = rules.of(Signal::Condition(*condition)).response;
        response.takes_out().map(|_| (*condition, response))
    });
    bad.max_by_key(|(condition, response)| (condition.is_recovery(), *response))
}
