//! The devices of a campaign: states, deadlines, and who is in which state.
//!
//! A member takes 28 bytes and an entry of 8 in a hash table. Members under way are chained by index, one chain for each state that has a time limit,
//! the longest in it first. Since the limit of a state is the same for all devices, a chain is sorted by deadline without ever being sorted, and what
//! is due is at its head. So everything here is O(1) but [`Fleet::members`] and [`Fleet::reserve`].
//!
//! What lost: *a timer wheel*, 24 bytes an entry, and entries of devices that have long moved on, since nothing is taken out of it before it
//! is due: a device that runs through all states in a minute would leave six for a day. *A B-tree by deadline*: O(log n), twice the memory.
//!
//! Names are elsewhere, once for all campaigns: [`DeviceKey`].

#[cfg(test)]
mod tests;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use turnpike_core::clock::Now;
use turnpike_core::table::Table;

use crate::machine::{Event, Impossible, Kind, Limits, Reason, Standing, State, step};

/// Devices of one campaign.
pub const DEVICES_MAX: usize = 10_000_000;

const NONE: u32 = u32::MAX;

/// A device, in the scheduler that has given the key, as long as it is in a campaign or connected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceKey(pub(crate) u32);

/// A place in a fleet. It stays the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub(crate) u32);

/// A device in a campaign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which.
    pub device: DeviceKey,
    /// How it stands.
    pub standing: Standing,
    /// Its group, counted from 0.
    pub group: u8,
    /// How often it has been tried again.
    pub retries: u8,
}

/// A [`Member`] and its place in a chain. Flat: a member in it would bring its padding.
#[derive(Clone, Copy, Debug)]
struct Entry {
    device: DeviceKey,
    standing: Standing,
    /// Seconds of the clock that never goes back. Meaningful under way.
    deadline_s: u32,
    previous: u32,
    next: u32,
    group: u8,
    retries: u8,
    waiting: bool,
}

impl Entry {
    const fn member(&self) -> Member {
        Member { device: self.device, standing: self.standing, group: self.group, retries: self.retries }
    }
}

/// Members in a state with a limit, the earliest deadline first.
#[derive(Clone, Copy, Debug)]
struct Chain {
    first: u32,
    last: u32,
}

/// The devices of a campaign.
#[derive(Debug)]
pub struct Fleet {
    limits: Limits,
    entries: Table<Entry>,
    places: HashMap<DeviceKey, u32, FixedState>,
    chains: [Chain; Limits::KINDS.len()],
    /// By group and kind.
    counts: Vec<[u32; Kind::ALL.len()]>,
    /// The queue has been cancelled: everybody in it counts as cancelled since then, and nobody had to be touched for it.
    cancelled_s: Option<u32>,
}

impl Fleet {
    /// Nobody, in so many groups.
    #[must_use]
    pub fn new(groups: usize, limits: Limits) -> Self {
        Self {
            limits,
            entries: Table::new(),
            places: HashMap::default(),
            chains: [Chain { first: NONE, last: NONE }; Limits::KINDS.len()],
            counts: vec![[0; Kind::ALL.len()]; groups],
            cancelled_s: None,
        }
    }

    /// Makes room, so that what comes doesn't have to wait for it.
    pub fn reserve(&mut self, devices: usize) {
        self.places.reserve(devices);
    }

    /// How many devices there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a device to the queue of a group. None if it is in the fleet already, or there is no such group, or no room.
    pub fn insert(&mut self, device: DeviceKey, group: u8, since_s: u32) -> Option<Slot> {
        if self.places.contains_key(&device) || self.len() >= DEVICES_MAX {
            return None;
        }
        self.count_mut(group, Kind::Queued).map(|count| *count += 1)?;
        let standing = Standing::queued(since_s);
        let (deadline_s, previous, next) = (0, NONE, NONE);
        let entry = Entry { device, standing, deadline_s, previous, next, group, retries: 0, waiting: false };
        let at = u32::try_from(self.entries.insert(entry)).ok()?;
        self.places.insert(device, at);
        Some(Slot(at))
    }

    /// Gives a device the standing that it had before a restart. Those that have been longest in their states come first.
    pub fn restore(&mut self, slot: Slot, standing: Standing, retries: u8, now: Now) {
        let Some(entry) = self.entries.get_mut(slot.0 as usize) else { return };
        entry.retries = retries;
        let from = entry.standing.state.kind();
        let spent_s = unix_s(now).saturating_sub(standing.since_s);
        self.set(slot, from, standing, mono_s(now).saturating_sub(spent_s));
    }

    /// Where a device is.
    #[must_use]
    pub fn find(&self, device: DeviceKey) -> Option<Slot> {
        self.places.get(&device).copied().map(Slot)
    }

    /// The device in a place.
    #[must_use]
    pub fn member(&self, slot: Slot) -> Option<Member> {
        self.entries.get(slot.0 as usize).map(|entry| self.seen(entry.member()))
    }

    /// Devices from a place on.
    pub fn members(&self, from: Slot) -> impl Iterator<Item = (Slot, Member)> {
        let end = u32::try_from(self.len()).unwrap_or(u32::MAX);
        (from.0..end).filter_map(|at| Some((Slot(at), self.member(Slot(at))?)))
    }

