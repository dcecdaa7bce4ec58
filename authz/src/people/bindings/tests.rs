use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn device(name: &str) -> DeviceKey {
    device_key("p", name).expect("names")
}

fn user(name: &str) -> UserKey {
    UserKey::parse("a", name).expect("names")
}

fn share(role: Role, expires_at_s: Option<u32>) -> Binding {
    Binding { role, expires_at_s, by_admin: false }
}

fn with_users(names: &[&str]) -> Bindings {
    let bindings = Bindings::default();
    for name in names {
        bindings.put_user(&user(name), User { frozen: false, created_at_s: 5 });
    }
    bindings
}

fn readers(bindings: &Bindings, device: &str) -> Vec<String> {
    let mut found = Vec::new();
    bindings.readers("p", device, |app, user| found.push(format!("{app}:{user}")));
    found.sort();
    found
}

#[test]
fn a_share_counts_until_it_expires() {
    let bindings = with_users(&["o", "s"]);
    bindings.advance(100);
    bindings.bind(&device("d"), &user("o"), share(Role::Owner, None));
    bindings.bind(&device("d"), &user("s"), share(Role::Control, Some(110)));
    assert_eq!(bindings.role("a", "s", "p", "d"), Some(Role::Control));
    assert_eq!(readers(&bindings, "d"), ["a:o", "a:s"]);
    assert_eq!((bindings.next_expiry_s(), bindings.expired(10)), (Some(110), vec![]));
    bindings.advance(109);
    assert_eq!(bindings.role("a", "s", "p", "d"), Some(Role::Control));
    bindings.advance(110);
    assert_eq!(bindings.role("a", "s", "p", "d"), None);
    assert_eq!(readers(&bindings, "d"), ["a:o"]);
    assert_eq!(bindings.expired(10), [(device("d"), user("s"))]);
    bindings.advance(50);
    assert_eq!(bindings.role("a", "s", "p", "d"), None, "the clock doesn't go back");
    bindings.unbind(&device("d"), &user("s"));
    assert_eq!((bindings.next_expiry_s(), bindings.len()), (None, 1));
}

#[test]
fn a_frozen_or_unknown_user_may_do_nothing() {
    let bindings = with_users(&["o"]);
    bindings.bind(&device("d"), &user("o"), share(Role::Owner, None));
    bindings.bind(&device("d"), &user("late"), share(Role::View, None));
    assert_eq!(bindings.role("a", "late", "p", "d"), None, "its record hasn't come");
    assert_eq!(readers(&bindings, "d"), ["a:o"]);
    bindings.put_user(&user("late"), User { frozen: false, created_at_s: 1 });
    assert_eq!(bindings.role("a", "late", "p", "d"), Some(Role::View));
    bindings.put_user(&user("o"), User { frozen: true, created_at_s: 5 });
    assert_eq!(bindings.role("a", "o", "p", "d"), None);
    assert_eq!(readers(&bindings, "d"), ["a:late"]);
    bindings.put_user(&user("o"), User { frozen: false, created_at_s: 5 });
    assert_eq!(bindings.role("a", "o", "p", "d"), Some(Role::Owner));
}

#[test]
fn nothing_is_left_of_a_deleted_user() {
    let bindings = with_users(&["o", "s"]);
    bindings.bind(&device("d"), &user("o"), share(Role::Owner, None));
    bindings.bind(&device("d"), &user("s"), share(Role::View, Some(1000)));
    bindings.delete_user(&user("s"));
    assert_eq!((bindings.user("a", "s"), bindings.next_expiry_s(), bindings.len()), (None, None, 1));
    bindings.delete_user(&user("o"));
    assert!(bindings.is_empty() && !bindings.is_bound("p", "d"));
    // The place is used again, by somebody to whom nothing is bound.
    bindings.put_user(&user("x"), User { frozen: false, created_at_s: 1 });
    assert_eq!((bindings.role("a", "x", "p", "d"), bindings.devices_of(&user("x"))), (None, vec![]));
}

