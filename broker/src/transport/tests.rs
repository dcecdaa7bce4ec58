//! Layers on top of each other, without sockets.

use super::*;

const HEADER: &[u8] = b"PROXY TCP4 10.1.2.3 10.0.0.1 12345 1883\r\n";

/// Feeds `bytes` in pieces as the shell does: what was left stands in front of what comes.
fn feed(layers: &mut Layers, scratch: &mut Scratch, pieces: &[&[u8]]) -> Result<bool, Fault> {
    let mut closed = false;
    for piece in pieces {
        let mut input = [layers.raw.as_slice(), piece].concat();
        closed |= layers.decode(&mut input, scratch)?;
    }
    Ok(closed)
}

#[test]
fn a_proxy_header_is_taken_off_wherever_it_is_cut() {
    let all = [HEADER, b"MQTT bytes"].concat();
    for cut in 0..=all.len() {
        let stack = Stack { proxy: true, ..Stack::default() };
        let (mut layers, mut scratch) = (Layers::new(&stack).expect("made"), Scratch::default());
        let (head, tail) = all.split_at(cut);
        feed(&mut layers, &mut scratch, &[head, tail]).expect("a header");
        assert_eq!(scratch.mqtt, b"MQTT bytes", "cut at {cut}");
        assert_eq!(layers.proxied(), Some(([10, 1, 2, 3], 12345).into()));
        assert!(layers.is_established() && layers.is_spent() && layers.raw.is_empty());
    }
}

#[test]
fn websocket_comes_after_the_proxy_header() {
    let request = b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    let frame = [0x82, 0x82, 0, 0, 0, 0, b'h', b'i'];
    let all = [HEADER, request, &frame].concat();
    for cut in 0..=all.len() {
        let paths = Arc::from([String::from("/mqtt")]);
        let stack = Stack { proxy: true, websocket: Some(paths), ..Stack::default() };
        let (mut layers, mut scratch) = (Layers::new(&stack).expect("made"), Scratch::default());
        let (head, tail) = all.split_at(cut);
        feed(&mut layers, &mut scratch, &[head, tail]).expect("accepted");
        assert_eq!(scratch.mqtt, b"hi", "cut at {cut}");
        assert!(layers.wire.starts_with(b"HTTP/1.1 101"));
        assert!(layers.is_established() && !layers.is_spent());
        layers.wire.clear();
        layers.encode(b"yo", &mut scratch).expect("encodes");
        assert_eq!(scratch.wire, [0x82, 2, b'y', b'o']);
        scratch.wire.clear();
    }
}

#[test]
fn a_violation_is_answered_with_a_close_frame() {
    let mut layers = Layers::new(&Stack::default()).expect("made");
    layers.websocket = Some(websocket::Decoder::default());
    let outcome = feed(&mut layers, &mut Scratch::default(), &[&[0x81, 0x80, 0, 0, 0, 0]]);
    assert!(matches!(outcome, Err(Fault::WebSocket(Violation::Text))));
    assert_eq!(layers.wire, [0x88, 2, 0x03, 0xeb]);
}
