//! Tokens: made by a hash of the platform's number, the time and random bytes (4.1.2.1 b, 4.1.2.2 b); kept as hashes.
//!
//! A token's characters are drawn one by one, each as likely as the other, and the whole text again until every class is in it. So it is one of all
//! texts that have all classes, each as likely as the other: 48 characters of 66 are 290 bits, and the classes cost less than one.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::PlatId;

/// Letters, digits, and the special characters that need no escape in a URL, a header, or JSON.
const ALPHABET: &[u8; 66] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
/// Of it, letters and digits.
const LETTERS_AND_DIGITS: usize = 62;
/// Characters that are drawn.
const DRAWN: usize = 48;
/// Bytes of a token's text: the family in hexadecimal digits, and what is drawn.
pub(super) const TOKEN_BYTES: usize = 16 + DRAWN;

/// Random bytes without end, of 32 that are: HMAC-SHA256 under them, over what the token is for, and a counter.
pub(super) struct Stream {
    mac: Hmac<Sha256>,
    counter: u32,
    block: [u8; 32],
    used: usize,
}

impl Stream {
    pub(super) fn new(random: &[u8; 32], purpose: &str, whose: &str, unix_ms: u64) -> Self {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(random).expect("HMAC takes a key of any length");
        for part in [purpose, whose] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(&unix_ms.to_be_bytes());
        Self { mac, counter: 0, block: [0; 32], used: 32 }
    }

