//! What the clients of a worker share: the clock of the turn, counts, windows, and who has something to do.

use std::io;
use std::sync::Arc;

use super::publisher::Publisher;
use super::subscriber::{Seen, Stream};
use crate::outcome::{Counts, Last, Outcome};
use crate::plan::Plan;
use crate::spec::{Credit, Pace, Scenario, Spec};

/// No client of this worker.
const NOBODY: u32 = u32::MAX;

pub(super) struct Shared {
    pub(super) spec: Arc<Spec>,
    pub(super) credit: Credit,
    /// Before the first message of this run.
    pub(super) born_ns: u64,
    /// Time of this turn.
    pub(super) now_ns: u64,
    /// The measured time.
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    pub(super) measuring: bool,
    pub(super) total: Counts,
    pub(super) last_ns: Last,
    pub(super) failed: u64,
    /// Clients between connect and ready.
    pub(super) connecting: u64,
    /// When subscriptions that were held back went out.
    pub(super) subscribed_ns: u64,
    /// Publishers, by number: the client.
    pub(super) slots: Vec<u32>,
    /// Publishers, by number: what has come back of their messages.
    credits: Vec<u64>,
    /// Publishers, by number, as a group of subscribers sees them.
    group: Vec<Stream>,
    /// Publishers that may have room.
    pub(super) refill: Vec<usize>,
    /// Publishers that had room for more than a turn's work.
    pub(super) later: Vec<usize>,
    /// Clients that may have something to write.
    pub(super) touched: Vec<usize>,
    pub(super) is_touched: Vec<bool>,
    outcome: Outcome,
}

impl Shared {
    pub(super) fn new(spec: Arc<Spec>, plans: &[Plan]) -> Self {
        let back_ends = if spec.scenario == Scenario::Mixed { spec.subscribers } else { 0 };
        let publishers = if spec.is_loaded() { spec.publishers + back_ends } else { 0 };
        Self {
            credit: spec.credit(),
            born_ns: crate::clock::now_ns(),
            now_ns: crate::clock::now_ns(),
            begin_ns: u64::MAX,
            end_ns: u64::MAX,
            measuring: false,
            total: Counts::default(),
            last_ns: Last::default(),
            failed: 0,
            connecting: 0,
            subscribed_ns: 0,
            slots: vec![NOBODY; publishers],
            credits: vec![0; publishers],
            group: vec![Stream::default(); publishers],
            refill: Vec::new(),
            later: Vec::new(),
            touched: Vec::new(),
            is_touched: vec![false; plans.len()],
            outcome: Outcome::default(),
            spec,
        }
    }

