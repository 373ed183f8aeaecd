//! Which devices an attempt may use, as a program that the kernel runs at every use.
//!
//! Everything is allowed but the nodes of GPUs, and of these the attempt's own are. Pure: rules in, instructions out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A device node of the character kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Device {
    /// Number of its driver.
    pub major: u32,
    /// Its number with the driver; absent: all of the driver's.
    pub minor: Option<u32>,
}

/// What is kept from an attempt, and what of that it may use after all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRules {
    /// Drivers whose nodes are denied.
    pub denied_majors: BTreeSet<u32>,
    /// Nodes of these that are allowed.
    pub allowed: BTreeSet<Device>,
}

/// Drivers and their numbers; some are loaded only when the first program asks for them.
pub const DEVICE_TABLE: &str = "/proc/devices";
/// NVIDIA's driver; the number is its own for good.
pub const NVIDIA: u32 = 195;
/// The kernel's own graphics; the same.
pub const DRM: u32 = 226;
/// Of the driver's nodes, those that say nothing of one GPU: what programs open first, and mode setting.
const NVIDIA_CONTROL: [u32; 2] = [255, 254];
/// A driver with a number that differs from boot to boot, of which who has a GPU needs all nodes: unified memory.
const NEEDED_WITH_A_GPU: &str = "nvidia-uvm";
/// The driver of the permissions to parts of a GPU that is cut. Who has one part has the GPU's own node, so of these each
/// needs its own and may have no other.
const PERMISSIONS: &str = "nvidia-caps";

/// The driver of the channels through which GPUs share memory across nodes. Each attempt may open its own and no other.
const CHANNELS: &str = "nvidia-caps-imex-channels";

/// Nodes of the permissions with these numbers. `table` is the text of `/proc/devices`.
pub fn permission_nodes(numbers: &BTreeSet<u32>, table: &str) -> BTreeSet<Device> {
    let major = number_of(PERMISSIONS, table);
    let of_driver =
        |major| numbers.iter().map(move |minor| Device { major, minor: Some(*minor) }).collect();
    major.map(of_driver).unwrap_or_default()
}

/// The node of the IMEX channel with this number; absent where the driver has none. `table` is the text of `/proc/devices`.
pub fn channel_node(channel: u32, table: &str) -> Option<Device> {
    number_of(CHANNELS, table).map(|major| Device { major, minor: Some(channel) })
}

fn number_of(driver: &str, table: &str) -> Option<u32> {
    character_drivers(table).find(|(_, name)| *name == driver).map(|(major, _)| major)
}

/// Rules for an attempt that owns these nodes. `table` is the text of `/proc/devices`.
pub fn rules(owned: &BTreeSet<Device>, table: &str) -> DeviceRules {
    let drivers: Vec<(u32, &str)> = character_drivers(table).collect();
    let of_gpus = drivers.iter().filter(|(_, name)| name.starts_with("nvidia"));
    let denied_majors = of_gpus.map(|(major, _)| *major).chain([NVIDIA, DRM]).collect();
    let mut allowed = owned.clone();
    if owned.iter().any(|device| device.major == NVIDIA) {
        allowed.extend(NVIDIA_CONTROL.map(|minor| Device { major: NVIDIA, minor: Some(minor) }));
        let needed = drivers.iter().filter(|(_, name)| *name == NEEDED_WITH_A_GPU);
        allowed.extend(needed.map(|(major, _)| Device { major: *major, minor: None }));
    }
    DeviceRules { denied_majors, allowed }
}

fn character_drivers(table: &str) -> impl Iterator<Item = (u32, &str)> {
    let lines = table.lines().take_while(|line| !line.starts_with("Block"));
    lines.filter_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        Some((number.parse().ok()?, name.trim()))
    })
}

/// One instruction, as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// Target in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const MOVE: u8 = 0xb7;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
/// Of what the kernel hands over, by their offsets: what is done with which kind of device, its major, its minor.
const CONTEXT: u8 = 1;
const KIND_AT: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;
/// The lower half of the first word is the kind; this one is for character devices.
const KIND_MASK: i32 = 0xffff;
const CHARACTER: i32 = 2;
/// Registers: the answer, and what is compared.
const ANSWER: u8 = 0;
const KIND: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

/// The program of these rules.
pub fn program(rules: &DeviceRules) -> Vec<Instruction> {
    let load = |target: u8, offset| instruction(LOAD_WORD, target | CONTEXT << 4, offset, 0);
    let mut program = vec![
        load(KIND, KIND_AT),
        instruction(AND, KIND, 0, KIND_MASK),
        load(MAJOR, MAJOR_AT),
        load(MINOR, MINOR_AT),
        // Of disks nothing is kept.
        unless(KIND, CHARACTER, 0),
    ];
    let first_rule = program.len();
    for device in &rules.allowed {
        program.extend(when(*device, true));
    }
    for major in &rules.denied_majors {
        program.extend(when(Device { major: *major, minor: None }, false));
    }
    program[first_rule - 1].offset = offset(program.len() - first_rule);
    program.extend(answer(true));
    program
}

/// The answer for this device; for others the program goes on behind it.
fn when(device: Device, allowed: bool) -> Vec<Instruction> {
    let answer = answer(allowed);
    let minor = device.minor.map(|minor| unless(MINOR, word(minor), offset(answer.len())));
    let after_major = answer.len() + usize::from(minor.is_some());
    let major = unless(MAJOR, word(device.major), offset(after_major));
    std::iter::once(major).chain(minor).chain(answer).collect()
}

