//! What hangs under one literal prefix. 40 bytes for the usual case, one subscriber to one filter; a box for anything
//! more.

use super::audience::Audience;
use super::matches::Matches;
use super::trie::Trie;
use super::{Joining, Subscriber};
use crate::ids::SessionRef;

/// What follows the prefix in a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place<'a> {
    /// Nothing: the filter is the prefix.
    Exact,
    /// `+`
    Plus,
    /// `#`
    Below,
    /// Anything longer; begins with a wildcard.
    Suffix(&'a str),
}

/// A prefix and its subscribers.
#[derive(Debug)]
pub(super) struct Node {
    prefix: Box<str>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    One(Spot, Subscriber),
    Full(Box<Full>),
}

/// A [`Place`] without a suffix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spot {
    Exact,
    Plus,
    Below,
}

/// Every kind of subscriber that a prefix can have.
#[derive(Default, Debug)]
pub(super) struct Full {
    exact: Audience,
    plus: Audience,
    below: Audience,
    deeper: Option<Box<Trie>>,
}

impl Place<'_> {
    fn spot(self) -> Option<Spot> {
        match self {
            Self::Exact => Some(Spot::Exact),
            Self::Plus => Some(Spot::Plus),
            Self::Below => Some(Spot::Below),
            Self::Suffix(_) => None,
        }
    }
}

impl Spot {
    /// Whether this takes what a topic has after the prefix; `None` for nothing, which is not an empty level.
    fn takes(self, rest: Option<&str>) -> bool {
        match (self, rest) {
            (Self::Exact, rest) => rest.is_none(),
            (Self::Plus, rest) => rest.is_some_and(|rest| !rest.as_bytes().contains(&b'/')),
            // The parent level included (MQTT 5, 4.7.1.2).
            (Self::Below, _) => true,
        }
    }
}

impl Node {
    /// A node for its first subscription.
    pub(super) fn first(prefix: &str, place: Place<'_>, joining: &Joining<'_>) -> Self {
        let content = match place.spot() {
            Some(spot) if joining.share.is_none() => Content::One(spot, joining.subscriber),
            _ => {
                let mut full = Full::default();
                full.subscribe(place, joining);
                Content::Full(Box::new(full))
            }
        };
        Self { prefix: prefix.into(), content }
    }

    #[inline]
    pub(super) fn is_at(&self, prefix: &str) -> bool {
        *self.prefix == *prefix
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// True once its last subscription is gone; then it must be removed.
    pub(super) fn is_empty(&self) -> bool {
        match &self.content {
            Content::One(..) => false,
            Content::Full(full) => full.is_empty(),
        }
    }

    /// True if the subscription is new.
    pub(super) fn subscribe(&mut self, place: Place<'_>, joining: &Joining<'_>) -> bool {
        let full = match &mut self.content {
            Content::One(spot, one)
                if joining.share.is_none()
                    && place.spot() == Some(*spot)
                    && one.session == joining.subscriber.session =>
            {
                *one = joining.subscriber;
                return false;
            }
            Content::One(spot, one) => Box::new(Full::of(*spot, *one)),
            Content::Full(full) => return full.subscribe(place, joining),
        };
        self.content = Content::Full(full);
        self.subscribe(place, joining)
    }

    pub(super) fn unsubscribe(&mut self, place: Place<'_>, share: Option<&str>, session: SessionRef) -> bool {
        match &mut self.content {
            Content::One(spot, one) => {
                let found = share.is_none() && place.spot() == Some(*spot) && one.session == session;
                if found {
                    self.content = Content::Full(Box::default());
                }
                found
            }
            Content::Full(full) => {
                let removed = full.unsubscribe(place, share, session);
                if let Some((spot, one)) = full.single() {
                    self.content = Content::One(spot, one);
                }
                removed
            }
        }
    }

    pub(super) fn set_online(&mut self, place: Place<'_>, share: &str, session: SessionRef, online: bool) {
        match &mut self.content {
            Content::One(..) => {}
            Content::Full(full) => full.set_online(place, share, session, online),
        }
    }

    pub(super) fn pick(
        &self,
        place: Place<'_>,
        share: &str,
        random: u64,
        except: Option<SessionRef>,
    ) -> Option<Subscriber> {
        match &self.content {
            Content::One(..) => None,
            Content::Full(full) => full.pick(place, share, random, except),
        }
    }

    /// Adds those who want a topic that has `rest` after the prefix and its slash, or nothing at all.
    #[inline]
    pub(super) fn collect(&self, rest: Option<&str>, out: &mut Matches) {
        match &self.content {
            Content::One(spot, one) => {
                if spot.takes(rest) {
                    out.add(one);
                }
            }
            Content::Full(full) => full.collect(rest, out),
        }
    }
}

impl Full {
    fn of(spot: Spot, one: Subscriber) -> Self {
        let mut full = Self::default();
        full.at_mut(spot).subscribe(&Joining { filter: "", share: None, subscriber: one, online: true });
        full
    }

