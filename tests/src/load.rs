//! Clients that send requests as fast as a person clicks while something is done to the server, and account for every
//! request: answered, or failed and how.

use crate::http1::Connection;
use crate::random;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// After this long without a byte, a request has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest pause of a client between an answer and its next request; idle connections are what a drain could lose.
const THINK_MAX_US: u64 = 4000;

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests begun.
    pub requests: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connections that ended after the request was sent and before the end of the answer.
    pub broken: u64,
    /// Answers other than the expected one.
    pub wrong: u64,
    /// Requests without an answer in time.
    pub late: u64,
    /// Kept connections that the server closed while they were idle: no request was lost, but none was warned.
    pub idle_closed: u64,
    /// The longest time that a client went without a good answer.
    pub worst_gap: Duration,
    /// What the first wrong answers were.
    pub samples: Vec<String>,
}

impl Tally {
    /// Returns how many requests failed, whatever the cause.
    pub fn failed(&self) -> u64 {
        self.refused + self.broken + self.wrong + self.late
    }

    /// Adds what became of other requests.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.refused += other.refused;
        self.broken += other.broken;
        self.wrong += other.wrong;
        self.late += other.late;
        self.idle_closed += other.idle_closed;
        self.worst_gap = self.worst_gap.max(other.worst_gap);
        self.samples.extend(other.samples);
        self.samples.truncate(5);
    }
}

/// One row of a table.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            refused,
            broken,
            wrong,
            late,
            idle_closed,
            ..
        } = self;
        let gap_ms = self.worst_gap.as_millis();
        write!(
            f,
            "{requests:>9} {refused:>8} {broken:>7} {wrong:>6} {late:>5} {idle_closed:>12} {gap_ms:>13}"
        )
    }
}

/// The heading of the rows that [`Tally`] prints.
pub const HEADING: &str = " requests  refused  broken  wrong  late  idle closed  worst gap ms";

/// Running clients.
#[derive(Debug)]
pub struct Load {
    ending: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts `kept` clients that keep their connections and `fresh` clients that open one for each request. Each GETs
    /// `target` again and again and expects status 200.
    pub fn start(addr: SocketAddr, target: &str, kept: usize, fresh: usize) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let clients = (0..kept + fresh).map(|number| {
            let mut client = Client {
                addr,
                target: target.to_owned(),
                keeps: number < kept,
                connection: None,
                last_answer: Instant::now(),
                tally: Tally::default(),
            };
            let (ending, answered) = (Arc::clone(&ending), Arc::clone(&answered));
            thread::spawn(move || {
                let mut random = number as u64 + 1;
                while !ending.load(Ordering::Relaxed) {
                    client.request();
                    answered.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(think(&mut random));
                }
                client.tally
            })
        });
        let clients = clients.collect();
        Self {
            ending,
            answered,
            clients,
        }
    }

    /// Returns how many requests have come to an end, good or bad.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the clients and returns what became of all their requests.
    ///
    /// # Panics
    ///
    /// If a client panicked.
    pub fn end(self) -> Tally {
        self.ending.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            sum.add(client.join().expect("a client counts and does not panic"));
        }
        sum
    }
}

struct Client {
    addr: SocketAddr,
    target: String,
    keeps: bool,
    connection: Option<Connection>,
    last_answer: Instant,
    tally: Tally,
}

impl Client {
    fn request(&mut self) {
        // As every client does that pools connections: one that has ended is not used again.
        if self.connection.as_mut().is_some_and(Connection::has_ended) {
            self.connection = None;
            self.tally.idle_closed += 1;
        }
        self.tally.requests += 1;
        let result = self.exchange();
        if let Err(error) = result {
            self.connection = None;
            match error.kind() {
                ErrorKind::ConnectionRefused => self.tally.refused += 1,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => self.tally.late += 1,
                ErrorKind::Other => {
                    self.tally.wrong += 1;
                    self.tally.samples.push(error.to_string());
                }
                _ => self.tally.broken += 1,
            }
            return;
        }
        self.tally.worst_gap = self.tally.worst_gap.max(self.last_answer.elapsed());
        self.last_answer = Instant::now();
    }

    fn exchange(&mut self) -> io::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::try_open(self.addr, PATIENCE)?),
        };
        let keep = if self.keeps {
            ""
        } else {
            "connection: close\r\n"
        };
        connection.try_send(format!(
            "GET {} HTTP/1.1\r\nhost: test.example\r\n{keep}\r\n",
            self.target
        ))?;
        let response = connection.try_response()?;
        if !self.keeps || response.closes() {
            self.connection = None;
        }
        if response.status != 200 {
            return Err(io::Error::other(format!("{response:?}")));
        }
        Ok(())
    }
}

/// Returns a pause that is the same in every run.
fn think(random: &mut u64) -> Duration {
    Duration::from_micros(random::next(random) % THINK_MAX_US)
}
