//! The load: closed loops, which find the greatest rate, or calls by the clock, which find the latency at a rate.

use std::{
    error::Error,
    fs, io, mem,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use profile_service::pb;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use uuid::Uuid;

use crate::wire::{Connection, Target};

/// The longest latency that is told apart from longer ones, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// How exact the clock of an open loop is: a finer one takes from the server's processor what no client would.
const TICK: Duration = Duration::from_micros(250);

/// The part of a load whose latencies do not count.
const WARM_UP: f64 = 0.1;

/// Calls at once on one connection that the server takes.
const STREAMS: usize = 100;

/// The phone numbers of new people are the odd ones of 15 digits: pgbench's have the even ones.
const FIRST_PHONE_NUMBER: u64 = 100_000_000_000_001;
const PHONE_NUMBERS: u64 = 450_000_000_000_000;
/// From one to the next: with no divisor in common with their number, so that all others come before the first again.
const PHONE_NUMBER_STEP: u64 = 278_115_294_937_453;

#[derive(Args)]
pub struct LoadArgs {
    /// The server.
    #[arg(long)]
    target: SocketAddr,
    /// Speak TLS to a server whose certificate the authority in this file (PEM) has signed.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// A file with a key in each line: the one of line K belongs to organization K.
    #[arg(long)]
    keys: PathBuf,
    /// A file with the profiles' ids, 16 bytes each: profile N belongs to organization N modulo the number of keys, and
    /// has the e-mail address `personN@example.com` and the identifier `crm|N`.
    #[arg(long)]
    ids: PathBuf,
    /// What is called.
    #[arg(long)]
    call: Call,
    /// How long, in seconds.
    #[arg(long)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: u16,
    /// Calls in flight on all connections.
    #[arg(long, default_value_t = 64)]
    in_flight: u16,
    /// Calls a second by the clock, each measured from the moment at which it was due (an open loop); as many as the
    /// server answers otherwise (a closed loop).
    #[arg(long)]
    rate: Option<f64>,
    /// Every write has a request id of its own.
    #[arg(long)]
    request_ids: bool,
    /// A file that grows by a byte for each message to PostgreSQL: how many belong to a call, where one is in flight.
    #[arg(long)]
    messages: Option<PathBuf>,
}

impl LoadArgs {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn target(&self) -> Result<Target, Box<dyn Error>> {
        Ok(Target { address: self.target, tls: self.ca.as_deref().map(trusting).transpose()? })
    }

    /// How many messages there were so far; none where they are not counted.
    fn messages(&self) -> io::Result<u64> {
        self.messages.as_ref().map_or(Ok(0), |file| Ok(fs::metadata(file)?.len()))
    }
}

/// TLS with whom this authority has signed.
fn trusting(authority: &Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Clone, Copy, ValueEnum)]
enum Call {
    Get,
    Create,
    Patch,
    Update,
    /// A page of 50 profiles.
    List,
    /// By identifier.
    LookUp,
    /// Nine GetProfile to one PatchProfile.
    Mixed,
}

/// What the calls are about.
struct People {
    keys: Vec<String>,
    ids: Vec<Uuid>,
}

impl People {
    fn read(keys: &Path, ids: &Path) -> io::Result<Self> {
        let keys = fs::read_to_string(keys)?.lines().map(str::to_owned).collect();
        let ids = fs::read(ids)?;
        Ok(Self { keys, ids: ids.as_chunks().0.iter().copied().map(Uuid::from_bytes).collect() })
    }
}

/// Makes calls, each about another person.
struct Caller<'a> {
    call: Call,
    people: &'a People,
    request_ids: bool,
    random: SmallRng,
    /// Of the next person who is created.
    number: u64,
}

impl<'a> Caller<'a> {
    fn new(args: &LoadArgs, people: &'a People) -> Self {
        let mut random = SmallRng::from_rng(&mut rand::rng());
        let number = random.random_range(0..PHONE_NUMBERS);
        Self { call: args.call, people, request_ids: args.request_ids, random, number }
    }

