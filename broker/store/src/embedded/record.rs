//! How keys and records look on disk. Every record begins with a byte that holds the record version (high four bits) and
//! its kind (low four). Integers in keys are big-endian, so that a session's records are one range in order; in records
//! lengths are LEB128 and the rest is little-endian.

use std::num::NonZeroU16;
use std::sync::Arc;

use turnpike_core::durable::{Body, Owed, SessionRecord};
use turnpike_core::ids::{ClientId, MessageId, Seq, SessionKey};
use turnpike_core::message::{Message, MessageParts};
use turnpike_mqtt::{PacketId, QoS, TopicName};

const VERSION: u8 = 1 << 4;
const SESSION: u8 = VERSION | 1;
const SUBSCRIPTION: u8 = VERSION | 2;
const INCOMING: u8 = VERSION | 3;
const OWED_INLINE: u8 = VERSION | 4;
const OWED_SHARED: u8 = VERSION | 5;
const OWED_RELEASED: u8 = VERSION | 6;
const MESSAGE: u8 = VERSION | 7;
const REGISTRY: u8 = VERSION | 8;
const COUNTER: u8 = VERSION | 9;
const OWED_RUN: u8 = VERSION | 10;
const OWED_MARKS: u8 = VERSION | 11;

/// Why a record doesn't decode.
pub(super) type Malformed = &'static str;

/// A key that is the engine's; longer text than fits is kept in the record.
pub(super) const KEY_MAX: usize = 65_000;

pub(super) fn session_key(session: SessionKey) -> [u8; 8] {
    session.0.to_be_bytes()
}

pub(super) fn owed_key(session: SessionKey, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    let (high, low) = key.split_at_mut(8);
    high.copy_from_slice(&session.0.to_be_bytes());
    low.copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// A key of the keyspace of owed messages, without its session.
pub(super) enum OwedKey {
    One(Seq),
    Run { first: Seq, count: u8 },
    Marks { first: Seq, count: u8 },
}

pub(super) fn run_key(session: SessionKey, first: u64, count: u8) -> [u8; 18] {
    key_of_run(session, first, count, 0)
}

pub(super) fn marks_key(session: SessionKey, first: u64, count: u8) -> [u8; 18] {
    key_of_run(session, first, count, 1)
}

fn key_of_run(session: SessionKey, first: u64, count: u8, kind: u8) -> [u8; 18] {
    let mut key = [0; 18];
    let (head, tail) = key.split_at_mut(16);
    head.copy_from_slice(&owed_key(session, Seq(first)));
    tail.copy_from_slice(&[count, kind]);
    key
}

pub(super) fn parse_owed_key(rest: &[u8]) -> Result<OwedKey, Malformed> {
    let (seq, tail) = rest.split_first_chunk::<8>().ok_or("the key has a wrong length")?;
    let first = Seq(u64::from_be_bytes(*seq));
    match *tail {
        [] => Ok(OwedKey::One(first)),
        [count @ 1..=64, 0] if first.0.checked_add(u64::from(count)).is_some() => Ok(OwedKey::Run { first, count }),
        [count @ 1..=64, 1] => Ok(OwedKey::Marks { first, count }),
        _ => Err("the key has a wrong length, count or kind"),
    }
}

pub(super) fn incoming_key(session: SessionKey, id: PacketId) -> [u8; 10] {
    let mut key = [0; 10];
    let (high, low) = key.split_at_mut(8);
    high.copy_from_slice(&session.0.to_be_bytes());
    low.copy_from_slice(&id.0.get().to_be_bytes());
    key
}

/// `prefix`, then `text`, if that fits a key of the engine (at most 65,535 bytes); else a prefix of the text and the 128-bit hash
/// of all of it. Records carry the text, so nothing is lost, and a key of the second form is longer than any of the first.
pub(super) fn text_key(prefix: &[u8], text: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + text.len().min(KEY_MAX + 16));
    key.extend_from_slice(prefix);
    match text.get(..KEY_MAX) {
        Some(head) if text.len() > KEY_MAX => {
            key.extend_from_slice(head);
            key.extend_from_slice(&xxhash_rust::xxh3::xxh3_128(text).to_be_bytes());
        }
        _ => key.extend_from_slice(text),
    }
    key
}