#[test]
fn users_are_listed_in_pages() {
    let bindings = Bindings::default();
    for n in 0..100 {
        bindings.put_user(&user(&format!("u{n}")), User { frozen: false, created_at_s: n });
        let other = UserKey::parse("b", &format!("u{n}")).expect("names");
        bindings.put_user(&other, User { frozen: false, created_at_s: n });
    }
    let (mut seen, mut after) = (BTreeMap::new(), None);
    loop {
        let (page, next) = bindings.users("a", after, 7);
        assert!(page.len() <= 7);
        seen.extend(page);
        if next.is_none() {
            break;
        }
        after = next;
    }
    assert_eq!((seen.len(), bindings.user_count("a")), (100, 100));
    assert!(seen.keys().all(|key| key.app.as_str() == "a"));
    assert_eq!(bindings.users("a", None, 0), (vec![], None));
}

fn any_step() -> impl Strategy<Value = (u8, usize, usize, u8, Option<u32>)> {
    (0..5_u8, 0..3_usize, 0..3_usize, 0..3_u8, proptest::option::of(1..20_u32))
}

proptest! {
    /// Against two plain maps, from both sides.
    #[test]
    fn both_directions_agree_with_a_plain_model(steps in proptest::collection::vec(any_step(), 1..120)) {
        let bindings = Bindings::default();
        let (mut users, mut links) = (BTreeMap::new(), BTreeMap::new());
        let (names, devices) = (["u", "v", "w"].map(user), ["d", "e", "f"].map(device));
        for (what, u, d, role, expires_at_s) in steps {
            let (u, d) = (&names[u], &devices[d]);
            let binding = share(Role::from_bits(role).expect("a role"), expires_at_s);
            match what {
                0 => {
                    bindings.bind(d, u, binding);
                    links.insert((d.clone(), u.clone()), binding);
                }
                1 => {
                    bindings.unbind(d, u);
                    links.remove(&(d.clone(), u.clone()));
                }
                2 => {
                    let state = User { frozen: role == 1, created_at_s: u32::from(role) };
                    bindings.put_user(u, state);
                    users.insert(u.clone(), state);
                }
                3 => {
                    bindings.delete_user(u);
                    users.remove(u);
                    links.retain(|(_, user), _| user != u);
                }
                _ => bindings.advance(u64::from(role) * 8),
            }
            prop_assert_eq!(bindings.len(), links.len() as u64);
            let first = links.values().filter_map(|binding| binding.expires_at_s).min();
            prop_assert_eq!(bindings.next_expiry_s(), first.map(u64::from));
            for u in &names {
                let state = users.get(u).copied();
                prop_assert_eq!(bindings.user(u.app.as_str(), u.user.as_str()), state);
                let mut mine = bindings.devices_of(u);
                mine.sort_by(|a, b| a.0.cmp(&b.0));
                let expected: Vec<_> =
                    links.iter().filter(|((_, user), _)| user == u).map(|((d, _), b)| (d.clone(), *b)).collect();
                prop_assert_eq!(&mine, &expected);
                for d in &devices {
                    let link = links.get(&(d.clone(), u.clone())).copied();
                    prop_assert_eq!(bindings.binding(d, u), link);
                    let valid = |b: &Binding| b.expires_at_s.is_none_or(|at_s| bindings.now_s() < u64::from(at_s));
                    let active = state.is_some_and(|state| !state.frozen);
                    let role = link.filter(|link| active && valid(link)).map(|link| link.role);
                    let (app, user) = (u.app.as_str(), u.user.as_str());
                    prop_assert_eq!(bindings.role(app, user, "p", d.device.as_str()), role);
                    prop_assert_eq!(bindings.is_bound("p", d.device.as_str()), links.keys().any(|(of, _)| of == d));
                    let reads = readers(&bindings, d.device.as_str()).contains(&u.to_string());
                    prop_assert_eq!(reads, role.is_some());
                }
            }
        }
    }
}
