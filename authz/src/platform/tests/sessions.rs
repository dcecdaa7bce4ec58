//! Tokens and data keys: how long they are good, and what ends them.

use proptest::prelude::*;

use super::*;

fn refresh(world: &World, token: &Token, n: u8, now: Now) -> Refresh {
    world.platforms.plan_refresh(world.id, token.expose(), &random(n), now)
}

#[track_caller]
fn renewed(world: &World, token: &Token, n: u8, now: Now) -> Issued {
    let Refresh::Issued(issued) = refresh(world, token, n, now) else { panic!("not renewed") };
    world.apply(issued.changes.clone());
    issued
}

#[test]
fn an_access_token_is_good_for_two_hours() {
    let world = World::new();
    let issued = world.log_in(1, at(0));
    assert!(world.access(&issued.access, at(ACCESS_MS - 1)).is_ok());
    assert_eq!(world.access(&issued.access, at(ACCESS_MS)), Err(Cause::WrongAccess));
    assert_eq!(world.access(&issued.refresh, at(1)), Err(Cause::WrongAccess), "the other token is none");
}

#[test]
fn a_refresh_replaces_both_tokens_and_a_second_one_ends_the_family() {
    let world = World::new();
    let first = world.log_in(1, at(0));
    let second = renewed(&world, &first.refresh, 2, at(1));
    assert_eq!(world.access(&first.access, at(2)), Err(Cause::WrongAccess));
    assert!(world.access(&second.access, at(2)).is_ok());
    let other = world.log_in(3, at(3));
    let Refresh::Reused(change) = refresh(&world, &first.refresh, 4, at(4)) else { panic!("it was used") };
    world.platforms.apply(change);
    assert_eq!(world.access(&second.access, at(5)), Err(Cause::WrongAccess));
    assert!(matches!(refresh(&world, &second.refresh, 5, at(5)), Refresh::Unknown));
    assert!(world.access(&other.access, at(5)).is_ok(), "another log-in is none of it");
}

#[test]
fn a_refresh_token_is_good_for_fourteen_days_from_its_own_issue() {
    let world = World::new();
    let first = world.log_in(1, at(0));
    let second = renewed(&world, &first.refresh, 2, at(REFRESH_MS - 1));
    assert!(matches!(refresh(&world, &second.refresh, 3, at(2 * REFRESH_MS - 1)), Refresh::Unknown));
    let Refresh::Issued(_) = refresh(&world, &second.refresh, 3, at(2 * REFRESH_MS - 2)) else { panic!("good") };
}

#[test]
fn a_log_out_destroys_the_tokens() {
    let world = World::new();
    let issued = world.log_in(1, at(0));
    let family = world.access(&issued.access, at(1)).expect("good");
    world.platforms.issue_data_key(world.id, &user(1), &[1; 32], at(1)).expect("issued");
    world.apply(vec![world.platforms.plan_log_out(world.id, family)]);
    assert_eq!(world.access(&issued.access, at(2)), Err(Cause::WrongAccess));
    assert!(matches!(refresh(&world, &issued.refresh, 2, at(2)), Refresh::Unknown));
    assert_eq!(world.platforms.data_key(world.id, &user(1), at(2)).err(), Some(Cause::NoDataKey));
    let again = world.log_in(3, at(3));
    assert!(again.access.expose() != issued.access.expose() && again.refresh.expose() != issued.refresh.expose());
    assert_eq!(world.access(&issued.access, at(4)), Err(Cause::WrongAccess));
}

#[test]
fn log_ins_are_bounded_and_the_oldest_gives_way() {
    let world = World::new();
    let all: Vec<Issued> = (0..=FAMILIES_MAX as u8).map(|n| world.log_in(n, at(u64::from(n)))).collect();
    assert_eq!(world.platforms.log_ins(world.id), FAMILIES_MAX);
    assert_eq!(world.access(&all[0].access, at(100)), Err(Cause::WrongAccess));
    assert!(world.access(&all[1].access, at(100)).is_ok());
    // After their time all go with the next log-in.
    let last = world.log_in(99, at(REFRESH_MS + 100));
    assert_eq!(last.changes.len(), FAMILIES_MAX + 1);
    assert_eq!(world.platforms.log_ins(world.id), 1);
}

