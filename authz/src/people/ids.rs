//! Names of apps, users, services and tenants. Each is safe in a topic level, a user name and a record's key.

use std::fmt;

use turnpike_core::mask::{Identifier, fmt_masked};

use crate::names::{NameError, check, name};

/// As product keys are, and without `:`.
fn without_colon(text: &str) -> Result<(), NameError> {
    check(text)?;
    if text.contains(':') { Err(NameError::Character(':')) } else { Ok(()) }
}

name! {
    /// An app's id: 1 to 64 of `A–Z a–z 0–9 - _ . @`. Without `:`, so that `{app}:{user}` can be read in one way only.
    #[derive(Debug)]
    AppId, without_colon
}

name! {
    /// A user's id, unique within the app: 1 to 64 of `A–Z a–z 0–9 - _ . : @`. Masked in `Debug`.
    UserId, check
}

name! {
    /// A service's access key: 1 to 64 of `A–Z a–z 0–9 - _ . : @`.
    #[derive(Debug)]
    AccessKey, check
}

name! {
    /// A tenant: 1 to 64 of `A–Z a–z 0–9 - _ . : @`.
    #[derive(Debug)]
    TenantId, check
}

impl Default for TenantId {
    /// Whose everything is that is given to nobody else.
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_masked(&self.0, f)
    }
}

/// A user of the whole broker. Apps name their users as they like, so the full id, which stands in the feed's topics
/// (`user/{app}:{user}/…`), has the app in front.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UserKey {
    /// Of which app.
    pub app: AppId,
    /// Its id there.
    pub user: UserId,
}

impl UserKey {
    /// From the two ids.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn parse(app: &str, user: &str) -> Result<Self, NameError> {
        Ok(Self { app: AppId::parse(app)?, user: UserId::parse(user)? })
    }
}

/// The full id.
impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.app, self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_id_is_read_in_one_way_only() {
        assert_eq!(AppId::parse("a:b"), Err(NameError::Character(':')));
        let key = UserKey::parse("app", "u:1@x").expect("names");
        assert_eq!(key.to_string().split_once(':'), Some(("app", "u:1@x")));
        assert!(UserKey::parse("app", "a/b").is_err() && UserKey::parse("", "u").is_err());
    }

    #[test]
    fn a_user_is_masked_where_it_is_printed() {
        let key = UserKey::parse("app", "alice@example.com").expect("names");
        assert!(!format!("{key:?}").contains("alice"));
    }
}