/// Splits a key into the session that it begins with and the rest.
pub(super) fn split_session(key: &[u8]) -> Result<(SessionKey, &[u8]), Malformed> {
    let (head, rest) = key.split_first_chunk::<8>().ok_or("the key has no session")?;
    Ok((SessionKey(u64::from_be_bytes(*head)), rest))
}

pub(super) fn parse_u64_key(key: &[u8]) -> Result<u64, Malformed> {
    Ok(u64::from_be_bytes(<[u8; 8]>::try_from(key).map_err(|_| "the key has a wrong length")?))
}

pub(super) fn parse_incoming_key(rest: &[u8]) -> Result<PacketId, Malformed> {
    let id = <[u8; 2]>::try_from(rest).map_err(|_| "the key has a wrong length")?;
    NonZeroU16::new(u16::from_be_bytes(id)).map(PacketId).ok_or("packet identifier 0")
}

pub(super) fn encode_session(record: &SessionRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + record.client.as_str().len() + record.principal.len());
    let flags = u8::from(record.mqtt3)
        | u8::from(record.disconnected_at_ms.is_some()) << 1
        | u8::from(record.will.is_some()) << 2;
    out.extend_from_slice(&[SESSION, flags]);
    out.extend_from_slice(&record.expiry_s.to_le_bytes());
    if let Some(at) = record.disconnected_at_ms {
        out.extend_from_slice(&at.to_le_bytes());
    }
    put_bytes(&mut out, record.client.as_str().as_bytes());
    put_bytes(&mut out, record.principal.as_bytes());
    if let Some((message, due)) = &record.will {
        out.extend_from_slice(&due.to_le_bytes());
        put_message(&mut out, message);
    }
    out
}

pub(super) fn decode_session(bytes: &[u8]) -> Result<SessionRecord, Malformed> {
    let mut r = Reader::new(bytes, SESSION)?;
    let flags = r.u8()?;
    let expiry_s = r.u32()?;
    let disconnected_at_ms = if flags & 2 != 0 { Some(r.u64()?) } else { None };
    let client = ClientId::new(r.text()?);
    let principal = r.text()?.into();
    let will = if flags & 4 != 0 {
        let due = r.u64()?;
        Some((Arc::new(r.message(None)?), due))
    } else {
        None
    };
    r.end()?;
    Ok(SessionRecord { client, expiry_s, disconnected_at_ms, mqtt3: flags & 1 != 0, principal, will })
}

pub(super) fn encode_subscription(filter: &str, options: u8, identifier: u32) -> Vec<u8> {
    let mut out = vec![SUBSCRIPTION, options];
    put_varint(&mut out, u64::from(identifier));
    // Only a filter that its key doesn't hold.
    if filter.len() > KEY_MAX {
        put_bytes(&mut out, filter.as_bytes());
    }
    out
}

/// `rest` is the key without the session.
pub(super) fn decode_subscription(rest: &[u8], bytes: &[u8]) -> Result<(Box<str>, u8, u32), Malformed> {
    let mut r = Reader::new(bytes, SUBSCRIPTION)?;
    let options = r.u8()?;
    let identifier = u32::try_from(r.varint()?).map_err(|_| "subscription identifier out of range")?;
    let filter =
        if r.is_empty() { std::str::from_utf8(rest).map_err(|_| "the filter is not UTF-8")? } else { r.text()? };
    r.end()?;
    Ok((filter.into(), options, identifier))
}

pub(super) fn encode_incoming() -> [u8; 1] {
    [INCOMING]
}

