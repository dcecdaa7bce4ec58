use turnpike_core::gate::{Attempt, Gate, Principal};

use crate::credential;
use crate::gate::login::tests::{NOW, World, bare, key_of, name, print_of, secret, signed, with_certificate};
use crate::keys::testing::{ed25519_pem, private, rsa, rsa_pem};
use crate::keys::{Proof, Proofs};
use crate::product::ProductPolicy;
use crate::profile::{Profile, ProfileSet};
use crate::x509::testing::{Authority, client, named};

/// Who has come in by an attempt.
fn enter(world: &World, attempt: &Attempt<'_>) -> Principal {
    world.enter(attempt, NOW).expect("right credentials").principal
}

fn by_password(world: &World, made: &credential::Credentials, tls: bool) -> Principal {
    let (user_name, password) = (Some(&*made.user_name), Some(made.password.as_bytes()));
    enter(world, &Attempt { client_id: &made.client_id, user_name, password, tls, ..bare() })
}

fn by_secret(world: &World, nonce: &str, tls: bool) -> Principal {
    by_password(world, &credential::native("p", "d", &secret(), "c", NOW.unix_ms, nonce), tls)
}

impl World {
    fn welcomes(&self, principals: &[&Principal]) -> Vec<bool> {
        principals.iter().map(|principal| self.gate.still_welcome(principal)).collect()
    }

    fn profiles(&self, profiles: &[Profile]) {
        let set = ProfileSet::from_iter(profiles.iter().copied());
        self.apply(self.gate.registry().plan_allow_profiles(&self.product, set));
    }

    fn proofs(&self, device: &str, proofs: Vec<Proof>) {
        let proofs = (!proofs.is_empty()).then(|| Proofs::new(proofs).expect("a list"));
        self.apply(self.gate.registry().plan_set_device_keys(&self.product, &name(device), proofs));
    }
}

#[test]
fn who_came_in_by_a_format_goes_with_it() {
    let world = World::new();
    world.put_secret("d");
    let native = by_secret(&world, "1", false);
    let aliyun = credential::aliyun("p", "d", &secret(), "c", crate::profile::SignMethod::Sha256, None);
    let aliyun = by_password(&world, &aliyun, false);
    assert_eq!(native, aliyun, "one device, by whatever means");
    assert_eq!(world.welcomes(&[&native, &aliyun]), [true, true]);
    world.profiles(&[Profile::Native]);
    assert_eq!(world.welcomes(&[&native, &aliyun]), [true, false]);
    world.profiles(&[Profile::Aliyun, Profile::Tuya]);
    assert_eq!(world.welcomes(&[&native, &aliyun]), [false, true]);
    world.apply(world.gate.registry().plan_enable_device(&world.product, &name("d"), false));
    assert_eq!(world.welcomes(&[&native, &aliyun]), [false, false]);
}

#[test]
fn who_came_in_by_a_key_or_a_secret_goes_with_it() {
    let world = World::new();
    let (one, two) = (private(&ed25519_pem()), private(&ed25519_pem()));
    world.put("d", vec![key_of(&one), key_of(&two)]).expect("a device");
    world.put_secret("d");
    let first = by_password(&world, &signed(&one, "d", "1"), false);
    let second = by_password(&world, &signed(&two, "d", "2"), false);
    let third = by_secret(&world, "3", false);
    let all = [&first, &second, &third];
    assert_eq!(world.welcomes(&all), [true, true, true]);
    world.proofs("d", vec![key_of(&two)]);
    assert_eq!(world.welcomes(&all), [false, true, true]);
    world.put_secret("d");
    assert_eq!(world.welcomes(&all), [false, true, true], "another secret counts from the next log-in on");
    world.apply(world.gate.registry().plan_drop_secret(&world.product, &name("d")));
    assert_eq!(world.welcomes(&all), [false, true, false]);
    world.proofs("d", vec![]);
    assert_eq!(world.welcomes(&all), [false, false, false]);
}

