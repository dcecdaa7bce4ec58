//! The real broker as a process: started, killed, restarted on the same data.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificate::Identity;
use crate::client::Client;
use crate::http::Http;
use crate::time::{SOON, until};
use crate::wire::{Connect, Version};

/// Bearer token of every broker that the tests start.
pub const ADMIN_TOKEN: &str = "token-of-the-tests-0123456789abcdef";

/// How a broker is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    flags: Vec<String>,
    config: Option<String>,
    environment: Vec<(String, String)>,
    file_bytes_max: Option<u64>,
    descriptors_max: Option<u32>,
    becomes_ready: bool,
    /// How many addresses the log will tell.
    listeners: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self::anonymous()
    }
}

impl Setup {
    /// Everybody may do everything; MQTT over TCP and the HTTP API.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::closed().flag("--anonymous")
    }

    /// Nobody enters unknown; MQTT over TCP and the HTTP API.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(0).listen("--mqtt").listen("--http")
    }

    /// Listeners of these kinds (`mqtt`, `mqtts`, `ws`, `wss`) on free ports, those with TLS under this identity, and the HTTP API.
    #[must_use]
    pub fn listeners(kinds: &[&str], identity: &Identity) -> Self {
        let mut toml = "[http]\naddress = \"127.0.0.1:0\"\n".to_owned();
        for kind in kinds {
            toml += &format!("[[listeners]]\nkind = \"{kind}\"\naddress = \"127.0.0.1:0\"\n");
            if matches!(*kind, "mqtts" | "wss") {
                let (chain, key) = (identity.certificate.display(), identity.key.display());
                toml += &format!("[[listeners.tls.certificates]]\nchain_file = \"{chain}\"\nkey_file = \"{key}\"\n");
            }
        }
        let listeners = kinds.len() + 1;
        Self::new(listeners).config(&toml)
    }

    /// Nobody enters unknown; MQTT over TCP where each connection begins with a PROXY header, the HTTP API, and this configuration.
    #[must_use]
    pub fn behind_proxy(toml: &str) -> Self {
        let listener = "[[listeners]]\nkind = \"mqtt\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n";
        Self::new(2).config(&format!("[http]\naddress = \"127.0.0.1:0\"\n{listener}{toml}"))
    }

    fn new(listeners: usize) -> Self {
        Self {
            flags: Vec::new(),
            config: None,
            environment: Vec::new(),
            file_bytes_max: None,
            descriptors_max: None,
            becomes_ready: true,
            listeners,
        }
    }

    /// One more listener, by configuration.
    ///
    /// # Panics
    /// There is no configuration file: flags would close what it opens.
    #[must_use]
    pub fn and_listener(mut self, toml: &str) -> Self {
        self.listeners += 1;
        self.config.as_mut().expect("a configuration file").push_str(toml);
        self
    }

    /// More configuration, behind what there is.
    ///
    /// # Panics
    /// There is no configuration file.
    #[must_use]
    pub fn and_config(mut self, toml: &str) -> Self {
        self.config.as_mut().expect("a configuration file").push_str(toml);
        self
    }

    /// One more flag.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// One more listener, on a free port: `--mqtt`, `--mqtts`, `--ws`, `--http`.
    #[must_use]
    pub fn listen(mut self, kind: &str) -> Self {
        self.listeners += 1;
        self.flag(kind).flag("127.0.0.1:0")
    }

    /// A configuration file with this text.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No file of the broker may grow beyond this: writes fail as they do on a full disk.
    #[must_use]
    pub fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = Some(bytes);
        self
    }

    /// The broker may have so many descriptors open.
    #[must_use]
    pub fn descriptors_max(mut self, descriptors: u32) -> Self {
        self.descriptors_max = Some(descriptors);
        self
    }

    /// It is up when its listeners are, though it won't say that it is ready.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        self.becomes_ready = false;
        self
    }

    /// Starts it on a new data folder.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Broker {
        let data = tempfile::Builder::new().prefix("turnpike-test-").tempdir().expect("a temporary folder");
        Broker::start_in(self, Arc::new(data))
    }
}

