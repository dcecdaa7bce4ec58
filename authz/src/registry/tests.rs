use std::collections::BTreeMap;

use proptest::prelude::*;
use turnpike_core::durable::Op;

use super::*;
use crate::cipher::CipherPolicy;
use crate::keys::Proof;
use crate::plan::{DeviceRequest, Making, PlanError};
use crate::profile::Profile;
use crate::secret::{MasterKey, Secret};

fn product(key: &str) -> ProductKey {
    ProductKey::parse(key).expect("a name")
}

fn name(name: &str) -> DeviceName {
    DeviceName::parse(name).expect("a name")
}

fn key() -> MasterKey {
    MasterKey::new([7; 32])
}

fn making(key: &MasterKey) -> Making<'_> {
    Making { key, random: std::array::from_fn(|n| u8::try_from(n).expect("small")), now_s: 5 }
}

/// The registry and the store that it would come back from.
#[derive(Default)]
struct World {
    registry: Registry,
    store: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl World {
    fn commit(&mut self, change: &Change) {
        match change.op() {
            Op::RegistryPut(key, value) => drop(self.store.insert(key, value)),
            Op::RegistryDelete(key) => drop(self.store.remove(&key)),
            other => panic!("{other:?} is none of the registry's"),
        }
    }

    fn run(&mut self, change: Change) {
        self.commit(&change);
        self.registry.apply(change);
    }

    /// As after a restart.
    fn reloaded(&self) -> Registry {
        let registry = Registry::new();
        for (key, value) in &self.store {
            registry.load(key, value).expect("a record");
        }
        registry
    }

    fn with_product(key: &str) -> Self {
        let mut world = Self::default();
        let (change, is_new) = world.registry.plan_put_product(&product(key), None, 5).expect("new");
        assert!(is_new);
        world.run(change);
        world
    }

    fn put(&mut self, key: &str, device: &str) -> Secret {
        let request = DeviceRequest::default();
        let made = self.registry.plan_put_device(&product(key), &name(device), request, &making(&self::key()));
        let made = made.expect("a product");
        self.run(made.change);
        made.secret.expect("made")
    }
}

#[test]
fn a_device_is_made_replaced_disabled_and_deleted() {
    let mut world = World::with_product("p");
    let secret = world.put("p", "d");
    assert_eq!(secret.expose(), b"000102030405060708090a0b0c0d0e0f");
    let device = world.registry.device("p", "d").expect("there");
    assert_eq!(key().open(&owner("p", "d"), &device.secret), Ok(secret));
    assert!(key().open(&owner("p", "e"), &device.secret).is_err());
    assert!(world.registry.is_enabled("p", "d"));

    world.run(world.registry.plan_enable_device(&product("p"), &name("d"), false).expect("there"));
    assert!(!world.registry.is_enabled("p", "d"));
    let secret = Some(Secret::new(b"a given secret").expect("long enough"));
    let request = DeviceRequest { secret: secret.clone(), enabled: None };
    let key = key();
    let later = Making { now_s: 99, ..making(&key) };
    let made = world.registry.plan_put_device(&product("p"), &name("d"), request, &later).expect("there");
    assert!(!made.is_new && made.secret.is_none(), "what was given isn't shown");
    world.run(made.change);
    let device = world.registry.device("p", "d").expect("there");
    assert_eq!(key.open(&owner("p", "d"), &device.secret).ok(), secret);
    assert_eq!((device.enabled, device.created_at_s), (false, 5), "a new secret enables nothing");

    world.run(world.registry.plan_enable_device(&product("p"), &name("d"), true).expect("there"));
    world.run(world.registry.plan_enable_product(&product("p"), false).expect("there"));
    assert!(!world.registry.is_enabled("p", "d"));
    for change in world.registry.plan_delete_device(&product("p"), &name("d")).expect("there") {
        world.run(change);
    }
    assert_eq!(world.registry.device("p", "d"), None);
    assert_eq!(world.store.len(), 1);
}

#[test]
fn a_secret_is_kept_until_a_new_one_is_asked_for() {
    let mut world = World::with_product("p");
    let (key, p, d) = (key(), product("p"), name("d"));
    let secret = world.put("p", "d");
    let another = Making { random: [9; 28], ..making(&key) };
    let request = DeviceRequest { secret: None, enabled: Some(false) };
    let put = world.registry.plan_put_device(&p, &d, request, &another).expect("there");
    assert_eq!((put.is_new, &put.secret), (false, &None));
    world.run(put.change);
    let kept = world.registry.device("p", "d").expect("there");
    assert_eq!((kept.enabled, key.open(&owner("p", "d"), &kept.secret)), (false, Ok(secret.clone())));

    let renewed = world.registry.plan_renew_secret(&p, &d, &another).expect("there");
    world.run(renewed.change);
    let after = world.registry.device("p", "d").expect("there");
    assert!(!after.enabled, "a new secret enables nothing");
    assert_eq!(key.open(&owner("p", "d"), &after.secret).ok(), renewed.secret);
    assert_ne!(renewed.secret, Some(secret));
    let nobody = world.registry.plan_renew_secret(&p, &name("e"), &another);
    assert_eq!(nobody.map(drop), Err(PlanError::NoSuchDevice));
}

#[test]
fn what_is_not_there_is_not_changed() {
    let world = World::with_product("p");
    let registry = &world.registry;
    let (p, q, d) = (product("p"), product("q"), name("d"));
    assert_eq!(registry.plan_delete_product(&q), Err(PlanError::NoSuchProduct));
    assert_eq!(registry.plan_enable_product(&q, true), Err(PlanError::NoSuchProduct));
    assert_eq!(registry.plan_delete_device(&p, &d), Err(PlanError::NoSuchDevice));
    assert_eq!(registry.plan_delete_device(&q, &d), Err(PlanError::NoSuchDevice));
    assert_eq!(registry.plan_enable_device(&p, &d, true), Err(PlanError::NoSuchDevice));
    let made = registry.plan_put_device(&q, &d, DeviceRequest::default(), &making(&key()));
    assert_eq!(made.map(drop), Err(PlanError::NoSuchProduct));
    assert!(registry.plan_sweep(&p, 10).is_empty(), "only what is deleted is swept up");
}

#[test]
fn a_deleted_product_is_gone_at_once_and_its_devices_in_steps() {
    let mut world = World::with_product("p");
    for n in 0..25 {
        world.put("p", &format!("d{n}"));
    }
    world.run(world.registry.plan_delete_product(&product("p")).expect("there"));
    assert!(world.registry.product("p").is_none() && world.registry.find("p", "d1").is_none());
    assert!(!world.registry.is_enabled("p", "d1") && world.registry.devices("p", None, 10).is_empty());
    assert!(world.registry.products(None, 10).is_empty());
    let again = world.registry.plan_put_product(&product("p"), None, 9);
    assert_eq!(again, Err(PlanError::BeingDeleted));

    // A crash in the middle: what is left is no product, and is found.
    let step = world.registry.plan_sweep(&product("p"), 10);
    assert_eq!(step.len(), 10);
    step.into_iter().for_each(|change| world.run(change));
    world.registry = world.reloaded();
    assert!(world.registry.product("p").is_none() && world.registry.find("p", "d9").is_none());
    assert_eq!(world.registry.swept_products(), [product("p")]);
    for left in [10, 5, 0] {
        let step = world.registry.plan_sweep(&product("p"), 10);
        assert_eq!(step.len(), left);
        step.into_iter().for_each(|change| world.run(change));
    }
    assert!(world.registry.swept_products().is_empty() && world.store.is_empty());
    assert!(world.registry.plan_put_product(&product("p"), None, 9).is_ok());
}

#[test]
fn a_device_put_while_its_product_goes_away_brings_nothing_back() {
    let mut world = World::with_product("p");
    let made = world
        .registry
        .plan_put_device(&product("p"), &name("late"), DeviceRequest::default(), &making(&key()))
        .expect("there");
    world.run(world.registry.plan_delete_product(&product("p")).expect("there"));
    world.run(made.change);
    for registry in [&world.registry, &world.reloaded()] {
        assert!(registry.product("p").is_none() && !registry.is_enabled("p", "late"));
        assert_eq!(registry.swept_products(), [product("p")]);
        assert_eq!(registry.plan_sweep(&product("p"), 10).len(), 1);
    }
}

#[test]
fn pages_are_in_order_and_bounded() {
    let mut world = World::with_product("p");
    for n in (0..30).rev() {
        world.put("p", &format!("d{n:02}"));
    }
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = world.registry.devices("p", after.as_deref(), 7);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.to_string());
        seen.extend(page.into_iter().map(|(name, _)| name.to_string()));
    }
    assert_eq!(seen, (0..30).map(|n| format!("d{n:02}")).collect::<Vec<_>>());
    assert_eq!(world.registry.devices("p", Some("d05x"), 1)[0].0.as_str(), "d06", "the cursor need not exist");
    assert!(world.registry.devices("q", None, 7).is_empty());
    assert_eq!(world.registry.device_count("p"), 30);
    for key in ["a", "z"] {
        let plan = world.registry.plan_put_product(&product(key), None, 1);
        world.run(plan.expect("new").0);
    }
    let keys = |after, limit| -> Vec<String> {
        world.registry.products(after, limit).into_iter().map(|(key, _)| key.to_string()).collect()
    };
    assert_eq!(keys(None, 10), ["a", "p", "z"]);
    assert_eq!(keys(Some("a"), 1), ["p"]);
}

