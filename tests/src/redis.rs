//! A Redis of the tests' own: from Debian's package, on a port of its own, with its data in a folder of its own. Ended with
//! its handle, and with the thread that started it.
//!
//! `WRUN_TEST_REDIS` names a program that is started in its place, such as Valkey's `valkey-server`.

use crate::engine::{certify, free_port};
use crate::process;
use crate::third_party::leave_out;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// What to do where it is missing.
const INSTALL: &str = "apt-get install redis-server";

const PROGRAM: &str = "redis-server";

/// The variable that names another server.
const OTHER: &str = "WRUN_TEST_REDIS";

/// A running Redis without a password. It keeps what it has in memory alone, unless it is told otherwise.
#[derive(Debug)]
pub struct Redis {
    process: Child,
    settings: Vec<String>,
    port: u16,
    // Removed after the process that uses it.
    folder: TempDir,
}

impl Redis {
    /// Starts one for a test, which goes without if it is not installed: that is told on stderr, unless
    /// `WRUN_TEST_ALL=1` makes it an error.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn for_test() -> Option<Self> {
        Self::with(&["--appendonly", "no"])
    }

    /// Starts one for a test that has every write on the disk before it answers.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn durable() -> Option<Self> {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts one with these settings.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn with(settings: &[&str]) -> Option<Self> {
        Self::on(crate::folder(), settings)
    }

    /// Starts one with its data in this folder.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn on(folder: TempDir, settings: &[&str]) -> Option<Self> {
        let version = Command::new(program()).arg("--version").output();
        if version.is_err() {
            return leave_out("what is kept in Redis", "Redis", INSTALL);
        }
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(|&it| it.to_owned()).collect();
        let process = spawn(&folder, port, &settings);
        // From here on `Drop` ends the process whatever happens.
        let mut redis = Self {
            process,
            settings,
            port,
            folder,
        };
        redis.wait();
        Some(redis)
    }

    /// Returns the URL of one of its databases.
    pub fn url(&self, database: usize) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// Has it take encrypted connections, too, as `localhost`; returns the port and the file with its certificate.
    ///
    /// # Panics
    ///
    /// If that cannot be made.
    pub fn encrypt(&mut self) -> (u16, PathBuf) {
        let folder = self.folder.path();
        let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
        crate::guests::run(&mut certify(&key, &certificate));
        let port = free_port();
        let mut set = |name: &str, value: &str| {
            self.settings.extend([name.to_owned(), value.to_owned()]);
        };
        set("--tls-port", &port.to_string());
        set("--tls-key-file", &key.display().to_string());
        set("--tls-cert-file", &certificate.display().to_string());
        set("--tls-auth-clients", "no");
        self.kill();
        self.start_again();
        (port, certificate)
    }

    /// Returns the URL of its Unix socket.
    pub fn local_url(&self) -> String {
        let socket = self.folder.path().join("redis.sock");
        format!("redis+unix://{}", socket.display())
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns what people call it.
    pub fn product(&self) -> &'static str {
        let about = self.call(&["INFO", "server"]);
        match about.contains("server_name:valkey") {
            true => "Valkey",
            false => "Redis",
        }
    }

    /// Has a command carried out, and returns the first line of the answer, or what that line announces.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn call(&self, command: &[&str]) -> String {
        self.try_call(command).expect("redis-server answers")
    }

    fn try_call(&self, command: &[&str]) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(SOON))?;
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        socket.write_all(request.as_bytes())?;
        let mut answer = BufReader::new(socket);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let line = line.trim_end().to_owned();
        let Some(length) = line.strip_prefix('$').and_then(|it| it.parse().ok()) else {
            return Ok(line);
        };
        let mut text = vec![0; length];
        answer.read_exact(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Ends it without a warning, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Has it stand still.
    pub fn pause(&self) {
        process::stop(self.pid());
    }

    /// Has it go on.
    pub fn resume(&self) {
        process::send(self.pid(), Signal::SIGCONT);
    }

    /// Starts it again, after it ended.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.port, &self.settings);
        self.wait();
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("ids of processes are small")
    }

    fn wait(&mut self) {
        eventually("redis-server serves", SOON, || {
            let ended = self.process.try_wait().ok().flatten();
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            (self.try_call(&["PING"]).ok()? == "+PONG").then_some(())
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> PathBuf {
    std::env::var_os(OTHER).map_or_else(|| PROGRAM.into(), PathBuf::from)
}

fn spawn(folder: &TempDir, port: u16, settings: &[String]) -> Child {
    let mut redis = Command::new(program());
    redis
        .args(["--bind", "127.0.0.1", "--save", "", "--databases", "64"])
        .args(["--port", &port.to_string()])
        .arg("--unixsocket")
        .arg(folder.path().join("redis.sock"))
        .arg("--dir")
        .arg(folder.path())
        .args(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    process::die_with_this_thread(&mut redis);
    redis.spawn().expect("redis-server starts")
}
