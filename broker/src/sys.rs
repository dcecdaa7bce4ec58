//! `$SYS` topics: the broker's figures as retained messages, under the names that mosquitto made usual.

use std::time::{Duration, Instant};

use crate::server::{Control, Totals};
use crate::shard::{ShardStats, SystemMessage};

/// Publishes every `interval` on a thread of its own, until the process ends. Zero: never.
///
/// # Errors
/// The thread can't be started.
pub fn start(control: Control, interval: Duration) -> std::io::Result<()> {
    if interval.is_zero() {
        return Ok(());
    }
    let begun = Instant::now();
    let publish = move || {
        loop {
            let messages = messages(&control.stats_blocking(), &control.totals(), begun.elapsed());
            control.publish_system(messages);
            std::thread::sleep(interval);
        }
    };
    std::thread::Builder::new().name("sys".to_owned()).spawn(publish).map(drop)
}

fn messages(shards: &[ShardStats], totals: &Totals, uptime: Duration) -> Vec<SystemMessage> {
    let sum = |figure: fn(&ShardStats) -> u64| shards.iter().map(figure).sum::<u64>();
    let connected = sum(|shard| shard.core.clients);
    let sessions = sum(|shard| shard.core.sessions);
    let received = sum(|shard| shard.core.received.messages.iter().sum());
    let sent = sum(|shard| shard.core.sent.messages.iter().sum());
    let figures = [
        ("clients/connected", connected),
        ("clients/disconnected", sessions.saturating_sub(connected)),
        ("clients/total", sessions),
        ("messages/received", sum(|shard| shard.core.packets_received)),
        ("publish/messages/received", received),
        ("publish/messages/sent", sent),
        ("publish/messages/dropped", sum(|shard| shard.core.dropped.queue_full)),
        ("bytes/received", sum(|shard| shard.core.bytes_received)),
        ("bytes/sent", sum(|shard| shard.core.bytes_sent)),
        ("store/messages/count", sum(|shard| shard.core.queued_messages)),
        ("subscriptions/count", totals.subscriptions),
        ("retained messages/count", totals.retained_messages),
    ];
    let texts = [
        ("version", format!("turnpike version {}", env!("CARGO_PKG_VERSION"))),
        ("uptime", format!("{} seconds", uptime.as_secs())),
    ];
    let figures = figures.into_iter().map(|(name, value)| (name, value.to_string()));
    texts
        .into_iter()
        .chain(figures)
        .map(|(name, value)| SystemMessage {
            topic: format!("$SYS/broker/{name}"),
            payload: value.into_bytes(),
            retain: true,
        })
        .collect()
}
