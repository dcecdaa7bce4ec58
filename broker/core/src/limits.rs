//! Every bound of the broker, in one place. Units stand at the end of the names; zero never means "unlimited".

/// The bounds of one broker. All shards share one value; a reload replaces it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest packet taken from a client, bytes, header included; at most 268,435,460. Announced to MQTT 5 clients.
    pub packet_bytes_max: u32,
    /// Largest first packet (CONNECT) and AUTH before CONNACK, bytes; `packet_bytes_max` holds too.
    pub connect_bytes_max: u32,
    /// Bytes of unfinished packets, whole broker, a part of it for each shard; half of that before CONNACK.
    pub partial_bytes_max: u64,
    /// From the first byte of a packet to its last, seconds; a second more for each KiB that has come.
    pub packet_time_max_s: u32,
    /// Levels in a topic name or filter.
    pub topic_levels_max: u16,
    /// Bytes of a client id.
    pub client_id_bytes_max: u16,
    /// Incoming QoS 1 and 2 messages under way from one client: the server's receive maximum.
    pub receive_max: u16,
    /// Outgoing QoS 1 and 2 messages under way to one client that names no receive maximum of its own (all of MQTT 3).
    pub inflight_max: u16,
    /// Messages that wait for one session, in flight included.
    pub queued_messages_max: u32,
    /// Bytes that wait for one session.
    pub queued_bytes_max: u32,
    /// Bytes in a connection's out buffer above which nothing more is encoded into it.
    pub out_bytes_high: u32,
    /// Topic aliases taken from one client (MQTT 5); 0 refuses them.
    pub topic_alias_in_max: u16,
    /// Topic aliases used towards one client that allows them.
    pub topic_alias_out_max: u16,
    /// Subscriptions of one session.
    pub subscriptions_max: u32,
    /// Sessions on one shard, connected or not.
    pub sessions_max: u32,
    /// Connections on one shard.
    pub connections_max: u32,
    /// From accept to a whole CONNECT, milliseconds.
    pub connect_timeout_ms: u32,
    /// For an answer from outside about a CONNECT, milliseconds; whoever is asked has given up before. The client is refused then.
    pub answer_timeout_ms: u32,
    /// Messages that desks of the broker's own are at, a shard.
    pub errands_max: u32,
    /// Their bytes.
    pub errand_bytes_max: u32,
    /// Longest keep alive granted, seconds; a client that asks for 0 or more gets this (MQTT 5: told so). 65,535 leaves it to clients.
    pub keep_alive_max_s: u16,
    /// Longest session expiry granted, seconds; `u32::MAX` allows sessions that never expire.
    pub session_expiry_max_s: u32,
    /// Expiry of an MQTT 3 session with clean session 0, seconds.
    pub session_expiry_mqtt3_s: u32,
    /// Retained messages, whole broker.
    pub retained_messages_max: u64,
    /// Bytes of retained messages, whole broker.
    pub retained_bytes_max: u64,
    /// Bytes of a batch for another shard above which this shard stops reading sockets.
    pub batch_bytes_high: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1 << 20,
            connect_bytes_max: 128 << 10,
            partial_bytes_max: 256 << 20,
            packet_time_max_s: 30,
            topic_levels_max: 128,
            client_id_bytes_max: 256,
            receive_max: 1024,
            inflight_max: 1024,
            queued_messages_max: 10_000,
            queued_bytes_max: 16 << 20,
            out_bytes_high: 64 << 10,
            topic_alias_in_max: 32,
            topic_alias_out_max: 16,
            subscriptions_max: 1000,
            sessions_max: 2_000_000,
            connections_max: 2_000_000,
            connect_timeout_ms: 10_000,
            answer_timeout_ms: 30_000,
            errands_max: 10_000,
            errand_bytes_max: 64 << 20,
            keep_alive_max_s: u16::MAX,
            session_expiry_max_s: u32::MAX,
            session_expiry_mqtt3_s: 7 * 24 * 3600,
            retained_messages_max: 4_000_000,
            retained_bytes_max: 1 << 30,
            batch_bytes_high: 8 << 20,
        }
    }
}
