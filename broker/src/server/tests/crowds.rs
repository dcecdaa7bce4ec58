//! Many connections at once: they are taken in by groups, and each as if it were alone.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use turnpike_core::gate::Entry;
use turnpike_mqtt::ConnectReason;

use super::*;

/// More than one group.
const CROWD: usize = 200;

/// Lets everybody in, and counts who has entered and hasn't been judged yet.
#[derive(Default)]
struct Watching {
    waiting: AtomicI64,
    most: AtomicI64,
}

impl Gate for Watching {
    fn authenticate(&self, _: &Attempt<'_>, _: Now, _: [u8; 32]) -> Verdict {
        Verdict::Granted(Admission::new(Principal::Anonymous))
    }

    everything_is_allowed!();

    fn entered(&self, _: IpAddr, _: Now) -> Entry {
        self.most.fetch_max(self.waiting.fetch_add(1, Relaxed) + 1, Relaxed);
        Entry::Free
    }

    fn attempted(&self, _: IpAddr, _: Now) -> Result<(), ConnectReason> {
        self.waiting.fetch_sub(1, Relaxed);
        Ok(())
    }
}

#[test]
fn who_comes_in_a_crowd_is_judged_before_the_next_one_enters() {
    let gate = Arc::new(Watching::default());
    let parts = ServerParts { shards: 1, ..parts_behind(Arc::clone(&gate), vec![tcp_listener()]) };
    let server = Server::start(parts).expect("starts");
    let mut clients: Vec<_> = (0..CROWD).map(|_| Client::new(tcp(server.addresses()[0].1))).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&connect_packet(&format!("c{n}"), false));
    }
    for client in &mut clients {
        assert_eq!(client.receive(), (0x20, vec![0, 0]));
        client.ping();
    }
    assert_eq!((gate.waiting.load(Relaxed), gate.most.load(Relaxed)), (0, 1));
}

#[test]
fn of_a_crowd_nobodys_bytes_are_mixed_up() {
    let (server, address) = start(vec![tcp_listener()]);
    let mut subscriber = Client::new(tcp(address)).connect("sub");
    subscriber.subscribe("from/+", 0);
    // Together more than is read at once, at home on both shards; the first half goes again as soon as all is said.
    let of = |n: usize| client_of(u16::from(n.is_multiple_of(3)), &format!("c{n}-"));
    let mut clients: Vec<_> = (0..CROWD).map(|_| Client::new(tcp(address))).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let payload = vec![n.to_le_bytes()[0]; 3000 + 10 * n];
        client.send(&[connect_packet(&of(n), false), publish_packet(&format!("from/{n}"), &payload)].concat());
    }
    let staying = clients.split_off(CROWD / 2);
    drop(clients);
    let mut came = [false; CROWD];
    for _ in 0..CROWD {
        let (_, body) = subscriber.receive();
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, payload) = body[2..].split_at(topic);
        let n: usize = std::str::from_utf8(topic).expect("text").trim_start_matches("from/").parse().expect("a number");
        assert!(!std::mem::replace(&mut came[n], true), "{n} twice");
        assert_eq!(payload.len(), 3000 + 10 * n);
        assert!(payload.iter().all(|byte| *byte == n.to_le_bytes()[0]), "{n}");
    }
    for mut client in staying {
        assert_eq!(client.receive(), (0x20, vec![0, 0]));
        client.ping();
    }
    until(&server, |stats| stats.iter().map(|shard| shard.links).sum::<u64>() == 1);
}
