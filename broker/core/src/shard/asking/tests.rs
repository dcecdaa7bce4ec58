use std::sync::Arc;

use turnpike_mqtt::{Connect, ConnectProperties, Packet, Version, encode};

use super::*;
use crate::gate::{Admission, Attempt, ChallengeState, Principal, Verdict};
use crate::limits::Limits;
use crate::shard::Next;
use crate::shard::testing::{alone, everything_is_allowed, peer};

/// Asks about everybody. An answer `true` lets in, `false` doesn't, and anything else is asked again.
struct Asked;

impl Gate for Asked {
    fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Pending(Question::new(attempt.client_id.to_owned()))
    }

    fn proceed(&self, _: &Attempt<'_>, _: &ChallengeState, _: &[u8], _: Now) -> Verdict {
        Verdict::Granted(Admission::new(Principal::Anonymous))
    }

    fn conclude(&self, attempt: &Attempt<'_>, answer: Answer, now: Now) -> Verdict {
        match answer.into_inner::<&str>() {
            Some("yes") => Verdict::Granted(Admission::new(Principal::Anonymous)),
            Some("no") => Verdict::Refused(ConnectReason::NotAuthorized, "no"),
            Some("prove it") => {
                let state = ChallengeState { method: "m".into(), data: Vec::new(), claim: "c".into() };
                Verdict::Challenge { data: Vec::new(), state: Box::new(state) }
            }
            _ => self.authenticate(attempt, now, [0; 32]),
        }
    }

    everything_is_allowed!();
}

fn at(ms: u64) -> Now {
    Now { mono_ms: ms, unix_ms: 1_700_000_000_000 + ms }
}

fn new_shard() -> Shard<Asked> {
    let limits = Limits { connect_timeout_ms: 1_000, answer_timeout_ms: 5_000, ..Limits::default() };
    alone(&Arc::new(Asked), limits, at(0))
}

fn open(shard: &mut Shard<Asked>) -> ConnId {
    shard.open(peer(false), at(0)).expect("room")
}

fn connect(version: Version, expiry_s: Option<u32>) -> Vec<u8> {
    let connect = Connect {
        version,
        bridge: false,
        clean_start: expiry_s.is_none(),
        keep_alive_s: 1,
        client_id: "c",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties { session_expiry_s: expiry_s, ..ConnectProperties::default() },
    };
    let mut bytes = Vec::new();
    encode(version, &Packet::Connect(Box::new(connect)), &mut bytes);
    bytes
}

const PINGREQ: [u8; 2] = [0xC0, 0];
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

/// A CONNECT of MQTT 3.1.1 about which somebody is asked.
fn asked(shard: &mut Shard<Asked>) -> (ConnId, InquiryId) {
    let conn = open(shard);
    let bytes = connect(Version::V311, None);
    let received = shard.receive(conn, &bytes, at(0));
    assert_eq!((received.consumed, received.next), (bytes.len(), Next::Pause));
    let inquiry = shard.next_inquiry().expect("a question");
    assert_eq!(inquiry.question.into_inner::<String>().as_deref(), Some("c"));
    assert!(shard.next_inquiry().is_none() && shard.output(conn).bytes.is_empty());
    (conn, inquiry.id)
}

#[test]
fn what_comes_behind_the_connect_waits_for_the_answer() {
    let mut shard = new_shard();
    let conn = open(&mut shard);
    let connect = connect(Version::V311, None);
    let bytes = [&connect[..], &PINGREQ, &PINGREQ].concat();
    let received = shard.receive(conn, &bytes, at(0));
    assert_eq!((received.consumed, received.next), (connect.len(), Next::Pause));
    // Shown again, the rest is still not taken.
    assert_eq!(shard.receive(conn, &PINGREQ, at(0)).consumed, 0);
    let inquiry = shard.next_inquiry().expect("a question");
    shard.answered(inquiry.id, Answer::new("yes"), at(1));
    assert_eq!(shard.next_resumed(), Some(conn));
    assert_eq!(shard.receive(conn, &bytes[connect.len()..], at(1)).consumed, 4);
    assert_eq!(shard.output(conn).bytes, [&ACCEPTED[..], &[0xD0, 0, 0xD0, 0]].concat());
    assert_eq!(shard.counters().accepted, 1);
}

