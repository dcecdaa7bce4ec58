//! The devices of a campaign: one epoll loop, as many connections at a time as there is room for.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use turnpike_mqtt::{Disconnect, DisconnectProperties, Packet, ReasonCode, Version, decode, encode, frame};

use super::fetchers::Fetchers;
use super::visit::{Next, Terms, Visit};
use crate::ota::Ota;

/// With nothing happening for so long, nothing will.
const PATIENCE: Duration = Duration::from_secs(60);
const WAKER: Token = Token(usize::MAX);
/// New connections between two looks at those that there are.
const NEW_AT_ONCE: usize = 64;

struct Connection {
    stream: TcpStream,
    visit: Visit,
    /// What isn't a whole packet yet.
    received: Vec<u8>,
    out: Vec<u8>,
    is_open: bool,
}

/// What has come of it.
#[derive(Default, Debug)]
pub(super) struct Played {
    /// Devices that went all the way.
    pub(super) done: u32,
    /// Devices that didn't.
    pub(super) broken: u32,
    /// Why the first of them didn't.
    pub(super) first_fault: Option<String>,
    /// Connections at once, at most.
    pub(super) connected: usize,
    /// Offers that came unasked to devices that had the new version.
    pub(super) late: u32,
}

pub(super) struct Fleet {
    address: SocketAddr,
    terms: Arc<Terms>,
    poll: Poll,
    fetchers: Fetchers,
    connections: Slab<Connection>,
    /// Devices that keep their offers for a while, the earliest first.
    staying: VecDeque<(Instant, usize)>,
    stay: Duration,
    scratch: Vec<u8>,
    played: Played,
}

impl Fleet {
    pub(super) fn new(
        address: SocketAddr,
        downloads: SocketAddr,
        terms: Arc<Terms>,
        plan: &Ota,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let fetchers = Fetchers::start(downloads, &terms, plan.clients, plan.back(), waker)?;
        let stay = Duration::from_millis(plan.stay_ms);
        Ok(Self {
            address,
            terms,
            poll,
            fetchers,
            connections: Slab::new(),
            staying: VecDeque::new(),
            stay,
            scratch: vec![0; 256 << 10],
            played: Played::default(),
        })
    }

