//! MQTT device-access broker: the shards, the listeners, the control plane and the binary.

mod inbox;
pub mod listener;
pub mod server;
pub mod shard;
pub mod tls;
pub mod transport;
