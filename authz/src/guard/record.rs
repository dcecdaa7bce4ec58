//! Bans by hand in the store, so that who was shut out stays out when the broker starts again. Bans for failures fade with the process.

use std::str::FromStr;

use ipnet::IpNet;
use turnpike_core::durable::Op;

use crate::record::RecordError;

/// No other record's key begins so: those of the registry begin with one or two letters.
const KEY_PREFIX: &[u8] = b"ban\0";
const LAYOUT: u8 = 1;
/// In place of a time: for ever.
const FOR_EVER: u64 = u64::MAX;

/// A ban by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptBan {
    /// Who.
    pub network: IpNet,
    /// Until when, milliseconds since 1970 UTC; none for ever.
    pub until_ms: Option<u64>,
    /// Why, as the operator says.
    pub note: Box<str>,
}

fn key(network: IpNet) -> Box<[u8]> {
    [KEY_PREFIX, super::blocklist::canonical(network).to_string().as_bytes()].concat().into()
}

impl KeptBan {
    /// Whether a record is one of these.
    #[must_use]
    pub fn is_record(key: &[u8]) -> bool {
        key.starts_with(KEY_PREFIX)
    }

    /// Keeps it.
    #[must_use]
    pub fn put(&self) -> Op {
        let until_ms = self.until_ms.unwrap_or(FOR_EVER).to_be_bytes();
        Op::RegistryPut(key(self.network), [&[LAYOUT][..], &until_ms, self.note.as_bytes()].concat().into())
    }

    /// Removes what is kept of a network's ban.
    #[must_use]
    pub fn delete(network: IpNet) -> Op {
        Op::RegistryDelete(key(network))
    }

    /// From a record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let damaged = || RecordError::Damaged("a ban".to_owned());
        let network = key.strip_prefix(KEY_PREFIX).and_then(|text| std::str::from_utf8(text).ok());
        let network = network.and_then(|text| IpNet::from_str(text).ok()).ok_or_else(damaged)?;
        let (layout, rest) = value.split_first().ok_or_else(damaged)?;
        if *layout != LAYOUT {
            return Err(RecordError::Layout(*layout));
        }
        let (until_ms, note) = rest.split_first_chunk().ok_or_else(damaged)?;
        let until_ms = Some(u64::from_be_bytes(*until_ms)).filter(|until_ms| *until_ms != FOR_EVER);
        Ok(Self { network, until_ms, note: std::str::from_utf8(note).map_err(|_| damaged())?.into() })
    }

    /// Milliseconds that are left of it: none for ever, 0 if it is over.
    #[must_use]
    pub fn left_ms(&self, unix_ms: u64) -> Option<u64> {
        self.until_ms.map(|until_ms| until_ms.saturating_sub(unix_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        for (network, until_ms, note) in [
            ("192.0.2.0/24", None, "spam"),
            ("2001:db8::/32", Some(5), ""),
            ("198.51.100.7/32", Some(u64::MAX - 1), "é"),
        ] {
            let ban = KeptBan { network: network.parse().expect("a network"), until_ms, note: note.into() };
            let Op::RegistryPut(key, value) = ban.put() else { panic!("a put") };
            assert!(KeptBan::is_record(&key) && !KeptBan::is_record(b"b\0p\0d"));
            assert_eq!(KeptBan::decode(&key, &value), Ok(ban.clone()));
            assert_eq!(KeptBan::delete(ban.network), Op::RegistryDelete(key.clone()));
            for end in 0..9 {
                assert!(KeptBan::decode(&key, &value[..end]).is_err());
            }
            assert_eq!(ban.left_ms(3), until_ms.map(|until_ms| until_ms - 3));
        }
        assert_eq!(KeptBan::decode(b"ban\0x", b"\x01\0\0\0\0\0\0\0\0"), Err(RecordError::Damaged("a ban".to_owned())));
        assert_eq!(KeptBan::decode(b"ban\0::/0", b"\x02"), Err(RecordError::Layout(2)));
    }
}
