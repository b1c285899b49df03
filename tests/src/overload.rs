//! More than a server can do, by the tools that others measure with: `wrk`, `h2load` and `slowhttptest`, each a Debian
//! package (`wrk`, `nghttp2-client`, `slowhttptest`).

use crate::http1::Connection;
use crate::launch::Launch;
use crate::process;
use crate::server::Server;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Work of a request: some milliseconds of CPU time.
const WORK: &str = "/?rounds=3000000";

/// Requests that a worker handles at a time, and workers.
const IN_FLIGHT: usize = 4;
const WORKERS: usize = 2;

/// How long each load lasts, in seconds.
const SECONDS: u64 = 10;

/// How much of what the server can answer it must answer under too much load.
const GOODPUT_MIN: f64 = 0.9;

/// How long those wait who are turned away: the time that a request waits for its turn, and some.
const SHED_P99_MAX: Duration = Duration::from_millis(150);

/// How much the workers may grow.
const GROWTH_MAX: u64 = 64 << 20;

/// Clients of `slowhttptest`, and how long an ordinary request may take beside them.
const SLOW_CLIENTS: &str = "500";
const PROBE_MAX: Duration = Duration::from_secs(1);

/// What came of one part of the run.
#[derive(Clone, Debug)]
pub struct Part {
    /// The figures, for people.
    pub lines: String,
    /// Whether they are as they must be.
    pub holds: bool,
}

/// Runs a tool to its end; an error says how to get it.
fn tool(package: &str, name: &str, args: &[&str]) -> Result<Output, Part> {
    Command::new(name)
        .args(args)
        .output()
        .map_err(|error| Part {
            lines: format!("{name} does not run ({error}): apt-get install {package}"),
            holds: false,
        })
}

fn start(launch: Launch) -> Server {
    let launch = launch
        .workers(WORKERS)
        .flag("--in-flight", IN_FLIGHT.to_string());
    launch.flag("--connection-requests", "1000000").start()
}

fn memory(server: &Server) -> u64 {
    server
        .workers()
        .iter()
        .map(|worker| process::rss_bytes(worker.pid))
        .sum()
}

/// Returns the CPU time that the workers have had, in seconds.
fn cpu(server: &Server) -> f64 {
    let workers = server.workers();
    workers
        .iter()
        .map(|worker| process::on_cpu(worker.pid).as_secs_f64())
        .sum()
}

/// What came of a load, per second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    good: f64,
    all: f64,
    /// CPU time of the workers, in seconds.
    cpu: f64,
}

impl Rates {
    /// Compares with the server at its `peak`, in CPU time: what others do on the machine does not change that.
    fn cpu_beside(self, peak: Self) -> String {
        let each = peak.cpu / peak.good;
        let others = (self.cpu - self.good * each) / (self.all - self.good).max(1.0);
        format!(
            "  {:.2} ms of CPU for an answer at the peak; now {:.0} % of it is spent on answers, {:.0} us for each that is turned away; the workers had {:.2} CPUs at the peak, {:.2} now",
            each * 1e3,
            self.good * each / self.cpu * 100.0,
            others * 1e6,
            peak.cpu,
            self.cpu
        )
    }
}

/// Returns what came of `connections` clients of wrk that ask again at once.
fn wrk(server: &Server, connections: usize) -> Result<Rates, Part> {
    let before = cpu(server);
    let url = format!("http://{}{WORK}", server.addr());
    let (connections, seconds) = (connections.to_string(), format!("{SECONDS}s"));
    let output = tool(
        "wrk",
        "wrk",
        &["-t", "1", "-c", &connections, "-d", &seconds, &url],
    )?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |prefix: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(prefix));
        line.and_then(|rest| rest.trim().parse::<f64>().ok())
    };
    let all = number("Requests/sec:").ok_or_else(|| Part {
        lines: format!("wrk printed no rate: {text}"),
        holds: false,
    })?;
    let others = number("Non-2xx or 3xx responses:").unwrap_or(0.0) / SECONDS as f64;
    Ok(Rates {
        good: all - others,
        all,
        cpu: (cpu(server) - before) / SECONDS as f64,
    })
}

/// Sends four times as many requests a second as the server can answer.
pub fn at_four_times_capacity(launch: Launch) -> Part {
    match try_four_times_capacity(launch) {
        Ok(part) | Err(part) => part,
    }
}

