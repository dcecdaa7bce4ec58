//! Reads everything back: bodies first, then sessions in the order of their keys with four cursors side by side.

use std::collections::HashMap;
use std::sync::Arc;

use fjall::{PersistMode, UserKey, UserValue};
use turnpike_core::durable::{Body, Owed, RecoveredSession, Recovery};
use turnpike_core::ids::{MessageId, Seq, SessionKey};
use turnpike_core::message::Message;

use super::record::{OwedKey, StoredOwed};
use super::{Engine, Space, record};
use crate::{RecoveryCounts, RecoverySummary, StoreError};

/// Orphans removed with one batch.
const REMOVE_AT_ONCE: usize = 10_000;

pub(super) fn recover(
    engine: &Engine,
    into: &mut dyn Recovery,
    (session_high, message_high): (u64, u64),
) -> Result<RecoverySummary, StoreError> {
    let mut run = Run { engine, counts: RecoveryCounts::default(), bodies: HashMap::new(), orphans: Vec::new() };
    run.registry(into)?;
    run.retained(into)?;
    run.bodies()?;
    run.sessions(into)?;
    run.unused_bodies();
    run.remove_orphans()?;
    Ok(RecoverySummary {
        next_session_key: SessionKey(session_high + 1),
        next_message_id: MessageId(message_high + 1),
        counts: run.counts,
    })
}

struct Run<'a> {
    engine: &'a Engine,
    counts: RecoveryCounts,
    /// With whether anything refers to it.
    bodies: HashMap<MessageId, (Arc<Message>, bool)>,
    orphans: Vec<(Space, UserKey)>,
}

