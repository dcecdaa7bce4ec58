//! WebSocket and PROXY end to end, and handshakes that don't end.

use super::*;
use crate::listener::WebSocketSettings;
use crate::tls::tests::Authority;

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

fn websocket_listener() -> ListenerSettings {
    ListenerSettings { name: "ws".to_owned(), websocket: Some(WebSocketSettings::default()), ..tcp_listener() }
}

/// A client's end of a WebSocket: each write is a frame.
struct Socket<W: Wire> {
    wire: W,
    data: Vec<u8>,
}

impl<W: Wire> Socket<W> {
    fn open(mut wire: W) -> Self {
        wire.write_all(REQUEST).expect("sends");
        wire.flush().expect("sends");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            wire.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        Self { wire, data: Vec::new() }
    }

    fn send_frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mask = [7, 0xe1, 0, 0x55];
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(short @ 0..126) => bytes.push(0x80 | short),
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.wire.write_all(&bytes)
    }

    /// First byte and payload of the next frame.
    fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.wire.read_exact(&mut head)?;
        let mut length = [0; 8];
        let extended = match head[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        self.wire.read_exact(&mut length[8 - extended..])?;
        let length = if extended == 0 { u64::from(head[1]) } else { u64::from_be_bytes(length) };
        let mut payload = vec![0; usize::try_from(length).expect("small")];
        self.wire.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }
}

impl<W: Wire> Read for Socket<W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.data.is_empty() {
            let (first, payload) = self.frame()?;
            match first {
                0x82 => self.data = payload,
                0x88 => return Ok(0),
                _ => panic!("frame {first:#x}"),
            }
        }
        let n = buf.len().min(self.data.len());
        buf[..n].copy_from_slice(&self.data[..n]);
        self.data.drain(..n);
        Ok(n)
    }
}

impl<W: Wire> Write for Socket<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // In two fragments, cut where it suits nobody.
        let (head, tail) = buf.split_at(buf.len() / 3);
        self.send_frame(0x02, head)?;
        self.send_frame(0x80, tail)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}

#[test]
fn websocket_carries_mqtt_on_every_shard() {
    let (server, address) = start(vec![websocket_listener(), tcp_listener()]);
    let plain = server.addresses()[1].1;
    let mut subscriber = Client::new(Socket::open(tcp(address))).connect("sub");
    subscriber.subscribe("a/b", 0);
    let payload = vec![0x33; 150_000];
    for shard in 0..SHARDS {
        let mut publisher = Client::new(Socket::open(tcp(address))).connect(&client_of(shard, "pub"));
        publisher.publish("a/b", &payload);
        assert!(subscriber.expect_publish("a/b") == payload, "the payload changed");
    }
    let mut publisher = Client::new(tcp(plain)).connect("plain");
    publisher.publish("a/b", b"from TCP");
    assert_eq!(subscriber.expect_publish("a/b"), b"from TCP");
}

#[test]
fn websocket_has_its_own_pings_and_its_own_end() {
    let (server, address) = start(vec![websocket_listener()]);
    let mut client = Client::new(Socket::open(tcp(address))).connect("x");
    client.wire.send_frame(0x89, b"there?").expect("sends");
    assert_eq!(client.wire.frame().expect("a frame"), (0x8a, b"there?".to_vec()));
    client.wire.send_frame(0x88, &[0x03, 0xe8]).expect("sends");
    assert_eq!(client.wire.frame().expect("a frame"), (0x88, vec![0x03, 0xe8]));
    assert_eq!(client.wire.wire.read(&mut [0]).expect("the end"), 0);

    let mut client = Client::new(Socket::open(tcp(address))).connect("y");
    client.wire.send_frame(0x81, b"text").expect("sends");
    assert_eq!(client.wire.frame().expect("a frame"), (0x88, vec![0x03, 0xeb]));
    drop(client);
    until(&server, |stats| stats.iter().all(|shard| shard.links == 0));
}

