//! The kernel's log, as a second source of the driver's errors: it knows which process one is about, and it tells of a GPU
//! that fell off the bus where the driver's library has no word for it.
//!
//! Only records of the kernel itself count: whoever may write to the log can write anything into it but that.
//!
//! Records are numbered within a boot. A daemon that knows up to where an earlier one has read goes on there, so that what
//! the kernel wrote while none ran is told as well; otherwise it begins at the end.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::clock::{self, now_us};

/// What begins every error of the driver. Within a text it may be the name of a device that somebody has plugged in.
const XID: &str = "NVRM: Xid (";
/// What the driver says of a GPU that does not answer on its bus, in several sentences.
const FELL_OFF: &str = "fallen off the bus";
const DRIVER: &str = "NVRM:";
/// Longest text of a record that is told.
const DETAIL_MAX_BYTES: usize = 512;
/// The kernel writes no longer record.
const RECORD_MAX_BYTES: usize = 8192;
/// Facility of the kernel, and what the level before it takes.
const FACILITY_KERNEL: u64 = 0;
const LEVEL_BITS: u32 = 3;
/// Records that wait to be taken; then the log itself keeps them.
const QUEUE: usize = 1024;
/// Before a file that has nothing more to read is looked at again.
const PAUSE: Duration = Duration::from_millis(20);

/// Where a GPU is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u32,
    device: u32,
}

impl PciAddress {
    /// Reads `0000:3b:00`, `00000000:3B:00.0` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('.').map_or(text, |(address, _)| address);
        let mut parts = text.split(':').map(|part| u32::from_str_radix(part, 16).ok());
        let address = Self { domain: parts.next()??, bus: parts.next()??, device: parts.next()?? };
        parts.next().is_none().then_some(address)
    }
}

/// What a record says of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logged {
    /// An error of the driver.
    Xid {
        /// Where the GPU is.
        at: Option<PciAddress>,
        /// The error's number.
        number: u32,
        /// Process that it is about; 0 if the driver does not say.
        pid: u32,
        /// What follows the number.
        detail: String,
    },
    /// It does not answer on its bus, said without a number.
    FellOff {
        /// Where it is.
        at: Option<PciAddress>,
        /// All of it.
        text: String,
    },
}

/// A record, as `/dev/kmsg` has it: `priority,number,time,flags;text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts within a boot.
    pub number: u64,
    /// Since the boot.
    pub written_us: u64,
    /// What is of interest in it; nothing in most.
    pub logged: Option<Logged>,
}

/// What is read of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A record of interest.
    Record {
        /// Its number.
        number: u64,
        /// When it was written, Unix microseconds.
        at_us: i64,
        /// What it says.
        logged: Logged,
    },
    /// All that was there at first has been read, up to this number.
    ReadUpTo(u64),
}

/// Reads a record. `None` for what is none, as the lines after it that name its device.
pub fn parse(record: &str) -> Option<Record> {
    let (head, text) = record.split_once(';')?;
    let mut numbers = head.split(',').map(|number| number.parse::<u64>().ok());
    let (priority, number, written_us) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let is_kernels = priority >> LEVEL_BITS == FACILITY_KERNEL;
    let logged = is_kernels.then(|| read_text(text)).flatten();
    Some(Record { number, written_us, logged })
}

fn read_text(text: &str) -> Option<Logged> {
    // Lines within a record.
    let text = text.replace("\\x0a", " ");
    parse_xid(&text).or_else(|| parse_fall(&text))
}

fn parse_xid(text: &str) -> Option<Logged> {
    let rest = text.strip_prefix(XID)?;
    let (place, rest) = rest.split_once("):")?;
    // A GPU that is cut adds which instance it is about.
    let place = place.split_whitespace().next()?;
    let at = PciAddress::parse(place.strip_prefix("PCI:").unwrap_or(place));
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(digits);
    let detail = shortened(rest.trim_start_matches([',', ' ']));
    Some(Logged::Xid { at, number: number.parse().ok()?, pid: pid(&detail), detail })
}

fn pid(detail: &str) -> u32 {
    let written = detail.split(',').find_map(|part| part.trim().strip_prefix("pid="));
    written.and_then(|pid| pid.trim_matches('\'').parse().ok()).unwrap_or(0)
}

