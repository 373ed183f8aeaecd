//! The gRPC API of Gotgan as Rust types.
//!
//! Everything here is generated from `proto/gotgan/v1/*.proto`; the comments there are the reference. This crate
//! holds no behaviour but how much room a message is given.

pub mod codec;

/// Version 1 of the API.
pub mod v1 {
    #![allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
    tonic::include_proto!("gotgan.v1");
}

/// The encoded file descriptors of the API, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Domain of every `google.rpc.ErrorInfo` the scheduler sends.
pub const ERROR_DOMAIN: &str = "gotgan";

/// Reason of the refusal by a scheduler that does not lead. Its metadata says who does, where that is known.
pub const NOT_LEADER: &str = "NOT_LEADER";

/// Key in the metadata of [`NOT_LEADER`]: the address of the leader, as in `https://host:port`.
pub const LEADER_ADDRESS: &str = "leader";

/// Key in the metadata of [`NOT_LEADER`]: the leader's epoch, in decimal digits.
pub const LEADER_EPOCH: &str = "epoch";

/// Header of a request to which a standby may answer what is some seconds old. What it holds does not matter. Calls that
/// are not for standbys are sent to the leader all the same.
pub const STALE_READ: &str = "gotgan-stale-read";

/// Header of a standby's answer: how old what it says may be, milliseconds.
pub const STALE_MS: &str = "gotgan-stale-ms";

/// Largest message a client may send, and largest page of a listing, in bytes: what libraries for gRPC take by themselves.
pub const MESSAGE_MAX_BYTES: usize = 4 << 20;

/// What a client should be ready to receive, in bytes: a job of a thousand nodes that was tried a hundred times is told with each
/// node and GPU that it ever had.
pub const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Largest message on a worker's stream, in bytes.
pub const WORKER_MESSAGE_MAX_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

    /// Every field, value and call there ever was in a release, in one line each.
    const WIRE: &str = include_str!("../wire.txt");

    /// Programs of two releases speak with each other during an upgrade: what one says must mean the same to the other.
    #[test]
    fn nothing_that_was_ever_said_means_something_else_now() {
        let (was, is): (BTreeSet<_>, _) = (WIRE.lines().map(str::to_owned).collect(), said());
        let gone: Vec<_> = was.difference(&is).collect();
        assert!(gone.is_empty(), "take new numbers and keep the old ones: {gone:#?}");
        if std::env::var_os("GOTGAN_WRITE_DOCS").is_some() {
            let text: String = is.iter().map(|line| format!("{line}\n")).collect();
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/wire.txt");
            return std::fs::write(path, text).unwrap();
        }
        let fresh: Vec<_> = is.difference(&was).collect();
        assert!(fresh.is_empty(), "run this with GOTGAN_WRITE_DOCS=1 to add: {fresh:#?}");
    }

    fn said() -> BTreeSet<String> {
        let files = FileDescriptorSet::decode(super::FILE_DESCRIPTOR_SET).unwrap();
        let mut lines = BTreeSet::new();
        for file in files.file.iter().filter(|file| file.package() == "gotgan.v1") {
            file.message_type.iter().for_each(|message| of_message("", message, &mut lines));
            file.enum_type.iter().for_each(|values| of_enum("", values, &mut lines));
            for service in &file.service {
                for call in &service.method {
                    let streams = |is: bool| if is { "stream of " } else { "" };
                    lines.insert(format!(
                        "call {}.{}: {}{} -> {}{}",
                        service.name(),
                        call.name(),
                        streams(call.client_streaming()),
                        call.input_type(),
                        streams(call.server_streaming()),
                        call.output_type()
                    ));
                }
            }
        }
        lines
    }

    fn of_message(above: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
        let name = format!("{above}{}", message.name());
        for field in &message.field {
            let kind = match field.type_name() {
                "" => field.r#type().as_str_name(),
                named => named,
            };
            let (label, number) = (field.label().as_str_name(), field.number());
            lines.insert(format!("field {name} {number} {}: {label} {kind}", field.name()));
        }
        let below = format!("{name}.");
        message.nested_type.iter().for_each(|nested| of_message(&below, nested, lines));
        message.enum_type.iter().for_each(|values| of_enum(&below, values, lines));
    }

    fn of_enum(above: &str, values: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
        for value in &values.value {
            let (name, number) = (values.name(), value.number());
            lines.insert(format!("value {above}{name} {number} {}", value.name()));
        }
    }
}
