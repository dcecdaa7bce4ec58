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

/// A client and the layers, with a wire between them that carries `step` bytes at a time.
struct Pair {
    client: rustls::ClientConnection,
    layers: Layers,
    scratch: Scratch,
    step: usize,
}

impl Pair {
    fn new(version: &'static rustls::SupportedProtocolVersion, step: usize) -> Self {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;

        let authority = crate::tls::tests::Authority::new("ca");
        let settings = authority.settings(vec![authority.issue("a.test", 1)]);
        let acceptor = Acceptor::load(&settings, false).expect("loads");
        let stack = Stack { tls: Some(Arc::new(acceptor)), ..Stack::default() };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.ca_file()).expect("reads")).expect("an authority");
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "a.test".try_into().expect("a name");
        Self {
            client: rustls::ClientConnection::new(Arc::new(config), name).expect("makes"),
            layers: Layers::new(&stack).expect("made"),
            scratch: Scratch::default(),
            step,
        }
    }

    /// Carries everything both ways until nobody has anything to say. Between any two pieces the server sends `chatter`.
    fn carry(&mut self, chatter: &[u8]) {
        while self.client.wants_write() || !self.layers.wire.is_empty() {
            let mut out = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut out).expect("writes");
            }
            for piece in out.chunks(self.step) {
                feed(&mut self.layers, &mut self.scratch, &[piece]).expect("decodes");
                if self.layers.is_established() && !chatter.is_empty() {
                    self.say(chatter);
                }
            }
            let wire = std::mem::take(&mut self.layers.wire);
            self.hear(&wire);
        }
    }

    /// The server encrypts some bytes.
    fn say(&mut self, bytes: &[u8]) {
        let wire = std::mem::take(&mut self.layers.wire);
        self.hear(&wire);
        self.layers.encode(bytes, &mut self.scratch).expect("encodes");
        let wire = std::mem::take(&mut self.scratch.wire);
        self.hear(&wire);
    }

    fn hear(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).expect("reads");
            self.client.process_new_packets().expect("good records");
        }
    }

    fn heard(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // It ends with "would block".
        let _ = std::io::Read::read_to_end(&mut self.client.reader(), &mut bytes);
        bytes
    }
}

#[test]
fn tls_comes_in_pieces_while_we_talk() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for step in [1, 7, 1000] {
            let mut pair = Pair::new(version, step);
            pair.carry(b"");
            assert!(pair.layers.is_established() && pair.layers.raw.is_empty());

            let payload = vec![0x42; 40_000 / (1000 / step.max(10))];
            std::io::Write::write_all(&mut pair.client.writer(), &payload).expect("takes it");
            pair.carry(b"meanwhile");
            assert!(pair.scratch.mqtt == payload, "the payload changed");
            let heard = pair.heard();
            assert!(heard.len() >= 9 && heard.chunks(9).all(|chunk| chunk == b"meanwhile"));
            assert!(pair.layers.raw.is_empty());
        }
    }
}

#[test]
fn new_traffic_keys_are_taken() {
    let mut pair = Pair::new(&rustls::version::TLS13, 1);
    pair.carry(b"");
    pair.client.refresh_traffic_keys().expect("asks");
    pair.carry(b"meanwhile");
    std::io::Write::write_all(&mut pair.client.writer(), b"after").expect("takes it");
    pair.carry(b"");
    assert_eq!(pair.scratch.mqtt, b"after");
    pair.say(b"still here");
    assert!(pair.heard().ends_with(b"still here"));
}

#[test]
fn garbage_at_any_point_leads_nowhere() {
    let mut hello = Vec::new();
    Pair::new(&rustls::version::TLS13, 1).client.write_tls(&mut hello).expect("writes");
    for at in 0..hello.len() {
        let mut pair = Pair::new(&rustls::version::TLS13, 1);
        let mut bad = hello.clone();
        bad[at] ^= 0x55;
        bad.extend_from_slice(&[0x17; 40]);
        let (head, tail) = bad.split_at(at);
        // Not every flip matters; none leads to a connection, or to a panic.
        let _ = feed(&mut pair.layers, &mut pair.scratch, &[head, tail]);
        assert!(!pair.layers.is_established() && pair.scratch.mqtt.is_empty(), "flipped at {at}");
    }
}
