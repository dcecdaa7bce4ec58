//! What a process has used: CPU and memory, as Linux counts them.

use std::fs;
use std::time::Duration;

/// CPU time of all threads of a process that live, to the nanosecond.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    cpu_time_of(pid, |_| true)
}

/// The same of those threads whose names are such.
#[must_use]
pub fn cpu_time_of(pid: u32, counts: impl Fn(&str) -> bool) -> Option<Duration> {
    let mut total = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let task = entry.ok()?.path();
        let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
        if !counts(read("comm").trim_end()) {
            continue;
        }
        let text = read("schedstat");
        total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Some(Duration::from_nanos(total))
}

/// Memory that the process alone uses (private pages), in bytes. The kernel walks all its pages for that.
#[must_use]
pub fn private_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
    };
    Some((field("Private_Clean:")? + field("Private_Dirty:")?) * 1024)
}

/// Resident memory, in bytes; cheap enough to ask for several times a second.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Lets this process, and those that it starts, have as many descriptors as the system allows.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// How many descriptors this process may have.
#[must_use]
pub fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// The machine: cores and kernel.
#[must_use]
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{cores} cores, {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let before = cpu_time(pid).expect("the process is there");
        // The kernel counts at its own ticks.
        let spin = || (0..1_000_000_u64).fold(0_u64, |sum, n| sum.wrapping_add(std::hint::black_box(n)));
        let has_grown = || spin() > 0 && cpu_time(pid).expect("the process is there") > before;
        assert!((0..10_000).any(|_| has_grown()));
        assert!(private_bytes(pid).expect("the process is there") > 10_000);
        assert!(resident_bytes(pid).expect("the process is there") > 10_000);
        assert_eq!(cpu_time(u32::MAX), None);
        assert_eq!(cpu_time_of(pid, |_| false), Some(Duration::ZERO));
        assert!(machine().contains("Linux"));
    }
}
