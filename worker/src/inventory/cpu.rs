//! The machine apart from its GPUs, as the kernel tells it.

use std::fs;

/// CPUs this process may use.
pub fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// Memory of the machine; 0 if the kernel does not say.
pub fn memory_mib() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Of the running system; another one after every boot.
pub fn boot_id() -> String {
    read_line("/proc/sys/kernel/random/boot_id")
}

/// Release of the kernel.
pub fn kernel() -> String {
    read_line("/proc/sys/kernel/osrelease")
}

/// Name of the operating system, for a person.
pub fn os() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux", |name| name.trim_matches('"')).to_owned()
}

/// Name of the host, in the form of a node's name.
pub fn host_name() -> String {
    let name = read_line("/proc/sys/kernel/hostname").to_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    let clean = |c: char| {
        if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }
    };
    first.chars().map(clean).take(63).collect()
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
