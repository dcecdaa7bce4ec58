use minicbor::Encoder;
use proptest::prelude::*;

use super::*;
use crate::packed::tests as packed;

const NOW_MS: u64 = 1_800_000_000_000;

type Plain = (u64, u64, i64, String, Vec<u8>);

fn cbor(records: &[Plain], as_maps: bool, indefinite: bool) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    if indefinite {
        out.begin_array().unwrap()
    } else {
        out.array(records.len() as u64).unwrap()
    };
    for (boot, seq, ts, topic, payload) in records {
        if as_maps {
            out.map(6)
                .unwrap()
                .str("extra")
                .unwrap()
                .bool(true)
                .unwrap()
                .str("payload")
                .unwrap()
                .bytes(payload)
                .unwrap();
            out.str("topic").unwrap().str(topic).unwrap().str("ts").unwrap().i64(*ts).unwrap();
            out.str("seq").unwrap().u64(*seq).unwrap().str("boot").unwrap().u64(*boot).unwrap();
        } else {
            out.array(5).unwrap().u64(*boot).unwrap().u64(*seq).unwrap().i64(*ts).unwrap().str(topic).unwrap();
            out.bytes(payload).unwrap();
        }
    }
    if indefinite {
        out.end().unwrap();
    }
    out.into_writer()
}

fn json(records: &[Plain]) -> Vec<u8> {
    use base64::Engine;
    let record = |(boot, seq, ts, topic, payload): &Plain| {
        let payload = match std::str::from_utf8(payload) {
            Ok(text) => serde_json::json!(text),
            Err(_) => serde_json::json!({ "base64": base64::engine::general_purpose::STANDARD.encode(payload) }),
        };
        serde_json::json!({ "boot": boot, "seq": seq, "ts": ts, "topic": topic, "payload": payload, "extra": [{}] })
    };
    serde_json::to_vec(&records.iter().map(record).collect::<Vec<_>>()).unwrap()
}

fn some(count: u64) -> Vec<Plain> {
    (1..=count)
        .map(|seq| (7, seq, NOW_MS as i64 - 1000 + seq as i64, "up/t".to_owned(), vec![seq as u8, 0xFF]))
        .collect()
}

fn read(batch: &Batch) -> Vec<Plain> {
    batch.records().map(|r| (r.boot, r.seq, r.ts_ms, r.topic.to_owned(), r.payload.to_owned())).collect()
}

fn plain() -> impl Strategy<Value = Plain> {
    (0_u64..3, 1_u64.., any::<i64>(), "\\PC{0,20}|up/[a-z\"\\\\\n]{0,9}", proptest::collection::vec(any::<u8>(), 0..40))
}

fn of_json(text: &str) -> Result<(usize, Option<(usize, RecordError)>), BatchError> {
    decode(text.as_bytes(), None, &Bounds::default()).map(|batch| (batch.len(), batch.stopped()))
}

const GOOD: &str = r#"{"boot":1,"seq":1,"ts":5,"topic":"up/t","payload":"x"}"#;

