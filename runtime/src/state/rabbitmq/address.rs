//! A URL of a RabbitMQ server: where it is, as whom, in which virtual host, and how the connection is protected.

use crate::state::tls::Trust;
use lapin::uri::{AMQPScheme, AMQPUri};
use rustls::pki_types::ServerName;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The one parameter that is read here: a file with the certificates that are trusted.
const ROOTS: &str = "sslrootcert=";

/// After how many seconds of silence each side looks for the other, unless the URL says.
const HEARTBEAT: u16 = 5;

/// Where a server is.
#[derive(Clone)]
pub struct Address {
    pub(super) uri: AMQPUri,
    tls: Option<TlsConnector>,
}

/// A connection's socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Address {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (url, roots) = split_roots(url);
        // What the parser says may show a part of it.
        let mut uri: AMQPUri = url
            .parse()
            .map_err(|_| "it is no URL such as amqp://USER@HOST:PORT/VHOST".to_owned())?;
        let trust = match (&uri.scheme, roots) {
            (AMQPScheme::AMQPS, None) => Some(Trust::WebRoots),
            (AMQPScheme::AMQPS, Some(path)) => Some(Trust::Roots(path)),
            (AMQPScheme::AMQP, None) => None,
            (AMQPScheme::AMQP, Some(_)) => return Err("sslrootcert goes with amqps://".to_owned()),
        };
        // The parser takes an address of IPv6 for no host at all.
        if let Some(host) = in_brackets(&url) {
            host.clone_into(&mut uri.authority.host);
        }
        // A slash at the end names no virtual host, whatever else it could mean.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let tls = match trust {
            Some(trust) => Some(TlsConnector::from(Arc::new(trust.client()?))),
            None => None,
        };
        Ok(Self { uri, tls })
    }

    fn host(&self) -> &str {
        &self.uri.authority.host
    }

    /// Returns what people call the place, without a user and a password.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.host(), self.port())
    }

    /// Returns the TCP port that it connects to.
    pub fn port(&self) -> u16 {
        self.uri.authority.port
    }

    /// Tells whether a name has to be resolved.
    pub fn resolves(&self) -> bool {
        self.host().parse::<IpAddr>().is_err()
    }

    /// Tells whether it is on this machine, so that nobody in between can listen.
    pub fn is_local(&self) -> bool {
        let ip = self.host().parse();
        self.host() == "localhost" || ip.is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// Tells whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Socket>> {
        let stream = TcpStream::connect((self.host(), self.port())).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host().to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

/// Returns the address of IPv6 in a URL, if that is its host.
fn in_brackets(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let place = rest.split(['/', '?']).next()?;
    let host = place.rsplit('@').next()?.strip_prefix('[')?;
    Some(host.split_once(']')?.0)
}

/// Takes the file of certificates out of the parameters.
fn split_roots(url: &str) -> (String, Option<PathBuf>) {
    let Some((place, parameters)) = url.split_once('?') else {
        return (url.to_owned(), None);
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
    fn url_says_what_the_sandbox_has_to_allow_and_which_virtual_host() {
        for (url, port, resolves, vhost) in [
            (
                "amqp://me:s3cret@broker.example:7000/shop",
                7000,
                true,
                "shop",
            ),
            ("amqp://127.0.0.1", 5672, false, "/"),
            ("amqp://127.0.0.1/", 5672, false, "/"),
            ("amqps://me:x@[::1]/%2fa", 5671, false, "/a"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.port(), address.resolves()), (port, resolves));
            assert_eq!(address.uri.vhost, vhost, "{url}");
        }
        let address = Address::parse("amqps://[::1]:7000").unwrap();
        assert!(address.is_encrypted() && address.is_local());
        assert_eq!(address.place(), "::1:7000");
    }

    #[test]
    fn wrong_url_is_refused_without_being_repeated() {
        for (url, word) in [
            ("amqp://:s3cret@x?sslrootcert=/x", "amqps"),
            ("amqps://:s3cret@x?sslrootcert=/nowhere", "/nowhere"),
            ("amqp://me:s3cret@x:port", "amqp://USER"),
            ("amqp://me:s3cret@x?heartbeat=s3cret", "amqp://USER"),
        ] {
            let why = Address::parse(url).err().unwrap();
            assert!(
                why.contains(word) && !why.contains("s3cret"),
                "{url}: {why}"
            );
        }
    }
}