    /// A phone number that nobody has, nowhere near the one before it.
    fn phone_number(&mut self) -> u64 {
        self.number = (self.number + PHONE_NUMBER_STEP) % PHONE_NUMBERS;
        FIRST_PHONE_NUMBER + 2 * self.number
    }

    fn send(&mut self, connection: &mut Connection, due: Instant) {
        let call = match self.call {
            Call::Mixed if self.random.random_ratio(9, 10) => Call::Get,
            Call::Mixed => Call::Patch,
            call => call,
        };
        let person = self.random.random_range(0..self.people.ids.len());
        let key = &self.people.keys[person % self.people.keys.len()];
        let id = self.people.ids[person].to_string();
        let number = self.random.random_range(0..100_000_000);
        let request_id =
            if self.request_ids { Uuid::from_u128(self.random.random()).to_string() } else { String::new() };
        match call {
            Call::Get | Call::Mixed => {
                connection.call("/profiles.v1.ProfileService/GetProfile", key, &pb::GetProfileRequest { id }, due);
            }
            Call::List => {
                let request = pb::ListProfilesRequest { page_size: 50, ..Default::default() };
                connection.call("/profiles.v1.ProfileQueryService/ListProfiles", key, &request, due);
            }
            Call::LookUp => {
                let identifier = pb::Identifier { system: "crm".to_owned(), value: person.to_string() };
                let by = Some(pb::look_up_profile_request::By::Identifier(identifier));
                let request = pb::LookUpProfileRequest { by };
                connection.call("/profiles.v1.ProfileQueryService/LookUpProfile", key, &request, due);
            }
            Call::Create => {
                let number = self.phone_number();
                let profile = Some(somebody(&format!("new{number}@example.com"), &format!("+{number}")));
                let request = pb::CreateProfileRequest { profile, request_id, ..Default::default() };
                connection.call("/profiles.v1.ProfileService/CreateProfile", key, &request, due);
            }
            Call::Patch => {
                let city = Some(format!("City {number:08}"));
                let profile = Some(pb::Profile { id, city, ..Default::default() });
                let request = pb::PatchProfileRequest { profile, request_id, ..Default::default() };
                connection.call("/profiles.v1.ProfileService/PatchProfile", key, &request, due);
            }
            Call::Update => {
                let email = Some(format!("person{person}@example.com"));
                let address = Some(format!("{number} Analytical Avenue"));
                let data = Some(pb::Profile { email, address, ..Default::default() });
                let request = pb::UpdateProfileRequest { data, request_id, ..Default::default() };
                connection.call("/profiles.v1.ProfileService/UpdateProfile", key, &request, due);
            }
        }
    }
}

/// A profile of realistic width.
pub fn somebody(email: &str, phone_number: &str) -> pb::Profile {
    pb::Profile {
        first_name: Some("Augusta Ada".to_owned()),
        last_name: Some("King-Noel".to_owned()),
        email: Some(email.to_owned()),
        dob: Some("1985-12-10".to_owned()),
        gender: Some(pb::profile::Gender::Female.into()),
        phone_number: Some(phone_number.to_owned()),
        address: Some("12 Analytical Avenue".to_owned()),
        address2: Some("Apartment 4".to_owned()),
        city: Some("Springfield".to_owned()),
        state: Some("NY".to_owned()),
        country: Some("US".to_owned()),
        postal_code: Some("01010".to_owned()),
        ..Default::default()
    }
}

/// What one connection has seen.
struct Seen {
    /// From when on latencies count: before, memory and connections are new to the load and the server.
    warm: Instant,
    latencies: Histogram<u64>,
    /// Messages to PostgreSQL between two answers.
    messages: Histogram<u64>,
    calls: u64,
    failed: u64,
}

impl Seen {
    fn new(warm: Instant) -> Self {
        let histogram = || Histogram::new_with_max(LONGEST_US, 3).expect("three digits are allowed");
        Self { warm, latencies: histogram(), messages: histogram(), calls: 0, failed: 0 }
    }

