//! Encoded events one behind the other: what waits costs its bytes and no allocation of its own.

use turnpike_authz::audit::Event;

use super::queue::GROUP_RECORDS;

/// Encoded events, in order.
#[derive(Default, Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where each ends, and when it happened.
    ends: Vec<(usize, u64)>,
}

/// Room for a group of usual events, taken at once: a vector that doubles leaves as much behind, which an allocator may keep for long.
const GROUP_BYTES: usize = 128 << 10;
/// Above this, memory that a burst has taken is given back.
const KEPT_BYTES: usize = 2 * GROUP_BYTES;

impl Batch {
    pub(super) fn push(&mut self, event: &Event<'_>) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(GROUP_BYTES);
            self.ends.reserve(GROUP_RECORDS);
        }
        event.encode(&mut self.bytes);
        self.ends.push((self.bytes.len(), event.at_ms));
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Each event's members, and when it happened.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        begins.zip(&self.ends).map(|(begin, (end, at_ms))| (&self.bytes[begin..*end], *at_ms))
    }

    /// Appends another.
    pub(super) fn append(&mut self, other: &Self) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|(end, at_ms)| (offset + end, *at_ms)));
    }

    /// The same without some of its events, whose indices are in order.
    pub(super) fn without(&self, indices: &[usize]) -> Self {
        let mut kept = Self::default();
        let mut left_out = indices.iter().peekable();
        for (index, (bytes, at_ms)) in self.iter().enumerate() {
            if left_out.next_if(|next| **next == index).is_none() {
                kept.bytes.extend_from_slice(bytes);
                kept.ends.push((kept.bytes.len(), at_ms));
            }
        }
        kept
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use turnpike_authz::audit::Action;

    use super::*;

    #[test]
    fn events_come_out_as_they_went_in() {
        let made = |times: &[u64]| {
            let mut batch = Batch::default();
            times.iter().for_each(|at_ms| batch.push(&Event::own(*at_ms, Action::BrokerStart, &[])));
            batch
        };
        let times = |batch: &Batch| batch.iter().map(|(_, at_ms)| at_ms).collect::<Vec<_>>();
        let mut batch = made(&[1, 2, 3]);
        batch.append(&made(&[4, 5]));
        assert_eq!(times(&batch), [1, 2, 3, 4, 5]);
        assert!(batch.iter().all(|(body, at_ms)| body.starts_with(format!("\"time\":{at_ms},").as_bytes())));
        let rest = batch.without(&[0, 3]);
        assert_eq!(times(&rest), [2, 3, 5]);
        assert!(rest.iter().all(|(body, at_ms)| body.starts_with(format!("\"time\":{at_ms},").as_bytes())));
        batch.clear();
        assert!(batch.is_empty() && batch.bytes() == 0);
    }
}
