//! The `turnpike` binary: reads its orders, and hands over to the library.
#![allow(clippy::print_stdout, reason = "it is a command that prints")]

use std::process::ExitCode;

use clap::Parser;
use turnpike::cli::{Audit, Cli, Command, Credential, Serve};
use turnpike::config::{Config, Fault};
use turnpike::{logging, run};

/// Chosen by measurement, without huge pages (`no_thp`): see the decisions in `broker/DESIGN.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A command line or a configuration that can't be used (`sysexits.h`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let command = match Cli::try_parse().and_then(Cli::into_command) {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match command {
        Command::Serve(options) => serve(&options),
        Command::Check { config } => check(&config),
        Command::Credential(options) => credential(&options),
        Command::Audit(options) => audit(&options),
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
            tracing::error!("{}", run::told(&error));
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
            for Fault { key, message } in config.warnings() {
                eprintln!("{}: {key}: warning: {message}", file.display());
            }
            println!("{}: no faults; {} listeners", file.display(), config.listeners.len());
            ExitCode::SUCCESS
        }
        Err(faults) => refuse(&faults),
    }
}

fn audit(options: &Audit) -> ExitCode {
    match options.run(&mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(faults) => refuse(&faults),
    }
}

fn credential(options: &Credential) -> ExitCode {
    match options.make(std::io::stdin()) {
        Ok(made) => {
            println!("{}", options.text(&made));
            ExitCode::SUCCESS
        }
        Err(faults) => refuse(&faults),
    }
}
