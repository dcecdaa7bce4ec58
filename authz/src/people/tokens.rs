//! Tokens of users: JSON Web Tokens (RFC 7519) in the compact form of RFC 7515.
//!
//! Signatures are verified by `ring` and `hmac`; what is done here is parsing, and the choice of the key. In this order: shape,
//! header, key, signature, and only then what the token claims. Refused whatever they say: `none` and any other algorithm than HS256, RS256,
//! ES256, EdDSA; a critical extension (`crit`, none is known here); a key in the header (`jwk`, `jku`, `x5u`, `x5c` are not looked at).
//!
//! A token must say `sub` and `exp`, and `aud`; `nbf` and `iat` are held against the clock where they are there. The clocks may
//! differ by the leeway, both ways.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::jwks::{Algorithm, KeySet};
use crate::profile::SignMethod;
use crate::secret::Secret;
use crate::signed::is_signature;

/// Bytes of a token.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// What is wrong with a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TokenFault {
    /// Not three parts of base64url, of which the first two are JSON; too long; without what it has to say.
    Malformed,
    /// None of those that are taken, or one for which there is no key.
    NoKey,
    /// It names a key that the set doesn't have.
    UnknownKey,
    /// Not signed with that key.
    Signature,
    /// Another issuer's, or for another audience.
    Foreign,
    /// Over, or not yet begun.
    Time,
}

/// What a token is held against.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    /// Of HS256, where that is taken.
    pub(super) secret: Option<&'a Secret>,
    /// Of the others.
    pub(super) keys: Option<&'a KeySet>,
    pub(super) issuer: Option<&'a str>,
    pub(super) audience: &'a str,
    pub(super) leeway_s: u64,
    pub(super) now_s: u64,
}

/// What a token that holds says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) subject: String,
    /// When it ends, the leeway included; seconds since 1970 UTC.
    pub(super) until_s: u64,
    /// [`super::jwks::Key::mark`] of the key that signed it; none if the secret did.
    pub(super) key: Option<u64>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: String,
    aud: Audience,
    exp: Date,
    nbf: Option<Date>,
    iat: Option<Date>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Seconds since 1970 UTC, which may have a fraction (RFC 7519, 2).
#[derive(Deserialize)]
#[serde(untagged)]
enum Date {
    Whole(u64),
    Fraction(f64),
}

impl Date {
    /// What is before 1970 is 1970, and what is beyond all time its end.
    fn seconds(&self) -> u64 {
        match self {
            Self::Whole(seconds) => *seconds,
            Self::Fraction(seconds) => *seconds as u64,
        }
    }
}

/// The parts of what has the shape of a token: what is signed, header, claims, signature.
fn parts(token: &str) -> Option<(&str, &str, &str, &str)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let is_base64url = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (is_base64url(header) && is_base64url(claims)).then_some((signed, header, claims, signature))
}

/// Whether a password is meant to be a token: a JSON object in base64url, and two parts more.
pub(super) fn looks_like_one(password: &str) -> bool {
    // `{"` begins so.
    password.starts_with("ey") && parts(password).is_some()
}

/// Checks a token.
pub(super) fn verify(token: &str, expected: &Expected<'_>) -> Result<Token, TokenFault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenFault::Malformed);
    }
    let (signed, header, claims, signature) = parts(token).ok_or(TokenFault::Malformed)?;
    let header: Header = json(header)?;
    // Whatever it says, `null` too: it must be a list, and none of what may be in it is known here.
    if header.crit {
        return Err(TokenFault::Malformed);
    }
    let algorithm = Algorithm::parse(&header.alg).ok_or(TokenFault::NoKey)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenFault::Malformed)?;
    let mut by = None;
    let holds = match algorithm {
        Algorithm::Hs256 => {
            let secret = expected.secret.ok_or(TokenFault::NoKey)?;
            is_signature(SignMethod::Sha256, secret.expose(), signed, &signature)
        }
        Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => {
            let key = expected.keys.and_then(|keys| keys.find(header.kid.as_deref(), algorithm));
            let missing = if header.kid.is_some() { TokenFault::UnknownKey } else { TokenFault::NoKey };
            let key = key.ok_or(missing)?;
            by = Some(key.mark());
            key.is_signed(signed.as_bytes(), &signature)
        }
    };
    if !holds {
        return Err(TokenFault::Signature);
    }
    check(json(claims)?, expected).map(|token| Token { key: by, ..token })
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenFault::Malformed)
}

fn check(claims: Claims, expected: &Expected<'_>) -> Result<Token, TokenFault> {
    let Claims { iss, sub, aud, exp, nbf, iat } = claims;
    if expected.issuer.is_some_and(|issuer| iss.as_deref() != Some(issuer)) {
        return Err(TokenFault::Foreign);
    }
    let meant = match aud {
        Audience::One(one) => one == expected.audience,
        Audience::Many(many) => many.iter().any(|one| one == expected.audience),
    };
    if !meant {
        return Err(TokenFault::Foreign);
    }
    let until_s = exp.seconds().saturating_add(expected.leeway_s);
    let begun = |date: &Option<Date>| {
        date.as_ref().is_none_or(|date| date.seconds() <= expected.now_s.saturating_add(expected.leeway_s))
    };
    if until_s <= expected.now_s || !begun(&nbf) || !begun(&iat) {
        return Err(TokenFault::Time);
    }
    Ok(Token { subject: sub, until_s, key: None })
}

#[cfg(test)]
mod tests;
