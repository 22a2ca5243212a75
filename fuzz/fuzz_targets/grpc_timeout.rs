#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| profile_service::fuzzing::grpc_timeout(input));
