//! Changes of the registry, in the words of the audit. Described before they are applied, so that it can be told what is new.

use std::net::SocketAddr;

use super::{Action, Event, Id, Key, Outcome, Subject, Value};
use crate::names::{DeviceName, ProductKey};
use crate::plan::Change;
use crate::presale::{PackageId, Way};
use crate::registry::{Device, Product, Registry};

mod presale;

/// What a change, or many of one kind, will do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    action: Action,
    product: ProductKey,
    /// The first and the last; the same for one.
    devices: Option<(DeviceName, DeviceName)>,
    count: u64,
    enabled: Option<bool>,
    secret_replaced: Option<bool>,
    package: Option<PackageId>,
    way: Option<Way>,
}

/// Describes changes that are committed together: each by itself, but many devices of one product as one.
#[must_use]
pub fn describe(registry: &Registry, changes: &[Change]) -> Vec<Described> {
    let mut described: Vec<Described> = Vec::new();
    for change in changes {
        let Some(next) = describe_one(registry, change) else { continue };
        match described.last_mut() {
            Some(last) if last.takes(&next) => last.take(next),
            _ => described.push(next),
        }
    }
    described
}

fn plain(action: Action, product: &ProductKey) -> Described {
    Described {
        action,
        product: product.clone(),
        devices: None,
        count: 1,
        enabled: None,
        secret_replaced: None,
        package: None,
        way: None,
    }
}

fn describe_one(registry: &Registry, change: &Change) -> Option<Described> {
    Some(match change {
        Change::PutProduct(key, product) => {
            let before = registry.product(key.as_str());
            Described { enabled: Some(product.enabled), ..plain(product_action(before, product), key) }
        }
        Change::DeleteProduct(key) => plain(Action::ProductDelete, key),
        Change::AllowProfiles(key, _) => plain(Action::ProductProfiles, key),
        Change::PutDevice(product, name, device) => {
            let before = registry.device(product.as_str(), name.as_str());
            Described {
                devices: Some((name.clone(), name.clone())),
                enabled: Some(device.enabled),
                secret_replaced: before.as_ref().map(|before| before.secret != device.secret),
                ..plain(device_action(before.as_ref(), device), product)
            }
        }
        Change::DeleteDevice(product, name) => {
            Described { devices: Some((name.clone(), name.clone())), ..plain(Action::DeviceDelete, product) }
        }
        Change::SetProofs(product, name, _) => {
            Described { devices: Some((name.clone(), name.clone())), ..plain(Action::DeviceKeys, product) }
        }
        Change::SetExpectation(product, name, _) => {
            Described { devices: Some((name.clone(), name.clone())), ..plain(Action::DeviceAttestation, product) }
        }
        Change::SetLabels(product, name, _) => {
            Described { devices: Some((name.clone(), name.clone())), ..plain(Action::DeviceLabels, product) }
        }
        Change::SetPolicy(key, _) | Change::SetPayloads(key, _) | Change::SetVerifier(key, _) => {
            plain(Action::ProductSettings, key)
        }
        Change::SetAuthorities(key, _) => plain(Action::ProductAuthorities, key),
        Change::LimitProduct(key, _) => plain(Action::ProductLimits, key),
        Change::LimitDevice(product, name, _) => {
            Described { devices: Some((name.clone(), name.clone())), ..plain(Action::DeviceLimits, product) }
        }
        Change::Mark(_) => return None,
    })
}

fn product_action(before: Option<Product>, after: &Product) -> Action {
    match before {
        None => Action::ProductCreate,
        Some(before) if before.enabled == after.enabled => Action::ProductPut,
        Some(_) if after.enabled => Action::ProductEnable,
        Some(_) => Action::ProductDisable,
    }
}

fn device_action(before: Option<&Device>, after: &Device) -> Action {
    match before {
        None => Action::DeviceCreate,
        // A new secret is the greater change; `enabled` is among the details.
        Some(before) if before.enabled == after.enabled || before.secret != after.secret => Action::DevicePut,
        Some(_) if after.enabled => Action::DeviceEnable,
        Some(_) => Action::DeviceDisable,
    }
}

impl Described {
    fn of_many(&self) -> Option<Action> {
        match self.action {
            Action::DeviceCreate | Action::DevicePut | Action::DevicesImport => Some(Action::DevicesImport),
            Action::DeviceDelete | Action::DevicesDelete => Some(Action::DevicesDelete),
            Action::DeviceKeys | Action::DeviceLimits | Action::DeviceLabels | Action::AllowListPut => {
                Some(self.action)
            }
            _ => None,
        }
    }

    fn takes(&self, next: &Self) -> bool {
        let is_of_same = self.product == next.product && self.package == next.package;
        is_of_same && self.of_many().is_some() && self.of_many() == next.of_many()
    }

