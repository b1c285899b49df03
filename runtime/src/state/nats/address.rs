//! A URL of a NATS server: where it is, as whom, and how the connection is protected.

use crate::state::tls::Trust;
use rustls::ClientConfig;
use std::net::IpAddr;
use std::path::PathBuf;
use url::{Host, Url};

/// The port where the URL names none.
const PORT: u16 = 4222;

/// Copies of each stream that a server may be asked for.
const REPLICAS_MAX: u8 = 5;

/// Where a server is.
#[derive(Clone)]
pub struct Address {
    host: String,
    port: u16,
    pub(super) login: Login,
    /// Whom it trusts if the connection is encrypted, which a server can ask for, too.
    pub(super) tls: ClientConfig,
    is_encrypted: bool,
    /// How many servers of a cluster keep each stream, if that is said.
    pub(super) replicas: Option<u8>,
}

/// As whom.
#[derive(Clone)]
pub(super) enum Login {
    Nobody,
    Token(String),
    User(String, String),
}

impl Address {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        let host = match url.host() {
            None | Some(Host::Domain("")) => return Err("it names no host".to_owned()),
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
        };
        if !matches!(url.path(), "" | "/") {
            return Err("it has a path".to_owned());
        }
        let (mut roots, mut replicas) = (None, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslrootcert" => roots = Some(PathBuf::from(value.into_owned())),
                "replicas" => {
                    let number = value.parse().ok();
                    let number = number.filter(|it| (1..=REPLICAS_MAX).contains(it));
                    let wrong = || format!("replicas is from 1 to {REPLICAS_MAX}");
                    replicas = Some(number.ok_or_else(wrong)?);
                }
                _ => return Err(format!("the parameter {name} is not known")),
            }
        }
        let is_encrypted = matches!(url.scheme(), "tls" | "nats+tls");
        let trust = match (is_encrypted, roots) {
            (_, None) => Trust::WebRoots,
            (true, Some(path)) => Trust::Roots(path),
            (false, Some(_)) => return Err("sslrootcert goes with tls://".to_owned()),
        };
        Ok(Self {
            host,
            port: url.port().unwrap_or(PORT),
            login: login(&url)?,
            tls: trust.client()?,
            is_encrypted,
            replicas,
        })
    }

    /// Returns what people call the place, without a user and a password.
    pub(super) fn place(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Returns the TCP port that it connects to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Tells whether a name has to be resolved.
    pub fn resolves(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// Tells whether it is on this machine, so that nobody in between can listen.
    pub fn is_local(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }

    /// Tells whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

/// A user without a password is a token, as for other clients of NATS.
fn login(url: &Url) -> Result<Login, String> {
    let plain = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded
            .map(|it| it.into_owned())
            .map_err(|_| "its user or password is not UTF-8".to_owned())
    };
    Ok(match (url.username(), url.password()) {
        ("", None) => Login::Nobody,
        (token, None) => Login::Token(plain(token)?),
        (user, Some(password)) => Login::User(plain(user)?, plain(password)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_says_what_the_sandbox_has_to_allow() {
        let address = Address::parse("nats://shop:s3%63ret@nats.example").unwrap();
        assert_eq!((address.port(), address.resolves()), (4222, true));
        assert!(
            matches!(&address.login, Login::User(user, password) if user == "shop" && password == "s3cret")
        );
        let address = Address::parse("tls://t0ken@127.0.0.1:7000?replicas=3").unwrap();
        assert_eq!((address.port(), address.resolves()), (7000, false));
        assert!(address.is_encrypted() && address.is_local());
        assert_eq!(address.replicas, Some(3));
        assert!(matches!(&address.login, Login::Token(token) if token == "t0ken"));
        let address = Address::parse("nats://[::1]:7000").unwrap();
        assert_eq!(
            (address.resolves(), &*address.place()),
            (false, "[::1]:7000")
        );
    }

    #[test]
    fn wrong_url_is_refused_without_being_repeated() {
        for (url, word) in [
            ("nats://:s3cret@x/path", "path"),
            ("nats://:s3cret@x?sslrootcert=/x", "tls://"),
            ("tls://:s3cret@x?sslrootcert=/nowhere", "/nowhere"),
            ("nats://:s3cret@x:port", "port"),
            ("nats://:s3cret@x?replicas=9", "replicas"),
            ("nats://:s3cret@x?creds=y", "creds"),
        ] {
            let why = Address::parse(url).err().unwrap();
            assert!(
                why.contains(word) && !why.contains("s3cret"),
                "{url}: {why}"
            );
        }
    }
}
