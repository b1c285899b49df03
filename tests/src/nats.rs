//! A NATS server of the tests' own: from Debian's package, with JetStream, on a port of its own, with its data in a folder of
//! its own. Ended with its handle, and with the thread that started it.
//!
//! Debian's is one of the last that cannot be told to sync before it answers: what it has acknowledged survives its own end,
//! and not that of its machine.

use crate::engine::{certify, free_port};
use crate::process;
use crate::third_party::leave_out;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// What to do where it is missing.
const INSTALL: &str = "apt-get install nats-server";

const PROGRAM: &str = "nats-server";

/// Accounts that know nothing of each other.
const ACCOUNTS: usize = 64;

/// A running NATS server.
#[derive(Debug)]
pub struct Nats {
    process: Child,
    settings: String,
    port: u16,
    // Removed after the process that uses it.
    folder: TempDir,
}

impl Nats {
    /// Starts one for a test, which goes without if it is not installed: that is told on stderr, unless
    /// `WRUN_TEST_ALL=1` makes it an error.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn for_test() -> Option<Self> {
        Self::on(crate::folder())
    }

    /// Starts one with its data in this folder.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn on(folder: TempDir) -> Option<Self> {
        Self::with(folder, "jetstream: enabled", "max_payload: 2MB")
    }

    /// Returns its name and version.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub fn version(&self) -> String {
        let version = Command::new(PROGRAM).arg("--version").output();
        let version = version.expect("nats-server says which it is").stdout;
        String::from_utf8_lossy(&version).trim().to_owned()
    }

    /// Starts one without JetStream.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn without_jetstream() -> Option<Self> {
        Self::with(crate::folder(), "", "")
    }

    /// Starts one whose accounts are like this, with these settings of its own.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    fn with(folder: TempDir, account: &str, settings: &str) -> Option<Self> {
        if Command::new(PROGRAM).arg("--version").output().is_err() {
            return leave_out("what is kept in NATS", "NATS", INSTALL);
        }
        let accounts: String = (0..ACCOUNTS)
            .map(|it| {
                format!("a{it} {{ {account}\n users: [{{ user: u{it}, password: s3cret }}] }}\n")
            })
            .collect();
        let settings = format!("accounts {{\n{accounts}}}\nno_auth_user: u0\n{settings}\n");
        let port = free_port();
        let process = spawn(&folder, port, &settings);
        // From here on `Drop` ends the process whatever happens.
        let mut nats = Self {
            process,
            settings,
            port,
            folder,
        };
        nats.wait();
        Some(nats)
    }

    /// Returns the URL of its first account, which takes anybody.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the URL of one of its accounts, with the password.
    pub fn account(&self, number: usize) -> String {
        format!("nats://u{number}:s3cret@127.0.0.1:{}", self.port)
    }

    /// Has it take encrypted connections alone, as `localhost`; returns the file with its certificate.
    ///
    /// # Panics
    ///
    /// If that cannot be made.
    pub fn encrypt(&mut self) -> PathBuf {
        let folder = self.folder.path();
        let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
        crate::guests::run(&mut certify(&key, &certificate));
        let (cert, key) = (certificate.display(), key.display());
        self.set(&format!(
            "tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}"
        ));
        certificate
    }

    /// Starts it again with another setting; the one that comes last counts.
    pub fn set(&mut self, setting: &str) {
        self.settings += &format!("{setting}\n");
        self.kill();
        self.start_again();
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks something in the first account, and returns the answer.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn call(&self, subject: &str, question: &Value) -> Value {
        let question = question.to_string();
        let answer = self
            .try_call(subject, "", &question)
            .expect("nats-server answers");
        serde_json::from_str(&answer).expect("it answers with JSON")
    }

    /// Sends a message with headers to a stream, as another program would, and returns what is said to that.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn publish(&self, subject: &str, headers: &[(&str, &str)], body: &str) -> Value {
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let head = format!("NATS/1.0\r\n{}\r\n", lines.collect::<String>());
        let answer = self
            .try_call(subject, &head, body)
            .expect("nats-server answers");
        serde_json::from_str(&answer).expect("it answers with JSON")
    }

    /// Returns how many messages a stream has; none if there is no such stream.
    pub fn messages(&self, stream: &str) -> u64 {
        let info = self.call(&format!("$JS.API.STREAM.INFO.{stream}"), &json!({}));
        info["state"]["messages"].as_u64().unwrap_or(0)
    }

    fn try_call(&self, subject: &str, head: &str, body: &str) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(SOON))?;
        let mut request =
            "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answer 1\r\n".to_owned();
        let (headers, all) = (head.len(), head.len() + body.len());
        request += &match headers {
            0 => format!("PUB {subject} answer {all}\r\n{body}\r\n"),
            _ => format!("HPUB {subject} answer {headers} {all}\r\n{head}{body}\r\n"),
        };
        socket.write_all(request.as_bytes())?;
        let mut answers = BufReader::new(socket);
        loop {
            let mut line = String::new();
            if answers.read_line(&mut line)? == 0 || line.starts_with("-ERR") {
                return Err(std::io::Error::other(line));
            }
            if !line.starts_with("MSG ") {
                continue;
            }
            let length = line
                .split_whitespace()
                .last()
                .and_then(|it| it.parse().ok());
            let mut text = vec![0; length.unwrap_or(0)];
            answers.read_exact(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }

    /// Ends it without a warning.
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
        eventually("nats-server serves", SOON, || {
            let ended = self.process.try_wait().ok().flatten();
            assert!(ended.is_none(), "nats-server ended: {ended:?}");
            // Only when its streams are there again does it listen.
            let mut first = String::new();
            let socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            socket.set_read_timeout(Some(SOON)).ok()?;
            BufReader::new(socket).read_line(&mut first).ok()?;
            first.starts_with("INFO ").then_some(())
        });
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &TempDir, port: u16, settings: &str) -> Child {
    let file = folder.path().join("nats.conf");
    let store = folder.path().join("store");
    let jetstream = format!(
        "jetstream {{ store_dir: \"{}\", max_mem: 64MB, max_file: 4GB }}\n",
        store.display()
    );
    let all = format!("listen: \"127.0.0.1:{port}\"\n{jetstream}{settings}");
    std::fs::write(&file, all).expect("the folder can be written to");
    let mut nats = Command::new(PROGRAM);
    nats.arg("-c")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    process::die_with_this_thread(&mut nats);
    nats.spawn().expect("nats-server starts")
}
