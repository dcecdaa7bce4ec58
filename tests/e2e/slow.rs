//! A consumer that doesn't read costs its own queue and nobody else's.

use std::io::Write;

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::Client;
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{self, Connect, Publish, Version};

const MESSAGES: u32 = 20_000;
const PAYLOAD: usize = 2_000;
/// How far the publisher may be ahead of the fast subscriber, whose own queue would overflow otherwise.
const AHEAD_MAX: u32 = 500;

fn flood(broker: &Broker, qos: u8, slow: &[Client]) -> u64 {
    let mut fast = broker.clean(Version::V311, "fast");
    fast.subscribe(&[("flood", qos)]);
    let before = broker.memory();
    let address = broker.mqtt();
    let (sender, taken) = std::sync::mpsc::sync_channel::<()>(usize::try_from(MESSAGES).expect("fits"));
    let publisher = std::thread::spawn(move || {
        let client = Client::clean(address, Version::V311, "publisher");
        let mut stream = client.stream();
        let mut acks = client.stream().try_clone().expect("a second handle");
        let drain = std::thread::spawn(move || std::io::copy(&mut acks, &mut std::io::sink()));
        for n in 0..MESSAGES {
            if n >= AHEAD_MAX {
                taken.recv_timeout(SOON).expect("the fast one goes on");
            }
            let mut payload = n.to_be_bytes().to_vec();
            payload.resize(PAYLOAD, b'x');
            let id = u16::try_from(n % 60_000 + 1).expect("small");
            let publish = Publish::new("flood", payload).qos(qos, if qos == 0 { 0 } else { id });
            stream.write_all(&publish.encode(Version::V311)).expect("the broker takes it");
        }
        stream.write_all(&wire::disconnect(0, &[])).expect("the broker takes it");
        drain.join().expect("drained")
    });
    let mut peak = before;
    for n in 0..MESSAGES {
        let publish = fast.take();
        assert_eq!(publish.payload[..4], n.to_be_bytes(), "the fast one misses nothing");
        // The publisher may have ended.
        let _ = sender.send(());
        if n % 500 == 0 {
            peak = peak.max(broker.memory());
        }
    }
    publisher.join().expect("the publisher").expect("the connection ended");
    for client in slow {
        // Still connected: its socket has an address at the other end.
        client.stream().peer_addr().expect("connected");
    }
    peak.max(broker.memory()) - before
}

#[test]
fn qos_1_to_one_that_does_not_read_is_bounded_by_its_queue() {
    let broker = Setup::anonymous()
        .config("[limits]\nqueued_bytes_max = 4_000_000\nqueued_messages_max = 100_000\ninflight_max = 100\n")
        .start();
    let slow: Vec<Client> = (0..3)
        .map(|n| {
            let mut client = broker.client(&Connect::new(Version::V311, &format!("slow{n}")));
            client.subscribe(&[("flood", 1)]);
            client
        })
        .collect();
    let grown = flood(&broker, 1, &slow);
    // Three queues of 4 MB, and what sockets and batches hold; 40 MB were sent to each.
    assert!(grown < 40 << 20, "{grown} bytes for three queues of 4 MB");
}

#[test]
fn qos_0_to_one_that_does_not_read_is_bounded_too() {
    let broker =
        Setup::anonymous().config("[limits]\nqueued_bytes_max = 4_000_000\nqueued_messages_max = 100_000\n").start();
    let slow: Vec<Client> = (0..3)
        .map(|n| {
            let mut client = broker.client(&Connect::new(Version::V5, &format!("slow{n}")));
            client.subscribe(&[("flood", 0)]);
            client
        })
        .collect();
    let grown = flood(&broker, 0, &slow);
    assert!(grown < 40 << 20, "{grown} bytes for three queues of 4 MB");
}

#[test]
fn one_that_reads_again_gets_the_next_messages() {
    let broker = Setup::anonymous().config("[limits]\nqueued_bytes_max = 1_000_000\n").start();
    let mut slow = broker.clean(Version::V5, "slow");
    slow.subscribe(&[("flood", 0), ("sign", 0)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    for _ in 0..10_000 {
        publisher.publish(&Publish::new("flood", vec![b'x'; PAYLOAD]));
    }
    publisher.quiet();
    // What had to be dropped is dropped; the connection is sound, and what comes after room is made arrives.
    let mut flood = 0;
    until("the sign arrives", SOON, || {
        publisher.publish(&Publish::new("sign", "now"));
        while let Some(wire::Packet::Publish(publish)) = slow.recv_within(std::time::Duration::from_millis(100)) {
            if publish.topic == "sign" {
                return Some(());
            }
            flood += 1;
        }
        None
    });
    assert!(flood > 0 && flood < 10_000, "{flood}");
}
