//! Log-ins, refusals and log-outs, as the core tells the gate of them.

use turnpike_authz::audit::{Action, Claimed, Event, Key, Masked, Outcome, Subject, Value, client};
use turnpike_authz::gate::Witness;
use turnpike_authz::guard::SecurityEvent;
use turnpike_authz::people::bindings::DeviceKey;
use turnpike_core::clock::Now;
use turnpike_core::gate::{Departure, Passage, Principal, Visit};
use turnpike_mqtt::ConnectReason;

use super::{AuditSink, now_ms};

/// Records who comes and goes. On the shards' threads: the queue takes it or drops it.
#[derive(Debug)]
pub struct LogInWitness(pub AuditSink);

impl Witness for LogInWitness {
    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now) {
        let (action, outcome, how) = match passage {
            Passage::In => (Action::LogIn, Outcome::Ok, None),
            Passage::Refused(cause) => (Action::LogIn, Outcome::Refused(cause), None),
            Passage::TurnedAway(reason) => (Action::LogIn, Outcome::Refused(cause(reason)), None),
            Passage::Out(departure) => (Action::LogOut, Outcome::Ok, Some(word(departure))),
        };
        let claimed = visit.user_name.and_then(Claimed::parse);
        let last = how.map_or((Key::Tls, Value::Flag(visit.tls)), |how| (Key::How, Value::Word(how)));
        self.0.record(&Event {
            at_ms: now.unix_ms,
            actor: visit.principal.map_or(Subject::Unknown, Subject::from),
            source: Some(visit.peer),
            action,
            // Of one who was refused, whom they said they were.
            target: claimed.as_ref().map(|claimed| Subject::device(&claimed.product, &claimed.device)),
            outcome,
            details: &[(Key::Client, Value::Id(client(visit.client_id))), last],
        });
    }

    fn controlled(&self, service: &Principal, device: &DeviceKey, now: Now) {
        self.0.record(&Event {
            at_ms: now.unix_ms,
            actor: Subject::from(service),
            source: None,
            action: Action::Control,
            target: Some(Subject::device(&device.product, &device.device)),
            outcome: Outcome::Ok,
            details: &[],
        });
    }
}

impl AuditSink {
    /// Records what the guard has to tell, and says it in the log, names masked.
    pub fn record_security(&self, event: &SecurityEvent) {
        let word = event.label();
        let (action, address, who) = match event {
            SecurityEvent::Banned { network, .. } => (Action::Ban, Some(network.addr()), None),
            SecurityEvent::Flapping { identity, network, .. } => (Action::Ban, Some(network.addr()), Some(identity)),
            SecurityEvent::CloneSuspected { identity, networks: [_, to], .. } => {
                (Action::CloneDetected, Some(to.addr()), Some(identity))
            }
            SecurityEvent::CloneConnected { identity, network, .. }
            | SecurityEvent::AttestationMismatch { identity, network, .. } => {
                (Action::CloneDetected, Some(network.addr()), Some(identity))
            }
            SecurityEvent::IdentityUnderAttack { .. } | SecurityEvent::ProductUnderAttack { .. } => {
                return tracing::warn!(event = word, "log-ins fail again and again");
            }
        };
        let claimed = who.and_then(|who| Claimed::parse(&format!("{}/{}", who.product, who.name)));
        let device = claimed.as_ref().map(|claimed| Masked(&claimed.device).to_string()).unwrap_or_default();
        tracing::warn!(event = word, address = ?address, device, "the guard has acted");
        let target = match (&claimed, address) {
            (Some(claimed), _) => Some(Subject::device(&claimed.product, &claimed.device)),
            (None, address) => address.map(Subject::Address),
        };
        let details: Vec<_> = address.map(|address| (Key::Address, Value::Address(address))).into_iter().collect();
        self.record(&Event { target, ..Event::own(now_ms(), action, &details) });
    }
}

/// Why the core could not let in whom the gate would have.
fn cause(reason: ConnectReason) -> &'static str {
    match reason {
        ConnectReason::NotAuthorized => "session_or_will_not_theirs",
        ConnectReason::ServerUnavailable => "store_unavailable",
        ConnectReason::QuotaExceeded => "no_room",
        ConnectReason::ConnectionRateExceeded => "connects_too_often",
        ConnectReason::Banned => "clone_suspected",
        _ => "not_possible",
    }
}

fn word(departure: Departure) -> &'static str {
    match departure {
        Departure::Cleanly => "cleanly",
        Departure::Abruptly => "abruptly",
        Departure::TakenOver => "taken_over",
    }
}
