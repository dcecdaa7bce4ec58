//! MQTT device-access broker: the shards, the listeners, the control plane and the binary.

pub mod listener;
pub mod tls;