#[test]
fn a_refused_request_is_answered_and_closed() {
    let (_server, address) = start(vec![websocket_listener()]);
    let mut stream = tcp(address);
    stream.write_all(b"GET /other HTTP/1.1\r\nHost: broker\r\n\r\n").expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the end, not a reset");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn tls_websocket_and_proxy_stack_up() {
    let authority = Authority::new("ca");
    let settings = authority.settings(vec![authority.issue("a.test", 1)]);
    let listener = ListenerSettings { tls: Some(settings), proxy_protocol: true, ..websocket_listener() };
    let (server, address) = start(vec![listener]);
    let config = Arc::new(tls::client_config(&authority, &rustls::version::TLS13, None));
    for shard in 0..SHARDS {
        let mut stream = tcp(address);
        stream.write_all(b"PROXY TCP4 10.1.2.3 10.0.0.1 12345 1883\r\n").expect("sends");
        let name = "a.test".to_owned().try_into().expect("a name");
        let conn = rustls::ClientConnection::new(Arc::clone(&config), name).expect("makes");
        let mut client =
            Client::new(Socket::open(rustls::StreamOwned::new(conn, stream))).connect(&client_of(shard, "x"));
        client.ping();
    }
    assert!(server.drain(PATIENCE));
}

#[test]
fn the_gate_sees_the_client_behind_the_proxy() {
    struct Seen(parking_lot::Mutex<Vec<SocketAddr>>);
    impl Gate for Seen {
        fn authenticate(&self, attempt: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
            self.0.lock().push(attempt.peer);
            Verdict::Granted(Admission::new(Principal::Anonymous))
        }

        everything_is_allowed!();
    }
    let seen = Arc::new(Seen(parking_lot::Mutex::default()));
    let listeners = vec![ListenerSettings { proxy_protocol: true, ..tcp_listener() }];
    let server = Server::start(parts_behind(Arc::clone(&seen), listeners)).expect("starts");
    for shard in 0..SHARDS {
        let mut stream = tcp(server.addresses()[0].1);
        stream.write_all(b"PROXY TCP4 10.1.2.3 10.0.0.1 12345 1883\r\n").expect("sends");
        Client::new(stream).connect(&client_of(shard, "x")).ping();
    }
    assert_eq!(*seen.0.lock(), [SocketAddr::from(([10, 1, 2, 3], 12345)); 2]);

    let mut bare = tcp(server.addresses()[0].1);
    bare.write_all(&connect_packet("bare", false)).expect("sends");
    assert_eq!(bare.read(&mut [0]).expect("the end"), 0);
}

/// Handshakes have 200 ms, and one may be under way on each shard.
fn impatient(listener: ListenerSettings) -> (Server, SocketAddr) {
    let transport = TransportLimits { handshake_timeout_ms: 200, handshakes_max: 1, ..TransportLimits::default() };
    let server = Server::start(ServerParts { shards: 1, transport, ..parts(vec![listener]) }).expect("starts");
    let address = server.addresses()[0].1;
    (server, address)
}

#[test]
fn a_handshake_that_stalls_is_cut_and_lets_others_in() {
    let authority = Authority::new("ca");
    let tls = ListenerSettings { tls: Some(authority.settings(vec![authority.issue("a.test", 1)])), ..tcp_listener() };
    let proxy = ListenerSettings { proxy_protocol: true, ..tcp_listener() };
    for (listener, begin) in
        [(tls, &b"\x16\x03\x01"[..]), (websocket_listener(), b"GET /mqtt HTTP/1.1\r\n"), (proxy, b"PROXY TCP4 ")]
    {
        let (server, address) = impatient(listener);
        let begun = Instant::now();
        let mut stalled: Vec<_> = (0..3).map(|_| tcp(address)).collect();
        for stream in &mut stalled {
            stream.write_all(begin).expect("sends");
        }
        // One at a time gets in, and each is cut in its turn.
        for stream in &mut stalled {
            match stream.read(&mut [0]) {
                Ok(n) => assert_eq!(n, 0),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            }
        }
        assert!(begun.elapsed() >= Duration::from_millis(600));
        until(&server, |stats| stats[0].net.handshakes_timed_out == 3 && stats[0].links == 0);
    }
}

#[test]
fn established_connections_are_not_counted_as_handshakes() {
    let (server, address) = impatient(websocket_listener());
    let mut clients: Vec<_> =
        (0..3).map(|n| Client::new(Socket::open(tcp(address))).connect(&format!("client{n}"))).collect();
    until(&server, |stats| stats[0].net.handshakes_done == 3 && stats[0].handshakes == 0);
    for client in &mut clients {
        client.ping();
    }
}
