//! Packets that come slowly, or never end: one shard, fed by hand.

use super::super::*;
use super::Open;
use crate::shard::testing::{alone, peer};

/// A shard and its clock.
struct Bench {
    shard: Shard<Open>,
    now: Now,
    /// What the shell would hold, by connection.
    held: Vec<Vec<u8>>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let now = Now { mono_ms: 1_000, unix_ms: 1_000_000 };
        let shard = alone(&Arc::new(Open), limits, now);
        Self { shard, now, held: Vec::new() }
    }

    fn open(&mut self) -> ConnId {
        let conn = self.shard.open(peer(false), self.now).expect("room");
        self.held.resize(self.held.len().max(conn.0 as usize + 1), Vec::new());
        conn
    }

    /// As the shell does it.
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Next {
        let held = &mut self.held[conn.0 as usize];
        held.extend_from_slice(bytes);
        let received = self.shard.receive(conn, held, self.now);
        held.drain(..received.consumed);
        received.next
    }

    /// Everything that was said to it since the last time.
    fn said(&mut self, conn: ConnId) -> Vec<u8> {
        let bytes = self.shard.output(conn).bytes.to_vec();
        self.shard.wrote(conn, bytes.len(), self.now);
        bytes
    }

    fn is_ending(&self, conn: ConnId) -> bool {
        self.shard.output(conn).close
    }

    fn closed(&mut self, conn: ConnId) {
        self.held[conn.0 as usize].clear();
        self.shard.closed(conn, self.now);
    }

    fn after(&mut self, seconds: u64) {
        self.now.mono_ms += seconds * 1000;
        self.now.unix_ms += seconds * 1000;
        self.shard.tick(self.now);
    }

    fn client(&mut self, level: u8, keep_alive_s: u16) -> ConnId {
        let conn = self.open();
        assert_eq!(self.send(conn, &connect(level, keep_alive_s, conn.0)), Next::Continue);
        assert_eq!(self.said(conn)[0], 0x20);
        conn
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    variable(body.len(), &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

fn variable(mut length: usize, out: &mut Vec<u8>) {
    while length > 127 {
        out.push(u8::try_from(length & 127).expect("7 bits") | 128);
        length >>= 7;
    }
    out.push(u8::try_from(length).expect("7 bits"));
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).expect("short").to_be_bytes(), text.as_bytes()].concat()
}

fn connect(level: u8, keep_alive_s: u16, id: u32) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let fixed = [&[level, 2][..], &keep_alive_s.to_be_bytes(), properties].concat();
    packet(0x10, &[text("MQTT"), fixed, text(&format!("client{id}"))].concat())
}

const LEVELS: [u8; 2] = [4, 5];

/// The first bytes of a PUBLISH of a hundred thousand.
const BEGUN: &[u8] = &[0x30, 0xa0, 0x8d, 0x06, 0, 1, b't', 0];

#[test]
fn a_trickle_is_no_sign_of_life() {
    for level in LEVELS {
        let mut bench = Bench::new(Limits::default());
        let (trickling, pinging) = (bench.client(level, 10), bench.client(level, 10));
        bench.send(trickling, BEGUN);
        for _ in 0..2 {
            bench.after(6);
            bench.send(trickling, b"x");
            bench.send(pinging, &[0xc0, 0]);
        }
        bench.after(4);
        assert!(bench.is_ending(trickling) && !bench.is_ending(pinging));
        let said = bench.said(trickling);
        assert_eq!(said, if level == 5 { vec![0xe0, 1, 0x8d] } else { vec![] });
        assert_eq!(bench.shard.counters().keep_alive_timeouts, 1);
    }
}

#[test]
fn a_packet_has_its_time_without_a_keep_alive_too() {
    let mut bench = Bench::new(Limits::default());
    let conn = bench.client(4, 0);
    bench.send(conn, BEGUN);
    bench.after(29);
    assert!(!bench.is_ending(conn));
    bench.after(3);
    assert!(bench.is_ending(conn));
    assert_eq!((bench.shard.counters().packets_timed_out, bench.shard.counters().partial_bytes), (1, 0));
}

#[test]
fn what_comes_slowly_and_steadily_may_come() {
    let mut bench = Bench::new(Limits::default());
    let conn = bench.client(4, 0);
    bench.send(conn, BEGUN);
    // 96 KiB at 2 KiB a second; then nothing.
    for _ in 0..46 {
        bench.after(1);
        bench.send(conn, &[b'x'; 2048]);
        assert!(!bench.is_ending(conn));
    }
    bench.after(80);
    assert!(bench.is_ending(conn));
}

#[test]
fn whole_packets_leave_no_more_than_one_timer() {
    let mut bench = Bench::new(Limits::default());
    let conn = bench.client(4, 0);
    let timers = bench.shard.wheel.len();
    let publish = packet(0x30, &[text("t"), vec![b'x'; 100]].concat());
    for _ in 0..1000 {
        bench.send(conn, &publish[..50]);
        bench.send(conn, &publish[50..]);
    }
    assert_eq!((bench.shard.wheel.len(), bench.shard.counters().partial_bytes), (timers + 1, 0));
    // Each packet has a time of its own, and in the end none is left of it all.
    for _ in 0..10 {
        bench.send(conn, &publish[..50]);
        bench.after(20);
        bench.send(conn, &publish[50..]);
    }
    assert!(!bench.is_ending(conn));
    bench.after(60);
    assert!(bench.shard.wheel.len() <= timers);
}

