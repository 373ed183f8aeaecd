//! What people do to jobs and to tasks of arrays, once for each key.

use gotgan_core::admit;
use gotgan_core::lifecycle::{self, Action, ActionRefusal, Actor};
use gotgan_proto::v1;
use gotgan_store::JobDetail;
use tonic::{Code, Request, Response, Status};

use super::idempotent::{keyed, once};
use super::jobs::JobsService;
use super::{convert, error, principal};
use crate::auth::Role;

/// Longest reason a person may give, in characters.
const REASON_MAX: usize = 256;

impl JobsService {
    /// Does it to a job, or to tasks of an array.
    pub(super) async fn act(
        &self,
        request: Request<v1::JobActionRequest>,
        action: Action,
    ) -> Result<Response<v1::JobActionResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        if request.reason.chars().count() > REASON_MAX {
            let message = format!("a reason has at most {REASON_MAX} characters");
            return Err(error::invalid("reason", "TOO_LONG", message));
        }
        let keyed = keyed(&who, &request.idempotency_key, action.word(), &request, "")?;
        let indexes = indexes_of(&request.tasks)?;
        let detail = self.visible_job(&who, request.job_id).await?;
        let (id, reason) = (detail.job.id, request.reason);
        let for_site = matches!(who.role, Role::Admin | Role::Operator);
        let actor = Actor { name: who.subject.clone(), for_site };
        let (gone, has_ended) = tokio::sync::oneshot::channel();
        let done = once(&self.0, keyed, move |round| {
            let draft = &mut round.draft;
            let acted = match &indexes {
                Some(indexes) => {
                    lifecycle::act_on_indexes(draft, id, indexes, action, (&actor, &reason))
                }
                None => lifecycle::act(draft, id, action, &actor, &reason),
            };
            if let Err(ActionRefusal::NotLive(_)) = acted {
                // Received below, in this very call.
                let _ = gone.send(());
            }
            let changed = acted.map_err(|refusal| error::action(&refusal))?;
            let state = convert::job_state(changed.state).into();
            Ok(v1::JobActionResponse { changed: changed.changed, state })
        });
        match done.await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(_) if has_ended.await.is_ok() => {
                act_on_ended(&self.visible_job(&who, id.0).await?, action)
            }
            Err(status) => Err(status),
        }
    }
}

/// Indexes of an array's tasks; `None` if none are named.
fn indexes_of(text: &str) -> Result<Option<Vec<(u32, u32)>>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let ranges = admit::index_ranges(text);
    ranges.map(Some).map_err(|message| error::invalid("tasks", "MALFORMED", message))
}

/// A terminal job is left as it is; only a cancel of it is no error.
fn act_on_ended(
    detail: &JobDetail,
    action: Action,
) -> Result<Response<v1::JobActionResponse>, Status> {
    let state = detail.job.status.state;
    match action {
        Action::Cancel => {
            let state = convert::job_state(state).into();
            Ok(Response::new(v1::JobActionResponse { changed: false, state }))
        }
        Action::Hold | Action::Release | Action::Requeue => {
            let (word, id) = (action.word(), detail.job.id);
            let message =
                format!("cannot {word} job {id}: it has {}; submit it again", state.word());
            Err(error::status(Code::FailedPrecondition, "WRONG_JOB_STATE", message))
        }
    }
}
