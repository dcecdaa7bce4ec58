//! A file over HTTP, range by range, to several clients at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::Ota;
use super::device::Device;
use super::memory::Watch;
use super::report::Row;
use super::stage::{Stage, content};
use crate::behind;

/// An answer hasn't come if it hasn't by then.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that are read, and compared, at once.
const READ_BYTES: usize = 256 << 10;

/// Whom clients of TLS trust, and by what name.
pub(super) type Trust = (Arc<ClientConfig>, ServerName<'static>);

pub(super) fn run(program: &Path, plan: &Ota, with_tls: bool) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(program, plan.clients, with_tls, &plan.config)?;
    let file: Arc<str> = content((plan.file_mib as usize) << 20).into();
    let firmware = stage.firmware(&file)?;
    stage.campaign(firmware)?;
    let links = (0..plan.clients).map(|n| Ok(Device::come(stage.mqtt(), n)?.offer.path));
    let links = links.collect::<anyhow::Result<Vec<_>>>()?;
    let (begin, bytes) = (Arc::new(Barrier::new(links.len() + 1)), Arc::new(AtomicU64::new(0)));
    let (range, times) = ((plan.range_mib as usize) << 20, plan.times);
    let mut clients = Vec::new();
    for link in links {
        let (begin, bytes, file, address) = (Arc::clone(&begin), Arc::clone(&bytes), Arc::clone(&file), stage.ota);
        let trust = stage.tls()?;
        clients.push(behind::spawn("client", plan.back(), move || {
            let connection = Connection::open(address, trust);
            begin.wait();
            let mut connection = connection?;
            for _ in 0..times {
                for first in (0..file.len()).step_by(range) {
                    let last = file.len().min(first + range) - 1;
                    let taken = connection.range(&link, first, &file.as_bytes()[first..=last], file.len())?;
                    bytes.fetch_add(taken, Relaxed);
                }
            }
            Ok(())
        })?);
    }
    begin.wait();
    let (watch, begun) = (Watch::start(stage.pid())?, Instant::now());
    behind::join(clients)?;
    let elapsed = begun.elapsed().as_secs_f64();
    let seen = watch.finish();
    let bytes = bytes.load(Relaxed);
    let expected = u64::from(plan.clients) * u64::from(times) * file.len() as u64;
    let mut rows = vec![
        Row::new("clients", f64::from(plan.clients)),
        Row::new("MiB of a range", f64::from(plan.range_mib)),
        Row::new("MB, each byte compared", bytes as f64 / 1e6),
        Row::new("seconds", elapsed),
        Row::new("MB a second", bytes as f64 / 1e6 / elapsed),
        Row::new("broker's CPU of an MB, ms", seen.cpu.as_secs_f64() * 1e9 / bytes as f64),
    ];
    rows.extend(seen.rows());
    rows.push(Row::none("bytes that are missing", expected.saturating_sub(bytes)));
    Ok(rows)
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection that is kept.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: SocketAddr, trust: Option<Trust>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("downloads aren't served")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let stream: Box<dyn Stream> = match trust {
            Some((config, name)) => Box::new(StreamOwned::new(ClientConnection::new(config, name)?, stream)),
            None => Box::new(stream),
        };
        Ok(Self { stream: BufReader::with_capacity(8 << 10, stream), buffer: vec![0; READ_BYTES] })
    }

    /// Asks for the range from `first` on, of a file of so many bytes, and compares what comes with `expected`.
    pub(super) fn range(&mut self, path: &str, first: usize, expected: &[u8], of: usize) -> anyhow::Result<u64> {
        let last = first + expected.len() - 1;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nrange: bytes={first}-{last}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        head(&mut self.stream, &format!("bytes {first}-{last}/{of}"), expected.len())?;
        let mut at = 0;
        while at < expected.len() {
            let most = (expected.len() - at).min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..most])?;
            anyhow::ensure!(read > 0, "a download breaks off");
            anyhow::ensure!(self.buffer[..read] == expected[at..at + read], "other bytes than the file's");
            at += read;
        }
        Ok(at as u64)
    }
}

/// The head of an answer that has the range.
fn head(from: &mut impl BufRead, range: &str, length: usize) -> anyhow::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    anyhow::ensure!(line.starts_with("HTTP/1.1 206 "), "no range: {}", line.trim_end());
    let (mut in_place, mut whole) = (false, false);
    loop {
        line.clear();
        anyhow::ensure!(from.read_line(&mut line)? > 0, "the answer ends too early");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        in_place |= name.eq_ignore_ascii_case("content-range") && value == range;
        whole |= name.eq_ignore_ascii_case("content-length") && value == length.to_string();
    }
    anyhow::ensure!(in_place && whole, "another range than was asked for");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_that_was_asked_for() {
        let text = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/9\r\ncontent-length: 2\r\n\r\nxy";
        let mut from = text.as_bytes();
        head(&mut from, "bytes 1-2/9", 2).expect("it");
        assert_eq!(from, b"xy");
        for (range, length) in [("bytes 1-2/8", 2), ("bytes 1-2/9", 3)] {
            assert!(head(&mut text.as_bytes(), range, length).is_err());
        }
        assert!(head(&mut "HTTP/1.1 200 OK\r\n\r\n".as_bytes(), "bytes 1-2/9", 2).is_err());
        assert!(head(&mut "HTTP/1.1 206 Partial Content\r\ncontent".as_bytes(), "bytes 1-2/9", 2).is_err());
    }
}
