//! The request gate: what must hold before a guest sees a request, and what it sees.
//!
//! Pure: a head in, a head or a refusal out. What hyper checks already (tokens, field syntax, lengths that are numbers) is
//! not checked again; what concerns raw bytes is `framing`'s.

use super::framing::BodyFraming;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode, Version};
use std::net::Ipv6Addr;

/// The longest request target in bytes.
const TARGET_MAX: usize = 8 << 10;

/// The longest request id that is taken over from a client, in characters.
const REQUEST_ID_MAX: usize = 128;

/// Fields that concern one connection only, besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The field that carries a request's id.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a request does not reach a guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const fn bad(why: &'static str) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        why,
    }
}

/// Returns how the body of a request is delimited, or refuses a head whose readers could disagree on it.
pub(super) fn framing(version: Version, headers: &HeaderMap) -> Result<BodyFraming, Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(BodyFraming::Length(0)),
        (Some(_), Some(_)) => Err(bad("both transfer-encoding and content-length")),
        (Some(coding), None) => {
            if version != Version::HTTP_11 {
                return Err(bad("transfer-encoding outside HTTP/1.1"));
            }
            if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(bad("a transfer-encoding other than chunked"));
            }
            Ok(BodyFraming::Chunked)
        }
        (None, Some(length)) => {
            let digits = length
                .to_str()
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match (
                digits.and_then(|digits| digits.parse().ok()),
                lengths.next(),
            ) {
                (Some(length), None) => Ok(BodyFraming::Length(length)),
                _ => Err(bad("an unclear content-length")),
            }
        }
    }
}

/// Checks a head and makes it what the guest sees: one authority, no field that was meant for this connection only.
/// `local` is the authority of requests that have none, which HTTP/1.0 allows.
pub(super) fn admit(head: &mut Parts, local: &Authority, fields_max: usize) -> Result<(), Refusal> {
    // In HTTP/1.1 hyper has counted them already.
    if head.headers.len() > fields_max {
        return Err(Refusal {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            why: "too many header fields",
        });
    }
    match head.method {
        Method::CONNECT => {
            return Err(Refusal {
                status: StatusCode::NOT_IMPLEMENTED,
                why: "CONNECT is not supported",
            });
        }
        Method::TRACE => {
            return Err(Refusal {
                status: StatusCode::METHOD_NOT_ALLOWED,
                why: "TRACE is not allowed",
            });
        }
        _ => {}
    }
    let path = target(head)?;
    let authority = authority(head, local)?;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query = Some(path);
    head.uri = Uri::from_parts(uri).map_err(|_| bad("an invalid request target"))?;
    drop_hop_by_hop(&mut head.headers);
    Ok(())
}

fn target(head: &Parts) -> Result<PathAndQuery, Refusal> {
    let path = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    if path.as_str().len() > TARGET_MAX {
        return Err(Refusal {
            status: StatusCode::URI_TOO_LONG,
            why: "the request target is too long",
        });
    }
    if path.as_str() == "*" && head.method != Method::OPTIONS {
        return Err(bad("the target * with a method other than OPTIONS"));
    }
    if !path.as_str().is_ascii() {
        return Err(bad("a request target beyond ASCII"));
    }
    let path = rooted(path)?;
    match head.uri.scheme() {
        Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
            Err(bad("an unknown scheme"))
        }
        None if head.version < Version::HTTP_2 && head.uri.authority().is_some() => {
            Err(bad("an invalid request target"))
        }
        _ => Ok(path),
    }
}

/// Gives an absolute target that ends with its authority and a query the path that it means (RFC 9112 §3.2.1).
fn rooted(path: PathAndQuery) -> Result<PathAndQuery, Refusal> {
    match path.as_str().strip_prefix('?') {
        None => Ok(path),
        Some(query) => format!("/?{query}")
            .parse()
            .map_err(|_| bad("an invalid request target")),
    }
}

/// Returns the one authority of a request: of an absolute target, else of `Host`.
fn authority(head: &Parts, local: &Authority) -> Result<Authority, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(parse_host).transpose()?;
    if hosts.next().is_some() {
        return Err(bad("more than one host"));
    }
    let target = head.uri.authority().map(check_authority).transpose()?;
    match (head.version, target, host) {
        (Version::HTTP_2, Some(target), Some(host)) if target != host => {
            Err(bad(":authority and host differ"))
        }
        (Version::HTTP_11, _, None) => Err(bad("no host")),
        (_, Some(target), _) => Ok(target),
        (_, None, Some(host)) => Ok(host),
        (Version::HTTP_10, None, None) => Ok(local.clone()),
        (_, None, None) => Err(bad("no authority")),
    }
}

