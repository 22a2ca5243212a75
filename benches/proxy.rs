//! A PostgreSQL behind a network: its answers come later by a fixed time, and the messages to it are counted.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks of answers that may be on their way on one connection.
const CHUNKS: usize = 256;

/// The types of messages that PostgreSQL answers with `ReadyForQuery`, Sync and Query: one for each round trip.
const ANSWERED: &[u8] = b"SQ";

#[derive(Args)]
pub struct ProxyArgs {
    /// PostgreSQL, without TLS.
    #[arg(long)]
    target: SocketAddr,
    /// How much later its answers come, in milliseconds.
    #[arg(long)]
    delay_ms: f64,
    /// A file that grows by a byte for each message that PostgreSQL has to answer.
    #[arg(long)]
    messages: PathBuf,
}

/// Serves on a free port, which the log tells, until it is ended.
pub fn run(args: &ProxyArgs) -> Result<(), Box<dyn Error>> {
    let _log = profile_service::start_logging();
    // Linux wakes a thread up to 50 us too late otherwise. The threads that this one starts have it too.
    fs::write("/proc/self/timerslack_ns", "1")?;
    let delay = Duration::from_secs_f64(args.delay_ms / 1e3);
    let messages = File::options().create(true).append(true).open(&args.messages)?;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    for client in listener.incoming() {
        let connection = Connection { client: client?, server: TcpStream::connect(args.target)? };
        connection.forward(delay, messages.try_clone()?)?;
    }
    Ok(())
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    /// Passes on what comes, in three threads, until one side ends the connection or it breaks.
    fn forward(self, delay: Duration, messages: File) -> io::Result<()> {
        self.client.set_nodelay(true)?;
        self.server.set_nodelay(true)?;
        let (arrived, chunks) = sync_channel(CHUNKS);
        let delivering = Arc::new(self);
        let (asking, answering) = (Arc::clone(&delivering), Arc::clone(&delivering));
        thread::spawn(move || asking.close_after(asking.ask(messages)));
        thread::spawn(move || answering.answer(delay, &arrived));
        thread::spawn(move || delivering.close_after(delivering.deliver(&chunks)));
        Ok(())
    }

    /// Passes questions on at once, and then counts them.
    fn ask(&self, mut messages: File) -> io::Result<()> {
        let (mut chunk, mut sent) = (vec![0; CHUNK_BYTES], Messages::default());
        loop {
            let read = (&self.client).read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            (&self.server).write_all(&chunk[..read])?;
            messages.write_all(&sent.answered(&chunk[..read]))?;
        }
    }

    /// Takes answers as they come, whether or not those before them have been delivered.
    fn answer(&self, delay: Duration, arrived: &SyncSender<(Instant, Vec<u8>)>) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = (&self.server).read(&mut chunk)
            && arrived.send((Instant::now() + delay, chunk[..read].to_vec())).is_ok()
        {}
    }

    /// Delivers each answer when it is due.
    fn deliver(&self, chunks: &Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
        for (due, chunk) in chunks {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            (&self.client).write_all(&chunk)?;
        }
        Ok(())
    }

    /// Ends both halves, so that the other threads end too.
    fn close_after(&self, _ended_or_broken: io::Result<()>) {
        for stream in [&self.client, &self.server] {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended already
        }
    }
}

/// Tells where each message of a client begins.
#[derive(Default)]
struct Messages {
    /// What has come of a message's type and length.
    head: Vec<u8>,
    /// How many bytes of it are still to come after these.
    rest: usize,
}

impl Messages {
    /// The types of the messages in the next bytes that PostgreSQL answers.
    fn answered(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut answered = Vec::new();
        while let Some((first, others)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head.push(*first);
            bytes = others;
            // A connection's first messages have no type, only a length, whose first byte is zero.
            let length = &self.head[usize::from(self.head[0] != 0)..];
            if let Some(length) = length.first_chunk() {
                self.rest = (u32::from_be_bytes(*length) as usize).saturating_sub(length.len());
                answered.extend(self.head.first().filter(|kind| ANSWERED.contains(kind)));
                self.head.clear();
            }
        }
        answered
    }
}
