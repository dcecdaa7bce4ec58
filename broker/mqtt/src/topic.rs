//! Topic names and filters (MQTT 5, 4.7). A value of these types has been checked and is not checked again.

use std::fmt;

/// Why a text is no topic name or filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    Empty,
    /// [MQTT-4.7.3-3]
    TooLong,
    /// [MQTT-4.7.3-2] U+0000, or a control character (MQTT 5, 1.5.4).
    ControlCharacter,
    /// [MQTT-3.3.2-2] `+` or `#` in a topic name.
    WildcardInName,
    /// [MQTT-4.7.1-1] `#` not alone in the last level, [MQTT-4.7.1-2] `+` not alone in its level.
    MisplacedWildcard,
    /// [MQTT-4.8.2-1] [MQTT-4.8.2-2] `$share/{name}/{filter}` with a missing or wild name, or without a filter.
    BadShare,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a topic must have at least one character",
            Self::TooLong => "a topic has at most 65,535 bytes",
            Self::ControlCharacter => "a topic must not contain control characters",
            Self::WildcardInName => "a topic name must not contain + or #",
            Self::MisplacedWildcard => "+ must fill its level, and # the last one",
            Self::BadShare => "a shared subscription is $share/{name}/{filter}, the name without + # /",
        })
    }
}

impl std::error::Error for TopicError {}

/// A topic name: where a message is published.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks a text.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        check_length(text)?;
        // No early exit, so that it becomes vector instructions: names are short and nearly all valid. It halves `decode_publish`.
        let unusual =
            text.bytes().fold(false, |unusual, byte| unusual | is_wildcard(byte) | is_control(byte) | !byte.is_ascii());
        if !unusual {
            return Ok(Self(text));
        }
        match text.chars().find(|c| matches!(c, '+' | '#') || is_unwanted(*c)) {
            None => Ok(Self(text)),
            // [MQTT-4.7.0-1]
            Some('+' | '#') => Err(TopicError::WildcardInName),
            Some(_) => Err(TopicError::ControlCharacter),
        }
    }

    /// Takes a text that was a topic name before.
    #[must_use]
    pub fn from_validated(text: &'a str) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels, of which there is at least one; levels may be empty.
    pub fn levels(self) -> std::str::Split<'a, char> {
        self.0.split('/')
    }

    /// How many levels.
    #[must_use]
    pub fn depth(self) -> usize {
        memchr::memchr_iter(b'/', self.0.as_bytes()).count() + 1
    }
}

/// A topic filter: what is subscribed to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    /// Checks a text, `$share/…` included.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        check_length(text)?;
        if has_control(text) {
            return Err(TopicError::ControlCharacter);
        }
        let inner = match text.strip_prefix("$share/") {
            None if text == "$share" => return Err(TopicError::BadShare),
            None => text,
            Some(rest) => {
                let (name, inner) = rest.split_once('/').ok_or(TopicError::BadShare)?;
                if name.is_empty() || inner.is_empty() || name.contains(['+', '#']) {
                    return Err(TopicError::BadShare);
                }
                inner
            }
        };
        let mut levels = inner.split('/').peekable();
        while let Some(level) = levels.next() {
            let whole = level == "+" || (level == "#" && levels.peek().is_none());
            if !whole && level.contains(['+', '#']) {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(Self(text))
    }

    /// Takes a text that was a topic filter before.
    #[must_use]
    pub fn from_validated(text: &'a str) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The share name and the filter behind it, of a shared subscription.
    #[must_use]
    pub fn share(self) -> Option<(&'a str, Self)> {
        let (name, inner) = self.0.strip_prefix("$share/")?.split_once('/')?;
        Some((name, Self(inner)))
    }

    /// Whether it has `+` or `#`.
    #[must_use]
    pub fn has_wildcards(self) -> bool {
        memchr::memchr2(b'+', b'#', self.0.as_bytes()).is_some()
    }

    /// Its levels.
    pub fn levels(self) -> std::str::Split<'a, char> {
        self.0.split('/')
    }

    /// How many levels.
    #[must_use]
    pub fn depth(self) -> usize {
        memchr::memchr_iter(b'/', self.0.as_bytes()).count() + 1
    }

    /// Whether it matches a topic name. The filter must be without its `$share/{name}/` prefix.
    #[must_use]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        // [MQTT-4.7.2-1]
        if topic.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.levels();
        let mut filters = self.levels();
        loop {
            match (filters.next(), names.next()) {
                // [MQTT-4.7.1-1] `#` matches the parent level too.
                (Some("#"), _) => return true,
                (Some("+"), Some(_)) => {}
                (Some(filter), Some(name)) if filter == name => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

fn is_wildcard(byte: u8) -> bool {
    byte == b'+' || byte == b'#'
}

/// U+0000 [MQTT-1.5.4-2], and the characters that a string should not have either (MQTT 5, 1.5.4).
fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7F
}

/// Whether a text has characters that strings should not have (MQTT 5, 1.5.4): control characters and non-characters.
#[inline]
pub(crate) fn has_control(text: &str) -> bool {
    let unusual = text.bytes().fold(false, |unusual, byte| unusual | is_control(byte) | !byte.is_ascii());
    unusual && text.chars().any(is_unwanted)
}

/// Control characters, U+0000 among them [MQTT-1.5.4-2], and non-characters.
fn is_unwanted(c: char) -> bool {
    c.is_control() || matches!(u32::from(c), 0xFDD0..=0xFDEF) || u32::from(c) & 0xFFFE == 0xFFFE
}

fn check_length(text: &str) -> Result<(), TopicError> {
    match text.len() {
        0 => Err(TopicError::Empty),
        1..=65_535 => Ok(()),
        _ => Err(TopicError::TooLong),
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
