//! The log: `tracing` events, as text for people or as JSON, on standard error. What the store's engine says through `log` is in it too.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use crate::config::LogFormat;

/// Crates whose everyday notes are of no use to an operator; `level` can ask for them by name.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Starts logging. `RUST_LOG` overrides `level`. A second call changes nothing.
///
/// # Errors
/// The filter doesn't parse.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(given) if !given.is_empty() => {
            EnvFilter::try_new(given).map_err(|error| format!("RUST_LOG can't be used: {error}"))?
        }
        _ => filter(level)?,
    };
    let builder = SubscriberBuilder::default().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A line that can't be written (the log's disk is full, its reader has gone) would be told of on standard error, which panics when that can't be written.
    let builder = builder.log_internal_errors(false);
    // Colours only where somebody sees them: scripts read the first lines.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colours).try_init(),
        LogFormat::Json => builder.with_ansi(false).json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The filter that a text such as `info` or `info,turnpike=debug` stands for.
///
/// # Errors
/// It isn't one; says what is.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    // The filter would take a misspelt level for the name of a crate, log that crate alone, and so nothing.
    let is_bare = |part: &&str| !part.contains(['=', '[']);
    let misspelt = level
        .split(',')
        .map(str::trim)
        .filter(is_bare)
        .find(|part| part.is_empty() || part.parse::<LevelFilter>().is_err());
    let expected = "must be off, error, warn, info, debug or trace, or for parts such as \"info,turnpike=debug\"";
    if let Some(part) = misspelt {
        return Err(format!("{expected}; {part:?} is no level"));
    }
    EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| format!("{expected}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_levels() {
        for good in ["info", "WARN", "info,turnpike=debug", "off", "fjall=trace,error"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,", "turnpike=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
