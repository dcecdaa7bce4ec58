//! How fast a session may go: the generic cell rate algorithm (GCRA), as crate `governor` does it.
//!
//! A cell is one number, its *theoretical arrival time* (TAT): the moment at which all that was taken is paid for at the rate. Taking
//! `n` units moves it on by `n` emission intervals from where it was, or from now if that is later; it conforms while the TAT is no
//! further ahead of now than the burst. Nothing runs in the background, and a cell whose TAT has passed is as good as new.
//!
//! ```text
//!  session ── Meter 24 B ──▶ Cells: TAT of messages, TAT of bytes, end of its turn in the pool; of all sessions of one owner
//!                     ├──▶ Allowance: the rates of its kind of owner, shared
//!                     └──▶ Pool: one TAT of messages and one of bytes for many owners
//! ```
//!
//! An owner is a device, which draws from its product's pool, or a user, who draws from the app's. All its sessions charge the same cells,
//! whatever their client ids and shards, so that more connections are no higher rate. The meter lives in the session, so a publish looks nothing up.
//! A session that begins while its owner still owes isn't read before that is paid ([`Meter::wait_ns`]), or, where it may be refused, not beyond the first
//! packet that is slowed: a new connection is no new burst.
//!
//! Two ways to keep a rate ([`Manner`]), and what a client sees of them:
//!
//! | | QoS 0 | QoS 1, 2 | PINGREQ, SUBSCRIBE and the like |
//! |---|---|---|---|
//! | MQTT 3.1, 3.1.1 | slowed | slowed | slowed |
//! | MQTT 5, [`Excess`] by default | slowed | slowed | slowed |
//! | MQTT 5, `refuse_acked` | slowed | 0x97 in PUBACK or PUBREC, not routed | slowed |
//! | MQTT 5, `drop_unacked` | dropped and counted | slowed, or as above | slowed |
//!
//! *Slowed*: what was read is taken and paid for, and nothing more is read until it is paid. So no message that was
//! taken off the wire waits anywhere, an acknowledgement is never a lie, and owners that draw from one pool wake one after the
//! other, each when its own message is paid for. The price: each session may be one message ahead of the rate, which its owner pays for.
//!
//! *Refused*: exactly the rate is taken, since nothing is that doesn't conform, on whichever core.
//!
//! `governor` (0.10) itself isn't used: a limiter of its has one quota for good, so a change makes a new one that knows nothing of what was taken;
//! it owns its clock, and refuses for ever what is larger than the burst. Its keyed store looks a key up for each message and each rate: 250 to
//! 280 ns of a million keys (35 to 45 ns of one), twice for messages and bytes, where a field of the session costs 5 to 10 ns for both. It drops idle keys
//! only in sweeps over all, and has no bound.
//! Arithmetic: nanoseconds in a `u64` (584 years), an emission interval in 1/65,536 of one, so that a byte of 10 GB/s still has four digits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use turnpike_mqtt::{QoS, Version};

/// What a pool may be behind. An owner pays for others there, so the longest that a message isn't read for their sake is this. More owners than
/// the pool has messages for in that time exceed it, by one message each in that time.
pub const POOL_DEBT_MAX_NS: u64 = 10_000_000_000;

/// Fraction bits of an emission interval.
const FRACTION: u32 = 16;
/// No burst reaches further than this and nothing costs more, so that sums of times don't overflow.
const BURST_MAX_NS: u64 = 1 << 60;