    fn take(&mut self, next: Self) {
        self.action = self.of_many().unwrap_or(self.action);
        self.count += next.count;
        self.enabled = None;
        let replaced = self.secret_replaced.unwrap_or(false) || next.secret_replaced.unwrap_or(false);
        self.secret_replaced = (self.action == Action::DevicesImport).then_some(replaced);
        if let (Some((_, last)), Some((_, newer))) = (&mut self.devices, next.devices) {
            *last = newer;
        }
    }

    /// Hands over the event that this is, done by somebody.
    pub fn tell<R>(
        &self,
        at_ms: u64,
        (actor, source): (Subject<'_>, Option<SocketAddr>),
        outcome: Outcome,
        to: impl FnOnce(&Event<'_>) -> R,
    ) -> R {
        let mut details = Vec::new();
        let mut target = Subject::product(&self.product);
        match &self.devices {
            Some((first, last)) if self.count > 1 => {
                details.push((Key::Count, Value::Number(self.count)));
                details.push((Key::First, Value::Id(Id::of(first))));
                details.push((Key::Last, Value::Id(Id::of(last))));
            }
            Some((device, _)) => target = Subject::device(&self.product, device),
            None if self.count != 1 => details.push((Key::Count, Value::Number(self.count))),
            None => {}
        }
        details.extend(self.package.map(|package| (Key::Package, Value::Number(u64::from(package.get())))));
        details.extend(self.way.map(|way| (Key::Way, Value::Word(way.as_str()))));
        details.extend(self.enabled.map(|enabled| (Key::Enabled, Value::Flag(enabled))));
        details.extend(self.secret_replaced.map(|replaced| (Key::SecretReplaced, Value::Flag(replaced))));
        to(&Event { at_ms, actor, source, action: self.action, target: Some(target), outcome, details: &details })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Sealed;

    fn product(text: &str) -> ProductKey {
        ProductKey::parse(text).expect("a name")
    }

    fn put(name: &str, secret: &str, enabled: bool) -> Change {
        let device = Device { enabled, created_at_s: 1, secret: Sealed::from_bytes(secret.as_bytes()) };
        Change::PutDevice(product("lamp"), DeviceName::parse(name).expect("a name"), device)
    }

    fn said(registry: &Registry, changes: &[Change]) -> Vec<String> {
        let said = |described: &Described| {
            let mut body = Vec::new();
            described.tell(7, (Subject::Broker, None), Outcome::Ok, |event| event.encode(&mut body));
            let body = String::from_utf8(body).expect("JSON");
            body.replace("\"time\":7,\"actor\":\"broker\",\"action\":", "").replace(",\"result\":\"ok\"", "")
        };
        describe(registry, changes).iter().map(said).collect()
    }

    #[test]
    fn a_change_is_told_by_what_it_changes() {
        let registry = Registry::new();
        let head = |enabled| Change::PutProduct(product("lamp"), Product { enabled, created_at_s: 1 });
        let next = |change: Change| {
            let said = said(&registry, std::slice::from_ref(&change));
            registry.apply(change);
            said.concat()
        };
        let lamp = "\"target\":\"product:lamp\",\"detail\":{\"enabled\"";
        assert_eq!(next(head(true)), format!("\"product_create\",{lamp}:true}}"));
        assert_eq!(next(head(true)), format!("\"product_put\",{lamp}:true}}"));
        assert_eq!(next(head(false)), format!("\"product_disable\",{lamp}:false}}"));
        assert_eq!(next(head(true)), format!("\"product_enable\",{lamp}:true}}"));
        let one = "\"target\":\"device:lamp/one\"";
        assert_eq!(next(put("one", "a", true)), format!("\"device_create\",{one},\"detail\":{{\"enabled\":true}}"));
        let detail =
            |enabled, replaced| format!("{one},\"detail\":{{\"enabled\":{enabled},\"secret_replaced\":{replaced}}}");
        assert_eq!(next(put("one", "b", true)), format!("\"device_put\",{}", detail(true, true)));
        assert_eq!(next(put("one", "b", false)), format!("\"device_disable\",{}", detail(false, false)));
        assert_eq!(next(put("one", "c", true)), format!("\"device_put\",{}", detail(true, true)));
        let name = DeviceName::parse("one").expect("a name");
        assert_eq!(next(Change::DeleteDevice(product("lamp"), name)), format!("\"device_delete\",{one}"));
        assert_eq!(next(Change::DeleteProduct(product("lamp"))), "\"product_delete\",\"target\":\"product:lamp\"");
        assert_eq!(next(Change::Mark("demo".into())), "");
    }

    #[test]
    fn many_devices_are_one_record() {
        let registry = Registry::new();
        let changes: Vec<Change> = (0..100).map(|n| put(&format!("d{n}"), "secret", true)).collect();
        let said = said(&registry, &changes);
        let detail = "{\"count\":100,\"first\":\"d0\",\"last\":\"d99\",\"secret_replaced\":false}";
        assert_eq!(said, [format!("\"devices_import\",\"target\":\"product:lamp\",\"detail\":{detail}")]);
    }
}
