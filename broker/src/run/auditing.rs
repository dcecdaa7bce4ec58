//! The audit's part in a start.

use anyhow::Context;
use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::chain::ChainKey;
use turnpike_authz::audit::{Action, Event, Outcome, Subject, describe};
use turnpike_authz::plan::Change;
use turnpike_authz::registry::Registry;
use turnpike_authz::secret::MasterKey;

use crate::audit::{Audit, AuditSink, now_ms};
use crate::config::Config;
use crate::http::Auditing;

/// Mark in the registry: there is an audit.
const MARK: &str = "audit";

/// Whether there is one from before, which a master key made just now would not go on with.
pub(super) fn is_there(config: &Config) -> anyhow::Result<bool> {
    let folder = config.audit.folder(&config.data);
    let found = crate::audit::has_records(&folder);
    Ok(config.audit.enabled && found.with_context(|| format!("{} can't be read", folder.display()))?)
}

/// The audit of the data folder.
pub(super) fn start(config: &Config, key: &MasterKey) -> anyhow::Result<Audit> {
    let audit = Audit::start(&config.audit, &config.data, &ChainKey::new(key))
        .with_context(|| format!("the audit in {} can't be read", config.audit.folder(&config.data).display()))?;
    let anchor = audit.sink().status().anchor;
    match anchor.sequence {
        _ if !audit.is_kept() => {}
        0 => tracing::info!("an audit begins"),
        sequence => tracing::info!(sequence, mac = %anchor.mac, "the audit goes on; its anchor"),
    }
    Ok(audit)
}

/// Begins this run's part of the audit, and tells from the registry whether there should have been one before.
pub(super) fn begin(gate: &Gatekeeper, audit: &Audit) {
    let sink = audit.sink();
    sink.record(&Event::own(now_ms(), Action::BrokerStart, &[]));
    if audit.is_kept() && audit.is_new() && gate.registry().is_marked(MARK) {
        tracing::error!("this broker had an audit before, and it is gone; a new one begins");
        sink.record(&Event::own(now_ms(), Action::ChainLost, &[]));
    }
}

/// Has the registry know that there is an audit.
pub(super) fn mark(registry: &Registry, audit: &AuditSink) -> Vec<Change> {
    let is_due = audit.is_kept() && !registry.is_marked(MARK);
    is_due.then(|| Change::Mark(MARK.into())).into_iter().collect()
}

/// Puts changes of the broker's own on record.
pub(super) fn tell(registry: &Registry, changes: &[Change], audit: &AuditSink) {
    for described in describe(registry, changes) {
        described.tell(now_ms(), (Subject::Broker, None), Outcome::Accepted, |event| audit.record(event));
    }
}

/// What the API needs of the audit.
pub(super) fn of_api(config: &Config, gate: &Gatekeeper, audit: &Audit) -> Auditing {
    Auditing { sink: audit.sink(), key: ChainKey::new(gate.master_key()), required: config.audit.required }
}
