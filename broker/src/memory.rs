//! How the process takes memory from the kernel.

/// Has the kernel give memory by the page, not by huge pages of 2 MiB, of which the allocator asks for as many as it can get: it keeps
/// objects of like size together, so a dozen sizes in use would be a dozen huge pages, and a broker with 4,000 idle connections would
/// cost 16 MiB instead of 2. For threads that begin later, too.
///
/// Whoever has a million connections, and memory for the rest of each huge page, gets them with `MIMALLOC_ALLOW_THP=1` in the
/// environment. `../DESIGN.md` says what they are worth.
///
/// # Errors
/// What the kernel says. All works without.
#[cfg(target_os = "linux")]
pub fn refuse_huge_pages() -> std::io::Result<()> {
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        rustix::thread::disable_transparent_huge_pages(true)?;
    }
    Ok(())
}

/// Other kernels aren't asked.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn refuse_huge_pages() -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_refused() {
        refuse_huge_pages().expect("a process may");
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let allowed = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(str::trim);
        assert_eq!(allowed, Some("0"));
    }
}
