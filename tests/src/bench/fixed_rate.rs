//! Load at a fixed rate: a request is due at its time whether or not the last one was answered, and its time counts from
//! then. What a server makes others wait for is in the figures, which a closed loop hides ("coordinated omission").
//!
//! Our own, because wrk has no fixed rate and the other tools of Debian count from when a request was sent. Each connection
//! has a thread that sleeps; at some thousand requests per second they take little of the CPU.

use super::Answers;
use super::figures::quantile;
use super::scenario::Request;
use crate::http1::Connection;
use nix::sys::prctl::set_timerslack;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::io;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// After this long without a byte, a request has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long after the end those that are due may still be sent.
const GRACE: Duration = Duration::from_secs(1);

/// By how much the kernel may be late to wake a thread, in nanoseconds; 50 µs if it is not told.
const SLACK_NS: u64 = 1000;

/// What one connection counted.
#[derive(Default)]
struct Count {
    times: Vec<Duration>,
    errors: u64,
}

/// Asks `per_second` times a second over so many connections for `time`, and then waits for the last answers.
///
/// # Errors
///
/// If a connection could not be made, or nothing was answered.
///
/// # Panics
///
/// If a thread cannot be started.
pub fn run(
    addr: SocketAddr,
    request: &Request,
    (per_second, connections): (usize, usize),
    time: Duration,
) -> Result<Answers, String> {
    let bytes = request_bytes(request);
    let interval = Duration::from_secs(1).mul_f64(connections as f64 / per_second as f64);
    let ready = Barrier::new(connections);
    let before = own_cpu();
    let client = |number: usize| {
        let _ = set_timerslack(SLACK_NS);
        let connection = Connection::try_open(addr, PATIENCE);
        ready.wait();
        let begin = Instant::now() + interval.mul_f64(number as f64 / connections as f64);
        let client = Client {
            addr,
            connection: connection?,
            request,
            bytes: &bytes,
        };
        Ok(client.run(begin, interval, begin + time))
    };
    let client = &client;
    let begin = Instant::now();
    let counts: Vec<io::Result<Count>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        let counts = threads.into_iter();
        counts
            .map(|thread| thread.join().expect("a client counts and does not panic"))
            .collect()
    });
    let took = begin.elapsed();
    let cpu = own_cpu().saturating_sub(before);
    let (mut times, mut errors) = (Vec::new(), 0);
    for count in counts {
        let count = count.map_err(|error| format!("cannot connect: {error}"))?;
        times.extend(count.times);
        errors += count.errors;
    }
    times.sort_unstable();
    let time = |part| quantile(&times, part).ok_or("nothing was answered");
    Ok(Answers {
        good: times.len() as u64,
        errors,
        took,
        p50: time(0.5)?,
        p99: time(0.99)?,
        p999: time(0.999)?,
        cpu,
    })
}

struct Client<'a> {
    addr: SocketAddr,
    connection: Connection,
    request: &'a Request,
    bytes: &'a [u8],
}

impl Client<'_> {
    /// Asks at every `interval` from `due` until `end`, or as soon after as it can.
    fn run(mut self, mut due: Instant, interval: Duration, end: Instant) -> Count {
        let mut count = Count::default();
        while due < end && Instant::now() < end + GRACE {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.ask() {
                Ok(true) => count.times.push(due.elapsed()),
                Ok(false) => count.errors += 1,
                Err(_) => {
                    count.errors += 1;
                    // If there is nobody to connect to, the next request fails, too.
                    if let Ok(connection) = Connection::try_open(self.addr, PATIENCE) {
                        self.connection = connection;
                    }
                }
            }
            due += interval;
        }
        while due < end {
            count.errors += 1;
            due += interval;
        }
        count
    }

    /// Asks once; tells whether the answer was a good one.
    fn ask(&mut self) -> io::Result<bool> {
        self.connection.try_send(self.bytes)?;
        let response = self.connection.try_response()?;
        if response.closes() {
            self.connection = Connection::try_open(self.addr, PATIENCE)?;
        }
        Ok(self.request.is_answered_by(&response))
    }
}

/// Returns a request as it is sent.
pub fn request_bytes(request: &Request) -> Vec<u8> {
    let Request {
        method,
        target,
        body_len,
        ..
    } = request;
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\nhost: bench.example\r\ncontent-length: {body_len}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend(request.body());
    bytes
}

/// Returns the CPU time of this process.
fn own_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        sum(usage.user_time(), usage.system_time())
    })
}

/// Returns what two times of the kernel's come to.
pub(super) fn sum(one: TimeVal, other: TimeVal) -> Duration {
    let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros((micros(one) + micros(other)).unsigned_abs())
}
