//! What a shard counts. Plain numbers: the shard's thread adds, and the shell copies them out when somebody asks.

use turnpike_mqtt::{ConnectReason, QoS};

/// Messages and payload-carrying bytes of one direction, by QoS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// PUBLISH packets by QoS 0, 1, 2.
    pub messages: [u64; 3],
    /// Their payload bytes, by QoS 0, 1, 2.
    pub payload_bytes: [u64; 3],
}

impl Flow {
    #[inline]
    pub(crate) fn count(&mut self, qos: QoS, payload: usize) {
        let index = qos as usize;
        if let (Some(messages), Some(bytes)) = (self.messages.get_mut(index), self.payload_bytes.get_mut(index)) {
            *messages += 1;
            *bytes += payload as u64;
        }
    }
}

/// Why a message wasn't delivered or taken. Each is a label of one metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// The session's queue was full.
    pub queue_full: u64,
    /// It expired before it could be sent.
    pub expired: u64,
    /// It is larger than the client takes.
    pub too_large: u64,
    /// Its publisher has no permit for the topic, or its reader has lost it.
    pub not_authorized: u64,
    /// The retained store was full.
    pub retained_full: u64,
    /// The durable store isn't serving.
    pub store_unavailable: u64,
    /// Its publisher is over a rate (MQTT 5, where that is configured; others are slowed).
    pub rate_limited: u64,
    /// The desk of the broker's own that it was for had too much to do.
    pub desk_full: u64,
}

/// Counts since start, but for the gauges, which are now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// PUBLISH packets taken from clients.
    pub received: Flow,
    /// PUBLISH packets encoded for clients.
    pub sent: Flow,
    /// Bytes taken from transports, after TLS.
    pub bytes_received: u64,
    /// Bytes handed to transports, before TLS.
    pub bytes_sent: u64,
    /// Packets of any type taken.
    pub packets_received: u64,
    /// Messages not delivered, by reason.
    pub dropped: Dropped,
    /// Connections opened.
    pub opened: u64,
    /// Connections closed before they said anything: their address is shut out, or has too many.
    pub turned_away: u64,
    /// Pauses of connections that were too fast.
    pub throttled: u64,
    /// CONNECTs accepted.
    pub accepted: u64,
    /// CONNECTs refused: reason and count. At most one entry a reason.
    pub refused: Vec<(ConnectReason, u64)>,
    /// Connections ended by a malformed packet or a protocol error.
    pub protocol_errors: u64,
    /// Connections ended by keep alive.
    pub keep_alive_timeouts: u64,
    /// Connections ended because unfinished packets took all the memory they may take.
    pub partials_shed: u64,
    /// Connections ended because a packet took too long to come.
    pub packets_timed_out: u64,
    /// Messages handed to desks of the broker's own.
    pub errands: u64,
    /// Stored records published.
    pub history: u64,
    /// Sessions taken over by a new connection of the same client.
    pub taken_over: u64,
    /// Gauge: connections open.
    pub connections: u64,
    /// Gauge: connections with an accepted CONNECT.
    pub clients: u64,
    /// Gauge: sessions, connected or not.
    pub sessions: u64,
    /// Gauge: messages that wait or are under way to sessions of this shard.
    pub queued_messages: u64,
    /// Gauge: bytes of unfinished packets.
    pub partial_bytes: u64,
    /// Gauge: acknowledgements and deliveries that wait for a commit.
    pub awaiting_commit: u64,
}

impl Counters {
    pub(crate) fn refuse(&mut self, reason: ConnectReason) {
        match self.refused.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.refused.push((reason, 1)),
        }
    }
}
