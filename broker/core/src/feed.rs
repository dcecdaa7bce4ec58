//! Feeds: what a device publishes, delivered to the users who are bound to it, on topics of their own.

use std::fmt::{Display, Write};

use turnpike_mqtt::TopicName;

/// The topics on which one message is delivered besides the one that it was published on. A buffer, used again.
#[derive(Default, Debug)]
pub struct Feed {
    text: String,
    /// Where each topic ends.
    ends: Vec<usize>,
}

impl Feed {
    /// Forgets what it has.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Adds a user's feed: `user/{user}/{topic}`. A topic that would be longer than MQTT allows is left out.
    pub fn add(&mut self, user: impl Display, topic: TopicName<'_>) {
        let before = self.text.len();
        let written = write!(self.text, "user/{user}/{}", topic.as_str());
        if written.is_err() || self.text.len() - before > usize::from(u16::MAX) {
            self.text.truncate(before);
        } else {
            self.ends.push(self.text.len());
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each of them.
    pub fn topics(&self) -> impl Iterator<Item = TopicName<'_>> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let texts = starts.zip(&self.ends).filter_map(|(start, end)| self.text.get(start..*end));
        texts.map(TopicName::from_validated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_topic() {
        let mut feed = Feed::default();
        let topic = TopicName::parse("dev/p/d/up/x").expect("a topic");
        feed.add("a:1", topic);
        feed.add("a:2", topic);
        let topics: Vec<&str> = feed.topics().map(TopicName::as_str).collect();
        assert_eq!(topics, ["user/a:1/dev/p/d/up/x", "user/a:2/dev/p/d/up/x"]);
        feed.clear();
        assert!(feed.is_empty() && feed.topics().next().is_none());
        let long = "x".repeat(65_535 - 9);
        feed.add("a:1", TopicName::parse(&long).expect("a topic"));
        feed.add("a:12", TopicName::parse(&long).expect("a topic"));
        assert_eq!(feed.topics().map(|topic| topic.as_str().len()).collect::<Vec<_>>(), [65_535]);
    }
}