    fn note(&mut self, due: Instant, ok: bool) {
        if due >= self.warm {
            self.latencies.saturating_record(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        self.calls += 1;
        self.failed += u64::from(!ok);
    }

    fn add(&mut self, Self { warm: _, latencies, messages, calls, failed }: Self) {
        self.latencies.add(latencies).expect("all count alike");
        self.messages.add(messages).expect("all count alike");
        self.calls += calls;
        self.failed += failed;
    }
}

/// Makes the load and prints what was seen as one line of JSON.
pub fn run(args: &LoadArgs) -> Result<(), Box<dyn Error>> {
    let people = People::read(&args.keys, &args.ids)?;
    let target = &args.target()?;
    let started = Instant::now();
    let (warm, until) = (started + args.length().mul_f64(WARM_UP), started + args.length());
    let caller = || Caller::new(args, &people);
    let mut all = Seen::new(warm);
    if let Some(rate) = args.rate {
        open(args, target, caller(), &mut all, rate, until)?;
    } else {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..args.connections)
                .map(|_| scope.spawn(|| closed(args, target, caller(), Seen::new(warm), until)))
                .collect();
            for thread in threads {
                all.add(thread.join().expect("no thread panics")?);
            }
            Ok::<_, io::Error>(())
        })?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let milliseconds =
        |quantile| f64::from(u32::try_from(all.latencies.value_at_quantile(quantile)).unwrap_or(u32::MAX)) / 1e3;
    let result = json!({
        "calls": all.calls,
        "failed": all.failed,
        "seconds": seconds,
        "p50_ms": milliseconds(0.5),
        "p99_ms": milliseconds(0.99),
        "max_ms": milliseconds(1.0),
        "messages": args.messages.is_some().then(|| all.messages.value_at_quantile(0.5)),
    });
    println!("{result}");
    Ok(())
}

/// Keeps a number of calls in flight: each answer is followed by the next call.
fn closed(
    args: &LoadArgs,
    target: &Target,
    mut caller: Caller<'_>,
    mut seen: Seen,
    until: Instant,
) -> io::Result<Seen> {
    let mut messages = args.messages()?;
    while Instant::now() < until {
        let mut connection = Connection::open(target, true)?;
        for _ in 0..args.in_flight / args.connections {
            caller.send(&mut connection, Instant::now());
        }
        connection.flush()?;
        while connection.pending() > 0 {
            let mut answered = 0;
            connection.receive(|call| {
                seen.note(call.due, call.ok);
                answered += 1;
            })?;
            let before = mem::replace(&mut messages, args.messages()?);
            seen.messages.saturating_record_n(messages - before, answered);
            let now = Instant::now();
            if now < until && !connection.going_away() {
                for _ in 0..answered {
                    caller.send(&mut connection, now);
                }
                connection.flush()?;
            }
        }
    }
    Ok(seen)
}

/// Sends by the clock, whether or not the answers come. One thread for all connections, which sends and reads whenever
/// the clock ticks: a client that is woken by every answer takes from the server's processor what no client would.
fn open(
    args: &LoadArgs,
    target: &Target,
    mut caller: Caller<'_>,
    seen: &mut Seen,
    rate: f64,
    until: Instant,
) -> io::Result<()> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let connect = || Connection::open(target, false);
    let mut connections = (0..args.connections).map(|_| connect()).collect::<io::Result<Vec<_>>>()?;
    let mut due = Instant::now();
    while due < until || connections.iter().any(|connection| connection.pending() > 0) {
        thread::sleep(TICK);
        for connection in &mut connections {
            connection.receive(|call| seen.note(call.due, call.ok))?;
            if connection.going_away() && connection.pending() == 0 {
                *connection = connect()?;
            }
        }
        let now = Instant::now();
        while due <= now.min(until)
            && let Some(connection) = least_busy(&mut connections)
        {
            caller.send(connection, due);
            due += interval;
        }
        for connection in &mut connections {
            connection.flush()?;
        }
    }
    Ok(())
}

/// The connection with the fewest calls, if any takes more.
fn least_busy(connections: &mut [Connection]) -> Option<&mut Connection> {
    let free = connections.iter_mut().filter(|connection| connection.pending() < STREAMS && !connection.going_away());
    free.min_by_key(|connection| connection.pending())
}
