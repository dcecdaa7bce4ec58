//! Chunks in any order, broken ones, too many, questions.

use proptest::prelude::*;

use super::*;

fn names() -> (ProductKey, DeviceName) {
    (ProductKey::parse("lamp").expect("a name"), DeviceName::parse("one").expect("a name"))
}

fn small() -> Assembler {
    Assembler::new(Limits { log_bytes: 8, chunks: 4, bytes: 12, logs: 3, device_logs: 2, age_ms: 10 })
}

fn take(assembler: &mut Assembler, payload: &[u8], now_ms: u64) -> Result<Taken, LogError> {
    let (product, device) = names();
    assembler.take(&product, &device, payload, now_ms)
}

#[test]
fn a_log_is_put_together_from_its_chunks() {
    let mut assembler = small();
    let asked = |log, missing: &[u16]| Ok(Taken::Asked { log, crc32: 5, missing: missing.to_vec() });
    assert_eq!(take(&mut assembler, &question(7, 3, 5), 0), asked(7, &[0, 1, 2]));
    assert_eq!(assembler.next_due_ms(), None, "a question takes no room");
    assert_eq!(take(&mut assembler, &chunk(7, 2, 3, b"c"), 0), Ok(Taken::Missing(vec![0, 1])), "the last one");
    assert_eq!(take(&mut assembler, &chunk(7, 2, 3, b"c"), 0), Ok(Taken::Again));
    assert_eq!(take(&mut assembler, &chunk(7, 0, 3, b"aa"), 0), Ok(Taken::Missing(vec![])));
    assert_eq!(take(&mut assembler, &question(7, 3, 5), 0), asked(7, &[1]));
    assert_eq!(take(&mut assembler, &question(7, 2, 5), 0), Err(LogError::Contradiction));
    assert_eq!(take(&mut assembler, &question(7, 5, 5), 0), Err(LogError::TooManyChunks { most: 4 }));
    assert_eq!(take(&mut assembler, &chunk(7, 1, 3, b"b"), 0), Ok(Taken::Whole(7, b"aabc".to_vec())));
    assert_eq!((assembler.bytes(), assembler.next_due_ms()), (0, None));
}

#[test]
fn each_fault_has_its_name_and_what_was_taken_stays() {
    let mut assembler = small();
    assert_eq!(take(&mut assembler, &chunk(7, 0, 3, b"aa"), 0), Ok(Taken::Missing(vec![])));
    let mut broken = chunk(7, 1, 3, b"b");
    broken[HEADER_BYTES] ^= 1;
    for (payload, error) in [
        (vec![], LogError::Malformed),
        (vec![0; 11], LogError::Malformed),
        (broken, LogError::Broken),
        (chunk(7, 3, 3, b"b"), LogError::NoSuchChunk),
        (chunk(7, 0, 0, b"b"), LogError::NoSuchChunk),
        (chunk(7, 1, 5, b"b"), LogError::TooManyChunks { most: 4 }),
        (chunk(7, 1, 4, b"b"), LogError::Contradiction),
        (chunk(7, 0, 3, b"ab"), LogError::Contradiction),
    ] {
        assert_eq!(take(&mut assembler, &payload, 0), Err(error));
    }
    let mut long = chunk(7, 1, 3, &[0; CHUNK_BYTES_MAX]);
    long.push(0);
    assert_eq!(take(&mut assembler, &long, 0), Err(LogError::ChunkTooLong));
    assert_eq!(assembler.bytes(), 2);
    assert_eq!(take(&mut assembler, &chunk(8, 0, 3, b"12345678"), 0), Ok(Taken::Missing(vec![])));
    assert_eq!(take(&mut assembler, &chunk(9, 0, 3, b"1"), 0), Err(LogError::DeviceFull { most: 2 }));
    assert_eq!(take(&mut assembler, &chunk(7, 1, 3, b"123"), 0), Err(LogError::Full), "bytes");
    let (product, _) = names();
    let mut other =
        |name, payload: &[u8]| assembler.take(&product, &DeviceName::parse(name).expect("a name"), payload, 0);
    assert_eq!(other("two", &chunk(7, 0, 2, b"1")), Ok(Taken::Missing(vec![])), "another device's has that number too");
    assert_eq!(other("three", &chunk(7, 0, 2, b"1")), Err(LogError::Full), "logs");
    assert_eq!(other("two", &chunk(7, 1, 2, b"2")), Ok(Taken::Whole(7, b"12".to_vec())));
    assert_eq!(take(&mut assembler, &chunk(8, 1, 3, b"9"), 0), Err(LogError::LogTooLong { most: 8 }));
    assert_eq!(assembler.bytes(), 2, "the long one is given up");
}

