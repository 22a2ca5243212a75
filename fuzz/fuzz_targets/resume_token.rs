#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| profile_service::fuzzing::resume_token(input));
