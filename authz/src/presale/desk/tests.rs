use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use turnpike_core::durable::Op;

use super::super::identifier::Kind;
use super::super::list::{ListImport, RowError, Sweep};
use super::super::register::{Fresh, Proof, Proven, REPEAT_S, Registration, Request};
use super::super::{RegisterError, Way, aliyun, gizwits, tencent};
use super::*;
use crate::import::BATCH;
use crate::names::DeviceName;
use crate::profile::SignMethod;
use crate::registry::owner;
use crate::signed::sign;

const NOW_S: u64 = 1_800_000_000;

/// A registry with a product `p` that takes every way, and a book.
struct House {
    registry: Registry,
    book: Book,
    key: MasterKey,
    made: u8,
    tls: bool,
}

impl House {
    fn new() -> Self {
        let house =
            Self { registry: Registry::new(), book: Book::new(), key: MasterKey::new([7; 32]), made: 0, tls: true };
        let change = house.registry.plan_put_product(&product(), None, NOW_S).expect("new").0;
        house.registry.apply(change);
        house
    }

    fn desk(&self) -> Desk<'_> {
        Desk { registry: &self.registry, book: &self.book, key: &self.key }
    }

    fn settings(&mut self, ways: &[Way], package: Option<PackageId>) {
        let secret = Secret::new(b"000102030405060708090a0b0c0d0e0f").expect("a secret");
        let ways = (ways.iter().copied().collect(), package);
        let change = self.desk().plan_put_settings(&product(), ways, Some(&secret), [1; 12]).expect("a product");
        self.apply(change);
    }

    fn package(&mut self, quota: u32, expires_at_s: Option<u64>) -> PackageId {
        let request = PackageRequest { quota, expires_at_s, enabled: true };
        let making = Making { key: &self.key, random: [3; 28], now_s: NOW_S };
        let (id, change) = self.desk().plan_put_package(&product(), None, request, &making).expect("a package");
        self.apply(change);
        id
    }

    fn keys(&mut self, id: PackageId, count: u32) -> Vec<String> {
        let (change, keys) = self.desk().plan_issue(&product(), id, count).expect("room");
        self.apply(change);
        keys
    }

    fn list(&mut self, id: PackageId, kind: Kind, text: &str) {
        let identifier = Identifier::parse(kind, text).expect("an identifier");
        self.apply(Change::List(product(), identifier, id, None));
    }

    fn apply(&mut self, change: Change) {
        self.book.apply(change);
    }

    fn fresh(&mut self) -> Fresh {
        self.made += 1;
        Fresh { making: [self.made; 28], name: [self.made; 22], answer: [self.made; 16] }
    }

    /// Registers at a moment, and applies what was planned.
    fn register_at(&mut self, now_s: u64, name: Option<&str>, proof: Proof<'_>) -> Result<Registration, RegisterError> {
        let fresh = self.fresh();
        let made = self.desk().plan_register(&Request { product: "p", name, proof, tls: self.tls }, now_s, &fresh)?;
        assert_eq!(made.ops().len(), made.changes.len() + usize::from(made.device.is_some()));
        made.device.iter().for_each(|device| self.registry.apply(device.clone()));
        made.changes.iter().for_each(|change| self.book.apply(change.clone()));
        Ok(made)
    }

    fn register(&mut self, name: Option<&str>, proof: Proof<'_>) -> Result<Registration, RegisterError> {
        self.register_at(NOW_S, name, proof)
    }

    /// The secret that a device has in the registry.
    fn secret(&self, name: &DeviceName) -> Secret {
        let device = self.registry.device("p", name.as_str()).expect("registered");
        self.key.open(&owner("p", name.as_str()), &device.secret).expect("opens")
    }
}

fn product() -> ProductKey {
    ProductKey::parse("p").expect("a name")
}

fn label(result: Result<Registration, RegisterError>) -> &'static str {
    result.map_or_else(RegisterError::label, |made| if made.device.is_some() { "made" } else { "again" })
}

