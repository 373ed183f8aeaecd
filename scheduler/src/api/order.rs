//! Why one job started before another, from what was written down of the start.

use std::collections::BTreeSet;

use gotgan_core::change::Event;
use gotgan_core::ids::JobId;
use gotgan_core::job::Job;
use gotgan_core::precedence::{
    Facts, OrderOf, Rank, Rule, Ruling, Sides, Verdict, absence, compare, judge, sentence,
};
use gotgan_core::world::CohortKey;
use gotgan_proto::v1;
use gotgan_store::{JobDetail, JobFilter, Page, StartRecord};
use tonic::{Code, Status};

use super::{Services, convert, error};
use crate::auth::Principal;

/// Events of one job that are looked through; one that was tried hundreds of times has no more.
const EVENTS_MAX: u32 = 10_000;

/// A job, and whether the caller may see it.
struct Side {
    detail: JobDetail,
    seen: bool,
}

/// Why one job started before another.
pub(super) async fn explain(
    services: &Services,
    who: &Principal,
    request: &v1::ExplainOrderRequest,
) -> Result<v1::OrderExplanation, Status> {
    let (id, other_id) = (request.job_id, request.before_job_id);
    if id == other_id {
        let message = "is the same job; name two different ones";
        return Err(error::invalid("before_job_id", "CONFLICT", message));
    }
    let (first, other) = (side(services, who, id).await?, side(services, who, other_id).await?);
    let (first, other) = match (first, other) {
        (Some(first), Some(other)) if first.seen || other.seen => (first, other),
        (Some(first), None) if first.seen => return Err(error::no_such_job(other_id)),
        (_, _) => return Err(error::no_such_job(id)),
    };
    let attempt = first_start(&first.detail, &other.detail)?;
    let record = services.store.start_record(attempt.id).await.map_err(|e| error::store(&e))?;
    let record = record.ok_or_else(|| no_record(id))?;
    let events = events_of(services, &other.detail.job).await?;
    let alike = alike(services, &record, &other.detail.job).await?;
    let absent = absence(&other.detail.job, &events, record.sheet.at);
    let facts = Facts {
        sheet: &record.sheet,
        start: &record.start,
        other: &other.detail.job,
        absence: absent,
    };
    let order = judge(facts, |job| alike.contains(&job));
    Ok(v1::OrderExplanation { attempt: attempt.id.number, ..told(&first, &other, &record, order) })
}

async fn side(services: &Services, who: &Principal, id: u64) -> Result<Option<Side>, Status> {
    let found = services.store.job(JobId(id)).await.map_err(|e| error::store(&e))?;
    Ok(found.map(|detail| Side { seen: who.may_see(&detail.job.spec.project), detail }))
}

/// The first start of the one, if the other had not started then.
fn first_start<'a>(
    first: &'a JobDetail,
    other: &JobDetail,
) -> Result<&'a gotgan_core::attempt::Attempt, Status> {
    let (id, other_id) = (first.job.id, other.job.id);
    let Some(start) = first.attempts.first() else {
        let message = if first.job.is_array() {
            format!("job {id} is an array; name one of its tasks, as in {id}_0")
        } else {
            format!("job {id} has not started; see `gotgan why {id}`")
        };
        return Err(error::status(Code::FailedPrecondition, "NOT_STARTED", message));
    };
    if other.attempts.first().is_some_and(|other| other.leased < start.leased) {
        let message =
            format!("job {other_id} started first; ask `gotgan why {other_id} --before {id}`");
        return Err(error::status(Code::FailedPrecondition, "STARTED_FIRST", message));
    }
    Ok(start)
}

fn no_record(id: u64) -> Status {
    let message = format!(
        "nothing was written down of the order in which job {id} started: a scheduler before this version started it"
    );
    error::status(Code::FailedPrecondition, "NO_RECORD", message)
}

/// What happened to the job, and to the array that it is a task of.
async fn events_of(services: &Services, job: &Job) -> Result<Vec<Event>, Status> {
    let jobs: Vec<JobId> = job.array.into_iter().chain([job.id]).collect();
    let events = services.store.events(0, Some(&jobs), EVENTS_MAX).await;
    events.map_err(|e| error::store(&e))
}

