//! Requests that a fuzzer chooses: where wrun lets one in, a lenient reader must see the same one, of the same length.
//! Otherwise something behind wrun, or in front of it, could be made to see another (request smuggling).

mod answers;

pub(crate) use answers::answers;

use super::framing::{BodyFraming, Framing};
use super::gate;
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Version};

/// Fields that are read; more are refused.
const FIELDS_MAX: usize = 100;

/// More trailers than wrun lets in.
const TRAILERS_MAX: usize = 4096;

/// Takes the requests of a connection for as long as they are let in.
pub(crate) fn requests(bytes: &[u8]) {
    let mut framing = Framing::default();
    let mut rest = bytes;
    while let Some(len) = request(&mut framing, rest) {
        rest = &rest[len..];
    }
}

/// Takes one request; returns how long it is, if it is whole and was let in.
fn request(framing: &mut Framing, bytes: &[u8]) -> Option<usize> {
    let head = framing.scan(bytes).ok()?;
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut lenient = httparse::Request::new(&mut fields);
    let parsed = lenient.parse(&bytes[..head]).ok()?;
    if head == 0 || framing.in_head() {
        assert!(parsed.is_partial(), "a head ends before its end");
        return None;
    }
    assert_eq!(
        parsed,
        httparse::Status::Complete(head),
        "the end of a head"
    );
    let mut parts = parts(&lenient)?;
    let body = gate::framing(parts.version, &parts.headers).ok()?;
    let local = Authority::from_static("127.0.0.1:8080");
    gate::admit(&mut parts, &local, FIELDS_MAX).ok()?;
    assert!(parts.uri.authority().is_some() && parts.uri.scheme().is_some());
    assert!(!parts.headers.contains_key(http::header::TRANSFER_ENCODING));
    assert!(!parts.headers.contains_key(http::header::CONNECTION));
    framing.body(body);
    let behind = &bytes[head..];
    let len = match body {
        BodyFraming::Length(0) => 0,
        _ => framing.scan(behind).ok()?,
    };
    // What hyper refuses reaches nobody.
    match lenient_body(&lenient, behind).ok()? {
        httparse::Status::Complete(end) => assert_eq!(len, end, "the end of a body"),
        httparse::Status::Partial => {
            assert_eq!(len, behind.len(), "a body ends before its end");
            return None;
        }
    }
    Some(head + len)
}

/// Returns a head as hyper would hand it over.
fn parts(lenient: &httparse::Request<'_, '_>) -> Option<Parts> {
    let mut request = Request::builder()
        .method(Method::from_bytes(lenient.method?.as_bytes()).ok()?)
        .uri(lenient.path?)
        .version(match lenient.version? {
            0 => Version::HTTP_10,
            _ => Version::HTTP_11,
        });
    for field in &*lenient.headers {
        request = request.header(field.name, field.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// Where something ends, if it has come in whole, for a reader that refuses less than wrun does.
type Lenient = Result<httparse::Status<usize>, ()>;

/// Finds the end of a body: by chunks if any field speaks of a coding, and else by the last length.
fn lenient_body(head: &httparse::Request<'_, '_>, bytes: &[u8]) -> Lenient {
    let last = |name: &str| {
        let mut fields = head.headers.iter().rev();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| field.value)
    };
    if last("transfer-encoding").is_some() {
        return lenient_chunks(bytes);
    }
    let len = match last("content-length") {
        Some(value) => std::str::from_utf8(value)
            .map_err(drop)?
            .trim()
            .parse()
            .map_err(drop)?,
        None => 0,
    };
    Ok(whole(len, bytes))
}

fn lenient_chunks(bytes: &[u8]) -> Lenient {
    let mut at = 0;
    loop {
        let (line, size) = match httparse::parse_chunk_size(&bytes[at..]).map_err(drop)? {
            httparse::Status::Complete(chunk) => chunk,
            httparse::Status::Partial => return Ok(httparse::Status::Partial),
        };
        at += line;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).map_err(drop)?;
        at = at
            .checked_add(size)
            .and_then(|end| end.checked_add(2))
            .ok_or(())?;
        if whole(at, bytes).is_partial() {
            return Ok(httparse::Status::Partial);
        }
    }
    let mut trailers = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let trailers = httparse::parse_headers(&bytes[at..], &mut trailers).map_err(drop)?;
    Ok(match trailers {
        httparse::Status::Complete((len, _)) => httparse::Status::Complete(at + len),
        httparse::Status::Partial => httparse::Status::Partial,
    })
}

fn whole(end: usize, bytes: &[u8]) -> httparse::Status<usize> {
    if end <= bytes.len() {
        httparse::Status::Complete(end)
    } else {
        httparse::Status::Partial
    }
}
