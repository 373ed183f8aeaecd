//! Workers' reports.

use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::ExitStatus;
use gotgan_core::ids::{AttemptId, JobId, NodeName};
use gotgan_core::lifecycle::{MemberEvent, Report};
use gotgan_core::measured::MeasuredUse;
use gotgan_proto::v1;
use gotgan_proto::v1::report::Event;

use super::{cause_from, exit_from, measured_from};

/// Longest detail kept of what a worker says, in characters; a worker must not fill the store.
const DETAIL_MAX: usize = 1_000;

/// A report, with what its GPUs did if it tells; `None` if it carries no event that is known, as from a newer worker.
#[must_use]
pub fn report_from(report: v1::Report, node: &NodeName) -> Option<(Report, Option<MeasuredUse>)> {
    let attempt = AttemptId { job: JobId(report.job_id), number: report.attempt };
    let event = report.event?;
    let measured = measured_with(&event);
    let (seq, at) = (report.seq, UnixMicros(report.at_us));
    let report = Report { node: node.clone(), attempt, seq, at, event: event_from(event) };
    Some((report, measured))
}

/// Only an end tells it.
fn measured_with(event: &Event) -> Option<MeasuredUse> {
    match event {
        Event::Ended(ended) => ended.measured.map(measured_from),
        Event::Accepted(_)
        | Event::Refused(_)
        | Event::Started(_)
        | Event::TaskStarted(_)
        | Event::TaskEnded(_)
        | Event::Unfit(_) => None,
    }
}

fn event_from(event: Event) -> MemberEvent {
    match event {
        Event::Accepted(v1::AttemptAccepted {}) => MemberEvent::Accepted,
        Event::Started(v1::AttemptStarted {}) => MemberEvent::Started,
        Event::Refused(refused) => MemberEvent::Refused {
            cause: cause_from(refused.cause()),
            reason: cut(&refused.reason),
        },
        Event::TaskStarted(task) => MemberEvent::TaskStarted { step: task.step, rank: task.rank },
        Event::TaskEnded(task) => MemberEvent::TaskEnded {
            step: task.step,
            rank: task.rank,
            exit: task.exit.map_or(ExitStatus::Code(0), exit_from),
            detail: cut(&task.detail),
        },
        Event::Unfit(unfit) => MemberEvent::Unfit { reason: cut(&unfit.reason) },
        Event::Ended(ended) => MemberEvent::Ended {
            cause: cause_from(ended.cause()),
            reason: cut(&ended.reason),
            exit: ended.exit.map(exit_from),
        },
    }
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_MAX).collect()
}

/// Attempts a worker holds; true: ended there.
#[must_use]
pub fn held_attempts(held: &[v1::HeldAttempt]) -> Vec<(AttemptId, bool)> {
    held.iter()
        .map(|held| (AttemptId { job: JobId(held.job_id), number: held.attempt }, held.ended))
        .collect()
}
