//! Finding the topics of a wildcard filter in an ordered set, by leaps.

use std::collections::BTreeSet;
use std::ops::Bound;

/// Topics that are stepped over before it is cheaper to search for the next candidate.
const STRIDE: usize = if cfg!(test) { 2 } else { 8 };

/// Stands for `/` in keys, so that a topic is followed by all that lies below it. U+0000 isn't allowed in topics
/// [MQTT-4.7.3-2].
const SEPARATOR: u8 = 0;

/// A topic as the set orders it.
pub(super) fn key(topic: &str) -> Box<[u8]> {
    topic.bytes().map(|byte| if byte == b'/' { SEPARATOR } else { byte }).collect()
}

fn topic_of(key: &[u8]) -> Option<Box<str>> {
    let bytes = key.iter().map(|byte| if *byte == SEPARATOR { b'/' } else { *byte }).collect();
    String::from_utf8(bytes).ok().map(String::into_boxed_str)
}

/// A filter on its way through the set. It keeps its place between runs, as a key.
#[derive(Debug)]
pub(super) struct Scan {
    levels: Vec<Box<[u8]>>,
    /// No key before this is of interest any more; none if the scan is over.
    from: Option<Vec<u8>>,
}

/// What a key means to a filter.
#[derive(PartialEq, Eq, Debug)]
enum Step {
    Match,
    /// Neither this key nor any other before the given one.
    Leap(Vec<u8>),
    /// Neither this key nor any after it.
    Over,
}

impl Scan {
    pub(super) fn new(filter: &str) -> Self {
        let levels: Vec<Box<[u8]>> = filter.split('/').map(|level| level.as_bytes().into()).collect();
        let mut from = Vec::new();
        append_literals(&mut from, &levels);
        Self { levels, from: Some(from) }
    }

    pub(super) fn is_done(&self) -> bool {
        self.from.is_none()
    }

    /// Looks at up to `steps` keys and adds the topics that the filter takes to `found`.
    pub(super) fn run(&mut self, keys: &BTreeSet<Box<[u8]>>, steps: usize, found: &mut Vec<Box<str>>) {
        let Some(mut from) = self.from.take() else { return };
        let mut left = steps;
        'leap: loop {
            let mut missed = 0;
            for key in keys.range::<[u8], _>((Bound::Included(from.as_slice()), Bound::Unbounded)) {
                if left == 0 {
                    self.from = Some(from.max(key.to_vec()));
                    return;
                }
                left -= 1;
                if **key < *from {
                    // Within the last leap, walked over because the next candidate is likely to be near.
                    missed += 1;
                    if missed > STRIDE {
                        continue 'leap;
                    }
                    continue;
                }
                missed = 0;
                match step(&self.levels, key) {
                    Step::Match => found.extend(topic_of(key)),
                    Step::Leap(to) => from = to,
                    Step::Over => return,
                }
            }
            return;
        }
    }
}

/// The literal levels at the front of `levels`, as the part of a key.
fn append_literals(key: &mut Vec<u8>, levels: &[Box<[u8]>]) {
    let literals = levels.iter().take_while(|level| !is_wildcard(level)).count();
    for (at, level) in levels.iter().take(literals).enumerate() {
        if at > 0 {
            key.push(SEPARATOR);
        }
        key.extend_from_slice(level);
    }
}

fn is_wildcard(level: &[u8]) -> bool {
    level == b"+" || level == b"#"
}

/// Holds a key against a filter.
fn step(levels: &[Box<[u8]>], key: &[u8]) -> Step {
    if key.starts_with(b"$") && levels.first().is_some_and(|level| is_wildcard(level)) {
        // [MQTT-4.7.2-1]
        return Step::Leap(vec![b'$' + 1]);
    }
    // Where the level now compared begins, and where the last level that `+` took ends.
    let (mut begin, mut plus_end) = (0, None);
    for (at, level) in levels.iter().enumerate() {
        if **level == *b"#" {
            // Its parent included (MQTT 5, 4.7.1.2).
            return Step::Match;
        }
        let Some(rest) = key.get(begin..) else {
            // The key is the parent of what is wanted.
            let mut to = key.to_vec();
            to.push(SEPARATOR);
            append_literals(&mut to, levels.get(at..).unwrap_or_default());
            return Step::Leap(to);
        };
        let length = rest.iter().position(|byte| *byte == SEPARATOR).unwrap_or(rest.len());
        let end = begin + length;
        if **level == *b"+" {
            plus_end = Some(end);
        } else {
            let have = key.get(begin..end).unwrap_or_default();
            if *have < **level {
                let mut to = key.get(..begin).unwrap_or_default().to_vec();
                append_literals(&mut to, levels.get(at..).unwrap_or_default());
                return Step::Leap(to);
            }
            if *have > **level {
                return plus_end.map_or(Step::Over, |end| past(key, end));
            }
        }
        begin = end + 1;
    }
    if begin > key.len() { Step::Match } else { past(key, begin - 1) }
}

/// Past everything that lies below the first `end` bytes.
fn past(key: &[u8], end: usize) -> Step {
    let mut to = key.get(..end).unwrap_or_default().to_vec();
    to.push(SEPARATOR + 1);
    Step::Leap(to)
}
