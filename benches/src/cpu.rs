//! What a process has used: CPU and memory, as Linux counts them.

use std::fs;
use std::time::Duration;

/// CPU time of all threads of a process, those that have ended included: nanoseconds of the live ones, and clock ticks of the rest.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let mut total = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = entry.ok()?.path().join("schedstat");
        let text = fs::read_to_string(path).unwrap_or_default();
        total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Some(Duration::from_nanos(total))
}

/// Memory that the process alone uses (private pages), in bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let before = cpu_time(pid).expect("the process is there");
        // The kernel adds up at its ticks.
        let grows = (0..10_000).any(|_| {
            let sum = (0..100_000_u64).fold(0_u64, |sum, n| sum.wrapping_add(std::hint::black_box(n)));
            std::hint::black_box(sum);
            cpu_time(pid).expect("the process is there") > before
        });
        assert!(grows);
        assert!(private_bytes(pid).expect("the process is there") > 10_000);
        assert_eq!(cpu_time(u32::MAX), None);
    }
}