    /// Plays `devices`, at most `connections` at a time, at most `rate` new ones a second if that isn't 0.
    pub(super) fn play(mut self, devices: u32, connections: usize, rate: u32) -> anyhow::Result<Played> {
        let mut events = Events::with_capacity(4096);
        let (begun, mut next, mut moved) = (Instant::now(), 0, Instant::now());
        while self.played.done + self.played.broken < devices {
            let due = match rate {
                0 => devices,
                rate => u32::try_from(begun.elapsed().as_millis() * u128::from(rate) / 1000).unwrap_or(devices),
            };
            let mut room = NEW_AT_ONCE;
            while next < devices.min(due) && self.connections.len() < connections && room > 0 {
                self.admit(Visit::new(next))?;
                (next, room) = (next + 1, room - 1);
            }
            let wait = if room == 0 { Duration::ZERO } else { self.wait(rate > 0 && next < devices) };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled?,
            }
            for event in &events {
                moved = Instant::now();
                match event.token() {
                    WAKER => self.fetched(),
                    Token(slot) => self.drive(slot, |fleet| fleet.read(slot)),
                }
            }
            self.go_on();
            anyhow::ensure!(moved.elapsed() < PATIENCE, "nothing happens any more: {:?}", self.played);
        }
        Ok(self.played)
    }

    fn wait(&self, is_paced: bool) -> Duration {
        let staying = self.staying.front().map(|(until, _)| until.saturating_duration_since(Instant::now()));
        let paced = Duration::from_millis(if is_paced { 2 } else { 1000 });
        staying.map_or(paced, |staying| staying.min(paced))
    }

    fn admit(&mut self, visit: Visit) -> anyhow::Result<()> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        entry.insert(Connection { stream, visit, received: Vec::new(), out: Vec::new(), is_open: false });
        self.played.connected = self.played.connected.max(self.connections.len());
        self.register(slot)
    }

    /// Begins to log in; what is written goes when the socket is open.
    fn register(&mut self, slot: usize) -> anyhow::Result<()> {
        let Some(connection) = self.connections.get_mut(slot) else { return Ok(()) };
        connection.visit.enter(&mut connection.out)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.stream, Token(slot), both)?;
        Ok(())
    }

    /// Does something for a connection, and sends what there is then. A device for which that fails is done with.
    fn drive(&mut self, slot: usize, what: impl FnOnce(&mut Self) -> anyhow::Result<()>) {
        let done = what(self).and_then(|()| match self.connections.get_mut(slot) {
            Some(connection) => connection.flush(),
            None => Ok(()),
        });
        if let Err(error) = done
            && let Some(broken) = self.connections.try_remove(slot)
        {
            self.played.broken += 1;
            let fault = format!("device {}: {error:#}", broken.visit.number());
            self.played.first_fault.get_or_insert(fault);
        }
    }

    /// All that is in the socket.
    fn read(&mut self, slot: usize) -> anyhow::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = self.read_into(slot, &mut scratch);
        self.scratch = scratch;
        done
    }

    fn read_into(&mut self, slot: usize, scratch: &mut [u8]) -> anyhow::Result<()> {
        loop {
            let Some(connection) = self.connections.get_mut(slot) else { return Ok(()) };
            if !connection.is_open {
                if let Some(error) = connection.stream.take_error()? {
                    return Err(error.into());
                }
                connection.is_open = connection.stream.peer_addr().is_ok();
                if !connection.is_open {
                    return Ok(());
                }
            }
            match connection.stream.read(scratch) {
                Ok(0) => anyhow::bail!("the broker closed the connection"),
                Ok(length) => {
                    let bytes = scratch.get(..length).unwrap_or_default();
                    if self.take(slot, bytes)? {
                        // It was another connection's: the next one's events come by themselves.
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes what came. True if the connection is over.
    fn take(&mut self, slot: usize, bytes: &[u8]) -> anyhow::Result<bool> {
        let Some(connection) = self.connections.get_mut(slot) else { return Ok(true) };
        let mut kept = std::mem::take(&mut connection.received);
        let whole = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        let mut at = 0;
        while let Some(found) = frame(whole.get(at..).unwrap_or_default(), u32::MAX)? {
            at += found.len();
            let packet = decode(Version::V5, found)?;
            let Some(connection) = self.connections.get_mut(slot) else { return Ok(true) };
            let next = connection.visit.handle(&packet, &self.terms, &mut connection.out)?;
            if self.follow(slot, next)? {
                return Ok(true);
            }
        }
        let rest = whole.get(at..).unwrap_or_default().to_vec();
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.received = rest;
        }
        Ok(false)
    }

    /// Does what is next. True if the connection is over.
    fn follow(&mut self, slot: usize, next: Next) -> anyhow::Result<bool> {
        match next {
            Next::Wait => Ok(false),
            Next::Stay if !self.stay.is_zero() => {
                self.staying.push_back((Instant::now() + self.stay, slot));
                Ok(false)
            }
            Next::Stay => {
                let next = self.connections[slot].download(&self.terms)?;
                self.follow(slot, next)
            }
            Next::Fetch(path) => {
                self.fetchers.fetch(slot, path)?;
                Ok(false)
            }
            Next::Return => {
                self.leave(slot)?;
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                let connection = &mut self.connections[slot];
                (connection.stream, connection.is_open) = (stream, false);
                self.register(slot)?;
                Ok(true)
            }
            Next::Over => {
                self.leave(slot)?;
                self.played.late += self.connections.remove(slot).visit.late();
                self.played.done += 1;
                Ok(true)
            }
        }
    }

    fn leave(&mut self, slot: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[slot];
        let packet =
            Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() });
        encode(Version::V5, &packet, &mut connection.out);
        connection.flush()?;
        connection.out.clear();
        connection.received.clear();
        Ok(())
    }

    fn fetched(&mut self) {
        while let Some((slot, result)) = self.fetchers.next() {
            self.drive(slot, |fleet| {
                result?;
                let Some(connection) = fleet.connections.get_mut(slot) else { return Ok(()) };
                connection.visit.downloaded(&fleet.terms, &mut connection.out)
            });
        }
    }

    /// Those that have stayed long enough.
    fn go_on(&mut self) {
        while let Some((until, slot)) = self.staying.front().copied()
            && until <= Instant::now()
        {
            self.staying.pop_front();
            self.drive(slot, |fleet| {
                let Some(connection) = fleet.connections.get_mut(slot) else { return Ok(()) };
                let next = connection.download(&fleet.terms)?;
                fleet.follow(slot, next).map(drop)
            });
        }
    }
}

impl Connection {
    fn download(&mut self, terms: &Terms) -> anyhow::Result<Next> {
        self.visit.download(terms, &mut self.out)
    }

    /// As much as the socket takes; the rest goes when it says that it has room.
    fn flush(&mut self) -> anyhow::Result<()> {
        while self.is_open && !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
