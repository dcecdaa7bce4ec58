use proptest::prelude::*;

use super::*;
use crate::people::tests::{NOW_S, World, device, key, product};

/// As the control plane does it.
fn issue_for(
    proofs: &Proofs,
    device: &DeviceKey,
    (kind, ttl_s): (ProofKind, u32),
    random: [u8; 32],
    now_s: u64,
) -> (Option<ProofText>, u64) {
    let IssuedProof { text, expires_at_s, change } =
        proofs.issue(&proof_key(), device, (kind, ttl_s), random, now_s).expect("room");
    if let Some(change) = change {
        let Change::PutProofs(device, stored) = change else { panic!("{change:?} is no proof") };
        proofs.put(&device, stored);
    }
    (text, expires_at_s)
}

fn issue(proofs: &Proofs, kind: ProofKind, random: u8) -> Option<ProofText> {
    issue_for(proofs, &device("p", "d"), (kind, kind.ttl_s()), [random; 32], NOW_S).0
}

fn proof_key() -> ProofKey {
    ProofKey::of(&key())
}

fn check(proofs: &Proofs, device: &DeviceKey, given: Given<'_>, now_s: u64) -> Result<(), NotProved> {
    proofs.check(&proof_key(), device, given, now_s)
}

#[test]
fn a_passcode_is_taken_as_people_type_it() {
    let proofs = Proofs::default();
    let random = std::array::from_fn(|at| u8::try_from(at * 37 % 256).expect("a byte"));
    let (text, expires_at_s) = issue_for(&proofs, &device("p", "d"), (ProofKind::Passcode, u32::MAX), random, NOW_S);
    let code = text.expect("a text").expose().to_owned();
    assert_eq!((code.len(), expires_at_s), (8, NOW_S + 600), "no longer than its kind may be");
    let d = device("p", "d");
    let (head, tail) = code.split_at(4);
    for typed in
        [code.clone(), code.to_lowercase(), format!(" {head} - {tail} "), code.replace('0', "o").replace('1', "l")]
    {
        assert_eq!(check(&proofs, &d, Given::Passcode(&typed), NOW_S), Ok(()), "{typed}");
    }
    assert_eq!(check(&proofs, &d, Given::Passcode(&format!("{code}0")), NOW_S), Err(NotProved::Wrong));
    assert_eq!(check(&proofs, &device("p", "e"), Given::Passcode(&code), NOW_S), Err(NotProved::None));
    assert_eq!(check(&proofs, &d, Given::Qr(&code), NOW_S), Err(NotProved::None), "of another kind");
    assert_eq!(check(&proofs, &d, Given::Passcode(&code), expires_at_s - 1), Ok(()));
    assert_eq!(check(&proofs, &d, Given::Passcode(&code), expires_at_s), Err(NotProved::None));
}

#[test]
fn who_guesses_finds_nothing_left() {
    let proofs = Proofs::default();
    let code = issue(&proofs, ProofKind::Passcode, 9).expect("a text");
    issue(&proofs, ProofKind::Presence, 0);
    let wrong = || check(&proofs, &device("p", "d"), Given::Passcode("WRONG"), NOW_S);
    for _ in 1..ATTEMPTS_MAX {
        assert_eq!(wrong(), Err(NotProved::Wrong));
    }
    assert_eq!(wrong(), Err(NotProved::Voided));
    assert_eq!(check(&proofs, &device("p", "d"), Given::Passcode(code.expose()), NOW_S), Err(NotProved::None));
    assert_eq!(check(&proofs, &device("p", "d"), Given::Presence, NOW_S), Err(NotProved::None));
    assert!(proofs.is_empty());
}

#[test]
fn a_qr_code_names_its_device() {
    let proofs = Proofs::default();
    let text = issue(&proofs, ProofKind::Qr, 3).expect("a text");
    let (named, code) = scanned(text.expose()).expect("one of ours");
    assert_eq!(named, device("p", "d"));
    assert_eq!(check(&proofs, &named, Given::Qr(code), NOW_S), Ok(()));
    proofs.use_up(&named);
    assert_eq!(check(&proofs, &named, Given::Qr(code), NOW_S), Err(NotProved::None), "once");
    for text in ["", "turnpike:bind/p/d", "turnpike:bind/p/d/x/y", "turnpike:bind/p p/d/x", "https://a/p/d/x"] {
        assert!(scanned(text).is_none(), "{text}");
    }
}