#[test]
fn what_the_operator_does_ends_log_ins() {
    type Plan = fn(&World) -> Vec<Change>;
    let plans: [(&str, Plan); 3] = [
        ("disable", |world| {
            let off = Edit { enabled: Some(false), ..Edit::default() };
            world.platforms.plan_edit(world.id, off).expect("planned")
        }),
        ("renew", |world| world.platforms.plan_renew(world.id, &making(9)).expect("planned").changes),
        ("delete", |world| world.platforms.plan_delete(world.id).expect("planned")),
    ];
    for (what, plan) in plans {
        let world = World::new();
        let issued = world.log_in(1, at(0));
        world.platforms.issue_data_key(world.id, &user(1), &[1; 32], at(1)).expect("issued");
        world.apply(plan(&world));
        assert!(world.access(&issued.access, at(2)).is_err(), "{what}");
        assert!(matches!(refresh(&world, &issued.refresh, 2, at(2)), Refresh::Unknown), "{what}");
        assert!(world.platforms.data_key(world.id, &user(1), at(2)).is_err(), "{what}");
    }
}

#[test]
fn a_new_auth_token_voids_the_old_one() {
    let mut world = World::new();
    let old = world.request(Operation::LogIn, &[], at(0));
    let Created { auth_token, changes, .. } = world.platforms.plan_renew(world.id, &making(9)).expect("planned");
    world.apply(changes);
    assert_eq!(world.admit(&old, at(0)).expect_err("refused"), Cause::WrongSignature);
    world.auth = auth_token;
    world.log_in(1, at(1));
}

#[test]
fn a_platform_is_held_to_its_grants() {
    let world = World::new();
    let may = |product, control| world.platforms.may(world.id, product, control);
    assert!(may("lamp", true) && may("lamp", false) && may("meter", false));
    assert!(!may("meter", true) && !may("toaster", false));
    let publish = |topic| world.platforms.may_publish(world.id.as_str(), topic);
    assert!(publish("dev/lamp/one/down/set"));
    for topic in [
        "dev/meter/one/down/set",
        "dev/lamp/one/up/set",
        "dev/lamp/one/down/",
        "dev/lamp/one/down",
        "dev/lamp//down/set",
        "dev/lamp/down/set",
        "$SYS/x",
        "lamp/one/down/set",
    ] {
        assert!(!publish(topic), "{topic}");
    }
    assert!(!world.platforms.may_publish("1000000000000000", "dev/lamp/one/down/set"));
    let changes = world.platforms.plan_forget_product(&product("lamp"));
    assert_eq!(changes.len(), 1);
    world.apply(changes);
    assert!(!may_after(&world, "lamp") && may_after(&world, "meter"));
    assert!(world.platforms.plan_forget_product(&product("lamp")).is_empty());
}

fn may_after(world: &World, product: &str) -> bool {
    world.platforms.may(world.id, product, false)
}

#[test]
fn a_data_key_is_good_for_an_hour_and_until_the_next_one() {
    let world = World::new();
    let issue = |n: u8, random: u8, ms| {
        world.platforms.issue_data_key(world.id, &user(n), &[random; 32], at(ms)).expect("issued").key
    };
    let key = |n: u8, ms| world.platforms.data_key(world.id, &user(n), at(ms)).map(|key| *key.expose());
    let first = issue(1, 1, 0);
    assert_eq!(key(1, DATA_KEY_MS - 1), Ok(*first.expose()));
    assert_ne!(issue(2, 1, 0).expose(), first.expose(), "of the same bytes for another user");
    let second = issue(1, 2, 10);
    assert_eq!(key(1, 11), Ok(*second.expose()));
    assert_eq!(key(1, DATA_KEY_MS + 10), Err(Cause::NoDataKey));
    assert!(world.platforms.drop_data_key(world.id, &user(2)));
    assert_eq!(key(2, 12), Err(Cause::NoDataKey));
    assert!(!world.platforms.drop_data_key(world.id, &user(2)));
}

#[test]
fn data_keys_are_bounded_and_make_room_when_their_time_is_over() {
    let world = World::new();
    let of = |n: usize| UserId::parse(&format!("{n:064x}")).expect("a user");
    let issue = |n, ms| world.platforms.issue_data_key(world.id, &of(n), &[1; 32], at(ms)).map(drop);
    for n in 0..DATA_KEYS_MAX {
        issue(n, 0).expect("room");
    }
    assert_eq!(issue(DATA_KEYS_MAX, 1), Err(Cause::DataKeysFull));
    assert_eq!(issue(0, 1), Ok(()), "a new one for one who has one");
    assert_eq!(issue(DATA_KEYS_MAX, DATA_KEY_MS), Ok(()));
}