    pub(super) fn byte(&mut self) -> u8 {
        if self.used == self.block.len() {
            self.block = self.mac.clone().chain_update(self.counter.to_be_bytes()).finalize().into_bytes().into();
            self.counter = self.counter.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block.get(self.used - 1).copied().unwrap_or_default()
    }

    /// One of the first `many` characters of the alphabet.
    fn character(&mut self, many: usize) -> char {
        let whole = 256 - 256 % many;
        loop {
            let byte = usize::from(self.byte());
            // What is above would make the first characters likelier.
            if byte < whole {
                return char::from(ALPHABET.get(byte % many).copied().unwrap_or_default());
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.block.zeroize();
    }
}

/// A token's text. Never printed; wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token(String);

impl Token {
    /// A platform's AuthToken: 48 letters and digits, of both cases and both.
    #[must_use]
    pub(super) fn auth(random: &[u8; 32], platform: PlatId, unix_ms: u64) -> Self {
        let mut stream = Stream::new(random, "AuthToken", platform.as_str(), unix_ms);
        Self(drawn(&mut stream, LETTERS_AND_DIGITS))
    }

    /// An AccessToken or a RefreshToken of a family: 64 letters, digits and special characters.
    #[must_use]
    pub(super) fn of_family(
        random: &[u8; 32],
        purpose: &str,
        platform: PlatId,
        family: FamilyId,
        unix_ms: u64,
    ) -> Self {
        let mut stream = Stream::new(random, purpose, platform.as_str(), unix_ms);
        Self(format!("{family}{}", drawn(&mut stream, ALPHABET.len())))
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn drawn(stream: &mut Stream, many: usize) -> String {
    let classes: [fn(char) -> bool; 4] = [
        |c| c.is_ascii_uppercase(),
        |c| c.is_ascii_lowercase(),
        |c| c.is_ascii_digit(),
        |c| !c.is_ascii_alphanumeric(),
    ];
    let wanted = if many > LETTERS_AND_DIGITS { classes.len() } else { classes.len() - 1 };
    loop {
        let mut text: String = (0..DRAWN).map(|_| stream.character(many)).collect();
        if classes.iter().take(wanted).all(|class| text.contains(class)) {
            return text;
        }
        text.zeroize();
    }
}

/// What is kept of a token. Compared in a time that doesn't say where they differ.
#[derive(Clone, Copy)]
pub(super) struct TokenHash(pub(super) [u8; 32]);

impl TokenHash {
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// Names the tokens that one log-in has led to. It stands in front of each of them: so it is known whose a used RefreshToken was, and no
/// list of used ones is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FamilyId(pub(super) [u8; 8]);

impl FamilyId {
    /// Of the text of a token; none if that isn't one.
    pub(super) fn of(token: &str) -> Option<Self> {
        let (family, drawn) = token.split_at_checked(16)?;
        let is_token = drawn.len() == DRAWN && drawn.bytes().all(|byte| ALPHABET.contains(&byte));
        is_token.then(|| Self::parse(family)).flatten()
    }

    /// From 16 hexadecimal digits in lower case.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
        (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }
}

impl fmt::Display for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What one log-in has led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Family {
    pub(super) id: FamilyId,
    /// The one RefreshToken that is good.
    pub(super) refresh: TokenHash,
    /// Until when, milliseconds since 1970 UTC.
    pub(super) until_ms: u64,
    /// The one AccessToken that is good; none after a restart.
    pub(super) access: Option<Access>,
}

/// An AccessToken that is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Access {
    pub(super) hash: TokenHash,
    /// Until when, milliseconds of the clock that never goes back.
    pub(super) until_mono_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(text: &str) -> [usize; 4] {
        let count = |class: fn(&char) -> bool| text.chars().filter(class).count();
        [
            count(char::is_ascii_uppercase),
            count(char::is_ascii_lowercase),
            count(char::is_ascii_digit),
            count(|c| !c.is_ascii_alphanumeric()),
        ]
    }

    #[test]
    fn tokens_are_long_and_of_all_classes_whatever_the_random_bytes() {
        let platform = PlatId::new(PlatId::LEAST).expect("a number");
        for n in 0..=255_u8 {
            let random = [n; 32];
            let auth = Token::auth(&random, platform, 7);
            let [upper, lower, digits, special] = classes(auth.expose());
            assert!(auth.expose().len() == 48 && upper > 0 && lower > 0 && digits > 0 && special == 0);
            let family = FamilyId([n; 8]);
            let access = Token::of_family(&random, "AccessToken", platform, family, 7);
            let refresh = Token::of_family(&random, "RefreshToken", platform, family, 7);
            assert_ne!(access.expose(), refresh.expose());
            for token in [access, refresh] {
                let drawn = &token.expose()[16..];
                assert!(token.expose().len() == TOKEN_BYTES && classes(drawn).iter().all(|count| *count > 0));
                assert_eq!(FamilyId::of(token.expose()), Some(family));
            }
        }
    }

    #[test]
    fn a_token_depends_on_platform_time_and_random_bytes() {
        let platform = |n| PlatId::new(PlatId::LEAST + n).expect("a number");
        let text = |random, n, at| Token::auth(&[random; 32], platform(n), at).expose().to_owned();
        let first = text(1, 1, 1);
        assert_eq!(text(1, 1, 1), first);
        for other in [text(2, 1, 1), text(1, 2, 1), text(1, 1, 2)] {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn characters_are_drawn_without_bias() {
        let mut stream = Stream::new(&[3; 32], "test", "", 0);
        for many in [LETTERS_AND_DIGITS, ALPHABET.len()] {
            let mut counts = [0_u32; 128];
            let each = 2_000;
            for _ in 0..each * many {
                counts[stream.character(many) as usize] += 1;
            }
            let seen: Vec<u32> = counts.into_iter().filter(|count| *count > 0).collect();
            assert_eq!(seen.len(), many);
            // Chi-square with 61 or 65 degrees of freedom: beyond 140 is rarer than one in a million. A modulo would give above 8,000.
            let chi: f64 = seen.iter().map(|count| (f64::from(*count) - 2_000.0).powi(2) / 2_000.0).sum();
            assert!(chi < 140.0, "{chi}");
        }
    }

    #[test]
    fn what_is_no_token_names_no_family() {
        let good = format!("{}{}", "0123456789abcdef", "x".repeat(DRAWN));
        assert!(FamilyId::of(&good).is_some());
        let capital = good.replace("abc", "ABC");
        let wide = format!("ä{}", &good[2..]);
        for bad in ["", &good[1..], &format!("{good}x"), &capital, &wide, &good.replacen('x', "/", 1)] {
            assert_eq!(FamilyId::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::auth(&[1; 32], PlatId::new(PlatId::LEAST).expect("a number"), 0);
        assert!(!format!("{token:?}").contains(&token.expose()[..8]));
    }
}
