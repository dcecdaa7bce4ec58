//! Texts from outside that are kept, within limits.

/// The start of a text: so many bytes at the most, and whole characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_as_long_as_it_may_be(text in ".{0,20}", most in 0..40_usize) {
            let cut = super::cut(&text, most);
            prop_assert!(text.starts_with(cut) && cut.len() <= most);
            prop_assert!(cut == text || cut.len() + 4 > most);
        }
    }
}
