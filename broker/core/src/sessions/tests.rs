//! Sessions against an ordered map, and the growth of their index.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::gate::Principal;
use crate::ids::ClientId;

fn session(client: &str) -> Session {
    Session::new(ClientId::new(client), Principal::Anonymous)
}

/// Entries that the index has memory for.
fn room(sessions: &Sessions) -> usize {
    sessions.by_client.iter().map(HashTable::capacity).sum()
}

#[test]
fn the_parts_double_one_after_another() {
    let mut sessions = Sessions::new();
    let mut before = 0;
    for n in 0..40_000 {
        sessions.insert(session(&format!("client-{n}")));
        let now = room(&sessions);
        // Below that, the parts are so small that a table's least size and chance decide.
        if n > 4_000 {
            assert!(now < 2 * n, "{now} of {n}");
            assert!(now - before <= n / 16, "{n}: {before} to {now} at once");
        }
        before = now;
    }
    assert!((0..40_000).all(|n| sessions.find(&format!("client-{n}"), &Principal::Anonymous) == Some(n)));
}

#[test]
fn every_hash_has_a_part() {
    assert_eq!((part(0), part(u64::MAX)), (0, PARTS - 1));
}

#[test]
fn a_client_that_is_a_part_of_another_is_not_taken_for_it() {
    let mut sessions = Sessions::new();
    let slots = ["", "a", "ab"].map(|client| sessions.insert(session(client)));
    assert_eq!(
        [Some(slots[0]), Some(slots[1]), Some(slots[2])],
        ["", "a", "ab"].map(|client| sessions.find(client, &Principal::Anonymous))
    );
    assert_eq!(sessions.find("b", &Principal::Anonymous), None);
}

#[test]
fn a_client_id_is_of_each_principal_its_own() {
    let mut sessions = Sessions::new();
    let who = |name: &str| Principal::Device(std::sync::Arc::new(crate::gate::DeviceIdentity::new("p", name)));
    let slots = ["one", "two"].map(|name| sessions.insert(Session { principal: who(name), ..session("c") }));
    assert_eq!(["one", "two"].map(|name| sessions.find("c", &who(name))), slots.map(Some));
    assert_eq!(sessions.find("c", &Principal::Anonymous), None);
    sessions.remove(slots[0]);
    assert_eq!(["one", "two"].map(|name| sessions.find("c", &who(name))), [None, Some(slots[1])]);
}

#[derive(Clone, Debug)]
enum Action {
    Come(u16),
    Go(u16),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_sequence_is_found_as_in_a_map(
        actions in prop::collection::vec(
            prop_oneof![3 => (0..400u16).prop_map(Action::Come), 2 => (0..400u16).prop_map(Action::Go)],
            1..1000,
        ),
    ) {
        let (mut sessions, mut model) = (Sessions::new(), BTreeMap::new());
        for action in actions {
            match action {
                Action::Come(client) => {
                    let slot = model.get(&client).copied();
                    prop_assert_eq!(sessions.find(&client.to_string(), &Principal::Anonymous), slot);
                    if slot.is_none() {
                        model.insert(client, sessions.insert(session(&client.to_string())));
                    }
                }
                Action::Go(client) => match model.remove(&client) {
                    Some(slot) => {
                        let gone = sessions.remove(slot).map(|session| session.client);
                        prop_assert_eq!(gone, Some(ClientId::new(&client.to_string())));
                        prop_assert!(sessions.get(slot).is_none() && sessions.remove(slot).is_none());
                    }
                    None => prop_assert_eq!(sessions.find(&client.to_string(), &Principal::Anonymous), None),
                },
            }
            prop_assert_eq!(sessions.len(), model.len());
        }
        for (client, slot) in &model {
            prop_assert_eq!(sessions.find(&client.to_string(), &Principal::Anonymous), Some(*slot));
        }
        let slots: Vec<u32> = sessions.iter().map(|(slot, _)| slot).collect();
        let mut expected: Vec<u32> = model.into_values().collect();
        expected.sort_unstable();
        prop_assert_eq!(slots, expected);
    }
}