#[test]
fn a_key_registers_one_device_once() {
    let mut house = House::new();
    house.settings(&[Way::BurnIn], None);
    let id = house.package(10, None);
    let keys = house.keys(id, 3);
    let made = house.register(Some("d1"), Proof::Key(&keys[0])).expect("a new device");
    assert_eq!((made.name.as_str(), made.way, made.sealed), ("d1", Way::BurnIn, None));
    assert_eq!(house.secret(&made.name), made.secret);

    // The answer was lost: it is given once more, to the same device, for ten minutes.
    let again = house.register_at(NOW_S + REPEAT_S, None, Proof::Key(&keys[0])).expect("the same");
    assert_eq!((again.name, again.secret), (made.name, made.secret));
    assert!(again.device.is_none() && again.changes.is_empty());
    assert_eq!(label(house.register(Some("d2"), Proof::Key(&keys[0]))), "exists");
    assert_eq!(label(house.register_at(NOW_S + REPEAT_S + 1, None, Proof::Key(&keys[0]))), "exists");
    assert_eq!(label(house.register(Some("d1"), Proof::Key(&keys[1]))), "exists", "another key for the same name");

    let unnamed = house.register(None, Proof::Key(&keys[1])).expect("a new device");
    assert_eq!(unnamed.name.as_str().len(), 22);
    assert_eq!(house.book.package("p", id).map(|standing| standing.used), Some(2));
}

#[test]
fn each_error_of_a_key_is_its_own() {
    let mut house = House::new();
    let id = house.package(2, Some(NOW_S + 100));
    let keys = house.keys(id, 2);
    assert_eq!(label(house.register(None, Proof::Key(&keys[0]))), "not_allowed");
    house.settings(&[Way::BurnIn], None);
    let wrong = format!("{}{}", &keys[0][..keys[0].len() - 1], if keys[0].ends_with('0') { '1' } else { '0' });
    let swapped = keys[0].replacen("1-0-", "1-1-", 1);
    let never_issued = keys[0].replacen("1-0-", "1-2-", 1);
    let no_package = keys[0].replacen("1-0-", "9-0-", 1);
    for (text, expected) in [
        ("nonsense", "malformed"),
        (&wrong, "wrong_key"),
        (&swapped, "wrong_key"),
        (&never_issued, "unknown"),
        (&no_package, "unknown"),
    ] {
        assert_eq!(label(house.register(None, Proof::Key(text))), expected, "{text}");
    }
    assert_eq!(label(house.register(Some("a/b"), Proof::Key(&keys[0]))), "malformed");
    assert_eq!(label(house.register_at(NOW_S + 100, None, Proof::Key(&keys[0]))), "expired");
    assert_eq!(label(house.register_at(NOW_S + 99, None, Proof::Key(&keys[0]))), "made");

    // A smaller quota than was used up, which the keys issued forbid, and a listed identifier as the one too many.
    house.list(id, Kind::Serial, "SN-0001");
    house.list(id, Kind::Serial, "SN-0002");
    house.settings(&[Way::BurnIn, Way::Listed], None);
    assert_eq!(label(house.register(None, Proof::Listed("SN-0001"))), "made");
    assert_eq!(label(house.register(None, Proof::Listed("SN-0002"))), "capacity");
    assert_eq!(label(house.register(None, Proof::Key(&keys[1]))), "capacity");

    let request = PackageRequest { quota: 9, expires_at_s: None, enabled: false };
    let making = Making { key: &house.key, random: [0; 28], now_s: NOW_S };
    let (_, change) = house.desk().plan_put_package(&product(), Some(id), request, &making).expect("there");
    house.apply(change);
    assert_eq!(label(house.register(None, Proof::Key(&keys[1]))), "expired", "disabled");
    house.key = MasterKey::new([8; 32]);
    assert_eq!(label(house.register(None, Proof::Key(&keys[1]))), "sealed");

    let other = house.registry.plan_enable_product(&product(), false).expect("there");
    house.registry.apply(other);
    assert_eq!(label(house.register(None, Proof::Key(&keys[1]))), "not_allowed", "a disabled product");
}

