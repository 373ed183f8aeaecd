//! A quota plan: what applying a proposal would change, what it needs, and what it would do.

use std::collections::{BTreeMap, BTreeSet};

use gotgan_core::amount::UnixMicros;
use gotgan_core::forecast::{Forecast, forecast};
use gotgan_core::ids::{GpuClass, ProjectPath};
use gotgan_core::lifecycle;
use gotgan_core::policy::Policy;
use gotgan_core::quota::audit::{Edit, edits};
use gotgan_core::quota::{ChangeSize, ClassSums, Proposal, QuotaBook};
use gotgan_core::world::World;
use gotgan_proto::v1;

use super::proposal::right_to;
use crate::auth::Principal;

/// The plan of a proposal that was made for `world`.
pub(super) fn make(
    world: &World,
    policy: &Policy,
    who: &Principal,
    proposal: &Proposal,
    now: UnixMicros,
) -> v1::QuotaPlan {
    let edits = edits(&world.book, &proposal.book);
    let size = match ChangeSize::of(&edits) {
        ChangeSize::Gpus(gpus) => Some(gpus.0),
        ChangeSize::Unbounded => None,
    };
    let undone = lifecycle::undone(world, &edits).into_iter();
    v1::QuotaPlan {
        base_revision: proposal.base_revision,
        digest: proposal.digest().to_string(),
        requester: proposal.requester.to_string(),
        changes: edits.iter().map(|edit| change(edit, who, &world.book, now)).collect(),
        capacity: if edits.is_empty() { Vec::new() } else { capacity(&proposal.book, now) },
        forecast: Some(told(forecast(world, policy, &proposal.book, now))),
        approvers_needed: lifecycle::approvers_needed(&world.book, &edits),
        size_gpu_milli: size,
        undone: undone
            .map(|(subject, by, revision)| v1::QuotaUndone {
                subject,
                by: by.to_string(),
                revision,
            })
            .collect(),
    }
}

/// One change.
pub(super) fn change(
    edit: &Edit,
    who: &Principal,
    present: &QuotaBook,
    now: UnixMicros,
) -> v1::QuotaChange {
    let told = edit.describe();
    v1::QuotaChange {
        kind: told.kind.word().to_owned(),
        text: told.text,
        effective_from_us: later_or_zero(edit.effective_from(now), now),
        allowed_by: right_to(who, present, &told.path),
        path: told.path,
    }
}

/// A moment after now; 0 for now.
fn later_or_zero(at: UnixMicros, now: UnixMicros) -> i64 {
    if at > now { at.0 } else { 0 }
}

/// Every class now, and at each later date the classes for which something changes then.
fn capacity(book: &QuotaBook, now: UnixMicros) -> Vec<v1::CapacityCheck> {
    let later: BTreeSet<UnixMicros> =
        book.breakpoints().into_iter().filter(|at| *at > now).collect();
    let mut told: BTreeMap<GpuClass, (u64, u64, u64)> = BTreeMap::new();
    let mut checks = Vec::new();
    for at in std::iter::once(now).chain(later) {
        for (class, sums) in book.sums(at).classes {
            let figures = figures(&sums);
            if told.insert(class.clone(), figures) != Some(figures) {
                let (guaranteed_gpu_milli, accepted_gpu_milli, promised_gpu_milli) = figures;
                checks.push(v1::CapacityCheck {
                    at_us: later_or_zero(at, now),
                    gpu_class: class.to_string(),
                    guaranteed_gpu_milli,
                    accepted_gpu_milli,
                    promised_gpu_milli,
                });
            }
        }
    }
    checks
}

fn figures(sums: &ClassSums) -> (u64, u64, u64) {
    (sums.guaranteed.0, sums.capacity.accepted.0, sums.capacity.promised.0)
}

fn told(forecast: Forecast) -> v1::QuotaForecast {
    let stopped = forecast.stopped.into_iter().map(|(attempt, project)| v1::StoppedAttempt {
        job_id: attempt.job.0,
        attempt: attempt.number,
        project: project.to_string(),
    });
    let above = forecast.above_limit.into_iter().map(|above| v1::AboveLimit {
        path: above.path.to_string(),
        gpu_class: above.class.to_string(),
        held_gpu_milli: above.held.0,
        limit_gpu_milli: above.limit.0,
    });
    let overstay = forecast.overstay.into_iter().map(|one| v1::Overstay {
        reservation: one.reservation.to_string(),
        job_id: one.attempt.job.0,
        attempt: one.attempt.number,
        project: one.project.to_string(),
        ends_us: one.ends.0,
    });
    v1::QuotaForecast {
        stopped: stopped.collect(),
        starts_gained: jobs(forecast.starts_gained),
        starts_lost: jobs(forecast.starts_lost),
        above_limit: above.collect(),
        overstay: overstay.collect(),
    }
}

fn jobs(counts: BTreeMap<ProjectPath, u64>) -> Vec<v1::ProjectJobs> {
    let told = |(project, jobs): (ProjectPath, u64)| v1::ProjectJobs {
        project: project.to_string(),
        jobs,
    };
    counts.into_iter().map(told).collect()
}
