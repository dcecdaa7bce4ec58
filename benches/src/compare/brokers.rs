//! Starts the brokers that are compared, each on free ports of the loopback, and ends them.

use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};

use super::Compare;
use crate::http::Http;
use crate::identity::Device;

const SECRET: &str = "a secret of the benchmark";
const TOKEN: &str = "token-of-the-benchmark";
const START_TIME_MAX: Duration = Duration::from_secs(30);
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
const POLL_TIME: Duration = Duration::from_millis(20);

/// Who can take part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// The bare forwarder.
    Floor,
    /// This broker.
    Turnpike,
    /// Eclipse Mosquitto.
    Mosquitto,
    /// rumqttd.
    Rumqttd,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Turnpike => "turnpike",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
        })
    }
}

impl Kind {
    pub(super) fn has_tls(self) -> bool {
        matches!(self, Self::Turnpike | Self::Mosquitto)
    }
}

/// Where the brokers' programs are.
pub(super) struct Programs {
    turnpike: Option<PathBuf>,
    mosquitto: Option<PathBuf>,
    rumqttd: Option<PathBuf>,
    anonymous: bool,
}

impl Programs {
    /// What the command line says; else what lies at the usual places.
    pub(super) fn find(compare: &Compare) -> anyhow::Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("turnpike");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let installed = || folders.map(|folder| folder.join("mosquitto")).find(|file| file.is_file());
        Ok(Self {
            turnpike: compare.turnpike.clone().or_else(|| Some(beside).filter(|file| file.is_file())),
            mosquitto: compare.mosquitto.clone().or_else(installed),
            rumqttd: compare.rumqttd.clone(),
            anonymous: compare.anonymous,
        })
    }

    fn of(&self, kind: Kind) -> Option<PathBuf> {
        match kind {
            // By this name it is what runs, even if there is another at its path meanwhile.
            Kind::Floor => Some("/proc/self/exe".into()),
            Kind::Turnpike => self.turnpike.clone(),
            Kind::Mosquitto => self.mosquitto.clone(),
            Kind::Rumqttd => self.rumqttd.clone(),
        }
    }

    /// Those that are asked for, or all that there are.
    pub(super) fn kinds(&self, asked: &[Kind]) -> anyhow::Result<Vec<Kind>> {
        if let Some(missing) = asked.iter().find(|kind| self.of(**kind).is_none()) {
            anyhow::bail!("{missing} isn't there: --{missing} says where its program is");
        }
        let all = Kind::value_variants().iter().copied().filter(|kind| self.of(*kind).is_some());
        Ok(all.filter(|kind| asked.is_empty() || asked.contains(kind)).collect())
    }
}

/// A running broker; dropping it ends it.
pub(crate) struct Broker {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsAt>,
    http: SocketAddr,
    /// To log in as, so that authentication, policy and metrics are part of what is measured.
    pub(super) device: Option<Device>,
}

/// Where TLS is spoken, and whom to trust.
pub(crate) struct TlsAt {
    pub(crate) address: SocketAddr,
    pub(crate) ca: PathBuf,
}

