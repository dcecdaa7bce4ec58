//! A broker that can be killed and comes back with what it had.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use turnpike_authz::credential::{self, Credentials};
use turnpike_authz::secret::Secret;

use super::Backfill;
use crate::http::Http;

pub(super) const PRODUCT: &str = "bench";
/// The device whose live messages are watched.
pub(super) const LIVE: &str = "live";
const SERVICE: &str = "back-end";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "token-of-the-benchmark";
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Nothing here is to be slowed by what isn't measured.
const CONFIG: &str =
    "nonces_max = 10_000_000\n[limits]\nqueued_messages_max = 1_000_000\nqueued_bytes_max = 2_000_000_000\n";
const UNHINDERED: &str = "[backfill.device]\nmessages = \"unlimited\"\nbytes = \"unlimited\"\n[backfill.product]\nmessages = \"unlimited\"\nbytes = \"unlimited\"\n";

pub(super) struct Killable {
    program: PathBuf,
    folder: tempfile::TempDir,
    pub(super) address: SocketAddr,
    http: SocketAddr,
    child: Mutex<Child>,
}

impl Drop for Killable {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Killable {
    pub(super) fn start(program: &Path, plan: &Backfill) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let config = if plan.config.is_empty() { UNHINDERED } else { &plan.config };
        std::fs::write(folder.path().join("turnpike.toml"), format!("{CONFIG}{config}"))?;
        let [address, http] = free()?;
        let child = spawn(program, folder.path(), address, http)?;
        let broker = Self { program: program.to_owned(), folder, address, http, child: Mutex::new(child) };
        broker.wait()?;
        broker.furnish(plan)?;
        Ok(broker)
    }

    /// SIGKILL, and up again on the same data and addresses.
    pub(super) fn kill_and_restart(&self) -> anyhow::Result<()> {
        {
            let mut child = self.child.lock().map_err(|_| anyhow::anyhow!("nobody panics with it"))?;
            child.kill()?;
            child.wait()?;
            *child = spawn(&self.program, self.folder.path(), self.address, self.http)?;
        }
        self.wait()
    }

    fn wait(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(self.http).is_err() {
            anyhow::ensure!(Instant::now() < deadline, "the broker doesn't start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn furnish(&self, plan: &Backfill) -> anyhow::Result<()> {
        let mut http = Http::connect(self.http, TOKEN)?;
        http.ask("PUT", &format!("/api/v1/products/{PRODUCT}"), "{}")?;
        let service = json!({ "secret": SECRET, "grants": [{ "product": PRODUCT, "rights": ["read_up"] }] });
        http.ask("PUT", &format!("/api/v1/services/{SERVICE}"), &service.to_string())?;
        let mut rows = String::from("device,secret\n");
        rows.push_str(&format!("{LIVE},{SECRET}\n"));
        for n in 0..plan.devices {
            rows.push_str(&format!("{},{SECRET}\n", device(n)));
        }
        http.ask("POST", &format!("/api/v1/products/{PRODUCT}/devices/import"), &rows)?;
        Ok(())
    }
}

pub(super) fn device(n: u32) -> String {
    format!("d{n}")
}

/// What a device logs in with, once.
pub(super) fn device_login(name: &str, client_id: &str) -> anyhow::Result<Credentials> {
    login(PRODUCT, name, client_id)
}

/// What the back end logs in with, once.
pub(super) fn service_login(client_id: &str) -> anyhow::Result<Credentials> {
    login("$svc", SERVICE, client_id)
}

fn login(product: &str, name: &str, client_id: &str) -> anyhow::Result<Credentials> {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static NONCE: AtomicU64 = AtomicU64::new(0);
    let now_ms = u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
    let nonce = format!("{now_ms}-{}", NONCE.fetch_add(1, Relaxed));
    let secret = Secret::new(SECRET.as_bytes())?;
    Ok(credential::native(product, name, &secret, client_id, now_ms, &nonce))
}

fn spawn(program: &Path, folder: &Path, address: SocketAddr, http: SocketAddr) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(folder.join("turnpike.toml")).arg("--data").arg(folder.join("data"));
    command.args(["--mqtt", &address.to_string(), "--http", &http.to_string()]);
    command.env("TURNPIKE_ADMIN_TOKEN", TOKEN).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("{} can't be started", program.display()))
}

fn free<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let held = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for (listener, address) in held.into_iter().zip(&mut addresses) {
        *address = listener?.local_addr()?;
    }
    Ok(addresses)
}
