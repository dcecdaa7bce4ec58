//! The kernel's limit on open files, and what of it clients may have.
//!
//! Each client is a descriptor, and so is a request to the HTTP API and a file of the store. Were clients to take the last one, nobody could ask
//! what is wrong, and who comes next would hang in the kernel's queue. So some are kept back, and clients beyond are accepted and closed.

use turnpike_core::limits::Limits;

/// Descriptors that clients don't get: for the HTTP API, the store, and files that are read at a reload.
const RESERVE: u32 = 128;

/// The process's limit on open files; none if there is none, or nobody can tell.
#[must_use]
pub fn limit() -> Option<u32> {
    parse(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// The soft limit in the kernel's table.
fn parse(limits: &str) -> Option<u32> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(u32::try_from(soft).unwrap_or(u32::MAX))
}

/// The first descriptor that a client doesn't get: the kernel always gives out the lowest that is free.
#[must_use]
pub fn first_kept_back(limit: Option<u32>) -> u32 {
    limit.map_or(u32::MAX, |limit| limit - RESERVE.min(limit / 4))
}

/// Lowers `connections_max` to what the limit on open files allows, and says so.
#[must_use]
pub fn fitted(limits: &Limits, limit: Option<u32>) -> Limits {
    let most = first_kept_back(limit);
    if limits.connections_max > most {
        tracing::warn!(
            connections_max = limits.connections_max,
            open_files_max = limit,
            clients_max = most,
            "limits.connections_max is more than the limit on open files allows; clients beyond are closed"
        );
    }
    Limits { connections_max: limits.connections_max.min(most), ..limits.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_counts() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             96365                96365                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(parse(text), Some(1024));
        assert_eq!(parse(&text.replace("1024 ", "unlimited ")), None);
        assert!(limit().is_some(), "this process has one");
    }

    #[test]
    fn some_are_kept_back() {
        assert_eq!(first_kept_back(Some(300)), 225);
        assert_eq!(first_kept_back(Some(1024)), 896);
        let limits = Limits::default();
        assert_eq!(fitted(&limits, Some(1024)), Limits { connections_max: 896, ..limits.clone() });
        assert_eq!(fitted(&limits, None), limits);
    }
}
