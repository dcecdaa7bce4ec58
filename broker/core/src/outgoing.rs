//! What one session is owed: QoS 1 and 2 by sequence number, and QoS 0 that waits for a slow connection.
//!
//! A message's packet identifier is `seq mod 65535 + 1`, so nothing records which identifiers are free, and finding the entry of
//! an acknowledgement is arithmetic. Entries finish in any order and leave from the front.
//!
//! ```text
//!  AwaitingCommit ──committed──▶ Ready ──(on the wire)── PUBACK ──▶ Done          QoS 1
//!        │                         └────────────── PUBREC ─▶ Releasing ─committed─▶ Released ── PUBCOMP ──▶ Done   QoS 2
//!        └──withdrawn──▶ Withdrawn ──committed──▶ Done                    its reader may not read it any more
//! ```
//!
//! `Ready` before `unsent` is under way on this connection; a new connection sets `unsent` back to the front, and what is
//! sent again carries DUP [MQTT-4.4.0-1].
//!
//! All operations are O(1) but `rewind` and `drain`, which visit what is queued.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use turnpike_mqtt::{PacketId, QoS};

use crate::ids::Seq;
use crate::message::Message;

/// Packet identifiers in use at once: 1 to 65,535.
const IDENTIFIERS: u64 = 65_535;

/// Subscription identifiers of one delivery; nearly always none or one.
pub(crate) type Identifiers = SmallVec<[u32; 2]>;

/// The packet identifier of a sequence number.
/// Implements [MQTT-4.3.2-1] [MQTT-4.3.3-1].
pub(crate) fn packet_id(seq: Seq) -> PacketId {
    let id = u16::try_from(seq.0 % IDENTIFIERS + 1).expect("a remainder of 65,535 plus one fits");
    PacketId::new(id).expect("at least one")
}

/// Where an entry stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Its ticket isn't on disk; it must not be said.
    AwaitingCommit,
    /// The same, and nobody is to have it: it goes when its ticket is on disk, so that its end is recorded behind its beginning.
    Withdrawn,
    /// To be sent, or (before `unsent`) sent and not acknowledged.
    Ready,
    /// PUBREC has come; its record isn't on disk.
    Releasing,
    /// PUBREL is owed or under way.
    Released,
    /// Finished; waits for those before it.
    Done,
}

/// One message owed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The message; none once released, and none where it was encoded at once and can never be sent again.
    pub(crate) message: Option<Arc<Message>>,
    /// The shared subscription that it came by, `$share/…` and all.
    pub(crate) share: Option<Arc<str>>,
    pub(crate) identifiers: Identifiers,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) phase: Phase,
    /// Sent on an earlier connection.
    pub(crate) dup: bool,
}

/// What to send next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// PUBLISH of this entry.
    Publish(Seq),
    /// PUBREL of this entry.
    Release(Seq),
}

/// What an acknowledgement means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acked {
    /// It moves this entry on.
    Known(Seq),
    /// It says again what is known; answer again.
    Again(Seq),
    /// No such exchange.
    Unknown,
    /// The exchange isn't where this acknowledgement belongs: a protocol error.
    Wrong,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    base: u64,
    unsent: u64,
    inflight: u32,
    unfinished: u32,
    bytes: usize,
    entries: VecDeque<Entry>,
    /// QoS 0 for a connection whose out buffer is full.
    pub(crate) transient: VecDeque<Entry>,
}

impl Outgoing {
    /// An empty queue that goes on at `next`.
    pub(crate) fn starting_at(next: Seq) -> Self {
        Self { base: next.0, unsent: next.0, ..Self::default() }
    }

    /// The sequence number that the next entry gets.
    pub(crate) fn next_seq(&self) -> Seq {
        Seq(self.base + self.entries.len() as u64)
    }

    /// Messages that wait or are under way, QoS 0 included.
    pub(crate) fn messages(&self) -> usize {
        self.unfinished as usize + self.transient.len()
    }

