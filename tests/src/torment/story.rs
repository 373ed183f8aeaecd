//! What was seen of the jobs that a violation is about, in the order of time.

use super::check::Violation;
use super::history::Answer;
use super::round::Ended;
use super::{STORY_LINES, plan};

/// A fault this near to a moment of a job belongs to its story.
const AROUND_US: i64 = 3_000_000;

/// The shortest history there is of it: its jobs and what befell anybody meanwhile.
#[must_use]
pub fn of(violation: &Violation, ended: &Ended) -> Vec<String> {
    let mut moments = Vec::new();
    for job in &violation.jobs {
        moments.extend(job_story(*job, ended));
    }
    let near = |at_us: i64| moments.iter().any(|(moment, _)| (moment - at_us).abs() <= AROUND_US);
    let faults = ended.faults.iter().map(|fault| fault_line(fault, ended.begun_us));
    let faults: Vec<_> = faults.filter(|(at_us, _)| near(*at_us)).collect();
    moments.extend(faults);
    moments.sort();
    let lines = moments.into_iter().take(STORY_LINES);
    lines
        .map(|(at_us, text)| {
            let seconds = (at_us - ended.begun_us) as f64 / 1e6;
            format!("{seconds:>9.3} s  {text}")
        })
        .collect()
}

fn fault_line(fault: &plan::Fault, begun_us: i64) -> (i64, String) {
    let at_us = begun_us + i64::try_from(fault.at.as_micros()).unwrap_or(i64::MAX);
    let text =
        format!("{:?} {} for {:.3} s", fault.target, fault.harm.word(), fault.lasts.as_secs_f64());
    (at_us, text)
}

fn job_story(job_id: u64, ended: &Ended) -> Vec<(i64, String)> {
    let history = &ended.history;
    let mut moments = Vec::new();
    for submit in history.submits.iter().filter(|it| it.answer == Answer::Done(job_id)) {
        moments.push((submit.sent_us, format!("{} sent", submit.key)));
        moments.push((submit.answered_us, format!("{} acknowledged as {job_id}", submit.key)));
    }
    for action in history.actions.iter().filter(|action| action.job_id == job_id) {
        moments.push((action.sent_us, format!("{} of {job_id}: {:?}", action.verb, action.answer)));
    }
    for look in history.looks.get(&job_id).into_iter().flatten() {
        let text = format!("job {job_id} is {:?}, attempt {}", look.state, look.attempt);
        moments.push((look.asked_us, text));
    }
    for run in history.runs.iter().filter(|run| run.job_id == job_id) {
        let name = format!("{job_id}.{} on {}", run.attempt, run.node);
        moments.push((run.from_us, format!("{name} ran with {:?}", run.gpus)));
        if let Some(until_us) = run.until_us {
            moments.push((until_us, format!("{name} was over")));
        }
    }
    let job = history.jobs.iter().find(|job| job.job_id == job_id);
    for attempt in job.into_iter().flat_map(|job| &job.attempts) {
        let name = format!("attempt {job_id}.{}", attempt.number);
        moments.push((attempt.leased_us, format!("{name} leased")));
        if attempt.ended_us > 0 {
            let text = format!("{name} ended, {:?}: {}", attempt.cause(), attempt.detail);
            moments.push((attempt.ended_us, text));
        }
    }
    moments
}
