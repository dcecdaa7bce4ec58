//! Log-in of users and services.
//!
//! | who | user name | password |
//! |---|---|---|
//! | user | `{app}/{user}` | a token (`tokens`) whose `sub` is the user's id |
//! | user | `{app}/{user}` | a session code ([`super::codes`]), `c1;…` |
//! | service | `$svc/{access key}` | `v1;{timestamp_ms};{nonce};{hex}`, as devices sign ([`crate::profile`]), with the product `$svc` and the access key for the device |
//! | service | `$svc/{access key}` | the secret itself, through TLS only |
//!
//! Devices never have such credentials: no product is called `$svc`, and a device's password is no token and doesn't begin with
//! `c1;`. So who claims to be what is known from the two texts alone.
//!
//! Whoever is unknown is put to the same proof with a decoy. What is wrong besides the proof (a frozen user, a disabled app or service, a
//! network that isn't a service's) is said to those alone who gave it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use subtle::ConstantTimeEq;
use turnpike_core::clock::Now;
use turnpike_core::gate::{Admission, Attempt, CameBy, Principal, ServiceIdentity, UserIdentity};
use turnpike_core::ids::ClientId;

use super::People;
use super::apps::{App, KeySource};
use super::codes::{CodeHash, PREFIX};
use super::ids::UserKey;
use super::log_ins::{LogIn, Proof};
use super::record::{app_owner, service_owner};
use super::tokens::{self, Expected, TokenFault};
use crate::cut::cut;
use crate::nonce::WINDOW_MS;
use crate::profile::SignMethod;
use crate::refusal::Refusal;
use crate::secret::{MasterKey, Sealed, Secret};
use crate::signed::{is_signature_hex, native_text};

/// What a service's user name begins with.
pub const SERVICE_PREFIX: &str = "$svc/";

/// What stands for the product in what a service signs.
pub const SERVICE_PRODUCT: &str = "$svc";

/// Who a CONNECT says it is, if it isn't a device's; not yet believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim<'a> {
    /// A user with a token.
    Token {
        /// App and user.
        user: (&'a str, &'a str),
        /// The token.
        token: &'a str,
    },
    /// A user with a session code.
    Code {
        /// App and user.
        user: (&'a str, &'a str),
        /// The code.
        code: &'a str,
    },
    /// A service.
    Service {
        /// Its access key.
        key: &'a str,
        /// Signed, or the secret.
        password: &'a [u8],
    },
}

impl<'a> Claim<'a> {
    /// Tells users' and services' credentials from devices', which give none.
    #[must_use]
    pub fn parse(user_name: &'a str, password: &'a [u8]) -> Option<Self> {
        if let Some(key) = user_name.strip_prefix(SERVICE_PREFIX) {
            return Some(Self::Service { key, password });
        }
        let user = cut(user_name, b'/')?;
        let password = std::str::from_utf8(password).ok()?;
        if password.starts_with(PREFIX) {
            Some(Self::Code { user, code: password })
        } else if tokens::looks_like_one(password) {
            Some(Self::Token { user, token: password })
        } else {
            None
        }
    }
}

/// See [`Tools::take_nonce`].
pub type TakeNonce<'a> = &'a dyn Fn(&str, &str, u64) -> Result<(), Refusal>;

/// What a log-in takes besides what is known of people.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// Opens secrets.
    pub key: &'a MasterKey,
    /// What the unknown are put to the proof with.
    pub decoy: &'a Secret,
    /// Uses a nonce of an access key, which nobody may again up to a time, milliseconds since 1970 UTC.
    pub take_nonce: TakeNonce<'a>,
}

impl People {
    /// Judges who a CONNECT says it is.
    ///
    /// # Errors
    /// Why it isn't let in.
    pub fn log_in(
        &self,
        claim: &Claim<'_>,
        attempt: &Attempt<'_>,
        tools: &Tools<'_>,
        now: Now,
    ) -> Result<Admission, Refusal> {
        match *claim {
            Claim::Token { user: (app, user), token } => {
                let admission = self.log_in_by_token(app, user, token, tools, now)?;
                self.note(app, user, Proof::Token, attempt, now);
                Ok(admission)
            }
            Claim::Code { user: (app, user), code } => {
                let admission = self.log_in_by_code(app, user, code, now)?;
                self.note(app, user, Proof::Code, attempt, now);
                Ok(admission)
            }
            Claim::Service { key, password } => self.log_in_service(key, password, attempt, tools, now),
        }
    }

    fn note(&self, app: &str, user: &str, proof: Proof, attempt: &Attempt<'_>, now: Now) {
        if let Ok(key) = UserKey::parse(app, user) {
            let at_s = u32::try_from(now.unix_s()).unwrap_or(u32::MAX);
            let address = attempt.peer.ip().to_canonical();
            self.log_ins.note(&key, &LogIn { at_s, address, client: ClientId::new(attempt.client_id), proof });
        }
    }