#[test]
fn a_device_without_tls_gets_its_secret_encrypted() {
    let mut house = House::new();
    house.settings(&[Way::BurnIn], None);
    let id = house.package(10, None);
    let keys = house.keys(id, 1);
    let (key_id, key) = BurnKey::parse(&keys[0]).expect("a key");
    let nonce = "a-nonce-1";
    let signature = key.sign("p", "d1", key_id, nonce);
    let signed = |nonce, signature| Proof::Signed { key: "1-0", nonce, signature };
    assert_eq!(label(house.register(Some("d2"), signed(nonce, &signature))), "wrong_key");
    assert_eq!(label(house.register(Some("d1"), signed("another-1", &signature))), "wrong_key");
    assert_eq!(label(house.register(Some("d1"), signed("short", &signature))), "malformed");
    assert_eq!(label(house.register(Some("d1"), signed("a nonce with spaces", &signature))), "malformed");
    let made = house.register(Some("d1"), signed(nonce, &signature)).expect("a new device");
    let sealed = made.sealed.expect("encrypted");
    assert_eq!(key.open(nonce, ("p", "d1"), &sealed), Some(house.secret(&made.name)));
    // Whoever repeats the request gets nothing that he can read, and not the same bytes.
    let again = house.register(Some("d1"), signed(nonce, &signature)).expect("again");
    assert!(again.device.is_none() && again.sealed.as_ref() != Some(&sealed));
    assert_eq!(key.open(nonce, ("p", "d1"), &again.sealed.expect("encrypted")), Some(made.secret));
}

#[test]
fn what_would_show_a_secret_needs_tls() {
    let mut house = House::new();
    let id = house.package(10, None);
    house.settings(&Way::ALL, Some(id));
    let keys = house.keys(id, 1);
    for serial in ["SN-0001", "SN-0002", "SN-0003"] {
        house.list(id, Kind::Serial, serial);
    }
    let vendor =
        |way, subject: &str| Proven { product: product(), way, subject: subject.into(), secret: None, once: None };
    let aliyun = [vendor(Way::Aliyun, "SN-0002"), vendor(Way::AliyunUnlisted, "SN-0009")];
    house.tls = false;
    for proof in [Proof::Key(&keys[0]), Proof::Listed("SN-0001"), Proof::Vendor(&aliyun[0]), Proof::Vendor(&aliyun[1])]
    {
        assert_eq!(label(house.register(None, proof)), "tls_required", "{proof:?}");
    }
    let tencent = vendor(Way::Tencent, "SN-0003");
    assert_eq!(label(house.register(None, Proof::Vendor(&tencent))), "made", "its answer is encrypted");
    house.tls = true;
    for proof in [Proof::Key(&keys[0]), Proof::Listed("SN-0001"), Proof::Vendor(&aliyun[0]), Proof::Vendor(&aliyun[1])]
    {
        assert_eq!(label(house.register(None, proof)), "made", "{proof:?}");
    }
}

#[test]
fn a_listed_identifier_registers_one_device_once() {
    let mut house = House::new();
    house.settings(&[Way::Listed], None);
    let id = house.package(10, None);
    house.list(id, Kind::Mac, "00:1A:2B:3C:4D:5E");
    house.list(id, Kind::Imei, "490154203237518");
    let made = house.register(None, Proof::Listed("001a.2b3c.4d5e")).expect("listed");
    assert_eq!(made.name.as_str(), "001A2B3C4D5E");
    assert_eq!(label(house.register(None, Proof::Listed("00-1A-2B-3C-4D-5E"))), "exists");
    assert_eq!(label(house.register(None, Proof::Listed("490154203237518"))), "made");
    assert_eq!(label(house.register(None, Proof::Listed("001A2B3C4D5F"))), "unknown");
    assert_eq!(label(house.register(None, Proof::Listed("?"))), "malformed");
}

