//! A MariaDB of the tests' own: from Debian's package, with its data in a folder of its own and a port of its own, as a user
//! who is not root. Ended with its handle, and with the thread that started it.
//!
//! `WRUN_TEST_MYSQLD` names a `mysqld` of MySQL's that is started in its place; the client is MariaDB's all the same.

use crate::engine::{certify, free_port};
use crate::process;
use crate::third_party::leave_out;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// What to do where it is missing.
const INSTALL: &str = "apt-get install mariadb-server";

/// Whom it runs as if the run is root's: it refuses to be root.
const USER: &str = "mysql";

/// Where Debian keeps the server.
const DEBIAN: &str = "/usr/sbin/mariadbd";

/// The variable that names another server.
const MYSQLD: &str = "WRUN_TEST_MYSQLD";

/// What a server needs so that others can follow it, by its kind.
const MARIADB_FOLLOWED: &[&str] = &["--log-bin=changes", "--server-id=1"];
const MYSQL_FOLLOWED: &[&str] = &[
    "--server-id=1",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
];

/// And what one needs that follows.
const MARIADB_FOLLOWS: &[&str] = &["--server-id=2", "--read-only=ON"];
const MYSQL_FOLLOWS: &[&str] = &[
    "--server-id=2",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
    "--relay-log-recovery=ON",
    "--read-only=ON",
];

/// A running MariaDB. Its user `wrun` needs no password.
#[derive(Debug)]
pub struct MariaDb {
    process: Child,
    folder: PathBuf,
    settings: Vec<String>,
    port: u16,
    // Removed after the process that uses it.
    _scratch: TempDir,
}

impl MariaDb {
    /// Starts one for a test, which goes without if it is not installed: that is told on stderr, unless
    /// `WRUN_TEST_ALL=1` makes it an error.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn for_test() -> Option<Self> {
        Self::with(&[])
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
    pub fn on(scratch: TempDir, settings: &[&str]) -> Option<Self> {
        if !server().is_file() {
            return leave_out("what is kept in MariaDB", "MariaDB", INSTALL);
        }
        let mut mariadb = Self::bare(scratch, settings);
        mariadb.wait();
        mariadb.query(
            "mysql",
            "CREATE USER wrun@'127.0.0.1', wrun@localhost; GRANT ALL ON *.* TO wrun@'127.0.0.1'; GRANT ALL ON *.* TO wrun@localhost",
        );
        Some(mariadb)
    }

