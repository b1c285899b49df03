//! A RabbitMQ of the tests' own: from Debian's package, with ports, a name and a folder of its own, and an epmd of its own by
//! which its tools find it. Ended with its handle, and with the thread that started it.
//!
//! One takes many seconds to start, so tests that do nothing to it share one, each in a virtual host of its own.

use crate::engine::{certify, free_port};
use crate::process;
use crate::third_party::leave_out;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// What to do where it is missing.
const INSTALL: &str = "apt-get install rabbitmq-server";

/// Where Debian keeps its programs. Those on the search path want to be another user.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// How long it may take to start, and a tool of its to do something.
const START_MAX: Duration = Duration::from_secs(120);

/// A running RabbitMQ. Its user is `guest`, with the password `guest`.
#[derive(Debug)]
pub struct Rabbit {
    process: Child,
    /// Knows by which port its tools reach it.
    epmd: Child,
    ports: Ports,
    settings: Vec<String>,
    folder: PathBuf,
    // Removed after the process that uses it.
    _scratch: Option<TempDir>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    clients: u16,
    /// Of its tools.
    tools: u16,
    epmd: u16,
}

impl Rabbit {
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
    pub fn on(scratch: TempDir) -> Option<Self> {
        if !Path::new(PROGRAMS).join("rabbitmq-server").is_file() {
            return leave_out("what is kept in RabbitMQ", "RabbitMQ", INSTALL);
        }
        let mut rabbit = Self::start(scratch.path());
        rabbit._scratch = Some(scratch);
        Some(rabbit)
    }

