//! Cutting short texts, which log-ins consist of.

/// What stands before and behind the first of an ASCII character, as `split_once` has it: for texts of a few bytes, on which a search
/// that is made for long ones spends most of its time preparing.
pub(crate) fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    debug_assert!(at.is_ascii());
    let place = text.bytes().position(|byte| byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_split_once(text in "[ab/;é]{0,12}", at in prop::sample::select(vec!['/', ';', 'a'])) {
            prop_assert_eq!(cut(&text, at as u8), text.split_once(at));
        }
    }
}
