//! One worker's connection to a shim: commands in, events out, never waiting for either.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use super::events::EventLog;
use super::protocol::{LINE_MAX_BYTES, ShimCommand};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// A connected worker.
#[derive(Debug)]
pub struct Connection {
    /// The socket, non-blocking.
    pub stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Events sent or queued; `None` until the worker has said from where it wants them.
    sent: Option<usize>,
}

impl Connection {
    /// Takes over an accepted socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), output: Vec::new(), sent: None })
    }

    /// Whether something waits to be written.
    pub fn is_behind(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether the worker was sent every event.
    pub fn has_all(&self, events: &EventLog) -> bool {
        !self.is_behind() && self.sent.is_some_and(|sent| sent >= events.len())
    }

    /// Reads what is there and returns the whole commands in it, without those that are newer than this shim; an error
    /// when the worker is gone or talks garbage.
    pub fn read(&mut self) -> io::Result<Vec<ShimCommand>> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let commands = self.take_commands()?;
        if self.input.len() > LINE_MAX_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(commands)
    }

    /// Events are wanted after the first `skip`.
    pub fn follow(&mut self, skip: usize) {
        self.sent = Some(skip);
    }

    /// Sends events not sent yet, as far as the socket takes them.
    pub fn pump(&mut self, events: &EventLog) -> io::Result<()> {
        if let Some(sent) = self.sent {
            events
                .after(sent)
                .iter()
                .for_each(|line| self.output.extend_from_slice(line.as_bytes()));
            self.sent = Some(events.len().max(sent));
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_commands(&mut self) -> io::Result<Vec<ShimCommand>> {
        let Some(end) = self.input.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.input.drain(..=end).collect();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read = lines.map(|line| ShimCommand::read(line).map_err(io::Error::from));
        read.filter_map(Result::transpose).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heard(text: &str) -> io::Result<Vec<ShimCommand>> {
        let (mut worker, shim) = UnixStream::pair().unwrap();
        worker.write_all(text.as_bytes()).unwrap();
        Connection::new(shim).unwrap().read()
    }

    #[test]
    fn a_command_that_is_newer_than_the_shim_is_passed_over_and_what_follows_is_obeyed() {
        let known = "{\"hello\":{\"version\":9,\"from\":1,\"colour\":\"blue\"}}\n";
        let commands = heard(&format!("{{\"pause\":{{\"for_ms\":5}}}}\n{known}")).unwrap();
        assert_eq!(commands, [ShimCommand::Hello { version: 9, from: 1 }]);
    }

    #[test]
    fn garbage_ends_the_connection() {
        assert!(heard("{\"hello\":\n").is_err());
    }
}
