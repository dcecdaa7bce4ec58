//! Runs: many messages that a session is owed, one after another, in one record.
//!
//! An item costs the engine microseconds, however small it is: a place in its tree when it is put, another when it is deleted, and a share of
//! writing and merging tables. A back end that is owed 100,000 small messages a second would keep two cores busy with that alone. So what one group
//! puts of one session, [`RUN_MIN`] or more with sequence numbers in a row, becomes one item: a *run*. Which of its messages are done with
//! is a second item, the *marks*, 64 bits, written once a group; when all are done, both items are deleted.
//!
//! ```text
//! owed    session:8 seq:8               one message
//!         session:8 first:8 count:1 0   a run of `count` messages: first, first + 1, …
//!         session:8 first:8 count:1 1   its marks
//! ```
//!
//! **Invariant:** a place of a session's queue is in at most one run in which it isn't marked, and then has no item of its own. A run takes
//! only places above all that the engine has of the session, and whatever else touches a place that is in a run marks it there first.
//!
//! Where runs lie and what is marked is known in memory, 40 bytes for each run, and read when the store is opened. It changes only after a
//! commit succeeded ([`Runs::apply`]), so a group that is tried again is encoded from what was there before it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use fjall::{UserKey, UserValue};
use turnpike_core::ids::{Seq, SessionKey};

use super::batch::Item;
use super::{Engine, Space, record};
use crate::StoreError;

/// Fewer are kept one by one.
pub(super) const RUN_MIN: usize = 8;
/// No run has more: there is a bit for each.
pub(super) const RUN_MAX: usize = 64;
/// About so many bytes, and no more messages: one that stays for long keeps the others of its run on disk.
const RUN_BYTES_MAX: usize = 32 << 10;

/// What a group does with one place of a session's queue.
pub(super) struct Place {
    pub(super) session: SessionKey,
    pub(super) seq: u64,
    /// What is there from now on; none if nothing.
    pub(super) value: Option<Vec<u8>>,
    /// Whether it may be part of a run: its record says all of it.
    pub(super) joins: bool,
}

/// What becomes of the runs in memory once a group is on disk.
pub(super) enum Change {
    Made {
        session: SessionKey,
        first: u64,
        count: u8,
    },
    Marked {
        session: SessionKey,
        first: u64,
        done: u64,
    },
    Over {
        session: SessionKey,
        first: u64,
    },
    /// From this place on the session has nothing.
    Free {
        session: SessionKey,
        from: u64,
    },
    Gone {
        session: SessionKey,
    },
}

#[derive(Clone, Copy)]
struct Run {
    first: u64,
    count: u8,
    done: u64,
}

impl Run {
    fn bit(&self, seq: u64) -> Option<u64> {
        let place = seq.checked_sub(self.first)?;
        (place < u64::from(self.count)).then(|| 1 << place)
    }

    fn is_over(&self) -> bool {
        self.done == all(self.count)
    }
}

/// A bit for each of so many.
pub(super) fn all(count: u8) -> u64 {
    u64::MAX >> (64 - u32::from(count.clamp(1, 64)))
}

#[derive(Default)]
struct OfSession {
    /// By their first place.
    runs: BTreeMap<u64, Run>,
    /// From this place on nothing is there, if it is known.
    free_from: Option<u64>,
}

impl OfSession {
    fn covering(&self, seq: u64) -> Option<Run> {
        let (_, run) = self.runs.range(..=seq).next_back()?;
        run.bit(seq).map(|_| *run)
    }
}

/// The runs on disk.
#[derive(Default)]
pub(super) struct Runs {
    sessions: HashMap<SessionKey, OfSession>,
    /// What the engine said of sessions' first free places, for a group that isn't known to be on disk: should it be, and be tried again,
    /// the engine would say something else.
    asked: RefCell<HashMap<SessionKey, u64>>,
}

