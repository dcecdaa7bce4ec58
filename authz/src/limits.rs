//! Limits of single products and devices: as an operator writes them, as the registry keeps them, as [`Quotas`] keep to them.

use std::str::FromStr;

use turnpike_core::meter::{Excess, FlowRate, Rate};

use crate::plan::Change;
use crate::quota::{ProductLimits, Quotas, TextError, parse_rate};

/// Bytes of a rate as text; none that says something needs more.
const RATE_BYTES_MAX: usize = 64;

/// A rate, and how it was written: an operator reads back what was said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenRate {
    text: Box<str>,
    rate: Rate,
}

impl WrittenRate {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Default for WrittenRate {
    fn default() -> Self {
        Self { text: "unlimited".into(), rate: Rate::UNLIMITED }
    }
}

impl FromStr for WrittenRate {
    type Err = TextError;

    /// As [`parse_rate`] takes it, in 64 bytes.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        if text.len() > RATE_BYTES_MAX {
            return Err(TextError::Form("a text of more than 64 bytes".to_owned()));
        }
        Ok(Self { text: text.into(), rate: parse_rate(text)? })
    }
}

/// Messages and bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenFlow {
    /// Messages.
    pub messages: WrittenRate,
    /// Bytes of the packets that they are in.
    pub bytes: WrittenRate,
}

impl WrittenFlow {
    /// What it says.
    #[must_use]
    pub fn flow(&self) -> FlowRate {
        FlowRate { messages: self.messages.rate, bytes: self.bytes.rate }
    }

    fn write(&self, record: &mut Vec<u8>) {
        for rate in [&self.messages, &self.bytes] {
            record.push(u8::try_from(rate.text.len()).expect("bounded when it was parsed"));
            record.extend_from_slice(rate.text.as_bytes());
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut rate = || {
            let (&length, rest) = bytes.split_first()?;
            let (text, rest) = rest.split_at_checked(usize::from(length))?;
            *bytes = rest;
            let text = std::str::from_utf8(text).ok()?;
            text.parse::<WrittenRate>().ok().filter(|rate| rate.as_str() == text)
        };
        Some(Self { messages: rate()?, bytes: rate()? })
    }

    /// For a record: each rate's length (a byte) and text.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let mut record = Vec::new();
        self.write(&mut record);
        record
    }

    /// From a record.
    pub(crate) fn from_record(mut bytes: &[u8]) -> Option<Self> {
        Self::read(&mut bytes).filter(|_| bytes.is_empty())
    }
}

/// Of a product, where it differs from what the configuration says for all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenLimits {
    /// Each device.
    pub each_device: Option<WrittenFlow>,
    /// All devices together.
    pub product: Option<WrittenFlow>,
    /// What MQTT 5 clients see of it.
    pub excess: Option<Excess>,
}

const EACH_DEVICE: u8 = 1;
const PRODUCT: u8 = 1 << 1;
const EXCESS: u8 = 1 << 2;
const REFUSE_ACKED: u8 = 1 << 3;
const DROP_UNACKED: u8 = 1 << 4;

impl WrittenLimits {
    /// What it says.
    #[must_use]
    pub fn limits(&self) -> ProductLimits {
        ProductLimits {
            each: self.each_device.as_ref().map(WrittenFlow::flow),
            whole: self.product.as_ref().map(WrittenFlow::flow),
            excess: self.excess,
        }
    }

    /// For a record: flags, then what they say is there.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let excess = self.excess.unwrap_or_default();
        let mut record = vec![
            flag(self.each_device.is_some(), EACH_DEVICE)
                | flag(self.product.is_some(), PRODUCT)
                | flag(self.excess.is_some(), EXCESS)
                | flag(excess.refuse_acked, REFUSE_ACKED)
                | flag(excess.drop_unacked, DROP_UNACKED),
        ];
        self.each_device.iter().chain(&self.product).for_each(|flow| flow.write(&mut record));
        record
    }

    /// From a record; none if it has flags that this version doesn't know, since they might be limits.
    pub(crate) fn from_record(bytes: &[u8]) -> Option<Self> {
        let (&flags, mut rest) = bytes.split_first()?;
        let has = |flag: u8| flags & flag != 0;
        let excess = Excess { refuse_acked: has(REFUSE_ACKED), drop_unacked: has(DROP_UNACKED) };
        if flags >= DROP_UNACKED << 1 || (!has(EXCESS) && excess != Excess::default()) {
            return None;
        }
        let each_device = if has(EACH_DEVICE) { Some(WrittenFlow::read(&mut rest)?) } else { None };
        let product = if has(PRODUCT) { Some(WrittenFlow::read(&mut rest)?) } else { None };
        rest.is_empty().then_some(Self { each_device, product, excess: has(EXCESS).then_some(excess) })
    }
}

impl Quotas {
    /// Keeps to a change of the registry. To be called before the sessions that it concerns are judged again.
    pub fn follow(&self, change: &Change) {
        match change {
            Change::LimitProduct(product, limits) => {
                let limits = limits.as_ref().map_or_else(ProductLimits::default, |limits| limits.limits());
                self.limit_product(product.as_str(), limits);
            }
            Change::LimitDevice(product, device, flow) => {
                let flow = flow.as_ref().map(|flow| flow.flow());
                self.limit_device(product.as_str(), device.as_str(), flow);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(messages: &str, bytes: &str) -> WrittenFlow {
        WrittenFlow { messages: messages.parse().expect("a rate"), bytes: bytes.parse().expect("a rate") }
    }

    #[test]
    fn what_is_written_is_kept_and_meant() {
        let each = flow(" 100/1s burst 500 ", "unlimited");
        assert_eq!(each.messages.as_str(), "100/1s burst 500");
        assert_eq!(each.flow().messages, parse_rate("100/1s burst 500").expect("a rate"));
        assert!(each.flow().bytes.is_unlimited());
        assert!(" 1/s".repeat(20).parse::<WrittenRate>().is_err());
        assert!(format!("{}1/1s", "0".repeat(64)).parse::<WrittenRate>().is_err(), "longer than a record takes");
    }

    #[test]
    fn records_give_back_what_made_them() {
        let excess = Some(Excess { refuse_acked: true, drop_unacked: false });
        let both = WrittenLimits { each_device: Some(flow("1/s", "2/m")), product: Some(flow("3/h", "4/d")), excess };
        let whole = WrittenLimits { product: both.product.clone(), ..WrittenLimits::default() };
        for limits in [both, whole, WrittenLimits::default()] {
            let record = limits.to_record();
            assert_eq!(WrittenLimits::from_record(&record), Some(limits));
            assert_eq!(WrittenLimits::from_record(&[&record[..], &[0]].concat()), None);
            assert_eq!(WrittenLimits::from_record(&record[1..]), None);
        }
        for flags in [REFUSE_ACKED, DROP_UNACKED, 1 << 5, 1 << 7] {
            assert_eq!(WrittenLimits::from_record(&[flags]), None);
        }
        assert_eq!(WrittenFlow::from_record(b"\x04 1/s\x031/s"), None, "not as it is written");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            if let Some(limits) = WrittenLimits::from_record(&bytes) {
                prop_assert_eq!(limits.to_record(), bytes);
            }
        }
    }
}