/// So many units in a time, and so many at once. `Default` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rate {
    /// Nanoseconds of a unit, times 2^16; 0 is unlimited.
    interval: u64,
    burst_ns: u64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { interval: 0, burst_ns: 0 };

    /// `units` in each `period_ns` nanoseconds, and up to `burst` at once after a rest. None if any is 0, or if a unit would be
    /// due less often than once in three days or more often than once in 1/65,536 ns.
    #[must_use]
    pub fn new(units: u64, period_ns: u64, burst: u64) -> Option<Self> {
        let interval = (u128::from(period_ns) << FRACTION).checked_div(u128::from(units))?;
        let interval = u64::try_from(interval).ok().filter(|interval| *interval > 0 && burst > 0)?;
        let rate = Self { interval, burst_ns: 0 };
        Some(Self { burst_ns: rate.cost_ns(burst).clamp(1, BURST_MAX_NS), ..rate })
    }

    /// `units` a second, and up to a second's worth at once. None if 0.
    #[must_use]
    pub fn per_second(units: u64) -> Option<Self> {
        Self::new(units, 1_000_000_000, units)
    }

    /// No limit.
    #[must_use]
    pub fn is_unlimited(self) -> bool {
        self.interval == 0
    }

    /// What `units` cost, in nanoseconds.
    #[inline]
    fn cost_ns(self, units: u64) -> u64 {
        let cost = (u128::from(units) * u128::from(self.interval)) >> FRACTION;
        u64::try_from(cost).map_or(BURST_MAX_NS, |cost| cost.min(BURST_MAX_NS))
    }

    /// Takes `units` if they conform; else says in how many nanoseconds they will. What costs more than the burst conforms after a rest:
    /// otherwise it never would.
    ///
    /// # Errors
    /// The wait.
    #[inline]
    pub fn take(self, tat: &mut u64, units: u64, now_ns: u64) -> Result<(), u64> {
        let cost = self.cost_ns(units);
        match self.wait_ns(*tat, cost, now_ns) {
            0 => {
                *tat = advanced(*tat, cost, now_ns);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// In how many nanoseconds `cost` conforms; 0 for now.
    #[inline]
    fn wait_ns(self, tat: u64, cost: u64, now_ns: u64) -> u64 {
        if self.is_unlimited() {
            return 0;
        }
        let allowed = now_ns.saturating_add(self.burst_ns.saturating_sub(cost));
        tat.saturating_sub(allowed)
    }
}

/// Where a cell is after a cost was charged.
#[inline]
fn advanced(tat: u64, cost: u64, now_ns: u64) -> u64 {
    tat.max(now_ns).saturating_add(cost)
}

/// Messages and bytes in a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowRate {
    /// Packets.
    pub messages: Rate,
    /// Bytes of PUBLISH packets, headers included: topics and properties cost what payloads do.
    pub bytes: Rate,
}

impl FlowRate {
    /// No limit.
    pub const UNLIMITED: Self = Self { messages: Rate::UNLIMITED, bytes: Rate::UNLIMITED };

    /// No limit of either.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.messages.is_unlimited() && self.bytes.is_unlimited()
    }
}

/// What becomes of an MQTT 5 client's messages above its rate. MQTT 3 has no word for "not this one", so its clients are always slowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Excess {
    /// QoS 1 and 2 are refused with 0x97 on the acknowledgement and not routed; otherwise slowed.
    pub refuse_acked: bool,
    /// QoS 0 is dropped and counted; otherwise slowed.
    pub drop_unacked: bool,
}

impl Excess {
    /// For one message.
    #[must_use]
    pub fn manner(self, version: Version, qos: QoS) -> Manner {
        let refuses = version == Version::V5
            && match qos {
                QoS::AtMostOnce => self.drop_unacked,
                QoS::AtLeastOnce | QoS::ExactlyOnce => self.refuse_acked,
            };
        if refuses { Manner::Refuse } else { Manner::Slow }
    }

    fn bits(self) -> u8 {
        u8::from(self.refuse_acked) | u8::from(self.drop_unacked) << 1
    }

    fn from_bits(bits: u8) -> Self {
        Self { refuse_acked: bits & 1 != 0, drop_unacked: bits & 2 != 0 }
    }
}

/// How a rate is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// All is taken; then the client isn't read until it is paid for.
    Slow,
    /// What doesn't conform isn't taken, and costs nothing.
    Refuse,
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Decision {
    /// It is taken.
    Pass,
    /// It is taken, and the client isn't read for so long.
    Wait {
        /// Nanoseconds, at least 1.
        ns: u64,
    },
    /// It isn't taken.
    Refuse,
}

/// A rate that changes at run time. The two numbers are read one by one: while they change, a message may be judged by the old one
/// of the one and the new of the other, which harms nobody.
#[derive(Debug, Default)]
struct LiveRate {
    interval: AtomicU64,
    burst_ns: AtomicU64,
}

