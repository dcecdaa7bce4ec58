//! Log-ins, refusals and log-outs, as the core tells the gate of them.

use turnpike_authz::audit::{Action, Claimed, Event, Key, Outcome, Subject, Value, client};
use turnpike_authz::gate::Witness;
use turnpike_core::clock::Now;
use turnpike_core::gate::{Departure, Passage, Visit};
use turnpike_mqtt::ConnectReason;

use super::AuditSink;

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
}

/// Why the core could not let in whom the gate would have.
fn cause(reason: ConnectReason) -> &'static str {
    match reason {
        ConnectReason::NotAuthorized => "session_or_will_not_theirs",
        ConnectReason::ServerUnavailable => "store_unavailable",
        ConnectReason::QuotaExceeded => "sessions_full",
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
