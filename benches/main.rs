//! The tools of `scripts/bench`: a load, servers to compare with, and a way to PostgreSQL that takes longer.

mod collector;
mod load;
mod proxy;
mod servers;
mod wire;

use std::{error::Error, io::Write as _};

use clap::Parser;
use mimalloc::MiMalloc;

/// As the service has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
enum Command {
    /// Makes a load and prints what it saw.
    Load(load::LoadArgs),
    /// Serves what the service is compared with.
    Serve(servers::ServeArgs),
    /// Takes traces.
    Collector,
    /// Stands before PostgreSQL as a network would.
    Proxy(proxy::ProxyArgs),
}

fn main() -> Result<(), Box<dyn Error>> {
    match Command::parse() {
        Command::Load(args) => load::run(&args)?,
        Command::Serve(args) => servers::run(args)?,
        Command::Collector => collector::run()?,
        Command::Proxy(args) => proxy::run(&args)?,
    }
    std::io::stdout().flush()?;
    Ok(())
}
