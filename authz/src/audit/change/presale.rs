//! Changes of packages and lists, and registrations, in the words of the audit.

use super::{Action, Described, plain};
use crate::names::{DeviceName, ProductKey};
use crate::presale::{Book, Change, PackageId, Registration};

impl Described {
    /// A registration: the device, and all that it uses up.
    #[must_use]
    pub fn registration(product: &ProductKey, made: &Registration) -> Self {
        Self {
            devices: Some((made.name.clone(), made.name.clone())),
            package: made.package,
            way: Some(made.way),
            ..plain(Action::Register, product)
        }
    }

    /// Burn-in keys that are shown again.
    #[must_use]
    pub fn keys_shown(product: &ProductKey, package: PackageId, count: usize) -> Self {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        Self { package: Some(package), count, ..plain(Action::KeysShow, product) }
    }

    /// Changes by an operator that are committed together; identifiers of one package as one. Described before they are applied.
    #[must_use]
    pub fn of_book(book: &Book, changes: &[Change]) -> Vec<Self> {
        let mut described: Vec<Self> = Vec::new();
        for change in changes {
            let next = describe_one(book, change);
            match described.last_mut() {
                Some(last) if last.takes(&next) => last.take(next),
                _ => described.push(next),
            }
        }
        described
    }
}

fn describe_one(book: &Book, change: &Change) -> Described {
    let of = |action, product, id| Described { package: Some(id), ..plain(action, product) };
    let release = |product, id, device: Option<&DeviceName>| Described {
        devices: device.map(|device| (device.clone(), device.clone())),
        ..of(Action::RegistrationRelease, product, id)
    };
    match change {
        Change::PutSettings(product, settings) => {
            let before = book.settings(product.as_str()).secret;
            let replaced = settings.secret.is_some() && before != settings.secret;
            Described { secret_replaced: Some(replaced), ..plain(Action::ProductRegistration, product) }
        }
        Change::PutPackage(product, id, package) => {
            let before = book.package(product.as_str(), *id).map_or(0, |standing| standing.package.issued);
            match package.issued.saturating_sub(before) {
                0 => Described { enabled: Some(package.enabled), ..of(Action::PackagePut, product, *id) },
                count => Described { count: u64::from(count), ..of(Action::KeysIssue, product, *id) },
            }
        }
        Change::DeletePackage(product, id) => of(Action::PackageDelete, product, *id),
        Change::List(product, identifier, id, device) => {
            match book.listed(product.as_str(), identifier).and_then(|listed| listed.device) {
                Some(before) if device.is_none() => release(product, *id, Some(&before)),
                _ => of(Action::AllowListPut, product, *id),
            }
        }
        Change::Unlist(product, identifier) => {
            let package = book.listed(product.as_str(), identifier).map(|listed| listed.package);
            Described { package, ..plain(Action::AllowListPut, product) }
        }
        Change::UseKey(product, id, _, device) => {
            let devices = Some((device.clone(), device.clone()));
            Described { devices, ..of(Action::Register, product, *id) }
        }
        Change::ReleaseKey(product, id, index) => release(product, *id, book.key_user(product.as_str(), *id, *index)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Outcome, Subject};
    use super::*;
    use crate::presale::{Identifier, Package, Settings};
    use crate::secret::Sealed;

    fn product() -> ProductKey {
        ProductKey::parse("lamp").expect("a name")
    }

    fn said(described: &[Described]) -> Vec<String> {
        let said = |described: &Described| {
            let mut body = Vec::new();
            described.tell(7, (Subject::Broker, None), Outcome::Ok, |event| event.encode(&mut body));
            let body = String::from_utf8(body).expect("JSON");
            body.replace("\"time\":7,\"actor\":\"broker\",\"action\":", "").replace(",\"result\":\"ok\"", "")
        };
        described.iter().map(said).collect()
    }

    #[test]
    fn changes_of_packages_and_lists_are_told_by_what_they_change() {
        let mut book = Book::new();
        let id = PackageId::FIRST;
        let package = |issued| Package {
            enabled: true,
            created_at_s: 1,
            expires_at_s: None,
            quota: 9,
            issued,
            secret: Sealed::from_bytes(&[1; 9]),
        };
        let device = || DeviceName::parse("d").expect("a name");
        let mut next = |changes: Vec<Change>| {
            let said = said(&Described::of_book(&book, &changes)).join(" ");
            changes.into_iter().for_each(|change| book.apply(change));
            said
        };
        let lamp = "\"target\":\"product:lamp\",\"detail\":";
        let secret = Settings { secret: Some(Sealed::from_bytes(&[2; 9])), ..Settings::default() };
        assert_eq!(
            next(vec![Change::PutSettings(product(), secret)]),
            format!("\"product_registration\",{lamp}{{\"secret_replaced\":true}}")
        );
        assert_eq!(
            next(vec![Change::PutPackage(product(), id, package(0))]),
            format!("\"package_put\",{lamp}{{\"package\":1,\"enabled\":true}}")
        );
        assert_eq!(
            next(vec![Change::PutPackage(product(), id, package(5))]),
            format!("\"keys_issue\",{lamp}{{\"count\":5,\"package\":1}}")
        );
        let list = |n, device| Change::List(product(), Identifier::Imei(n), id, device);
        assert_eq!(
            next((0..100).map(|n| list(n, None)).collect()),
            format!("\"allow_list_put\",{lamp}{{\"count\":100,\"package\":1}}")
        );
        assert_eq!(
            next(vec![Change::Unlist(product(), Identifier::Imei(3))]),
            format!("\"allow_list_put\",{lamp}{{\"package\":1}}")
        );
        next(vec![list(4, Some(device())), Change::UseKey(product(), id, 0, device())]);
        let released = "\"registration_release\",\"target\":\"device:lamp/d\",\"detail\":{\"package\":1}";
        assert_eq!(next(vec![list(4, None)]), released);
        assert_eq!(next(vec![Change::ReleaseKey(product(), id, 0)]), released);
        assert_eq!(
            next(vec![Change::DeletePackage(product(), id)]),
            format!("\"package_delete\",{lamp}{{\"package\":1}}")
        );
        assert_eq!(
            said(&[Described::keys_shown(&product(), id, 2)]),
            [format!("\"keys_show\",{lamp}{{\"count\":2,\"package\":1}}")]
        );
    }
}
