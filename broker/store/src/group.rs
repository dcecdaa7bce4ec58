//! Puts the parts of tickets together again.
//!
//! A ticket's parts come from several shards in any order. A ticket is *complete* when its origin's part, which says how many
//! there are, and all others have arrived. Complete tickets leave in the order of their origin's turns; origins don't wait for
//! each other.
//!
//! Invariant: a ticket never overtakes an earlier one of its origin. An origin submits its own parts in the order of its
//! turns, and a ticket is incomplete without that part; so when a ticket is complete, every earlier ticket of the origin is
//! known here and stands before it in its queue.
//!
//! A queue per origin, searched from the back: the ticket that a part belongs to is one of the last few, so adding
//! a part costs a hash look-up and a comparison or two.

use std::collections::{HashMap, VecDeque};

use turnpike_core::durable::{Body, Op, Part};
use turnpike_core::ids::{ShardId, Ticket, Turn};

/// Origin of tickets that the control plane makes (registry changes).
pub const CONTROL_PLANE: ShardId = ShardId(u16::MAX);

/// A ticket with all its parts.
#[derive(Clone, PartialEq, Debug)]
pub struct Complete {
    /// Which.
    pub ticket: Ticket,
    /// All its parts, in the order of arrival.
    pub parts: Vec<Part>,
    /// Operations in these parts.
    pub ops: usize,
    /// About how many bytes they are.
    pub bytes: usize,
}

/// Gathers parts, yields complete tickets.
#[derive(Default, Debug)]
pub struct Assembler {
    origins: HashMap<ShardId, VecDeque<Pending>>,
    tickets: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    turn: Turn,
    expected: Option<u16>,
    parts: Vec<Part>,
    ops: usize,
    bytes: usize,
}

impl Pending {
    fn is_complete(&self) -> bool {
        self.expected.is_some_and(|n| self.parts.len() >= usize::from(n))
    }
}

impl Assembler {
    /// Takes a part and appends the tickets that it completes to `out`, in order.
    pub fn add(&mut self, part: Part, out: &mut VecDeque<Complete>) {
        let Ticket { origin, turn } = part.ticket;
        let queue = self.origins.entry(origin).or_default();
        let place = queue.iter().rposition(|pending| pending.turn <= turn);
        let at = match place {
            Some(at) if queue.get(at).is_some_and(|pending| pending.turn == turn) => at,
            before => {
                let at = before.map_or(0, |before| before + 1);
                queue.insert(at, Pending { turn, expected: None, parts: Vec::with_capacity(1), ops: 0, bytes: 0 });
                self.tickets += 1;
                at
            }
        };
        let Some(pending) = queue.get_mut(at) else { return };
        let bytes = part_bytes(&part);
        pending.expected = pending.expected.or(part.parts);
        pending.ops += part.ops.len();
        pending.bytes += bytes;
        pending.parts.push(part);
        self.bytes += bytes;

        while queue.front().is_some_and(Pending::is_complete) {
            let Some(done) = queue.pop_front() else { return };
            self.tickets -= 1;
            self.bytes -= done.bytes;
            let ticket = Ticket { origin, turn: done.turn };
            out.push_back(Complete { ticket, parts: done.parts, ops: done.ops, bytes: done.bytes });
        }
    }

    /// Tickets that wait for parts.
    #[must_use]
    pub fn pending_tickets(&self) -> usize {
        self.tickets
    }

    /// About how many bytes the waiting parts hold.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest ticket of each origin that has one waiting, for the log.
    pub fn oldest(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.origins.iter().filter_map(|(&origin, queue)| Some(Ticket { origin, turn: queue.front()?.turn }))
    }
}

/// About how many bytes a part will be on disk.
#[must_use]
pub fn part_bytes(part: &Part) -> usize {
    part.ops.iter().map(op_bytes).sum()
}

fn op_bytes(op: &Op) -> usize {
    const KEY: usize = 32;
    KEY + match op {
        Op::SessionPut(_, record) => {
            record.client.as_str().len()
                + record.principal.len()
                + record.will.as_ref().map_or(0, |(message, _)| message.cost())
        }
        Op::SubscriptionPut { filter, .. } | Op::SubscriptionDelete { filter, .. } => filter.len(),
        Op::MessagePut(_, message) | Op::RetainedPut(message) => message.cost(),
        Op::OwedPut { owed, .. } => match &owed.body {
            Body::Inline(message) => message.cost(),
            Body::Shared(..) | Body::Released => 0,
        },
        Op::RetainedDelete(topic) => topic.len(),
        Op::RegistryPut(key, value) => key.len() + value.len(),
        Op::RegistryDelete(key) => key.len(),
        Op::SessionDelete(_)
        | Op::MessageDelete(_)
        | Op::OwedReleased { .. }
        | Op::OwedDelete { .. }
        | Op::IncomingPut { .. }
        | Op::IncomingDelete { .. } => 0,
    }
}

#[cfg(test)]
mod tests;
