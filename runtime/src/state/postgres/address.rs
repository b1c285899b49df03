//! A URL of a PostgreSQL database: where it is, as whom, and how the connection is protected.
//!
//! `sslmode` and `sslrootcert` are read here, because the client knows only half of the one and none of the other; all
//! else is the client's, and means what it means to libpq.

use super::tls::Tls;
use crate::state::tls::Trust;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How long it may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a connection may be silent before the kernel asks whether the other side is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The port if the URL names none.
const PORT: u16 = 5432;

/// Where a database is.
#[derive(Clone)]
pub struct Address {
    pub(super) config: Config,
    pub(super) tls: Tls,
}

impl Address {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (place, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots, mut rest) = ("prefer", None, Vec::new());
        for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = value,
                Some(("sslrootcert", path)) => roots = Some(PathBuf::from(path)),
                _ => rest.push(parameter),
            }
        }
        let url = match rest.is_empty() {
            true => place.to_owned(),
            false => format!("{place}?{}", rest.join("&")),
        };
        let parsed = url.parse::<Config>();
        let mut config = parsed.map_err(|error| super::error::whole(&error))?;
        let (ssl_mode, trust) = match (mode, roots) {
            ("disable", None) => (SslMode::Disable, Trust::Anybody),
            ("prefer", None) => (SslMode::Prefer, Trust::Anybody),
            ("require", None) => (SslMode::Require, Trust::Anybody),
            ("verify-full", None) => (SslMode::Require, Trust::WebRoots),
            ("verify-full", Some(path)) => (SslMode::Require, Trust::Roots(path)),
            ("disable" | "prefer" | "require", Some(_)) => {
                return Err("sslrootcert goes with sslmode=verify-full".to_owned());
            }
            _ => {
                return Err(
                    "sslmode is none of disable, prefer, require and verify-full".to_owned(),
                );
            }
        };
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("it names no host".to_owned());
        }
        config.ssl_mode(ssl_mode);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_MAX);
        }
        if config.get_application_name().is_none() {
            config.application_name("wrun");
        }
        config.keepalives_idle(KEEPALIVE);
        let is_local = config
            .get_hosts()
            .iter()
            .all(|host| matches!(host, Host::Unix(_)));
        let is_local = is_local && config.get_hostaddrs().is_empty();
        let tls = match is_local || ssl_mode == SslMode::Disable {
            true => Tls::none(),
            false => Tls::new(&trust)?,
        };
        Ok(Self { config, tls })
    }

    /// Returns the TCP ports that it connects to.
    pub fn ports(&self) -> Vec<u16> {
        let has_tcp = self.hosts().next().is_some() || !self.config.get_hostaddrs().is_empty();
        match self.config.get_ports() {
            _ if !has_tcp => Vec::new(),
            [] => vec![PORT],
            ports => ports.to_vec(),
        }
    }

    /// Returns the folders of the Unix sockets that it connects to.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let hosts = self.config.get_hosts().iter();
        let folder = |host: &Host| match host {
            Host::Unix(folder) => Some(folder.clone()),
            Host::Tcp(_) => None,
        };
        hosts.filter_map(folder).collect()
    }

    /// Tells whether another one leads to the same database. Two names of one host are two places.
    pub fn is_same_database(&self, other: &Self) -> bool {
        let database = |it: &Self| {
            let name = it.config.get_dbname().or(it.config.get_user());
            name.map(str::to_owned)
        };
        let ports = |it: &Self| match it.config.get_ports() {
            [] => vec![PORT],
            ports => ports.to_vec(),
        };
        self.config.get_hosts() == other.config.get_hosts()
            && self.config.get_hostaddrs() == other.config.get_hostaddrs()
            && ports(self) == ports(other)
            && database(self) == database(other)
    }

    /// Returns it with settings for sessions that do without transactions of guests.
    pub(super) fn with_settings(mut self, settings: &str) -> Self {
        let options = self.config.get_options().unwrap_or_default();
        let options = format!("{options} {settings}");
        self.config.options(options.trim());
        self
    }

    /// Tells whether it is on this machine, so that nobody in between can listen.
    pub fn is_local(&self) -> bool {
        let is_loopback = |ip: &IpAddr| ip.is_loopback();
        let named =
            |host: &str| host == "localhost" || host.parse().is_ok_and(|ip| is_loopback(&ip));
        self.hosts().all(named) && self.config.get_hostaddrs().iter().all(is_loopback)
    }

    /// Tells whether a name has to be resolved.
    pub fn resolves(&self) -> bool {
        let mut hosts = self.hosts();
        self.config.get_hostaddrs().is_empty() && hosts.any(|host| host.parse::<IpAddr>().is_err())
    }

    fn hosts(&self) -> impl Iterator<Item = &str> {
        self.config
            .get_hosts()
            .iter()
            .filter_map(|host| match host {
                Host::Tcp(host) => Some(host.as_str()),
                Host::Unix(_) => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Address::parse(url).err().unwrap()
    }

    #[test]
    fn url_says_what_the_sandbox_has_to_allow() {
        let address =
            Address::parse("postgres://shop@db.example:6000/shop?sslmode=require").unwrap();
        assert_eq!((address.ports(), address.resolves()), (vec![6000], true));
        let address = Address::parse("postgresql://shop@127.0.0.1/shop").unwrap();
        assert_eq!((address.ports(), address.resolves()), (vec![5432], false));
        let address = Address::parse("postgres://shop@%2Frun%2Fpg/shop").unwrap();
        assert_eq!(address.sockets(), [PathBuf::from("/run/pg")]);
        assert_eq!((address.ports(), address.resolves()), (vec![], false));
    }

    #[test]
    fn same_database_is_told_from_others() {
        let at = |url: &str| Address::parse(url).unwrap();
        let one = at("postgres://shop@127.0.0.1/shop");
        for (other, is_same) in [
            ("postgres://other@127.0.0.1:5432/shop?sslmode=disable", true),
            ("postgres://shop@127.0.0.1", true),
            ("postgres://shop@127.0.0.1/other", false),
            ("postgres://shop@127.0.0.1:5433/shop", false),
            ("postgres://shop@localhost/shop", false),
        ] {
            assert_eq!(one.is_same_database(&at(other)), is_same, "{other}");
        }
    }

    #[test]
    fn wrong_url_is_refused_without_being_repeated() {
        for (url, word) in [
            ("postgres://a:s3cret@x:port/y", "port"),
            ("postgres://a:s3cret@x/y?sslmode=allow", "sslmode"),
            (
                "postgres://a:s3cret@x/y?sslmode=require&sslrootcert=/x",
                "sslrootcert",
            ),
            (
                "postgres://a:s3cret@x/y?sslmode=verify-full&sslrootcert=/nowhere",
                "/nowhere",
            ),
            ("postgres://a:s3cret@x/y?colour=red", "colour"),
            ("postgres:///y", "host"),
        ] {
            let why = refused(url);
            assert!(why.contains(word) && !why.contains("s3cret"), "{why}");
        }
    }
}
