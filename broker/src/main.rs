//! The `turnpike` binary: reads its orders, and hands over to the library.
#![allow(clippy::print_stdout, reason = "it is a command that prints")]

use std::process::ExitCode;

use clap::Parser;
use turnpike::cli::{Cli, Command, Credential, Serve};
use turnpike::config::Config;
use turnpike::{logging, provision, run};
use turnpike_authz::Credentials;
use turnpike_authz::credential::Request;
use turnpike_authz::profile::SignMethod;
use turnpike_authz::secret::Secret;

/// The numbers in README were measured with it; others have not been compared yet.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A command line or a configuration that can't be used (`sysexits.h`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(options)) => serve(&options),
        Some(Command::Check { config }) => check(&config),
        Some(Command::Credential(options)) => credential(&options),
    }
}

fn serve(options: &Serve) -> ExitCode {
    let config = match options.configure() {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    if let Err(fault) = logging::start(config.log_format, &config.log_level) {
        return refuse(&fault);
    }
    match run::serve(options, &config) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(fault: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{fault}");
    ExitCode::from(EXIT_USAGE)
}

fn check(file: &std::path::Path) -> ExitCode {
    match Config::load(file) {
        Ok(config) => {
            println!("{}: no faults; {} listeners", file.display(), config.listeners.len());
            ExitCode::SUCCESS
        }
        Err(faults) => refuse(&faults),
    }
}

fn credential(options: &Credential) -> ExitCode {
    let secret = match Secret::new(options.secret.as_bytes()) {
        Ok(secret) => secret,
        Err(error) => return refuse(&error),
    };
    let nonce = hex::encode(provision::random::<12>());
    let made = Credentials::make(
        options.profile,
        &Request {
            product: &options.product,
            device: &options.device,
            secret: &secret,
            client_id: options.client_id.as_deref(),
            timestamp_ms: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64),
            nonce: &nonce,
            method: SignMethod::Sha256,
        },
    );
    print_credentials(&made, options.json);
    ExitCode::SUCCESS
}

fn print_credentials(made: &Credentials, json: bool) {
    let Credentials { client_id, user_name, password } = made;
    if json {
        println!("{}", serde_json::json!({ "client_id": client_id, "user_name": user_name, "password": password }));
    } else {
        println!("client id: {client_id}\nuser name: {user_name}\npassword: {password}\n");
        println!("mosquitto_pub -i '{client_id}' -u '{user_name}' -P '{password}' -t … -m …");
    }
}