#[test]
fn settings_of_a_product_stay_where_nothing_is_said() {
    let mut world = World::with_product("p");
    let native = ProfileSet::from_iter([Profile::Native]);
    assert_eq!(world.registry.profiles("p"), Some(ProfileSet::DEFAULT));
    world.run(world.registry.plan_allow_profiles(&product("p"), native).expect("there"));
    world.run(world.registry.plan_put_product(&product("p"), Some(false), 6).expect("there").0);
    let (change, is_new) = world.registry.plan_put_product(&product("p"), None, 7).expect("there");
    assert!(!is_new);
    world.run(change);
    for registry in [&world.registry, &world.reloaded()] {
        assert_eq!(registry.product("p"), Some(Product { enabled: false, created_at_s: 5 }));
        assert_eq!(registry.profiles("p"), Some(native), "replacing a product widens nothing");
    }
    world.run(world.registry.plan_allow_profiles(&product("p"), ProfileSet::DEFAULT).expect("there"));
    assert_eq!((world.reloaded().profiles("p"), world.store.len()), (Some(ProfileSet::DEFAULT), 1));
}

#[test]
fn what_a_deleted_product_allowed_goes_with_it() {
    let mut world = World::with_product("p");
    world.run(world.registry.plan_allow_profiles(&product("p"), ProfileSet::from_iter([])).expect("there"));
    world.put("p", "d");
    world.run(world.registry.plan_delete_product(&product("p")).expect("there"));
    world.registry = world.reloaded();
    assert_eq!(world.registry.profiles("p"), None);
    for _ in 0..2 {
        let step = world.registry.plan_sweep(&product("p"), 1);
        assert_eq!(step.len(), 1);
        step.into_iter().for_each(|change| world.run(change));
    }
    assert!(world.store.is_empty() && world.registry.swept_products().is_empty());
}

