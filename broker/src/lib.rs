//! MQTT device-access broker: the shards, the listeners, the control plane and the binary.

pub mod asker;
pub mod audit;
pub mod callout;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod desk;
pub mod edit;
pub mod erasure;
pub mod fetch;
pub mod http;
mod inbox;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod nonces;
pub mod ota;
pub mod pki;
pub mod presence;
pub mod provision;
pub mod registrar;
pub mod run;
pub mod server;
pub mod shard;
pub mod sys;
pub mod tls;
pub mod transport;
