//! A subscriber: who published what it hears, and whether something is missing.

use super::shared::Shared;
use crate::plan::{Streams, Subscription};
use crate::spec::{STAMP_BYTES, Spec};

pub(super) struct Subscriber {
    pub(super) deaf: bool,
    streams: Heard,
}

enum Heard {
    One(u32, Stream),
    Each(Box<[Stream]>),
    Group,
}

/// The messages of one publisher, as one subscriber sees them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    /// Highest sequence number.
    highest: u32,
    /// Which of the 64 below it, itself included, were there.
    recent: u64,
}

/// What a message is to its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// The highest so far.
    InOrder,
    /// Lower than another one, and the first with its number.
    Late,
    /// It was there before.
    Again,
}

impl Stream {
    #[inline]
    pub(super) fn see(&mut self, number: u32) -> Seen {
        if number > self.highest {
            let gap = number - self.highest;
            self.recent = self.recent.checked_shl(gap).unwrap_or(0) | 1;
            self.highest = number;
            return Seen::InOrder;
        }
        // What is too far back to remember counts as late: calling it repeated would hide a loss.
        let Some(bit) = 1_u64.checked_shl(self.highest - number) else { return Seen::Late };
        if self.recent & bit != 0 {
            return Seen::Again;
        }
        self.recent |= bit;
        Seen::Late
    }
}

impl Subscriber {
    pub(super) fn new(spec: &Spec, subscription: &Subscription) -> Self {
        let streams = match subscription.streams {
            Streams::One(publisher) => Heard::One(publisher, Stream::default()),
            Streams::Each => Heard::Each(vec![Stream::default(); spec.publishers].into()),
            Streams::Group => Heard::Group,
        };
        Self { deaf: subscription.deaf, streams }
    }

    /// Takes note of a message.
    #[inline]
    pub(super) fn note(&mut self, payload: &[u8], shared: &mut Shared) {
        // Messages of somebody else, or of a run before.
        let Some((stamp, _)) = payload.split_first_chunk::<STAMP_BYTES>() else { return };
        let at_ns = u64::from_le_bytes(stamp[0..8].try_into().expect("8 bytes"));
        if at_ns < shared.born_ns {
            return;
        }
        let publisher = u32::from_le_bytes(stamp[8..12].try_into().expect("4 bytes"));
        let number = u32::from_le_bytes(stamp[12..16].try_into().expect("4 bytes"));
        let seen = match &mut self.streams {
            Heard::One(only, stream) if *only == publisher => stream.see(number),
            Heard::One(..) => return,
            Heard::Each(streams) => match streams.get_mut(publisher as usize) {
                Some(stream) => stream.see(number),
                None => return,
            },
            Heard::Group if shared.subscribed_ns > 0 => Seen::InOrder,
            Heard::Group => shared.see_in_group(publisher, number),
        };
        shared.count_delivered(publisher, at_ns, seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_tells_repeated_from_late() {
        let mut stream = Stream::default();
        let seen = |number| stream.see(number);
        let expected = [
            (1, Seen::InOrder),
            (1, Seen::Again),
            (4, Seen::InOrder),
            (2, Seen::Late),
            (2, Seen::Again),
            (200, Seen::InOrder),
            (100, Seen::Late),
            (199, Seen::Late),
            (199, Seen::Again),
        ];
        let (numbers, wanted): (Vec<u32>, Vec<Seen>) = expected.into_iter().unzip();
        assert_eq!(numbers.into_iter().map(seen).collect::<Vec<_>>(), wanted);
    }
}