#[test]
fn an_old_one_is_given_up() {
    let mut assembler = small();
    assert_eq!(take(&mut assembler, &chunk(7, 0, 3, b"aa"), 5), Ok(Taken::Missing(vec![])));
    assert_eq!(take(&mut assembler, &chunk(7, 1, 3, b"b"), 14), Ok(Taken::Missing(vec![])));
    assert_eq!((assembler.due(14, 9), assembler.next_due_ms()), (vec![], Some(15)));
    let (product, device) = names();
    let mut other = assembler.clone();
    let mut third = assembler.clone();
    third.drop_device(&product, &DeviceName::parse("two").expect("a name"));
    assert_eq!(third.bytes(), 3, "another's");
    third.drop_device(&product, &device);
    assert_eq!((third.bytes(), third.next_due_ms()), (0, None));
    other.drop_devices(|_, gone| *gone == device);
    assert_eq!((other.bytes(), other.next_due_ms()), (0, None));
    assert_eq!(assembler.due(15, 9), [GivenUp { product, device, log: 7, missing: 1 }]);
    assert_eq!(assembler.bytes(), 0);
}

proptest! {
    #[test]
    fn in_any_order_it_is_the_log(
        log in proptest::collection::vec(any::<u8>(), 1..400),
        size in 20..90_usize,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let parts: Vec<_> = log.chunks(size).collect();
        let count = u16::try_from(parts.len()).expect("few");
        let mut assembler = Assembler::default();
        let all = (0..parts.len()).rev();
        let mut whole = None;
        for at in order.into_iter().map(|index| index.index(parts.len())).chain(all) {
            let number = u16::try_from(at).expect("few");
            if let Ok(Taken::Whole(1, bytes)) = take(&mut assembler, &chunk(1, number, count, parts[at]), 0) {
                whole = Some(bytes);
                break;
            }
        }
        prop_assert_eq!(whole, Some(log));
        prop_assert_eq!(assembler.bytes(), 0);
    }

    #[test]
    fn anything_stays_within_limits(payloads in proptest::collection::vec(
        (0..4_u32, 0..5_u16, 0..5_u16, proptest::collection::vec(any::<u8>(), 0..9)), 0..60)) {
        let mut assembler = small();
        for (log, number, count, bytes) in payloads {
            let _ = take(&mut assembler, &chunk(log, number, count, &bytes), 0);
            prop_assert!(assembler.bytes() <= 12 && assembler.logs.len() <= 2, "one device's");
            prop_assert_eq!(assembler.bytes(), assembler.logs.values().map(|partial| partial.bytes).sum::<usize>());
            prop_assert_eq!(assembler.ages.len(), assembler.logs.len());
        }
    }

    #[test]
    fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = take(&mut small(), &payload, 0);
    }
}

#[test]
fn answers_are_json() {
    for (ack, text) in [
        (Ack::Kept, r#"{"log":7,"state":"kept"}"#),
        (Ack::Missing(vec![1, 5]), r#"{"log":7,"state":"missing","chunks":[1, 5]}"#),
        (Ack::Refused("broken"), r#"{"log":7,"state":"refused","reason":"broken"}"#),
    ] {
        assert_eq!(ack.payload(7), text);
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    }
    assert_eq!((number(&chunk(9, 0, 1, b"x")), number(&[0, 0, 1])), (Some(9), None));
}