pub(super) fn decode_incoming(bytes: &[u8]) -> Result<(), Malformed> {
    Reader::new(bytes, INCOMING)?.end()
}

pub(super) fn encode_message(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.cost());
    out.push(MESSAGE);
    put_message(&mut out, message);
    out
}

pub(super) fn decode_message(bytes: &[u8], shared_id: Option<MessageId>) -> Result<Message, Malformed> {
    let mut r = Reader::new(bytes, MESSAGE)?;
    let message = r.message(shared_id)?;
    r.end()?;
    Ok(message)
}

/// An owed entry as it is on disk: a shared body is still only a name.
pub(super) enum StoredOwed {
    Whole(Owed),
    Shared(Owed, MessageId),
}

pub(super) fn encode_owed(owed: &Owed) -> Vec<u8> {
    let (kind, capacity) = match &owed.body {
        Body::Inline(message) => (OWED_INLINE, message.cost()),
        Body::Shared(..) => (OWED_SHARED, 16),
        Body::Released => return encode_released().to_vec(),
    };
    let mut out = Vec::with_capacity(capacity + 8 * owed.identifiers.len());
    let share = owed.share.as_deref();
    let flags = owed.qos as u8
        | u8::from(owed.retain) << 2
        | u8::from(!owed.identifiers.is_empty()) << 3
        | u8::from(share.is_some()) << 4;
    out.extend_from_slice(&[kind, flags]);
    if !owed.identifiers.is_empty() {
        put_varint(&mut out, owed.identifiers.len() as u64);
        for &identifier in &owed.identifiers {
            put_varint(&mut out, u64::from(identifier));
        }
    }
    if let Some(share) = share {
        put_bytes(&mut out, share.as_bytes());
    }
    match &owed.body {
        Body::Inline(message) => put_message(&mut out, message),
        Body::Shared(id, _) => out.extend_from_slice(&id.0.to_le_bytes()),
        Body::Released => {}
    }
    out
}

/// Owed entries, each as [`encode_owed`] has it.
pub(super) fn encode_run(entries: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = vec![OWED_RUN];
    entries.for_each(|entry| put_bytes(&mut out, &entry));
    out
}

pub(super) fn decode_run(bytes: &[u8], count: u8) -> Result<Vec<StoredOwed>, Malformed> {
    let mut r = Reader::new(bytes, OWED_RUN)?;
    let entries = (0..count).map(|_| decode_owed(r.bytes()?)).collect::<Result<_, _>>()?;
    r.end()?;
    Ok(entries)
}

/// A bit for each message of a run that is done with, the first the lowest.
pub(super) fn encode_marks(done: u64) -> [u8; 9] {
    let mut out = [OWED_MARKS; 9];
    let (_, bits) = out.split_at_mut(1);
    bits.copy_from_slice(&done.to_le_bytes());
    out
}

pub(super) fn decode_marks(bytes: &[u8], count: u8) -> Result<u64, Malformed> {
    let mut r = Reader::new(bytes, OWED_MARKS)?;
    let done = r.u64()?;
    r.end()?;
    if done & !super::runs::all(count) == 0 { Ok(done) } else { Err("more marks than messages") }
}

pub(super) fn encode_released() -> [u8; 1] {
    [OWED_RELEASED]
}