#[test]
fn what_is_released_registers_again() {
    let mut house = House::new();
    house.settings(&[Way::BurnIn, Way::Listed], None);
    let id = house.package(2, None);
    let keys = house.keys(id, 1);
    house.list(id, Kind::Serial, "SN-0001");
    let by_key = house.register(Some("d1"), Proof::Key(&keys[0])).expect("new").name;
    assert_eq!(label(house.register(None, Proof::Listed("SN-0001"))), "made");
    let serial = Identifier::parse(Kind::Serial, "SN-0001").expect("a serial");
    let key_id = KeyId { package: id, index: 0 };
    for release in [
        house.desk().plan_release_key(&product(), key_id).expect("used"),
        house.desk().plan_release_identifier(&product(), &serial).expect("used"),
    ] {
        assert_eq!(release.device.len(), 1);
        release.device.into_iter().for_each(|change| house.registry.apply(change));
        house.apply(release.change);
    }
    assert!(house.registry.device("p", by_key.as_str()).is_none());
    assert_eq!(house.book.package("p", id).map(|standing| (standing.used, standing.listed)), Some((0, 1)));
    assert_eq!(house.desk().plan_release_key(&product(), key_id).map(drop), Err(DeskError::NothingToRelease));
    let released = house.desk().plan_release_identifier(&product(), &serial).map(drop);
    assert_eq!(released, Err(DeskError::NothingToRelease));
    let unlist = |house: &House, serial| house.desk().plan_unlist(&product(), serial).map(drop);
    assert_eq!(unlist(&house, &serial), Ok(()));
    assert_eq!(unlist(&house, &Identifier::Mac(1)), Err(DeskError::NotListed));
    assert_eq!(label(house.register(Some("d1"), Proof::Key(&keys[0]))), "made");
    assert_eq!(label(house.register(None, Proof::Listed("SN-0001"))), "made");
    assert_eq!(unlist(&house, &serial), Err(DeskError::InUse));
}

#[test]
fn vendors_ways() {
    let mut house = House::new();
    let id = house.package(10, None);
    house.list(id, Kind::Serial, "SN-0001");
    house.list(id, Kind::Mac, "001A2B3C4D5E");
    house.settings(&[Way::Aliyun, Way::Gizwits], Some(id));
    let secret = house.desk().product_secret("p").expect("set");
    let claim = |device: &str, auth| {
        let text = format!("deviceName{device}productKeyprandom1");
        let client_id = format!("x|authType={auth},random=1,signmethod=hmacsha256|");
        let (user_name, password) =
            (format!("{device}&p"), hex::encode(sign(SignMethod::Sha256, secret.expose(), &text)));
        let claim = aliyun::Claim::from_connect(&client_id, &user_name, password.as_bytes()).expect("a claim");
        claim.prove(&secret).expect("signed")
    };
    let made = house.register(None, Proof::Vendor(&claim("SN-0001", "register"))).expect("listed");
    let (topic, payload) = aliyun::push(&product(), &made, "c1");
    let text = std::str::from_utf8(made.secret.expose()).expect("digits").to_owned();
    assert_eq!(topic, "/ext/register");
    assert_eq!(payload, format!(r#"{{"productKey":"p","deviceName":"SN-0001","deviceSecret":"{text}"}}"#));
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0001", "register")))), "exists");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0002", "register")))), "unknown");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0002", "regnwl")))), "not_allowed");

    house.settings(&[Way::AliyunUnlisted, Way::Gizwits], Some(id));
    let made = house.register(None, Proof::Vendor(&claim("SN-0002", "regnwl"))).expect("any name");
    assert_eq!(aliyun::push(&product(), &made, "c1").0, "/ext/regnwl");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0002", "regnwl")))), "exists");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("a/b+c", "regnwl")))), "malformed");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("abc", "regnwl")))), "malformed", "no serial number");
    assert_eq!(house.book.package("p", id).map(|standing| standing.used), Some(2));

    // The device repeats its request with its passcode; whoever has another gets nothing.
    let ask = |passcode: &str| {
        gizwits::prove(format!("passcode={passcode}&mac=001A2B3C4D5E&product_key=p").as_bytes()).expect("a request")
    };
    let made = house.register(None, Proof::Vendor(&ask("QWERTYUIOP"))).expect("listed");
    assert_eq!((made.name.as_str().len(), made.secret.expose()), (22, &b"QWERTYUIOP"[..]));
    let again = house.register_at(NOW_S * 2, None, Proof::Vendor(&ask("QWERTYUIOP"))).expect("the same");
    assert_eq!((again.name, again.device.is_none()), (made.name.clone(), true));
    assert_eq!(label(house.register(None, Proof::Vendor(&ask("QWERTYUIOX")))), "exists");
    let mac = Identifier::Mac(0x1A_2B3C_4D5E);
    assert_eq!(house.book.listed("p", &mac).and_then(|listed| listed.device), Some(made.name));
    // A proof of one product is none of another.
    let other = gizwits::prove(b"passcode=QWERTYUIOP&mac=001A2B3C4D5E&product_key=q").expect("a request");
    assert_eq!(label(house.register(None, Proof::Vendor(&other))), "malformed");
}

