//! SIGHUP: configuration and certificates are read again.

use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::{Action, Event, Key, Outcome, Value};
use turnpike_authz::guarded::Guarded;

use super::clouds::Clouds;
use super::{development, told, warn};
use crate::audit::{AuditSink, now_ms};
use crate::cli::Serve;
use crate::config::{Config, Fault, Faults};
use crate::descriptors;
use crate::ota::OtaDesk;
use crate::server::Control;

/// Whose listeners aren't the control's.
#[derive(Clone, Copy)]
pub(super) struct Doors<'a> {
    pub(super) clouds: &'a Clouds,
    pub(super) ota: Option<&'a OtaDesk>,
}

/// Reads configuration and certificates again, and puts on record that it was asked to.
pub(super) fn run(
    options: &Serve,
    running: &Config,
    control: &Control,
    guarded: &Guarded<Gatekeeper>,
    (audit, doors): (&AuditSink, Doors<'_>),
) {
    let (outcome, restart) = match reload_all(options, running, control, guarded, doors) {
        Some(restart_needed) => (Outcome::Ok, restart_needed),
        None => (Outcome::Failed("faults"), false),
    };
    let details = [(Key::RestartNeeded, Value::Flag(restart))];
    audit.record(&Event { outcome, ..Event::own(now_ms(), Action::ConfigReload, &details) });
}

/// If anything is wrong, everything stays as it is, and nothing is said. Else whether some of what has changed needs a restart.
fn reload_all(
    options: &Serve,
    running: &Config,
    control: &Control,
    guarded: &Guarded<Gatekeeper>,
    Doors { clouds, ota }: Doors<'_>,
) -> Option<bool> {
    let config = match options.configure() {
        Ok(config) => config,
        Err(Faults { file, faults }) => {
            for Fault { key, message } in faults {
                tracing::error!(file = %file.display(), key, "not reloaded: {message}");
            }
            return None;
        }
    };
    warn(&config);
    let development = match development(&config) {
        Ok(development) => development,
        Err(error) => {
            tracing::error!("not reloaded: {}", told(&error));
            return None;
        }
    };
    let platform_tls = match clouds.reread(&config) {
        Ok(reread) => reread,
        Err(faults) => {
            faults.iter().for_each(|fault| tracing::error!("not reloaded: listener `platform`: {fault}"));
            return None;
        }
    };
    let downloads_tls = match ota.map(|ota| ota.reread(config.ota.as_ref())).transpose() {
        Ok(reread) => reread.flatten(),
        Err(faults) => {
            faults.iter().for_each(|fault| tracing::error!("not reloaded: listener `ota`: {fault}"));
            return None;
        }
    };
    let certificate = development.as_ref().map(|development| &development.server);
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.settings(certificate)).collect();
    match control.reload(&listeners, descriptors::fitted(&config.limits, descriptors::limit()), config.transport) {
        Ok(listeners) => {
            platform_tls.install();
            if let Some((ota, live)) = ota.zip(downloads_tls) {
                ota.install(live);
            }
            guarded.quotas().set(config.rates.clone());
            guarded.guard().set(config.guard.clone());
            control.remeter();
            let keys = config.restart_needed(running);
            if listeners.is_empty() && keys.is_empty() {
                tracing::info!("reloaded");
                return Some(false);
            }
            let (listeners, keys) = (listeners.join(", "), keys.join(", "));
            tracing::warn!(listeners, keys, "reloaded; some of what has changed needs a restart");
            Some(true)
        }
        Err(faults) => {
            faults.iter().for_each(|fault| tracing::error!("not reloaded: {fault}"));
            None
        }
    }
}
