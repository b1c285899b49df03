//! A URL of a Kafka cluster: some of its brokers, how to speak with them, and what the names of its topics begin with.

use super::security::Security;
use rdkafka::ClientConfig;
use std::net::IpAddr;

/// The port where the URL names none.
const PORT: u16 = 9092;

/// The longest name of a topic in bytes.
const TOPIC_MAX: usize = 249;

/// What is kept free for a label and what is added to it.
const LABEL_MAX: usize = 80;

/// Where a cluster is.
#[derive(Clone)]
pub struct Address {
    brokers: Vec<(String, u16)>,
    prefix: String,
    security: Security,
}

impl Address {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (is_encrypted, rest) = match url.split_once("://") {
            Some(("kafka", rest)) => (false, rest),
            Some(("kafkas", rest)) => (true, rest),
            _ => return Err("it is no URL such as kafka://HOST:PORT,HOST:PORT/PREFIX".to_owned()),
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (who, rest) = match rest.rsplit_once('@') {
            Some((who, rest)) => (Some(who), rest),
            None => (None, rest),
        };
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
            security: Security::new(is_encrypted, who, parameters)?,
        })
    }

    /// Tells a client where it is, and how to speak with it.
    pub(super) fn tell(&self, config: &mut ClientConfig) {
        config.set("bootstrap.servers", self.bootstrap());
        self.security.tell(config);
    }

    /// Tells whether the connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.security.is_encrypted()
    }

    /// Returns the brokers, as people call them.
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
    fn library_is_told_how_to_speak_with_the_cluster() {
        for (url, protocol, login) in [
            ("kafka://x", "plaintext", None),
            (
                "kafka://me:s3%40cret@x?sasl=scram-sha-256",
                "sasl_plaintext",
                Some(("SCRAM-SHA-256", "me", "s3@cret")),
            ),
            ("kafkas://x/shop.", "ssl", None),
            (
                "kafkas://me:a:b@x,y/shop.",
                "sasl_ssl",
                Some(("PLAIN", "me", "a:b")),
            ),
        ] {
            let address = Address::parse(url).unwrap();
            let mut config = ClientConfig::new();
            address.tell(&mut config);
            let told = |name| config.get(name);
            assert_eq!(told("security.protocol"), Some(protocol), "{url}");
            let who = ["sasl.mechanism", "sasl.username", "sasl.password"].map(told);
            let expected = login.map(|(mechanism, user, password)| [mechanism, user, password]);
            assert_eq!(who, expected.map_or([None; 3], |it| it.map(Some)), "{url}");
            let roots = told("ssl.ca.pem").unwrap_or_default();
            assert_eq!(roots.contains("BEGIN CERTIFICATE"), address.is_encrypted());
            assert!(config.create_native_config().is_ok(), "{url}");
        }
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
            ("kafka://me:s3cret@x?sasl=GSSAPI", "SCRAM-SHA-512"),
            ("kafka://me:s3%FFcret@x", "UTF-8"),
            ("kafka://s3cret?sasl=PLAIN", "a user"),
            ("kafka://s3cret?sslrootcert=/x", "kafkas"),
            ("kafkas://s3cret?sslrootcert=/nowhere", "/nowhere"),
            ("kafka://s3cret:port", "HOST:PORT"),
            ("kafka://s3cret:9092,/x", "HOST:PORT"),
            ("kafka://s3cret:9092/a/b", "topic"),
            ("kafka://s3cret:9092/x?acks=1", "acks"),
        ] {
            let why = Address::parse(url).err().unwrap();
            assert!(
                why.contains(word) && !why.contains("s3cret"),
                "{url}: {why}"
            );
        }
    }
}
