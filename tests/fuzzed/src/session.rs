//! The stream of a worker: whatever it says after it has registered, or instead of that.

use gotgan_core::ids::GpuUuid;
use gotgan_core::world::World;
use gotgan_proto::v1;
use gotgan_scheduler::auth::Role;
use prost::Message;
use tonic::Code;

use crate::edge::{on_stage, who, world};

/// What a worker says, as one message.
#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<v1::WorkerMessage>,
}

/// The first byte says whether it registers properly. Whatever a worker says, no part of a GPU is given twice after it, and
/// what its attempts hold is on nodes that are there.
pub(crate) fn take(bytes: &[u8]) {
    let Some((registers, rest)) = bytes.split_first() else { return };
    let Ok(said) = Said::decode(rest) else { return };
    let inventory = Some(world::inventory("n1"));
    let register = v1::Register { inventory, ..v1::Register::default() };
    let register =
        v1::WorkerMessage { message: Some(v1::worker_message::Message::Register(register)) };
    let first = (registers % 2 == 0).then_some(register);
    let messages: Vec<Vec<u8>> =
        first.iter().chain(&said.messages).map(Message::encode_to_vec).collect();
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    on_stage(|stage| {
        stage.begin();
        if let Err(status) = stage.call("Workers/Session", who(Role::Worker), &messages) {
            let code = status.code();
            assert!(!matches!(code, Code::Unknown | Code::Unavailable), "{status}");
        }
        if let Some(wrong) = stage.look(wrong_with) {
            panic!("{wrong}");
        }
    });
}

/// What does not hold of a world.
fn wrong_with(world: &World) -> Option<String> {
    let mut given = std::collections::BTreeMap::<&GpuUuid, u64>::new();
    for attempt in world.attempts.values() {
        for place in &attempt.placement.nodes {
            if !world.nodes.contains_key(&place.node) {
                return Some(format!("{} is on {}, which is not there", attempt.id, place.node));
            }
            for gpu in &place.gpus {
                *given.entry(&gpu.uuid).or_default() += gpu.milli.0;
            }
        }
    }
    let twice = given.into_iter().find(|(_, milli)| *milli > 1000);
    twice.map(|(gpu, milli)| format!("{milli} thousandths of {gpu} are given"))
}
