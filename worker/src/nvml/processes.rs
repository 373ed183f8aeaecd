//! Processes on a GPU.

use nvml_wrapper_sys::bindings::nvmlProcessInfo_t;
use serde::Serialize;

use super::answer::{Code, Missing, Reading};
use super::calls::{self, written};
use super::driver::{Driver, Gpu};

/// Room for processes that begin between asking how many there are and asking for them.
const SPARE: usize = 8;
/// A list that grows faster than it can be read is given up after so many tries.
const TRIES: usize = 5;
/// What the driver writes where there is no such number.
const NO_INSTANCE: u32 = u32::MAX;
const NO_MEMORY: u64 = u64::MAX;

/// What a process uses the GPU for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// It computes.
    Compute,
    /// It draws.
    Graphics,
}

/// A process on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// As the system numbers it; from inside a container the driver may see another number.
    pub pid: u32,
    /// What it uses the GPU for.
    pub kind: ProcessKind,
    /// Its program's name; empty where the driver does not tell.
    pub command: String,
    /// Memory of the GPU that it holds; absent where the driver does not tell.
    pub memory_bytes: Option<u64>,
    /// The MIG device that it is on.
    pub gpu_instance: Option<u32>,
    /// The compute instance within that.
    pub compute_instance: Option<u32>,
}

type List<E> = Result<
    unsafe extern "C" fn(
        nvml_wrapper_sys::bindings::nvmlDevice_t,
        *mut u32,
        *mut nvmlProcessInfo_t,
    ) -> u32,
    E,
>;

impl Gpu<'_> {
    /// All processes on it.
    pub fn processes(&self) -> Reading<Vec<Process>> {
        let library = self.library();
        let mut all =
            self.listed(&library.nvmlDeviceGetComputeRunningProcesses_v3, ProcessKind::Compute)?;
        match self.listed(&library.nvmlDeviceGetGraphicsRunningProcesses_v3, ProcessKind::Graphics)
        {
            Ok(drawing) => all.extend(drawing),
            Err(Missing::Absent | Missing::NotSupported) => {}
            Err(missing) => return Err(missing),
        }
        Ok(all)
    }

    fn listed<E>(&self, symbol: &List<E>, kind: ProcessKind) -> Reading<Vec<Process>> {
        let function = calls::found(symbol)?;
        let empty = nvmlProcessInfo_t {
            pid: 0,
            usedGpuMemory: 0,
            gpuInstanceId: NO_INSTANCE,
            computeInstanceId: NO_INSTANCE,
        };
        let mut found = vec![empty; SPARE];
        for _ in 0..TRIES {
            let mut count = u32::try_from(found.len()).unwrap_or(u32::MAX);
            // SAFETY: the library writes no more entries than it is told there is room for.
            match Code(unsafe { function(self.handle, &raw mut count, found.as_mut_ptr()) }) {
                Code::INSUFFICIENT_SIZE => found.resize(count as usize + SPARE, empty),
                code => {
                    code.gives(())?;
                    found.truncate(count as usize);
                    return Ok(found.iter().map(|one| self.process(one, kind)).collect());
                }
            }
        }
        Err(Missing::Failed(Code::INSUFFICIENT_SIZE))
    }

    fn process(&self, found: &nvmlProcessInfo_t, kind: ProcessKind) -> Process {
        let instance = |number: u32| (number != NO_INSTANCE).then_some(number);
        let memory = found.usedGpuMemory;
        Process {
            pid: found.pid,
            kind,
            command: self.driver.command(found.pid).unwrap_or_default(),
            memory_bytes: (memory != NO_MEMORY).then_some(memory),
            gpu_instance: instance(found.gpuInstanceId),
            compute_instance: instance(found.computeInstanceId),
        }
    }
}

impl Driver {
    /// Name of a process's program, without its directory and arguments: those may hold what is nobody's business.
    fn command(&self, pid: u32) -> Reading<String> {
        let function = calls::found(&self.library().nvmlSystemGetProcessName)?;
        // SAFETY: the library writes no more than the length it is given.
        let line = written(|buffer, length| unsafe { function(pid, buffer, length) })?;
        Ok(program(&line))
    }
}

fn program(line: &str) -> String {
    let path = line.split_whitespace().next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_program_is_told() {
        assert_eq!(program("/usr/bin/python3 train.py --key secret"), "python3");
        assert_eq!(program("python3"), "python3");
        assert_eq!(program(""), "");
    }
}
