//! Who asks, and whether the request is theirs, fresh, and asked for the first time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use turnpike_core::clock::Now;

use super::fields::FORMAT;
use super::record::owner;
use super::table::{Platform, Platforms};
use super::token::FamilyId;
use super::{CERTIFICATE_MS_MAX, Cause, Operation, PlatId, Request, WINDOW_MS};
use crate::nonce::{Holder, Use};
use crate::quota::{Caller, Quotas};
use crate::secret::Secret;
use crate::x509::Leaf;

/// A request that is to be answered: it is the platform's, fresh, and its nonce is used up.
#[derive(Debug)]
pub struct Admitted {
    /// Whose it is.
    pub platform: PlatId,
    /// The log-in whose AccessToken came with it; none for a log-in and a refresh.
    pub family: Option<FamilyId>,
    /// The AuthToken.
    secret: Secret,
    answered: String,
}

/// A request that isn't.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why.
    pub cause: Cause,
    /// Whose it is, where that was proved.
    pub platform: Option<PlatId>,
}

impl Admitted {
    /// Signs the body of the answer, in hexadecimal digits: so the broker proves who it is (4.1.2.1 d), and nothing in it was altered. The nonce of the
    /// request is in what is signed: an answer fits one request.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> String {
        sign(self.secret.expose(), &[self.answered.as_bytes(), body])
    }
}

/// HMAC-SHA256 of parts, one behind the other, in hexadecimal digits.
#[must_use]
pub fn sign(key: &[u8], parts: &[&[u8]]) -> String {
    hex::encode(mac(key, parts).finalize().into_bytes())
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

impl Platforms {
    /// Judges a request that came with a certificate which TLS has verified. Counts towards the platform's rate, and uses the nonce up.
    ///
    /// Who is no platform can't tell what was wrong: number, certificate and signature are one code, and an unknown number costs the same work.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&self, request: &Request, certificate: &Leaf, quotas: &Quotas, now: Now) -> Result<Admitted, Refused> {
        let id = request.platform;
        let stranger = |cause| Refused { cause, platform: None };
        let (secret, platform) = self.prove(request, certificate, now).map_err(stranger)?;
        let refuse = |cause| Refused { cause, platform: Some(id) };
        if !platform.enabled {
            return Err(refuse(Cause::Disabled));
        }
        if request.timestamp_ms.abs_diff(now.unix_ms) > WINDOW_MS {
            return Err(refuse(Cause::StaleTimestamp));
        }
        // After the signature: a stranger must not use up a platform's rate and nonces. Before the nonce: one platform must not use up the room
        // for those of all.
        quotas.request(&[Caller::Platform(id.as_str())], now).map_err(|_| refuse(Cause::TooMany))?;
        self.take_nonce(request, now).map_err(refuse)?;
        let family = match (&request.access, request.operation) {
            (None, Operation::LogIn | Operation::Refresh) => None,
            (Some(token), _) => Some(self.check_access(id, token, now).map_err(refuse)?),
            (None, _) => return Err(refuse(Cause::WrongAccess)),
        };
        let answered = format!("{FORMAT}\nanswer\n{}\n{}\n", request.operation.path(), request.nonce);
        Ok(Admitted { platform: id, family, secret, answered })
    }

    /// The AuthToken of the platform that a request is of.
    fn prove(
        &self,
        request: &Request,
        certificate: &Leaf,
        now: Now,
    ) -> Result<(Secret, std::sync::Arc<Platform>), Cause> {
        let found = self.platform(request.platform);
        let opened = found.as_ref().map(|platform| self.key.open(&owner(request.platform), &platform.auth));
        let secret = match &opened {
            Some(Ok(secret)) => secret,
            Some(Err(_)) | None => &self.decoy,
        };
        let signed = mac(secret.expose(), &[request.signed.as_bytes()]).verify_slice(&request.signature).is_ok();
        let Some(platform) = found else { return Err(Cause::UnknownPlatform) };
        if !platform.certificates.contains(&certificate.fingerprint) {
            return Err(Cause::WrongCertificate);
        }
        let Some(Ok(secret)) = opened else { return Err(Cause::Sealed) };
        if !signed {
            return Err(Cause::WrongSignature);
        }
        if !certificate.is_good_at(now.unix_ms) {
            return Err(Cause::ExpiredCertificate);
        }
        if certificate.not_after_ms.saturating_sub(certificate.not_before_ms) > CERTIFICATE_MS_MAX {
            return Err(Cause::LongCertificate);
        }
        Ok((secret, platform))
    }

    fn take_nonce(&self, request: &Request, now: Now) -> Result<(), Cause> {
        let until_ms = request.timestamp_ms.saturating_add(WINDOW_MS);
        // The requests of a platform have rates of their own.
        let holder = Holder { product: "", device: request.platform.as_str(), share: None };
        match self.nonces.take(holder, &request.nonce, until_ms, now.mono_ms) {
            Use::First { record } => {
                self.journal.iter().for_each(|journal| {
                    journal.take(record);
                    journal.keep();
                });
                Ok(())
            }
            Use::Again => Err(Cause::NonceReused),
            Use::Full | Use::OverShare => Err(Cause::NoncesFull),
        }
    }
}
