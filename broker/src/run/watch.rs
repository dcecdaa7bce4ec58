//! What an operator has to hear of and nobody asks about: that used nonces find no room, by which devices of all products are refused.

use std::time::{Duration, Instant};

use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::{Action, Event, Key, Value};
use turnpike_authz::refusal::Refusal;

use crate::audit::{AuditSink, now_ms};

/// How often it is looked.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said while it lasts.
const SAID: Duration = Duration::from_secs(60);

/// Whether there was room, and what was said of it.
#[derive(Default, Debug)]
pub(super) struct Watch {
    /// Since it is full: when that was said last.
    said: Option<Instant>,
    /// Refusals that were told of.
    told: u64,
}

impl Watch {
    /// Looks once; `mono_ms` is the gate's clock.
    pub(super) fn look(&mut self, gate: &Gatekeeper, audit: &AuditSink, mono_ms: u64, now: Instant) {
        let is_full = gate.nonces().is_full(mono_ms);
        match self.said {
            None if is_full => {
                self.say(gate, mono_ms, now);
                let details = [(Key::Count, Value::Number(gate.nonces().room(mono_ms).0 as u64))];
                audit.record(&Event::own(now_ms(), Action::NoncesFull, &details));
            }
            Some(said) if is_full && now.duration_since(said) >= SAID => self.say(gate, mono_ms, now),
            Some(_) if !is_full => {
                tracing::info!("used nonces find room again");
                self.said = None;
            }
            _ => {}
        }
    }

    fn say(&mut self, gate: &Gatekeeper, mono_ms: u64, now: Instant) {
        let all = gate.refusals().find(|(refusal, _)| *refusal == Refusal::NoncesFull).map_or(0, |(_, count)| count);
        let (refused, (used, most)) = (all - self.told, gate.nonces().room(mono_ms));
        tracing::warn!(
            refused,
            used,
            most,
            "used nonces find no room: log-ins of the profiles native and gizwits are refused; raise nonces_max"
        );
        (self.said, self.told) = (Some(now), all);
    }
}
