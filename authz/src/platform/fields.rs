//! The fields of a request, before anything is made of them: what is signed.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;

use super::{Cause, Method};

/// Fields of a request; none has so many.
const FIELDS_MAX: usize = 16;
/// Bytes of a field's name.
const NAME_BYTES_MAX: usize = 32;
/// Bytes of a text: base64 of a payload and its IV.
const TEXT_BYTES_MAX: usize = 44 << 10;
/// In front of everything that is signed: names the format, and keeps it apart from whatever else is signed with the same key.
pub(super) const FORMAT: &str = "turnpike-platform-1";
/// The field that isn't signed.
pub(super) const SIGN: &str = "sign";

/// A field's value. There are no others: no fractions, no negative numbers, nothing nested.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(u64),
    /// A text without control characters.
    Text(Box<str>),
}

/// Hidden: it may be a token.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number(_) => "Number(…)",
            Self::Text(_) => "Text(…)",
        })
    }
}

/// A flat JSON object, each name once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fields(BTreeMap<Box<str>, Value>);

impl Fields {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    ///
    /// # Errors
    /// [`Cause::Malformed`]: it is there already, there are too many, its name isn't of `a–z` and `_`, or its text is too long or has a control
    /// character.
    pub fn put(&mut self, name: &str, value: Value) -> Result<(), Cause> {
        let named = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let fits = match &value {
            Value::Number(_) => true,
            Value::Text(text) => text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control),
        };
        if !named || !fits || self.0.len() >= FIELDS_MAX || self.0.contains_key(name) {
            return Err(Cause::Malformed);
        }
        self.0.insert(name.into(), value);
        Ok(())
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is signed of a request: lines, each with its line feed. First the format, the method and the path; then `name=value` for each field but
    /// `sign`, in the order of the names' bytes. Two different requests never have the same: a name has no `=`, a value no line feed.
    #[must_use]
    pub fn canonical(&self, method: Method, path: &str) -> String {
        let mut text = format!("{FORMAT}\n{}\n{path}\n", method.as_str());
        for (name, value) in self.0.iter().filter(|(name, _)| &***name != SIGN) {
            // A string takes everything.
            let _ = match value {
                Value::Number(number) => writeln!(text, "{name}={number}"),
                Value::Text(value) => writeln!(text, "{name}={value}"),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn fields_are_signed_in_the_order_of_their_names() {
        let mut fields = Fields::new();
        for (name, value) in [("user", text("u")), ("sign", text("s")), ("a_b", Value::Number(7)), ("a", text(""))] {
            assert_eq!(fields.put(name, value), Ok(()));
        }
        assert_eq!(fields.canonical(Method::Post, "/x"), "turnpike-platform-1\nPOST\n/x\na=\na_b=7\nuser=u\n");
        assert_eq!(fields.canonical(Method::Put, "/x"), "turnpike-platform-1\nPUT\n/x\na=\na_b=7\nuser=u\n");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_field() {
        let mut fields = Fields::new();
        assert_eq!(fields.put("a", Value::Number(1)), Ok(()));
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let bad = [
            ("a", text("again")),
            ("", text("")),
            ("A", text("")),
            ("a=b", text("")),
            ("a\n", text("")),
            ("b", text("x\ny=z")),
            ("b", text("\u{7f}")),
            ("b", text("\u{85}")),
            ("b", text(&long)),
        ];
        for (name, value) in bad {
            assert_eq!(fields.put(name, value), Err(Cause::Malformed), "{name:?}");
        }
        for n in 1..FIELDS_MAX {
            let name = "b".repeat(n);
            assert_eq!(fields.put(&name, Value::Number(0)), Ok(()));
        }
        assert_eq!(fields.put("c", Value::Number(0)), Err(Cause::Malformed));
    }

    proptest! {
        /// No two requests are signed alike.
        #[test]
        fn the_canonical_text_tells_requests_apart(
            one in proptest::collection::btree_map("[a-c_]{1,3}", "[ -~]{0,6}", 0..4),
            two in proptest::collection::btree_map("[a-c_]{1,3}", "[ -~]{0,6}", 0..4),
        ) {
            let fields = |from: &BTreeMap<String, String>| {
                let mut fields = Fields::new();
                from.iter().for_each(|(name, value)| fields.put(name, text(value)).expect("a field"));
                fields
            };
            let (first, second) = (fields(&one), fields(&two));
            prop_assert_eq!(one == two, first.canonical(Method::Post, "/p") == second.canonical(Method::Post, "/p"));
        }

        #[test]
        fn no_field_panics(name in "\\PC{0,40}", value in ".{0,40}") {
            let _ = Fields::new().put(&name, text(&value));
        }
    }
}