    fn at(&self, spot: Spot) -> &Audience {
        match spot {
            Spot::Exact => &self.exact,
            Spot::Plus => &self.plus,
            Spot::Below => &self.below,
        }
    }

    fn at_mut(&mut self, spot: Spot) -> &mut Audience {
        match spot {
            Spot::Exact => &mut self.exact,
            Spot::Plus => &mut self.plus,
            Spot::Below => &mut self.below,
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.plus.is_empty() && self.below.is_empty() && self.deeper.is_none()
    }

    /// The one subscriber, if there is just one, and where.
    fn single(&self) -> Option<(Spot, Subscriber)> {
        let mut taken = [Spot::Exact, Spot::Plus, Spot::Below].into_iter().filter(|spot| !self.at(*spot).is_empty());
        let spot = taken.next()?;
        (taken.next().is_none() && self.deeper.is_none()).then_some(())?;
        Some((spot, self.at(spot).single()?))
    }

    fn find_mut(&mut self, place: Place<'_>) -> Option<&mut Audience> {
        match (place.spot(), place) {
            (Some(spot), _) => Some(self.at_mut(spot)),
            (None, Place::Suffix(suffix)) => self.deeper.as_mut()?.find_mut(suffix),
            (None, _) => None,
        }
    }

    pub(super) fn subscribe(&mut self, place: Place<'_>, joining: &Joining<'_>) -> bool {
        if let Place::Suffix(suffix) = place {
            self.deeper.get_or_insert_default().subscribe(suffix, joining)
        } else {
            self.find_mut(place).is_some_and(|audience| audience.subscribe(joining))
        }
    }

    pub(super) fn unsubscribe(&mut self, place: Place<'_>, share: Option<&str>, session: SessionRef) -> bool {
        let removed = self.find_mut(place).is_some_and(|audience| audience.unsubscribe(share, session));
        if removed
            && let Place::Suffix(suffix) = place
            && let Some(trie) = &mut self.deeper
        {
            trie.prune(suffix);
            if trie.is_empty() {
                self.deeper = None;
            }
        }
        removed
    }

    pub(super) fn set_online(&mut self, place: Place<'_>, share: &str, session: SessionRef, online: bool) {
        if let Some(audience) = self.find_mut(place) {
            audience.set_online(share, session, online);
        }
    }

    pub(super) fn pick(
        &self,
        place: Place<'_>,
        share: &str,
        random: u64,
        except: Option<SessionRef>,
    ) -> Option<Subscriber> {
        let audience = match place {
            Place::Exact => &self.exact,
            Place::Plus => &self.plus,
            Place::Below => &self.below,
            Place::Suffix(suffix) => self.deeper.as_ref()?.find(suffix)?,
        };
        audience.pick(share, random, except)
    }

    pub(super) fn collect(&self, rest: Option<&str>, out: &mut Matches) {
        for spot in [Spot::Exact, Spot::Plus, Spot::Below] {
            if spot.takes(rest) {
                self.at(spot).collect(out);
            }
        }
        if let (Some(trie), Some(rest)) = (&self.deeper, rest) {
            trie.collect(rest, out);
        }
    }
}
