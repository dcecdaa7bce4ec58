//! Apps: whose users may come in, how they prove who they are, and which products they are for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use super::ids::{AppId, TenantId};
use super::jwks::KeySet;
use crate::names::ProductKey;
use crate::secret::Sealed;

/// Which products an app's users may be bound to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Products {
    /// Every product of the app's tenant.
    #[default]
    All,
    /// These.
    Only(BTreeSet<ProductKey>),
}

impl Products {
    /// Whether a product is one of them.
    #[must_use]
    pub fn contains(&self, product: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(products) => products.contains(product),
        }
    }
}

/// Where an app's public keys for tokens are (a JWK set, RFC 7517).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum KeySource {
    /// It has none.
    #[default]
    None,
    /// Here: the document.
    Document(Box<str>),
    /// At a URL; whoever does I/O fetches it and hands it in.
    Url(Box<str>),
    /// In a file, likewise.
    File(Box<str>),
}

/// How an app's tokens are checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRules {
    /// Takes tokens that the app's secret signs (HS256).
    pub hs256: bool,
    /// Keys that sign others (RS256, ES256, EdDSA).
    pub keys: KeySource,
    /// What `iss` must be; if it isn't said, it may be anything.
    pub issuer: Option<Box<str>>,
    /// What `aud` must be or contain; the app's id, if it isn't said.
    pub audience: Option<Box<str>>,
    /// How far the issuer's clock may be from ours, in seconds, at most 300.
    pub leeway_s: u16,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self { hs256: true, keys: KeySource::None, issuer: None, audience: None, leeway_s: 30 }
    }
}

/// An app.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct App {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its secret, sealed for its record.
    pub secret: Sealed,
    /// The switch: an app that isn't enabled has all its users cut off at once.
    pub enabled: bool,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// What its users may be bound to.
    pub products: Products,
    /// How its tokens are checked.
    pub tokens: TokenRules,
    /// How many users it may have.
    pub users_max: u32,
}

/// All apps.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    /// Read with each topic of a user, and hardly ever changed: a change copies the map.
    apps: ArcSwap<Map>,
    /// Of apps that have any, and whose document is here.
    keys: RwLock<HashMap<AppId, Arc<KeySet>, foldhash::fast::RandomState>>,
}

type Map = HashMap<AppId, Arc<App>, foldhash::fast::RandomState>;

impl Apps {
    pub(crate) fn get(&self, id: &str) -> Option<Arc<App>> {
        self.apps.load().get(id).cloned()
    }

    /// Whether an app is enabled and for a product.
    #[inline]
    pub(crate) fn allows(&self, id: &str, product: &str) -> bool {
        self.apps.load().get(id).is_some_and(|app| app.enabled && app.products.contains(product))
    }

    pub(crate) fn is_enabled(&self, id: &str) -> bool {
        self.apps.load().get(id).is_some_and(|app| app.enabled)
    }

    pub(crate) fn keys(&self, id: &str) -> Option<Arc<KeySet>> {
        self.keys.read().get(id).cloned()
    }

    pub(crate) fn set_keys(&self, id: AppId, keys: KeySet) {
        self.keys.write().insert(id, Arc::new(keys));
    }

    pub(crate) fn put(&self, id: AppId, app: App) {
        let source = self.get(id.as_str()).map(|before| before.tokens.keys.clone());
        match &app.tokens.keys {
            KeySource::Document(text) => match KeySet::parse(text) {
                Ok(keys) => self.set_keys(id.clone(), keys),
                Err(_) => drop(self.keys.write().remove(&id)),
            },
            // What was fetched from there stays.
            same if source.as_ref() == Some(same) => {}
            KeySource::None | KeySource::Url(_) | KeySource::File(_) => drop(self.keys.write().remove(&id)),
        }
        let mut apps = Map::clone(&self.apps.load());
        apps.insert(id, Arc::new(app));
        self.apps.store(Arc::new(apps));
    }

    pub(crate) fn delete(&self, id: &AppId) {
        let mut apps = Map::clone(&self.apps.load());
        apps.remove(id);
        self.keys.write().remove(id);
        self.apps.store(Arc::new(apps));
    }

    /// Apps whose keys are elsewhere.
    pub(crate) fn key_sources(&self) -> Vec<(AppId, KeySource)> {
        let apps = self.apps.load();
        let elsewhere =
            apps.iter().filter(|(_, app)| matches!(app.tokens.keys, KeySource::Url(_) | KeySource::File(_)));
        elsewhere.map(|(id, app)| (id.clone(), app.tokens.keys.clone())).collect()
    }

    /// Up to `limit` apps after an id, in order.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Vec<(AppId, Arc<App>)> {
        let apps = self.apps.load();
        let behind = apps.iter().filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
        let mut page: Vec<_> = behind.map(|(id, app)| (id.clone(), Arc::clone(app))).collect();
        page.sort_by(|a, b| a.0.cmp(&b.0));
        page.truncate(limit);
        page
    }
}
