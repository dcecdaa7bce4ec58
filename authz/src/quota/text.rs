//! Rates as people write them: `100/1s`, `20/m`, `10/s burst 50`, `unlimited`.

use turnpike_core::meter::Rate;

/// Why a text isn't a rate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TextError {
    /// Not of the form `{count}/{time}`.
    #[error("{0:?} is not a rate: write a count and a time, as in \"100/1s\"; times have ms, s, m, h or d")]
    Form(String),
    /// Numbers that no limit can have.
    #[error(
        "{0:?} is out of range: counts and times begin at 1, windows at 100 ms, and none is longer than a day a unit"
    )]
    Range(String),
    /// More windows than there may be.
    #[error("there may be {0} windows at once")]
    TooMany(usize),
}

/// A rate: `{count}/{time}`, and how much at once after ` burst ` (as much as in the time, unless said); or `unlimited`.
///
/// # Errors
/// [`TextError`]
pub fn parse_rate(text: &str) -> Result<Rate, TextError> {
    let text = text.trim();
    if text == "unlimited" {
        return Ok(Rate::UNLIMITED);
    }
    let form = || TextError::Form(text.to_owned());
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate, Some(whole(burst.trim()).ok_or_else(form)?)),
        None => (text, None),
    };
    let (count, period_ms) = count_and_period(rate).ok_or_else(form)?;
    let range = || TextError::Range(text.to_owned());
    let period_ns = period_ms.checked_mul(1_000_000).ok_or_else(range)?;
    Rate::new(count, period_ns, burst.unwrap_or(count)).ok_or_else(range)
}

/// `{count}/{time}`: the count, and the time in milliseconds.
pub(crate) fn count_and_period(text: &str) -> Option<(u64, u64)> {
    let (count, time) = text.trim().split_once('/')?;
    let time = time.trim();
    let digits = time.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = time.split_at(digits);
    let number = if number.is_empty() { 1 } else { whole(number)? };
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some((whole(count.trim_end())?, number.checked_mul(unit_ms)?))
}

/// Digits and nothing else: `parse` would take a sign.
fn whole(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn rates_are_read() {
        assert_eq!(parse_rate("100/1s"), Ok(Rate::new(100, S, 100).expect("a rate")));
        assert_eq!(parse_rate(" 20 / m "), Ok(Rate::new(20, 60 * S, 20).expect("a rate")));
        assert_eq!(parse_rate("10/500 ms burst 50"), Ok(Rate::new(10, S / 2, 50).expect("a rate")));
        assert_eq!(parse_rate("3/2h"), Ok(Rate::new(3, 7200 * S, 3).expect("a rate")));
        assert_eq!(parse_rate("1/d"), Ok(Rate::new(1, 86_400 * S, 1).expect("a rate")));
        assert_eq!(parse_rate("unlimited"), Ok(Rate::UNLIMITED));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_its_words() {
        for text in
            ["", "100", "100/", "/1s", "100/1", "100/1w", "+1/1s", "1/-1s", "1/1s burst", "1/1s burst x", "1,5/s"]
        {
            assert_eq!(parse_rate(text), Err(TextError::Form(text.to_owned())), "{text:?}");
        }
        for text in ["0/1s", "1/0s", "1/1s burst 0", "1/9d", "1/99999999999999s"] {
            assert_eq!(parse_rate(text), Err(TextError::Range(text.to_owned())), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_rate(&text);
        }
    }
}
