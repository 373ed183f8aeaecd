//! The process that reads GPUs: `gotgan-worker nvml-reader`, started by the daemon and never by hand.
//!
//! It holds nothing that anybody needs. It ends when the daemon is gone, without asking the driver's library to end as
//! well: that may block.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::frames::{self, Said};
use super::{describe, watch};
use crate::nvml::Driver;

/// Says at least this often that it does not hang.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// First file that is not one of the three that a process begins with.
const FIRST_OTHER_FILE: libc::c_uint = 3;
const EXIT_GONE: i32 = 0;
const EXIT_PANIC: i32 = 101;

/// What to do.
#[derive(Clone, Debug)]
pub struct ReaderPlan {
    /// NVML's library; absent: where the system finds it.
    pub library: Option<String>,
    /// How often GPUs are read.
    pub interval: Duration,
    /// GPUs to read, by UUID; none: those that the driver names.
    pub known: Vec<String>,
}

/// Reads GPUs until the daemon is gone.
pub fn run(plan: &ReaderPlan) -> ExitCode {
    let Ok(output) = leave_all_else() else {
        return ExitCode::FAILURE;
    };
    let output = Arc::new(Output(Mutex::new(output)));
    let driver = match Driver::open(plan.library.as_deref()) {
        Ok(driver) => driver,
        Err(error) => {
            output.say(Said::NoDriver(error.to_string()));
            return ExitCode::SUCCESS;
        }
    };
    for uuid in open(plan, driver, &output) {
        watch::start(driver, uuid, plan.interval, &output);
    }
    loop {
        std::thread::sleep(plan.interval.min(ALIVE_EVERY));
        output.say(Said::Alive(true));
    }
}

/// The first word; and the GPUs that are read from now on.
fn open(plan: &ReaderPlan, driver: &'static Driver, output: &Output) -> Vec<String> {
    if !plan.known.is_empty() {
        output.say(Said::Opened(describe::versions(driver)));
        return plan.known.clone();
    }
    let opened = describe::describe_all(driver);
    let uuids = opened.gpus.iter().map(|gpu| gpu.device.uuid.clone()).collect();
    output.say(Said::Opened(opened));
    uuids
}

/// Keeps the three standard files and nothing else, and ends with the daemon, whatever way that ends.
fn leave_all_else() -> io::Result<File> {
    end_when_a_thread_panics();
    close_other_files();
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    std::thread::Builder::new().name("end".into()).spawn(end_with_input)?;
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// A thread that is gone would look like a GPU that hangs; a process that is gone is started again.
fn end_when_a_thread_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        end(EXIT_PANIC);
    }));
}

/// What the daemon itself has inherited has no mark that closes it here.
#[expect(unsafe_code, reason = "a system call without a safe form")]
fn close_other_files() {
    // SAFETY: this process has opened nothing yet; a kernel that lacks the call leaves the files open.
    let _ = unsafe { libc::close_range(FIRST_OTHER_FILE, libc::c_uint::MAX, 0) };
}

fn end_with_input() {
    let mut nothing = [0; 64];
    while matches!(io::stdin().read(&mut nothing), Ok(1..)) {}
    end(EXIT_GONE);
}

/// Ends this process, which has used the driver's library, without asking that to end as well.
pub fn end_at_once() -> ! {
    end(EXIT_GONE)
}

/// At once: the library's own end, which a usual exit would call, may block.
#[expect(unsafe_code, reason = "a system call without a safe form")]
fn end(code: i32) -> ! {
    // SAFETY: ends this process; nothing of it is needed by anybody.
    unsafe { libc::_exit(code) }
}

/// The daemon's end of it.
#[derive(Debug)]
pub(super) struct Output(Mutex<File>);

impl Output {
    /// Says something. Waits while the daemon does not read; ends when it is gone.
    pub(super) fn say(&self, said: Said) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if frames::write(&mut *file, said).is_err() {
            end(EXIT_GONE);
        }
    }
}
