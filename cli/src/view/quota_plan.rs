//! What a change of the quota tree is, needs and would do.

use std::collections::BTreeMap;

use gotgan_proto::v1;
use serde::Serialize;

use crate::output::time;

/// What applying changed, or would change.
#[derive(Clone, Debug, Serialize)]
pub struct AppliedView {
    pub dry_run: bool,
    pub revision: u64,
    pub changes: Vec<ChangeView>,
}

/// One change.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeView {
    pub path: String,
    pub kind: String,
    pub text: String,
    /// `null`: at once.
    pub effective_from_us: Option<i64>,
    pub allowed_by: String,
}

impl ChangeView {
    fn of(found: &v1::QuotaChange) -> Self {
        ChangeView {
            path: found.path.clone(),
            kind: found.kind.clone(),
            text: found.text.clone(),
            effective_from_us: time::set(found.effective_from_us),
            allowed_by: found.allowed_by.clone(),
        }
    }
}

impl AppliedView {
    /// As the API has it.
    #[must_use]
    pub fn of(answer: v1::ApplyQuotaResponse, dry_run: bool) -> Self {
        let changes = answer.changes.iter().map(ChangeView::of).collect();
        Self { dry_run, revision: answer.revision, changes }
    }
}

/// A plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanView {
    pub base_revision: u64,
    pub digest: String,
    pub requester: String,
    pub changes: Vec<ChangeView>,
    pub capacity: Vec<CapacityView>,
    pub stopped: Vec<StoppedView>,
    pub starts_gained: Vec<ProjectJobsView>,
    pub starts_lost: Vec<ProjectJobsView>,
    pub above_limit: Vec<AboveLimitView>,
    pub overstay: Vec<OverstayView>,
    pub undone: Vec<UndoneView>,
    pub approvers_needed: u32,
    /// `null`: no number of GPUs says how large it is.
    pub size_gpu_milli: Option<u64>,
}

/// A class at a date.
#[derive(Clone, Debug, Serialize)]
pub struct CapacityView {
    /// `null`: now.
    pub at_us: Option<i64>,
    pub gpu_class: String,
    pub guaranteed_gpu_milli: u64,
    pub accepted_gpu_milli: u64,
    pub promised_gpu_milli: u64,
}

/// An attempt that would be stopped.
#[derive(Clone, Debug, Serialize)]
pub struct StoppedView {
    pub job_id: u64,
    pub attempt: u32,
    pub project: String,
}

/// Jobs of a project.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectJobsView {
    pub project: String,
    pub jobs: u64,
}

/// A node that holds more than its new limit.
#[derive(Clone, Debug, Serialize)]
pub struct AboveLimitView {
    pub path: String,
    pub gpu_class: String,
    pub held_gpu_milli: u64,
    pub limit_gpu_milli: u64,
}

/// An attempt that may run into a reservation which is not for it.
#[derive(Clone, Debug, Serialize)]
pub struct OverstayView {
    pub reservation: String,
    pub job_id: u64,
    pub attempt: u32,
    pub project: String,
    pub ends_us: i64,
}

/// What a command changed and the files would put back.
#[derive(Clone, Debug, Serialize)]
pub struct UndoneView {
    pub subject: String,
    pub by: String,
    pub revision: u64,
}

impl PlanView {
    /// As the API has it.
    #[must_use]
    pub fn of(plan: &v1::QuotaPlan) -> Self {
        let forecast = plan.forecast.clone().unwrap_or_default();
        Self {
            base_revision: plan.base_revision,
            digest: plan.digest.clone(),
            requester: plan.requester.clone(),
            changes: plan.changes.iter().map(ChangeView::of).collect(),
            capacity: plan.capacity.iter().map(CapacityView::of).collect(),
            stopped: forecast.stopped.into_iter().map(StoppedView::of).collect(),
            starts_gained: forecast.starts_gained.into_iter().map(ProjectJobsView::of).collect(),
            starts_lost: forecast.starts_lost.into_iter().map(ProjectJobsView::of).collect(),
            above_limit: forecast.above_limit.into_iter().map(AboveLimitView::of).collect(),
            overstay: forecast.overstay.into_iter().map(OverstayView::of).collect(),
            undone: plan.undone.iter().map(UndoneView::of).collect(),
            approvers_needed: plan.approvers_needed,
            size_gpu_milli: plan.size_gpu_milli,
        }
    }
}

impl CapacityView {
    fn of(check: &v1::CapacityCheck) -> Self {
        CapacityView {
            at_us: time::set(check.at_us),
            gpu_class: check.gpu_class.clone(),
            guaranteed_gpu_milli: check.guaranteed_gpu_milli,
            accepted_gpu_milli: check.accepted_gpu_milli,
            promised_gpu_milli: check.promised_gpu_milli,
        }
    }
}

impl StoppedView {
    fn of(stopped: v1::StoppedAttempt) -> Self {
        let v1::StoppedAttempt { job_id, attempt, project } = stopped;
        StoppedView { job_id, attempt, project }
    }
}

impl ProjectJobsView {
    fn of(jobs: v1::ProjectJobs) -> Self {
        let v1::ProjectJobs { project, jobs } = jobs;
        ProjectJobsView { project, jobs }
    }
}

impl OverstayView {
    fn of(overstay: v1::Overstay) -> Self {
        let v1::Overstay { reservation, job_id, attempt, project, ends_us } = overstay;
        OverstayView { reservation, job_id, attempt, project, ends_us }
    }
}

impl AboveLimitView {
    fn of(above: v1::AboveLimit) -> Self {
        let v1::AboveLimit { path, gpu_class, held_gpu_milli, limit_gpu_milli } = above;
        AboveLimitView { path, gpu_class, held_gpu_milli, limit_gpu_milli }
    }
}

impl UndoneView {
    fn of(undone: &v1::QuotaUndone) -> Self {
        UndoneView {
            subject: undone.subject.clone(),
            by: undone.by.clone(),
            revision: undone.revision,
        }
    }
}

/// Where the tree in force and the files differ.
#[derive(Clone, Debug, Serialize)]
pub struct DriftView {
    pub revision: u64,
    pub differences: Vec<DifferenceView>,
}

/// One thing that differs.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceView {
    pub path: String,
    pub kind: String,
    /// In force first, then what the files say.
    pub text: String,
    /// Who changed it by command, if the files would put that back.
    pub by: Option<String>,
    /// In which revision.
    pub revision: Option<u64>,
}

impl DriftView {
    /// From the plan of the files.
    #[must_use]
    pub fn of(plan: &v1::QuotaPlan) -> Self {
        let undone: BTreeMap<&str, &v1::QuotaUndone> = plan
            .undone
            .iter()
            .map(|undone| (undone.subject.trim_start_matches("node "), undone))
            .collect();
        let difference = |change: &v1::QuotaChange| {
            let undone = undone.get(change.path.as_str());
            DifferenceView {
                path: change.path.clone(),
                kind: change.kind.clone(),
                text: change.text.clone(),
                by: undone.map(|undone| undone.by.clone()),
                revision: undone.map(|undone| undone.revision),
            }
        };
        DriftView {
            revision: plan.base_revision,
            differences: plan.changes.iter().map(difference).collect(),
        }
    }
}
