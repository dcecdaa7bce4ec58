//! Other people's clients, installed by `tests/setup`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::time::{SOON, until};

/// The folder of `tests/`.
#[must_use]
pub fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where `tests/setup` puts Python's and JavaScript's clients.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os("TURNPIKE_TEST_CLIENTS").map_or_else(|| tests().join("../target/clients"), PathBuf::from)
}

/// `mosquitto_pub` or `mosquitto_sub`.
#[must_use]
#[track_caller]
pub fn mosquitto(program: &str) -> Command {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    assert!(there, "{program} is missing: run tests/setup");
    Command::new(program)
}

/// A program in `tests/clients`, in Python with paho-mqtt.
#[must_use]
#[track_caller]
pub fn python(script: &str) -> Command {
    python_in("venv", script)
}

/// A program in `tests/clients`, in Python with the aliyun-iot-linkkit SDK and the older paho-mqtt that it takes.
#[must_use]
#[track_caller]
pub fn python_with_linkkit(script: &str) -> Command {
    python_in("linkkit", script)
}

/// A program in `tests/clients`, in Python with moto.
#[must_use]
#[track_caller]
pub fn python_with_moto(script: &str) -> Command {
    python_in("moto", script)
}

#[track_caller]
fn python_in(environment: &str, script: &str) -> Command {
    let python = folder().join(environment).join("bin/python");
    assert!(python.exists(), "{} is missing: run tests/setup", python.display());
    let mut command = Command::new(python);
    command.arg("-u").arg(tests().join("clients").join(script));
    command
}

/// A program in `tests/clients`, in JavaScript with mqtt.js.
#[must_use]
#[track_caller]
pub fn javascript(script: &str) -> Command {
    let modules = folder().join("node_modules");
    assert!(modules.join("mqtt").exists(), "mqtt.js is missing in {}: run tests/setup", modules.display());
    // Modules are looked up from the script's folder upwards; a copy beside `node_modules` finds them. It is put there whole, since
    // other tests do the same at the same time.
    let copy = folder().join(script);
    let fresh = tempfile::NamedTempFile::new_in(folder()).expect("a file");
    std::fs::copy(tests().join("clients").join(script), fresh.path()).expect("copied");
    fresh.persist(&copy).expect("in place");
    let mut command = Command::new("node");
    command.arg(copy);
    command
}

/// A running client: lines in, lines out. Killed when dropped.
pub struct Peer {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    seen: Vec<String>,
}

impl Peer {
    /// Starts it.
    ///
    /// # Panics
    /// It can't be started.
    #[must_use]
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = follow(child.stdout.take().expect("piped"));
        let errors = follow(child.stderr.take().expect("piped"));
        Self { child, lines, errors, seen: Vec::new() }
    }

    /// Says a line to it.
    ///
    /// # Panics
    /// It has ended.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the client listens");
    }

    /// Its next line.
    ///
    /// # Panics
    /// There is none soon.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(SOON) {
            Ok(line) => {
                self.seen.push(line.clone());
                line
            }
            Err(_) => {
                let errors: Vec<String> = self.errors.try_iter().collect();
                panic!("no line from the client after {:?}; its errors: {}", self.seen, errors.join("\n"));
            }
        }
    }

    /// Its next line is this.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line, "after {:?}", self.seen);
    }

    /// It ends with status 0.
    ///
    /// # Panics
    /// It doesn't.
    #[track_caller]
    pub fn finish(&mut self) {
        drop(self.child.stdin.take());
        let child = &mut self.child;
        let status = until("the client ends", SOON, || child.try_wait().expect("a child"));
        let errors: Vec<String> = self.errors.try_iter().collect();
        let rest: Vec<String> = self.lines.try_iter().collect();
        assert!(status.success(), "{status}: {} {}", rest.join("\n"), errors.join("\n"));
    }

    /// Ends it without a word to the broker.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn follow(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Runs a client to its end; what it printed.
///
/// # Panics
/// It fails.
#[track_caller]
pub fn run(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A path as an argument.
#[must_use]
pub fn arg(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
