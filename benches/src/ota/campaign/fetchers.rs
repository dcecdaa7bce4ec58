//! Threads that download for the fleet, whose own thread doesn't wait.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use mio::Waker;

use super::visit::Terms;
use crate::behind::{self, Back};
use crate::ota::downloads::Connection;

type Results = Receiver<(usize, anyhow::Result<()>)>;

/// They end when this is dropped.
pub(super) struct Fetchers {
    wanted: Sender<(usize, String)>,
    fetched: Results,
    _threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Fetchers {
    /// `count` of them; each result wakes the fleet.
    pub(super) fn start(
        address: SocketAddr,
        terms: &Arc<Terms>,
        count: u32,
        back: Back,
        waker: Waker,
    ) -> anyhow::Result<Self> {
        let (wanted, orders) = channel::<(usize, String)>();
        let (results, fetched) = channel();
        let (orders, waker) = (Arc::new(Mutex::new(orders)), Arc::new(waker));
        let threads = (0..count).map(|_| {
            let (orders, results) = (Arc::clone(&orders), results.clone());
            let (terms, waker) = (Arc::clone(terms), Arc::clone(&waker));
            behind::spawn("fetcher", back, move || {
                let mut connection = None;
                loop {
                    let order = orders.lock().map_err(|_| anyhow::anyhow!("another has panicked"))?.recv();
                    let Ok((slot, path)) = order else { return Ok(()) };
                    let result = fetch(&mut connection, address, &path, terms.file.as_bytes());
                    if results.send((slot, result)).is_err() {
                        return Ok(());
                    }
                    waker.wake()?;
                }
            })
        });
        Ok(Self { wanted, fetched, _threads: threads.collect::<anyhow::Result<_>>()? })
    }

    pub(super) fn fetch(&self, slot: usize, path: String) -> anyhow::Result<()> {
        self.wanted.send((slot, path)).map_err(|_| anyhow::anyhow!("nobody downloads any more"))
    }

    /// A download that is done, for whom.
    pub(super) fn next(&self) -> Option<(usize, anyhow::Result<()>)> {
        self.fetched.try_recv().ok()
    }
}

fn fetch(connection: &mut Option<Connection>, address: SocketAddr, path: &str, file: &[u8]) -> anyhow::Result<()> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(address, None)?),
    };
    open.range(path, 0, file, file.len()).map(drop)
}
