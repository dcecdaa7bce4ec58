//! The `turnpike-bench` binary.

use clap::Parser;
use turnpike_bench::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    Cli::parse().run()
}
