//! Batches in JSON: `[record, …]`, or `{"records": [record, …], "lost": [[boot, from, to], …]}`. A payload is text, or `{"base64": "…"}`.
//!
//! What is wrong is noted in the draft when it is met, because `serde_json` tells only where.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use super::{BatchError, Draft, Field, Lost, RecordError, Slot};

pub(super) fn read(bytes: &[u8], draft: &mut Draft<'_>) -> Result<(), BatchError> {
    let mut reading = Reading { input: bytes, draft, place: Place::Outside, fault: None };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = json.deserialize_any(Parts(&mut reading));
    let (place, fault) = (reading.place, reading.fault);
    let error = match read {
        Ok(()) if json.end().is_ok() => {
            return if place == Place::Behind { Ok(()) } else { Err(BatchError::NotABatch) };
        }
        Ok(()) => RecordError::Trailing,
        Err(error) => match (fault, error.classify()) {
            (Some(fault), _) => fault,
            (None, Category::Eof) => RecordError::CutShort,
            (None, _) => RecordError::Malformed,
        },
    };
    match place {
        Place::Outside => Err(BatchError::NotABatch),
        Place::InLost => Err(BatchError::Lost),
        Place::Within | Place::Behind => {
            draft.stopped = Some(error);
            Ok(())
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    InLost,
    Within,
    Behind,
}

struct Reading<'r, 'd, 'b> {
    input: &'r [u8],
    draft: &'d mut Draft<'b>,
    place: Place,
    fault: Option<RecordError>,
}

impl Reading<'_, '_, '_> {
    /// A fault of ours, noted; the error only ends the reading.
    fn stop<E: serde::de::Error>(&mut self, fault: RecordError) -> E {
        self.fault = Some(fault);
        E::custom("")
    }

    /// A value that isn't what the field has. Where the text itself is at fault, `read` is told so instead.
    fn wrong<E: serde::de::Error>(&mut self, field: Field, error: E) -> E {
        self.wrong_if_data(field, &error);
        error
    }

    fn wrong_if_data<E: fmt::Display>(&mut self, field: Field, error: &E) {
        // The category isn't to be had before the end. A type or number that doesn't fit has one of these beginnings.
        let text = error.to_string();
        if ["invalid type", "invalid value", "number out of range", "no text"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            self.fault = Some(RecordError::Wrong(field));
        }
    }

    /// Where a text lies: in the input if it has no escapes, else added behind it.
    fn place_text(&mut self, text: &Text<'_>) -> (u32, u32) {
        match text {
            Text::Plain(text) => {
                let start = (text.as_ptr() as usize).wrapping_sub(self.input.as_ptr() as usize);
                (start as u32, text.len() as u32)
            }
            Text::Escaped(text) => self.add(text.as_bytes()),
        }
    }

    fn add(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.draft.base + self.draft.added.len();
        self.draft.added.extend_from_slice(bytes);
        (start as u32, bytes.len() as u32)
    }
}

/// The whole: a list, or a map with a list.
struct Parts<'m, 'r, 'd, 'b>(&'m mut Reading<'r, 'd, 'b>);

impl<'de> Visitor<'de> for Parts<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        Records(self.0).visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let reading = self.0;
        while let Some(name) = map.next_key::<Text<'_>>()? {
            match name.as_str() {
                "records" if reading.place == Place::Behind => return Err(reading.stop(RecordError::Malformed)),
                "records" => map.next_value_seed(Records(reading))?,
                "lost" => {
                    let place = std::mem::replace(&mut reading.place, Place::InLost);
                    map.next_value_seed(LostRanges(reading))?;
                    reading.place = place;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Records<'m, 'r, 'd, 'b>(&'m mut Reading<'r, 'd, 'b>);

impl<'de> DeserializeSeed<'de> for Records<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.0.place = Place::Within;
        while list.next_element_seed(OneRecord(&mut *self.0))?.is_some() {}
        self.0.place = Place::Behind;
        Ok(())
    }
}

struct OneRecord<'m, 'r, 'd, 'b>(&'m mut Reading<'r, 'd, 'b>);

impl<'de> DeserializeSeed<'de> for OneRecord<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneRecord<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let reading = self.0;
        let mut slot = Slot { boot: 0, seq: 0, ts_ms: 0, topic: (0, 0), payload: (0, 0) };
        let mut seen = 0;
        while let Some(name) = map.next_key::<Text<'_>>()? {
            let Some(field) = Field::named(name.as_str()) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen & field.bit() != 0 {
                return Err(reading.stop(RecordError::Twice(field)));
            }
            seen |= field.bit();
            match field {
                Field::Boot => slot.boot = map.next_value().map_err(|error| reading.wrong(field, error))?,
                Field::Seq => slot.seq = map.next_value().map_err(|error| reading.wrong(field, error))?,
                Field::Ts => slot.ts_ms = map.next_value().map_err(|error| reading.wrong(field, error))?,
                Field::Topic => {
                    let text: Text<'_> = map.next_value().map_err(|error| reading.wrong(field, error))?;
                    slot.topic = reading.place_text(&text);
                }
                Field::Payload => match map.next_value().map_err(|error| reading.wrong(field, error))? {
                    Payload::Text(text) => slot.payload = reading.place_text(&text),
                    Payload::Bytes(bytes) => slot.payload = reading.add(&bytes),
                },
            }
        }
        if let Some(field) = Field::missing(seen) {
            return Err(reading.stop(RecordError::Missing(field)));
        }
        reading.draft.push(slot).map_err(|fault| reading.stop(fault))
    }
}

struct LostRanges<'m, 'r, 'd, 'b>(&'m mut Reading<'r, 'd, 'b>);

impl<'de> DeserializeSeed<'de> for LostRanges<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for LostRanges<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ranges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some([boot, from, to]) = list.next_element::<[u64; 3]>()? {
            self.0.draft.push_lost(Lost { boot, from, to }).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// A text, borrowed if it can be.
enum Text<'a> {
    Plain(&'a str),
    Escaped(String),
}

impl Text<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Escaped(text) => text,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::Plain(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text::Escaped(text.to_owned()))
            }
        }
        input.deserialize_str(TextVisitor)
    }
}

enum Payload<'a> {
    Text(Text<'a>),
    Bytes(Vec<u8>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct PayloadVisitor;
        impl<'de> Visitor<'de> for PayloadVisitor {
            type Value = Payload<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or {\"base64\": text}")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Payload<'de>, E> {
                Ok(Payload::Text(Text::Plain(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Payload<'de>, E> {
                Ok(Payload::Text(Text::Escaped(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Payload<'de>, A::Error> {
                let bad = || A::Error::custom("invalid value: not {\"base64\": text}");
                let name = map.next_key::<Text<'_>>()?.ok_or_else(bad)?;
                if name.as_str() != "base64" {
                    return Err(bad());
                }
                let text: Text<'_> = map.next_value()?;
                let bytes = STANDARD.decode(text.as_str()).map_err(|_| bad())?;
                if map.next_key::<IgnoredAny>()?.is_some() {
                    return Err(bad());
                }
                Ok(Payload::Bytes(bytes))
            }
        }
        input.deserialize_any(PayloadVisitor)
    }
}