#[test]
fn the_record_before_a_bad_one_is_kept_and_each_fault_has_its_error() {
    use Field::{Boot, Payload, Seq, Topic};
    for (bad, error) in [
        (r#"{"boot":1,"seq":2,"ts":5,"topic":"up/t"}"#, RecordError::Missing(Payload)),
        (r#"{"boot":-1,"seq":2,"ts":5,"topic":"up/t","payload":"x"}"#, RecordError::Wrong(Boot)),
        (r#"{"boot":1,"seq":0,"ts":5,"topic":"up/t","payload":"x"}"#, RecordError::Wrong(Seq)),
        (r#"{"boot":1,"seq":2,"ts":5,"topic":7,"payload":"x"}"#, RecordError::Wrong(Topic)),
        (r#"{"boot":1,"seq":2,"ts":5,"topic":"up/t","payload":{"base64":"*"}}"#, RecordError::Wrong(Payload)),
        (r#"{"boot":1,"boot":1}"#, RecordError::Twice(Boot)),
        (r#"{"boot":1,"#, RecordError::CutShort),
        ("7", RecordError::Malformed),
        ("{]", RecordError::Malformed),
    ] {
        let end = if error == RecordError::CutShort { "" } else { "]" };
        assert_eq!(of_json(&format!("[{GOOD},{bad}{end}")), Ok((1, Some((1, error)))), "{bad}");
    }
    assert_eq!(of_json(&format!("[{GOOD}] x")), Ok((1, Some((1, RecordError::Trailing)))));
    for text in ["7", "\"x\"", "{}", "", "{\"records\":7}", "[", "{\"lost\":[]}"] {
        let expected = if text == "[" { Ok((0, Some((0, RecordError::CutShort)))) } else { Err(BatchError::NotABatch) };
        assert_eq!(of_json(text), expected, "{text}");
    }
}

#[test]
fn faults_in_cbor_have_the_same_errors() {
    let of = |record: &[u8]| {
        let first = cbor(&some(1), false, false);
        let bytes = [&[0x82], &first[1..], record].concat();
        let batch = decode(&bytes, None, &Bounds::default()).unwrap();
        batch.stopped().map(|(at, error)| {
            assert_eq!((at, batch.len()), if error == RecordError::Trailing { (2, 2) } else { (1, 1) });
            error
        })
    };
    assert_eq!(of(&[0x84, 1, 2, 3, 0x60]), Some(RecordError::Malformed));
    assert_eq!(of(&[0x85, 0x20, 2, 3, 0x60, 0x40]), Some(RecordError::Wrong(Field::Boot)));
    assert_eq!(of(&[0x85, 1, 0, 3, 0x60, 0x40]), Some(RecordError::Wrong(Field::Seq)));
    assert_eq!(of(&[0x85, 1, 2, 3, 0x60, 0x5F]), Some(RecordError::Wrong(Field::Payload)));
    assert_eq!(of(&[0x85, 1, 2, 3, 0x61]), Some(RecordError::CutShort));
    assert_eq!(of(&[0xA0]), Some(RecordError::Missing(Field::Boot)));
    assert_eq!(of(&[0xA2, 0x63, b's', b'e', b'q', 1, 0x63, b's', b'e', b'q', 1]), Some(RecordError::Twice(Field::Seq)));
    // Nesting where there is none.
    assert_eq!(of(&[&[0xA1, 0x61, b'x'][..], &[0x81; 100_000]].concat()), Some(RecordError::Malformed));
    assert_eq!(of(&[0x85, 1, 2, 3, 0x60, 0x40, 0]), Some(RecordError::Trailing));
}

#[test]
fn lost_ranges_come_with_or_without_records_before_or_after_them() {
    let lost = r#""lost":[[7,1,9],[8,3,3]]"#;
    for text in [format!(r#"{{{lost},"records":[{GOOD}]}}"#), format!(r#"{{"records":[{GOOD}],{lost}}}"#)] {
        let batch = decode(text.as_bytes(), Some("Application/JSON; charset=utf-8"), &Bounds::default()).unwrap();
        assert_eq!(batch.lost(), [Lost { boot: 7, from: 1, to: 9 }, Lost { boot: 8, from: 3, to: 3 }]);
        assert_eq!((batch.len(), batch.encoding()), (1, Encoding::Json));
    }
    for bad in ["[[1,0,1]]", "[[1,2,1]]", "[[1,2]]", "7"] {
        assert_eq!(of_json(&format!(r#"{{"lost":{bad},"records":[]}}"#)), Err(BatchError::Lost), "{bad}");
    }
    let mut out = Encoder::new(Vec::new());
    out.begin_map().unwrap().str("lost").unwrap().array(1).unwrap().array(3).unwrap();
    out.u64(7).unwrap().u64(1).unwrap().u64(9).unwrap().str("records").unwrap().array(0).unwrap().end().unwrap();
    let batch = decode(out.writer(), None, &Bounds::default()).unwrap();
    assert_eq!((batch.lost(), batch.stopped()), (&[Lost { boot: 7, from: 1, to: 9 }][..], None));
}

#[test]
fn bounds_stop_at_the_record_that_exceeds_them() {
    let records = some(10);
    let stopped = |bounds: Bounds| decode(&cbor(&records, false, true), None, &bounds).unwrap().stopped();
    assert_eq!(stopped(Bounds { records_max: 3, ..Bounds::default() }), Some((3, RecordError::TooMany)));
    assert_eq!(stopped(Bounds { records_max: 10, ..Bounds::default() }), None);
    assert_eq!(stopped(Bounds { payload_bytes_max: 1, ..Bounds::default() }), Some((0, RecordError::PayloadTooLong)));
    let mut boots = some(3);
    (boots[1].0, boots[2].0) = (8, 9);
    let bounds = Bounds { boots_max: 2, unpacked_bytes_max: 200, ..Bounds::default() };
    assert_eq!(
        decode(&cbor(&boots, false, false), None, &bounds).unwrap().stopped(),
        Some((2, RecordError::TooManyBoots))
    );
    assert_eq!(decode(&[0x80; 201], None, &bounds).unwrap_err(), BatchError::TooLarge);
}

#[test]
fn topics_and_times_are_checked() {
    let tree = Tree::new("p", "d");
    let bounds = Bounds { topic_bytes_max: 20, ..Bounds::default() };
    let now = NOW_MS as i64;
    for (topic, ts, error) in [
        ("up/t", now, None),
        ("dev/p/d/up/t", now - bounds.past_ms_max as i64, None),
        ("dev/p/x/ota", now + bounds.ahead_ms_max as i64, None),
        ("updates", now, None),
        ("", now, Some(RecordError::BadTopic)),
        ("up/+", now, Some(RecordError::BadTopic)),
        ("up/#", now, Some(RecordError::BadTopic)),
        ("dev/p/d/backfill", now, Some(RecordError::ReservedTopic)),
        ("dev/p/d/ota/x", now, Some(RecordError::ReservedTopic)),
        ("dev/p/d/sys/cmd", now, Some(RecordError::ReservedTopic)),
        ("$SYS/x", now, Some(RecordError::ReservedTopic)),
        ("up/3456789012", now, Some(RecordError::TopicTooLong)),
        ("up/345678901", now, None),
        ("up/t", now - bounds.past_ms_max as i64 - 1, Some(RecordError::TooOld)),
        ("up/t", now + bounds.ahead_ms_max as i64 + 1, Some(RecordError::InFuture)),
        ("up/t", 0, Some(RecordError::ClockOff)),
        ("up/t", i64::MAX, Some(RecordError::ClockOff)),
        ("up/t", i64::MIN, Some(RecordError::ClockOff)),
    ] {
        let mut records = some(2);
        (records[1].3, records[1].2) = (topic.to_owned(), ts);
        let mut batch = decode(&cbor(&records, false, false), None, &bounds).unwrap();
        batch.check(&tree, NOW_MS, &bounds);
        assert_eq!(batch.stopped(), error.map(|error| (1, error)), "{topic} {ts}");
        assert_eq!(batch.len(), if error.is_some() { 1 } else { 2 });
    }
    let reserved = |topic: &str| tree.check(topic, &Bounds::default()) == Err(RecordError::ReservedTopic);
    for topic in ["/ota/device/inform/p/d", "/ota/device/progress/p/d", "/sys/p/d/thing/ota/firmware/get"] {
        assert!(reserved(topic), "{topic}");
    }
    for topic in ["/sys/p/d/thing/event/property/post", "/sys/p/x/thing/ota/firmware/get", "/sys/p/d/thing/otaku"] {
        assert!(!reserved(topic), "{topic}");
    }
    let mut topic = String::new();
    tree.topic("up/t", &mut topic);
    assert_eq!(topic, "dev/p/d/up/t");
    tree.topic("other/t", &mut topic);
    assert_eq!(topic, "other/t");
}

#[test]
fn content_types_say_how_it_is_packed_and_written() {
    let bytes = cbor(&some(3), true, false);
    for (name, packing) in ["zlib", "zstd", "lz4"].into_iter().zip(packed::ALL) {
        let sent = packed::pack(packing, &bytes);
        for content_type in [None, Some(format!("application/cbor+{name}"))] {
            let batch = decode(&sent, content_type.as_deref(), &Bounds::default()).unwrap();
            assert_eq!((read(&batch), batch.stopped()), (some(3), None));
        }
    }
    for bad in ["", "text/plain", "application/cbor+gzip", "application/json+"] {
        assert_eq!(decode(&bytes, Some(bad), &Bounds::default()).unwrap_err(), BatchError::ContentType, "{bad}");
    }
    assert_eq!(decode(&bytes, Some("application/json"), &Bounds::default()).unwrap_err(), BatchError::NotABatch);
}

#[test]
fn the_boot_of_a_bad_record_is_known_where_it_could_be_read() {
    let bounds = Bounds { payload_bytes_max: 3, ..Bounds::default() };
    let of = |records: &str| {
        let mut batch = decode(format!("[{records}]").as_bytes(), None, &bounds).unwrap();
        batch.check(&Tree::new("p", "d"), NOW_MS, &bounds);
        (batch.stopped().is_some(), batch.stopped_boot())
    };
    let record = |boot: u64, topic: &str, payload: &str| {
        format!(r#"{{"boot":{boot},"seq":1,"ts":{NOW_MS},"topic":"{topic}","payload":"{payload}"}}"#)
    };
    assert_eq!(of(&record(3, "up/t", "x")), (false, None));
    assert_eq!(of(&format!("{},{}", record(3, "up/t", "x"), record(4, "up/#", "x"))), (true, Some(4)));
    assert_eq!(of(&record(5, "up/t", "long")), (true, Some(5)));
    assert_eq!(of(r#"{"boot":"?"}"#), (true, None));
}

#[test]
fn what_cannot_be_read_is_answered_as_its_content_type_says() {
    let guess = |payload: &[u8], content_type| Encoding::guess(payload, content_type);
    let zlib = packed::pack(packed::ALL[0], b"[]");
    assert_eq!(guess(&zlib, Some("application/json+zlib")), Encoding::Json);
    assert_eq!(guess(b"[", Some("application/cbor; x=1")), Encoding::Cbor);
    assert_eq!((guess(b" [", None), guess(b" [", Some("text/plain"))), (Encoding::Json, Encoding::Json));
    assert_eq!((guess(&zlib, None), guess(b"\x80", None)), (Encoding::Cbor, Encoding::Cbor));
}

/// The blocks of hexadecimal digits of the page that devices are written by.
fn page_blocks() -> Vec<Vec<u8>> {
    let page = include_str!("../../FORMAT.md");
    let blocks = page.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| {
            let digits: Vec<u32> = block.chars().filter_map(|c| c.to_digit(16)).collect();
            digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
        })
        .collect()
}

#[test]
fn the_bytes_of_the_page_are_what_is_decoded() {
    let blocks = page_blocks();
    assert_eq!(blocks.len(), 3);
    let first = (3, 1, 1_760_000_000_000, "up/temp".to_owned(), b"21.5".to_vec());
    let second = (3, 2, 1_760_000_060_000, "up/temp".to_owned(), b"21.7".to_vec());
    let batch = |at: usize| decode(&blocks[at], None, &Bounds::default()).unwrap();
    assert_eq!((read(&batch(0)), batch(0).stopped()), (vec![first.clone()], None));
    assert_eq!((read(&batch(1)), batch(1).stopped()), (vec![first, second], None));
    let ack = crate::answer::Ack { boot: Some(3), upto: 2, taken: 1, known: 1, ..crate::answer::Ack::default() };
    assert_eq!(ack.encode(Encoding::Cbor), blocks[2]);
}

proptest! {
    #[test]
    fn records_come_back(records in proptest::collection::vec(plain(), 0..20), maps: bool, indefinite: bool) {
        let batch = decode(&cbor(&records, maps, indefinite), None, &Bounds::default()).unwrap();
        prop_assert_eq!((read(&batch), batch.stopped()), (records.clone(), None));
        let batch = decode(&json(&records), None, &Bounds::default()).unwrap();
        prop_assert_eq!((read(&batch), batch.stopped()), (records, None));
    }

    #[test]
    fn what_is_cut_off_leaves_the_records_before(records in proptest::collection::vec(plain(), 1..9), cut in any::<u16>()) {
        for mut bytes in [cbor(&records, true, false), cbor(&records, false, false), json(&records)] {
            bytes.truncate(1 + usize::from(cut) % (bytes.len() - 1));
            let batch = decode(&bytes, None, &Bounds::default()).unwrap();
            let whole = read(&batch);
            prop_assert_eq!(&whole[..], &records[..whole.len()]);
            prop_assert_eq!(batch.stopped(), Some((whole.len(), RecordError::CutShort)));
        }
    }

    #[test]
    fn garbage_never_panics(first in prop_oneof![Just(b'['), Just(b'{'), 0x80_u8..0xC0], bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&[first], &bytes[..]].concat();
        if let Ok(mut batch) = decode(&bytes, None, &Bounds::default()) {
            batch.check(&Tree::new("p", "d"), NOW_MS, &Bounds::default());
            let _ = read(&batch);
        }
    }
}