/// A running broker. Killed when dropped.
pub struct Broker {
    setup: Setup,
    data: Arc<TempDir>,
    child: Child,
    log: Arc<Log>,
    addresses: HashMap<String, SocketAddr>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Log {
    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                log.lines().push(plain(&line));
                log.grown.notify_all();
            }
        });
    }

    /// The lines; a test that panicked while it waited doesn't make them unreadable.
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first answer that `find` has to the lines so far, or to those that come.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut find: impl FnMut(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        let mut lines = self.lines();
        loop {
            if let Some(found) = find(&lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the broker's log never said {what}:\n{}", lines.join("\n"));
            // Short, so that `find` can also see that the process has ended.
            let pause = left.min(Duration::from_millis(100));
            lines = self.grown.wait_timeout(lines, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A line without the colours that a terminal would show.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::new();
    let mut rest = text.as_ref();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out += before;
        rest = after.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &after[end + 1..]);
    }
    out + rest
}

impl Broker {
    /// The usual one: anonymous, TCP and HTTP.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Setup::anonymous().start()
    }

    #[track_caller]
    fn start_in(setup: Setup, data: Arc<TempDir>) -> Self {
        let mut command = match setup.descriptors_max {
            Some(most) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={most}")).arg(program("turnpike"));
                command
            }
            None => command(),
        };
        command.arg("serve").arg("--data").arg(data.path().join("data")).args(&setup.flags);
        if let Some(config) = &setup.config {
            let file = data.path().join("turnpike.toml");
            std::fs::write(&file, config).expect("written");
            command.arg("--config").arg(file);
        }
        command.env("TURNPIKE_ADMIN_TOKEN", ADMIN_TOKEN).env("NO_COLOR", "1");
        command.envs(setup.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the broker starts");
        if let Some(bytes) = setup.file_bytes_max {
            limit_files(child.id(), bytes);
        }
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        let mut broker = Self { setup, data, child, log, addresses: HashMap::new() };
        broker.wait_until_up();
        broker
    }

    /// Reads the listeners' addresses from the log.
    #[track_caller]
    fn wait_until_up(&mut self) {
        let wanted = self.setup.listeners;
        let child = &mut self.child;
        self.addresses = self.log.wait("its addresses", |lines| {
            let found: HashMap<String, SocketAddr> = lines.iter().filter_map(|line| listener(line)).collect();
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the broker ended with {status}:\n{}", lines.join("\n"));
            }
            (found.len() >= wanted).then_some(found)
        });
        if let Some(http) = self.addresses.get("http").filter(|_| self.setup.becomes_ready) {
            let http = Http { address: *http, token: None };
            until("the broker is ready", SOON, || (http.get("/readyz").status == 200).then_some(()));
        }
    }

    /// Address of a listener: `mqtt`, `mqtts`, `ws`, `http`, or its name in the configuration.
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    #[track_caller]
    pub fn address(&self, listener: &str) -> SocketAddr {
        match self.addresses.get(listener) {
            Some(address) => *address,
            None => panic!("no listener {listener:?} among {:?}", self.addresses),
        }
    }

    /// Where MQTT over TCP is.
    #[must_use]
    #[track_caller]
    pub fn mqtt(&self) -> SocketAddr {
        self.address("mqtt")
    }

    /// Lets a client in.
    #[must_use]
    #[track_caller]
    pub fn client(&self, connect: &Connect) -> Client {
        Client::connect(self.mqtt(), connect)
    }

    /// Lets a client in with a clean session.
    #[must_use]
    #[track_caller]
    pub fn clean(&self, version: Version, id: &str) -> Client {
        Client::clean(self.mqtt(), version, id)
    }

    /// The HTTP API, as its administrator.
    #[must_use]
    #[track_caller]
    pub fn http(&self) -> Http {
        Http { address: self.address("http"), token: Some(ADMIN_TOKEN.to_owned()) }
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Waits until the log has a line with this in it.
    #[track_caller]
    pub fn wait_for_log(&self, part: &str) {
        self.log.wait(part, |lines| lines.iter().any(|line| line.contains(part)).then_some(()));
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// A folder for files of the test beside the data, kept as long as the broker.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.data.path()
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that are the process's own.
    ///
    /// # Panics
    /// It has ended.
    #[must_use]
    #[track_caller]
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line RssAnon");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: libc::c_int) {
        signal_process(self.pid(), signal);
    }

    /// `kill -9`, and waits until it's dead.
    ///
    /// # Panics
    /// It can't be killed.
    #[track_caller]
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the broker ends", SOON, || child.try_wait().expect("a child"))
    }

    /// Ends it in good order.
    ///
    /// # Panics
    /// It ends with another status than 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Starts it again on the same data, on new ports; kills it first if it still runs.
    #[track_caller]
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let again = Self::start_in(self.setup.clone(), Arc::clone(&self.data));
        *self = again;
    }

    /// Restarts with other settings on the same data.
    #[track_caller]
    pub fn restart_as(&mut self, setup: Setup) {
        self.setup = setup;
        self.restart();
    }

    /// Lifts or sets the limit of [`Setup::file_bytes_max`] while it runs.
    #[track_caller]
    pub fn set_file_bytes_max(&self, bytes: u64) {
        limit_files(self.pid(), bytes);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the broker\n{}\n---", self.log());
        }
    }
}

/// `… listening name="mqtt" kind="mqtt" address=127.0.0.1:1883`
fn listener(line: &str) -> Option<(String, SocketAddr)> {
    let field = |name: &str| {
        let start = line.find(&format!("{name}="))? + name.len() + 1;
        let value = line[start..].split([' ', ',']).next()?;
        Some(value.trim_matches('"').to_owned())
    };
    let address = field("address")?.parse().ok()?;
    line.contains("listening").then_some((field("name")?, address))
}

/// The broker's program, as it is started by hand.
///
/// # Panics
/// It isn't built.
#[must_use]
#[track_caller]
pub fn command() -> Command {
    Command::new(program("turnpike"))
}

/// A program of this workspace, from the folder above the one that holds the test.
///
/// # Panics
/// It isn't built.
#[must_use]
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    if let Some(given) = std::env::var_os(format!("{}_PROGRAM", name.to_uppercase().replace('-', "_"))) {
        return given.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.parent().and_then(Path::parent).expect("target/profile/deps/test");
    let program = folder.join(name);
    assert!(
        program.exists(),
        "{} isn't there: build it first with `cargo build --workspace --bins`",
        program.display()
    );
    program
}

#[track_caller]
fn signal_process(pid: u32, signal: libc::c_int) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().expect("kill");
    assert!(status.success(), "kill -{signal} {pid}");
}

#[track_caller]
fn limit_files(pid: u32, bytes: u64) {
    let limit = if bytes == u64::MAX { "unlimited".to_owned() } else { bytes.to_string() };
    let status = Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--fsize={limit}:")).status();
    assert!(status.expect("prlimit").success(), "prlimit --fsize={limit}");
}
