// The program that cargo has built, on a database of its own: for the example in the client's documentation.

struct Service {
    program: std::process::Child,
    /// Kept open: a key that cannot be printed is not made.
    _printed: std::io::BufReader<std::process::ChildStdout>,
    address: String,
    key: String,
    _directory: tempfile::TempDir,
}

impl Service {
    /// Starts it. It prints a key, and a call with the address on which it listens already.
    fn start() -> Self {
        use std::{io, path::Path, process};
        // OUT_DIR is target/debug/build/NAME/out; only integration tests are told where the program is.
        let file = Path::new(env!("OUT_DIR")).ancestors().nth(3).unwrap().join("profile-service");
        let directory = tempfile::tempdir().unwrap();
        let mut program = process::Command::new(file)
            .current_dir(&directory)
            .env("PROFILE_LISTEN", "127.0.0.1:0")
            .env_remove("PROFILE_DATABASE_URL")
            .stdout(process::Stdio::piped())
            .stderr(process::Stdio::null())
            .spawn()
            .expect("the program, which cargo test builds");
        let mut printed = io::BufReader::new(program.stdout.take().unwrap());
        let mut words = io::BufRead::lines(&mut printed)
            .map_while(Result::ok)
            .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let key = words.find(|word| word.starts_with("ps_")).expect("a key");
        let address = words.find(|word| word.starts_with("127.0.0.1:")).expect("an address");
        Self { program, address: format!("http://{address}"), key, _printed: printed, _directory: directory }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
