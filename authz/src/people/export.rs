//! What is kept of a user, for the user: its personal data as JSON.

use serde_json::{Map, Value, json};

use super::People;
use super::bindings::{Binding, DeviceKey, Role};
use super::ids::UserKey;

impl People {
    /// All that is kept of a user, without secrets; none of one that isn't registered. Live sessions are the shards' to add
    /// ([`turnpike_core::shard::Shard::sessions_of`]).
    #[must_use]
    pub fn export_user(&self, key: &UserKey) -> Option<Value> {
        let user = self.bindings.user(key.app.as_str(), key.user.as_str())?;
        let mut devices = self.bindings.devices_of(key);
        devices.sort_by(|a, b| a.0.cmp(&b.0));
        let mine: Vec<Value> = devices.iter().map(|(device, binding)| bound(device, binding, None)).collect();
        // To whom, and no more of them: that is their own data.
        let owned = devices.iter().filter(|(_, binding)| binding.role == Role::Owner);
        let shares: Vec<Value> = owned
            .flat_map(|(device, _)| self.bindings.users_of(device).into_iter().map(move |share| (device, share)))
            .filter(|(_, (_, binding))| binding.role != Role::Owner)
            .map(|(device, (with, binding))| bound(device, &binding, Some(&with)))
            .collect();
        let log_ins: Vec<Value> = self
            .log_ins
            .of(key)
            .iter()
            .map(|log_in| {
                json!({
                    "at": log_in.at_s,
                    "address": log_in.address.to_string(),
                    "client_id": log_in.client.as_str(),
                    "by": log_in.proof.as_str(),
                })
            })
            .collect();
        let codes: Vec<Value> = self
            .codes
            .of(key)
            .iter()
            .map(|(hash, expires_at_s)| json!({ "number": format!("{:016x}", hash.number()), "expires_at": expires_at_s }))
            .collect();
        Some(json!({
            "user": key.to_string(),
            "app": key.app.as_str(),
            "id": key.user.as_str(),
            "frozen": user.frozen,
            "created_at": user.created_at_s,
            "devices": mine,
            "shares_given": shares,
            "session_codes": codes,
            "log_ins": log_ins,
        }))
    }
}

/// How a device is bound, and to whom, if it is to somebody else.
fn bound(device: &DeviceKey, binding: &Binding, with: Option<&UserKey>) -> Value {
    let mut value = Map::new();
    value.insert("product".to_owned(), device.product.as_str().into());
    value.insert("device".to_owned(), device.device.as_str().into());
    if let Some(with) = with {
        value.insert("user".to_owned(), with.to_string().into());
    }
    value.insert("role".to_owned(), binding.role.as_str().into());
    value.insert("expires_at".to_owned(), binding.expires_at_s.into());
    value.insert("by".to_owned(), if binding.by_admin { "administrator" } else { "owner" }.into());
    Value::Object(value)
}