/// NIST SP 800-38A, F.3.17 and F.3.18 (CFB128-AES256).
#[test]
fn the_cipher_is_that_of_the_standard() {
    let bytes = |text: &str| hex::decode(text).expect("hexadecimal digits");
    let key = DataKey::from_bytes(
        bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").try_into().expect("32 bytes"),
    );
    let iv: [u8; IV_BYTES] = std::array::from_fn(|n| n as u8);
    let plain = bytes("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let sealed = key.encrypt(iv, &plain);
    assert_eq!(sealed[..16], iv);
    assert_eq!(sealed[16..], bytes("dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407b"));
    assert_eq!(key.decrypt(&sealed), Some(plain));
    assert_eq!(key.decrypt(&sealed[..15]), None);
}

/// What a test of many steps does.
#[derive(Clone, Copy, Debug)]
enum Step {
    LogIn,
    /// With the RefreshToken that was issued as the n-th of all.
    Refresh(usize),
    /// Of the family of the n-th.
    LogOut(usize),
    Pass(u64),
}

proptest! {
    #[test]
    fn what_is_encrypted_comes_back(key: [u8; 32], iv: [u8; 16], plain in proptest::collection::vec(any::<u8>(), 0..100)) {
        let key = DataKey::from_bytes(key);
        prop_assert_eq!(key.decrypt(&key.encrypt(iv, &plain)), Some(plain));
    }

    /// Against a plain model: of each family the last pair alone is good, within its time; an old RefreshToken ends the family.
    #[test]
    fn tokens_of_many_log_ins(
        steps in proptest::collection::vec(
            prop_oneof![
                2 => Just(Step::LogIn),
                4 => (0..12_usize).prop_map(Step::Refresh),
                1 => (0..12_usize).prop_map(Step::LogOut),
                2 => (0..REFRESH_MS).prop_map(Step::Pass),
            ],
            0..40,
        ),
    ) {
        struct Pair { issued: Issued, family: u8, at_ms: u64 }
        let world = World::new();
        let (mut all, mut live) = (Vec::<Pair>::new(), std::collections::BTreeMap::<u8, usize>::new());
        let (mut now_ms, mut next) = (0, 0_u8);
        for step in steps {
            let now = at(now_ms);
            next += 1;
            match step {
                Step::LogIn => {
                    let issued = world.platforms.plan_log_in(world.id, &random(next), now).expect("issued");
                    world.apply(issued.changes.clone());
                    live.retain(|_, pair| all[*pair].at_ms + REFRESH_MS > now_ms);
                    if live.len() == FAMILIES_MAX {
                        live.pop_first();
                    }
                    live.insert(next, all.len());
                    all.push(Pair { issued, family: next, at_ms: now_ms });
                }
                Step::Refresh(which) if which < all.len() => {
                    let family = all[which].family;
                    match refresh(&world, &all[which].issued.refresh, next, now) {
                        Refresh::Issued(issued) => {
                            prop_assert_eq!(live.get(&family), Some(&which));
                            prop_assert!(all[which].at_ms + REFRESH_MS > now_ms);
                            world.apply(issued.changes.clone());
                            live.insert(family, all.len());
                            all.push(Pair { issued, family, at_ms: now_ms });
                        }
                        Refresh::Reused(change) => {
                            prop_assert!(live.get(&family).is_some_and(|current| *current != which));
                            world.platforms.apply(change);
                            live.remove(&family);
                        }
                        Refresh::Unknown => {
                            let current = live.get(&family) == Some(&which);
                            prop_assert!(!live.contains_key(&family) || current && all[which].at_ms + REFRESH_MS <= now_ms);
                        }
                    }
                }
                Step::LogOut(which) if which < all.len() => {
                    let family = all[which].family;
                    world.apply(vec![world.platforms.plan_log_out(world.id, FamilyId([family; 8]))]);
                    live.remove(&family);
                }
                Step::Refresh(_) | Step::LogOut(_) => {}
                Step::Pass(ms) => now_ms += ms,
            }
            for (index, pair) in all.iter().enumerate() {
                let good = world.platforms.check_access(world.id, pair.issued.access.expose(), at(now_ms)).is_ok();
                let expected = live.get(&pair.family) == Some(&index) && pair.at_ms + ACCESS_MS > now_ms;
                prop_assert_eq!(good, expected);
            }
        }
    }
}