#[test]
fn keys_and_demands_go_with_a_deleted_product() {
    let mut world = World::with_product("p");
    let print = Fingerprint::of(b"a certificate");
    let proofs = Proofs::new(vec![Proof::Certificate(print)]).expect("a list");
    let (changes, is_new) =
        world.registry.plan_put_keyed_device(&product("p"), &name("d"), proofs, Some(false), 7).expect("a product");
    assert!(is_new);
    changes.into_iter().for_each(|change| world.run(change));
    let device = world.registry.device("p", "d").expect("there");
    assert!(device.secret.is_none() && !device.enabled && device.created_at_s == 7);
    let policy = ProductPolicy { require_tls: true, ..ProductPolicy::default() };
    world.run(world.registry.plan_set_policy(&product("p"), policy).expect("there"));
    world.run(world.registry.plan_set_payloads(&product("p"), PayloadPolicy::Transparent).expect("there"));
    let authorities = crate::x509::testing::Authority::new("ca").authorities();
    world.run(world.registry.plan_set_authorities(&product("p"), Some(authorities)).expect("there"));
    assert_eq!(world.store.len(), 6);

    world.run(world.registry.plan_delete_product(&product("p")).expect("there"));
    world.registry = world.reloaded();
    assert_eq!((world.registry.policy("p"), world.registry.authorities("p")), (None, None));
    assert_eq!(world.registry.payloads("p"), None);
    for _ in 0..5 {
        let step = world.registry.plan_sweep(&product("p"), 1);
        assert_eq!(step.len(), 1);
        assert_eq!(world.registry.plan_put_product(&product("p"), None, 9), Err(PlanError::BeingDeleted));
        step.into_iter().for_each(|change| world.run(change));
    }
    assert!(world.store.is_empty() && world.registry.swept_products().is_empty());
    assert_eq!(world.registry.certificate_owner(&print), None);
}

#[test]
fn marks_are_remembered() {
    let mut world = World::default();
    world.run(Change::Mark("demo".into()));
    world.run(Change::Mark("demo".into()));
    for registry in [&world.registry, &world.reloaded()] {
        assert!(registry.is_marked("demo") && !registry.is_marked("other"));
    }
}

