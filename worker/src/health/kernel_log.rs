//! The kernel's log, as a second source of the driver's errors: it knows which process one is about, and it tells of a GPU
//! that fell off the bus where the driver's library has no word for it.
//!
//! Only records of the kernel itself count: whoever may write to the log can write anything into it but that.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

/// What begins every error of the driver.
const XID: &str = "NVRM: Xid (";
/// What the driver says of a GPU that does not answer on its bus, in several sentences.
const FELL_OFF: &str = "fallen off the bus";
const DRIVER: &str = "NVRM:";
/// Longest text of a record that is told.
const DETAIL_MAX_BYTES: usize = 512;
/// The kernel writes no longer record.
const RECORD_MAX_BYTES: usize = 8192;
/// Facility of the kernel, and what the level before it takes.
const FACILITY_KERNEL: u32 = 0;
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

/// Reads a record as `/dev/kmsg` has it: `priority,number,time,flags;text`. `None` for what is of no interest here.
pub fn parse(record: &str) -> Option<Logged> {
    let (head, text) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    if priority >> LEVEL_BITS != FACILITY_KERNEL {
        return None;
    }
    // Lines within a record.
    let text = text.replace("\\x0a", " ");
    parse_xid(&text).or_else(|| parse_fall(&text))
}

fn parse_xid(text: &str) -> Option<Logged> {
    let (_, rest) = text.split_once(XID)?;
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
    if !text.contains(DRIVER) || !text.contains(FELL_OFF) {
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

/// Reads the log from its end on, on a thread of its own. `None`, and a line in the log, where it cannot be read.
pub fn follow(path: &Path) -> Option<mpsc::Receiver<Logged>> {
    let opened = open(path).and_then(|file| {
        let (tell, told) = mpsc::channel(QUEUE);
        let path = path.to_owned();
        let read = move || read_for_ever(file, &path, &tell);
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

/// Opened at its end; a pipe has none.
fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.seek(SeekFrom::End(0)) {
        Err(error) if error.raw_os_error() != Some(libc::ESPIPE) => Err(error),
        _ => Ok(file),
    }
}

fn read_for_ever(mut file: File, path: &Path, tell: &mpsc::Sender<Logged>) {
    let mut buffer = [0; RECORD_MAX_BYTES];
    let mut unread = Vec::new();
    loop {
        match file.read(&mut buffer) {
            Ok(0) => std::thread::sleep(PAUSE),
            Ok(count) => {
                unread.extend_from_slice(&buffer[..count]);
                if pass_on(&mut unread, tell).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&file),
            // Records were overwritten before they were read, or one is longer than any: the next one is read.
            Err(error) if is_skipped(&error) => {}
            Err(error) => return cannot_read(path, &error),
        }
    }
}

fn is_skipped(error: &io::Error) -> bool {
    let known = [Errno::EPIPE, Errno::EINVAL, Errno::EINTR].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|code| known.contains(&code))
}

fn wait(file: &File) {
    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    // What fails here fails when it is read.
    let _ = poll(&mut files, PollTimeout::NONE);
}

/// Whole lines; what begins the next one stays.
fn pass_on(unread: &mut Vec<u8>, tell: &mpsc::Sender<Logged>) -> Result<(), ()> {
    while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = unread.drain(..=end).collect();
        let logged = parse(String::from_utf8_lossy(&line).trim_end());
        if let Some(logged) = logged {
            // The daemon ends.
            tell.blocking_send(logged).map_err(|_| ())?;
        }
    }
    if unread.len() > RECORD_MAX_BYTES {
        unread.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Option<PciAddress> {
        Some(PciAddress::parse(text).unwrap())
    }

    /// Number, process and the beginning of the rest, of a text that the kernel wrote.
    fn xid(text: &str) -> (Option<PciAddress>, u32, u32, String) {
        match parse(&format!("4,1723,5140900,-;{text}")) {
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
            match parse(&format!("3,9,1,-;{text}")) {
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
            assert_eq!(parse(&format!("{head};{forged}")), None, "{head}");
        }
        for record in [
            "6,1,1,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.159.04",
            "4,1,1,-;pcieport 0000:80:01.0: AER: device has fallen off the bus",
            " SUBSYSTEM=pci",
            " DEVICE=+pci:0000:3b:00.0;NVRM: Xid (PCI:0000:3b:00): 79,",
            "4,1,1,-;NVRM: Xid (PCI:0000:3b:00): many, x",
            "4,1,1,-;NVRM: Xid (PCI:0000:3b:00",
            "",
            ";;;",
        ] {
            assert_eq!(parse(record), None, "{record}");
        }
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
