//! The signals a shim listens to, as something to poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A child has changed state.
    Child,
    /// The system wants this process to end.
    Terminate,
}

/// Blocked signals and the descriptor that delivers them.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks child and termination signals, and those of terminals, which are never for a shim.
    pub fn block() -> io::Result<Self> {
        let mask: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
            .into_iter()
            .collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let descriptor =
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor })
    }

    /// The next signal received, if one was.
    pub fn next(&mut self) -> io::Result<Option<Received>> {
        while let Some(info) = self.descriptor.read_signal()? {
            match i32::try_from(info.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => return Ok(Some(Received::Child)),
                Ok(Ok(Signal::SIGTERM)) => return Ok(Some(Received::Terminate)),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
