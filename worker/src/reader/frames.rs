//! What the process that reads GPUs tells the daemon: messages on its standard output, each with its length before it.
//!
//! Both ends are the same program of the same version: nothing here needs to be understood by another one.

use std::io::{self, Read, Write};

use gotgan_proto::v1::{GpuDevice, GpuReading, MigCut};
use prost::Message;

/// A frame longer than this is nonsense: a reading with hundreds of processes has some ten thousand bytes.
const FRAME_MAX_BYTES: usize = 4 << 20;

/// One message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Frame {
    /// What it says.
    #[prost(oneof = "Said", tags = "1, 2, 3, 4, 5, 6")]
    pub said: Option<Said>,
}

/// What it may say.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Said {
    /// There is no driver to ask, and why. The last word.
    #[prost(string, tag = "1")]
    NoDriver(String),
    /// The driver is open. The first word.
    #[prost(message, tag = "2")]
    Opened(Opened),
    /// One look at a GPU.
    #[prost(message, tag = "3")]
    Seen(Look),
    /// Something happened to a GPU.
    #[prost(message, tag = "4")]
    Happened(Happened),
    /// Whether events of a GPU are waited for.
    #[prost(message, tag = "5")]
    Watching(Watching),
    /// The process itself does not hang.
    #[prost(bool, tag = "6")]
    Alive(bool),
}

/// The driver and its GPUs. Without GPUs where the asker knows them already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Opened {
    /// GPUs, in the driver's order; without their class.
    #[prost(message, repeated, tag = "1")]
    pub gpus: Vec<Described>,
    /// As in "580.65.06".
    #[prost(string, tag = "2")]
    pub driver_version: String,
    /// As in "12.8".
    #[prost(string, tag = "3")]
    pub cuda_version: String,
    /// The library is a double for tests, and its GPUs are invented.
    #[prost(bool, tag = "4")]
    pub double: bool,
}

/// One GPU.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Described {
    /// As it is registered.
    #[prost(message, required, tag = "1")]
    pub device: GpuDevice,
    /// Number of its device node, where the driver tells it.
    #[prost(uint32, optional, tag = "2")]
    pub minor: Option<u32>,
}

/// One look at a GPU.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Look {
    /// As it goes into heartbeats.
    #[prost(message, required, tag = "1")]
    pub reading: GpuReading,
    /// Those of its processes that compute.
    #[prost(uint32, tag = "2")]
    pub compute_processes: u32,
    /// What it is cut into; absent if the driver did not say.
    #[prost(message, optional, tag = "3")]
    pub cut: Option<CutSeen>,
}

/// What a GPU is cut into.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CutSeen {
    /// Absent: it is whole.
    #[prost(message, optional, tag = "1")]
    pub cut: Option<MigCut>,
    /// Number of its device node, which may change when it is cut; absent if the driver does not tell.
    #[prost(uint32, optional, tag = "2")]
    pub minor: Option<u32>,
}

/// Something that happened to a GPU.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Happened {
    /// The GPU.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// One bit, as the driver numbers kinds of events.
    #[prost(uint64, tag = "2")]
    pub kind: u64,
    /// For an error of the driver its number.
    #[prost(uint64, tag = "3")]
    pub data: u64,
    /// When it was told, Unix microseconds.
    #[prost(int64, tag = "4")]
    pub at_us: i64,
}

/// Whether events of a GPU are waited for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Watching {
    /// The GPU.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// Why they are not; empty if they are.
    #[prost(string, tag = "2")]
    pub failure: String,
}

/// Writes one message, in one piece.
pub fn write(output: &mut impl Write, said: Said) -> io::Result<()> {
    let body = Frame { said: Some(said) }.encode_to_vec();
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(body);
    output.write_all(&bytes)
}

/// Reads one message; `None` at the end. What the reader does not know is an error: the other end is the same program.
pub fn read(input: &mut impl Read) -> io::Result<Option<Said>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_MAX_BYTES {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    let frame = Frame::decode(body.as_slice()).map_err(io::Error::other)?;
    frame.said.map(Some).ok_or_else(|| io::Error::other("a frame that says nothing"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_frame_cut_short_is_an_error() {
        let reading = GpuReading { uuid: "GPU-1".into(), ..Default::default() };
        let seen = Said::Seen(Look { reading, compute_processes: 2, cut: None });
        let mut bytes = Vec::new();
        write(&mut bytes, seen.clone()).unwrap();
        write(&mut bytes, Said::Alive(true)).unwrap();
        let mut rest = bytes.as_slice();
        assert_eq!(read(&mut rest).unwrap(), Some(seen));
        assert_eq!(read(&mut rest).unwrap(), Some(Said::Alive(true)));
        assert_eq!(read(&mut rest).unwrap(), None);
        assert!(read(&mut &bytes[..10]).is_err());
    }

    #[test]
    fn nonsense_is_an_error_and_takes_no_memory() {
        assert!(read(&mut [0xff; 64].as_slice()).is_err());
        assert!(read(&mut [0; 64].as_slice()).is_err(), "an empty frame says nothing");
    }
}
