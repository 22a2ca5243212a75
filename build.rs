//! Compiles the contract under `proto/` without protoc, and tells the program which commit it is.

use std::{
    env,
    error::Error,
    fmt::{self, Write as _},
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
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("rpcs.rs"), rpcs(&compiler)?)?;

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

/// What the client knows of each RPC, by its request: a request belongs to one RPC alone, as `buf lint` checks.
fn rpcs(compiler: &protox::Compiler) -> Result<String, fmt::Error> {
    let mut code = String::new();
    let pool = compiler.descriptor_pool();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let (request, response) = (method.input(), method.output());
        let has_request_id = request.get_field_by_name("request_id").is_some();
        let options = method.method_descriptor_proto().options.as_ref();
        let is_idempotent =
            options.is_some_and(|options| options.idempotency_level().as_str_name() != "IDEMPOTENCY_UNKNOWN");
        write!(
            code,
            "impl Rpc for pb::{} {{ type Response = pb::{}; const PATH: &'static str = \"/{}/{}\"; \
             const REPEATABLE: bool = {}; ",
            request.name(),
            response.name(),
            method.parent_service().full_name(),
            method.name(),
            is_idempotent || has_request_id,
        )?;
        if has_request_id {
            code += "fn request_id(&mut self) -> Option<&mut String> { Some(&mut self.request_id) } ";
        }
        let kind = if method.is_server_streaming() { "ServerStreaming" } else { "Unary" };
        writeln!(code, "}}\nimpl {kind} for pb::{} {{}}", request.name())?;
        if response.get_field_by_name("next_page_token").is_some() {
            writeln!(
                code,
                "impl Paged for pb::{} {{ fn turn(&mut self, page: &Self::Response) -> bool {{ \
                 self.page_token.clone_from(&page.next_page_token); !self.page_token.is_empty() }} }}",
                request.name()
            )?;
        }
    }
    Ok(code)
}

/// The commit that is built: `PROFILE_COMMIT` where the build has no repository (an image), else git's answer.
fn commit() -> String {
    env::var("PROFILE_COMMIT").ok().or_else(git_commit).unwrap_or_else(|| "unknown".to_owned())
}

fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