    /// Starts one that others can follow.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn followed() -> Option<Self> {
        Self::with(match is_mysql() {
            true => MYSQL_FOLLOWED,
            false => MARIADB_FOLLOWED,
        })
    }

    /// Starts a replica that follows it from its first change on, by GTIDs.
    ///
    /// # Panics
    ///
    /// If there is none that serves.
    pub fn replica(&self) -> Self {
        let settings = match is_mysql() {
            true => MYSQL_FOLLOWS,
            false => MARIADB_FOLLOWS,
        };
        let mut replica = Self::bare(crate::folder(), settings);
        replica.wait();
        let port = self.port;
        let follow = match is_mysql() {
            true => format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='wrun', \
                 SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=1, GET_SOURCE_PUBLIC_KEY=1"
            ),
            false => format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='wrun', \
                 MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1"
            ),
        };
        replica.query("mysql", &format!("{follow}; START REPLICA"));
        self.wait_for(&replica);
        replica
    }

    /// Waits until a replica shows what was committed here so far.
    pub fn wait_for(&self, replica: &Self) {
        let (written, wait) = match is_mysql() {
            true => ("@@GLOBAL.gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET"),
            false => ("@@GLOBAL.gtid_binlog_pos", "MASTER_GTID_WAIT"),
        };
        let written = self.query("mysql", &format!("SELECT {written}"));
        let waited = replica.query("mysql", &format!("SELECT {wait}('{written}', 30)"));
        assert_eq!(waited, "0", "{}", replica.log());
    }

    /// Starts one that has no user but root.
    fn bare(scratch: TempDir, settings: &[&str]) -> Self {
        let folder = scratch.path().join("mariadb");
        fs::create_dir(&folder).expect("a folder can be made");
        // Its user has to get through, and others to its socket.
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scratch.path(), everybody).expect("it is ours");
        if let Some((uid, gid)) = user() {
            chown(&folder, Some(uid), Some(gid)).expect("root can give away a folder");
        }
        install(&folder);
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(|&it| it.to_owned()).collect();
        let process = spawn(&folder, port, &settings);
        // From here on `Drop` ends the process whatever happens.
        Self {
            process,
            folder,
            settings,
            port,
            _scratch: scratch,
        }
    }

    /// Has it take encrypted connections, too, as `localhost`; returns the file with its certificate.
    ///
    /// # Panics
    ///
    /// If that cannot be made.
    pub fn encrypt(&mut self) -> PathBuf {
        let (key, certificate) = (
            self.folder.join("server.key"),
            self.folder.join("server.crt"),
        );
        let mut openssl = certify(&key, &certificate);
        as_user(&mut openssl);
        crate::guests::run(openssl.current_dir(&self.folder));
        self.settings.push(format!("--ssl-key={}", key.display()));
        self.settings
            .push(format!("--ssl-cert={}", certificate.display()));
        self.stop();
        self.start_again();
        certificate
    }

    /// Returns the URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://wrun@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the URL of one of its databases over its Unix socket.
    pub fn local_url(&self, database: &str) -> String {
        let socket = self.folder.join("socket");
        format!(
            "mariadb://wrun@localhost/{database}?socket={}",
            socket.display()
        )
    }

    /// Returns what it says of itself.
    pub fn version(&self) -> String {
        format!("{} {}", product(), self.query("mysql", "SELECT VERSION()"))
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a statement in one of its databases, and returns the first line that it prints, its columns between tabs.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let output = crate::guests::run(self.client().args(["-N", "-B", "-e", sql, database]));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Makes an empty database.
    pub fn create(&self, database: &str) {
        self.query("mysql", &format!("CREATE DATABASE {database}"));
    }

    /// Ends it without a warning, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        process::send(self.pid(), Signal::SIGTERM);
        let _ = self.process.wait();
    }

    /// Starts it again, after it ended.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.port, &self.settings);
        self.wait();
    }

    /// As the user whom it was installed for, over its socket.
    fn client(&self) -> Command {
        let mut client = Command::new("mariadb");
        client.arg("--no-defaults").arg("--user=root");
        client.arg("--socket").arg(self.folder.join("socket"));
        client
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("ids of processes are small")
    }

    fn wait(&mut self) {
        eventually("the server serves", SOON, || {
            let ended = self.process.try_wait().ok().flatten();
            assert!(ended.is_none(), "the server ended: {}", self.log());
            let ready = self.client().args(["-e", "SELECT 1"]).output().ok()?;
            ready.status.success().then_some(())
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for MariaDb {
    /// Its data go with it, so that there is nothing to be put in order.
    fn drop(&mut self) {
        self.kill();
    }
}

/// Tells whether it is MySQL that is started.
pub fn is_mysql() -> bool {
    std::env::var_os(MYSQLD).is_some()
}

/// Returns what people call it.
pub fn product() -> &'static str {
    match is_mysql() {
        true => "MySQL",
        false => "MariaDB",
    }
}

fn server() -> PathBuf {
    std::env::var_os(MYSQLD).map_or_else(|| DEBIAN.into(), PathBuf::from)
}

/// Makes its own tables.
fn install(folder: &Path) {
    let mut install = match is_mysql() {
        true => Command::new(server()),
        false => Command::new("mariadb-install-db"),
    };
    install.arg("--no-defaults");
    match is_mysql() {
        true => install.args(["--initialize-insecure", "--secure-file-priv=NULL"]),
        false => install.args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ]),
    };
    install.arg(format!("--datadir={}", folder.join("data").display()));
    install.arg(format!("--tmpdir={}", folder.display()));
    as_user(&mut install);
    crate::guests::run(install.current_dir(folder).stdin(Stdio::null()));
}

fn spawn(folder: &Path, port: u16, settings: &[String]) -> Child {
    let log = fs::File::create(folder.join("log")).expect("the folder takes files");
    let mut mariadbd = Command::new(server());
    mariadbd
        .args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
        ])
        // As Debian has it.
        .arg("--character-set-server=utf8mb4")
        .args(match is_mysql() {
            // Its other protocol has a port that all of them would want.
            true => &["--mysqlx=OFF", "--secure-file-priv=NULL"][..],
            false => &[],
        })
        .arg(format!("--port={port}"))
        .arg(format!("--datadir={}", folder.join("data").display()))
        .arg(format!("--tmpdir={}", folder.display()))
        .arg(format!("--socket={}", folder.join("socket").display()))
        .args(settings)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    as_user(&mut mariadbd);
    process::die_with_this_thread(&mut mariadbd);
    mariadbd.spawn().expect("the server starts")
}

fn as_user(command: &mut Command) {
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
}

/// Returns the ids of the user that it runs as, if that is another one.
fn user() -> Option<(u32, u32)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = User::from_name(USER).ok().flatten()?;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}