#[test]
fn a_proof_is_replaced_by_the_next_of_its_kind() {
    let proofs = Proofs::default();
    let first = issue(&proofs, ProofKind::Passcode, 1).expect("a text");
    let qr = issue(&proofs, ProofKind::Qr, 1).expect("a text");
    let second = issue(&proofs, ProofKind::Passcode, 2).expect("a text");
    let check = |given| check(&proofs, &device("p", "d"), given, NOW_S);
    assert_eq!(check(Given::Passcode(first.expose())), Err(NotProved::Wrong));
    assert_eq!(check(Given::Passcode(second.expose())), Ok(()));
    assert_eq!(check(Given::Qr(scanned(qr.expose()).expect("ours").1)), Ok(()));
    assert_eq!(check(Given::Presence), Err(NotProved::None), "there was no window");
}

#[test]
fn a_code_opens_after_a_restart_and_a_window_does_not() {
    let mut world = World::new();
    let d = device("p", "d");
    let mut codes = Vec::new();
    for kind in ProofKind::ALL {
        let issued = world.people.proofs().issue(&proof_key(), &d, (kind, 60), [3; 32], NOW_S).expect("room");
        codes.extend(issued.text.map(|text| text.expose().to_owned()));
        issued.change.into_iter().for_each(|change| world.run(change));
    }
    let [passcode, qr] = <[String; 2]>::try_from(codes).expect("two have a text");
    let qr = scanned(&qr).expect("ours").1;
    let check = |people: &crate::people::People, given| people.proofs().check(&proof_key(), &d, given, NOW_S);
    assert_eq!(check(&world.people, Given::Presence), Ok(()));
    let restarted = world.reloaded();
    assert_eq!(check(&restarted, Given::Passcode(&passcode)), Ok(()));
    assert_eq!(check(&restarted, Given::Qr(qr)), Ok(()));
    assert_eq!(check(&restarted, Given::Presence), Err(NotProved::None));
    let other = ProofKey::of(&MasterKey::new([8; 32]));
    assert_eq!(restarted.proofs().check(&other, &d, Given::Qr(qr), NOW_S), Err(NotProved::Wrong));
    assert_eq!(restarted.proofs().check(&proof_key(), &device("p", "e"), Given::Qr(qr), NOW_S), Err(NotProved::None));
    // What is over, used, or of a product that goes, leaves no record.
    assert_eq!(world.people.plan_forget_product(&product("p"), 9), [Change::DeleteProofs(d.clone())]);
    world.people.bindings().advance(NOW_S + 60);
    assert_eq!(world.people.plan_expire(9), [Change::DeleteProofs(d.clone())]);
    let used = world.people.plan_use_up(&d).expect("it has some");
    world.run(used);
    assert!(world.people.plan_use_up(&d).is_none() && world.people.plan_expire(9).is_empty());
    assert!(world.reloaded().proofs().is_empty());
}

#[test]
fn nothing_is_printed() {
    let proofs = Proofs::default();
    let code = issue(&proofs, ProofKind::Passcode, 5).expect("a text");
    assert!(!format!("{code:?} {:?}", Given::Passcode(code.expose())).contains(code.expose()));
}

proptest! {
    /// Whatever is issued, tried and used: what has ended isn't kept once it was swept, and both tables agree.
    #[test]
    fn what_is_over_is_forgotten(steps in prop::collection::vec((0..3_usize, 0..4_u8, 1..2000_u32, 0..500_u64), 1..60)) {
        let proofs = Proofs::default();
        let mut now_s = NOW_S;
        for (kind, name, ttl_s, later) in steps {
            now_s += later;
            let device = device("p", &name.to_string());
            issue_for(&proofs, &device, (ProofKind::ALL[kind], ttl_s), [name; 32], now_s);
            if ttl_s % 5 == 0 {
                let _ = check(&proofs, &device, Given::Passcode("wrong"), now_s);
            }
            if ttl_s % 7 == 0 {
                proofs.use_up(&device);
            }
            proofs.expired(now_s, usize::MAX).iter().for_each(|device| proofs.use_up(device));
            let tables = proofs.tables.lock();
            prop_assert_eq!(tables.devices.len(), tables.by_expiry.len());
            prop_assert!(tables.by_expiry.iter().all(|(at_s, _)| *at_s > now_s));
        }
    }

    #[test]
    fn any_text_is_no_panic(text in any::<String>()) {
        let proofs = Proofs::default();
        issue(&proofs, ProofKind::Passcode, 1);
        let _ = scanned(&text);
        prop_assert!(check(&proofs, &device("p", "d"), Given::Passcode(&text), NOW_S).is_err());
    }
}
