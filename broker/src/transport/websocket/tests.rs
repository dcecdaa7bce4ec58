use super::*;

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(first, payload, &mut bytes);
    let header = bytes.len() - payload.len();
    bytes[1] |= 0x80;
    bytes.truncate(header);
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const MASK: [u8; 4] = [0x12, 0xf0, 0x00, 0x7e];

fn decode_in(pieces: &[&[u8]]) -> (Result<(), Violation>, Vec<u8>, Vec<u8>, bool) {
    let (mut decoder, mut data, mut reply) = (Decoder::default(), Vec::new(), Vec::new());
    let outcome = pieces.iter().try_for_each(|piece| decoder.decode(piece, &mut data, &mut reply));
    (outcome, data, reply, decoder.is_closed())
}

/// Cut at every byte, and byte by byte: the outcome is that of the whole.
fn decode_all_ways(bytes: &[u8]) -> (Result<(), Violation>, Vec<u8>, Vec<u8>, bool) {
    let whole = decode_in(&[bytes]);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(decode_in(&[head, tail]), whole, "cut at {cut}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(decode_in(&single), whole);
    whole
}

#[test]
fn frames_of_every_length_form_come_apart() {
    for length in [0, 1, 7, 8, 9, 125, 126, 300] {
        let payload: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
        let (outcome, data, reply, closed) = decode_all_ways(&masked(FIN | BINARY, &payload, MASK));
        assert_eq!((outcome, data, reply, closed), (Ok(()), payload, Vec::new(), false));
    }
    let long = vec![0xa5; 70_000];
    let bytes = masked(FIN | BINARY, &long, MASK);
    for cut in [1, 2, 3, 9, 10, 13, 14, 15, 40_000, bytes.len() - 1] {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(decode_in(&[head, tail]).1, long, "cut at {cut}");
    }
}

#[test]
fn fragments_may_have_control_frames_between_them() {
    let bytes = [
        masked(BINARY, b"one", MASK),
        masked(FIN | PING, b"alive?", [1, 2, 3, 4]),
        masked(CONTINUATION, b"", MASK),
        masked(FIN | PONG, b"unasked", MASK),
        masked(FIN | CONTINUATION, b"two", [9, 8, 7, 6]),
        masked(FIN | BINARY, b"three", [0; 4]),
    ]
    .concat();
    let mut pong = Vec::new();
    frame(FIN | PONG, b"alive?", &mut pong);
    assert_eq!(decode_all_ways(&bytes), (Ok(()), b"onetwothree".to_vec(), pong, false));
}

#[test]
fn a_close_is_answered_and_ends_it() {
    for (payload, code) in [(&b""[..], 1000_u16), (&[0x03, 0xe9], 1001), (&[0x0f, 0xa0, b'b', b'y', b'e'], 4000)] {
        let bytes = [masked(FIN | CLOSE, payload, MASK), masked(FIN | BINARY, b"late", MASK)].concat();
        let mut answer = Vec::new();
        close(code, &mut answer);
        assert_eq!(decode_all_ways(&bytes), (Ok(()), Vec::new(), answer, true));
    }
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let mut unmasked = Vec::new();
    binary(b"bare", &mut unmasked);
    let cases: &[(Vec<u8>, Violation)] = &[
        (unmasked, Violation::Protocol),
        (masked(FIN | TEXT, b"text", MASK), Violation::Text),
        (masked(FIN | CONTINUATION, b"of what", MASK), Violation::Protocol),
        ([masked(BINARY, b"a", MASK), masked(FIN | BINARY, b"b", MASK)].concat(), Violation::Protocol),
        (masked(FIN | 0x40 | BINARY, b"", MASK), Violation::Protocol),
        (masked(FIN | 0x3, b"", MASK), Violation::Protocol),
        (masked(FIN | 0xb, b"", MASK), Violation::Protocol),
        (masked(PING, b"", MASK), Violation::Protocol),
        (masked(FIN | PING, &[0; 126], MASK), Violation::Protocol),
        (masked(FIN | CLOSE, &[3], MASK), Violation::Protocol),
        (masked(FIN | CLOSE, &[0x03, 0xed], MASK), Violation::Protocol),
        (masked(FIN | CLOSE, &[0x03, 0xe8, 0xff], MASK), Violation::Protocol),
        (vec![FIN | BINARY, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Violation::Protocol),
    ];
    for (bytes, violation) in cases {
        assert_eq!(decode_all_ways(bytes).0, Err(*violation), "{bytes:02x?}");
    }
}

const REQUEST: &str = "GET /mqtt?x=1 HTTP/1.1\r\nHost: broker\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: other, mqtt\r\n\r\n";

fn paths() -> Vec<String> {
    vec!["/mqtt".to_owned()]
}

fn status(request: &str) -> String {
    match upgrade(request.as_bytes(), &paths()) {
        Upgrade::Refused { response } => {
            String::from_utf8_lossy(&response).split(' ').nth(1).unwrap_or_default().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_accepted_with_the_key_of_the_rfc() {
    let bytes = [REQUEST.as_bytes(), b"frames"].concat();
    for cut in 0..REQUEST.len() {
        assert_eq!(upgrade(&bytes[..cut], &paths()), Upgrade::Incomplete, "at {cut}");
    }
    let Upgrade::Accepted { len, response } = upgrade(&bytes, &paths()) else { panic!("refused") };
    let response = String::from_utf8(response).expect("text");
    assert_eq!(len, REQUEST.len());
    assert!(response.starts_with("HTTP/1.1 101 "));
    assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(response.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
}

#[test]
fn the_subprotocol_of_old_clients_is_named_as_they_do() {
    let Upgrade::Accepted { response, .. } = upgrade(REQUEST.replace("other, mqtt", "mqttv3.1").as_bytes(), &paths())
    else {
        panic!("refused")
    };
    assert!(String::from_utf8_lossy(&response).contains("Sec-WebSocket-Protocol: mqttv3.1\r\n"));
}

#[test]
fn other_requests_get_the_answer_that_says_why() {
    for (from, to, code) in [
        ("GET", "POST", "400"),
        ("HTTP/1.1", "HTTP/1.0", "400"),
        ("/mqtt", "/other", "404"),
        ("Host: broker\r\n", "", "400"),
        ("Upgrade: WebSocket\r\n", "", "426"),
        ("Connection: keep-alive, Upgrade", "Connection: close", "426"),
        ("Version: 13", "Version: 8", "426"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", "400"),
        ("other, mqtt", "other", "400"),
        ("Sec-WebSocket-Protocol: other, mqtt\r\n", "", "400"),
        ("GET /mqtt", "GET /mqtt\0", "400"),
    ] {
        assert!(REQUEST.contains(from));
        assert_eq!(status(&REQUEST.replace(from, to)), code, "{from:?} → {to:?}");
    }
    assert_eq!(status(&format!("GET /mqtt HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_BYTES))), "431");
    assert_eq!(status(&format!("GET /mqtt HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65))), "431");
}

const REQUEST_BYTES: usize = 8 << 10;