fn parse_host(value: &HeaderValue) -> Result<Authority, Refusal> {
    let authority = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Authority>().ok());
    check_authority(&authority.ok_or(bad("an invalid host"))?)
}

/// Refuses what `http` takes for an authority and RFC 9110 §7.2 does not take for a host.
fn check_authority(authority: &Authority) -> Result<Authority, Refusal> {
    let host = authority.host();
    let plain = !host.is_empty()
        && !authority
            .as_str()
            .contains(['@', ',', '/', '\\', '?', '#', ' ', '%']);
    let is_address = match host.strip_prefix('[') {
        None => true,
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
    };
    let port = &authority.as_str()[host.len()..];
    // A number is also what begins with a sign, elsewhere.
    let port_is_number =
        port.is_empty() || (authority.port_u16().is_some() && !port.contains(['+', '-']));
    (plain && is_address && port_is_number)
        .then(|| authority.clone())
        .ok_or(bad("an invalid host"))
}

/// Removes what concerns this connection only (RFC 9110 §7.6.1).
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        // A client must not be able to hide what the gate has just checked.
        .filter(|name| !name.is_empty() && name != "host" && name != "content-length")
        .collect();
    for name in &named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Returns the request's id if the client gave a usable one.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&REQUEST_ID)?.to_str().ok()?;
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(&byte);
    ((1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(usable)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn admitted(request: http::request::Builder) -> Result<Parts, Refusal> {
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        framing(head.version, &head.headers)?;
        admit(&mut head, &Authority::from_static("127.0.0.1:80"), 100)?;
        Ok(head)
    }

    fn get(uri: &str) -> http::request::Builder {
        Request::get(uri)
    }

    #[test]
    fn absolute_target_wins_over_host() {
        let head = admitted(get("http://a.example/x?y").header("host", "b.example")).unwrap();
        assert_eq!(head.uri, "http://a.example/x?y");
    }

    #[test]
    fn host_becomes_the_authority() {
        assert_eq!(
            admitted(get("/x").header("host", "a.example:8080"))
                .unwrap()
                .uri,
            "http://a.example:8080/x"
        );
    }

    #[test]
    fn hosts_that_readers_could_disagree_on_are_refused() {
        for host in [
            "", "a,b", "user@a", "a/b", "a b", "a:b", "a:80:80", "a?b", "[::1", "a%41",
        ] {
            let refused = admitted(get("/").header("host", host)).unwrap_err();
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{host:?}");
        }
        assert!(admitted(get("/")).is_err());
        assert!(admitted(get("/").header("host", "a").header("host", "a")).is_err());
    }

    #[test]
    fn http_1_0_may_come_without_a_host() {
        assert_eq!(
            admitted(get("/").version(Version::HTTP_10)).unwrap().uri,
            "http://127.0.0.1:80/"
        );
    }

    #[test]
    fn lengths_that_readers_could_disagree_on_are_refused() {
        let host = || Request::post("/").header("host", "a");
        assert!(
            admitted(
                host()
                    .header("content-length", "5")
                    .header("transfer-encoding", "chunked")
            )
            .is_err()
        );
        assert!(admitted(host().header("transfer-encoding", "gzip, chunked")).is_err());
        assert!(
            admitted(
                host()
                    .header("transfer-encoding", "chunked")
                    .version(Version::HTTP_10)
            )
            .is_err()
        );
        assert!(
            admitted(
                host()
                    .header("content-length", "5")
                    .header("content-length", "5")
            )
            .is_err()
        );
        assert!(admitted(host().header("content-length", "+5")).is_err());
        assert!(admitted(host().header("content-length", "5, 5")).is_err());
    }

    #[test]
    fn connection_fields_are_dropped_with_all_that_they_name() {
        let request = get("/")
            .header("host", "a")
            .header("connection", "x-secret, Host")
            .header("x-secret", "1");
        let head = admitted(request.header("te", "trailers").header("x-kept", "2")).unwrap();
        let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "x-kept"]);
    }

    #[test]
    fn methods_that_are_for_proxies_are_refused() {
        assert_eq!(
            admitted(Request::builder().method("TRACE").uri("/"))
                .unwrap_err()
                .status,
            405
        );
        assert_eq!(
            admitted(Request::builder().method("CONNECT").uri("a:1"))
                .unwrap_err()
                .status,
            501
        );
        assert!(admitted(get("*").header("host", "a")).is_err());
        assert!(admitted(Request::options("*").header("host", "a")).is_ok());
    }

    #[test]
    fn only_plain_request_ids_are_taken_over() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, value.parse().unwrap());
            request_id(&headers).is_some()
        };
        assert!(id("abc-123"));
        assert!(!id("a b"));
        assert!(!id(&"a".repeat(129)));
    }
}
