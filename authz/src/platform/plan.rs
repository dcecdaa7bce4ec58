//! What an operator does with platforms.

use std::collections::HashSet;
use std::sync::Arc;

use super::record::{Change, NAME_BYTES_MAX, owner};
use super::table::{Grant, Platform, Platforms};
use super::token::Token;
use super::{CERTIFICATES_MAX, GRANTS_MAX, PLATFORMS_MAX, PlatId};
use crate::names::ProductKey;
use crate::secret::{Sealed, Secret};
use crate::x509::Fingerprint;

/// Why nothing is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// It isn't there.
    #[error("there is no such platform")]
    NoSuchPlatform,
    /// [`PLATFORMS_MAX`].
    #[error("there are {PLATFORMS_MAX} platforms, and no room for another")]
    TooMany,
    /// Its name.
    #[error("a platform's name has 1 to {NAME_BYTES_MAX} bytes, none of them of a control character")]
    Name,
    /// [`CERTIFICATES_MAX`].
    #[error("a platform has 1 to {CERTIFICATES_MAX} certificates, each once")]
    Certificates,
    /// A certificate says whose it is.
    #[error("another platform has that certificate")]
    CertificateTaken,
    /// [`GRANTS_MAX`].
    #[error("a platform is granted at most {GRANTS_MAX} products, each once")]
    Grants,
    /// The random bytes gave a number that is taken: once in billions of years, or the bytes aren't random.
    #[error("that number is taken; try again")]
    NumberTaken,
}

/// What an operator says of a platform. What isn't said stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edit {
    /// What it is called.
    pub name: Option<Box<str>>,
    /// Whether it is let in.
    pub enabled: Option<bool>,
    /// Its certificates.
    pub certificates: Option<Vec<Fingerprint>>,
    /// Its products.
    pub grants: Option<Vec<Grant>>,
}

/// A platform to be made, or a new AuthToken.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its number.
    pub id: PlatId,
    /// Its AuthToken, which is shown once.
    pub auth_token: Token,
    /// To be committed together, and applied.
    pub changes: Vec<Change>,
}

/// What making an AuthToken takes: fresh random bytes, and the time.
#[derive(Clone, Copy)]
pub struct AuthMaking {
    /// For the number.
    pub number: [u8; 32],
    /// For the token.
    pub token: [u8; 32],
    /// For the seal.
    pub seal: [u8; 12],
    /// Milliseconds since 1970 UTC.
    pub now_ms: u64,
}

impl Platforms {
    /// Creates a platform. It needs a name and certificates.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan_create(&self, edit: Edit, making: &AuthMaking) -> Result<Created, PlanError> {
        if self.len() >= PLATFORMS_MAX {
            return Err(PlanError::TooMany);
        }
        let id = PlatId::draw(making.number);
        if self.platform(id).is_some() {
            return Err(PlanError::NumberTaken);
        }
        let (auth_token, auth) = self.make_auth(id, making);
        let blank = Platform {
            name: Box::from(""),
            enabled: true,
            created_at_s: making.now_ms / 1000,
            certificates: Vec::new(),
            grants: Vec::new(),
            auth,
        };
        let platform = self.edited(id, blank, edit)?;
        Ok(Created { id, auth_token, changes: vec![Change::PutPlatform(id, Arc::new(platform))] })
    }

    /// Changes what is said of a platform. Disabling it ends its log-ins.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan_edit(&self, id: PlatId, edit: Edit) -> Result<Vec<Change>, PlanError> {
        let before = self.platform(id).ok_or(PlanError::NoSuchPlatform)?;
        let platform = self.edited(id, (*before).clone(), edit)?;
        let mut changes = if platform.enabled { Vec::new() } else { self.plan_end_all(id) };
        changes.push(Change::PutPlatform(id, Arc::new(platform)));
        Ok(changes)
    }

    /// Gives a platform another AuthToken. Its log-ins end.
    ///
    /// # Errors
    /// [`PlanError::NoSuchPlatform`].
    pub fn plan_renew(&self, id: PlatId, making: &AuthMaking) -> Result<Created, PlanError> {
        let before = self.platform(id).ok_or(PlanError::NoSuchPlatform)?;
        let (auth_token, auth) = self.make_auth(id, making);
        let mut changes = self.plan_end_all(id);
        changes.push(Change::PutPlatform(id, Arc::new(Platform { auth, ..(*before).clone() })));
        Ok(Created { id, auth_token, changes })
    }

    /// Deletes a platform.
    ///
    /// # Errors
    /// [`PlanError::NoSuchPlatform`].
    pub fn plan_delete(&self, id: PlatId) -> Result<Vec<Change>, PlanError> {
        self.platform(id).ok_or(PlanError::NoSuchPlatform)?;
        let mut changes = self.plan_end_all(id);
        changes.push(Change::DeletePlatform(id));
        Ok(changes)
    }

    /// Takes a product away from all platforms: it is deleted, and another one of its key must not be theirs.
    #[must_use]
    pub fn plan_forget_product(&self, product: &ProductKey) -> Vec<Change> {
        let without = |(id, platform): (PlatId, Arc<Platform>)| {
            let mut platform = (*platform).clone();
            let before = platform.grants.len();
            platform.grants.retain(|grant| grant.product != *product);
            (platform.grants.len() < before).then(|| Change::PutPlatform(id, Arc::new(platform)))
        };
        self.list(None, PLATFORMS_MAX).into_iter().filter_map(without).collect()
    }

    fn make_auth(&self, id: PlatId, making: &AuthMaking) -> (Token, Sealed) {
        let token = Token::auth(&making.token, id, making.now_ms);
        let secret = Secret::new(token.expose().as_bytes()).expect("48 bytes are a secret");
        let sealed = self.key.seal(&owner(id), &secret, making.seal);
        (token, sealed)
    }

    fn edited(&self, id: PlatId, platform: Platform, edit: Edit) -> Result<Platform, PlanError> {
        let platform = Platform {
            name: edit.name.unwrap_or(platform.name),
            enabled: edit.enabled.unwrap_or(platform.enabled),
            certificates: edit.certificates.unwrap_or(platform.certificates),
            grants: edit.grants.unwrap_or(platform.grants),
            ..platform
        };
        if !(1..=NAME_BYTES_MAX).contains(&platform.name.len()) || platform.name.chars().any(char::is_control) {
            return Err(PlanError::Name);
        }
        let certificates = &platform.certificates;
        let unique: HashSet<_> = certificates.iter().collect();
        if !(1..=CERTIFICATES_MAX).contains(&certificates.len()) || unique.len() < certificates.len() {
            return Err(PlanError::Certificates);
        }
        let others = self.list(None, PLATFORMS_MAX);
        let taken = |(other, its): &(PlatId, Arc<Platform>)| {
            *other != id && its.certificates.iter().any(|certificate| certificates.contains(certificate))
        };
        if others.iter().any(taken) {
            return Err(PlanError::CertificateTaken);
        }
        let products: HashSet<_> = platform.grants.iter().map(|grant| grant.product.as_str()).collect();
        if platform.grants.len() > GRANTS_MAX || products.len() < platform.grants.len() {
            return Err(PlanError::Grants);
        }
        Ok(platform)
    }
}
