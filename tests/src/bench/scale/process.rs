//! What a process has used so far, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Processor time of each of its threads that still run, by the thread's name; threads of one name together.
#[must_use]
pub fn cpu_by_thread(id: u32) -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    for thread in threads.map(|entry| entry.path()) {
        let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
        let used = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        // Nanoseconds on a processor, nanoseconds waiting for one, and how often.
        let nanos = used.split_whitespace().next().and_then(|word| word.parse().ok());
        let time: &mut Duration = times.entry(name.trim().to_owned()).or_default();
        *time += Duration::from_nanos(nanos.unwrap_or_default());
    }
    times
}

/// Processor time of all its threads that still run.
#[must_use]
pub fn cpu(id: u32) -> Duration {
    cpu_by_thread(id).values().sum()
}

/// Processor time of it, threads that have ended included, in hundredths of a second.
#[must_use]
pub fn cpu_of_all(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name is in parentheses and may hold anything; user and system time are the 14th and the 15th word.
    let words = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks =
        words.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Memory of a process, MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub now_mib: u64,
    /// The most that was resident.
    pub peak_mib: u64,
}

/// Its memory; zeros if it is gone.
#[must_use]
pub fn memory(id: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kib = line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        kib.unwrap_or_default() >> 10
    };
    Memory { now_mib: mib("VmRSS:"), peak_mib: mib("VmHWM:") }
}

/// Its share of the memory that it has in common with others, and all of its own, KiB; 0 if it is gone.
#[must_use]
pub fn proportional_kib(id: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let memory = memory(std::process::id());
        assert!(memory.now_mib > 0 && memory.peak_mib >= memory.now_mib, "{memory:?}");
        assert!(cpu(std::process::id()) > Duration::ZERO);
        // Spins until it is a hundredth of a second.
        while cpu_of_all(std::process::id()).is_zero() {}
        assert!(proportional_kib(std::process::id()) > 0);
    }
}
