//! The log: `tracing` events, as text for people or as JSON, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use crate::config::LogFormat;

/// Starts logging. `RUST_LOG` overrides `level`. A second call changes nothing.
///
/// # Errors
/// The filter doesn't parse.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(given) if !given.is_empty() => EnvFilter::try_new(given),
        _ => EnvFilter::try_new(level),
    };
    let filter = filter.map_err(|error| format!("the log level can't be used: {error}"))?;
    let builder = SubscriberBuilder::default().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Colours only where somebody sees them: scripts read the first lines.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colours).try_init(),
        LogFormat::Json => builder.with_ansi(false).json().flatten_event(true).try_init(),
    };
    Ok(())
}