fn parse_fall(text: &str) -> Option<Logged> {
    if !text.starts_with(DRIVER) || !text.contains(FELL_OFF) {
        return None;
    }
    let words = text.split([' ', '(', ')', ',']);
    let at = words.map(|word| word.trim_start_matches("PCI:").trim_end_matches(':'));
    Some(Logged::FellOff { at: at.into_iter().find_map(PciAddress::parse), text: shortened(text) })
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(DETAIL_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim_end().to_owned()
}

/// Reads the log on a thread of its own: what was written after a record of this boot, or from its end on. `None`, and a
/// line in the log, where it cannot be read.
pub fn follow(path: &Path, after: Option<u64>) -> Option<mpsc::Receiver<Told>> {
    let opened = open(path).and_then(|file| {
        let (tell, told) = mpsc::channel(QUEUE);
        let mut follower = Follower {
            path: path.to_owned(),
            file,
            unread: Vec::new(),
            tell,
            after,
            behind: true,
            last: None,
        };
        if after.is_none() {
            // Nothing of it is told, so that nobody needs to listen yet. What is written from now on is.
            while follower.behind && follower.step(|_| {})? {}
        }
        let read = move || follower.read_for_ever();
        std::thread::Builder::new().name("kernel-log".into()).spawn(read)?;
        Ok(told)
    });
    opened.map_err(|error| cannot_read(path, &error)).ok()
}

fn cannot_read(path: &Path, error: &io::Error) {
    tracing::warn!(
        path = %path.display(), %error,
        "the kernel's log cannot be read: errors of the GPU driver are told without the process that they are about"
    );
}

/// At its beginning: what is older than this daemon is passed over by its number.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

struct Follower {
    path: PathBuf,
    file: File,
    /// Begins a line.
    unread: Vec<u8>,
    tell: mpsc::Sender<Told>,
    /// Number of the last record that an earlier daemon has read.
    after: Option<u64>,
    /// What was there at first has not been read yet.
    behind: bool,
    last: Option<u64>,
}

/// Nobody listens any more.
struct Unheard;

impl Follower {
    fn read_for_ever(mut self) {
        loop {
            match self.step(Self::wait) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return cannot_read(&self.path, &error),
            }
        }
    }

    /// Reads once, and rests where there is nothing to read. Whether anybody listens.
    fn step(&mut self, rest: impl Fn(&Self)) -> io::Result<bool> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let heard = match self.file.read(&mut buffer) {
            Ok(0) => self.at_end().inspect(|()| rest(self)),
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                self.pass_on()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.at_end().inspect(|()| rest(self))
            }
            // Records were overwritten before they were read, or one is longer than any: the next one is read.
            Err(error) if is_skipped(&error) => Ok(()),
            Err(error) => return Err(error),
        };
        Ok(heard.is_ok())
    }

    /// Waits for more. A file that has ended is always ready to be read.
    fn wait(&self) {
        let mut files = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        // What fails here fails when it is read.
        let _ = poll(&mut files, PollTimeout::NONE);
        std::thread::sleep(PAUSE);
    }

    fn at_end(&mut self) -> Result<(), Unheard> {
        match (std::mem::replace(&mut self.behind, false), self.last) {
            (true, Some(last)) => self.say(Told::ReadUpTo(last)),
            (true, None) | (false, _) => Ok(()),
        }
    }

    /// Whole lines; what begins the next one stays.
    fn pass_on(&mut self) -> Result<(), Unheard> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            if let Some(record) = parse(String::from_utf8_lossy(&line).trim_end()) {
                self.take(record)?;
            }
        }
        if self.unread.len() > RECORD_MAX_BYTES {
            self.unread.clear();
        }
        Ok(())
    }

    fn take(&mut self, record: Record) -> Result<(), Unheard> {
        let Record { number, written_us, logged } = record;
        self.last = Some(number);
        let at_us = match (self.behind, self.after) {
            (false, _) => now_us(),
            (true, Some(after)) if number > after => clock::wall_us(written_us),
            (true, Some(_) | None) => return Ok(()),
        };
        match logged {
            Some(logged) => self.say(Told::Record { number, at_us, logged }),
            None => Ok(()),
        }
    }

    fn say(&self, told: Told) -> Result<(), Unheard> {
        match self.tell.try_send(told) {
            Ok(()) => Ok(()),
            // Not before anybody listens: then there is room for all that is told.
            Err(TrySendError::Full(told)) => self.tell.blocking_send(told).map_err(|_| Unheard),
            Err(TrySendError::Closed(_)) => Err(Unheard),
        }
    }
}