#[test]
fn who_came_in_by_a_short_key_goes_when_that_is_not_allowed_any_more() {
    let world = World::new();
    let key = private(&rsa_pem(&rsa(1024)));
    world.policy(ProductPolicy { allow_rsa_1024: true, ..ProductPolicy::default() });
    world.put("d", vec![key_of(&key)]).expect("a device");
    let principal = by_password(&world, &signed(&key, "d", "1"), false);
    assert_eq!(world.welcomes(&[&principal]), [true]);
    world.policy(ProductPolicy::default());
    assert_eq!(world.welcomes(&[&principal]), [false]);
}

#[test]
fn who_came_in_without_tls_goes_when_it_is_demanded() {
    let world = World::new();
    world.put_secret("d");
    let (plain, tls) = (by_secret(&world, "1", false), by_secret(&world, "2", true));
    world.policy(ProductPolicy { require_tls: true, ..ProductPolicy::default() });
    assert_eq!(world.welcomes(&[&plain, &tls]), [false, true]);
}

#[test]
fn who_came_in_by_a_certificate_goes_with_it_or_with_its_authority() {
    let world = World::new();
    let (ca, other, listener) = (Authority::new("ca"), Authority::new("other"), Authority::new("listener"));
    let (registered, issued) = (listener.issue(&client()), ca.issue(&named("p/e")));
    world.put("d", vec![print_of(&registered)]).expect("a device");
    world.put("e", vec![key_of(&private(&ed25519_pem()))]).expect("a device");
    let registry = world.gate.registry();
    let authorities = |world: &World, of: &Authority| {
        world.apply(registry.plan_set_authorities(&world.product, Some(of.authorities())));
    };
    authorities(&world, &ca);
    let first = enter(&world, &with_certificate(&registered, None));
    let second = enter(&world, &with_certificate(&issued, None));
    assert_eq!(world.welcomes(&[&first, &second]), [true, true]);
    authorities(&world, &other);
    assert_eq!(world.welcomes(&[&first, &second]), [true, false]);
    authorities(&world, &ca);
    assert_eq!(world.welcomes(&[&first, &second]), [true, true]);
    world.proofs("d", vec![key_of(&private(&ed25519_pem()))]);
    assert_eq!(world.welcomes(&[&first, &second]), [false, true]);
}

#[test]
fn who_had_to_show_no_certificate_goes_when_one_is_demanded() {
    let world = World::new();
    let (ca, key) = (Authority::new("ca"), private(&ed25519_pem()));
    let der = ca.issue(&named("p/d"));
    world.put("d", vec![key_of(&key)]).expect("a device");
    world.apply(world.gate.registry().plan_set_authorities(&world.product, Some(ca.authorities())));
    let demand = ProductPolicy { require_certificate: true, ..ProductPolicy::default() };
    let with = |nonce: &str| {
        let made = signed(&key, "d", nonce);
        let (user_name, password) = (Some(&*made.user_name), Some(made.password.as_bytes()));
        let certificate = Some(&*der);
        enter(&world, &Attempt { client_id: &made.client_id, user_name, password, tls: true, certificate, ..bare() })
    };
    let before = with("1");
    world.policy(demand);
    let after = with("2");
    assert_eq!(world.welcomes(&[&before, &after]), [false, true]);
    world.apply(world.gate.registry().plan_set_authorities(&world.product, None));
    assert_eq!(world.welcomes(&[&after]), [false]);
    world.policy(ProductPolicy::default());
    assert_eq!(world.welcomes(&[&before, &after]), [true, true], "by the key alone");
}

#[test]
fn of_whom_nothing_is_known_it_is_the_device_that_counts() {
    let world = World::new();
    world.put_secret("d");
    let of = |device: &str| {
        let (product, device, means) = ("p".into(), device.into(), turnpike_core::gate::Means::default());
        Principal::Device(std::sync::Arc::new(turnpike_core::gate::DeviceIdentity { product, device, means }))
    };
    world.profiles(&[]);
    assert_eq!(world.welcomes(&[&of("d"), &of("x")]), [true, false]);
}
