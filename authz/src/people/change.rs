//! Changes of apps, users, bindings, services and tenants: planned, committed, applied, as the registry's are.

use std::sync::Arc;

use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;

use super::apps::App;
use super::bindings::{Binding, DeviceKey, User};
use super::codes::{Code, CodeHash};
use super::erasure::{Erasure, ErasureNumber};
use super::ids::{AccessKey, AppId, TenantId, UserKey};
use super::proofs::Stored;
use super::record;
use super::services::Service;
use crate::names::ProductKey;

/// A change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace.
    PutApp(AppId, App),
    /// Remove an app: none of its users gets in from then on. What is left of them is removed by [`super::People::plan_sweep`].
    DeleteApp(AppId),
    /// Create or replace.
    PutUser(UserKey, User),
    /// Remove; bindings and codes are removed before.
    DeleteUser(UserKey),
    /// Bind, or change how a user is bound.
    Bind(DeviceKey, UserKey, Binding),
    /// Unbind.
    Unbind(DeviceKey, UserKey),
    /// Issue a session code.
    PutCode(CodeHash, Code),
    /// Take a session code of a user back.
    DeleteCode(CodeHash, UserKey),
    /// The last log-ins of a user, packed; visible since they happened ([`super::People::take_log_ins`]).
    PutLogIns(UserKey, Box<[u8]>),
    /// Forget them.
    DeleteLogIns(UserKey),
    /// Create or replace.
    PutService(AccessKey, Service),
    /// Remove.
    DeleteService(AccessKey),
    /// Give a product to a tenant.
    SetTenant(ProductKey, TenantId),
    /// Proofs that a device is at somebody's hands, as the store keeps them.
    PutProofs(DeviceKey, Stored),
    /// Void the proofs of a device.
    DeleteProofs(DeviceKey),
    /// An erasure, or what has come of it. Boxed, since the others are small.
    PutErasure(ErasureNumber, Box<Erasure>),
    /// Forget the report of one that is done.
    DeleteErasure(ErasureNumber),
}

impl Change {
    /// What the store is to be told.
    #[must_use]
    pub fn op(&self) -> Op {
        record::encode(self)
    }

    /// Whose live sessions are to be judged again once the change is applied.
    #[must_use]
    pub fn concerns(&self) -> Vec<Concern> {
        match self {
            Self::PutApp(app, _) | Self::DeleteApp(app) => vec![Concern::App(Arc::from(app.as_str()))],
            Self::PutUser(user, _) | Self::DeleteUser(user) | Self::DeleteCode(_, user) => vec![user_concern(user)],
            // Nobody came in by it yet; what is past changes nothing.
            Self::PutCode(..) | Self::PutLogIns(..) | Self::DeleteLogIns(_) => Vec::new(),
            Self::PutProofs(..) | Self::DeleteProofs(_) => Vec::new(),
            // Whose data go are told with their records.
            Self::PutErasure(..) | Self::DeleteErasure(_) => Vec::new(),
            // The device, since what it publishes goes to other feeds.
            Self::Bind(device, user, _) | Self::Unbind(device, user) => {
                vec![user_concern(user), Concern::device(device.product.as_str(), device.device.as_str())]
            }
            Self::PutService(key, _) | Self::DeleteService(key) => vec![Concern::service(key.as_str())],
            // Services see by tenant. Whom users are bound to is planned anew by an administrator.
            Self::SetTenant(..) => vec![Concern::Services],
        }
    }
}

pub(super) fn user_concern(user: &UserKey) -> Concern {
    Concern::user(user.app.as_str(), user.user.as_str())
}
