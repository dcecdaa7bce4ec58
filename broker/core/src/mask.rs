//! Identifiers as logs show them: enough to recognize one that is known, too little to learn one that isn't.
//!
//! Of a text, a quarter at each end is shown, four characters at the most, and its length: `serial-0001` is `se…01(11)`. So at least half
//! of an identifier stays hidden, and one of three characters is hidden whole. Control characters aren't passed on: a client id with a
//! line feed in it must not write a line of its own into a log.

use std::fmt;

/// Most characters shown at each end.
const SHOWN_MAX: usize = 4;

/// A name of a device, a client or a person. It may stand in an audit, and in a log it stands masked. A secret is none.
pub trait Identifier {
    /// The text.
    fn identifier(&self) -> &str;
}

/// An identifier as a log may show it: `tracing::info!(client = %Masked(&id), …)`.
#[derive(Clone, Copy)]
pub struct Masked<'a, T: ?Sized>(pub &'a T);

impl<T: Identifier + ?Sized> fmt::Display for Masked<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_masked(self.0.identifier(), f)
    }
}

impl<T: Identifier + ?Sized> fmt::Debug for Masked<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_masked(self.0.identifier(), f)
    }
}

/// Writes a text masked: for the `Debug` of types that hold identifiers.
///
/// # Errors
/// The formatter's.
pub fn fmt_masked(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let characters = text.chars().count();
    let shown = (characters / 4).min(SHOWN_MAX);
    let harmless = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let head: String = text.chars().take(shown).map(harmless).collect();
    let tail: String = text.chars().skip(characters - shown).map(harmless).collect();
    write!(f, "{head}…{tail}({characters})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    #[test]
    fn at_least_half_of_an_identifier_is_hidden() {
        let shown = |text: &str| Masked(&ClientId::new(text)).to_string();
        assert_eq!(shown(""), "…(0)");
        assert_eq!(shown("abc"), "…(3)");
        assert_eq!(shown("abcd"), "a…d(4)");
        assert_eq!(shown("serial-0001"), "se…01(11)");
        assert_eq!(shown("a-very-long-client-identifier"), "a-ve…fier(29)");
        assert_eq!(shown("äöüßäöüß"), "äö…üß(8)");
    }

    #[test]
    fn a_line_feed_makes_no_line() {
        let shown = Masked(&ClientId::new("\n\r\u{1b}[31mabcdefgh\n")).to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}
