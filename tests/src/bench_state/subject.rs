//! wrun as a contender: the real binary serves the guest `bench_state`, which works in a loop for each request. What it
//! shares is embedded, or kept by a server that its labels are bound to.

use super::clients::{self, Share, Times};
use super::{Cell, Contender, MESSAGES, Sample, Work};
use crate::guests::guest;
use crate::http1::Connection;
use crate::launch::Wrun;
use crate::server::Server;
use crate::wait::eventually;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The longest wait for an answer, and for messages to be handled.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a request is to take: long beside what HTTP costs, short beside a run.
const REQUEST: Duration = Duration::from_millis(200);

/// How long a client works before it counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// Operations of a request at most, because the answer comes only after the last one.
const OPERATIONS_MAX: u32 = 1000;

/// Messages that are sent to find out how many are handled in a second.
const FIRST_MESSAGES: usize = 5000;

/// Nobody handles what is sent, so it adds up.
const SHARED: &str = "[locks.default]\n[databases.default]\n[queues.jobs]\nmax-depth = 10000000\n";
const CONSUMERS: &str = "[consumers.jobs]\n";

/// A label, and the URL that it is bound to.
pub type Bind = (&'static str, String);

/// Where a wrun keeps what is shared, and what it is measured at.
pub struct Backing {
    /// Of a server, `wrun/` and the name of the contender that is its native client.
    pub name: &'static str,
    /// What is done.
    pub does: &'static [Work],
    /// What labels are bound to, for two servers that share nothing.
    pub binds: Box<dyn Fn(usize) -> Vec<Bind> + Sync>,
}

impl Backing {
    /// Returns what a wrun has in itself.
    pub fn embedded() -> Self {
        Self::new("wrun", &Work::ALL, |_| Vec::new())
    }

    /// Returns one with what `binds` binds labels to.
    pub fn new(
        name: &'static str,
        does: &'static [Work],
        binds: impl Fn(usize) -> Vec<Bind> + Sync + 'static,
    ) -> Self {
        let binds = Box::new(binds);
        Self { name, does, binds }
    }
}

/// Two running servers: one that handles messages, one that does not.
pub struct Subject {
    backing: Backing,
    handling: Server,
    sending: Server,
    /// How much each cell does at a time, once it is known: operations of a request, or messages.
    sizes: HashMap<Cell, usize>,
}

/// What the guest says about its operations.
#[derive(Deserialize)]
struct Figures {
    p50_ns: u64,
    p99_ns: u64,
}

impl Subject {
    /// Starts the servers with their data in `folder`.
    pub fn start(wrun: &Wrun, workers: usize, folder: &Path, backing: Backing) -> Self {
        let component = guest("bench_state");
        let name = backing.name.replace('/', "-");
        let serve = |number: usize, role: &str, manifest: &str| {
            let launch = wrun
                .serve(&component)
                .workers(workers)
                .manifest(manifest)
                .state(folder.join(format!("{name}-{role}")));
            let binds = (backing.binds)(number).into_iter();
            // URLs with a password are not for the command line.
            let server = binds.fold(launch, |launch, (label, url)| {
                let variable = label.replace('.', "_").to_uppercase();
                launch.env(&format!("WRUN_BIND_{variable}"), url)
            });
            let server = server.start();
            server.get("/setup").ok();
            server
        };
        Self {
            handling: serve(0, "handling", &format!("{SHARED}{CONSUMERS}")),
            sending: serve(1, "sending", SHARED),
            backing,
            sizes: HashMap::new(),
        }
    }

    /// Has clients work for `time`, with so many operations in each request.
    fn drive(&self, cell: Cell, operations: u32, time: Duration) -> Result<Sample, String> {
        let server = match cell.work {
            Work::Send => &self.sending,
            _ => &self.handling,
        };
        let is_bound = !(self.backing.binds)(0).is_empty();
        let target = target(cell.work, is_bound);
        let open = |number| Client::open(server, &target, number, operations);
        let shares = clients::run(cell.clients, time, open, |mut client, end| {
            let begin = Instant::now();
            let mut pieces = Vec::new();
            while Instant::now() < end {
                pieces.push(client.request()?);
            }
            Ok(Share {
                operations: u64::from(operations) * pieces.len() as u64,
                took: begin.elapsed(),
                times: Times::Pieces {
                    size: operations,
                    pieces,
                },
            })
        })?;
        clients::sum(&shares)
    }

    /// Finds out how many operations make a request of a good length.
    fn operations(&mut self, cell: Cell) -> Result<u32, String> {
        if let Some(known) = self.sizes.get(&cell) {
            return Ok(u32::try_from(*known).unwrap_or(OPERATIONS_MAX));
        }
        let sample = self.drive(cell, 4, WARM_UP)?;
        let wanted = sample.rate / cell.clients as f64 * REQUEST.as_secs_f64();
        let operations = (wanted as u32).clamp(1, OPERATIONS_MAX);
        self.sizes.insert(cell, operations as usize);
        Ok(operations)
    }

    fn send(&mut self, cell: Cell, time: Duration) -> Result<Sample, String> {
        let operations = self.operations(cell)?;
        let calls = self.drive(cell, operations, time)?;
        self.sending
            .control(["queue", "purge", "jobs", "--yes"])
            .ok();
        Ok(calls.in_messages())
    }

    /// Sends about as many messages as are handled in `time`, and waits until they are.
    fn handle(&mut self, cell: Cell, time: Duration) -> Result<Sample, String> {
        if !self.sizes.contains_key(&cell) {
            let first = self.send_and_wait(cell, FIRST_MESSAGES)?;
            let messages = (first.rate * time.as_secs_f64()) as usize;
            self.sizes.insert(cell, messages.max(FIRST_MESSAGES));
        }
        self.send_and_wait(cell, self.sizes[&cell])
    }

    fn send_and_wait(&self, cell: Cell, messages: usize) -> Result<Sample, String> {
        let left = AtomicUsize::new(messages.div_ceil(MESSAGES));
        let take = |left: usize| left.checked_sub(1);
        let begin = Instant::now();
        let target = target(cell.work, false);
        let open = |number| Client::open(&self.handling, &target, number, 1);
        let shares = clients::run(cell.clients, PATIENCE, open, |mut client, _| {
            let mut times = Vec::new();
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
            {
                let (time, _) = client.request()?;
                times.push(time);
            }
            Ok(Share {
                operations: times.len() as u64,
                took: begin.elapsed(),
                times: Times::All(times),
            })
        })?;
        // A server that has much to do may not answer in time.
        let dead = eventually("every message is handled", PATIENCE, || {
            let told = self.handling.control(["queue", "ls", "--json"]).stdout;
            let jobs = &serde_json::from_str::<serde_json::Value>(&told).ok()?[0];
            (jobs["messages"] == 0).then(|| jobs["dead"].clone())
        });
        if dead != 0 {
            return Err(format!("{dead} messages are dead letters"));
        }
        Ok(Sample {
            rate: messages as f64 / begin.elapsed().as_secs_f64(),
            ..clients::sum(&shares)?
        })
    }
}

impl Contender for Subject {
    fn name(&self) -> &'static str {
        self.backing.name
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        self.backing
            .does
            .contains(&cell.work)
            .then(|| match cell.work {
                Work::Lock | Work::HotLock | Work::Transaction | Work::Batch => self
                    .operations(cell)
                    .and_then(|operations| self.drive(cell, operations, time)),
                Work::Send => self.send(cell, time),
                Work::Handle => self.handle(cell, time),
            })
    }
}