impl LiveRate {
    fn set(&self, rate: Rate) {
        self.interval.store(rate.interval, Relaxed);
        self.burst_ns.store(rate.burst_ns, Relaxed);
    }

    #[inline]
    fn now(&self) -> Rate {
        Rate { interval: self.interval.load(Relaxed), burst_ns: self.burst_ns.load(Relaxed) }
    }
}

/// The rates of each session of a kind, e.g. of each device of a product. One value for all of them; what is set here holds
/// from the next message on.
#[derive(Debug, Default)]
pub struct Allowance {
    messages: LiveRate,
    bytes: LiveRate,
    excess: AtomicU8,
}

impl Allowance {
    /// With these rates.
    #[must_use]
    pub fn new(flow: FlowRate, excess: Excess) -> Self {
        let allowance = Self::default();
        allowance.set(flow, excess);
        allowance
    }

    /// Other rates from now on.
    pub fn set(&self, flow: FlowRate, excess: Excess) {
        self.messages.set(flow.messages);
        self.bytes.set(flow.bytes);
        self.excess.store(excess.bits(), Relaxed);
    }
}

/// Cells that many owners draw from: a product as a whole, an app. Both are changed by each message, so they lie side by
/// side: a core that takes them from another pays once.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Pool {
    messages_tat: AtomicU64,
    bytes_tat: AtomicU64,
    messages: LiveRate,
    bytes: LiveRate,
}

impl Pool {
    /// With these rates.
    #[must_use]
    pub fn new(flow: FlowRate) -> Self {
        let pool = Self::default();
        pool.set(flow);
        pool
    }

    /// Other rates from now on. What was taken stays taken.
    pub fn set(&self, flow: FlowRate) {
        self.messages.set(flow.messages);
        self.bytes.set(flow.bytes);
    }

    /// All that was taken is paid for, so it could be forgotten and made anew.
    #[must_use]
    pub fn is_idle(&self, now_ns: u64) -> bool {
        self.messages_tat.load(Relaxed).max(self.bytes_tat.load(Relaxed)) <= now_ns
    }

    fn dues(&self, bytes: u64) -> [Due<'_>; 2] {
        [Due::messages(&self.messages_tat, &self.messages), Due::bytes(&self.bytes_tat, &self.bytes, bytes)]
    }
}

/// What a message is to take from a cell.
struct Due<'a> {
    tat: &'a AtomicU64,
    rate: Rate,
    cost_ns: u64,
    /// What has to conform after it before a slowed client is read again.
    next_ns: u64,
}

impl<'a> Due<'a> {
    #[inline]
    fn messages(tat: &'a AtomicU64, rate: &LiveRate) -> Self {
        let rate = rate.now();
        let cost_ns = rate.cost_ns(1);
        Self { tat, rate, cost_ns, next_ns: cost_ns }
    }

    #[inline]
    fn bytes(tat: &'a AtomicU64, rate: &LiveRate, bytes: u64) -> Self {
        let rate = rate.now();
        Self { tat, rate, cost_ns: rate.cost_ns(bytes), next_ns: 0 }
    }

    /// Charges it, but no further ahead of now than the burst and `debt_max_ns`; gives the wait until what is next conforms.
    #[inline]
    fn charge(&self, debt_max_ns: u64, now_ns: u64) -> u64 {
        if self.rate.is_unlimited() {
            return 0;
        }
        let most = now_ns.saturating_add(self.rate.burst_ns).saturating_add(debt_max_ns);
        let after = |tat: u64| advanced(tat, self.cost_ns, now_ns).min(most.max(tat));
        let mut seen = self.tat.load(Relaxed);
        while let Err(now) = self.tat.compare_exchange_weak(seen, after(seen), Relaxed, Relaxed) {
            seen = now;
        }
        self.rate.wait_ns(after(seen), self.next_ns, now_ns).min(debt_max_ns)
    }

    #[inline]
    fn conforms(&self, now_ns: u64) -> bool {
        self.rate.wait_ns(self.tat.load(Relaxed), self.cost_ns, now_ns) == 0
    }