    /// Bytes that they cost.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing is queued and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.transient.is_empty()
    }

    /// Everything queued has been sent: what comes next may be sent at once.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.unsent == self.base + self.entries.len() as u64
    }

    /// Whether `n` more may be under way within `window`, identifiers included.
    /// Implements [MQTT-4.9.0-1] [MQTT-4.9.0-2].
    pub(crate) fn has_window(&self, window: u16) -> bool {
        self.inflight < u32::from(window) && self.unsent - self.base < IDENTIFIERS
    }

    /// Adds an entry.
    pub(crate) fn push(&mut self, entry: Entry) -> Seq {
        let seq = self.next_seq();
        self.bytes += cost(&entry);
        self.unfinished += 1;
        self.entries.push_back(entry);
        seq
    }

    /// Adds an entry that is being sent this moment: the queue must be caught up.
    pub(crate) fn push_sent(&mut self, entry: Entry) -> Seq {
        debug_assert!(self.is_caught_up());
        let seq = self.push(entry);
        self.unsent += 1;
        self.inflight += 1;
        seq
    }

    /// Adds a recovered entry, which may leave a gap before it.
    pub(crate) fn push_recovered(&mut self, seq: Seq, entry: Entry) {
        if self.entries.is_empty() {
            self.base = seq.0;
            self.unsent = seq.0;
        }
        while self.next_seq() < seq {
            self.entries.push_back(Entry::done());
        }
        self.push(entry);
    }

    fn entry(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.0.checked_sub(self.base)?).ok()?)
    }

    fn entry_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(seq.0.checked_sub(self.base)?).ok()?)
    }

    /// The entry, while it is unfinished.
    pub(crate) fn peek(&self, seq: Seq) -> Option<&Entry> {
        self.entry(seq).filter(|entry| entry.phase != Phase::Done)
    }

    /// What may be sent now. Stops at an entry whose commit is awaited, so order is kept [MQTT-4.6.0-6].
    pub(crate) fn next(&mut self, window: u16) -> Option<Next> {
        loop {
            let seq = Seq(self.unsent);
            match self.entry(seq)?.phase {
                Phase::Done => self.unsent += 1,
                Phase::AwaitingCommit | Phase::Withdrawn | Phase::Releasing => return None,
                Phase::Ready => return self.has_window(window).then_some(Next::Publish(seq)),
                Phase::Released => return Some(Next::Release(seq)),
            }
        }
    }

    /// The entry that [`Outgoing::next`] named has been encoded.
    pub(crate) fn mark_sent(&mut self, seq: Seq) {
        debug_assert_eq!(seq.0, self.unsent);
        self.unsent += 1;
        self.inflight += 1;
        if let Some(entry) = self.entry_mut(seq) {
            entry.dup = true;
        }
    }

    /// The entry's ticket is on disk. Says whether it is to be sent in its turn (`Ready`) or its PUBREL at once.
    pub(crate) fn commit(&mut self, seq: Seq) -> Option<Next> {
        let under_way = seq.0 < self.unsent;
        let entry = self.entry_mut(seq)?;
        match entry.phase {
            Phase::AwaitingCommit => {
                entry.phase = Phase::Ready;
                Some(Next::Publish(seq))
            }
            Phase::Releasing => {
                entry.phase = Phase::Released;
                // Before `unsent` it is owed on this connection now; behind it, `next` comes to it in order.
                Some(if under_way { Next::Release(seq) } else { Next::Publish(seq) })
            }
            Phase::Ready | Phase::Withdrawn | Phase::Released | Phase::Done => None,
        }
    }

    /// Which entry, under way on this connection, an identifier names.
    fn under_way(&self, id: PacketId) -> Option<Seq> {
        let offset = (u64::from(id.get()) - 1 + IDENTIFIERS - self.base % IDENTIFIERS) % IDENTIFIERS;
        let seq = self.base + offset;
        (seq < self.unsent).then_some(Seq(seq))
    }

    /// PUBACK ends an exchange of QoS 1.
    /// Implements [MQTT-4.3.2-3].
    pub(crate) fn puback(&self, id: PacketId) -> Acked {
        let Some(seq) = self.under_way(id) else { return Acked::Unknown };
        match self.entry(seq).map(|entry| (entry.qos, entry.phase)) {
            None | Some((_, Phase::Done)) => Acked::Unknown,
            Some((QoS::AtLeastOnce, Phase::Ready)) => Acked::Known(seq),
            Some(_) => Acked::Wrong,
        }
    }

    /// PUBREC: the message itself is done with; the identifier isn't.
    /// Implements [MQTT-4.3.3-3].
    pub(crate) fn pubrec(&self, id: PacketId) -> Acked {
        let Some(seq) = self.under_way(id) else { return Acked::Unknown };
        match self.entry(seq).map(|entry| (entry.qos, entry.phase)) {
            None | Some((_, Phase::Done)) => Acked::Unknown,
            Some((QoS::ExactlyOnce, Phase::Ready)) => Acked::Known(seq),
            Some((QoS::ExactlyOnce, Phase::Releasing | Phase::Released)) => Acked::Again(seq),
            Some(_) => Acked::Wrong,
        }
    }

    /// PUBCOMP ends an exchange of QoS 2 whose PUBREL has been sent.
    /// Implements [MQTT-4.3.3-5].
    pub(crate) fn pubcomp(&self, id: PacketId) -> Acked {
        let Some(seq) = self.under_way(id) else { return Acked::Unknown };
        match self.entry(seq).map(|entry| (entry.qos, entry.phase)) {
            None | Some((_, Phase::Done)) => Acked::Unknown,
            Some((QoS::ExactlyOnce, Phase::Released)) => Acked::Known(seq),
            Some(_) => Acked::Wrong,
        }
    }

    /// Whether PUBREL is owed or under way.
    pub(crate) fn is_released(&self, seq: Seq) -> bool {
        self.entry(seq).is_some_and(|entry| entry.phase == Phase::Released)
    }

    /// Moves an entry to `Releasing` (a durable session) or `Released`, and gives its message back.
    pub(crate) fn release(&mut self, seq: Seq, awaiting_commit: bool) -> Option<Arc<Message>> {
        let entry = self.entry_mut(seq)?;
        entry.phase = if awaiting_commit { Phase::Releasing } else { Phase::Released };
        let message = entry.message.take()?;
        self.bytes -= message.cost();
        Some(message)
    }

    /// Takes an entry out, wherever it stands.
    pub(crate) fn finish(&mut self, seq: Seq) -> Option<Entry> {
        let under_way = seq.0 < self.unsent;
        let entry = self.entry_mut(seq).filter(|entry| entry.phase != Phase::Done)?;
        let finished = std::mem::replace(entry, Entry::done());
        self.bytes -= cost(&finished);
        self.unfinished -= 1;
        if under_way {
            self.inflight -= 1;
        }
        while self.entries.front().is_some_and(|entry| entry.phase == Phase::Done) {
            self.entries.pop_front();
            self.base += 1;
        }
        self.unsent = self.unsent.max(self.base);
        Some(finished)
    }

    /// Takes out what hasn't been sent on this connection and may not be any more, and gives back what is recorded of that. A QoS 2 message that
    /// an earlier connection has begun goes too; its client forgets the identifier with the session.
    pub(crate) fn withdraw(&mut self, may: &mut impl FnMut(&Message) -> bool) -> Vec<(Seq, Entry)> {
        let mut forbidden = |entry: &Entry| entry.message.as_ref().is_some_and(|message| !may(message));
        let mut gone = Vec::new();
        for seq in (self.unsent..self.next_seq().0).map(Seq) {
            let Some(entry) = self.entry_mut(seq) else { continue };
            match entry.phase {
                Phase::AwaitingCommit if forbidden(entry) => entry.phase = Phase::Withdrawn,
                Phase::Ready if forbidden(entry) => gone.push(seq),
                Phase::AwaitingCommit
                | Phase::Ready
                | Phase::Withdrawn
                | Phase::Releasing
                | Phase::Released
                | Phase::Done => {}
            }
        }
        let gone = gone.into_iter().filter_map(|seq| Some((seq, self.finish(seq)?))).collect();
        for _ in 0..self.transient.len() {
            match self.pop_transient() {
                Some(entry) if !forbidden(&entry) => self.push_transient(entry),
                Some(_) | None => {}
            }
        }
        gone
    }

    /// Takes out an entry that was withdrawn before its ticket was on disk.
    pub(crate) fn finish_withdrawn(&mut self, seq: Seq) -> Option<Entry> {
        self.entry(seq).filter(|entry| entry.phase == Phase::Withdrawn)?;
        self.finish(seq)
    }

    /// Adds a QoS 0 message that waits for room.
    pub(crate) fn push_transient(&mut self, entry: Entry) {
        self.bytes += cost(&entry);
        self.transient.push_back(entry);
    }

    /// The next QoS 0 message.
    pub(crate) fn pop_transient(&mut self) -> Option<Entry> {
        let entry = self.transient.pop_front()?;
        self.bytes -= cost(&entry);
        Some(entry)
    }

    /// The connection has ended: what was under way is owed again, QoS 0 is forgotten.
    /// Implements [MQTT-4.3.3-6].
    pub(crate) fn rewind(&mut self) {
        self.unsent = self.base;
        self.inflight = 0;
        while self.pop_transient().is_some() {}
        self.transient.shrink_to_fit();
    }

    /// Everything unfinished, in order; the queue is empty afterwards.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Seq, Entry)> + use<> {
        let base = self.base;
        let entries = std::mem::take(&mut self.entries);
        *self = Self::starting_at(Seq(base + entries.len() as u64));
        (base..).map(Seq).zip(entries).filter(|(_, entry)| entry.phase != Phase::Done)
    }
}

impl Entry {
    fn done() -> Self {
        Self {
            message: None,
            share: None,
            identifiers: Identifiers::new(),
            qos: QoS::AtLeastOnce,
            retain: false,
            phase: Phase::Done,
            dup: false,
        }
    }
}

fn cost(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.message.as_ref().map_or(0, |message| message.cost())
}

#[cfg(test)]
mod tests;