    /// Returns the one that the tests of this process share, which nobody is to end.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Rabbit>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let (to, from) = mpsc::channel();
            // It ends with the thread that started it, and no test's thread lives as long as all of them.
            thread::spawn(move || {
                let rabbit = Self::for_test();
                if let Some(rabbit) = &rabbit {
                    clean_up_after_this_process(rabbit);
                }
                let _ = to.send(rabbit);
                loop {
                    thread::park();
                }
            });
            from.recv().expect("RabbitMQ serves")
        });
        shared.as_ref()
    }

    fn start(folder: &Path) -> Self {
        let ports = Ports {
            clients: free_port(),
            tools: free_port(),
            epmd: free_port(),
        };
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &ports.epmd.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        process::die_with_this_thread(&mut epmd);
        let epmd = epmd.spawn().expect("epmd comes with Erlang");
        let listener = format!("listeners.tcp.1 = 127.0.0.1:{}", ports.clients);
        let settings = vec![
            listener,
            "disk_free_limit.absolute = 1MB".to_owned(),
            "raft.wal_max_size_bytes = 33554432".to_owned(),
        ];
        let process = spawn(folder, ports, &settings);
        // From here on `Drop` ends the processes whatever happens.
        let mut rabbit = Self {
            process,
            epmd,
            ports,
            settings,
            folder: folder.to_owned(),
            _scratch: None,
        };
        rabbit.wait();
        rabbit
    }

    /// Makes a virtual host, and returns its URL.
    pub fn virtual_host(&self) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.eval(&format!(
            "rabbit_vhost:add(<<\"{name}\">>, <<\"tests\">>), \
             rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, \
             <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"tests\">>)."
        ));
        self.url(&name)
    }

    /// Returns the URL of a virtual host.
    pub fn url(&self, host: &str) -> String {
        let host = host.replace('/', "%2f");
        format!("amqp://guest:guest@127.0.0.1:{}/{host}", self.ports.clients)
    }

    /// Has it take connections at this address, too.
    pub fn serve_at(&mut self, address: Ipv4Addr) {
        let port = self.ports.clients;
        self.settings
            .push(format!("listeners.tcp.2 = {address}:{port}"));
        self.settings
            .push("loopback_users.guest = false".to_owned());
        self.kill();
        self.start_again();
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.ports.clients
    }

    /// Has it take encrypted connections, too, as `localhost`; returns the port and the file with its certificate.
    ///
    /// # Panics
    ///
    /// If that cannot be made.
    pub fn encrypt(&mut self) -> (u16, PathBuf) {
        let (key, certificate) = (
            self.folder.join("server.key"),
            self.folder.join("server.crt"),
        );
        crate::guests::run(&mut certify(&key, &certificate));
        let port = free_port();
        let mut set = |name: &str, value: String| self.settings.push(format!("{name} = {value}"));
        set("listeners.ssl.1", format!("127.0.0.1:{port}"));
        set("ssl_options.keyfile", key.display().to_string());
        set("ssl_options.certfile", certificate.display().to_string());
        set("ssl_options.cacertfile", certificate.display().to_string());
        set("ssl_options.verify", "verify_none".to_owned());
        self.kill();
        self.start_again();
        (port, certificate)
    }

    /// Returns its name and version.
    pub fn version(&self) -> String {
        let version = self.eval("io:format(\"~s~n\", [rabbit_misc:version()]).");
        format!("RabbitMQ {}", version.lines().next().unwrap_or_default())
    }

    /// Has it do something that is written in Erlang, and returns what that comes to.
    pub fn eval(&self, expression: &str) -> String {
        self.control(&["eval", expression])
    }

    /// Runs `rabbitmqctl`, which has to succeed, and returns what it prints.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn control(&self, arguments: &[&str]) -> String {
        let mut control = command("rabbitmqctl", &self.folder, self.ports);
        control.arg("--quiet").args(arguments);
        let output = crate::guests::run(&mut control);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Ends it without a warning, as a power cut would.
    pub fn kill(&mut self) {
        process::stop(self.pid());
        let family = process::family(self.pid());
        for &pid in &family {
            process::send(pid, Signal::SIGKILL);
        }
        let _ = self.process.wait();
        eventually("its processes are gone", SOON, || {
            (!family.iter().any(|&pid| process::alive(pid))).then_some(())
        });
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
        self.process = spawn(&self.folder, self.ports, &self.settings);
        self.wait();
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("ids of processes are small")
    }

    fn wait(&mut self) {
        eventually("rabbitmq-server serves", START_MAX, || {
            let ended = self.process.try_wait().ok().flatten();
            assert!(ended.is_none(), "rabbitmq-server ended: {}", self.log());
            let mut socket = TcpStream::connect(("127.0.0.1", self.ports.clients)).ok()?;
            socket.set_read_timeout(Some(SOON)).ok()?;
            socket.write_all(b"AMQP\x00\x00\x09\x01").ok()?;
            socket.read_exact(&mut [0]).ok()
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.kill();
        let _ = self.epmd.kill();
        let _ = self.epmd.wait();
    }
}

/// Removes the folder of one that nobody drops once this process has ended, and it with it.
fn clean_up_after_this_process(rabbit: &Rabbit) {
    let script =
        "cat >/dev/null; while kill -0 \"$1\" 2>/dev/null; do sleep 0.1; done; rm -rf \"$2\"";
    let mut janitor = Command::new("sh");
    janitor
        .args(["-c", script, "janitor", &rabbit.process.id().to_string()])
        .arg(&rabbit.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let janitor = janitor.spawn().expect("there is a shell");
    // It sees that the other end is closed when this process has ended.
    std::mem::forget(janitor);
}

fn spawn(folder: &Path, ports: Ports, settings: &[String]) -> Child {
    fs::write(folder.join("rabbitmq.conf"), settings.join("\n") + "\n").expect("settings are kept");
    fs::write(folder.join("plugins"), "[].\n").expect("settings are kept");
    let log = File::create(folder.join("log")).expect("the folder takes files");
    let mut server = command("rabbitmq-server", folder, ports);
    server
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder)
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_DIST_PORT", ports.tools.to_string())
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
        // So that there is no shell in between.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        )
        .stdout(log)
        .stderr(Stdio::null());
    process::die_with_this_thread(&mut server);
    server.spawn().expect("rabbitmq-server starts")
}

/// Returns one of its programs, which finds the server, or is it.
fn command(program: &str, folder: &Path, ports: Ports) -> Command {
    let mut command = Command::new(Path::new(PROGRAMS).join(program));
    command
        .env("HOME", folder)
        .env("LANG", "C.UTF-8")
        .env(
            "RABBITMQ_NODENAME",
            format!("rabbit{}@localhost", ports.clients),
        )
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("ERL_EPMD_PORT", ports.epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .stdin(Stdio::null());
    command
}
