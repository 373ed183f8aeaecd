//! GPUs that are to be cut anew.

use gotgan_proto::v1;
use serde::Serialize;

use crate::output::time;

/// What is to become of a GPU once nothing is on it.
#[derive(Clone, Debug, Serialize)]
pub struct CutPlanView {
    pub gpu_uuid: String,
    /// Of its instances.
    pub profiles: Vec<String>,
    /// It is to be whole.
    pub whole: bool,
    pub by: String,
    pub since_us: i64,
    pub since: Option<String>,
    /// Nothing is on it any more.
    pub is_empty: bool,
    /// Why it could not be done; it stays out until the command is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl CutPlanView {
    /// As the API has it.
    #[must_use]
    pub fn of(plan: &v1::GpuCutPlan) -> Self {
        Self {
            gpu_uuid: plan.gpu_uuid.clone(),
            profiles: plan.profiles.clone(),
            whole: plan.whole,
            by: plan.by.clone(),
            since_us: plan.since_us,
            since: time::rfc3339(plan.since_us),
            is_empty: plan.is_empty,
            failed: (!plan.failed.is_empty()).then(|| plan.failed.clone()),
        }
    }

    /// For a person; `gpu` is how people call the GPU.
    #[must_use]
    pub fn text(&self, gpu: &str) -> String {
        let (by, since) = (&self.by, time::local(self.since_us));
        let what = match self.whole {
            true => "made whole".to_owned(),
            false => format!("cut into {}", self.profiles.join(", ")),
        };
        match (&self.failed, self.is_empty) {
            (Some(why), _) => format!(
                "GPU {gpu} could not be {what}: {why}. It takes no work until gotgan node mig is repeated"
            ),
            (None, true) => format!("GPU {gpu} is being {what} (by {by}, {since})"),
            (None, false) => {
                format!("GPU {gpu} is {what} once nothing is on it (by {by}, {since})")
            }
        }
    }
}