impl Broker {
    pub(super) fn start(programs: &Programs, kind: Kind, with_tls: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let [address, tls, http] = free()?;
        let mut command = Command::new(programs.of(kind).with_context(|| format!("{kind} isn't there"))?);
        let mut ca = None;
        match kind {
            Kind::Floor => _ = command.args(["floor", "--listen", &address.to_string()]),
            Kind::Rumqttd => _ = command.args(["--listen", &address.to_string()]),
            Kind::Mosquitto => {
                if with_tls {
                    ca = Some(certify(folder.path())?);
                }
                command.arg("-c").arg(configure_mosquitto(folder.path(), address, with_tls.then_some(tls))?);
            }
            Kind::Turnpike => {
                let data = folder.path().join("data");
                command.arg("serve").arg("--data").arg(&data).env("TURNPIKE_ADMIN_TOKEN", TOKEN);
                command.args([
                    "--mqtt",
                    &address.to_string(),
                    "--mqtts",
                    &tls.to_string(),
                    "--http",
                    &http.to_string(),
                ]);
                if programs.anonymous {
                    command.arg("--anonymous");
                }
                ca = with_tls.then(|| data.join("pki/ca.pem"));
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("{kind} can't be started"))?;
        let tls = ca.map(|ca| TlsAt { address: tls, ca });
        let mut broker = Self { child, folder, address, tls, http, device: None };
        broker.wait(|| TcpStream::connect(address).is_ok())?;
        if kind == Kind::Turnpike {
            broker.wait(|| ask(http, "GET", "/readyz", "").is_ok())?;
            if !programs.anonymous {
                broker.provision()?;
            }
        }
        Ok(broker)
    }

    /// This broker with TCP, and with TLS if clients may show a certificate of an authority. `more`: of its configuration.
    pub(crate) fn turnpike(
        program: &Path,
        anonymous: bool,
        authority: Option<&str>,
        more: &str,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let [address, tls, http] = free()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut toml = format!(
            "data = \"{}\"\nanonymous = {anonymous}\nhttp.address = \"{http}\"\n{more}\
             [[listeners]]\nkind = \"mqtt\"\naddress = \"{address}\"\n",
            path("data")
        );
        let mut ca = None;
        if let Some(authority) = authority {
            std::fs::write(path("devices.pem"), authority)?;
            let chain = certify(folder.path())?;
            toml += &format!(
                "[[listeners]]\nkind = \"mqtts\"\naddress = \"{tls}\"\n\
                 [listeners.tls]\nclient_auth = \"optional\"\nclient_ca_files = [\"{}\"]\n\
                 [[listeners.tls.certificates]]\nchain_file = \"{}\"\nkey_file = \"{}\"\n",
                path("devices.pem"),
                chain.display(),
                path("server.key")
            );
            ca = Some(chain);
        }
        let file = folder.path().join("turnpike.toml");
        std::fs::write(&file, toml)?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(file).env("TURNPIKE_ADMIN_TOKEN", TOKEN);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("{} can't be started", program.display()))?;
        let tls = ca.map(|ca| TlsAt { address: tls, ca });
        let mut broker = Self { child, folder, address, tls, http, device: None };
        broker.wait(|| ask(http, "GET", "/readyz", "").is_ok())?;
        Ok(broker)
    }

    /// A request to its HTTP API that must succeed.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
        ask(self.http, method, path, body)
    }

    /// A connection to its HTTP API.
    pub(crate) fn http(&self) -> anyhow::Result<Http> {
        Http::connect(self.http, TOKEN)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Until it does what is asked.
    fn wait(&mut self, is_there: impl Fn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        while !is_there() {
            anyhow::ensure!(self.child.try_wait()?.is_none(), "it ended as soon as it was started");
            anyhow::ensure!(Instant::now() < deadline, "it doesn't get ready on {}", self.address);
            thread::sleep(POLL_TIME);
        }
        Ok(())
    }

    fn provision(&mut self) -> anyhow::Result<()> {
        self.ask("PUT", "/api/v1/products/bench", "{}")?;
        let body = serde_json::json!({ "secret": SECRET }).to_string();
        self.ask("PUT", "/api/v1/products/bench/devices/d", &body)?;
        self.device = Some(Device { product: "bench".to_owned(), name: "d".to_owned(), secret: SECRET.to_owned() });
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIME_MAX;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(POLL_TIME);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its folder goes behind it.
        let _ = &self.folder;
    }
}

/// Ports that nobody uses at this moment, and no two of them the same.
fn free() -> anyhow::Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind("127.0.0.1:0");
    let held = [listen()?, listen()?, listen()?];
    Ok([held[0].local_addr()?, held[1].local_addr()?, held[2].local_addr()?])
}

/// No limit of its own shapes a row.
fn configure_mosquitto(folder: &Path, address: SocketAddr, tls: Option<SocketAddr>) -> anyhow::Result<PathBuf> {
    let mut text = "per_listener_settings false\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\n\
                    max_queued_messages 0\nlog_type error\n"
        .to_owned();
    text += &format!("listener {} 127.0.0.1\n", address.port());
    if let Some(tls) = tls {
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        let (port, certificate, key) = (tls.port(), certificate.display(), key.display());
        text += &format!("listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n");
    }
    let file = folder.join("mosquitto.conf");
    std::fs::write(&file, text)?;
    // Started by root, it gives up its rights, and then reads its key.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(file)
}

/// A certificate for localhost that is its own authority.
fn certify(folder: &Path) -> anyhow::Result<PathBuf> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = folder.join("server.pem");
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(folder.join("server.key"), made.signing_key.serialize_pem())?;
    Ok(certificate)
}

/// A request to the HTTP API that must succeed.
fn ask(http: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
    Http::connect(http, TOKEN)?.ask(method, path, body).map(drop)
}
