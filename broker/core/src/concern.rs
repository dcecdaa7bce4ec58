//! Whom a change of the registry concerns: their live sessions are judged again.

use std::sync::Arc;

use crate::gate::{DeviceIdentity, Principal, ServiceIdentity, UserIdentity};

/// Some of the principals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Concern {
    /// One.
    Principal(Principal),
    /// Every device of a product.
    Product(Arc<str>),
    /// Every user of an app.
    App(Arc<str>),
    /// Every user.
    Users,
    /// Every service.
    Services,
}

impl Concern {
    /// One device.
    #[must_use]
    pub fn device(product: &str, device: &str) -> Self {
        Self::Principal(Principal::Device(Arc::new(DeviceIdentity::new(product, device))))
    }

    /// One user.
    #[must_use]
    pub fn user(app: &str, user: &str) -> Self {
        Self::Principal(Principal::User(Arc::new(UserIdentity { app: app.into(), user: user.into(), by: None })))
    }

    /// One service.
    #[must_use]
    pub fn service(key: &str) -> Self {
        Self::Principal(Principal::Service(Arc::new(ServiceIdentity { key: key.into() })))
    }

    /// Whether a principal is among them.
    #[must_use]
    pub fn covers(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Principal(one), _) => one == principal,
            (Self::Product(product), Principal::Device(identity)) => *identity.product == **product,
            (Self::App(app), Principal::User(identity)) => *identity.app == **app,
            (Self::Users, Principal::User(_)) | (Self::Services, Principal::Service(_)) => true,
            (Self::Product(_) | Self::App(_) | Self::Users | Self::Services, _) => false,
        }
    }
}
