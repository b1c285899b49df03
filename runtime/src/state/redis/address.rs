//! A URL of a Redis or Valkey server: where it is, as whom, and how the connection is protected.

use crate::state::tls::Trust;
use redis::{ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// The one parameter that is read here: a file with the certificates that are trusted.
const ROOTS: &str = "sslrootcert=";

/// Where a server is.
#[derive(Clone)]
pub struct Address {
    place: Place,
    pub(super) login: RedisConnectionInfo,
    tls: Option<TlsConnector>,
}

#[derive(Clone, Eq, PartialEq)]
enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A connection's socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Address {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it is no URL")?;
        let (scheme, is_encrypted) = match scheme {
            "rediss" | "valkeys" => ("redis", true),
            other => (other, false),
        };
        let (rest, roots) = split_roots(rest);
        let trust = match (is_encrypted, roots) {
            (true, None) => Some(Trust::WebRoots),
            (true, Some(path)) => Some(Trust::Roots(path)),
            (false, None) => None,
            (false, Some(_)) => return Err("sslrootcert goes with rediss://".to_owned()),
        };
        let parsed = format!("{scheme}://{rest}").into_connection_info();
        let parsed = parsed.map_err(|error| error.to_string())?;
        let place = match parsed.addr() {
            ConnectionAddr::Tcp(host, port) => {
                Place::Tcp(host.trim_matches(['[', ']']).to_owned(), *port)
            }
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            _ => return Err("it is of a kind that is not known".to_owned()),
        };
        let login = parsed.redis_settings().clone();
        Ok(Self {
            place,
            login: login
                .set_protocol(ProtocolVersion::RESP3)
                .set_skip_set_lib_name(),
            tls: match trust {
                Some(trust) => Some(TlsConnector::from(Arc::new(trust.client()?))),
                None => None,
            },
        })
    }

    /// Returns what people call the place, without a user and a password.
    pub(super) fn place(&self) -> String {
        match &self.place {
            Place::Tcp(host, port) => format!("{host}:{port}"),
            Place::Unix(path) => path.display().to_string(),
        }
    }

    /// Tells whether another one is the same server. Two names of one host are two places.
    pub(super) fn is_same_server(&self, other: &Self) -> bool {
        self.place == other.place
    }

    /// Returns the TCP port that it connects to.
    pub fn port(&self) -> Option<u16> {
        match &self.place {
            Place::Tcp(_, port) => Some(*port),
            Place::Unix(_) => None,
        }
    }

    /// Returns the folder of the Unix socket that it connects to.
    pub fn socket(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Tcp(..) => None,
            Place::Unix(path) => path.parent().map(Path::to_path_buf),
        }
    }

    /// Tells whether a name has to be resolved.
    pub fn resolves(&self) -> bool {
        matches!(&self.place, Place::Tcp(host, _) if host.parse::<IpAddr>().is_err())
    }

    /// Tells whether it is on this machine, so that nobody in between can listen.
    pub fn is_local(&self) -> bool {
        match &self.place {
            Place::Tcp(host, _) => {
                host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
            Place::Unix(_) => true,
        }
    }

    /// Tells whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Socket>> {
        let (host, port) = match &self.place {
            Place::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Place::Tcp(host, port) => (host, *port),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

/// Takes the file of certificates out of the parameters.
fn split_roots(rest: &str) -> (String, Option<PathBuf>) {
    let Some((place, parameters)) = rest.split_once('?') else {
        return (rest.to_owned(), None);
    };
    let (roots, others): (Vec<&str>, _) = parameters
        .split('&')
        .partition(|parameter| parameter.starts_with(ROOTS));
    let roots = roots
        .first()
        .map(|roots| PathBuf::from(&roots[ROOTS.len()..]));
    match others.is_empty() {
        true => (place.to_owned(), roots),
        false => (format!("{place}?{}", others.join("&")), roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_says_what_the_sandbox_has_to_allow() {
        let address = Address::parse("redis://:s3cret@cache.example:7000/2").unwrap();
        assert_eq!((address.port(), address.resolves()), (Some(7000), true));
        assert_eq!(address.login.db(), 2);
        let address = Address::parse("valkeys://127.0.0.1").unwrap();
        assert_eq!((address.port(), address.resolves()), (Some(6379), false));
        assert!(address.is_encrypted() && address.is_local());
        let address = Address::parse("redis+unix:///run/redis/redis.sock?db=1").unwrap();
        assert_eq!(address.socket(), Some(PathBuf::from("/run/redis")));
        assert_eq!((address.port(), address.resolves()), (None, false));
        let address = Address::parse("redis://[::1]:7000").unwrap();
        assert_eq!((address.port(), address.resolves()), (Some(7000), false));
    }

    #[test]
    fn wrong_url_is_refused_without_being_repeated() {
        for (url, word) in [
            ("redis://:s3cret@x/nine", "database"),
            ("redis://:s3cret@x?sslrootcert=/x", "rediss"),
            ("rediss://:s3cret@x?sslrootcert=/nowhere", "/nowhere"),
            ("redis://:s3cret@x:port", "URL"),
        ] {
            let why = Address::parse(url).err().unwrap();
            assert!(
                why.contains(word) && !why.contains("s3cret"),
                "{url}: {why}"
            );
        }
    }
}