pub(super) fn decode_owed(bytes: &[u8]) -> Result<StoredOwed, Malformed> {
    let kind = *bytes.first().ok_or("empty record")?;
    let mut r = Reader::new(bytes, kind)?;
    match kind {
        OWED_RELEASED => {
            r.end()?;
            return Ok(StoredOwed::Whole(crate::memory::released()));
        }
        OWED_INLINE | OWED_SHARED => {}
        _ => return Err("unknown kind or version of record"),
    }
    let flags = r.u8()?;
    let qos = qos(flags & 3)?;
    let mut identifiers = Vec::new();
    if flags & 8 != 0 {
        for _ in 0..r.varint()? {
            identifiers.push(u32::try_from(r.varint()?).map_err(|_| "subscription identifier out of range")?);
        }
    }
    let share = if flags & 16 != 0 { Some(Arc::from(r.text()?)) } else { None };
    let mut owed = Owed { qos, retain: flags & 4 != 0, identifiers: identifiers.into(), share, body: Body::Released };
    let stored = if kind == OWED_INLINE {
        owed.body = Body::Inline(Arc::new(r.message(None)?));
        StoredOwed::Whole(owed)
    } else {
        StoredOwed::Shared(owed, MessageId(r.u64()?))
    };
    r.end()?;
    Ok(stored)
}

pub(super) fn encode_registry(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + value.len() + 8);
    out.push(REGISTRY);
    put_bytes(&mut out, if key.len() > KEY_MAX { key } else { &[] });
    out.extend_from_slice(value);
    out
}

/// Key and value.
pub(super) fn decode_registry<'a>(key: &'a [u8], bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let mut r = Reader::new(bytes, REGISTRY)?;
    let long = r.bytes()?;
    Ok((if long.is_empty() { key } else { long }, r.rest()))
}

pub(super) fn encode_counter(value: u64) -> Vec<u8> {
    let mut out = vec![COUNTER];
    out.extend_from_slice(&value.to_le_bytes());
    out
}

pub(super) fn decode_counter(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut r = Reader::new(bytes, COUNTER)?;
    let value = r.u64()?;
    r.end()?;
    Ok(value)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Always last in a record: the payload has no length of its own.
fn put_message(out: &mut Vec<u8>, message: &Message) {
    let parts = message.parts();
    let flags = parts.qos as u8 | u8::from(parts.retain) << 2 | u8::from(parts.expires_at_ms.is_some()) << 3;
    out.push(flags);
    if let Some(at) = parts.expires_at_ms {
        out.extend_from_slice(&at.to_le_bytes());
    }
    put_bytes(out, parts.topic.as_str().as_bytes());
    put_bytes(out, parts.properties);
    out.extend_from_slice(parts.payload);
}

fn qos(bits: u8) -> Result<QoS, Malformed> {
    match bits {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err("QoS 3"),
    }
}

/// Takes a record apart; nothing that is on disk can make it panic.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], kind: u8) -> Result<Self, Malformed> {
        match bytes.split_first() {
            Some((&first, rest)) if first == kind => Ok(Self(rest)),
            Some(_) => Err("unknown kind or version of record"),
            None => Err("empty record"),
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("the record ends early")?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.chunk::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.chunk()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.chunk()?))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a length is too long")
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| "a length is too long")?;
        let (head, rest) = self.0.split_at_checked(len).ok_or("the record ends early")?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "not UTF-8")
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn message(&mut self, shared_id: Option<MessageId>) -> Result<Message, Malformed> {
        let flags = self.u8()?;
        let expires_at_ms = if flags & 8 != 0 { Some(self.u64()?) } else { None };
        let topic = topic(self.text()?)?;
        let properties = self.bytes()?;
        if u32::try_from(properties.len()).is_err() {
            return Err("properties too long");
        }
        let mut message = Message::new(&MessageParts {
            topic,
            properties,
            payload: self.rest(),
            qos: qos(flags & 3)?,
            retain: flags & 4 != 0,
            expires_at_ms,
            publisher: None,
        });
        message.shared_id = shared_id;
        Ok(message)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err("the record is too long") }
    }
}

/// Looser than what clients are held to, so that a later, stricter rule for them doesn't make old records unreadable.
fn topic(text: &str) -> Result<TopicName<'_>, Malformed> {
    let possible = !text.is_empty() && text.len() <= usize::from(u16::MAX) && !text.contains(['+', '#']);
    if possible { Ok(TopicName::from_validated(text)) } else { Err("not a topic name") }
}

#[cfg(test)]
mod tests;
