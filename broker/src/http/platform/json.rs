//! From bytes to fields: a JSON object that is flat, with whole numbers and texts alone, each name once. Anything else is nothing, and isn't
//! repeated to whoever sent it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use turnpike_authz::platform::{Cause, Fields, Value};

/// Reads a body.
pub(super) fn fields(bytes: &[u8]) -> Result<Fields, Cause> {
    serde_json::from_slice::<Object>(bytes).map(|object| object.0).map_err(|_| Cause::Malformed)
}

struct Object(Fields);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(Self)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a flat object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::new();
        while let Some((name, Scalar(value))) = map.next_entry::<String, Scalar>()? {
            fields.put(&name, value).map_err(|_| A::Error::custom("not a field"))?;
        }
        Ok(fields)
    }
}

struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor).map(Self)
    }
}

struct ScalarVisitor;

/// What isn't visited here is an error: negative numbers, fractions, true, false, null, lists and objects.
impl Visitor<'_> for ScalarVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a text")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use turnpike_authz::platform::Method;

    use super::*;

    #[test]
    fn an_object_of_numbers_and_texts_is_fields() {
        let read = fields(br#" {"b": 18446744073709551615, "a": "x\u0041"} "#).expect("fields");
        assert_eq!(read.canonical(Method::Post, "/"), "turnpike-platform-1\nPOST\n/\na=xA\nb=18446744073709551615\n");
        assert!(fields(b"{}").is_ok());
    }

    #[test]
    fn anything_else_is_nothing() {
        for bad in [
            "",
            "[]",
            "1",
            "null",
            "\"x\"",
            "{",
            "{}{}",
            "{} x",
            r#"{"a": 1, "a": 2}"#,
            r#"{"a": 1, "\u0061": 1}"#,
            r#"{"a": -1}"#,
            r#"{"a": 1.0}"#,
            r#"{"a": 1e3}"#,
            r#"{"a": 18446744073709551616}"#,
            r#"{"a": true}"#,
            r#"{"a": null}"#,
            r#"{"a": []}"#,
            r#"{"a": {}}"#,
            r#"{"A": 1}"#,
            r#"{"a": "\n"}"#,
            r#"{"a": 1,}"#,
            r#"{"$serde_json::private::Number": "1"}"#,
            "\u{feff}{}",
        ] {
            assert_eq!(fields(bad.as_bytes()).err(), Some(Cause::Malformed), "{bad}");
        }
        assert!(fields(b"{\"a\": \"\xff\"}").is_err());
        // As deep as it likes: nothing nested is looked into.
        let deep = format!("{{\"a\": {}", "[".repeat(30_000));
        assert!(fields(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&bytes);
        }

        #[test]
        fn nothing_like_json_panics(text in "[{}\\[\\]\",:a-c0-9.\\\\ -]{0,60}") {
            let _ = fields(text.as_bytes());
        }
    }
}
