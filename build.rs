//! Compiles the contract under `proto/` without protoc, and tells the program which commit it is.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The files of the contract, and those that error details need to be readable by reflection and Envoy.
const ROOTS: [&str; 8] = [
    "profiles/v1/profile_service.proto",
    "profiles/v1/profile_query_service.proto",
    "profiles/v1/profile_identifier_service.proto",
    "profiles/v1/key_service.proto",
    "profiles/v1/case_service.proto",
    "profiles/v1/support_service.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(ROOTS)?;

    // Taken from the compiler, not from the types below: prost's descriptor types drop custom options.
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::grpc::codec::Codec")
        .skip_debug(["profiles.v1"]) // a request is all PII: no `{:?}` may print one
        .compile_fds(compiler.file_descriptor_set())?;

    println!("cargo::rerun-if-changed=proto");
    for head in [".git/HEAD", ".git/logs/HEAD"].iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={head}");
    }
    println!("cargo::rerun-if-env-changed=PROFILE_COMMIT");
    println!("cargo::rustc-env=PROFILE_COMMIT={}", commit());
    Ok(())
}

/// The commit that is built: `PROFILE_COMMIT` where the build has no repository (an image), else git's answer.
fn commit() -> String {
    env::var("PROFILE_COMMIT").ok().or_else(git_commit).unwrap_or_else(|| "unknown".to_owned())
}

fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