impl Runs {
    /// Looks for them.
    pub(super) fn load(engine: &Engine) -> Result<Self, StoreError> {
        let mut found = Self::default();
        for entry in engine.space(Space::Owed).iter() {
            let (key, value) = entry.into_inner().map_err(|e| engine.error("look for runs", e))?;
            let malformed = |why| engine.malformed(Space::Owed, &key, why);
            let (session, rest) = record::split_session(&key).map_err(malformed)?;
            match record::parse_owed_key(rest).map_err(malformed)? {
                record::OwedKey::One(_) => {}
                record::OwedKey::Run { first, count } => {
                    let run = Run { first: first.0, count, done: 0 };
                    found.sessions.entry(session).or_default().runs.insert(first.0, run);
                }
                record::OwedKey::Marks { first, count } => {
                    let done = record::decode_marks(&value, count).map_err(malformed)?;
                    found.apply([Change::Marked { session, first: first.0, done }]);
                }
            }
        }
        Ok(found)
    }

    /// These are on disk.
    pub(super) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Made { session, first, count } => {
                    self.sessions.entry(session).or_default().runs.insert(first, Run { first, count, done: 0 });
                }
                Change::Marked { session, first, done } => {
                    if let Some(run) = self.sessions.get_mut(&session).and_then(|of| of.runs.get_mut(&first)) {
                        run.done = done;
                    }
                }
                Change::Over { session, first } => {
                    if let Some(of) = self.sessions.get_mut(&session) {
                        of.runs.remove(&first);
                    }
                }
                Change::Free { session, from } => {
                    self.sessions.entry(session).or_default().free_from = Some(from);
                    self.asked.get_mut().remove(&session);
                }
                Change::Gone { session } => {
                    self.sessions.remove(&session);
                    self.asked.get_mut().remove(&session);
                }
            }
        }
    }

    /// Turns what a group does with places into items. `places` in the order in which it was done; the last of each place counts.
    pub(super) fn encode(
        &self,
        engine: &Engine,
        mut places: Vec<Place>,
        items: &mut Vec<Item>,
    ) -> Result<Vec<Change>, StoreError> {
        places.sort_by_key(|place| (place.session, place.seq));
        // The sort is stable; `dedup_by` keeps the first and is shown neighbours.
        places.dedup_by(|later, kept| {
            let same = (later.session, later.seq) == (kept.session, kept.seq);
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let mut changes = Vec::new();
        for places in places.chunk_by_mut(|a, b| a.session == b.session) {
            let Some(session) = places.first().map(|place| place.session) else { continue };
            let of = self.sessions.get(&session);
            let mut out = Out { session, items: &mut *items, changes: &mut changes };
            out.mark(of, places);
            out.put(of.and_then(|of| of.free_from), || self.free_from(engine, session), places)?;
        }
        Ok(changes)
    }

    /// The first place from which on nothing of a session is there.
    fn free_from(&self, engine: &Engine, session: SessionKey) -> Result<u64, StoreError> {
        if let Some(from) = self.asked.borrow().get(&session) {
            return Ok(*from);
        }
        let last_run = self.sessions.get(&session).and_then(|of| of.runs.last_key_value());
        let mut from = last_run.map_or(0, |(first, run)| first + u64::from(run.count));
        if let Some(last) = engine.space(Space::Owed).prefix(record::session_key(session)).next_back() {
            let key = last.key().map_err(|e| engine.error("look for the end of a queue", e))?;
            let malformed = |why| engine.malformed(Space::Owed, &key, why);
            let (_, rest) = record::split_session(&key).map_err(malformed)?;
            // A run is known.
            if let record::OwedKey::One(seq) = record::parse_owed_key(rest).map_err(malformed)? {
                from = from.max(seq.0.saturating_add(1));
            }
        }
        self.asked.borrow_mut().insert(session, from);
        Ok(from)
    }
}

/// Where the items of one session go.
struct Out<'a> {
    session: SessionKey,
    items: &'a mut Vec<Item>,
    changes: &'a mut Vec<Change>,
}