/// Of the jobs that stood for all like them and were passed over, those that the other is like.
async fn alike(
    services: &Services,
    record: &StartRecord,
    other: &Job,
) -> Result<BTreeSet<JobId>, Status> {
    let passed = record.sheet.passed.iter().filter(|passed| passed.cohort);
    let ids: Vec<JobId> = passed.map(|passed| passed.job).collect();
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let page = Page { size: u32::try_from(ids.len()).unwrap_or(u32::MAX), after: None };
    let filter = JobFilter { ids: ids.clone(), ..JobFilter::default() };
    let mut found = services.store.jobs(&filter, &page).await.map_err(|e| error::store(&e))?;
    // Tasks of arrays that are no jobs of their own are in no listing.
    let listed: BTreeSet<JobId> = found.iter().map(|detail| detail.job.id).collect();
    for id in ids.into_iter().filter(|id| !listed.contains(id)) {
        found.extend(services.store.job(id).await.map_err(|e| error::store(&e))?);
    }
    let wanted = kind_of(other);
    let like = found.into_iter().filter(|detail| kind_of(&detail.job) == wanted);
    Ok(like.map(|detail| detail.job.id).collect())
}

/// What a job has in common with those like it, whatever happened to it since.
fn kind_of(job: &Job) -> CohortKey {
    let mut job = job.clone();
    job.status.avoid.clear();
    CohortKey::of(&job)
}

/// The answer, with no more of a job that the caller may not see than what was compared.
fn told(first: &Side, other: &Side, record: &StartRecord, order: OrderOf) -> v1::OrderExplanation {
    let StartRecord { pass, epoch, sheet, start } = record;
    let OrderOf { verdict, other: rank } = order;
    let ruling = rank.as_ref().map(|rank| compare(&start.rank, rank));
    // Where nothing was compared nothing is told.
    let rule = ruling.map_or(Rule::Stage, |ruling| ruling.rule);
    let shown = |side: &Side, rank: &Rank| match side.seen {
        true => rank.clone(),
        false => rank.told_for(rule),
    };
    let (first_rank, other_rank) =
        (shown(first, &start.rank), rank.as_ref().map(|rank| shown(other, rank)));
    let verdict = if other.seen { verdict } else { stranger(verdict) };
    let (id, other_id) = (first.detail.job.id, other.detail.job.id);
    let sides = Sides {
        first: (id, &first_rank),
        other: (other_id, other_rank.as_ref()),
        always_s: sheet.always_s,
    };
    let text = match &verdict {
        Verdict::Absent(_) if !other.seen => {
            format!("job {other_id} did not compete at that moment")
        }
        Verdict::PassedOver(_, None) if other.seen => {
            format!("{}; why was not kept, as too many were passed over", sentence(sides, &verdict))
        }
        Verdict::Absent(_) | Verdict::First(_) | Verdict::PassedOver(..) | Verdict::NotKept => {
            sentence(sides, &verdict)
        }
    };
    let passed = match &verdict {
        Verdict::PassedOver(_, passed) => passed.as_ref(),
        Verdict::Absent(_) | Verdict::First(_) | Verdict::NotKept => None,
    };
    let always_s = sheet.always_s;
    v1::OrderExplanation {
        job_id: id.0,
        before_job_id: other_id.0,
        verdict: convert::order_verdict(&verdict).into(),
        rule: ruling
            .map_or(v1::OrderRule::Unspecified, |ruling| convert::order_rule(ruling.rule))
            .into(),
        deciding_level: deciding_level(ruling),
        text,
        first: Some(convert::order_rank(id, &first_rank, always_s)),
        other: other_rank.map(|rank| convert::order_rank(other_id, &rank, always_s)),
        reason: passed.map(|passed| convert::blocker(&passed.reason)),
        planned_us: passed.and_then(|passed| passed.planned).map_or(0, |at| at.0),
        attempt: 0,
        at_us: sheet.at.0,
        pass: *pass,
        epoch: epoch.0,
        quota_revision: sheet.revision,
        fair_share_rule: convert::fair_share_rule(sheet.rule).to_owned(),
        half_life_minutes: sheet.half_life_minutes,
        always_s,
    }
}

fn deciding_level(ruling: Option<Ruling>) -> u32 {
    match ruling.map(|ruling| ruling.rule) {
        Some(Rule::Share(level)) => u32::try_from(level).unwrap_or(u32::MAX),
        Some(
            Rule::Stage
            | Rule::Promise
            | Rule::Depth
            | Rule::Priority
            | Rule::Age
            | Rule::Size
            | Rule::Number
            | Rule::Rounds
            | Rule::Untold,
        )
        | None => 0,
    }
}

/// What somebody is told who may not see the other: not why it could not start.
fn stranger(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::PassedOver(ruling, _) => Verdict::PassedOver(ruling, None),
        Verdict::Absent(_) | Verdict::First(_) | Verdict::NotKept => verdict,
    }
}
