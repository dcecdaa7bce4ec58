//! Connections that have been accepted and that the core hasn't heard of yet.

use std::net::SocketAddr;

use mio::net::TcpStream;
use turnpike_core::gate::Gate;

use super::link::Flags;
use super::read::{Outcome, read};
use super::{READ_BYTES, ShardThread};

/// One of a group.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) stream: TcpStream,
    pub(super) addr: SocketAddr,
}

impl<G: Gate> ShardThread<G> {
    /// Reads at once, since the kernel gives us connections whose first bytes have come. So a connection that is at home on another shard
    /// moves there without this shard's poll ever knowing it.
    pub(super) fn admit(&mut self, group: &mut Vec<Newcomer>, scratch: &mut [u8]) {
        let mut keys = std::mem::take(&mut self.admitted);
        while !group.is_empty() {
            let mut outcomes = std::mem::take(&mut self.outcomes);
            read_first(group, scratch, &mut outcomes);
            let mut rest = &*scratch;
            for (Newcomer { stream, addr }, outcome) in group.drain(..outcomes.len()).zip(outcomes.drain(..)) {
                let (bytes, behind) = rest.split_at(outcome.bytes());
                rest = behind;
                // One by one: whether a connection may come in depends on those before it.
                let key = self.insert(stream, None);
                if self.open(key, Some(addr)) {
                    self.take_read(key, &outcome, bytes);
                    keys.push(key);
                }
            }
            self.outcomes = outcomes;
        }
        for key in keys.drain(..) {
            // One that has moved or gone meanwhile isn't there any more; a later one may have its place, and then be named twice.
            if self.links.get(key as usize).is_some_and(|link| !link.flags.has(Flags::REGISTERED)) {
                self.register(key);
            }
        }
        self.admitted = keys;
    }
}

/// One read of each, one behind the other into `space`, for as many as have room there.
fn read_first(group: &[Newcomer], mut space: &mut [u8], outcomes: &mut Vec<Outcome>) {
    for newcomer in group {
        let Some(room) = space.get_mut(..READ_BYTES) else { return };
        let outcome = read(&newcomer.stream, false, room);
        space = std::mem::take(&mut space).split_at_mut(outcome.bytes()).1;
        outcomes.push(outcome);
    }
}
