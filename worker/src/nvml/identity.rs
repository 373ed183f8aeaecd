//! What a GPU is: names, numbers, place, memory and modes.

use std::ffi::{c_char, c_uint, c_ulong};
use std::fmt;

use nvml_wrapper_sys::bindings::{nvmlMemory_t, nvmlMemory_v2_t, nvmlPciInfo_t};
use serde::{Serialize, Serializer};

use super::answer::{Code, Missing, Reading};
use super::calls;
use super::driver::Gpu;

/// Words of the set of CPUs that are asked for: room for 2,048 CPUs.
const CPU_SET_WORDS: usize = 32;

/// Memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// In use by processes; by older drivers with what the driver itself holds.
    pub used_bytes: u64,
    /// Free.
    pub free_bytes: u64,
    /// Held by driver and firmware; absent from older drivers.
    pub reserved_bytes: Option<u64>,
}

/// Who may use a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeMode {
    /// Any number of processes.
    Default,
    /// Nobody.
    Prohibited,
    /// One process.
    ExclusiveProcess,
    /// A mode that this version does not know.
    Other(u32),
}

/// A setting that is now one way and after the next reset perhaps another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// Now.
    pub on: bool,
    /// After the next reset.
    pub on_after_reset: bool,
}

/// Numbers of CPUs, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuSet(pub Vec<u32>);

impl fmt::Display for CpuSet {
    /// As in "0-15,32".
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let follows = |one: &u32, next: &u32| one + 1 == *next;
        let ranges = self.0.chunk_by(follows).filter_map(|range| match range {
            [] => None,
            [only] => Some(only.to_string()),
            [first, .., last] => Some(format!("{first}-{last}")),
        });
        out.write_str(&ranges.collect::<Vec<_>>().join(","))
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Gpu<'_> {
    /// As in "NVIDIA B200".
    pub fn name(&self) -> Reading<String> {
        calls::text(&self.library().nvmlDeviceGetName, self.handle)
    }

    /// What the GPU is called everywhere.
    pub fn uuid(&self) -> Reading<String> {
        calls::text(&self.library().nvmlDeviceGetUUID, self.handle)
    }

    /// Printed on the board.
    pub fn serial(&self) -> Reading<String> {
        calls::text(&self.library().nvmlDeviceGetSerial, self.handle)
    }

    /// Its position now; may change when the library starts anew.
    pub fn index(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetIndex, self.handle)
    }

    /// Number of its device node, as in `/dev/nvidia3`. Not its index.
    pub fn minor_number(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetMinorNumber, self.handle)
    }

    /// Version of its firmware.
    pub fn vbios_version(&self) -> Reading<String> {
        calls::text(&self.library().nvmlDeviceGetVbiosVersion, self.handle)
    }

    /// What to order when the board must be replaced.
    pub fn board_part_number(&self) -> Reading<String> {
        calls::text(&self.library().nvmlDeviceGetBoardPartNumber, self.handle)
    }

    /// As in "00000000:1A:00.0".
    pub fn pci_bus_id(&self) -> Reading<String> {
        let initial = nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: 0,
            device: 0,
            pciDeviceId: 0,
            pciSubSystemId: 0,
            busId: [0; 32],
        };
        let info = calls::fill(&self.library().nvmlDeviceGetPciInfo_v3, self.handle, initial)?;
        Ok(text_of(&info.busId))
    }

    /// Memory, by the newer of two functions that the driver has.
    pub fn memory(&self) -> Reading<Memory> {
        match self.memory_now() {
            Err(Missing::Absent | Missing::Failed(Code::VERSION_MISMATCH)) => self.memory_before(),
            other => other,
        }
    }

    fn memory_now(&self) -> Reading<Memory> {
        let version = calls::version::<nvmlMemory_v2_t>(2);
        let initial = nvmlMemory_v2_t { version, total: 0, reserved: 0, free: 0, used: 0 };
        let found = calls::fill(&self.library().nvmlDeviceGetMemoryInfo_v2, self.handle, initial)?;
        Ok(Memory {
            total_bytes: found.total,
            used_bytes: found.used,
            free_bytes: found.free,
            reserved_bytes: Some(found.reserved),
        })
    }

    fn memory_before(&self) -> Reading<Memory> {
        let initial = nvmlMemory_t { total: 0, free: 0, used: 0 };
        let found = calls::fill(&self.library().nvmlDeviceGetMemoryInfo, self.handle, initial)?;
        Ok(Memory {
            total_bytes: found.total,
            used_bytes: found.used,
            free_bytes: found.free,
            reserved_bytes: None,
        })
    }

    /// Who may use it.
    pub fn compute_mode(&self) -> Reading<ComputeMode> {
        let mode: u32 = calls::value(&self.library().nvmlDeviceGetComputeMode, self.handle)?;
        Ok(match mode {
            0 => ComputeMode::Default,
            2 => ComputeMode::Prohibited,
            3 => ComputeMode::ExclusiveProcess,
            other => ComputeMode::Other(other),
        })
    }

    /// Whether the driver stays loaded while nobody uses the GPU: what is set (as a power limit) is then kept.
    pub fn persistence_mode(&self) -> Reading<bool> {
        let mode: u32 = calls::value(&self.library().nvmlDeviceGetPersistenceMode, self.handle)?;
        Ok(mode != 0)
    }

    /// Whether its memory corrects errors.
    pub fn ecc_mode(&self) -> Reading<Switch> {
        let (now, next) = calls::two(&self.library().nvmlDeviceGetEccMode, self.handle)?;
        Ok(Switch { on: now != 0, on_after_reset: next != 0 })
    }

    /// The NUMA node that its own memory is, on machines where the processors can reach it.
    pub fn numa_node(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetNumaNodeId, self.handle)
    }

    /// CPUs that are near to it.
    pub fn near_cpus(&self) -> Reading<CpuSet> {
        let function = calls::found(&self.library().nvmlDeviceGetCpuAffinity)?;
        let mut words = [0 as c_ulong; CPU_SET_WORDS];
        // SAFETY: the library writes as many words as it is told there are.
        let code = unsafe { function(self.handle, CPU_SET_WORDS as c_uint, words.as_mut_ptr()) };
        Code(code).gives(())?;
        let cpus = (0..).zip(words).flat_map(|(place, word)| {
            let set = move |bit: &u32| word >> bit & 1 == 1;
            (0..c_ulong::BITS).filter(set).map(move |bit| place * c_ulong::BITS + bit)
        });
        Ok(CpuSet(cpus.collect()))
    }
}

/// Text in an array of C characters, up to its zero or its end.
fn text_of(characters: &[c_char]) -> String {
    let bytes = characters.iter().map(|character| character.cast_unsigned());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus_are_shown_as_ranges() {
        assert_eq!(CpuSet(vec![0, 1, 2, 3, 8, 10, 11]).to_string(), "0-3,8,10-11");
        assert_eq!(CpuSet(Vec::new()).to_string(), "");
    }
}