impl Run<'_> {
    fn registry(&mut self, into: &mut dyn Recovery) -> Result<(), StoreError> {
        let mut cursor = Cursor::new(self.engine, Space::Registry);
        while let Some((key, value)) = cursor.next()? {
            let (name, value) = record::decode_registry(&key, &value).map_err(|why| cursor.malformed(&key, why))?;
            into.registry(name, value);
            self.counts.registry += 1;
        }
        Ok(())
    }

    fn retained(&mut self, into: &mut dyn Recovery) -> Result<(), StoreError> {
        let mut cursor = Cursor::new(self.engine, Space::Retained);
        while let Some((key, value)) = cursor.next()? {
            let message = record::decode_message(&value, None).map_err(|why| cursor.malformed(&key, why))?;
            if record::text_key(&[], message.topic().as_str().as_bytes()) != *key {
                return Err(cursor.malformed(&key, "its topic is another"));
            }
            into.retained(message);
            self.counts.retained += 1;
        }
        Ok(())
    }

    fn bodies(&mut self) -> Result<(), StoreError> {
        let mut cursor = Cursor::new(self.engine, Space::Bodies);
        while let Some((key, value)) = cursor.next()? {
            let id = MessageId(record::parse_u64_key(&key).map_err(|why| cursor.malformed(&key, why))?);
            let message = record::decode_message(&value, Some(id)).map_err(|why| cursor.malformed(&key, why))?;
            self.bodies.insert(id, (Arc::new(message), false));
        }
        Ok(())
    }

    fn sessions(&mut self, into: &mut dyn Recovery) -> Result<(), StoreError> {
        let mut sessions = Cursor::new(self.engine, Space::Sessions);
        let mut subscriptions = Cursor::new(self.engine, Space::Subscriptions);
        let mut owed = Cursor::new(self.engine, Space::Owed);
        let mut incoming = Cursor::new(self.engine, Space::Incoming);
        while let Some((key, value)) = sessions.next()? {
            let malformed = |why| sessions.malformed(&key, why);
            let session = SessionKey(record::parse_u64_key(&key).map_err(malformed)?);
            let header = record::decode_session(&value).map_err(malformed)?;
            let recovered = RecoveredSession {
                key: session,
                record: header,
                subscriptions: self.of_session(&mut subscriptions, session, |_, rest, value| {
                    record::decode_subscription(rest, value).map(Some)
                })?,
                owed: self.owed_of(&mut owed, session)?,
                incoming: self.of_session(&mut incoming, session, |_, rest, value| {
                    record::decode_incoming(value).and_then(|()| record::parse_incoming_key(rest)).map(Some)
                })?,
            };
            self.counts.sessions += 1;
            self.counts.subscriptions += recovered.subscriptions.len() as u64;
            self.counts.owed += recovered.owed.len() as u64;
            self.counts.incoming += recovered.incoming.len() as u64;
            into.session(recovered);
        }
        // What comes after the last session belongs to none.
        for cursor in [&mut subscriptions, &mut owed, &mut incoming] {
            while let Some((key, _)) = cursor.next()? {
                self.orphans.push((cursor.space, key));
            }
        }
        Ok(())
    }

    /// Everything under `session`; what stands before it belongs to sessions that are gone. `decode` yields none for an entry
    /// that is to be removed.
    fn of_session<T>(
        &mut self,
        cursor: &mut Cursor<'_>,
        session: SessionKey,
        mut decode: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<Option<T>, record::Malformed>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        while let Some((key, value)) = cursor.next()? {
            let (owner, rest) = record::split_session(&key).map_err(|why| cursor.malformed(&key, why))?;
            if owner > session {
                cursor.put_back((key, value));
                break;
            }
            let decoded = if owner < session { Ok(None) } else { decode(self, rest, &value) };
            match decoded.map_err(|why| cursor.malformed(&key, why))? {
                Some(entry) => found.push(entry),
                None => self.orphans.push((cursor.space, key)),
            }
        }
        Ok(found)
    }

    /// All that a session is owed, in order.
    fn owed_of(&mut self, cursor: &mut Cursor<'_>, session: SessionKey) -> Result<Vec<(Seq, Owed)>, StoreError> {
        let mut all = Vec::new();
        // The run that marks may follow: where it begins, and where in `all`.
        let mut run = None;
        for found in self.of_session(cursor, session, Self::owed)? {
            match found {
                Found::One(seq, owed) => all.push((seq, owed)),
                Found::Run(first, entries) => {
                    run = Some((first, all.len()));
                    all.extend((first.0..).map(Seq).zip(entries));
                }
                Found::Marks(first, done) => {
                    let Some((_, at)) = run.take().filter(|(begins, _)| *begins == first) else {
                        let key = record::owed_key(session, first);
                        return Err(cursor.malformed(&key, "marks without their run"));
                    };
                    let entries = all.split_off(at);
                    all.extend(entries.into_iter().filter(|(seq, _)| done & (1 << (seq.0 - first.0)) == 0));
                }
            }
        }
        // What took the place of a message in a run stands behind it.
        all.sort_by_key(|(seq, _)| *seq);
        Ok(all)
    }

    fn owed(&mut self, rest: &[u8], value: &[u8]) -> Result<Option<Found>, record::Malformed> {
        let seq = match record::parse_owed_key(rest)? {
            OwedKey::One(seq) => seq,
            OwedKey::Run { first, count } => {
                let entries = record::decode_run(value, count)?.into_iter().map(|stored| match stored {
                    StoredOwed::Whole(owed) => Ok(owed),
                    StoredOwed::Shared(..) => Err("a shared body in a run"),
                });
                return Ok(Some(Found::Run(first, entries.collect::<Result<_, _>>()?)));
            }
            OwedKey::Marks { first, count } => {
                return Ok(Some(Found::Marks(first, record::decode_marks(value, count)?)));
            }
        };
        match record::decode_owed(value)? {
            StoredOwed::Whole(owed) => Ok(Some(Found::One(seq, owed))),
            StoredOwed::Shared(mut owed, id) => {
                // Missing: the deletion of the body was committed before that of the entry.
                let Some((message, used)) = self.bodies.get_mut(&id) else { return Ok(None) };
                *used = true;
                owed.body = Body::Shared(id, Arc::clone(message));
                Ok(Some(Found::One(seq, owed)))
            }
        }
    }

    fn unused_bodies(&mut self) {
        let bodies = std::mem::take(&mut self.bodies);
        for (id, (_, used)) in bodies {
            if used {
                self.counts.bodies += 1;
            } else {
                self.orphans.push((Space::Bodies, UserKey::from(id.0.to_be_bytes())));
            }
        }
    }

    fn remove_orphans(&mut self) -> Result<(), StoreError> {
        self.counts.orphans_removed = self.orphans.len() as u64;
        let mut orphans = std::mem::take(&mut self.orphans);
        while !orphans.is_empty() {
            let mut batch = self.engine.db.batch().durability(Some(PersistMode::SyncData));
            for (space, key) in orphans.drain(orphans.len().saturating_sub(REMOVE_AT_ONCE)..) {
                batch.remove(self.engine.space(space), key);
            }
            batch.commit().map_err(|e| self.engine.error("remove what nothing refers to", e))?;
        }
        Ok(())
    }
}

/// What a key of the keyspace of owed messages holds.
enum Found {
    One(Seq, Owed),
    Run(Seq, Vec<Owed>),
    Marks(Seq, u64),
}

/// A keyspace from its first key to its last.
struct Cursor<'a> {
    engine: &'a Engine,
    space: Space,
    entries: fjall::Iter,
    back: Option<(UserKey, UserValue)>,
}

impl<'a> Cursor<'a> {
    fn new(engine: &'a Engine, space: Space) -> Self {
        Self { engine, space, entries: engine.space(space).iter(), back: None }
    }

    fn next(&mut self) -> Result<Option<(UserKey, UserValue)>, StoreError> {
        if let Some(entry) = self.back.take() {
            return Ok(Some(entry));
        }
        let entry = self.entries.next().map(fjall::Guard::into_inner);
        entry.transpose().map_err(|e| self.engine.error("read a record", e))
    }

    fn put_back(&mut self, entry: (UserKey, UserValue)) {
        self.back = Some(entry);
    }

    fn malformed(&self, key: &[u8], why: record::Malformed) -> StoreError {
        self.engine.malformed(self.space, key, why)
    }
}
