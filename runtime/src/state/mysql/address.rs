//! A URL of a MariaDB or MySQL database: where it is, as whom, and how the connection is protected.

use mysql_async::{Opts, OptsBuilder, SslOpts};
use std::cell::Cell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// How long a connection may be silent before the kernel asks whether the other side is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Statements that a connection keeps prepared.
const KEPT_MAX: usize = 128;

/// The largest packet that is sent: the largest value, and some.
const PACKET_MAX: usize = 64 << 20;

/// What a session begins with, and again whenever it is as new. The mode is fixed: what does not fit is refused and not
/// cut off, and a statement means what `tokens` takes it for.
const SETUP: &str = "SET NAMES utf8mb4, autocommit=1, time_zone='+00:00', sql_mode='STRICT_ALL_TABLES,\
    ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION'";

/// Where a database is.
#[derive(Clone)]
pub struct Address {
    pub(super) opts: Opts,
    /// Whether it is MariaDB: as the URL says, until the server does.
    is_mariadb: Rc<Cell<bool>>,
}

impl Address {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it is no URL")?;
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut mode, mut roots, mut socket) = (None, None, None);
        for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", path)) => roots = Some(PathBuf::from(path)),
                Some(("socket", path)) => socket = Some(path.to_owned()),
                Some((name, _)) => return Err(format!("it has the unknown parameter {name}")),
                None => return Err("it has a parameter without a value".to_owned()),
            }
        }
        let parsed = Opts::from_url(&format!("mysql://{place}"));
        // What is wrong with it may be the password.
        let opts = parsed.map_err(|_| "it is not mysql://USER@HOST:PORT/DATABASE".to_owned())?;
        if opts.ip_or_hostname().is_empty() {
            return Err("it names no host".to_owned());
        }
        if opts.db_name().is_none_or(str::is_empty) {
            return Err("it names no database".to_owned());
        }
        let tls = tls(mode, roots)?;
        if tls.is_some() && socket.is_some() {
            return Err("sslmode does not go with a socket".to_owned());
        }
        let builder = OptsBuilder::from_opts(opts)
            .socket(socket)
            .ssl_opts(tls)
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .stmt_cache_size(KEPT_MAX)
            // Asked for nothing, it does not have to look these up.
            .max_allowed_packet(Some(PACKET_MAX))
            .wait_timeout(Some(0))
            // As other engines count: rows that an UPDATE found, whether or not they were different before.
            .client_found_rows(true)
            .setup(vec![SETUP]);
        Ok(Self {
            opts: builder.into(),
            is_mariadb: Rc::new(Cell::new(scheme == "mariadb")),
        })
    }

    /// Returns the TCP port that it connects to.
    pub fn ports(&self) -> Vec<u16> {
        match self.opts.socket() {
            Some(_) => Vec::new(),
            None => vec![self.opts.tcp_port()],
        }
    }

    /// Returns the folder of the Unix socket that it connects to.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let folder = self.opts.socket().and_then(|path| Path::new(path).parent());
        folder.map(Path::to_path_buf).into_iter().collect()
    }

    /// Tells whether it is on this machine, so that nobody in between can listen.
    pub fn is_local(&self) -> bool {
        self.opts.socket().is_some() || self.opts.addr_is_loopback()
    }

    /// Tells whether a name has to be resolved.
    pub fn resolves(&self) -> bool {
        let host = self.opts.ip_or_hostname();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.opts.socket().is_none() && host.parse::<IpAddr>().is_err()
    }

    pub(super) fn is_mariadb(&self) -> bool {
        self.is_mariadb.get()
    }

    pub(super) fn note_mariadb(&self, is_mariadb: bool) {
        self.is_mariadb.set(is_mariadb);
    }
}

/// Reads how the connection is encrypted. There is no `prefer`: a server that has no TLS cannot be told from one in between
/// that takes it away.
fn tls(mode: Option<&str>, roots: Option<PathBuf>) -> Result<Option<SslOpts>, String> {
    let opts = SslOpts::default();
    match (mode.unwrap_or("disable"), roots) {
        ("disable", None) => Ok(None),
        ("require", None) => Ok(Some(
            opts.with_danger_accept_invalid_certs(true)
                .with_danger_skip_domain_validation(true),
        )),
        ("verify-full", None) => Ok(Some(opts)),
        ("verify-full", Some(path)) => {
            // Read now: later, in the sandbox, no file can be.
            let wrong = |error| format!("sslrootcert {}: {error}", path.display());
            let pem = std::fs::read(&path).map_err(wrong)?;
            if !pem.windows(11).any(|text| text == b"-----BEGIN ") {
                let path = path.display();
                return Err(format!("sslrootcert {path}: there is no certificate in it"));
            }
            Ok(Some(
                opts.with_root_certs(vec![pem.into()])
                    .with_disable_built_in_roots(true),
            ))
        }
        ("disable" | "require", Some(_)) => {
            Err("sslrootcert goes with sslmode=verify-full".to_owned())
        }
        _ => Err("sslmode is none of disable, require and verify-full".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_says_what_the_sandbox_has_to_allow() {
        let address = Address::parse("mysql://shop@db.example:6000/shop?sslmode=require").unwrap();
        assert_eq!((address.ports(), address.resolves()), (vec![6000], true));
        let address = Address::parse("mariadb://shop@127.0.0.1/shop").unwrap();
        assert_eq!((address.ports(), address.resolves()), (vec![3306], false));
        let address = Address::parse("mysql://shop@localhost/shop?socket=/run/m.sock").unwrap();
        assert_eq!(address.sockets(), [PathBuf::from("/run")]);
        assert_eq!((address.ports(), address.resolves()), (vec![], false));
    }

    #[test]
    fn wrong_url_is_refused_without_being_repeated() {
        for (url, word) in [
            ("mysql://a:s3cret@x:port/y", "mysql://USER"),
            ("mysql://a:s3cret@x", "database"),
            ("mysql://a:s3cret@x/y?sslmode=prefer", "sslmode"),
            ("mysql://a:s3cret@x/y?require_ssl=true", "require_ssl"),
            (
                "mysql://a:s3cret@x/y?sslmode=require&sslrootcert=/x",
                "sslrootcert",
            ),
            (
                "mysql://a:s3cret@x/y?sslmode=verify-full&sslrootcert=/nowhere",
                "/nowhere",
            ),
            ("mysql://a:s3cret@x/y?sslmode=require&socket=/x", "socket"),
        ] {
            let why = Address::parse(url).err().unwrap();
            assert!(why.contains(word) && !why.contains("s3cret"), "{why}");
        }
    }
}