impl Out<'_> {
    fn item(&mut self, key: impl AsRef<[u8]>, value: Option<UserValue>) {
        self.items.push(Item { space: Space::Owed, key: UserKey::from(key.as_ref()), value });
    }

    /// Marks the places in the runs that they are in. Deletes the items of those that are to be deleted and are in none.
    fn mark(&mut self, of: Option<&OfSession>, places: &[Place]) {
        let mut open: Option<(Run, u64)> = None;
        for place in places {
            if open.is_none_or(|(run, _)| run.bit(place.seq).is_none()) {
                self.close(open.take());
                open = of.and_then(|of| of.covering(place.seq)).map(|run| (run, run.done));
            }
            let bit = open.and_then(|(run, _)| run.bit(place.seq)).unwrap_or_default();
            match &mut open {
                Some((run, _)) if run.done & bit == 0 => run.done |= bit,
                _ if place.value.is_none() => {
                    self.item(record::owed_key(self.session, Seq(place.seq)), None);
                }
                _ => {}
            }
        }
        self.close(open);
    }

    /// Keeps what has been marked in a run, of which this was marked before.
    fn close(&mut self, open: Option<(Run, u64)>) {
        let Some((run, before)) = open.filter(|(run, before)| run.done != *before) else { return };
        let (session, first) = (self.session, run.first);
        let marks = record::marks_key(session, first, run.count);
        if run.is_over() {
            self.item(record::run_key(session, first, run.count), None);
            if before != 0 {
                self.item(marks, None);
            }
            self.changes.push(Change::Over { session, first });
        } else {
            self.item(marks, Some(record::encode_marks(run.done).into()));
            self.changes.push(Change::Marked { session, first, done: run.done });
        }
    }

    /// Puts what is to be there, in runs where it can. `ask` says from where on the session has nothing, if that isn't known.
    fn put(
        &mut self,
        mut free_from: Option<u64>,
        ask: impl Fn() -> Result<u64, StoreError>,
        places: &mut [Place],
    ) -> Result<(), StoreError> {
        let session = self.session;
        let mut last = None;
        for stretch in places.chunk_by_mut(|a, b| a.joins && b.joins && a.seq.checked_add(1) == Some(b.seq)) {
            let mut rest = stretch;
            while !rest.is_empty() {
                let at = run_len(rest);
                let (some, after) = std::mem::take(&mut rest).split_at_mut(at);
                rest = after;
                let Some(first) = some.first().map(|place| place.seq) else { continue };
                if some.len() >= RUN_MIN && free_from.is_none() {
                    free_from = Some(ask()?);
                }
                if some.len() >= RUN_MIN && free_from.is_some_and(|from| first >= from) {
                    let count = u8::try_from(some.len()).expect("no more than RUN_MAX");
                    let values = some.iter_mut().map(|place| place.value.take().unwrap_or_default());
                    let value = record::encode_run(values);
                    self.item(record::run_key(session, first, count), Some(value.into()));
                    self.changes.push(Change::Made { session, first, count });
                    last = Some(first + u64::from(count) - 1);
                    continue;
                }
                for place in some {
                    if let Some(value) = place.value.take() {
                        let key = record::owed_key(session, Seq(place.seq));
                        self.item(key, Some(value.into()));
                        last = Some(place.seq);
                    }
                }
            }
        }
        if let (Some(from), Some(last)) = (free_from, last) {
            self.changes.push(Change::Free { session, from: from.max(last.saturating_add(1)) });
        }
        Ok(())
    }
}

/// How many of these make one run.
fn run_len(places: &[Place]) -> usize {
    let mut bytes = 0;
    let fits = places.iter().take(RUN_MAX).take_while(|place| {
        let before = bytes;
        bytes += place.value.as_ref().map_or(0, Vec::len);
        before < RUN_BYTES_MAX
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests;
