//! The program: see `profile-service --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    profile_service::cli::main()
}
