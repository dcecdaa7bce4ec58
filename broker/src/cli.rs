//! The command line.

mod audit;
mod credential;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

pub use audit::Audit;
pub use credential::Credential;

use crate::config::{Config, Faults, Kind, Listener};

/// MQTT device-access broker.
#[derive(Parser, Debug)]
#[command(name = "turnpike", version)]
pub struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `serve`, which may stand before it as well.
    #[command(flatten)]
    pub serve: Serve,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve clients until SIGTERM.
    Serve(Serve),
    /// List every fault of a configuration; exit 64 if there is any.
    Check {
        /// The file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Print the client id, user name and password of a device.
    Credential(Credential),
    /// Check or write out the audit.
    Audit(Audit),
}

/// Options of `serve`. Where a listener flag is given, only the listeners named by flags open; port 0 takes a free one.
#[derive(Args, Clone, PartialEq, Eq, Default, Debug)]
pub struct Serve {
    /// Configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Folder of everything that survives.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// MQTT over TCP.
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<SocketAddr>,
    /// MQTT over TLS.
    #[arg(long, value_name = "ADDR")]
    pub mqtts: Option<SocketAddr>,
    /// MQTT over WebSocket.
    #[arg(long, value_name = "ADDR")]
    pub ws: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS.
    #[arg(long, value_name = "ADDR")]
    pub wss: Option<SocketAddr>,
    /// HTTP API.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Let everybody in, on every topic; only while every MQTT listener is on loopback.
    #[arg(long)]
    pub anonymous: bool,
}

impl Cli {
    /// What to do, with the options that stand before it.
    ///
    /// # Errors
    /// An option is given twice, or before a command that isn't `serve`.
    pub fn into_command(self) -> Result<Command, clap::Error> {
        let conflict = |message: String| Self::command().error(ErrorKind::ArgumentConflict, message);
        match self.command {
            None => Ok(Command::Serve(self.serve)),
            Some(Command::Serve(after)) => self
                .serve
                .and(after)
                .map(Command::Serve)
                .map_err(|option| conflict(format!("the option {option} is given twice"))),
            Some(other) if self.serve == Serve::default() => Ok(other),
            Some(_) => {
                Err(conflict("options of this command stand behind it; those before it are of `serve`".to_owned()))
            }
        }
    }
}

/// An option that is given once at the most.
fn once<T>(name: &'static str, before: Option<T>, after: Option<T>) -> Result<Option<T>, &'static str> {
    if before.is_some() && after.is_some() { Err(name) } else { Ok(before.or(after)) }
}

impl Serve {
    /// With options that stand elsewhere on the command line; which one is given twice, if one is.
    fn and(self, after: Self) -> Result<Self, &'static str> {
        Ok(Self {
            config: once("--config", self.config, after.config)?,
            data: once("--data", self.data, after.data)?,
            mqtt: once("--mqtt", self.mqtt, after.mqtt)?,
            mqtts: once("--mqtts", self.mqtts, after.mqtts)?,
            ws: once("--ws", self.ws, after.ws)?,
            wss: once("--wss", self.wss, after.wss)?,
            http: once("--http", self.http, after.http)?,
            anonymous: self.anonymous || after.anonymous,
        })
    }

    /// The configuration: the file's, and what the flags say instead.
    ///
    /// # Errors
    /// Every fault.
    pub fn configure(&self) -> Result<Config, Faults> {
        let mut config = match &self.config {
            Some(file) => Config::load(file)?,
            None => Config::default(),
        };
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        let flags = [(Kind::Mqtt, self.mqtt), (Kind::Mqtts, self.mqtts), (Kind::Ws, self.ws), (Kind::Wss, self.wss)];
        if flags.iter().any(|(_, address)| address.is_some()) || self.http.is_some() {
            let configured = std::mem::take(&mut config.listeners);
            config.listeners = flags
                .into_iter()
                .filter_map(|(kind, address)| Some((kind, address?)))
                .map(|(kind, address)| named_by_flag(&configured, kind, address))
                .collect();
            config.http = self.http;
            config.platform = None;
        }
        config.anonymous |= self.anonymous;
        // What was in the file was good: whatever is wrong now, the flags have made so.
        let faults = config.faults();
        if faults.is_empty() { Ok(config) } else { Err(Faults { file: PathBuf::from("command line"), faults }) }
    }
}

/// The configured listener of this kind with another address, so that a flag keeps its certificates; else a plain one.
fn named_by_flag(configured: &[Listener], kind: Kind, address: SocketAddr) -> Listener {
    match configured.iter().find(|listener| listener.kind == kind) {
        Some(listener) => Listener { address, ..listener.clone() },
        None => Listener::plain(kind, address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(args: &[&str]) -> Serve {
        match parsed(args).expect("parsed") {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        }
    }

    fn parsed(args: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from([&["turnpike"], args].concat())?.into_command()
    }

    #[test]
    fn options_stand_before_and_behind_serve() {
        let whole = serve(&["serve", "--config", "f", "--mqtt", "127.0.0.1:1", "--anonymous"]);
        for args in [
            ["--config", "f", "--mqtt", "127.0.0.1:1", "--anonymous", "serve"],
            ["--config", "f", "--anonymous", "serve", "--mqtt", "127.0.0.1:1"],
            ["--anonymous", "--mqtt", "127.0.0.1:1", "serve", "--config", "f"],
        ] {
            assert_eq!(serve(&args), whole, "{args:?}");
        }
        assert_eq!(serve(&["--config", "f", "--mqtt", "127.0.0.1:1", "--anonymous"]), whole);
        let said = |args: &[&str]| parsed(args).expect_err("refused").to_string();
        assert!(said(&["--config", "f", "serve", "--config", "g"]).contains("--config is given twice"));
        assert!(said(&["--data", "d", "check", "--config", "g"]).contains("stand behind it"));
        assert!(matches!(parsed(&["check", "--config", "g"]), Ok(Command::Check { .. })));
    }

    #[test]
    fn no_command_is_serve() {
        let config = serve(&[]).configure().expect("valid");
        assert_eq!(config, Config::default());
        assert_eq!(serve(&["--data", "x"]).configure().expect("valid").data, PathBuf::from("x"));
    }

    #[test]
    fn flags_open_what_they_name_and_nothing_else() {
        let config = serve(&["serve", "--ws", "127.0.0.1:0", "--anonymous"]).configure().expect("valid");
        assert_eq!(config.listeners.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["ws"]);
        assert_eq!(config.http, None);
        assert!(config.anonymous);
        let config = serve(&["serve", "--http", "127.0.0.1:0"]).configure().expect("valid");
        assert!(config.listeners.is_empty() && config.http.is_some());
    }

    #[test]
    fn anonymous_is_refused_beyond_loopback() {
        let faults = serve(&["serve", "--mqtt", "0.0.0.0:0", "--anonymous"]).configure().expect_err("refused");
        assert_eq!(faults.faults.len(), 1);
    }
}
