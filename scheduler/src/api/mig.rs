//! GPUs that are to be cut anew by command.

use gotgan_core::ids::{GpuUuid, NodeName};
use gotgan_core::lifecycle::{self, CutRefusal, CutRequest};
use gotgan_core::mig::MigProfile;
use gotgan_proto::v1;
use tonic::Status;

use super::idempotent::{keyed, once};
use super::{Services, error};
use crate::auth::Principal;

pub(super) async fn cut(
    services: &Services,
    who: &Principal,
    request: v1::CutGpuRequest,
) -> Result<v1::CutGpuResponse, Status> {
    let node = NodeName::new(&request.name).map_err(|bad| error::bad_name("name", &bad))?;
    let gpu = GpuUuid::new(&request.gpu_uuid).map_err(|bad| error::bad_name("gpu_uuid", &bad))?;
    let profiles = profiles(&request)?;
    let wanted = CutRequest { node, gpu, profiles };
    let keyed = keyed(who, &request.idempotency_key, "CutGpu", &request, "")?;
    let by = who.subject.clone();
    once(services, keyed, move |round| {
        let changed = lifecycle::cut_gpu(&mut round.draft, &wanted, &by);
        changed.map(|changed| v1::CutGpuResponse { changed }).map_err(|refusal| refused(&refusal))
    })
    .await
}

/// Profiles of the instances; `None`: the GPU is to be whole.
fn profiles(request: &v1::CutGpuRequest) -> Result<Option<Vec<MigProfile>>, Status> {
    if request.whole && !request.profiles.is_empty() {
        let message = "is given beside profiles; a GPU is whole or cut into instances";
        return Err(error::invalid("whole", "CONFLICT", message));
    }
    if request.whole {
        return Ok(None);
    }
    let profiles: Result<Vec<MigProfile>, _> =
        request.profiles.iter().map(|profile| MigProfile::new(profile)).collect();
    profiles.map(Some).map_err(|bad| error::invalid("profiles", "MALFORMED", bad.to_string()))
}

fn refused(refusal: &CutRefusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        CutRefusal::UnknownNode(node) => error::no_such_node(node.as_str()),
        CutRefusal::UnknownGpu(..) => error::invalid("gpu_uuid", "UNKNOWN_GPU", message),
        CutRefusal::Instances => error::invalid("profiles", "OUT_OF_RANGE", message),
        CutRefusal::PartOfInstance(_) => error::invalid("profiles", "UNKNOWN_PROFILE", message),
    }
}
