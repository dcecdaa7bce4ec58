//! What is written is read back, and what is damaged is seen.

use proptest::prelude::*;

use super::*;
use crate::signature::testing;

fn product() -> ProductKey {
    ProductKey::parse("p").expect("a name")
}

fn name<T: FromStr>(text: &str) -> T {
    text.parse().ok().expect("a name")
}

fn contents(signed: Option<Signed>) -> Contents {
    Contents { whole: Whole { bytes: 9, digests: Digests { sha256: [1; 32], md5: [2; 16], crc32: 3 } }, signed }
}

fn firmware(state: State) -> Change {
    let firmware = Firmware {
        id: FirmwareId(u64::MAX),
        product: product(),
        target: name("mcu"),
        version: name("1.2.0"),
        runs_on: RunsOn::listed([name("A1"), name("A2")]).expect("a list"),
        release: 7,
        base: Some(name("1.1.0")),
        note: "ä note".into(),
        created_at_s: 8,
        state,
    };
    catalog::Change::Put(Arc::new(firmware)).into()
}

fn changes() -> Vec<Change> {
    let declared = Declared { bytes: Some(1), sha256: Some([1; 32]), md5: Some([2; 16]), crc32: Some(3) };
    let signed = Signed { signature: vec![7; 64].into(), key: Fingerprint::of(b"key") };
    let keys = Keys::new(vec![testing::ed25519().public().clone(), testing::p256().public().clone()]).expect("keys");
    let rule = TargetRule { release_min: 4, hardware: [name("A1"), name("B2")].into() };
    let targets = [(name("lid"), TargetRule::default()), (name("mcu"), rule)].into();
    let demands = Demands { signature_required: true, keys, targets };
    let command = Command {
        id: CommandId(17),
        product: product(),
        device: DeviceName::parse("d").expect("a name"),
        kind: Kind::UploadLogs,
        arguments: r#"{"since":1}"#.into(),
        asked_at_ms: 1,
        deadline_ms: u64::MAX,
        state: command::State::Accepted,
        state_at_ms: 2,
        reason: "yes".into(),
        sends: 2,
        sent_at_ms: Some(3),
        late: None,
    };
    let late = Command {
        state: command::State::Cancelled,
        late: Some(command::State::Done),
        sent_at_ms: None,
        ..command.clone()
    };
    let kept = Kept {
        id: LogId(u64::MAX),
        product: product(),
        device: DeviceName::parse("d").expect("a name"),
        number: 1,
        command: Some(2),
        bytes: 3,
        crc32: 4,
        packing: Some(Packing::Zstd),
        unpacked_bytes: 5,
        at_ms: 6,
    };
    let other = Kept { command: None, packing: None, ..kept.clone() };
    vec![
        firmware(State::Uploading(declared)),
        firmware(State::Uploading(Declared::default())),
        firmware(State::Ready(contents(Some(signed)))),
        firmware(State::Refused { why: "no".into() }),
        firmware(State::Withdrawn(contents(None))),
        catalog::Change::Given(FirmwareId(5)).into(),
        catalog::Change::SetDemands(product(), Some(Arc::new(demands))).into(),
        command::Change::Given(CommandId(6)).into(),
        command::Change::Put(Box::new(Command { state: command::State::Queued, ..command.clone() })).into(),
        command::Change::Put(Box::new(command)).into(),
        command::Change::Put(Box::new(late)).into(),
        shelf::Change::Given(LogId(7)).into(),
        shelf::Change::Put(Box::new(kept)).into(),
        shelf::Change::Put(Box::new(other)).into(),
    ]
}

fn put(change: &Change) -> (Box<[u8]>, Box<[u8]>) {
    match encode(change) {
        Op::RegistryPut(key, value) => (key, value),
        other => panic!("{other:?} is no put"),
    }
}

#[test]
fn a_record_gives_back_what_made_it() {
    for change in changes() {
        let (key, value) = put(&change);
        assert!(is_record(&key));
        assert_eq!(is_command(&key), matches!(change, Change::Command(_) | Change::Log(_)));
        assert_eq!(decode(&key, &value), Ok(change));
    }
}

#[test]
fn an_end_removes_what_was_put() {
    let (firmware, command) = (put(&changes()[0]).0, put(&changes()[9]).0);
    let delete = catalog::Change::Delete(FirmwareId(u64::MAX)).into();
    assert!(matches!(encode(&delete), Op::RegistryDelete(key) if key == firmware));
    let end = command::Change::Forget(product(), DeviceName::parse("d").expect("a name"), CommandId(17)).into();
    assert!(matches!(encode(&end), Op::RegistryDelete(key) if key == command));
    for demands in [None, Some(Arc::new(Demands::default()))] {
        let change = catalog::Change::SetDemands(product(), demands).into();
        assert!(matches!(encode(&change), Op::RegistryDelete(key) if *key == *b"od\0p"), "no demands, no record");
    }
}

#[test]
fn nobody_elses_record_is_one_of_these() {
    for key in ["p\0p", "d\0p\0d", "pl\0p", "ps\0p", "ua\0a", "xp\0p", "m\0of", "of", "o\0f", "oc\0", "os\0", ""] {
        assert!(!is_record(key.as_bytes()), "{key:?}");
    }
}

#[test]
fn another_layout_and_damage_are_told_apart() {
    for change in changes() {
        let (key, value) = put(&change);
        let mut later = value.to_vec();
        later[0] = 2;
        assert_eq!(decode(&key, &later), Err(RecordError::Layout(2)));
        for cut in 0..value.len() {
            assert!(matches!(decode(&key, &value[..cut]), Err(RecordError::Damaged(_))), "{cut} of {key:?}");
        }
        assert!(matches!(decode(&key, &[&value[..], &[0]].concat()), Err(RecordError::Damaged(_))));
        assert!(matches!(decode(&[&key[..], b"\0x"].concat(), &value), Err(RecordError::Damaged(_))));
        assert!(matches!(decode(&[0xFF], &value), Err(RecordError::Damaged(_))));
    }
    let (_, value) = put(&changes()[0]);
    for key in ["of\0", "of\x001", "of\0FFFFFFFFFFFFFFFF", "of\0+fffffffffffffff"] {
        assert!(matches!(decode(key.as_bytes(), &value), Err(RecordError::Damaged(_))), "{key:?}");
    }
    let (key, value) = put(&firmware(State::Refused { why: "x".repeat(WHY_BYTES_MAX + 1).into() }));
    assert!(matches!(decode(&key, &value), Err(RecordError::Damaged(_))), "longer than any");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_read_is_written_the_same(
        which in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        key in "o[fdnqlcs]\0([0-9a-f]{16}|firmware|command|log|p|p\0d\0[0-9a-f]{8}([0-9a-f]{8})?)",
        noise in proptest::collection::vec(0_u8..4, 0..60),
    ) {
        let changes = changes();
        let (own, value) = put(which.get(&changes));
        let mut value = value.to_vec();
        for (at, byte) in flips {
            let at = at.index(value.len() - 1) + 1;
            value[at] = byte;
        }
        for (key, value) in [(&*own, &value), (key.as_bytes(), &noise), (key.as_bytes(), &value)] {
            if let Ok(change) = decode(key, value) {
                let (again, bytes) = put(&change);
                prop_assert_eq!((&*again, &*bytes), (key, &value[..]));
            }
        }
    }
}