fn answer(allowed: bool) -> [Instruction; 2] {
    [instruction(MOVE, ANSWER, 0, allowed.into()), instruction(EXIT, 0, 0, 0)]
}

fn unless(register: u8, value: i32, jump: i16) -> Instruction {
    instruction(JUMP_UNLESS_EQUAL, register, jump, value)
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// Numbers of devices have 20 bits at most; what has more equals none.
fn word(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(-1)
}

/// A machine has a few dozen nodes of GPUs: the program is never as long as a jump can be.
fn offset(instructions: usize) -> i16 {
    i16::try_from(instructions).unwrap_or(i16::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "Character devices:\n  1 mem\n195 nvidia\n226 drm\n234 nvidia-nvswitch\n\
                         236 nvidia-caps\n510 nvidia-uvm\n\nBlock devices:\n  7 nvidia-no\n";

    fn node(major: u32, minor: u32) -> Device {
        Device { major, minor: Some(minor) }
    }

    /// What the kernel would answer.
    fn run(program: &[Instruction], kind: i64, major: u32, minor: u32) -> bool {
        let mut registers = [0_i64; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let target = usize::from(both & 15);
            at += 1;
            match code {
                LOAD_WORD => {
                    assert_eq!(both >> 4, CONTEXT);
                    let access = 3 << 16 | kind;
                    registers[target] = [access, major.into(), minor.into()][offset as usize / 4];
                }
                AND => registers[target] &= i64::from(immediate),
                MOVE => registers[target] = immediate.into(),
                JUMP_UNLESS_EQUAL if registers[target] != i64::from(immediate) => {
                    at = at.checked_add_signed(offset.into()).unwrap();
                }
                JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("no such instruction: {other}"),
            }
        }
    }

    fn may(rules: &DeviceRules, major: u32, minor: u32) -> bool {
        run(&program(rules), CHARACTER.into(), major, minor)
    }

    #[test]
    fn an_attempt_uses_its_own_gpus_and_what_belongs_to_all_of_them() {
        let rules = rules(&[node(195, 3), node(226, 131)].into(), TABLE);
        for (major, minor) in [(195, 3), (195, 255), (510, 0), (510, 1), (226, 131)] {
            assert!(may(&rules, major, minor), "{major}:{minor}");
        }
        for (major, minor) in [(195, 2), (195, 0), (226, 130), (226, 0), (234, 0), (236, 7)] {
            assert!(!may(&rules, major, minor), "{major}:{minor}");
        }
    }

    #[test]
    fn an_attempt_on_an_instance_uses_its_own_permissions_and_no_others() {
        let mut owned = BTreeSet::from([node(195, 3)]);
        owned.extend(permission_nodes(&[12, 13].into(), TABLE));
        let rules = rules(&owned, TABLE);
        for (major, minor) in [(195, 3), (195, 255), (510, 0), (236, 12), (236, 13)] {
            assert!(may(&rules, major, minor), "{major}:{minor}");
        }
        for (major, minor) in [(236, 1), (236, 11), (236, 14), (195, 4)] {
            assert!(!may(&rules, major, minor), "{major}:{minor}");
        }
        assert_eq!(permission_nodes(&[12].into(), "Character devices:\n  1 mem\n"), [].into());
    }

    #[test]
    fn an_attempt_opens_its_own_channel_and_no_other() {
        let table =
            TABLE.replace("236 nvidia-caps\n", "236 nvidia-caps\n237 nvidia-caps-imex-channels\n");
        assert_eq!(channel_node(5, &table), Some(node(237, 5)));
        assert_eq!(channel_node(5, TABLE), None);
        let owned = BTreeSet::from([node(195, 3), node(237, 5)]);
        let rules = rules(&owned, &table);
        assert!(may(&rules, 237, 5));
        for (major, minor) in [(237, 0), (237, 4), (237, 6), (236, 5)] {
            assert!(!may(&rules, major, minor), "{major}:{minor}");
        }
    }

    #[test]
    fn without_a_gpu_nothing_of_gpus_can_be_used_and_all_else_can() {
        let rules = rules(&BTreeSet::new(), TABLE);
        for (major, minor) in [(195, 0), (195, 255), (510, 0), (236, 1), (226, 128)] {
            assert!(!may(&rules, major, minor), "{major}:{minor}");
        }
        for (major, minor) in [(1, 3), (5, 0), (10, 229), (231, 192)] {
            assert!(may(&rules, major, minor), "{major}:{minor}");
        }
        assert!(run(&program(&rules), 1, 195, 0), "a block device of that number is no GPU");
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_rules_say(
            denied in prop::collection::btree_set(190..200_u32, 0..5),
            nodes in prop::collection::btree_set((190..200_u32, 0..4_u32), 0..8),
            whole in prop::collection::btree_set(190..200_u32, 0..2),
            major in 188..202_u32,
            minor in 0..5_u32,
        ) {
            let mut allowed: BTreeSet<Device> = nodes.iter().map(|(a, b)| node(*a, *b)).collect();
            allowed.extend(whole.iter().map(|major| Device { major: *major, minor: None }));
            let rules = DeviceRules { denied_majors: denied.clone(), allowed };
            let expected = !denied.contains(&major)
                || whole.contains(&major)
                || nodes.contains(&(major, minor));
            prop_assert_eq!(may(&rules, major, minor), expected);
        }
    }
}
