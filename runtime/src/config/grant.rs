//! A grant to send HTTP requests: `scheme://host:port`, nothing less and nothing more.

use http::Uri;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// One place that guests may send requests to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Grant {
    https: bool,
    host: String,
    port: u16,
}

impl Grant {
    /// Tells whether a request to this place is covered. Host names compare without regard to case.
    pub fn covers(&self, https: bool, host: &str, port: u16) -> bool {
        self.https == https && self.port == port && self.host.eq_ignore_ascii_case(host)
    }

    /// Tells whether the operator named an address rather than a name that somebody else resolves: then that address is
    /// meant, be it a private one. `localhost` counts, since no resolver has a say in it.
    pub fn names_address(&self) -> bool {
        self.host == "localhost" || self.is_address()
    }

    /// Tells whether it names an address, which nobody has to resolve.
    pub fn is_address(&self) -> bool {
        bare(&self.host).parse::<IpAddr>().is_ok()
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Strips the brackets of an IPv6 address.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// Tells whether this is a name, an address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    match bare(host) {
        address if address.len() < host.len() => address.parse::<Ipv6Addr>().is_ok(),
        name => !name.is_empty() && !name.contains(['*', '[', ']']),
    }
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || "expected scheme://host[:port], such as https://api.example.com".to_owned();
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(expected()),
        };
        let authority = uri.authority().ok_or_else(expected)?;
        if uri.path() != "/"
            || uri.query().is_some()
            || authority.as_str().contains('@')
            || !is_host(authority.host())
        {
            return Err(expected());
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Self {
            https,
            host: authority.host().to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for Grant {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_covers_only_its_scheme_host_and_port() {
        let grant: Grant = "https://API.example.com".parse().unwrap();
        assert!(grant.covers(true, "api.Example.com", 443));
        assert!(!grant.covers(false, "api.example.com", 443));
        assert!(!grant.covers(true, "api.example.com", 8443));
        assert!(!grant.covers(true, "api.example.com.evil.org", 443));
    }

    #[test]
    fn paths_user_names_other_schemes_and_odd_hosts_are_refused() {
        for text in [
            "example.com",
            "ftp://example.com",
            "https://a@example.com",
            "https://example.com/path",
            "https://*",
            "http://a[::1]:80",
            "http://[a]:80",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }

    #[test]
    fn address_literals_and_localhost_name_an_address() {
        for text in [
            "http://127.0.0.1:80",
            "http://[::1]:80",
            "http://localhost:80",
        ] {
            assert!(text.parse::<Grant>().unwrap().names_address(), "{text}");
        }
        assert!(
            !"http://example.com"
                .parse::<Grant>()
                .unwrap()
                .names_address()
        );
    }
}
