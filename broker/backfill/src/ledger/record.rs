//! A device's ledger, as the store keeps it.
//!
//! | key | value |
//! |---|---|
//! | `b\0{product}\0{device}` | layout, floor, how many boots, then of each: boot, `upto`, how many ranges, then of each: how far its beginning is beyond what was before, how far its end is beyond its beginning |
//!
//! Numbers are LEB128 (7 bits a byte, the lowest first). One boot without gaps takes 5 to 25 bytes; with 32 gaps of small numbers about 70.

use smallvec::SmallVec;

use super::{Ledger, Taken};

/// What keys of these records begin with. No other record's does.
pub const KEY_PREFIX: [u8; 2] = *b"b\0";

/// First byte of each value.
const LAYOUT: u8 = 1;

/// Why a record of the store can't be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LedgerError {
    /// Written by a later version.
    #[error("a record of stored data has layout {0}; this version reads layout {LAYOUT}")]
    Layout(u8),
    /// It isn't what such a record is. Without the device's name: this ends up in a log.
    #[error("a record of stored data of product {0:?} is damaged")]
    Damaged(String),
    /// There are more devices than the table may have.
    #[error("more devices have handed in stored data than there is room for, {0}")]
    Full(usize),
}

/// Whether a record of the store is one of these.
#[must_use]
pub fn is_record(key: &[u8]) -> bool {
    key.starts_with(&KEY_PREFIX)
}

/// The key of a device's record.
#[must_use]
pub fn key(product: &str, device: &str) -> Box<[u8]> {
    format!("b\0{product}\0{device}").into_bytes().into()
}

/// Product and device of a key.
///
/// # Errors
/// [`LedgerError::Damaged`].
pub fn parse_key(key: &[u8]) -> Result<(&str, &str), LedgerError> {
    let text = std::str::from_utf8(key).ok().and_then(|text| text.strip_prefix("b\0"));
    let (product, device) = text.and_then(|text| text.split_once('\0')).unwrap_or_default();
    if product.is_empty() || device.is_empty() || device.contains('\0') {
        return Err(LedgerError::Damaged(product.to_owned()));
    }
    Ok((product, device))
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn get(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let part = u64::from(byte & 0x7F);
        // The tenth byte has room for one bit.
        if shift == 63 && part > 1 {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

impl Ledger {
    /// The value of its record.
    #[must_use]
    pub fn encode(&self) -> Box<[u8]> {
        let mut out = vec![LAYOUT];
        put(&mut out, self.floor);
        put(&mut out, self.boots.len() as u64);
        for taken in &self.boots {
            put(&mut out, taken.boot);
            put(&mut out, taken.upto);
            put(&mut out, taken.beyond().len() as u64);
            let mut before = taken.upto;
            for &(from, to) in taken.beyond() {
                put(&mut out, from - before);
                put(&mut out, to - from);
                before = to;
            }
        }
        out.into()
    }

    /// The ledger of a record's value. What is beyond today's bounds is kept: they may have been wider.
    ///
    /// # Errors
    /// [`LedgerError`]; `product` is for its text.
    pub fn decode(value: &[u8], product: &str) -> Result<Self, LedgerError> {
        let damaged = || LedgerError::Damaged(product.to_owned());
        let (&layout, mut rest) = value.split_first().ok_or_else(damaged)?;
        if layout != LAYOUT {
            return Err(LedgerError::Layout(layout));
        }
        let ledger = decode_boots(&mut rest).ok_or_else(damaged)?;
        if rest.is_empty() { Ok(ledger) } else { Err(damaged()) }
    }
}

fn decode_boots(input: &mut &[u8]) -> Option<Ledger> {
    let floor = get(input)?;
    let mut boots: SmallVec<[Taken; 1]> = SmallVec::new();
    for _ in 0..get(input)? {
        let taken = decode_taken(input)?;
        let lowest = boots.last().map_or(Some(floor), |last| last.boot.checked_add(1))?;
        if taken.boot < lowest {
            return None;
        }
        boots.push(taken);
    }
    boots.shrink_to_fit();
    Some(Ledger { floor, boots })
}

fn decode_taken(input: &mut &[u8]) -> Option<Taken> {
    let (boot, upto, ranges) = (get(input)?, get(input)?, get(input)?);
    let mut beyond = Vec::new();
    let mut before = upto;
    for _ in 0..ranges {
        let from = before.checked_add(get(input)?)?;
        // At least one is missing in between, or it would be one range.
        if from - before < 2 {
            return None;
        }
        before = from.checked_add(get(input)?)?;
        beyond.push((from, before));
    }
    let beyond = (!beyond.is_empty()).then(|| Box::new(beyond));
    Some(Taken { boot, upto, beyond })
}
