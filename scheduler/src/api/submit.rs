//! Submitting jobs: checked, stored, and answered alike each time it is asked under the same key.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::admit;
use gotgan_core::array::ArraySpec;
use gotgan_core::ids::JobId;
use gotgan_core::lifecycle::{self, Submission, SubmitRefusal};
use gotgan_core::spec::{DependencyKind, JobSpec};
use gotgan_proto::v1;
use tonic::{Code, Status};

use super::idempotent::{Keyed, keyed};
use super::{Services, convert, error};
use crate::auth::{Principal, Role};
use crate::flow::command::{SubmitError, Submitted};

/// Looks at jobs depended on that end just then; each look is at most one commit behind.
const DEPENDENCY_TRIES: u32 = 5;

/// Stores all of these jobs or none. `prefix` is the path before the fields of each.
///
/// What is stored already is answered so, also where it would be refused by now: whoever did not hear the first answer must not be told
/// that there is no job.
///
/// # Errors
/// What is wrong with the first that is refused.
pub async fn submit(
    services: &Services,
    who: &Principal,
    requests: Vec<v1::SubmitRequest>,
    prefix: &(impl Fn(usize) -> String + Sync),
) -> Result<Vec<v1::SubmitResponse>, Status> {
    let of = |(at, request): (usize, &v1::SubmitRequest)| {
        keyed(who, &request.idempotency_key, "Submit", request, &prefix(at))
    };
    let keys = requests.iter().enumerate().map(of).collect::<Result<Vec<Keyed>, Status>>()?;
    let dry_run = requests.iter().any(|request| request.dry_run);
    let fresh = submit_fresh(services, who, requests, &keys, dry_run, prefix).await;
    match fresh {
        Err(refused) if !dry_run && is_refusal(&refused) => {
            stored_before(services, &keys).await.ok_or(refused)
        }
        answered => answered,
    }
}

/// Whether what was asked is wrong, and not whoever answers.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::PermissionDenied
            | Code::ResourceExhausted
    )
}

async fn submit_fresh(
    services: &Services,
    who: &Principal,
    requests: Vec<v1::SubmitRequest>,
    keys: &[Keyed],
    dry_run: bool,
    prefix: &(impl Fn(usize) -> String + Sync),
) -> Result<Vec<v1::SubmitResponse>, Status> {
    let context = services.admission.context(&services.writer).await;
    let context = context.map_err(|e| error::flow(&e))?;
    let (mut submissions, mut warnings) = (Vec::new(), Vec::new());
    for (index, (request, key)) in requests.into_iter().zip(keys).enumerate() {
        let (submission, notes) = admit_one(who, request, key, &context, &prefix(index))?;
        submissions.push(submission);
        warnings.push(notes);
    }
    name_tasks(services, &mut submissions, prefix).await?;
    let tasks: Vec<u32> = submissions.iter().map(|one| tasks_of(&one.spec)).collect();
    let stored = if dry_run {
        check_reservations(services, &submissions, prefix).await?;
        vec![Submitted { job: JobId(0), repeated: false }; submissions.len()]
    } else {
        store(services, submissions, prefix).await?
    };
    let all = stored.into_iter().zip(warnings).zip(tasks);
    Ok(all.map(|((one, warnings), tasks)| answer(one, warnings, tasks)).collect())
}

fn answer(one: Submitted, warnings: Vec<String>, tasks: u32) -> v1::SubmitResponse {
    v1::SubmitResponse { job_id: one.job.0, repeated: one.repeated, warnings, tasks }
}

/// The answers to these requests where all of them were stored before; `None` if any was not, or if nobody knows.
async fn stored_before(services: &Services, keys: &[Keyed]) -> Option<Vec<v1::SubmitResponse>> {
    let places: Vec<_> = keys.iter().map(|one| (one.owner.clone(), one.key.clone())).collect();
    let found = services.store.submissions(&places).await.ok()?;
    let mut answers = Vec::with_capacity(keys.len());
    for key in keys {
        let stored = found.iter().find(|one| one.owner == key.owner && one.key == key.key);
        let stored = stored.filter(|one| one.digest == key.digest)?;
        let job = services.store.job(stored.job).await.ok()??.job;
        let submitted = Submitted { job: job.id, repeated: true };
        answers.push(answer(submitted, Vec::new(), tasks_of(&job.spec)));
    }
    Some(answers)
}