fn try_four_times_capacity(launch: Launch) -> Result<Part, Part> {
    const CLIENTS: f64 = 100.0;
    let server = start(launch);
    let at_peak = wrk(&server, WORKERS * IN_FLIGHT)?;
    let peak = at_peak.good;
    let (before, cpu_before) = (memory(&server), cpu(&server));
    let folder = crate::folder();
    let log = folder.path().join("log").display().to_string();
    let rate = (4.0 * peak / CLIENTS).ceil().to_string();
    let (seconds, clients) = (SECONDS.to_string(), CLIENTS.to_string());
    let url = format!("http://{}{WORK}", server.addr());
    // HTTP/2: with HTTP/1.1 and a fixed rate h2load sends hundreds of requests at once on a connection that it had to open
    // anew, and then measures how long they wait for each other.
    tool(
        "nghttp2-client",
        "h2load",
        &[
            "-t",
            "1",
            "-c",
            &clients,
            "-D",
            &seconds,
            "--rps",
            &rate,
            "--log-file",
            &log,
            &url,
        ],
    )?;
    let grown = memory(&server).saturating_sub(before);
    let cpu = (cpu(&server) - cpu_before) / SECONDS as f64;
    let answers = parse_log(&fs::read_to_string(&log).unwrap_or_default());
    let count = |wanted| {
        answers
            .iter()
            .filter(|(status, _)| *status == wanted)
            .count()
    };
    let (good, shed) = (count(200), count(503));
    let goodput = good as f64 / SECONDS as f64;
    let wait = p99(answers
        .iter()
        .filter(|(status, _)| *status == 503)
        .map(|(_, took)| *took)
        .collect());
    let mut lines =
        format!("four times the capacity, {peak:.0} requests/s at its peak, over {SECONDS} s\n");
    let _ = writeln!(
        lines,
        "  offered {:.0}/s, answered {goodput:.0}/s ({:.0} %), turned away {shed}, p99 of that {wait:?}, others {}, memory +{} MiB",
        answers.len() as f64 / SECONDS as f64,
        goodput / peak * 100.0,
        answers.len() - good - shed,
        grown >> 20
    );
    let now = Rates {
        good: goodput,
        all: answers.len() as f64 / SECONDS as f64,
        cpu,
    };
    lines += &now.cpu_beside(at_peak);
    Ok(Part {
        lines,
        holds: goodput >= GOODPUT_MIN * peak
            && shed > 0
            && good + shed == answers.len()
            && wait <= SHED_P99_MAX
            && grown < GROWTH_MAX,
    })
}

/// Keeps four times as many connections busy as there are places to run and to wait in: who is turned away asks again.
pub fn with_more_connections(launch: Launch) -> Part {
    let server = start(launch);
    let places = WORKERS * IN_FLIGHT * 3;
    let rates =
        wrk(&server, WORKERS * IN_FLIGHT).and_then(|peak| Ok((peak, wrk(&server, 4 * places)?)));
    let (at_peak, now) = match rates {
        Ok(rates) => rates,
        Err(part) => return part,
    };
    let (peak, good, all) = (at_peak.good, now.good, now.all);
    let lines = format!(
        "{} connections that ask again at once\n  {peak:.0} requests/s at its peak; answered {good:.0}/s ({:.0} %), turned away {:.0}/s\n{}",
        4 * places,
        good / peak * 100.0,
        all - good,
        now.cpu_beside(at_peak)
    );
    Part {
        lines,
        holds: good >= GOODPUT_MIN * peak && all > good,
    }
}

/// Returns status and duration of every request in h2load's log.
fn parse_log(text: &str) -> Vec<(u16, Duration)> {
    let answer = |line: &str| {
        let mut columns = line.split('\t').skip(1);
        let status: i32 = columns.next()?.parse().ok()?;
        let took: u64 = columns.next()?.parse().ok()?;
        Some((
            u16::try_from(status).unwrap_or(0),
            Duration::from_micros(took),
        ))
    };
    text.lines().filter_map(answer).collect()
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = times.len() * 99 / 100;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Asks for something small, again and again, while 500 clients are slow in the way that `mode` says. A client that takes its
/// answer slowly keeps a guest waiting, and there are not as many places as such clients.
pub fn slow_clients(launch: Launch, mode: &str, what: &str) -> Part {
    let server = launch.workers(WORKERS).start();
    let url = format!("http://{}/?bytes=10000000", server.addr());
    let addr = server.addr();
    let args = [
        "-c",
        SLOW_CLIENTS,
        mode,
        "-i",
        "2",
        "-r",
        "200",
        "-l",
        "20",
        "-u",
        &url,
    ];
    let (slow, mut waits) = thread::scope(|scope| {
        let slow = scope.spawn(|| tool("slowhttptest", "slowhttptest", &args));
        let mut waits = Vec::new();
        while !slow.is_finished() {
            let start = Instant::now();
            let answer =
                Connection::try_open(addr, Duration::from_secs(10)).and_then(|mut connection| {
                    connection.try_send("GET /?bytes=1 HTTP/1.1\r\nHost: a\r\n\r\n")?;
                    connection.try_response()
                });
            let good = answer.is_ok_and(|answer| answer.status == 200);
            waits.push((good, start.elapsed()));
            thread::sleep(Duration::from_millis(20));
        }
        (slow.join().expect("the tool's thread ends"), waits)
    });
    if let Err(part) = slow {
        return part;
    }
    let failed = waits.iter().filter(|(good, _)| !good).count();
    waits.sort_unstable_by_key(|wait| wait.1);
    let worst = waits.last().map(|wait| wait.1).unwrap_or_default();
    let p99 = p99(waits.iter().map(|wait| wait.1).collect());
    let restarts: u64 = server.workers().iter().map(|worker| worker.restarts).sum();
    Part {
        lines: format!(
            "{SLOW_CLIENTS} clients with slow {what} for 20 s\n  {} ordinary requests, {failed} failed, p99 {p99:?}, worst {worst:?}",
            waits.len()
        ),
        holds: failed == 0 && p99 < PROBE_MAX && restarts == 0 && !waits.is_empty(),
    }
}
