//! The suffixes under one prefix, by level. Nodes live in a slab and name each other by index, so a walk is a loop over
//! a stack that is reused, and dropping a trie of 65,535 levels doesn't recurse.
//!
//! A walk visits at most the nodes that the trie has: 2 per level and path, each path a filter that somebody subscribed
//! to.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use slab::Slab;

use super::Joining;
use super::audience::Audience;
use super::matches::Matches;

/// Up to how many literal children a scan beats a hash table.
const FEW: usize = if cfg!(test) { 2 } else { 8 };

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// Suffixes, each beginning with a wildcard.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Slab<Level>,
}

#[derive(Debug)]
struct Level {
    /// Of filters that end here.
    ends: Audience,
    /// Of filters that end with `#` after this level.
    below: Audience,
    plus: u32,
    literals: Literals,
}

#[derive(Debug)]
enum Literals {
    Few(Vec<(Box<str>, u32)>),
    Many(Box<HashMap<Box<str>, u32, RandomState>>),
}

impl Default for Trie {
    fn default() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Level::new());
        Self { nodes }
    }
}

/// A suffix without its trailing `#` level, and whether it had one.
fn split(suffix: &str) -> (&str, bool) {
    match suffix.strip_suffix("/#") {
        Some(levels) => (levels, true),
        None => (suffix, false),
    }
}

impl Trie {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.get(ROOT as usize).is_none_or(Level::is_empty)
    }

    /// True if the subscription is new.
    pub(super) fn subscribe(&mut self, suffix: &str, joining: &Joining<'_>) -> bool {
        let (levels, below) = split(suffix);
        let mut at = ROOT;
        for level in levels.split('/') {
            at = match self.nodes.get(at as usize).and_then(|node| node.child(level)) {
                Some(child) => child,
                None => {
                    let child = u32::try_from(self.nodes.insert(Level::new())).expect("fewer than 2^32 levels");
                    if let Some(node) = self.nodes.get_mut(at as usize) {
                        node.link(level, child);
                    }
                    child
                }
            };
        }
        let Some(node) = self.nodes.get_mut(at as usize) else { return false };
        node.audience_mut(below).subscribe(joining)
    }

    fn locate(&self, levels: &str) -> Option<u32> {
        levels.split('/').try_fold(ROOT, |at, level| self.nodes.get(at as usize)?.child(level))
    }

    pub(super) fn find(&self, suffix: &str) -> Option<&Audience> {
        let (levels, below) = split(suffix);
        let node = self.nodes.get(self.locate(levels)? as usize)?;
        Some(if below { &node.below } else { &node.ends })
    }

    pub(super) fn find_mut(&mut self, suffix: &str) -> Option<&mut Audience> {
        let (levels, below) = split(suffix);
        let at = self.locate(levels)?;
        Some(self.nodes.get_mut(at as usize)?.audience_mut(below))
    }

    /// Removes the levels of a suffix that have nothing left, from its end.
    pub(super) fn prune(&mut self, suffix: &str) {
        let (levels, _) = split(suffix);
        let mut path = Vec::new();
        let mut at = ROOT;
        for level in levels.split('/') {
            let Some(child) = self.nodes.get(at as usize).and_then(|node| node.child(level)) else { break };
            path.push((at, level, child));
            at = child;
        }
        for (parent, level, child) in path.into_iter().rev() {
            if self.nodes.get(child as usize).is_none_or(|node| !node.is_empty()) {
                return;
            }
            self.nodes.remove(child as usize);
            if let Some(node) = self.nodes.get_mut(parent as usize) {
                node.unlink(level);
            }
        }
    }

    /// Adds those whose suffix takes `rest`, which has at least one level.
    pub(super) fn collect(&self, rest: &str, out: &mut Matches) {
        let mut stack = out.take_stack();
        stack.push((ROOT, 0));
        while let Some((at, from)) = stack.pop() {
            let Some(node) = self.nodes.get(at as usize) else { continue };
            node.below.collect(out);
            // Past the end there is no level left, not even an empty one.
            let Some(rest) = rest.get(from as usize..) else {
                node.ends.collect(out);
                continue;
            };
            let length = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
            let next = from + u32::try_from(length + 1).expect("a topic is at most 65,535 bytes");
            if let Some(child) = rest.get(..length).and_then(|level| node.literals.get(level)) {
                stack.push((child, next));
            }
            if node.plus != NONE {
                stack.push((node.plus, next));
            }
        }
        out.put_stack(stack);
    }
}

impl Level {
    fn new() -> Self {
        Self { ends: Audience::default(), below: Audience::default(), plus: NONE, literals: Literals::Few(Vec::new()) }
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.below.is_empty() && self.plus == NONE && self.literals.is_empty()
    }

    fn audience_mut(&mut self, below: bool) -> &mut Audience {
        if below { &mut self.below } else { &mut self.ends }
    }

    /// The child for a level of a filter.
    fn child(&self, level: &str) -> Option<u32> {
        if level == "+" { (self.plus != NONE).then_some(self.plus) } else { self.literals.get(level) }
    }

    fn link(&mut self, level: &str, child: u32) {
        if level == "+" {
            self.plus = child;
        } else {
            self.literals.insert(level, child);
        }
    }

    fn unlink(&mut self, level: &str) {
        if level == "+" {
            self.plus = NONE;
        } else {
            self.literals.remove(level);
        }
    }
}

impl Literals {
    fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(map) => map.is_empty(),
        }
    }

    fn get(&self, level: &str) -> Option<u32> {
        match self {
            Self::Few(list) => list.iter().find(|(known, _)| **known == *level).map(|(_, child)| *child),
            Self::Many(map) => map.get(level).copied(),
        }
    }

    fn insert(&mut self, level: &str, child: u32) {
        match self {
            Self::Few(list) if list.len() < FEW => list.push((level.into(), child)),
            Self::Few(list) => {
                let mut map: HashMap<_, _, _> = std::mem::take(list).into_iter().collect();
                map.insert(level.into(), child);
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => _ = map.insert(level.into(), child),
        }
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::Few(list) => list.retain(|(known, _)| **known != *level),
            Self::Many(map) => {
                map.remove(level);
                if map.len() <= FEW / 2 {
                    *self = Self::Few(std::mem::take(&mut **map).into_iter().collect());
                } else if map.len() < map.capacity() / 8 {
                    map.shrink_to(map.len() * 2);
                }
            }
        }
    }
}