/// Whether jobs may have nodes of the reservations that they ask for, as far as can be seen now.
async fn check_reservations(
    services: &Services,
    submissions: &[Submission],
    prefix: &(impl Fn(usize) -> String + Sync),
) -> Result<(), Status> {
    let asks = |spec: &JobSpec| spec.constraints.reservation.is_some();
    let specs: Vec<Arc<JobSpec>> = submissions.iter().map(|it| Arc::clone(&it.spec)).collect();
    if !specs.iter().any(|spec| asks(spec)) {
        return Ok(());
    }
    let look = services.writer.read(move |world| {
        let now = crate::clock::now();
        let check = |spec: &Arc<JobSpec>| lifecycle::check_reservation(world, spec, now);
        specs.iter().map(check).enumerate().find_map(|(at, found)| Some((at, found.err()?)))
    });
    match look.await.map_err(|e| error::flow(&e))? {
        Some((at, refusal)) => Err(error::submit(&SubmitError::Refused(at, refusal), prefix)),
        None => Ok(()),
    }
}

/// Finds the numbers of the tasks of arrays that dependencies name.
async fn name_tasks(
    services: &Services,
    submissions: &mut [Submission],
    prefix: &(impl Fn(usize) -> String + Sync),
) -> Result<(), Status> {
    for (at, submission) in submissions.iter_mut().enumerate() {
        let mut known = BTreeMap::new();
        for id in admit::arrays_named(&submission.spec) {
            let found = services.store.job(id).await.map_err(|e| error::store(&e))?;
            known.extend(found.map(|detail| (id, detail.job.spec)));
        }
        if !known.is_empty() {
            admit::name_tasks(Arc::make_mut(&mut submission.spec), &known)
                .map_err(|faults| error::faults(&prefix(at), &faults))?;
        }
    }
    Ok(())
}

/// Stores what was admitted. A dependency that ends between the look at the store and the writer's turn is looked
/// up again.
async fn store(
    services: &Services,
    mut submissions: Vec<Submission>,
    prefix: &(impl Fn(usize) -> String + Sync),
) -> Result<Vec<Submitted>, Status> {
    let mut tries = 0;
    loop {
        tries += 1;
        look_up_dependencies(services, &mut submissions).await?;
        match services.writer.submit(submissions.clone()).await {
            Ok(stored) => return Ok(stored),
            Err(SubmitError::Refused(_, SubmitRefusal::StaleDependency(_)))
                if tries < DEPENDENCY_TRIES => {}
            Err(error) => return Err(error::submit(&error, prefix)),
        }
    }
}

/// Fills in the states of the jobs depended on; the world knows only those that have not ended.
async fn look_up_dependencies(
    services: &Services,
    submissions: &mut [Submission],
) -> Result<(), Status> {
    for submission in submissions.iter_mut().filter(|it| !it.spec.dependencies.is_empty()) {
        let ids: Vec<JobId> = submission.spec.dependencies.iter().map(|it| it.job).collect();
        let states = services.store.job_states(&ids).await.map_err(|e| error::store(&e))?;
        submission.outcomes = states;
        let dependencies = submission.spec.dependencies.iter();
        let corresponding = dependencies.filter(|it| it.kind == DependencyKind::AfterCorr);
        for array in corresponding.map(|it| it.job).collect::<Vec<_>>() {
            let states = services.store.task_states(array).await;
            submission.outcomes.extend(states.map_err(|e| error::store(&e))?);
        }
    }
    Ok(())
}

/// Tasks of an array; 0 if it is none.
fn tasks_of(spec: &JobSpec) -> u32 {
    spec.array.as_ref().map_or(0, ArraySpec::len)
}

/// Checks one submission.
fn admit_one(
    who: &Principal,
    request: v1::SubmitRequest,
    key: &Keyed,
    context: &admit::AdmitContext,
    prefix: &str,
) -> Result<(Submission, Vec<String>), Status> {
    let spec = request.spec.unwrap_or_default();
    let priority = spec.priority;
    let admitted = admit::admit(convert::job_request(spec), context)
        .map_err(|faults| error::faults(prefix, &faults))?;
    if !who.may_submit_to(&admitted.spec.project) {
        return Err(error::foreign_project(admitted.spec.project.as_str()));
    }
    if priority > 0 && !matches!(who.role, Role::Admin | Role::Operator) {
        let message = "a priority above 0 needs role operator or admin; use 0 or less".to_owned();
        let field = format!("{prefix}spec.priority");
        return Err(error::invalid(&field, "NOT_ALLOWED", message));
    }
    let submission = Submission {
        owner: key.owner.clone(),
        key: key.key.clone(),
        digest: key.digest.clone(),
        spec: Arc::new(admitted.spec),
        outcomes: BTreeMap::new(),
    };
    Ok((submission, admitted.warnings))
}
