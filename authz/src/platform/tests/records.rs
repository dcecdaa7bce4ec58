//! What survives a restart, and what an operator may not do.

use std::sync::Arc;

use proptest::prelude::*;
use turnpike_core::durable::Op;

use super::*;

/// Key and value of what a change puts.
fn put(change: &Change) -> (Box<[u8]>, Box<[u8]>) {
    match change.op() {
        Op::RegistryPut(key, value) => (key, value),
        other => panic!("{other:?} is no put"),
    }
}

#[test]
fn a_restart_gives_back_platforms_and_refresh_tokens_and_no_access_token() {
    let world = World::new();
    let issued = world.log_in(1, at(0));
    let platform = world.platforms.platform(world.id).expect("there");
    let family = issued.changes.last().expect("a family").clone();
    let again = Platforms::new(MasterKey::new([7; 32]), NONCES_MAX);
    // In any order.
    for change in [&family, &Change::PutPlatform(world.id, Arc::clone(&platform))] {
        let (key, value) = put(change);
        assert!(is_ours(&key));
        assert_eq!(again.load(&key, &value), Ok(()));
        // No token is in the records, as text.
        for token in [&issued.access, &issued.refresh, &world.auth] {
            assert!(!value.windows(16).any(|part| part == &token.expose().as_bytes()[..16]));
        }
    }
    let world = World { platforms: again, ..world };
    assert_eq!(*world.platforms.platform(world.id).expect("there"), *platform);
    assert_eq!(world.access(&issued.access, at(1)), Err(Cause::WrongAccess));
    let Refresh::Issued(renewed) = world.platforms.plan_refresh(world.id, issued.refresh.expose(), &random(2), at(2))
    else {
        panic!("it is good")
    };
    world.apply(renewed.changes.clone());
    assert!(world.access(&renewed.access, at(3)).is_ok());
}

#[test]
fn under_another_master_key_nobody_gets_in_and_no_one_is_to_blame() {
    let world = World::new();
    let (key, value) = put(&Change::PutPlatform(world.id, world.platforms.platform(world.id).expect("there")));
    let other = Platforms::new(MasterKey::new([8; 32]), NONCES_MAX);
    other.load(&key, &value).expect("read");
    let world = World { platforms: other, ..world };
    let request = world.request(Operation::LogIn, &[], at(0));
    assert_eq!(world.admit(&request, at(0)).expect_err("refused"), Cause::Sealed);
}

#[test]
fn records_that_are_damaged_or_of_a_later_version_are_told_apart() {
    let world = World::new();
    let platform = world.platforms.platform(world.id).expect("there");
    let family = world.log_in(1, at(0)).changes.last().expect("a family").clone();
    for change in [Change::PutPlatform(world.id, platform), family] {
        let (key, value) = put(&change);
        let mut later = value.to_vec();
        later[0] = 2;
        assert_eq!(world.platforms.load(&key, &later), Err(RecordError::Layout(2)));
        for cut in 0..40.min(value.len()) {
            assert!(matches!(world.platforms.load(&key, &value[..cut]), Err(RecordError::Damaged(_))), "{cut}");
        }
        let other = [&key[..], b"\0x"].concat();
        assert!(matches!(world.platforms.load(&other, &value), Err(RecordError::Damaged(_))));
    }
    assert!(!is_ours(b"p\0lamp") && !is_ours(b"xp") && !is_ours(b"d\0x\0p"));
}

#[test]
fn an_operator_is_held_to_the_bounds() {
    let world = World::new();
    let create = |edit: Edit, n: u8| world.platforms.plan_create(edit, &making(n)).err();
    let good = || edit("other", b"two");
    assert_eq!(create(good(), 2), None);
    assert_eq!(create(good(), 1), Some(PlanError::NumberTaken));
    let named = |name: &str| Edit { name: Some(name.into()), ..good() };
    for name in ["", &"n".repeat(65), "a\nb"] {
        assert_eq!(create(named(name), 2), Some(PlanError::Name), "{name:?}");
    }
    assert_eq!(create(edit("other", b"one"), 2), Some(PlanError::CertificateTaken));
    let certificates = |names: &[&[u8]]| Edit {
        certificates: Some(names.iter().map(|name| Fingerprint::of(name)).collect()),
        ..good()
    };
    let five: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
    for bad in [&[], &five[..], &[five[0], five[0]]] {
        assert_eq!(create(certificates(bad), 2), Some(PlanError::Certificates));
    }
    let grant = |n: usize| Grant { product: product(&format!("p{n}")), control: true };
    let grants = |grants| Edit { grants: Some(grants), ..good() };
    assert_eq!(create(grants(vec![grant(1), grant(1)]), 2), Some(PlanError::Grants));
    assert_eq!(create(grants((0..=GRANTS_MAX).map(grant).collect()), 2), Some(PlanError::Grants));
    assert_eq!(create(grants((0..GRANTS_MAX).map(grant).collect()), 2), None);
    let nobody = PlatId::new(PlatId::LEAST).expect("a number");
    assert_eq!(world.platforms.plan_edit(nobody, Edit::default()).err(), Some(PlanError::NoSuchPlatform));
    assert_eq!(world.platforms.plan_delete(nobody).err(), Some(PlanError::NoSuchPlatform));
    assert_eq!(world.platforms.plan_edit(world.id, Edit::default()).map(|changes| changes.len()), Ok(1));
    world.apply(world.platforms.plan_delete(world.id).expect("planned"));
    assert!(world.platforms.is_empty() && world.platforms.list(None, 10).is_empty());
}

proptest! {
    #[test]
    fn no_bytes_panic(
        kind in "x[prq]",
        id in prop_oneof![Just("1000000000000000".to_owned()), "\\PC{0,18}"],
        family in prop_oneof![Just(String::new()), Just("\x000123456789abcdef".to_owned()), "\\PC{0,8}"],
        value in proptest::collection::vec(0_u8..4, 0..60),
    ) {
        let key = format!("{kind}\0{id}{family}");
        let platforms = Platforms::new(MasterKey::new([7; 32]), 16);
        let _ = platforms.load(key.as_bytes(), &value);
        let _ = Change::decode(&value, key.as_bytes());
        if let Ok(change) = Change::decode(key.as_bytes(), &value) {
            let (key_again, value_again) = put(&change);
            prop_assert_eq!((&*key_again, &*value_again), (key.as_bytes(), &*value));
        }
    }
}
