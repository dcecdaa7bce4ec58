//! The open loop: messages are due at their times, whatever the broker does.
//!
//! A publisher that is held up (full socket, too many unacknowledged) publishes later, with the time at which the message was
//! due, so that its delay counts. None waits for another one.

use super::client::Client;
use super::shared::Shared;

/// Bytes that wait for a publisher's socket, above which it counts as held up.
const OUT_BYTES_HIGH: usize = 64 << 10;

/// Publishers that take turns at one rate.
pub(super) struct Pacer {
    slots: Vec<usize>,
    started_ns: u64,
    /// Between two messages of this worker.
    gap_ns: f64,
    /// Between two messages of one publisher.
    period_ns: f64,
    /// Turns taken.
    turns: u64,
}

impl Pacer {
    /// `all` publishers, of whom these are some, send `rate` messages a second together.
    pub(super) fn new(slots: Vec<usize>, rate: f64, all: usize, now_ns: u64, clients: &mut [Client]) -> Option<Self> {
        if slots.is_empty() {
            return None;
        }
        let period_ns = all as f64 * 1e9 / rate;
        let gap_ns = period_ns / slots.len() as f64;
        let pacer = Self { slots, started_ns: now_ns, gap_ns, period_ns, turns: 0 };
        for (index, slot) in pacer.slots.iter().enumerate() {
            if let Some(publisher) = &mut clients[*slot].publisher {
                publisher.due_ns = pacer.due_ns(index, 0);
            }
        }
        Some(pacer)
    }

    /// When a publisher's message is due. From the start each time, so that rounding doesn't add up to a drift of the rate.
    fn due_ns(&self, index: usize, message: u64) -> u64 {
        self.started_ns + (index as f64 * self.gap_ns + message as f64 * self.period_ns) as u64
    }

    /// Publishes what is due; says when the next one is.
    pub(super) fn publish(&mut self, clients: &mut [Client], shared: &mut Shared) -> u64 {
        loop {
            let turn_ns = self.started_ns + (self.turns as f64 * self.gap_ns) as u64;
            if turn_ns > shared.now_ns {
                return turn_ns;
            }
            let index = (self.turns % self.slots.len() as u64) as usize;
            self.turns += 1;
            self.catch_up(index, &mut clients[self.slots[index]], shared);
        }
    }

    fn catch_up(&self, index: usize, client: &mut Client, shared: &mut Shared) {
        if client.is_closed() {
            return;
        }
        let Some(publisher) = &mut client.publisher else { return };
        while publisher.due_ns <= shared.now_ns && client.out.len() < OUT_BYTES_HIGH && publisher.unacked_room() > 0 {
            publisher.publish(&shared.spec, &mut client.out, publisher.due_ns);
            publisher.due_ns = self.due_ns(index, publisher.sent);
            shared.count_published();
        }
        shared.touch(self.slots[index]);
    }

    /// Messages that were due before the end and haven't been sent.
    pub(super) fn unsent(&self, clients: &[Client], end_ns: u64) -> u64 {
        let late = |slot: &usize| {
            let due_ns = clients[*slot].publisher.as_ref().map_or(u64::MAX, |publisher| publisher.due_ns);
            (end_ns.saturating_sub(due_ns) as f64 / self.period_ns) as u64
        };
        self.slots.iter().map(late).sum()
    }
}
