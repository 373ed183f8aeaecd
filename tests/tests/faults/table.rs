//! The table of faults: what happens to a GPU, and what must follow.

use serde_json::{Value, json};

/// A fault of GPU 0 of a node of two GPUs, on which a job runs.
pub struct Fault {
    /// Also the name of the node: lower-case letters, digits and hyphens.
    pub name: &'static str,
    /// What it is, to a person.
    pub what: &'static str,
    /// How it is made.
    pub happens: Happens,
    /// What is told of it; a part of a line of the node's history.
    pub told: &'static str,
    /// How the GPU stands then, as in "out, reset".
    pub gpu: &'static str,
    /// How its node stands as a whole.
    pub node: &'static str,
    /// What becomes of the job.
    pub job: Job,
}

/// How a fault is made in the double of the driver's library.
pub enum Happens {
    /// An error of this number.
    Xid(u32),
    /// The description of the GPUs changes.
    Reads(fn(&mut Vec<Value>)),
}

/// What becomes of the job on the GPU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// It goes on and ends well.
    GoesOn,
    /// It is stopped at once, runs again elsewhere, and nobody pays.
    FailsNow,
    /// It goes on; if it fails a moment later it runs again elsewhere, and nobody pays.
    HardwarePays,
    /// It goes on; if it fails, that is its own doing.
    UserPays,
}

impl Job {
    /// In words, for a person.
    pub fn text(self) -> &'static str {
        match self {
            Job::GoesOn => "goes on",
            Job::FailsNow => "is stopped at once, and runs elsewhere",
            Job::HardwarePays => "goes on; if it fails, it runs elsewhere",
            Job::UserPays => "goes on; if it fails, it failed",
        }
    }

    /// Who pays for its time.
    pub fn who_pays(self) -> &'static str {
        match self {
            Job::GoesOn | Job::UserPays => "the project",
            Job::FailsNow => "nobody",
            Job::HardwarePays => "nobody, if it fails",
        }
    }
}

const OK: &str = "ok";
const SUSPECT: &str = "suspect";
const WHEN_IDLE: &str = "suspect, reset";
const RESET: &str = "out, reset";
const REBOOT: &str = "out, reboot";
const SERVICE: &str = "out, service";

const fn xid(
    name: &'static str,
    number: u32,
    told: &'static str,
    (gpu, node): (&'static str, &'static str),
    job: Job,
) -> Fault {
    Fault { name, what: "", happens: Happens::Xid(number), told, gpu, node, job }
}

const fn reads(
    (name, what): (&'static str, &'static str),
    change: fn(&mut Vec<Value>),
    told: &'static str,
    (gpu, node): (&'static str, &'static str),
    job: Job,
) -> Fault {
    Fault { name, what, happens: Happens::Reads(change), told, gpu, node, job }
}

