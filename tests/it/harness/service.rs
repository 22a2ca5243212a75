//! The program as its users run it.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value as Json;
use tempfile::NamedTempFile;
use tonic::transport::{Channel, Endpoint};

use super::{Client, Database, Scrape, http, until};

/// Every scope, in the order of the documentation.
pub const SCOPES: [&str; 6] =
    ["profiles.read", "profiles.write", "cases.report", "support", "profiles.list", "privacy"];

/// How many keys have been made: each has a name of its own.
static KEYS: AtomicUsize = AtomicUsize::new(0);

/// The program, about to be run with these arguments: the one that was built with the tests, unless
/// `PROFILE_TEST_PROGRAM` names another one.
pub fn program<const N: usize>(arguments: [&str; N]) -> Command {
    let built = env!("CARGO_BIN_EXE_profile-service");
    let mut command = Command::new(env::var("PROFILE_TEST_PROGRAM").as_deref().unwrap_or(built));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// A running service. It is killed when it is dropped.
pub struct Service {
    child: Option<Child>,
    printed: NamedTempFile,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    pub address: String,
    pub database: Arc<Database>,
}

impl Service {
    /// Starts on a database of its own.
    pub fn start() -> Self {
        Self::on(Arc::new(Database::create()), [])
    }

    /// Starts on this database, with these arguments.
    pub fn on<const N: usize>(database: Arc<Database>, arguments: [&str; N]) -> Self {
        let url = database.url();
        Self::by_url(database, &url, arguments)
    }

    /// Starts on this database, which it reaches by this URL.
    pub fn by_url<const N: usize>(database: Arc<Database>, url: &str, arguments: [&str; N]) -> Self {
        let mut command = program(["serve"]);
        command.args(arguments).env("PROFILE_DATABASE_URL", url);
        Self::spawn(command, database)
    }

    /// Starts on this database, with these arguments and a port for metrics.
    pub fn observed<const N: usize>(database: Arc<Database>, arguments: [&str; N]) -> Self {
        let mut command = program(["serve"]);
        command
            .args(arguments)
            .env("PROFILE_DATABASE_URL", database.url())
            .env("PROFILE_METRICS_LISTEN", "127.0.0.1:0");
        Self::spawn(command, database)
    }

    /// Starts on a database of its own, with these arguments and this environment.
    pub fn with(arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let database = Arc::new(Database::create());
        let url = database.url();
        Self::by_url_with(database, &url, arguments, environment)
    }

    /// Starts on this database, which it reaches by this URL, with these arguments and this environment.
    pub fn by_url_with(database: Arc<Database>, url: &str, arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let mut command = program(["serve"]);
        command.args(arguments).env("PROFILE_DATABASE_URL", url).envs(environment.iter().copied());
        Self::spawn(command, database)
    }

    /// Starts without any setting in this directory, on the embedded database that is there or will be, where new files
    /// are for everybody to read.
    pub fn embedded(directory: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask 022; exec {}", program([]).get_program().display())]);
        command.current_dir(directory).env_remove("PROFILE_DATABASE_URL").env_remove("RUST_LOG");
        Self::spawn(command, Arc::new(Database::create()))
    }

    /// Starts without room for a file of more than so many blocks of 512 bytes.
    pub fn with_little_room(database: Arc<Database>, blocks: u32) -> Self {
        // A write past the limit is then an error, as on a full disk, and not a signal.
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec {} serve", program([]).get_program().display());
        let mut command = Command::new("sh");
        command.args(["-c", &limited]).env("PROFILE_DATABASE_URL", database.url());
        Self::spawn(command, database)
    }

    /// Starts with these limits of open files.
    pub fn with_open_files(database: Arc<Database>, soft: u32, hard: u32) -> Self {
        let program = program([]);
        let program = program.get_program().display();
        let limited = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec {program} serve");
        let mut command = Command::new("sh");
        command.args(["-c", &limited]).env("PROFILE_DATABASE_URL", database.url());
        Self::spawn(command, database)
    }

    /// Starts the program on a free port and waits until it listens.
    fn spawn(mut command: Command, database: Arc<Database>) -> Self {
        let printed = tempfile::NamedTempFile::new().expect("a file");
        let mut child = command
            .env("PROFILE_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(printed.reopen().expect("a file"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("a program");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let (kept, (say, heard)) = (Arc::clone(&log), mpsc::channel());
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(address) = address(&line) {
                    let _ = say.send(address);
                }
                kept.lock().expect("the log").push(line);
            }
        });
        let address = heard.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| {
            panic!("the service does not listen: {:?}", log.lock().expect("the log"));
        });
        Self { child: Some(child), printed, log, reader: Some(reader), address, database }
    }

    /// A new organization, and a client with a key of it for everything.
    pub async fn organization(&self, name: &str) -> Client {
        self.run(["organization", "create", name]);
        self.client(&self.key(name, &SCOPES)).await
    }

    /// A new key of the organization, with a name of its own.
    pub fn key(&self, organization: &str, scopes: &[&str]) -> String {
        let name = format!("test-{}", KEYS.fetch_add(1, Ordering::Relaxed));
        self.run(["key", "create", "--organization", organization, "--name", &name, "--scope", &scopes.join(",")])
    }

    /// A client that presents this key.
    pub async fn client(&self, key: &str) -> Client {
        Client::new(self.channel().await, key)
    }

    /// A connection to the service.
    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("a connection")
    }

    /// Runs the program beside the service on its database, and answers what it prints.
    pub fn run<const N: usize>(&self, arguments: [&str; N]) -> String {
        let mut command = program(arguments);
        let output = command.env("PROFILE_DATABASE_URL", self.database.url()).output().expect("a program");
        let Output { status, stdout, stderr } = output;
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text").trim_end().to_owned()
    }

    /// What the service has printed to standard output.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.printed.path()).expect("a file")
    }

    /// The line of the log that has this field.
    pub fn logged(&self, field: &str) -> Json {
        let log = self.log.lock().expect("the log");
        let mut lines = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        lines.find(|line| !line[field].is_null()).expect("a line")
    }

    /// The first line of the log with this message, if there is one.
    pub fn line(&self, message: &str) -> Option<Json> {
        let log = self.log.lock().expect("the log");
        let mut lines = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        lines.find(|line| line["message"] == message)
    }

    /// How many lines of the log have this text.
    pub fn count(&self, text: &str) -> usize {
        self.log.lock().expect("the log").iter().filter(|line| line.contains(text)).count()
    }

    /// Where metrics are told.
    pub fn metrics_address(&self) -> String {
        self.line("metrics").expect("a line")["address"].as_str().expect("an address").to_owned()
    }

    /// The metrics of this moment. What is answered may have been made before it: then it is asked for again.
    pub async fn scrape(&self) -> Scrape {
        let address = self.metrics_address();
        let (before, mut metrics) = (http(&address, "GET", "/metrics").await.1, String::new());
        until("metrics are made anew", async || {
            metrics = http(&address, "GET", "/metrics").await.1;
            metrics != before
        })
        .await;
        Scrape::parse(&metrics)
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("a running program").id()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Whether nobody has waited for its end yet.
    pub const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until the program has ended, and answers its exit code and its whole log.
    pub async fn end(&mut self) -> (Option<i32>, Vec<String>) {
        let (mut child, reader) = (self.child.take().expect("a running program"), self.reader.take().expect("its log"));
        // Beside the test, whose clients have to run for their connections to end.
        let wait = tokio::task::spawn_blocking(move || {
            let status = child.wait().expect("an end");
            reader.join().expect("the whole log");
            status.code()
        });
        (wait.await.expect("an end"), self.log.lock().expect("the log").clone())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The address in the line that says so.
fn address(line: &str) -> Option<String> {
    let line: Json = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
}