#[test]
fn a_device_is_found_by_its_name_in_products_that_say_so() {
    let mut world = World::default();
    for key in ["a", "b", "c", "n", "z"] {
        world.run(world.registry.plan_put_product(&product(key), None, 5).expect("new").0);
        world.put(key, "d");
    }
    world.put("b", "only");
    let find = |world: &World, profile, name: &str| -> Vec<String> {
        let mut keys: Vec<String> =
            world.registry.find_by_device_name(profile, name).iter().map(|(key, _)| key.to_string()).collect();
        keys.sort();
        keys
    };
    assert!(find(&world, Profile::Tuya, "d").is_empty());
    for key in ["z", "c", "b"] {
        let profiles = ProfileSet::from_iter([Profile::Tuya, Profile::Native]);
        world.run(world.registry.plan_allow_profiles(&product(key), profiles).expect("there"));
    }
    world.run(world.registry.plan_allow_profiles(&product("n"), ProfileSet::from_iter([])).expect("there"));
    world.registry = world.reloaded();
    assert_eq!(find(&world, Profile::Tuya, "d"), ["b", "c", "z"]);
    assert_eq!(find(&world, Profile::Tuya, "only"), ["b"]);
    for nothing in
        [find(&world, Profile::Azure, "d"), find(&world, Profile::Huawei, "d"), find(&world, Profile::Tuya, "x")]
    {
        assert!(nothing.is_empty());
    }
    world.run(world.registry.plan_delete_product(&product("b")).expect("there"));
    assert_eq!(find(&world, Profile::Tuya, "d"), ["c", "z"]);
    world.run(world.registry.plan_allow_profiles(&product("c"), ProfileSet::DEFAULT).expect("there"));
    assert_eq!(find(&world, Profile::Tuya, "d"), ["z"]);
}

#[test]
fn namesakes_that_are_tried_are_bounded() {
    let mut world = World::default();
    for n in 0..NAMESAKES_MAX * 2 {
        let key = product(&format!("p{n}"));
        world.run(world.registry.plan_put_product(&key, None, 5).expect("new").0);
        world.put(key.as_str(), "d");
        let tuya = ProfileSet::from_iter([Profile::Tuya]);
        world.run(world.registry.plan_allow_profiles(&key, tuya).expect("there"));
    }
    assert_eq!(world.registry.find_by_device_name(Profile::Tuya, "d").len(), NAMESAKES_MAX);
}

fn any_change() -> impl Strategy<Value = (u8, usize, usize)> {
    (0..17_u8, 0..2_usize, 0..3_usize)
}

proptest! {
    /// Whatever is done, a restart gives back what was there.
    #[test]
    fn the_store_gives_back_what_memory_had(steps in proptest::collection::vec(any_change(), 1..40)) {
        let mut world = World::default();
        let (products, names) = (["p", "q"].map(product), ["a", "b", "c"].map(name));
        let (authorities, one) = (crate::x509::testing::Authority::new("ca").authorities(), |change| vec![change]);
        for (what, p, d) in steps {
            let (p, d) = (&products[p], &names[d]);
            let registry = &world.registry;
            let made = |made: crate::plan::MadeDevice| vec![made.change];
            let print = |d: &DeviceName| Proof::Certificate(Fingerprint::of(d.as_str().as_bytes()));
            let proofs = || Proofs::new(vec![print(d), print(&names[0])]).or_else(|_| Proofs::new(vec![print(d)]));
            let policy = ProductPolicy { require_tls: d.as_str() != "a", ..ProductPolicy::default() };
            let plan = match what {
                0 => registry.plan_put_product(p, None, 1).map(|(change, _)| vec![change]),
                1 => registry.plan_enable_product(p, d.as_str() == "a").map(one),
                2 => registry.plan_delete_product(p).map(one),
                3 => Ok(registry.plan_sweep(p, 1)),
                4 => registry.plan_delete_device(p, d),
                5 => registry.plan_enable_device(p, d, p.as_str() == "p").map(one),
                6 => registry.plan_allow_profiles(p, Profile::ALL.into_iter().take([0, 2, 5][usize::from(d.as_str().as_bytes()[0] - b'a')]).collect()).map(one),
                7 => registry.plan_set_device_keys(p, d, proofs().ok()).map(one),
                8 => registry.plan_set_device_keys(p, d, None).map(one),
                9 => registry.plan_set_policy(p, policy).map(one),
                10 => registry.plan_put_keyed_device(p, d, proofs().expect("a list"), None, 1).map(|(changes, _)| changes),
                11 => registry.plan_drop_secret(p, d).map(one),
                12 => registry.plan_set_authorities(p, (d.as_str() != "a").then(|| authorities.clone())).map(one),
                13 => registry.plan_set_payloads(p, if d.as_str() == "a" { PayloadPolicy::Plain } else { PayloadPolicy::Cipher(CipherPolicy::default()) }).map(one),
                _ => registry.plan_put_device(p, d, DeviceRequest::default(), &making(&key())).map(made),
            };
            plan.into_iter().flatten().for_each(|change| world.run(change));
            let reloaded = world.reloaded();
            prop_assert_eq!(reloaded.products(None, 10), world.registry.products(None, 10));
            prop_assert_eq!(reloaded.swept_products(), world.registry.swept_products());
            for p in &products {
                prop_assert_eq!(reloaded.profiles(p.as_str()), world.registry.profiles(p.as_str()));
                for registry in [&reloaded, &world.registry] {
                    if let Some(profiles) = registry.profiles(p.as_str()) {
                        prop_assert_eq!(registry.allowed(p.as_str()), profiles);
                    }
                    let found = registry.find_by_device_name(Profile::Tuya, "a");
                    prop_assert_eq!(found.iter().any(|(key, _)| key == p), registry.find(p.as_str(), "a").is_some_and(|found| found.profiles.contains(Profile::Tuya)));
                }
                prop_assert_eq!(reloaded.devices(p.as_str(), None, 10), world.registry.devices(p.as_str(), None, 10));
                prop_assert_eq!(reloaded.policy(p.as_str()), world.registry.policy(p.as_str()));
                prop_assert_eq!(reloaded.payloads(p.as_str()), world.registry.payloads(p.as_str()));
                prop_assert_eq!(reloaded.authorities(p.as_str()), world.registry.authorities(p.as_str()));
                for d in &names {
                    let proofs = world.registry.proofs(p.as_str(), d.as_str());
                    prop_assert_eq!(&reloaded.proofs(p.as_str(), d.as_str()), &proofs);
                    for print in proofs.iter().flat_map(|proofs| proofs.certificates()) {
                        let owner = Some((p.clone(), d.clone()));
                        prop_assert_eq!(&world.registry.certificate_owner(&print), &owner, "nobody takes a certificate over");
                        prop_assert_eq!(reloaded.certificate_owner(&print), owner);
                    }
                }
            }
        }
    }
}

