//! Rates and bans at real sockets: what is slowed arrives all the same, and who is banned gets no byte.

use std::net::IpAddr;

use parking_lot::Mutex;
use turnpike_core::gate::{Admission, Entry};
use turnpike_core::meter::{Allowance, Debt, Excess, FlowRate, Meter, Rate};

use super::*;
use crate::tls::tests::Authority;

/// Lets everybody in but from banned addresses, each at fifty messages a second after the first five.
#[derive(Default)]
struct Limited {
    allowance: Mutex<Option<Arc<Allowance>>>,
    banned: Mutex<Vec<IpAddr>>,
    entered: Mutex<i64>,
}

impl Gate for Limited {
    fn authenticate(&self, _: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Granted(Admission::new(Principal::Anonymous))
    }

    everything_is_allowed!();

    fn accepts(&self, address: IpAddr, _: Now) -> bool {
        !self.banned.lock().contains(&address)
    }

    fn entered(&self, address: IpAddr, now: Now) -> Entry {
        if !self.accepts(address, now) {
            return Entry::Closed;
        }
        *self.entered.lock() += 1;
        Entry::Counted
    }

    fn left(&self, _: IpAddr) {
        *self.entered.lock() -= 1;
    }

    fn meter(&self, _: &Principal, _: Now) -> Option<Meter> {
        Some(Meter::new(self.allowance.lock().clone()?, None, Debt::default()))
    }
}

fn start_limited(listener: ListenerSettings) -> (Server, SocketAddr, Arc<Limited>) {
    let gate = Arc::new(Limited::default());
    let server = Server::start(parts_behind(Arc::clone(&gate), vec![listener])).expect("starts");
    let address = server.addresses()[0].1;
    (server, address, gate)
}

fn fifty_a_second() -> Option<Arc<Allowance>> {
    let messages = Rate::new(50, 1_000_000_000, 5).expect("a rate");
    Some(Arc::new(Allowance::new(FlowRate { messages, ..FlowRate::UNLIMITED }, Excess::default())))
}

fn over(authority: &Authority, stream: TcpStream) -> impl Wire {
    let config = Arc::new(tls::client_config(authority, &rustls::version::TLS13, None));
    let name = "a.test".to_owned().try_into().expect("a name");
    rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).expect("makes"), stream)
}

fn throttled(stats: &[crate::shard::ShardStats]) -> u64 {
    stats.iter().map(|shard| shard.core.throttled).sum()
}

#[test]
fn a_client_that_is_not_read_loses_nothing() {
    let authority = Authority::new("ca");
    let over_tls =
        ListenerSettings { tls: Some(authority.settings(vec![authority.issue("a.test", 1)])), ..tcp_listener() };
    for (listener, secure) in [(tcp_listener(), false), (over_tls, true)] {
        let (server, address, gate) = start_limited(listener);
        *gate.allowance.lock() = fifty_a_second();
        for shard in 0..SHARDS {
            let stream = tcp(address);
            let wire: Box<dyn Wire> = if secure { Box::new(over(&authority, stream)) } else { Box::new(stream) };
            let mut client = Client::new(wire).connect(&client_of(shard, "fast"));
            // A piece with all of them, and more than is read at once while they wait.
            let acked = |n: u8| packet(0x32, &[&text("t")[..], &[0, n], &[0; 4000]].concat());
            client.send(&(1..=15).flat_map(acked).collect::<Vec<u8>>());
            client.send(&[0xc0, 0]);
            for n in 1..=15 {
                assert_eq!(client.receive(), (0x40, vec![0, n]));
            }
            assert_eq!(client.receive().0, 0xd0, "PINGRESP");
        }
        assert!(throttled(&server.control().stats_blocking()) >= 2 * 10);
        assert!(server.drain(PATIENCE));
        assert_eq!(*gate.entered.lock(), 0, "who entered has left, moved ones too");
    }
}

#[test]
fn limits_can_come_and_go_while_clients_are_connected() {
    let (server, address, gate) = start_limited(tcp_listener());
    let mut clients: Vec<_> =
        (0..SHARDS).map(|shard| Client::new(tcp(address)).connect(&client_of(shard, "c"))).collect();
    // A day for each message after the first.
    let messages = Rate::new(1, 86_400_000_000_000, 1).expect("a rate");
    let slow = Allowance::new(FlowRate { messages, ..FlowRate::UNLIMITED }, Excess::default());
    *gate.allowance.lock() = Some(Arc::new(slow));
    server.control().remeter();
    // Asked after it, the shards answer after it.
    until(&server, |_| true);
    for client in &mut clients {
        client.ping();
    }
    until(&server, |stats| throttled(stats) == u64::from(SHARDS));
    for client in &mut clients {
        client.send(&[0xc0, 0]);
    }
    *gate.allowance.lock() = None;
    server.control().remeter();
    for client in &mut clients {
        assert_eq!(client.receive().0, 0xd0, "the PINGRESP that had to wait");
        client.ping();
    }
    assert!(server.drain(PATIENCE));
}

#[test]
fn a_banned_address_gets_no_byte_and_costs_no_handshake() {
    let authority = Authority::new("ca");
    let over_tls =
        ListenerSettings { tls: Some(authority.settings(vec![authority.issue("a.test", 1)])), ..tcp_listener() };
    for listener in [tcp_listener(), over_tls] {
        let (server, address, gate) = start_limited(listener);
        gate.banned.lock().push([127, 0, 0, 1].into());
        let mut stream = tcp(address);
        // The kernel wakes the broker with the first byte.
        stream.write_all(&connect_packet("banned", false)).expect("sends");
        match stream.read(&mut [0]) {
            Ok(n) => assert_eq!(n, 0),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        until(&server, |stats| stats.iter().map(|shard| shard.core.turned_away).sum::<u64>() == 1);
        let stats = server.control().stats_blocking();
        assert_eq!(stats.iter().map(|shard| shard.core.opened + shard.net.handshakes_failed).sum::<u64>(), 0);
        drop(server);
    }
}

#[test]
fn behind_a_proxy_the_client_is_banned_and_not_the_proxy() {
    let (server, address, gate) = start_limited(ListenerSettings { proxy_protocol: true, ..tcp_listener() });
    gate.banned.lock().extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 1, 2, 3])]);
    let through = |client: &str| {
        let mut stream = tcp(address);
        stream.write_all(format!("PROXY TCP4 {client} 10.0.0.1 12345 1883\r\n").as_bytes()).expect("sends");
        stream
    };
    Client::new(through("10.1.2.4")).connect("x").ping();
    let mut banned = through("10.1.2.3");
    // It may have been closed already.
    let _ = banned.write_all(&connect_packet("y", false));
    match banned.read(&mut [0]) {
        Ok(n) => assert_eq!(n, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    drop(server);
}