    /// The clients of this worker that publish.
    pub(super) fn publishers(&self) -> impl Iterator<Item = usize> + use<'_> {
        self.slots.iter().filter(|slot| **slot != NOBODY).map(|slot| *slot as usize)
    }

    /// The client may have something to write.
    #[inline]
    pub(super) fn touch(&mut self, slot: usize) {
        if let Some(is_touched) = self.is_touched.get_mut(slot)
            && !*is_touched
        {
            *is_touched = true;
            self.touched.push(slot);
        }
    }

    pub(super) fn fail(&mut self, error: &io::Error) {
        self.failed += 1;
        *self.outcome.failures.entry(error.to_string()).or_default() += 1;
    }

    /// A client had its CONNACK; `since_ns` is when that should have begun.
    pub(super) fn count_connected(&mut self, since_ns: u64) {
        self.outcome.connecting.record(self.now_ns.saturating_sub(since_ns));
    }

    /// A client is as far as it should be.
    pub(super) fn count_ready(&mut self) {
        self.total.ready += 1;
        self.connecting -= 1;
    }

    #[inline]
    pub(super) fn count_published(&mut self) {
        self.total.published += 1;
        self.outcome.measured.published += u64::from(self.measuring);
    }

    /// The broker's last acknowledgement of a message. `at_ns`: when it was published, if nobody receives it.
    #[inline]
    pub(super) fn count_acked(&mut self, publisher: &Publisher, at_ns: Option<u64>) {
        self.total.acked += 1;
        self.outcome.measured.acked += u64::from(self.measuring);
        self.last_ns.acked = self.now_ns;
        if let Some(at_ns) = at_ns {
            self.record_latency(at_ns);
        }
        if self.credit == Credit::Acks {
            self.give(publisher.number, 1);
        } else if publisher.is_blocked {
            self.refill(publisher.number);
        }
    }

    /// A message at a subscriber.
    #[inline]
    pub(super) fn count_delivered(&mut self, publisher: u32, at_ns: u64, seen: Seen) {
        self.total.delivered += 1;
        self.outcome.measured.delivered += u64::from(self.measuring);
        self.last_ns.delivered = self.now_ns;
        self.record_latency(if self.subscribed_ns > 0 { self.subscribed_ns } else { at_ns });
        match seen {
            Seen::InOrder => {}
            Seen::Late => self.outcome.reordered += 1,
            Seen::Again => {
                self.outcome.repeated += 1;
                return;
            }
        }
        if let Credit::Deliveries(_) = self.credit {
            self.give(publisher, 1);
        }
    }

    /// In an open loop, everything that was due in the measured time counts, however late it comes.
    #[inline]
    fn record_latency(&mut self, at_ns: u64) {
        let counts = match self.spec.pace {
            Pace::Rate(_) => (self.begin_ns..self.end_ns).contains(&at_ns),
            Pace::Window(_) => self.measuring,
        };
        if counts {
            self.outcome.latency.record(self.now_ns.saturating_sub(at_ns));
        }
    }

    /// How the group of subscribers sees this message.
    #[inline]
    pub(super) fn see_in_group(&mut self, publisher: u32, number: u32) -> Seen {
        let Some(stream) = self.group.get_mut(publisher as usize) else { return Seen::InOrder };
        // Members of a group have no order between them.
        match stream.see(number) {
            Seen::Again => Seen::Again,
            Seen::InOrder | Seen::Late => Seen::InOrder,
        }
    }

    #[inline]
    fn give(&mut self, publisher: u32, credit: u64) {
        if let Some(credits) = self.credits.get_mut(publisher as usize) {
            *credits += credit;
            self.refill(publisher);
        }
    }

    #[inline]
    fn refill(&mut self, publisher: u32) {
        let Some(&slot) = self.slots.get(publisher as usize) else { return };
        // Messages come in runs of one publisher, so this keeps the list as short as a set would.
        if slot != NOBODY && self.refill.last() != Some(&(slot as usize)) {
            self.refill.push(slot as usize);
        }
    }

    /// How many messages the publisher may send now.
    #[inline]
    pub(super) fn room(&self, publisher: &mut Publisher) -> u64 {
        let Pace::Window(window) = self.spec.pace else { return 0 };
        if self.credit == Credit::None {
            // Nothing comes back that could open a window.
            return publisher.left();
        }
        let credits = self.credits[publisher.number as usize];
        let outstanding = match self.credit {
            Credit::Deliveries(copies) => publisher.sent.saturating_sub(credits / copies),
            Credit::Acks => publisher.sent.saturating_sub(credits),
            Credit::None | Credit::Impossible => 0,
        };
        let room = u64::from(window).saturating_sub(outstanding).min(publisher.left());
        let unacked_room = publisher.unacked_room();
        publisher.is_blocked = unacked_room < room;
        room.min(unacked_room)
    }

    /// What was under way is given up.
    pub(super) fn forgive(&mut self, publisher: &Publisher) {
        let copies = if let Credit::Deliveries(copies) = self.credit { copies } else { 1 };
        let credits = &mut self.credits[publisher.number as usize];
        if *credits < publisher.sent * copies {
            *credits = publisher.sent * copies;
            self.outcome.stalls += 1;
        }
    }

    /// Whether nothing is under way any more, so far as this worker can tell. `alone`: it has all subscribers.
    pub(super) fn is_all_there(&self, alone: bool) -> bool {
        let acked = self.spec.qos as u8 == 0 || self.total.acked >= self.total.published;
        let alone = alone || self.spec.scenario == Scenario::Pair;
        let unique = self.total.delivered - self.outcome.repeated;
        acked && alone && unique >= self.total.published * self.spec.copies() as u64
    }

    pub(super) fn take_outcome(&mut self) -> Outcome {
        self.outcome.total = self.total;
        self.outcome.last_ns = self.last_ns;
        std::mem::take(&mut self.outcome)
    }
}