    /// Takes it if it conforms: of two cores that want the last one, one gets it.
    #[inline]
    fn take(&self, now_ns: u64) -> bool {
        if self.rate.is_unlimited() {
            return true;
        }
        let mut seen = self.tat.load(Relaxed);
        while self.rate.wait_ns(seen, self.cost_ns, now_ns) == 0 {
            match self.tat.compare_exchange_weak(seen, advanced(seen, self.cost_ns, now_ns), Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    fn give_back(&self) {
        if !self.rate.is_unlimited() {
            self.tat.fetch_sub(self.cost_ns, Relaxed);
        }
    }
}

/// Takes of all, or of none.
#[inline]
fn take_all(dues: &[Due<'_>], now_ns: u64) -> bool {
    for (index, due) in dues.iter().enumerate() {
        if !due.take(now_ns) {
            dues.iter().take(index).for_each(Due::give_back);
            return false;
        }
    }
    true
}

/// What an owner has still to pay for, kept from one of its sessions to the next, so that reconnecting buys nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Debt {
    /// TAT of messages, nanoseconds of the clock that never goes back.
    pub messages_tat_ns: u64,
    /// TAT of bytes, likewise.
    pub bytes_tat_ns: u64,
    /// When its turn in its pool comes, likewise.
    pub held_until_ns: u64,
}

impl Debt {
    /// For how many nanoseconds something is owed; 0 for no more.
    #[must_use]
    pub fn owed_ns(self, now_ns: u64) -> u64 {
        self.messages_tat_ns.max(self.bytes_tat_ns).max(self.held_until_ns).saturating_sub(now_ns)
    }

    /// Nothing is owed.
    #[must_use]
    pub fn is_paid(self, now_ns: u64) -> bool {
        self.owed_ns(now_ns) == 0
    }
}

/// What was taken by one owner, in whichever of its sessions: they may be of different shards.
#[derive(Debug, Default)]
pub struct Cells {
    messages_tat: AtomicU64,
    bytes_tat: AtomicU64,
    held_until: AtomicU64,
}

impl Cells {
    /// What is still to be paid for.
    #[must_use]
    pub fn debt(&self) -> Debt {
        Debt {
            messages_tat_ns: self.messages_tat.load(Relaxed),
            bytes_tat_ns: self.bytes_tat.load(Relaxed),
            held_until_ns: self.held_until.load(Relaxed),
        }
    }

    /// Owes this, too: whichever is more counts.
    pub fn owe(&self, debt: Debt) {
        self.messages_tat.fetch_max(debt.messages_tat_ns, Relaxed);
        self.bytes_tat.fetch_max(debt.bytes_tat_ns, Relaxed);
        self.held_until.fetch_max(debt.held_until_ns, Relaxed);
    }

    /// Its pool is behind by so much: all its sessions together wait for it as often as a single one would. Gives this one's wait.
    fn hold(&self, wait_ns: u64, now_ns: u64) -> u64 {
        let mut seen = self.held_until.load(Relaxed);
        while let Err(now) =
            self.held_until.compare_exchange_weak(seen, advanced(seen, wait_ns, now_ns), Relaxed, Relaxed)
        {
            seen = now;
        }
        advanced(seen, wait_ns, now_ns) - now_ns
    }
}

/// The cells of a session's owner, and the pool that it draws from.
#[derive(Debug)]
pub struct Meter {
    own: Arc<Cells>,
    allowance: Arc<Allowance>,
    pool: Option<Arc<Pool>>,
}

impl Meter {
    /// A meter with cells of its own that owes `debt`.
    #[must_use]
    pub fn new(allowance: Arc<Allowance>, pool: Option<Arc<Pool>>, debt: Debt) -> Self {
        let own = Arc::new(Cells::default());
        own.owe(debt);
        Self::sharing(allowance, pool, own)
    }

    /// A meter that charges cells which other sessions of the same owner charge, too.
    #[must_use]
    pub fn sharing(allowance: Arc<Allowance>, pool: Option<Arc<Pool>>, own: Arc<Cells>) -> Self {
        Self { own, allowance, pool }
    }

    /// The cells that it charges.
    #[must_use]
    pub fn cells(&self) -> &Arc<Cells> {
        &self.own
    }

    /// In how many nanoseconds a session that begins now is to be read; 0 for now. It waits for what its owner owes, and for the owner's turn
    /// in a pool that is behind; others' debts there don't hold up whoever has sent nothing.
    #[must_use]
    pub fn wait_ns(&self, now_ns: u64) -> u64 {
        let [messages, bytes] = self.dues(0);
        let wait = |due: Due<'_>| due.rate.wait_ns(due.tat.load(Relaxed), due.next_ns, now_ns);
        let behind = self.pool.as_ref().is_some_and(|pool| !pool.dues(0).iter().all(|due| due.conforms(now_ns)));
        let held_until = if behind { self.own.held_until.load(Relaxed) } else { 0 };
        wait(messages).max(wait(bytes)).max(held_until.saturating_sub(now_ns))
    }

    /// How the rate is kept for MQTT 5.
    #[must_use]
    pub fn excess(&self) -> Excess {
        Excess::from_bits(self.allowance.excess.load(Relaxed))
    }

    /// What it has still to pay for.
    #[must_use]
    pub fn debt(&self) -> Debt {
        self.own.debt()
    }

    /// Owes what the meter before it owed, too.
    #[must_use]
    pub fn owing(self, debt: Debt) -> Self {
        self.own.owe(debt);
        self
    }

    /// One PUBLISH of so many bytes.
    #[inline]
    pub fn publish(&mut self, now_ns: u64, bytes: usize, manner: Manner) -> Decision {
        let bytes = bytes as u64;
        match manner {
            Manner::Slow => slowed(self.charge(bytes, now_ns)),
            Manner::Refuse if self.take(bytes, now_ns) => Decision::Pass,
            Manner::Refuse => Decision::Refuse,
        }
    }

    /// Any other packet that a client may send at will, PINGREQ above all: it costs a message of the owner's own and is
    /// never refused.
    #[inline]
    pub fn packet(&mut self, now_ns: u64) -> Decision {
        slowed(Due::messages(&self.own.messages_tat, &self.allowance.messages).charge(u64::MAX, now_ns))
    }

    #[inline]
    fn dues(&self, bytes: u64) -> [Due<'_>; 2] {
        let (own, allowance) = (&*self.own, &*self.allowance);
        [Due::messages(&own.messages_tat, &allowance.messages), Due::bytes(&own.bytes_tat, &allowance.bytes, bytes)]
    }

    #[inline]
    fn charge(&self, bytes: u64, now_ns: u64) -> u64 {
        let charge = |dues: [Due<'_>; 2], debt_max_ns| {
            let [messages, bytes] = dues;
            messages.charge(debt_max_ns, now_ns).max(bytes.charge(debt_max_ns, now_ns))
        };
        let wait_ns = charge(self.dues(bytes), u64::MAX);
        let behind_ns = self.pool.as_ref().map_or(0, |pool| charge(pool.dues(bytes), POOL_DEBT_MAX_NS));
        if behind_ns == 0 { wait_ns } else { wait_ns.max(self.own.hold(behind_ns, now_ns)) }
    }

    /// Takes of all cells if all have room. They are asked first, so that what is refused writes nothing.
    #[inline]
    fn take(&self, bytes: u64, now_ns: u64) -> bool {
        let [messages, octets] = self.dues(bytes);
        if !(messages.conforms(now_ns) && octets.conforms(now_ns)) {
            return false;
        }
        let Some(pool) = &self.pool else { return take_all(&[messages, octets], now_ns) };
        let [pool_messages, pool_octets] = pool.dues(bytes);
        let conform = pool_messages.conforms(now_ns) && pool_octets.conforms(now_ns);
        conform && take_all(&[messages, octets, pool_messages, pool_octets], now_ns)
    }
}

#[inline]
fn slowed(wait_ns: u64) -> Decision {
    if wait_ns == 0 { Decision::Pass } else { Decision::Wait { ns: wait_ns } }
}

#[cfg(test)]
mod tests;