#[test]
fn labels_stay_with_their_device_and_go_with_it() {
    use crate::labels::{LabelsRequest, Wanted};
    let (registry, key) = (Registry::new(), MasterKey::new([1; 32]));
    let product = ProductKey::parse("p").expect("a name");
    registry.apply(registry.plan_put_product(&product, None, 1).expect("new").0);
    let making = Making { key: &key, random: [1; 28], now_s: 1 };
    let request = LabelsRequest::new(Some(["beta"]), Some("eu")).expect("labels");
    for device in ["a", "b", "c"] {
        let name = DeviceName::parse(device).expect("a name");
        let made = registry.plan_put_device(&product, &name, DeviceRequest::default(), &making).expect("a product");
        registry.apply(made.change);
        if device != "c" {
            let change = registry.plan_label_device(&product, &name, &request).expect("new");
            assert_eq!(change.concerns(), None, "nobody is judged by labels");
            registry.apply(change);
        }
        assert_eq!(registry.plan_label_device(&product, &name, &LabelsRequest::default()), None, "it has these");
    }
    let wanted = Wanted { tags: ["beta".into()].into(), region: None };
    let found = |registry: &Registry| {
        let (found, next) = registry.labelled("p", &wanted, None, (10, 10));
        assert_eq!(next, None);
        found.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(&registry), ["a", "b"]);
    let a = DeviceName::parse("a").expect("a name");
    let renewed = registry.plan_renew_secret(&product, &a, &making).expect("there");
    registry.apply(renewed.change);
    registry.apply(registry.plan_enable_device(&product, &a, false).expect("there"));
    assert_eq!(registry.labels("p", "a").expect("labels").region(), Some("eu"), "nothing else touches them");

    let gone = registry.plan_delete_device(&product, &a).expect("there");
    assert!(matches!(&gone[..], [Change::SetLabels(_, _, None), Change::DeleteDevice(..)]));
    gone.into_iter().for_each(|change| registry.apply(change));
    assert_eq!((registry.labels("p", "a"), found(&registry)), (None, vec!["b".to_owned()]));

    registry.apply(registry.plan_delete_product(&product).expect("there"));
    let swept = registry.plan_sweep(&product, 100);
    assert!(swept.iter().any(|change| matches!(change, Change::SetLabels(_, name, None) if name.as_str() == "b")));
    swept.into_iter().for_each(|change| registry.apply(change));
    assert!(registry.swept_products().is_empty());
}
