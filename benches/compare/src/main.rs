//! rumqttd as a program with one listener: what `turnpike-bench compare --rumqttd` starts.
//!
//! Its limits are those of its own sample configuration where memory follows them, and out of the way elsewhere: windows of 10 to 30 messages,
//! 10,000 connections.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The same for each broker that is ours to build.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs rumqttd without authentication until it is ended.
#[derive(Parser)]
struct Cli {
    /// Where to listen for MQTT 3.1.1.
    #[arg(long, default_value = "127.0.0.1:1885")]
    listen: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let Cli { listen } = Cli::parse();
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    Broker::new(config(listen)).start().context("rumqttd ended")
}

fn config(listen: SocketAddr) -> Config {
    let server = ServerSettings {
        name: "compare".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 1 << 20,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    Config {
        router: RouterConfig {
            max_connections: 50_000,
            max_outgoing_packet_count: 200,
            max_segment_size: 100 << 20,
            max_segment_count: 10,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("compare".to_owned(), server)])),
        ..Config::default()
    }
}
