//! Redis as a contender: one server in memory, a unix socket, and the usual lock: SET NX PX, and a script that deletes what
//! is still one's own.

use super::clients::{self, Share, Times};
use super::{Cell, Contender, Sample, Work};
use crate::wait::{SOON, eventually};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What to do where it is missing.
pub const INSTALL: &str = "apt-get install redis-server";

const PROGRAM: &str = "redis-server";

const RELEASE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// A lease that does not run out during a cycle.
const LEASE_MS: &str = "30000";

/// A running Redis.
pub struct Redis {
    process: Child,
    socket: PathBuf,
    /// The name that it gave the script.
    release: String,
    version: String,
}

impl Redis {
    /// Starts it in `folder`; `None` if it is not installed.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn start(folder: &Path) -> Option<Self> {
        let version = Command::new(PROGRAM).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.split(" sha=").next().unwrap_or_default();
        let socket = folder.join("redis.sock");
        let process = Command::new(PROGRAM)
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        // From here on `Drop` ends the process whatever happens.
        let mut redis = Self {
            process,
            socket,
            release: String::new(),
            version: version.to_owned(),
        };
        redis.release = eventually("redis-server serves", SOON, || {
            let mut line = Line::open(&redis.socket).ok()?;
            line.call(&["SCRIPT", "LOAD", RELEASE]).ok()?
        });
        Some(redis)
    }

    /// Returns the URL of its socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    /// Returns what it says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Locks and unlocks until `end`.
    fn cycles(&self, mut client: Client, end: Instant) -> io::Result<Share> {
        let begin = Instant::now();
        let mut times = Vec::new();
        let Client { line, key, owner } = &mut client;
        loop {
            let start = Instant::now();
            if start >= end {
                break;
            }
            let locked = line.call(&["SET", key, owner, "NX", "PX", LEASE_MS])?;
            let released = line.call(&["EVALSHA", &self.release, "1", key, owner])?;
            if (locked.as_deref(), released.as_deref()) != (Some("OK"), Some("1")) {
                return Err(io::Error::other(format!("{locked:?}, {released:?}")));
            }
            times.push(start.elapsed());
        }
        Ok(Share {
            operations: times.len() as u64,
            took: begin.elapsed(),
            times: Times::All(times),
        })
    }
}

impl Contender for &Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        if cell.work != Work::Lock {
            return None;
        }
        let open = |number| {
            let line = Line::open(&self.socket).map_err(|error| error.to_string())?;
            Ok(Client {
                line,
                key: format!("key-{number}"),
                owner: format!("owner-{number}"),
            })
        };
        let work = |client, end| self.cycles(client, end).map_err(|error| error.to_string());
        let shares = clients::run(cell.clients, time, open, work);
        Some(shares.and_then(|shares| clients::sum(&shares)))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    line: Line,
    key: String,
    owner: String,
}

/// A connection that speaks RESP.
struct Line(BufReader<UnixStream>);

impl Line {
    fn open(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).map(|stream| Self(BufReader::new(stream)))
    }

    /// Sends a command and returns its answer, which is one value.
    fn call(&mut self, words: &[&str]) -> io::Result<Option<String>> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(command.as_bytes())?;
        let mut head = String::new();
        self.0.read_line(&mut head)?;
        match head.trim_end().split_at_checked(1) {
            Some(("+" | ":", value)) => Ok(Some(value.to_owned())),
            Some(("$", "-1")) => Ok(None),
            Some(("$", length)) => {
                let length: usize = length.parse().map_err(io::Error::other)?;
                let mut value = vec![0; length + 2];
                self.0.read_exact(&mut value)?;
                value.truncate(length);
                String::from_utf8(value).map(Some).map_err(io::Error::other)
            }
            _ => Err(io::Error::other(format!("redis says {head:?}"))),
        }
    }
}
