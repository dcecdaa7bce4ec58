use super::*;
use crate::bounds::Bounds;
use crate::ledger::Verdict;

#[test]
fn answers_say_what_is_known_of_each_boot() {
    let (mut ledger, mut tally, bounds) = (Ledger::default(), Tally::default(), Bounds::default());
    for (boot, seq) in [(1, 1), (1, 1), (1, 4), (2, 1)] {
        match ledger.take(boot, seq, &bounds) {
            Verdict::Fresh => tally.taken(boot),
            _ => tally.known(boot),
        }
    }
    let acks = tally.acks(&ledger, Some((4, RecordError::TooOld).into()));
    let first = Ack { boot: Some(1), upto: 1, gaps: vec![(2, 3)], taken: 2, known: 1, error: None };
    let stop = Stop { index: Some(4), code: "too_old" };
    let second = Ack { boot: Some(2), upto: 1, gaps: vec![], taken: 1, known: 0, error: Some(stop) };
    assert_eq!(acks, [first, second]);
    let json: Vec<Value> =
        acks.iter().map(|ack| serde_json::from_slice(&ack.encode(Encoding::Json)).unwrap()).collect();
    assert_eq!(json[0], json!({ "boot": 1, "upto": 1, "gaps": [[2, 3]], "taken": 2, "known": 1 }));
    let error = json!({ "index": 4, "code": "too_old" });
    assert_eq!(json[1], json!({ "boot": 2, "upto": 1, "gaps": [], "taken": 1, "known": 0, "error": error }));
    let cbor = acks[1].encode(Encoding::Cbor);
    let mut input = minicbor::Decoder::new(&cbor);
    input.skip().unwrap();
    assert_eq!((cbor[0], input.position()), (0xA6, cbor.len()));
}

#[test]
fn a_batch_that_cannot_be_read_is_answered_without_a_boot() {
    let acks = Tally::default().acks(&Ledger::default(), Some(BatchError::NotABatch.into()));
    let json: Value = serde_json::from_slice(&acks[0].encode(Encoding::Json)).unwrap();
    assert_eq!(json, json!({ "upto": 0, "gaps": [], "taken": 0, "known": 0, "error": { "code": "not_a_batch" } }));
    // Nothing in it, and nothing wrong with it.
    assert_eq!(Tally::default().acks(&Ledger::default(), None), [Ack::default()]);
}

#[test]
fn the_error_is_in_the_answer_of_the_boot_whose_record_is_bad() {
    let (mut ledger, mut tally, bounds) = (Ledger::default(), Tally::default(), Bounds::default());
    for (boot, seq) in [(1, 1), (2, 1)] {
        assert_eq!(ledger.take(boot, seq, &bounds), Verdict::Fresh);
        tally.taken(boot);
    }
    tally.stop_in(1);
    let acks = tally.acks(&ledger, Some((2, RecordError::TooOld).into()));
    let told: Vec<_> = acks.iter().map(|ack| (ack.boot, ack.error.is_some())).collect();
    assert_eq!(told, [(Some(2), false), (Some(1), true)]);
    tally.stop_in(9);
    assert_eq!(tally.acks(&ledger, None).last().map(|ack| (ack.boot, ack.upto)), Some((Some(9), 0)));
}

#[test]
fn a_pace_is_a_rate_and_a_time() {
    let pace = Pace { after_ms: 700, records_per_s: 20 };
    assert_eq!(encode_pace(pace, Encoding::Json), br#"{"after_ms":700,"rate":20}"#);
    assert_eq!(encode_pace(pace, Encoding::Cbor), b"\xA2\x64rate\x14\x68after_ms\x19\x02\xBC");
}
