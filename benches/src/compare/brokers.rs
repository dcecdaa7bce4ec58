//! Starts the brokers that are compared, each on free ports of the loopback, and ends them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use turnpike_authz::secret::Secret;

use super::Comparison;
use crate::spec::Device;

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Floor,
    Turnpike,
    Mosquitto,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Turnpike => "turnpike",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// A running broker; dropping it ends it.
pub(super) struct Broker {
    child: Child,
    folder: tempfile::TempDir,
    pub(super) address: SocketAddr,
    /// Where it speaks TLS, and whom to trust.
    pub(super) tls: Option<(SocketAddr, PathBuf)>,
    pub(super) device: Option<Device>,
}

const SECRET: &[u8] = b"a secret of the benchmark";
const TOKEN: &str = "token-of-the-benchmark";
const START_TIME_MAX: Duration = Duration::from_secs(20);

impl Broker {
    pub(super) fn start(comparison: &Comparison, kind: Kind, with_tls: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let (address, tls, http) = (free()?, free()?, free()?);
        let mut command = match kind {
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["floor", "--listen", &address.to_string()]);
                command
            }
            Kind::Turnpike => {
                let mut command = Command::new(&comparison.turnpike);
                command.args(["serve", "--mqtt", &address.to_string(), "--http", &http.to_string(), "--data"]);
                command.arg(folder.path().join("data")).env("TURNPIKE_ADMIN_TOKEN", TOKEN);
                if with_tls {
                    command.args(["--mqtts", &tls.to_string()]);
                }
                if comparison.anonymous {
                    command.arg("--anonymous");
                }
                command
            }
            Kind::Mosquitto => {
                let file = folder.path().join("mosquitto.conf");
                let text = format!(
                    "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\nmax_queued_messages 0\nlog_type error\n",
                    address.port()
                );
                std::fs::write(&file, text)?;
                let mut command = Command::new(comparison.mosquitto.as_deref().context("mosquitto isn't given")?);
                command.arg("-c").arg(file);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("{} can't be started", kind.name()))?;
        let mut broker = Self { child, folder, address, tls: None, device: None };
        broker.wait()?;
        if kind == Kind::Turnpike {
            if !comparison.anonymous {
                broker.provision(http)?;
            }
            broker.tls = with_tls.then(|| (tls, broker.folder.path().join("data/pki/ca.pem")));
        }
        Ok(broker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(self.address).is_err() {
            anyhow::ensure!(self.child.try_wait()?.is_none(), "it has ended");
            anyhow::ensure!(Instant::now() < deadline, "it doesn't listen on {}", self.address);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A device to log in as, so that authentication and policy are part of what is measured.
    fn provision(&mut self, http: SocketAddr) -> anyhow::Result<()> {
        let secret = Secret::new(SECRET)?;
        put(http, "/api/v1/products/bench", "{}")?;
        let body = format!("{{\"secret\": \"{}\"}}", String::from_utf8_lossy(SECRET));
        put(http, "/api/v1/products/bench/devices/d", &body)?;
        self.device = Some(Device { product: "bench".to_owned(), name: "d".to_owned(), secret });
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody uses at this moment.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn put(http: SocketAddr, path: &str, body: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_TIME_MAX;
    let mut stream = loop {
        match TcpStream::connect(http) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error).context("the HTTP API doesn't listen"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let length = body.len();
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let good = answer.starts_with("HTTP/1.1 20");
    anyhow::ensure!(good, "PUT {path}: {}", answer.lines().next().unwrap_or("no answer"));
    Ok(())
}
