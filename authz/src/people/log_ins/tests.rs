use proptest::prelude::*;

use super::*;

fn user(name: &str) -> UserKey {
    UserKey::parse("a", name).expect("names")
}

fn log_in(at_s: u32, address: &str, client: &str) -> LogIn {
    let address = address.parse().expect("an address");
    LogIn { at_s, address, client: ClientId::new(client), proof: Proof::Token }
}

#[test]
fn the_last_thirty_are_kept() {
    let log_ins = LogIns::default();
    for n in 0..40 {
        log_ins.note(&user("u"), &log_in(n, "10.0.0.1", if n % 2 == 0 { "phone" } else { "tablet" }));
    }
    let found = log_ins.of(&user("u"));
    assert_eq!((found.len(), found[0].at_s, found[29].at_s), (LOG_INS_MAX, 39, 10));
    let places = log_ins.places(&user("u"));
    let seen: Vec<_> = places.iter().map(|place| (place.client.as_str(), place.last.at_s, place.count)).collect();
    assert_eq!(seen, [("tablet", 39, 15), ("phone", 38, 15)]);
    assert!(log_ins.of(&user("v")).is_empty());
}

#[test]
fn a_new_device_or_address_raises_an_event() {
    let log_ins = LogIns::default();
    let mut seen = Vec::new();
    for (address, client) in [
        ("10.0.0.1", "phone"),
        ("10.0.0.1", "phone"),
        ("10.0.0.2", "phone"),
        ("10.0.0.1", "tablet"),
        ("10.0.0.2", "tablet"),
        ("2001:db8::1", "watch"),
    ] {
        log_ins.note(&user("u"), &log_in(1, address, client));
        seen.push(log_ins.take_events(10).pop().map(|event| (event.new_client, event.new_address)));
    }
    let expected = [Some((true, true)), None, Some((false, true)), Some((true, false)), None, Some((true, true))];
    assert_eq!(seen, expected);
}

#[test]
fn what_has_changed_is_committed_once_and_comes_back() {
    let log_ins = LogIns::default();
    for n in 0..3 {
        log_ins.note(&user("u"), &log_in(n, "10.0.0.1", "phone"));
        log_ins.note(&user("v"), &log_in(n, "::1", "é".repeat(40).as_str()));
    }
    let changed = log_ins.take_changed(10);
    assert_eq!((changed.len(), log_ins.take_changed(10).len()), (2, 0));
    let reloaded = LogIns::default();
    for (user, record) in &changed {
        assert!(is_record(record));
        reloaded.load(user, record);
        assert_eq!(reloaded.of(user), log_ins.of(user));
    }
    assert_eq!(reloaded.of(&user("v"))[0].client.as_str().len(), CLIENT_BYTES_MAX);
    log_ins.note(&user("u"), &log_in(9, "10.0.0.1", "phone"));
    log_ins.forget(&user("u"));
    assert!(log_ins.of(&user("u")).is_empty() && log_ins.take_changed(10).is_empty());
    assert!(log_ins.take_events(10).iter().all(|event| event.user == user("v")));
}

#[test]
fn memory_is_bounded_and_everybody_keeps_the_newest() {
    let log_ins = LogIns::default();
    for n in 0..100 {
        for name in ["u", "v", "w", "x"] {
            log_ins.note_within(&user(name), &log_in(n, "10.0.0.1", "phone"), 600);
            assert!(log_ins.bytes.load(Ordering::Relaxed) <= 600);
        }
    }
    // 15 bytes each: there is room for forty.
    let counts = ["u", "v", "w", "x"].map(|name| log_ins.of(&user(name)).len());
    assert!(counts.iter().sum::<usize>() >= 18 && counts.iter().all(|count| *count <= LOG_INS_MAX), "{counts:?}");
    let newest = ["u", "v", "w", "x"].map(|name| log_ins.of(&user(name)).first().map(|log_in| log_in.at_s));
    assert!(newest.iter().flatten().all(|at_s| *at_s == 99), "{newest:?}");
    for name in ["u", "v", "w", "x"] {
        log_ins.forget(&user(name));
    }
    assert_eq!(log_ins.bytes.load(Ordering::Relaxed), 0);
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_packed(
        made in proptest::collection::vec((any::<u32>(), any::<[u8; 4]>(), any::<bool>(), "\\PC{0,30}", any::<bool>()), 1..30),
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut packed = Vec::new();
        let made: Vec<LogIn> = made.into_iter().map(|(at_s, v4, is_v4, client, by_code)| LogIn {
            at_s,
            address: if is_v4 { v4.into() } else { std::net::Ipv6Addr::from(u128::from_le_bytes([v4; 4].concat().try_into().expect("16"))).into() },
            client: ClientId::new(cut(&client)),
            proof: if by_code { Proof::Code } else { Proof::Token },
        }).collect();
        made.iter().for_each(|log_in| pack(&mut packed, log_in));
        prop_assert!(is_record(&packed));
        prop_assert_eq!(unpack(&packed).collect::<Vec<_>>(), made);
        for end in 0..packed.len() {
            let _ = is_record(&packed[..end]);
        }
        let _ = is_record(&bytes);
    }
}
