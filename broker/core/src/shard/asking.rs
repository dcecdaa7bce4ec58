//! CONNECTs about which somebody outside is asked ([`crate::gate::Verdict::Pending`]).
//!
//! ```text
//! CONNECT ─▶ gate: Pending ─▶ next_inquiry ─▶ the shell, somebody outside ─▶ answered ─▶ gate: conclude ─▶ CONNACK
//!                                └── the connection closes, or too much time passes: the answer, if it comes, finds nobody
//! ```
//!
//! Meanwhile the connection has no session and isn't read: what the client has sent behind its CONNECT, as MQTT 5 allows (3.1.4), waits
//! with the transport, which holds no more than one read. Take-over, the will and the home of the session are judged when the
//! answer has come, as if the CONNECT had come then.

use turnpike_mqtt::{ConnectReason, Frame, decode_connect, frame};

use super::Shard;
use super::connect::attempt;
use super::lifecycle::Timer;
use crate::clock::Now;
use crate::connection::{Asking, State};
use crate::gate::{Answer, Gate, Passage, Question};
use crate::ids::ConnId;

/// Which connection an answer is for: this one and no other that gets its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InquiryId {
    conn: ConnId,
    serial: u32,
}

/// A question that the shell is to have answered, once, or never: the client is refused after [`crate::limits::Limits::answer_timeout_ms`].
#[derive(Debug)]
#[must_use]
pub struct Inquiry {
    /// Goes with the answer to [`Shard::answered`].
    pub id: InquiryId,
    /// What the gate asks.
    pub question: Question,
}

impl<G: Gate> Shard<G> {
    /// A question that came up in this turn.
    pub fn next_inquiry(&mut self) -> Option<Inquiry> {
        self.inquiries.pop_front()
    }

    /// Suspends a CONNECT.
    pub(super) fn ask(&mut self, conn: ConnId, connect: Frame<'_>, question: Question, now: Now) {
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        let mut bytes = Vec::new();
        connect.copy_to(&mut bytes);
        connection.state = State::Asking(Box::new(Asking { connect: bytes.into_boxed_slice() }));
        let serial = connection.serial;
        self.inquiries.push_back(Inquiry { id: InquiryId { conn, serial }, question });
        let due_ms = now.mono_ms.saturating_add(u64::from(self.limits.answer_timeout_ms));
        self.wheel.insert(due_ms, Timer::Answer { conn, serial });
    }

    /// There is an answer. One for a connection that waits for none, or no longer, is dropped.
    pub fn answered(&mut self, id: InquiryId, answer: Answer, now: Now) {
        let InquiryId { conn, serial } = id;
        let Some(bytes) = self.take_asking(conn, serial) else { return };
        let Ok(Some(connect_frame)) = frame(&bytes, u32::MAX) else { return self.end(conn) };
        let Ok(connect) = decode_connect(connect_frame) else { return self.end(conn) };
        let Some(connection) = self.conns.get_mut(conn.0 as usize) else { return };
        // It could not be heard meanwhile.
        connection.last_heard_ms = now.mono_ms;
        let attempt = attempt(connection, &connect);
        let verdict = self.gate.conclude(&attempt, answer, now);
        // Whatever comes of it, nothing of the packets that wait is taken yet; what there is to read is read when it has been resumed.
        let _ = self.act_on(conn, &connect, connect_frame, verdict, now);
        let connection = self.conns.get(conn.0 as usize);
        if connection.is_some_and(|connection| matches!(connection.state, State::Challenged(_))) {
            let due_ms = now.mono_ms.saturating_add(u64::from(self.limits.connect_timeout_ms));
            self.wheel.insert(due_ms, Timer::Connect { conn, serial });
            self.resume(conn);
        }
    }

    /// Nobody has answered in time.
    pub(super) fn answer_overdue(&mut self, conn: ConnId, serial: u32, now: Now) {
        let Some(bytes) = self.take_asking(conn, serial) else { return };
        if let Ok(Some(connect_frame)) = frame(&bytes, u32::MAX)
            && let Ok(connect) = decode_connect(connect_frame)
        {
            self.tell_kept_out(conn, &connect, Passage::Refused("no_answer"), now);
        }
        self.refuse(conn, ConnectReason::ServerUnavailable);
    }

    /// The CONNECT of a connection that waits for an answer. It is as if it had just come.
    fn take_asking(&mut self, conn: ConnId, serial: u32) -> Option<Box<[u8]>> {
        let connection = self.conns.get_mut(conn.0 as usize).filter(|connection| connection.serial == serial)?;
        match std::mem::replace(&mut connection.state, State::Opened) {
            State::Asking(asking) => Some(asking.connect),
            other => {
                connection.state = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
