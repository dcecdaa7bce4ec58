//! The audit's part in a start.

use std::sync::Arc;

use anyhow::Context;
use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::chain::ChainKey;
use turnpike_authz::audit::{Action, Event, Outcome, Subject, describe};
use turnpike_authz::plan::Change;
use turnpike_authz::registry::Registry;
use turnpike_authz::secret::MasterKey;

use super::mark::{Finding, Found, Keeper};
use crate::audit::{Audit, AuditSink, now_ms};
use crate::config::Config;
use crate::http::Auditing;
use crate::server::Control;

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

/// Begins this run's part of the audit, tells from the store whether it is what there was before, and has the store follow it.
pub(super) fn begin(
    gate: &Gatekeeper,
    audit: &Audit,
    control: &Control,
    found: &Found,
) -> std::io::Result<Option<Arc<Keeper>>> {
    audit.sink().record(&Event::own(now_ms(), Action::BrokerStart, &[]));
    let key = ChainKey::new(gate.master_key());
    let marked = found.judge(&key, audit.opened());
    // A store from before there were marks with numbers.
    let was_there = audit.is_new() && gate.registry().is_marked(MARK);
    let finding = marked.or(was_there.then_some(Finding::Gone { mark: 0 })).filter(|_| audit.is_kept());
    finding.iter().for_each(|finding| finding.log());
    // What the files themselves have shown is on record already.
    let finding = finding.filter(|_| !audit.is_damaged());
    Keeper::start((audit, key), control.clone(), found, finding)
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