#[test]
fn a_no_is_said_in_the_client_s_words_and_ends_it() {
    let mut shard = new_shard();
    let (conn, id) = asked(&mut shard);
    shard.answered(id, Answer::new("no"), at(1));
    assert_eq!((shard.output(conn).bytes, shard.output(conn).close), (&[0x20, 2, 0, 5][..], true));
    shard.answered(id, Answer::new("yes"), at(2));
    assert_eq!(shard.output(conn).bytes, [0x20, 2, 0, 5], "once");
    assert_eq!((shard.counters().accepted, shard.counters().sessions), (0, 0));
}

#[test]
fn an_answer_finds_nobody_where_the_connection_has_gone() {
    let mut shard = new_shard();
    let (conn, id) = asked(&mut shard);
    shard.closed(conn, at(1));
    let (again, next) = asked(&mut shard);
    assert_eq!(again, conn, "the place is used again");
    shard.answered(id, Answer::new("yes"), at(1));
    assert!(shard.output(again).bytes.is_empty(), "that was for another");
    shard.answered(next, Answer::new("yes"), at(1));
    assert_eq!(shard.output(again).bytes, ACCEPTED);
}

#[test]
fn neither_the_time_for_a_connect_nor_keep_alive_runs_out_meanwhile_but_the_time_for_an_answer_does() {
    let mut shard = new_shard();
    let (conn, id) = asked(&mut shard);
    shard.tick(at(4_500));
    assert!(!shard.output(conn).close);
    shard.answered(id, Answer::new("yes"), at(4_500));
    shard.tick(at(5_500));
    assert!(!shard.output(conn).close, "heard a second ago");
    shard.tick(at(6_500));
    assert!(shard.output(conn).close, "keep alive");

    let mut shard = new_shard();
    let (conn, id) = asked(&mut shard);
    shard.tick(at(5_500));
    assert_eq!((shard.output(conn).bytes, shard.output(conn).close), (&[0x20, 2, 0, 3][..], true));
    shard.answered(id, Answer::new("yes"), at(5_500));
    assert_eq!(shard.counters().accepted, 0);
}

#[test]
fn of_two_that_wait_the_one_that_is_answered_last_has_the_session() {
    let mut shard = new_shard();
    let (first, one) = asked(&mut shard);
    let (second, two) = asked(&mut shard);
    shard.answered(two, Answer::new("yes"), at(1));
    shard.answered(one, Answer::new("yes"), at(2));
    assert_eq!(shard.output(first).bytes, ACCEPTED);
    assert!(shard.output(second).close && !shard.output(first).close);
    assert_eq!((shard.counters().taken_over, shard.counters().sessions), (1, 1));
}

#[test]
fn a_durable_session_still_waits_for_its_commit() {
    let mut shard = new_shard();
    let conn = open(&mut shard);
    let _ = shard.receive(conn, &[&connect(Version::V5, Some(60))[..], &PINGREQ].concat(), at(0));
    let id = shard.next_inquiry().expect("a question").id;
    shard.answered(id, Answer::new("yes"), at(1));
    assert!(shard.output(conn).bytes.is_empty() && shard.next_resumed().is_none());
    let tickets: Vec<_> = shard.end_turn().parts.into_iter().map(|part| part.ticket).collect();
    shard.committed(&tickets, at(2));
    assert_eq!(shard.output(conn).bytes.first(), Some(&0x20));
    assert_eq!(shard.next_resumed(), Some(conn));
}

#[test]
fn a_drain_lets_nobody_in_whatever_is_answered_then() {
    let mut shard = new_shard();
    let (conn, id) = asked(&mut shard);
    shard.drain(at(1));
    assert!(shard.output(conn).close);
    shard.answered(id, Answer::new("yes"), at(1));
    assert_eq!(shard.counters().accepted, 0);
}

#[test]
fn an_answer_may_lead_to_another_question_or_to_a_challenge() {
    let mut shard = new_shard();
    let conn = open(&mut shard);
    let _ = shard.receive(conn, &connect(Version::V5, None), at(0));
    let id = shard.next_inquiry().expect("a question").id;
    shard.answered(id, Answer::new(7), at(1));
    let again = shard.next_inquiry().expect("asked again").id;
    shard.answered(again, Answer::new("prove it"), at(1));
    assert_eq!(shard.next_resumed(), Some(conn), "the answer to a challenge is read");
    shard.tick(at(3_000));
    assert!(shard.output(conn).close, "but not waited for for ever");
}