/// Every fault, in the order of the page.
pub const FAULTS: &[Fault] = &[
    xid("xid-13", 13, "Xid 13: engine exception", (OK, OK), Job::UserPays),
    xid("xid-31", 31, "Xid 31: memory page fault", (OK, OK), Job::UserPays),
    xid("xid-43", 43, "Xid 43: the program's channel was reset", (OK, OK), Job::UserPays),
    xid("xid-69", 69, "Xid 69: an error of one of its engines", (OK, OK), Job::UserPays),
    xid("xid-45", 45, "Xid 45: cleaning up after another error", (OK, OK), Job::UserPays),
    xid("xid-44", 44, "Xid 44: informational", (OK, OK), Job::UserPays),
    xid("xid-154", 154, "Xid 154: what the driver wants done has changed", (OK, OK), Job::GoesOn),
    xid(
        "xid-63",
        63,
        "Xid 63: a bad row of its memory is replaced",
        (WHEN_IDLE, OK),
        Job::UserPays,
    ),
    xid("xid-92", 92, "Xid 92: wear", (SUSPECT, OK), Job::UserPays),
    xid("xid-163", 163, "Xid 163: power smoothing", (SUSPECT, OK), Job::GoesOn),
    xid("xid-94", 94, "Xid 94: contained memory error", (WHEN_IDLE, OK), Job::HardwarePays),
    xid("xid-74", 74, "Xid 74: NVLink error", (WHEN_IDLE, OK), Job::HardwarePays),
    xid("xid-145", 145, "Xid 145: NVLink error", (WHEN_IDLE, OK), Job::HardwarePays),
    xid(
        "xid-64",
        64,
        "Xid 64: a bad row of its memory could not be recorded",
        (RESET, OK),
        Job::HardwarePays,
    ),
    xid("xid-54", 54, "Xid 54: power cable", (SERVICE, OK), Job::HardwarePays),
    xid("xid-48", 48, "Xid 48: memory error of two bits", (RESET, OK), Job::FailsNow),
    xid("xid-95", 95, "Xid 95: uncontained memory error", (RESET, OK), Job::FailsNow),
    xid("xid-140", 140, "Xid 140: uncontained memory error", (RESET, OK), Job::FailsNow),
    xid("xid-46", 46, "Xid 46: the GPU stopped working", (RESET, OK), Job::FailsNow),
    xid("xid-62", 62, "Xid 62: the GPU stopped working", (RESET, OK), Job::FailsNow),
    xid("xid-109", 109, "Xid 109: the GPU stopped working", (RESET, OK), Job::FailsNow),
    xid(
        "xid-119",
        119,
        "Xid 119: the GPU's system processor does not answer",
        (RESET, OK),
        Job::FailsNow,
    ),
    xid("xid-136", 136, "Xid 136: NVLink training failed", (RESET, OK), Job::FailsNow),
    xid("xid-79", 79, "Xid 79: the GPU has fallen off the bus", (REBOOT, REBOOT), Job::FailsNow),
    xid(
        "xid-999",
        999,
        "Xid 999: an error that these rules do not know",
        (SERVICE, OK),
        Job::HardwarePays,
    ),
    reads(
        ("ecc-rose", "memory errors that cannot be repaired rose from 0 to 3"),
        |gpus| gpus[0]["ecc_since_load"] = json!([0, 3]),
        "errors of its memory that cannot be repaired rose in number (from 0 to 3)",
        (WHEN_IDLE, OK),
        Job::HardwarePays,
    ),
    reads(
        ("lost", "the driver has lost the GPU, without any Xid"),
        |gpus| gpus[0]["lost"] = json!(true),
        "the driver has lost it",
        (REBOOT, REBOOT),
        Job::FailsNow,
    ),
    reads(
        ("vanished", "the driver no longer lists the GPU"),
        |gpus| drop(gpus.remove(0)),
        "the driver has lost it",
        (REBOOT, REBOOT),
        Job::FailsNow,
    ),
    reads(
        ("reset-required", "the driver answers that the GPU must be reset"),
        |gpus| gpus[0]["answers"] = json!({ "nvmlDeviceGetMemoryInfo_v2": { "code": 16 } }),
        "it does nothing before it is reset",
        (RESET, OK),
        Job::FailsNow,
    ),
    reads(
        ("hang", "a call of the driver about the GPU never comes back"),
        |gpus| gpus[0]["answers"] = json!({ "nvmlDeviceGetUtilizationRates": { "hang": true } }),
        "the driver does not answer for it",
        (REBOOT, REBOOT),
        Job::HardwarePays,
    ),
    reads(
        ("wants-reset", "the driver wants the GPU reset"),
        |gpus| gpus[0]["recovery_action"] = json!(1),
        "the driver wants it reset",
        (RESET, OK),
        Job::FailsNow,
    ),
    reads(
        ("wants-reboot", "the driver wants the node rebooted"),
        |gpus| gpus[0]["recovery_action"] = json!(2),
        "the driver wants the node rebooted",
        (REBOOT, REBOOT),
        Job::FailsNow,
    ),
    reads(
        ("wants-links-drained", "the driver wants jobs off the GPU's NVLinks"),
        |gpus| gpus[0]["recovery_action"] = json!(3),
        "the driver wants jobs off its NVLinks",
        (RESET, OK),
        Job::HardwarePays,
    ),
    reads(
        ("wants-drain", "the driver wants the GPU drained and reset"),
        |gpus| gpus[0]["recovery_action"] = json!(4),
        "the driver wants it reset once its jobs have ended",
        (RESET, OK),
        Job::HardwarePays,
    ),
    reads(
        ("wants-something-new", "the driver wants something that is newer than Gotgan"),
        |gpus| gpus[0]["recovery_action"] = json!(99),
        "the driver wants what only a person can do",
        (SERVICE, OK),
        Job::HardwarePays,
    ),
    reads(
        ("remap-pending", "bad rows of memory wait for a reset"),
        |gpus| gpus[0]["remapped_rows"] = json!([0, 1, 1, 0]),
        "bad rows of its memory are replaced at the next reset",
        (WHEN_IDLE, OK),
        Job::UserPays,
    ),
    reads(
        ("remap-failed", "a bad row of memory could not be replaced"),
        |gpus| gpus[0]["remapped_rows"] = json!([0, 9, 0, 1]),
        "a bad row of its memory could not be replaced: exchange the board",
        (SERVICE, OK),
        Job::HardwarePays,
    ),
    reads(
        ("links-down", "some of its NVLinks are down"),
        |gpus| gpus[0]["nvlinks"] = json!([{ "active": true }, { "active": false }]),
        "some of its NVLinks are down",
        (SUSPECT, OK),
        Job::UserPays,
    ),
    reads(
        ("fabric-unhealthy", "its NVLink fabric is not healthy"),
        |gpus| gpus[0]["fabric"]["health"] = json!(2),
        "it is not part of its NVLink fabric",
        (RESET, OK),
        Job::HardwarePays,
    ),
    reads(
        ("power-brake", "the power supply slows one node down"),
        |gpus| gpus[0]["clock_reasons"] = json!(128),
        "the power supply slows it down",
        (SUSPECT, OK),
        Job::UserPays,
    ),
    reads(
        ("too-warm", "the hardware slows one node down by heat"),
        |gpus| gpus[0]["clock_reasons"] = json!(64),
        "too warm: the hardware slows it down",
        (SUSPECT, OK),
        Job::UserPays,
    ),
    reads(
        ("index-shift", "the driver lists the GPUs in another order"),
        |gpus| gpus.swap(0, 1),
        "",
        (OK, OK),
        Job::GoesOn,
    ),
];