    /// What an event does to a device; the standing is the new one. None if it changes nothing that others have to know: nothing at all, or percent alone.
    ///
    /// # Errors
    /// [`Impossible`], also for a place where nobody is.
    pub fn apply(&mut self, slot: Slot, event: Event, now: Now) -> Result<Option<Standing>, Impossible> {
        let none = Impossible { from: State::Cancelled, event };
        let from = self.member(slot).ok_or(none)?.standing;
        let to = step(from, event, unix_s(now))?;
        if to == from {
            return Ok(None);
        }
        self.set(slot, from.state.kind(), to, mono_s(now));
        Ok((to.state.kind() != from.state.kind()).then_some(to))
    }

    /// Sets how often a device has been tried again.
    pub fn set_retries(&mut self, slot: Slot, retries: u8) {
        if let Some(entry) = self.entries.get_mut(slot.0 as usize) {
            entry.retries = retries;
        }
    }

    /// Notes whether a device waits in line for its offer. Returns what it was.
    pub fn set_waiting(&mut self, slot: Slot, waiting: bool) -> bool {
        self.entries.get_mut(slot.0 as usize).is_some_and(|entry| std::mem::replace(&mut entry.waiting, waiting))
    }

    /// Whether a device waits in line for its offer.
    #[must_use]
    pub fn is_waiting(&self, slot: Slot) -> bool {
        self.entries.get(slot.0 as usize).is_some_and(|entry| entry.waiting)
    }

    /// Devices of a group in a state.
    #[must_use]
    pub fn count(&self, group: u8, kind: Kind) -> u32 {
        let counts = self.counts.get(usize::from(group));
        counts.and_then(|counts| counts.get(kind as usize)).copied().unwrap_or(0)
    }

    /// Devices of all groups in a state.
    #[must_use]
    pub fn total(&self, kind: Kind) -> u32 {
        self.counts.iter().filter_map(|counts| counts.get(kind as usize)).sum()
    }

    /// Somebody who is longer in a state than is allowed.
    #[must_use]
    pub fn overdue(&self, now: Now) -> Option<Slot> {
        let now_s = mono_s(now);
        let heads = self.chains.iter().map(|chain| chain.first);
        heads
            .filter(|at| self.entries.get(*at as usize).is_some_and(|entry| entry.deadline_s <= now_s))
            .map(Slot)
            .next()
    }

    /// Who is longest in a state that has a limit.
    #[must_use]
    pub fn first(&self, kind: Kind) -> Option<Slot> {
        let at = Limits::KINDS.iter().position(|limited| *limited == kind)?;
        self.chains.get(at).map(|chain| chain.first).filter(|at| *at != NONE).map(Slot)
    }

    /// Cancels everybody who is queued.
    pub fn cancel_queue(&mut self, now_s: u32) {
        self.cancelled_s = Some(now_s);
        for counts in &mut self.counts {
            let [queued, .., cancelled] = counts;
            *cancelled += std::mem::take(queued);
        }
    }

    /// A member as it is seen, which is not as it is kept if the queue has been cancelled.
    fn seen(&self, member: Member) -> Member {
        match self.cancelled_s {
            Some(since_s) if member.standing.state == State::Queued => {
                let standing = Standing { state: State::Cancelled, reason: Reason::STOPPED, since_s };
                Member { standing, ..member }
            }
            _ => member,
        }
    }

    fn count_mut(&mut self, group: u8, kind: Kind) -> Option<&mut u32> {
        self.counts.get_mut(usize::from(group))?.get_mut(kind as usize)
    }

    /// Moves a device from a state to another one, in which it has been since `mono_s`.
    fn set(&mut self, slot: Slot, from: Kind, to: Standing, mono_s: u32) {
        let kind = to.state.kind();
        let limit_s = self.limits.of(kind);
        if from != kind {
            self.unlink(slot.0, from);
        }
        let Some(entry) = self.entries.get_mut(slot.0 as usize) else { return };
        entry.standing = to;
        if from == kind {
            return;
        }
        entry.deadline_s = mono_s.saturating_add(limit_s.unwrap_or(0));
        let group = entry.group;
        self.link(slot.0, kind);
        if let Some(count) = self.count_mut(group, from) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.count_mut(group, kind) {
            *count += 1;
        }
    }

    fn chain_mut(&mut self, kind: Kind) -> Option<&mut Chain> {
        let at = Limits::KINDS.iter().position(|limited| *limited == kind)?;
        self.chains.get_mut(at)
    }

    fn link(&mut self, at: u32, kind: Kind) {
        let Some(chain) = self.chain_mut(kind) else { return };
        let previous = std::mem::replace(&mut chain.last, at);
        if previous == NONE {
            chain.first = at;
        }
        if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = at;
        }
        if let Some(entry) = self.entries.get_mut(at as usize) {
            (entry.previous, entry.next) = (previous, NONE);
        }
    }

    fn unlink(&mut self, at: u32, kind: Kind) {
        let Some(&Entry { previous, next, .. }) = self.entries.get(at as usize) else { return };
        let Some(chain) = self.chain_mut(kind) else { return };
        if chain.first == at {
            chain.first = next;
        }
        if chain.last == at {
            chain.last = previous;
        }
        if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = next;
        }
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.previous = previous;
        }
    }
}

/// Seconds since 1970 UTC, as standings have them.
pub(crate) fn unix_s(now: Now) -> u32 {
    u32::try_from(now.unix_s()).unwrap_or(u32::MAX)
}

/// Half-way up, so that what began before this process has a time as well.
const MONO_ZERO_S: u32 = 1 << 31;

fn mono_s(now: Now) -> u32 {
    u32::try_from(now.mono_ms / 1000).unwrap_or(u32::MAX).saturating_add(MONO_ZERO_S)
}