#[test]
fn tencents_way_gives_a_secret_in_its_form() {
    let mut house = House::new();
    let id = house.package(10, None);
    house.list(id, Kind::Serial, "SN-0001");
    house.settings(&[Way::Tencent], Some(id));
    let secret = house.desk().product_secret("p").expect("set");
    let claim = |device: &str, is_listed| {
        let text = format!("deviceName={device}&nonce=1&productId=p&timestamp=0");
        let signature = STANDARD.encode(sign(SignMethod::Sha1, secret.expose(), &text));
        let claim = tencent::Claim::from_body(("p", device), (1, 0), &signature).expect("base64");
        claim.prove(&secret, is_listed).expect("signed")
    };
    let made = house.register(None, Proof::Vendor(&claim("SN-0001", true))).expect("listed");
    assert_eq!(STANDARD.decode(made.secret.expose()).map(|psk| psk.len()), Ok(16));
    assert_eq!(house.secret(&made.name), made.secret);
    assert!(tencent::body(&made, &secret).is_some());
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0001", true)))), "exists");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0002", true)))), "unknown");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0002", false)))), "not_allowed");
    house.settings(&[Way::TencentUnlisted], Some(id));
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0002", false)))), "made");
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0002", false)))), "exists");
    house.settings(&[Way::TencentUnlisted], None);
    assert_eq!(house.book.settings("p").package, None);
    assert_eq!(label(house.register(None, Proof::Vendor(&claim("SN-0003", false)))), "not_allowed", "no package");
}

#[test]
fn a_package_issues_no_more_keys_than_its_quota() {
    let mut house = House::new();
    let id = house.package(5, None);
    assert_eq!(house.keys(id, 3).len(), 3);
    let issue = |house: &House, count| house.desk().plan_issue(&product(), id, count).map(drop);
    assert_eq!(issue(&house, 3), Err(DeskError::Capacity));
    assert_eq!(issue(&house, u32::MAX), Err(DeskError::Capacity));
    assert_eq!(issue(&house, 2), Ok(()));
    assert_eq!(house.desk().issued_keys(&product(), id, 1, 99).map(|keys| keys.len()), Ok(2));
    assert_eq!(house.desk().issued_keys(&product(), id, 3, 99), Ok(vec![]));
    assert_eq!(house.desk().issued_keys(&product(), id, 9, 99), Ok(vec![]));
    let request = PackageRequest { quota: 2, expires_at_s: None, enabled: true };
    let making = Making { key: &house.key, random: [0; 28], now_s: NOW_S };
    let put = |id| house.desk().plan_put_package(&product(), id, request, &making).map(drop);
    assert_eq!(put(Some(id)), Err(DeskError::Quota));
    assert_eq!(put(PackageId::new(9)), Err(DeskError::NoSuchPackage));
    let nowhere = ProductKey::parse("q").expect("a name");
    let put = house.desk().plan_put_package(&nowhere, None, request, &making).map(drop);
    assert_eq!(put, Err(DeskError::NoSuchProduct));
    let settings = house.desk().plan_put_settings(&product(), (Ways::default(), PackageId::new(9)), None, [0; 12]);
    assert_eq!(settings.map(drop), Err(DeskError::NoSuchPackage));
}