    fn log_in_by_token(
        &self,
        id: &str,
        user: &str,
        token: &str,
        tools: &Tools<'_>,
        now: Now,
    ) -> Result<Admission, Refusal> {
        let Some(app) = self.app(id) else {
            let expected = Expected {
                secret: Some(tools.decoy),
                keys: None,
                issuer: None,
                audience: id,
                leeway_s: 0,
                now_s: now.unix_s(),
            };
            let _ = std::hint::black_box(tokens::verify(token, &expected));
            return Err(Refusal::UnknownApp);
        };
        let keys = self.apps.keys(id);
        let secret = match app.tokens.hs256 {
            true => Some(tools.key.open(&app_owner(id), &app.secret).map_err(|_| Refusal::SecretSealed)?),
            false => None,
        };
        let expected = Expected {
            secret: secret.as_ref(),
            keys: keys.as_deref(),
            issuer: app.tokens.issuer.as_deref(),
            audience: app.tokens.audience.as_deref().unwrap_or(id),
            leeway_s: u64::from(app.tokens.leeway_s),
            now_s: now.unix_s(),
        };
        let token = tokens::verify(token, &expected).map_err(|fault| match (fault, &app.tokens.keys) {
            // Its issuer may have a new key. That isn't held against whoever shows it first, as long as nobody knows.
            (TokenFault::UnknownKey, source @ (KeySource::Url(_) | KeySource::File(_)))
                if self.key_desk.ask(source, now.mono_ms) =>
            {
                Refusal::KeysAwaited
            }
            _ => refusal(fault),
        })?;
        // It is good for its subject only.
        if token.subject != user {
            return Err(Refusal::ForeignToken);
        }
        let by = CameBy::Key(token.key.unwrap_or_else(|| secret_mark(&app.secret)));
        self.admit_user(&app, id, user, by, token.until_s)
    }

    fn log_in_by_code(&self, app: &str, user: &str, code: &str, now: Now) -> Result<Admission, Refusal> {
        let hash = CodeHash::of(code);
        let found = self.codes.find(hash).ok_or(Refusal::UnknownCode)?;
        if found.user.app.as_str() != app || found.user.user.as_str() != user || found.expires_at_s <= now.unix_s() {
            return Err(Refusal::UnknownCode);
        }
        let record = self.app(app).ok_or(Refusal::UnknownApp)?;
        self.admit_user(&record, app, user, CameBy::Code(hash.number()), found.expires_at_s)
    }

    fn admit_user(&self, app: &App, id: &str, user: &str, by: CameBy, until_s: u64) -> Result<Admission, Refusal> {
        let found = self.bindings.user(id, user).ok_or(Refusal::UnknownUser)?;
        if !app.enabled || found.frozen {
            return Err(Refusal::Disabled);
        }
        let principal = Principal::User(Arc::new(UserIdentity { app: id.into(), user: user.into(), by: Some(by) }));
        Ok(Admission { until_ms: Some(until_s.saturating_mul(1000)), ..Admission::new(principal) })
    }

    fn log_in_service(
        &self,
        key: &str,
        password: &[u8],
        attempt: &Attempt<'_>,
        tools: &Tools<'_>,
        now: Now,
    ) -> Result<Admission, Refusal> {
        let service = self.service(key);
        let secret = match &service {
            Some(service) => tools.key.open(&service_owner(key), &service.secret).map_err(|_| Refusal::SecretSealed)?,
            None => tools.decoy.clone(),
        };
        let proof = match Signed::parse(password) {
            Some(Signed { timestamp_ms, nonce, signature }) => {
                if timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS {
                    return Err(Refusal::StaleTimestamp);
                }
                let text = native_text(attempt.client_id, SERVICE_PRODUCT, key, timestamp_ms, nonce);
                let until_ms = timestamp_ms.saturating_add(WINDOW_MS);
                is_signature_hex(SignMethod::Sha256, secret.expose(), &text, signature)
                    .then_some(Some((nonce, until_ms)))
            }
            None if !attempt.tls => return Err(Refusal::PlainSecret),
            None => bool::from(secret.expose().ct_eq(password)).then_some(None),
        };
        let service = service.ok_or(Refusal::UnknownService)?;
        // After the proof: a stranger must not use up nonces.
        if let Some((nonce, until_ms)) = proof.ok_or(Refusal::WrongSignature)? {
            (tools.take_nonce)(key, nonce, until_ms)?;
        }
        if !service.enabled {
            return Err(Refusal::Disabled);
        }
        if !service.may_come_from(attempt.peer.ip()) {
            return Err(Refusal::WrongNetwork);
        }
        Ok(Admission::new(Principal::Service(Arc::new(ServiceIdentity { key: key.into() }))))
    }
}

/// Tells an app's secret from the one before it.
pub(super) fn secret_mark(secret: &Sealed) -> u64 {
    let mut hasher = DefaultHasher::new();
    secret.as_bytes().hash(&mut hasher);
    hasher.finish()
}

/// A service's password that is signed, taken apart.
#[derive(Clone, Copy)]
struct Signed<'a> {
    timestamp_ms: u64,
    /// 1 to 64 visible ASCII characters.
    nonce: &'a str,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    fn parse(password: &'a [u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(password).ok()?.strip_prefix("v1;")?.split(';');
        let (timestamp, nonce, signature) = (fields.next()?, fields.next()?, fields.next()?);
        let nonce_fits = (1..=64).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        // `parse` would take a sign; the signed text has none.
        let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let fits = fields.next().is_none() && nonce_fits && digits;
        Some(Self { timestamp_ms: timestamp.parse().ok().filter(|_| fits)?, nonce, signature })
    }
}

fn refusal(fault: TokenFault) -> Refusal {
    match fault {
        TokenFault::Malformed => Refusal::Malformed,
        TokenFault::NoKey | TokenFault::UnknownKey => Refusal::UnknownTokenKey,
        TokenFault::Signature => Refusal::WrongSignature,
        TokenFault::Foreign => Refusal::ForeignToken,
        TokenFault::Time => Refusal::TokenExpired,
    }
}

#[cfg(test)]
mod tests;
