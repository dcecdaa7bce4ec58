//! The end of an authentication: what let a client in, such as a certificate, is good until some time.
//!
//! A timer waits for it. A later end needs no other one: the timer fires, sees it, and is set again. So a client that proves
//! itself again and again has one timer, and one more only for each proof that ends sooner than those before it.

use turnpike_mqtt::ReasonCode;

use super::Shard;
use super::lifecycle::{Leaving, Timer};
use crate::clock::Now;
use crate::connection::{State, Until};
use crate::gate::Gate;
use crate::ids::ConnId;

impl<G: Gate> Shard<G> {
    /// From now on a connection's authentication ends then, or never, whatever was said before.
    pub(super) fn end_authentication_at(&mut self, conn: ConnId, unix_ms: Option<u64>, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        let extras = &mut connection.extras;
        let known = extras.as_mut().and_then(|extras| extras.until.as_mut());
        let Some(at_ms) = unix_ms.map(|unix_ms| due_ms(unix_ms, now)) else {
            if let Some(until) = known {
                until.unix_ms = None;
            }
            return;
        };
        if let Some(until) = known
            && until.armed_ms <= at_ms
        {
            until.unix_ms = unix_ms;
            return;
        }
        extras.get_or_insert_default().until = Some(Box::new(Until { unix_ms, armed_ms: at_ms }));
        let timer = Timer::Authentication { conn, serial: connection.serial };
        self.wheel.insert(at_ms, timer);
    }

    /// The timer has fired. The end may be another by now: the client has proved itself again, or the clock was set.
    pub(super) fn authentication_due(&mut self, conn: ConnId, serial: u32, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize).filter(|c| c.serial == serial) else { return };
        if matches!(connection.state, State::Ending) {
            return;
        }
        let Some(extras) = connection.extras.as_mut() else { return };
        let Some(until) = extras.until.as_mut() else { return };
        if until.armed_ms > now.mono_ms {
            // Of a former end; the one that counts is still to fire.
            return;
        }
        let Some(unix_ms) = until.unix_ms else {
            extras.until = None;
            return;
        };
        if unix_ms > now.unix_ms {
            until.armed_ms = due_ms(unix_ms, now);
            self.wheel.insert(until.armed_ms, Timer::Authentication { conn, serial });
            return;
        }
        if connection.is_live() {
            self.say_disconnect(conn, ReasonCode::NotAuthorized);
        }
        self.detach(conn, Leaving::Abruptly, now);
        self.end(conn);
    }
}

/// A moment of the calendar on the monotonic clock.
fn due_ms(unix_ms: u64, now: Now) -> u64 {
    now.mono_ms.saturating_add(unix_ms.saturating_sub(now.unix_ms))
}

#[cfg(test)]
mod tests;
