//! A URL of a Kafka cluster: some of its brokers, and what the names of its topics begin with.

use std::net::IpAddr;

/// The port where the URL names none.
const PORT: u16 = 9092;

/// The longest name of a topic in bytes.
const TOPIC_MAX: usize = 249;

/// What is kept free for a label and what is added to it.
const LABEL_MAX: usize = 80;

/// Where a cluster is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    brokers: Vec<(String, u16)>,
    prefix: String,
}

impl Address {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = match url.split_once("://") {
            Some(("kafka", rest)) => rest,
            Some(("kafkas", _)) => {
                return Err(
                    "wrun has no TLS for Kafka; use kafka:// on a network that nobody listens to"
                        .to_owned(),
                );
            }
            _ => return Err("it is no URL such as kafka://HOST:PORT,HOST:PORT/PREFIX".to_owned()),
        };
        if rest.contains('@') {
            return Err("it names a user, and wrun does not log in to Kafka".to_owned());
        }
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        if !parameters.is_empty() {
            return Err("it has parameters, of which none is known".to_owned());
        }
        let (places, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !prefix.bytes().all(is_plain) || prefix.len() > TOPIC_MAX - LABEL_MAX {
            let what = "what stands behind the slash is no beginning of a topic's name";
            return Err(what.to_owned());
        }
        let brokers = places.split(',').map(broker).collect::<Option<Vec<_>>>();
        let wrong = || "it names no broker as HOST:PORT".to_owned();
        Ok(Self {
            brokers: brokers.ok_or_else(wrong)?,
            prefix: prefix.to_owned(),
        })
    }

    /// Returns the brokers, as clients take them.
    pub(super) fn bootstrap(&self) -> String {
        let shown: Vec<String> = self.brokers.iter().map(shown).collect();
        shown.join(",")
    }

    /// Returns the topic of a queue.
    pub(super) fn topic(&self, label: &str) -> String {
        format!("{}{label}", self.prefix)
    }

    /// Returns the TCP ports that it connects to. Brokers that name themselves by others cannot be reached.
    pub fn ports(&self) -> Vec<u16> {
        self.brokers.iter().map(|(_, port)| *port).collect()
    }

    /// Tells whether a name has to be resolved.
    pub fn resolves(&self) -> bool {
        self.brokers.iter().any(|(host, _)| is_name(host))
    }

    /// Tells whether all of it is on this machine, so that nobody in between can listen.
    pub fn is_local(&self) -> bool {
        let is_loopback = |host: &str| host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let mut hosts = self.brokers.iter().map(|(host, _)| host);
        hosts.all(|host| host == "localhost" || is_loopback(host))
    }

    /// Tells whether a server may connect to a broker that calls itself like that.
    pub(super) fn reaches(&self, host: &str, port: u16) -> bool {
        self.ports().contains(&port) && (self.resolves() || !is_name(host))
    }
}

fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

fn shown((host, port): &(String, u16)) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Reads `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
fn broker(place: &str) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => PORT,
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_plain)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_says_what_the_sandbox_has_to_allow_and_what_topics_are_called() {
        let address = Address::parse("kafka://a.example:7000,b.example/shop.").unwrap();
        assert_eq!(
            (address.ports(), address.resolves()),
            (vec![7000, 9092], true)
        );
        assert_eq!(address.bootstrap(), "a.example:7000,b.example:9092");
        assert_eq!(address.topic("orders"), "shop.orders");
        assert!(!address.is_local());
        let address = Address::parse("kafka://[::1]:7000,127.0.0.1:7001").unwrap();
        assert_eq!(
            (address.ports(), address.resolves()),
            (vec![7000, 7001], false)
        );
        assert_eq!(address.bootstrap(), "[::1]:7000,127.0.0.1:7001");
        assert_eq!(address.topic("orders"), "orders");
        assert!(address.is_local());
    }

    #[test]
    fn broker_that_calls_itself_otherwise_than_the_url_may_be_out_of_reach() {
        let names = Address::parse("kafka://a.example:7000").unwrap();
        assert!(names.reaches("b.example", 7000) && names.reaches("10.0.0.1", 7000));
        assert!(!names.reaches("a.example", 7001));
        let numbers = Address::parse("kafka://10.0.0.1:7000").unwrap();
        assert!(numbers.reaches("10.0.0.2", 7000) && !numbers.reaches("a.example", 7000));
    }

    #[test]
    fn wrong_url_is_refused_without_being_repeated() {
        for (url, word) in [
            ("kafkas://s3cret:9092", "TLS"),
            ("kafka://me:s3cret@x", "log in"),
            ("kafka://s3cret:port", "HOST:PORT"),
            ("kafka://s3cret:9092,/x", "HOST:PORT"),
            ("kafka://s3cret:9092/a/b", "topic"),
            ("kafka://s3cret:9092/x?acks=1", "parameters"),
        ] {
            let why = Address::parse(url).unwrap_err();
            assert!(
                why.contains(word) && !why.contains("s3cret"),
                "{url}: {why}"
            );
        }
    }
}
