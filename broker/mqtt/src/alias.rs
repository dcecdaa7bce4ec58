//! Topic aliases that a peer has set (MQTT 5, 3.3.2.3.4). They live as long as their connection [MQTT-3.3.2-7].

use crate::reason::ReasonCode;
use crate::topic::TopicName;

/// Why an alias can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AliasError {
    /// Above the maximum that was announced [MQTT-3.3.2-9].
    OutOfRange,
    /// Not set yet (MQTT 5, 3.3.4).
    Unknown,
}

impl AliasError {
    /// What ends the connection.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::OutOfRange => ReasonCode::TopicAliasInvalid,
            Self::Unknown => ReasonCode::ProtocolError,
        }
    }
}

/// The aliases of one direction. Memory comes with the first alias.
#[derive(Clone, Debug, Default)]
pub struct TopicAliases {
    topics: Vec<Option<Box<str>>>,
    maximum: u16,
}

impl TopicAliases {
    /// Takes aliases from 1 to `maximum`.
    #[must_use]
    pub fn new(maximum: u16) -> Self {
        Self { topics: Vec::new(), maximum }
    }

    /// Sets or replaces an alias.
    ///
    /// # Errors
    /// [`AliasError::OutOfRange`].
    pub fn set(&mut self, alias: u16, topic: TopicName<'_>) -> Result<(), AliasError> {
        if alias == 0 || alias > self.maximum {
            return Err(AliasError::OutOfRange);
        }
        let index = usize::from(alias) - 1;
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        // Some clients send topic and alias together every time: that must not allocate.
        if let Some(slot) = self.topics.get_mut(index)
            && slot.as_deref() != Some(topic.as_str())
        {
            *slot = Some(topic.as_str().into());
        }
        Ok(())
    }

    /// The topic of an alias.
    ///
    /// # Errors
    /// [`AliasError`].
    pub fn resolve(&self, alias: u16) -> Result<TopicName<'_>, AliasError> {
        if alias == 0 || alias > self.maximum {
            return Err(AliasError::OutOfRange);
        }
        let known = self.topics.get(usize::from(alias) - 1).and_then(Option::as_deref);
        known.map(TopicName::from_validated).ok_or(AliasError::Unknown)
    }
}
