use proptest::prelude::*;

use super::*;
use crate::people::tests::{NOW_S, device};

fn issue(proofs: &Proofs, kind: ProofKind, random: u8) -> Option<ProofText> {
    proofs.issue(&device("p", "d"), kind, kind.ttl_s(), [random; 32], NOW_S).expect("room").0
}

#[test]
fn a_passcode_is_taken_as_people_type_it() {
    let proofs = Proofs::default();
    let random = std::array::from_fn(|at| u8::try_from(at * 37 % 256).expect("a byte"));
    let (text, expires_at_s) =
        proofs.issue(&device("p", "d"), ProofKind::Passcode, u32::MAX, random, NOW_S).expect("room");
    let code = text.expect("a text").expose().to_owned();
    assert_eq!((code.len(), expires_at_s), (8, NOW_S + 600), "no longer than its kind may be");
    let d = device("p", "d");
    let (head, tail) = code.split_at(4);
    for typed in
        [code.clone(), code.to_lowercase(), format!(" {head} - {tail} "), code.replace('0', "o").replace('1', "l")]
    {
        assert_eq!(proofs.check(&d, Given::Passcode(&typed), NOW_S), Ok(()), "{typed}");
    }
    assert_eq!(proofs.check(&d, Given::Passcode(&format!("{code}0")), NOW_S), Err(NotProved::Wrong));
    assert_eq!(proofs.check(&device("p", "e"), Given::Passcode(&code), NOW_S), Err(NotProved::None));
    assert_eq!(proofs.check(&d, Given::Qr(&code), NOW_S), Err(NotProved::None), "of another kind");
    assert_eq!(proofs.check(&d, Given::Passcode(&code), expires_at_s - 1), Ok(()));
    assert_eq!(proofs.check(&d, Given::Passcode(&code), expires_at_s), Err(NotProved::None));
}

#[test]
fn who_guesses_finds_nothing_left() {
    let proofs = Proofs::default();
    let code = issue(&proofs, ProofKind::Passcode, 9).expect("a text");
    issue(&proofs, ProofKind::Presence, 0);
    for _ in 0..ATTEMPTS_MAX {
        assert_eq!(proofs.check(&device("p", "d"), Given::Passcode("WRONG"), NOW_S), Err(NotProved::Wrong));
    }
    assert_eq!(proofs.check(&device("p", "d"), Given::Passcode(code.expose()), NOW_S), Err(NotProved::None));
    assert_eq!(proofs.check(&device("p", "d"), Given::Presence, NOW_S), Err(NotProved::None));
    assert!(proofs.is_empty());
}

#[test]
fn a_qr_code_names_its_device() {
    let proofs = Proofs::default();
    let text = issue(&proofs, ProofKind::Qr, 3).expect("a text");
    let (named, code) = scanned(text.expose()).expect("one of ours");
    assert_eq!(named, device("p", "d"));
    assert_eq!(proofs.check(&named, Given::Qr(code), NOW_S), Ok(()));
    proofs.use_up(&named);
    assert_eq!(proofs.check(&named, Given::Qr(code), NOW_S), Err(NotProved::None), "once");
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
    let check = |given| proofs.check(&device("p", "d"), given, NOW_S);
    assert_eq!(check(Given::Passcode(first.expose())), Err(NotProved::Wrong));
    assert_eq!(check(Given::Passcode(second.expose())), Ok(()));
    assert_eq!(check(Given::Qr(scanned(qr.expose()).expect("ours").1)), Ok(()));
    assert_eq!(check(Given::Presence), Err(NotProved::None), "there was no window");
}

#[test]
fn nothing_is_printed() {
    let proofs = Proofs::default();
    let code = issue(&proofs, ProofKind::Passcode, 5).expect("a text");
    assert!(!format!("{code:?} {:?}", Given::Passcode(code.expose())).contains(code.expose()));
}

proptest! {
    /// Whatever is issued, tried and used: what has ended isn't kept once something new is issued, and both tables agree.
    #[test]
    fn what_is_over_is_forgotten(steps in prop::collection::vec((0..3_usize, 0..4_u8, 1..2000_u32, 0..500_u64), 1..60)) {
        let proofs = Proofs::default();
        let mut now_s = NOW_S;
        for (kind, name, ttl_s, later) in steps {
            now_s += later;
            let device = device("p", &name.to_string());
            proofs.issue(&device, ProofKind::ALL[kind], ttl_s, [name; 32], now_s).expect("room");
            if ttl_s % 5 == 0 {
                let _ = proofs.check(&device, Given::Passcode("wrong"), now_s);
            }
            if ttl_s % 7 == 0 {
                proofs.use_up(&device);
            }
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
        prop_assert!(proofs.check(&device("p", "d"), Given::Passcode(&text), NOW_S).is_err());
    }
}