#[test]
fn a_connect_has_a_bound_of_its_own() {
    let mut bench = Bench::new(Limits { connect_bytes_max: 64 << 10, ..Limits::default() });
    let (large, fits) = (bench.open(), bench.open());
    assert_eq!(bench.send(large, &[0x10, 0x80, 0x80, 0x04]), Next::Ending);
    // 65,532 and four bytes of header.
    assert_eq!(bench.send(fits, &[0x10, 0xfc, 0xff, 0x03]), Next::Continue);
    let client = bench.client(4, 0);
    assert_eq!(bench.send(client, BEGUN), Next::Continue);
}

#[test]
fn unfinished_packets_are_bounded_together() {
    let limits = Limits { partial_bytes_max: 1 << 20, packet_bytes_max: 256 << 10, ..Limits::default() };
    for level in LEVELS {
        let mut bench = Bench::new(limits.clone());
        let client = bench.client(level, 0);
        let connect = [&[0x10, 0xfc, 0xff, 0x03][..], &[0; 60_000]].concat();
        // Strangers get half.
        let strangers: Vec<_> = (0..20).map(|_| bench.open()).collect();
        let refused = strangers.iter().filter(|conn| bench.send(**conn, &connect) == Next::Ending).count();
        assert_eq!(refused, 20 - (512 << 10) / 60_004);
        // Clients get what is left.
        let publish = [BEGUN, &[0; 90_000]].concat();
        assert_eq!(bench.send(client, &publish), Next::Continue);
        let others: Vec<_> = (0..10).map(|_| bench.client(level, 0)).collect();
        let refused: Vec<_> =
            others.iter().copied().filter(|conn| bench.send(*conn, &publish) == Next::Ending).collect();
        assert!(!refused.is_empty() && refused.len() < 10);
        let said = bench.said(refused[0]);
        assert_eq!(said, if level == 5 { vec![0xe0, 1, 0x97] } else { vec![] });
        assert!(bench.shard.counters().partial_bytes <= 1 << 20);
        for conn in strangers.into_iter().chain(others).chain([client]) {
            bench.closed(conn);
        }
        assert_eq!(bench.shard.counters().partial_bytes, 0);
        let next = bench.open();
        assert_eq!(bench.send(next, &connect), Next::Continue);
    }
}

#[test]
fn topics_of_too_many_levels_have_their_reasons() {
    let deep = vec!["a"; 129].join("/");
    let publish = |first: u8, level: u8| {
        let id: &[u8] = if first == 0x30 { &[] } else { &[0, 9] };
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        packet(first, &[&text(&deep), id, properties].concat())
    };
    let subscribe = |level: u8| {
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        packet(0x82, &[&[0, 7], properties, &text(&deep), &[1], &text("fine"), &[1]].concat())
    };
    let mut bench = Bench::new(Limits::default());
    let (three, five) = (bench.client(4, 0), bench.client(5, 0));
    assert_eq!(bench.send(five, &subscribe(5)), Next::Continue);
    assert_eq!(bench.said(five), [0x90, 5, 0, 7, 0, 0x8f, 1]);
    assert_eq!(bench.send(five, &publish(0x32, 5)), Next::Continue);
    assert_eq!(bench.said(five)[..5], [0x40, 3, 0, 9, 0x90][..]);
    assert_eq!(bench.send(five, &publish(0x34, 5)), Next::Continue);
    assert_eq!(bench.said(five)[..5], [0x50, 3, 0, 9, 0x90][..]);
    assert_eq!(bench.send(five, &publish(0x30, 5)), Next::Ending);
    assert_eq!(bench.said(five), [0xe0, 1, 0x90]);
    assert_eq!(bench.send(three, &subscribe(4)), Next::Continue);
    assert_eq!(bench.said(three), [0x90, 4, 0, 7, 0x80, 1]);
    assert_eq!(bench.send(three, &publish(0x32, 4)), Next::Ending);
    assert_eq!(bench.said(three), []);
}

#[test]
fn a_pubrel_that_names_nothing_is_told_so() {
    let mut bench = Bench::new(Limits::default());
    let (three, five) = (bench.client(4, 0), bench.client(5, 0));
    for (conn, properties, again) in [(three, &[][..], &[0x70, 2, 0, 9][..]), (five, &[0][..], &[0x70, 3, 0, 9, 0x92])]
    {
        bench.send(conn, &packet(0x34, &[&text("t"), &[0, 9][..], properties].concat()));
        assert_eq!(bench.said(conn)[0], 0x50);
        bench.send(conn, &[0x62, 2, 0, 9]);
        assert_eq!(bench.said(conn), [0x70, 2, 0, 9]);
        bench.send(conn, &[0x62, 2, 0, 9]);
        let said = bench.said(conn);
        assert_eq!(said[2..], again[2..]);
        assert!(said.starts_with(&again[..1]));
    }
}