fn is_skipped(error: &io::Error) -> bool {
    let known = [Errno::EPIPE, Errno::EINVAL, Errno::EINTR].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|code| known.contains(&code))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn logged(record: &str) -> Option<Logged> {
        parse(record)?.logged
    }

    fn at(text: &str) -> Option<PciAddress> {
        Some(PciAddress::parse(text).unwrap())
    }

    /// Number, process and the beginning of the rest, of a text that the kernel wrote.
    fn xid(text: &str) -> (Option<PciAddress>, u32, u32, String) {
        match logged(&format!("4,1723,5140900,-;{text}")) {
            Some(Logged::Xid { at, number, pid, detail }) => (at, number, pid, detail),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn errors_are_read_in_every_form_that_drivers_write_them() {
        let known = [
            (
                "NVRM: Xid (PCI:0000:3b:00): 79, pid=4242, name=python, GPU has fallen off the bus.",
                "0000:3b:00",
                79,
                4242,
            ),
            (
                "NVRM: Xid (PCI:0000:01:00): 79, pid=1122, GPU has fallen off the bus.",
                "0000:01:00",
                79,
                1122,
            ),
            ("NVRM: Xid (PCI:0000:23:00): 79, GPU has fallen off the bus.", "0000:23:00", 79, 0),
            (
                "NVRM: Xid (PCI:0000:cb:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
                "0000:cb:00",
                13,
                0,
            ),
            (
                "NVRM: Xid (PCI:0000:cb:00): 109, pid=1797828, name=pt_main_thread, Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x58005",
                "0000:cb:00",
                109,
                1_797_828,
            ),
            (
                "NVRM: Xid (PCI:0000:00:06): 31, pid=79749, name=exe, Ch 0000000a, intr 00000000. MMU Fault: ENGINE GRAPHICS",
                "0000:00:06",
                31,
                79749,
            ),
            (
                "NVRM: Xid (PCI:0000:b3:00.0): 79, GPU has fallen off the bus and is not responding to commands.",
                "0000:b3:00",
                79,
                0,
            ),
            (
                "NVRM: Xid (PCI:0000:17:00 GPU-I:05): 94, pid=7194, name=python3, Contained: SM (0x1).",
                "0000:17:00",
                94,
                7194,
            ),
            (
                "NVRM: Xid (PCI:0008:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 06",
                "0008:01:00",
                149,
                0,
            ),
            ("NVRM: Xid (0000:03:00): 8, Channel 0000001e", "0000:03:00", 8, 0),
            (
                "NVRM: Xid (PCI:0000:18:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
                "0000:18:00",
                154,
                0,
            ),
        ];
        for (text, place, number, pid) in known {
            let found = xid(text);
            assert_eq!((found.0, found.1, found.2), (at(place), number, pid), "{text}");
        }
        let detail = xid(known[4].0).3;
        assert!(detail.starts_with("pid=1797828, name=pt_main_thread, Ch 00000008"), "{detail}");
        assert_eq!(xid(known[2].0).3, "GPU has fallen off the bus.");
    }

    #[test]
    fn a_fall_off_the_bus_without_a_number_invents_none() {
        let known = [
            "NVRM: GPU 0000:b3:00.0: GPU has fallen off the bus.",
            "NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
            "NVRM: GPU at PCI:0000:b3:00: GPU has fallen off the bus.",
        ];
        for text in known {
            match logged(&format!("3,9,1,-;{text}")) {
                Some(Logged::FellOff { at: found, text }) => {
                    assert_eq!(found, at("0000:b3:00"), "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_the_kernel_did_not_write_and_what_is_not_of_the_driver_is_passed_over() {
        let forged = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.";
        for head in ["12,1,1,-", "14,1,1,-", "24,1,1,-"] {
            assert_eq!(logged(&format!("{head};{forged}")), None, "{head}");
        }
        for record in [
            "6,1,1,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.159.04",
            "4,1,1,-;pcieport 0000:80:01.0: AER: device has fallen off the bus",
            " SUBSYSTEM=pci",
            " DEVICE=+pci:0000:3b:00.0;NVRM: Xid (PCI:0000:3b:00): 79,",
            "6,1,1,-;usb 1-1: Product: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
            "4,1,1,-;NVRM: Xid (PCI:0000:3b:00): many, x",
            "4,1,1,-;NVRM: Xid (PCI:0000:3b:00",
            "",
            ";;;",
        ] {
            assert_eq!(logged(record), None, "{record}");
        }
    }

    #[test]
    fn records_are_numbered_and_lines_that_belong_to_one_are_none() {
        let record = parse("30,1724,5140900,-,caller=T1;something else").unwrap();
        assert_eq!((record.number, record.written_us, record.logged), (1724, 5_140_900, None));
        assert_eq!(parse(" DEVICE=+pci:0000:3b:00.0"), None);
    }

    #[test]
    fn a_place_is_the_same_however_it_is_written() {
        assert_eq!(at("00000000:3B:00.0"), at("0000:3b:00"));
        for bad in ["", "10de:26b5", "0000:3b:00:1", "x:y:z"] {
            assert_eq!(PciAddress::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let found = xid(&format!("NVRM: Xid (PCI:0000:3b:00): 13, {}", "é".repeat(400)));
        assert!(found.3.len() <= DETAIL_MAX_BYTES && found.3.starts_with('é'));
    }
}