/// Returns what does the work once. NUMBER is the client's.
fn target(work: Work, is_bound: bool) -> String {
    match work {
        Work::Lock => "/lock?key=client-NUMBER&".to_owned(),
        Work::HotLock => "/lock-hot?".to_owned(),
        // As engines do it unless they are told otherwise.
        Work::Transaction if is_bound => "/tx?isolation=read-committed&".to_owned(),
        Work::Transaction => "/tx?".to_owned(),
        Work::Batch => "/batch?".to_owned(),
        Work::Send | Work::Handle => format!("/send?batch={MESSAGES}&"),
    }
}

/// One client: a connection that is kept, and what it asks for.
struct Client<'a> {
    server: &'a Server,
    connection: Connection,
    request: String,
}

impl<'a> Client<'a> {
    fn open(
        server: &'a Server,
        target: &str,
        number: usize,
        operations: u32,
    ) -> Result<Self, String> {
        let target = target.replace("NUMBER", &number.to_string());
        let request = format!("GET {target}n={operations} HTTP/1.1\r\nhost: bench.example\r\n\r\n");
        Ok(Self {
            server,
            connection: connect(server)?,
            request,
        })
    }

    /// Has the guest work once; returns its operations' p50 and p99.
    fn request(&mut self) -> Result<(Duration, Duration), String> {
        let sent = self.connection.try_send(&self.request);
        let response = sent
            .and_then(|()| self.connection.try_response())
            .map_err(|error| format!("no answer: {error}"))?;
        if response.closes() {
            self.connection = connect(self.server)?;
        }
        if response.status != 200 {
            return Err(format!("{}: {}", response.status, response.text()));
        }
        let figures: Figures = serde_json::from_slice(&response.body)
            .map_err(|error| format!("{error}: {}", response.text()))?;
        let time = Duration::from_nanos;
        Ok((time(figures.p50_ns), time(figures.p99_ns)))
    }
}

fn connect(server: &Server) -> Result<Connection, String> {
    Connection::try_open(server.addr(), PATIENCE)
        .map_err(|error| format!("cannot connect: {error}"))
}