#[test]
fn a_list_is_taken_up_in_batches_and_swept_with_its_package() {
    let mut house = House::new();
    let (first, second) = (house.package(10, None), house.package(10, None));
    house.settings(&[Way::BurnIn], None);
    let keys = house.keys(first, 1);
    assert_eq!(label(house.register(None, Proof::Key(&keys[0]))), "made");
    house.list(second, Kind::Serial, "SN-other");
    let mut import = ListImport::new(product(), first);
    let imei = import.row(1, Kind::Imei, "490154203237519");
    assert_eq!(imei, Err(RowError::Identifier(super::super::IdentifierError::ImeiCheck)));
    assert_eq!(import.row(2, Kind::Serial, "SN-other"), Ok(()));
    let mut line = 3;
    while !import.is_full() {
        let text = format!("SN-{:04}", line / 2);
        assert_eq!(import.row(line, Kind::Serial, &text), Ok(()));
        line += 1;
    }
    let changes = import.take(&house.book);
    changes.into_iter().for_each(|change| house.apply(change));
    let report = import.report();
    assert_eq!(report.listed + report.kept, u64::try_from(BATCH).expect("small") - 1, "each is there twice");
    assert_eq!(report.refused.first().iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(house.book.package("p", first).map(|standing| standing.listed), Some(report.listed));

    house.apply(house.desk().plan_delete_package(&product(), first).expect("there"));
    assert_eq!(import.row(line, Kind::Serial, "SN-late"), Ok(()));
    assert!(import.take(&house.book).is_empty());
    assert_eq!(import.report().refused.first().last(), Some(&(line, RowError::NoSuchPackage)));
    assert_eq!(label(house.register(None, Proof::Key(&keys[0]))), "unknown");
    assert_eq!(house.book.swept_packages(), [(product(), first)]);
    assert_eq!(house.book.next_package("p"), PackageId::new(3), "no number twice while something is left");
    let mut sweep = Sweep::new(product(), first);
    while let Some(changes) = sweep.step(&house.book, 7) {
        assert!(changes.len() <= 7);
        changes.into_iter().for_each(|change| house.apply(change));
    }
    assert!(house.book.swept_packages().is_empty());
    assert_eq!(house.book.listed_count(), 1);
    let rest = house.desk().plan_delete_product(&product());
    assert_eq!(rest.len(), 2);
    rest.into_iter().for_each(|change| house.apply(change));
    assert_eq!(house.book.swept_packages(), [(product(), second)]);
}

/// What operators and devices do to one package.
#[derive(Clone, Debug)]
enum Event {
    Issue(u32),
    List(u8),
    Key(u8),
    Identifier(u8),
    ReleaseKey(u8),
    ReleaseIdentifier(u8),
    Unlist(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let few = 0_u8..12;
    prop_oneof![
        (0_u32..4).prop_map(Event::Issue),
        few.clone().prop_map(Event::List),
        few.clone().prop_map(Event::Key),
        few.clone().prop_map(Event::Key),
        few.clone().prop_map(Event::Identifier),
        few.clone().prop_map(Event::ReleaseKey),
        few.clone().prop_map(Event::ReleaseIdentifier),
        few.prop_map(Event::Unlist),
    ]
}

proptest! {
    /// However it goes: never more devices than the quota, never two for a key or an identifier, and the records say the same as memory.
    #[test]
    fn quota_and_once_hold(events in proptest::collection::vec(event(), 1..80)) {
        let mut house = House::new();
        house.settings(&[Way::BurnIn, Way::Listed], None);
        let id = house.package(6, None);
        let serial = |n: u8| Identifier::parse(Kind::Serial, &format!("SN-{n:04}")).expect("a serial");
        let mut records = std::collections::BTreeMap::<Box<[u8]>, Box<[u8]>>::new();
        let mut keep = |ops: Vec<Op>| for op in ops {
            match op {
                Op::RegistryPut(key, value) => drop(records.insert(key, value)),
                Op::RegistryDelete(key) => drop(records.remove(&key)),
                other => panic!("{other:?}"),
            }
        };
        let initial = [
            Change::PutSettings(product(), house.book.settings("p")),
            Change::PutPackage(product(), id, house.book.package("p", id).expect("made").package),
        ];
        keep(initial.iter().map(Change::op).collect());
        let (mut issued, mut free) = (Vec::new(), std::collections::BTreeSet::new());
        for event in events {
            let before = house.book.package("p", id).expect("there");
            let planned: Vec<Change> = match event {
                Event::Issue(count) => match house.desk().plan_issue(&product(), id, count) {
                    Ok((change, keys)) => { free.extend(issued.len()..issued.len() + keys.len()); issued.extend(keys); vec![change] }
                    Err(error) => { prop_assert_eq!(error, DeskError::Capacity); vec![] }
                },
                Event::List(n) if house.book.listed("p", &serial(n)).is_none() => {
                    vec![Change::List(product(), serial(n), id, None)]
                }
                Event::Unlist(n) => vec![Change::Unlist(product(), serial(n))],
                Event::Key(n) if usize::from(n) < issued.len() => {
                    let is_free = free.contains(&usize::from(n));
                    let result = house.register_at(NOW_S, Some(&format!("k{n}")), Proof::Key(&issued[usize::from(n)]));
                    let expected = match (is_free, before.used < 6) { (false, _) => "again", (true, true) => "made", (true, false) => "capacity" };
                    let changes = result.as_ref().map_or(vec![], |made| made.changes.clone());
                    prop_assert_eq!(label(result), expected);
                    if expected == "made" { free.remove(&usize::from(n)); }
                    changes
                }
                Event::Identifier(n) => {
                    let listed = house.book.listed("p", &serial(n));
                    let has_device = house.registry.device("p", &serial(n).to_string()).is_some();
                    let result = house.register_at(NOW_S, None, Proof::Listed(&serial(n).to_string()));
                    let expected = match listed {
                        None => "unknown",
                        Some(_) if has_device => "exists",
                        Some(_) if before.used < 6 => "made",
                        Some(_) => "capacity",
                    };
                    let changes = result.as_ref().map_or(vec![], |made| made.changes.clone());
                    prop_assert_eq!(label(result), expected);
                    changes
                }
                Event::ReleaseKey(n) => match house.desk().plan_release_key(&product(), KeyId { package: id, index: n.into() }) {
                    Ok(release) => {
                        free.insert(n.into());
                        release.device.into_iter().for_each(|device| house.registry.apply(device));
                        vec![release.change]
                    }
                    Err(_) => vec![],
                },
                Event::ReleaseIdentifier(n) => match house.desk().plan_release_identifier(&product(), &serial(n)) {
                    Ok(release) => {
                        release.device.into_iter().for_each(|device| house.registry.apply(device));
                        vec![release.change]
                    }
                    Err(_) => vec![],
                },
                Event::List(_) | Event::Key(_) => vec![],
            };
            keep(planned.iter().map(Change::op).collect());
            planned.into_iter().for_each(|change| house.apply(change));
            prop_assert!(house.book.package("p", id).expect("there").used <= 6);
        }
        let mut loaded = Book::new();
        for (key, value) in records.iter().rev() {
            loaded.load(key, value).expect("as it was written");
        }
        prop_assert_eq!(loaded.package("p", id), house.book.package("p", id));
        prop_assert_eq!(loaded.settings("p"), house.book.settings("p"));
        let page = |book: &Book| book.list_of("p", Kind::Serial, None, 100);
        prop_assert_eq!(page(&loaded), page(&house.book));
        prop_assert_eq!(loaded.used_keys("p", id, None, 100), house.book.used_keys("p", id, None, 100));
    }
}

#[test]
fn nothing_is_left_of_an_empty_book() {
    let mut house = House::new();
    house.settings(&[], None);
    let id = house.package(1, None);
    house.apply(Change::DeletePackage(product(), id));
    house.apply(Change::PutSettings(product(), Settings::default()));
    assert_eq!(format!("{:?}", house.book), "Book(0 products, 0 identifiers)");
    assert_eq!(house.desk().product_secret("p"), Err(RegisterError::NotAllowed));
}
