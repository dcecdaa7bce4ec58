//! The head: the last record that is on disk, kept apart from the records, so that their end can't be cut off unseen.
//!
//! A file of two slots that are written in turns: a write that is torn by a power failure leaves the other slot, which is one write older.

use super::chain::{ChainKey, Link, Mac};

/// Bytes of a slot. No disk tears less than a sector.
pub const SLOT_BYTES: usize = 512;

/// A slot for the last record on disk. It goes to the offset [`offset`] of the head's file.
#[must_use]
pub fn encode(key: &ChainKey, link: Link) -> [u8; SLOT_BYTES] {
    let text = format!("turnpike audit head {} {} {}", key.id(), link.sequence, link.mac);
    let line = format!("{text} {}\n", key.head(text.as_bytes()));
    let mut slot = [b' '; SLOT_BYTES];
    slot.iter_mut().zip(line.bytes()).for_each(|(to, byte)| *to = byte);
    slot
}

/// Where in the file the `writes`th slot goes.
#[must_use]
pub fn offset(writes: u64) -> u64 {
    writes % 2 * SLOT_BYTES as u64
}

/// What a head's file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head {
    /// Genuine.
    Known(Link),
    /// Under another master key, so that it can't be told whether it is genuine.
    OtherKey(Link),
    /// Nothing that could be believed.
    None,
}

/// Reads a head's file: the newer of the slots that are genuine.
#[must_use]
pub fn decode(keys: &[ChainKey], file: &[u8]) -> Head {
    let slots = file.chunks(SLOT_BYTES).take(2).filter_map(|slot| decode_slot(keys, slot));
    slots.fold(Head::None, |best, head| match (best, head) {
        (Head::Known(a), Head::Known(b)) if a.sequence >= b.sequence => best,
        (Head::Known(_), Head::OtherKey(_) | Head::None) => best,
        (Head::OtherKey(a), Head::OtherKey(b)) if a.sequence >= b.sequence => best,
        (Head::OtherKey(_), Head::None) => best,
        _ => head,
    })
}

fn decode_slot(keys: &[ChainKey], slot: &[u8]) -> Option<Head> {
    let end = slot.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(slot.get(..end)?).ok()?;
    let (text, mac) = line.rsplit_once(' ')?;
    let mut words = text.strip_prefix("turnpike audit head ")?.split(' ');
    let id: u8 = words.next()?.parse().ok()?;
    let link = Link { sequence: words.next()?.parse().ok()?, mac: Mac::parse(words.next()?.as_bytes())? };
    let mac = Mac::parse(mac.as_bytes())?;
    match keys.iter().find(|key| key.id() == id) {
        None => Some(Head::OtherKey(link)),
        Some(key) => key.head(text.as_bytes()).is(&mac).then_some(Head::Known(link)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::MasterKey;

    fn key(seed: u8) -> ChainKey {
        ChainKey::new(&MasterKey::new([seed; 32]))
    }

    fn link(key: &ChainKey, lines: u64) -> Link {
        let mut link = Link::START;
        (0..lines).for_each(|_| link.append(key, b"\"time\":1", &mut Vec::new()));
        link
    }

    #[test]
    fn the_newer_slot_counts_and_a_torn_one_does_not() {
        let key = key(1);
        let (older, newer) = (link(&key, 3), link(&key, 4));
        let keys = [key.clone()];
        let file = [encode(&key, newer), encode(&key, older)].concat();
        assert_eq!(decode(&keys, &file), Head::Known(newer));
        assert_eq!(decode(&keys, &file[SLOT_BYTES..]), Head::Known(older));
        for at in (0..220).step_by(7) {
            let mut torn = file.clone();
            torn[at..SLOT_BYTES].fill(0);
            let expected = if file[at..SLOT_BYTES].iter().all(|byte| *byte == b' ') { newer } else { older };
            assert_eq!(decode(&keys, &torn), Head::Known(expected), "torn at {at}");
        }
        assert_eq!(decode(&keys, b""), Head::None);
        assert_eq!((offset(0), offset(1), offset(2)), (0, SLOT_BYTES as u64, 0));
    }

    #[test]
    fn no_byte_of_a_slot_can_be_changed() {
        let key = key(1);
        let slot = encode(&key, link(&key, 12));
        let used = slot.iter().position(|byte| *byte == b'\n').expect("a line");
        for at in 0..used {
            for bit in 0..8 {
                let mut changed = slot;
                changed[at] ^= 1 << bit;
                assert!(!matches!(decode(std::slice::from_ref(&key), &changed), Head::Known(_)), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn another_master_key_is_told_from_a_forged_head() {
        let (ours, theirs) = (key(1), key(2));
        assert_ne!(ours.id(), theirs.id());
        let link = link(&theirs, 2);
        assert_eq!(decode(&[ours], &encode(&theirs, link)), Head::OtherKey(link));
    }
}
