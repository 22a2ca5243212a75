//! As much of gRPC over HTTP/2 as a load needs: a client that costs the processor less than the server it asks.
//!
//! A real client (h2, tonic) takes as much of the processor as the server does, and on a small machine halves what it
//! is there to measure.

use std::{
    collections::HashMap,
    io, mem,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Instant,
};

use prost::Message;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window, and what is to be added to the first one of a connection to reach it (RFC 9113 section 6.9).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
const FIRST_WINDOW: u32 = 65_535;
/// How much of the connection's window may be used up before it is filled again.
const REFILL: u32 = 1 << 30;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 0x4;

/// The name in the certificates of deploy/certificates.sh, and the authority of every call.
const SERVER_NAME: &str = "profile-service";

/// Whom to call.
pub struct Target {
    pub address: SocketAddr,
    /// Plain text, where there is none.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Target {
    fn connect(&self, waits: bool) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(!waits)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(SERVER_NAME).expect("a host name");
        let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(session, stream)))
    }
}

trait Stream: io::Read + io::Write {}

impl<T: io::Read + io::Write> Stream for T {}

/// A call that has its answer.
pub struct Answered {
    /// When the call was to be sent.
    pub due: Instant,
    /// Whether a message came: an error has none.
    pub ok: bool,
}

struct Pending {
    due: Instant,
    has_message: bool,
}

/// A connection with many calls at once.
pub struct Connection {
    stream: Box<dyn Stream>,
    encrypted: bool,
    /// What is to be sent.
    out: Vec<u8>,
    /// What has come of answers, as far as it is filled.
    buffer: Vec<u8>,
    filled: usize,
    next_stream: u32,
    /// The headers that the peer remembers, in the order in which it has learnt them (RFC 7541).
    known: HashMap<String, usize>,
    pending: HashMap<u32, Pending>,
    /// Bytes of messages that have come since the connection's window was filled.
    taken: u32,
    going_away: bool,
}

impl Connection {
    /// A connection that waits for answers, or that takes those that are there.
    pub fn open(target: &Target, waits: bool) -> io::Result<Self> {
        let mut connection = Self {
            stream: target.connect(waits)?,
            encrypted: target.tls.is_some(),
            out: PREFACE.to_vec(),
            buffer: vec![0; 64 * 1024],
            filled: 0,
            next_stream: 1,
            known: HashMap::new(),
            pending: HashMap::new(),
            taken: 0,
            going_away: false,
        };
        let mut settings = SETTINGS_INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(LARGEST_WINDOW.to_be_bytes());
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.frame(WINDOW_UPDATE, 0, 0, &(LARGEST_WINDOW - FIRST_WINDOW).to_be_bytes());
        connection.flush()?;
        Ok(connection)
    }

    /// Calls without an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the peer takes no more calls on this connection.
    pub const fn going_away(&self) -> bool {
        self.going_away
    }

    /// Gives every call whose answer has come to `each`.
    pub fn receive(&mut self, mut each: impl FnMut(Answered)) -> io::Result<()> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let buffer = mem::take(&mut self.buffer);
        let mut rest = &buffer[..self.filled];
        while let Some((kind, flags, id, payload)) = frame(rest) {
            rest = &rest[9 + payload.len()..];
            match kind {
                DATA => self.taken += u32::try_from(payload.len()).unwrap_or(u32::MAX),
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
                GOAWAY => self.going_away = true,
                _ => {}
            }
            if let Some(pending) = self.pending.get_mut(&id) {
                pending.has_message |= kind == DATA && !payload.is_empty();
                let over = kind == RST_STREAM || (matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0);
                if over && let Some(Pending { due, has_message }) = self.pending.remove(&id) {
                    each(Answered { due, ok: has_message && kind == HEADERS });
                }
            }
        }
        let read = self.filled - rest.len();
        self.buffer = buffer;
        self.buffer.copy_within(read..self.filled, 0);
        self.filled -= read;
        if self.taken > REFILL {
            self.frame(WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
            self.taken = 0;
        }
        self.flush()
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
        self.out.extend([length[1], length[2], length[3], kind, flags]);
        self.out.extend(stream.to_be_bytes());
        self.out.extend(payload);
    }

    /// Puts a call among those to be sent.
    pub fn call(&mut self, path: &str, key: &str, message: &impl Message, due: Instant) {
        // `:method: POST` and `:scheme`, https or http, which every peer knows
        let mut block = vec![0x83, if self.encrypted { 0x87 } else { 0x86 }];
        for (name, value) in [
            (":path", path),
            (":authority", SERVER_NAME),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("cv-api-key", key),
        ] {
            self.header(&mut block, name, value);
        }
        let length = u32::try_from(message.encoded_len()).expect("a message is short");
        let mut data = vec![0];
        data.extend(length.to_be_bytes());
        message.encode(&mut data).expect("a vector grows");
        let stream = self.next_stream;
        self.next_stream += 2;
        self.frame(HEADERS, END_HEADERS, stream, &block);
        self.frame(DATA, END_STREAM, stream, &data);
        self.pending.insert(stream, Pending { due, has_message: false });
    }

    /// Writes a header by its number in the peer's table, where it gets one the first time. All of them fit into it.
    fn header(&mut self, block: &mut Vec<u8>, name: &str, value: &str) {
        let count = self.known.len();
        let header = format!("{name}: {value}");
        if let Some(order) = self.known.get(&header) {
            block.push(0x80 | u8::try_from(61 + count - order).expect("the table is small"));
            return;
        }
        block.push(0x40);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 0x7f).expect("a header is short"));
            block.extend(text.as_bytes());
        }
        self.known.insert(header, count);
    }

    /// Sends what is to be sent, as far as the peer takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match self.stream.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

/// The first whole frame: its type, flags, stream and payload.
fn frame(bytes: &[u8]) -> Option<(u8, u8, u32, &[u8])> {
    let (head, rest) = bytes.split_at_checked(9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, rest.get(..length)?))
}
