//! Answers that a fuzzer has a guest give: what a client reads is that answer and nothing else. An answer that could be read
//! as two, or that ends elsewhere than the client thinks, would be taken for the answer to somebody else's request.

use super::lenient_chunks;
use crate::config::Limits;
use crate::engine::fuzz::{Field, Script, act};
use crate::worker::answer::{AnswerBody, Source, Turn, plain};
use crate::worker::connection::{complete, http1};
use crate::worker::wire::Activity;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The largest body that an answer may have: small, so that some are larger.
const BODY_MAX: u64 = 64 << 10;

/// How long an exchange may take: longer than a guest may.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Fields that are read.
const FIELDS_MAX: usize = 4096;

/// The fields that wrun may add.
const OURS: [&str; 5] = [
    "connection",
    "content-length",
    "date",
    "transfer-encoding",
    "x-request-id",
];

/// The second request, and the body of its answer.
const SECOND: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const SECOND_BODY: &[u8] = b"200 OK\n";

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
struct Asked {
    head: bool,
    old: bool,
}

/// What was seen of an exchange.
struct Exchange {
    wire: Vec<u8>,
    /// Whether the guest's answer was let out; wrun's own was sent otherwise.
    given: bool,
}

/// Takes what a guest does, has it answer the first of two requests, and reads what comes of both.
pub(crate) fn answers(bytes: &[u8]) {
    let Some((asked, script)) = Reader(bytes).script() else {
        return;
    };
    let script = Arc::new(script);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("there is a clock");
    let exchange = runtime
        .block_on(async { tokio::time::timeout(TIME_MAX, exchange(asked, script.clone())).await })
        .expect("an exchange ends");
    check(asked, &script, &exchange);
}

/// Sends two requests on one connection and reads to its end.
async fn exchange(asked: Asked, script: Arc<Script>) -> Exchange {
    let (mut client, server) = tokio::io::duplex(16 << 10);
    let activity = Arc::new(Activity::default());
    let (count, given) = (Cell::new(0), Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let first = count.replace(count.get() + 1) == 0;
        let (script, given) = (script.clone(), &given);
        let active = activity.begin();
        async move {
            let answered = match first {
                true => act(script, *request.method() == Method::HEAD, BODY_MAX).await,
                false => Ok(plain(StatusCode::OK)),
            };
            given.set(given.get() || first && answered.is_ok());
            let response = answered.unwrap_or_else(|stopped| plain(stopped.status()));
            let (mut head, inner) = response.into_parts();
            complete(&mut head.headers, "fuzz", false);
            let body = AnswerBody {
                inner: Source::Direct(inner),
                id: Arc::from("fuzz"),
                access: None,
                turn: Turn::default(),
                _active: active,
            };
            Ok::<_, Infallible>(Response::from_parts(head, body))
        }
    });
    let connection = http1(&Limits::default()).serve_connection(TokioIo::new(server), service);
    // A connection that breaks off is what becomes of an answer that does.
    let serve = async { drop(connection.await) };
    let ask = async {
        let method = if asked.head { "HEAD" } else { "GET" };
        let version = if asked.old {
            "1.0\r\nconnection: keep-alive"
        } else {
            "1.1"
        };
        let first = format!("{method} / HTTP/{version}\r\nhost: a\r\n\r\n");
        let mut wire = Vec::new();
        // The server may be gone by the second.
        let _ = client.write_all(first.as_bytes()).await;
        let _ = client.write_all(SECOND).await;
        let _ = client.read_to_end(&mut wire).await;
        wire
    };
    let ((), wire) = tokio::join!(serve, ask);
    let given = given.get();
    Exchange { wire, given }
}

/// The bytes hold one answer, of the guest's fields and ours, and then nothing or the second answer.
fn check(asked: Asked, script: &Script, exchange: &Exchange) {
    let Exchange { wire, given } = exchange;
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut read = httparse::Response::new(&mut fields);
    let behind = match read.parse(wire).expect("it is an answer") {
        httparse::Status::Complete(len) => &wire[len..],
        // Broken off before it was sent.
        httparse::Status::Partial => return,
    };
    let code = read.code.expect("it has a status");
    assert!(code >= 200, "{code} is no final answer");
    check_fields(script, *given, read.headers);
    // Whether the body ends with a mark that only its guest can have it end with.
    let (ended, body, next) = match framing(asked, code, read.headers) {
        End::Close => (false, behind.to_vec(), &[][..]),
        End::Length(len) if len > behind.len() => (false, behind.to_vec(), &[][..]),
        End::Length(len) => (false, behind[..len].to_vec(), &behind[len..]),
        End::Chunks => match chunks(script, behind) {
            (body, Some(len)) => (true, body, &behind[len..]),
            (body, None) => (false, body, &[][..]),
        },
    };
    match given {
        true => check_body(script, ended, &body),
        false => check_ours(asked, code, &body),
    }
    let closes = read
        .headers
        .iter()
        .any(|field| field.name == "connection" && field.value == b"close");
    assert!(!closes || next.is_empty(), "something comes after the last");
    if !next.is_empty() {
        check_second(next);
    }
}

fn check_fields(script: &Script, given: bool, fields: &[httparse::Header<'_>]) {
    let mut theirs: Vec<Field> = script
        .fields
        .iter()
        .filter(|_| given)
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_ascii().to_vec()))
        .collect();
    for field in fields {
        let name = field.name.to_ascii_lowercase();
        let value = field.value.trim_ascii();
        // hyper makes one field of several that name trailers.
        let joined = name == "trailer";
        let same = |its: &Field| its.0 == name && (its.1 == value || joined);
        match theirs.iter().position(same) {
            Some(at) => drop(theirs.swap_remove(at)),
            None => assert!(
                OURS.contains(&name.as_str())
                    || !given && ["content-type", "retry-after"].contains(&name.as_str()),
                "{name} is nobody's"
            ),
        }
    }
    let count = |name: &str| {
        fields
            .iter()
            .filter(|it| it.name.eq_ignore_ascii_case(name))
            .count()
    };
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    assert!(
        lengths + codings <= 1,
        "{lengths} lengths, {codings} codings"
    );
    assert!(count("connection") <= 1 && count("upgrade") == 0);
}

/// Where a body ends, as its client sees it (RFC 9112 §6.3).
enum End {
    Length(usize),
    Chunks,
    Close,
}

fn framing(asked: Asked, code: u16, fields: &[httparse::Header<'_>]) -> End {
    let field = |name: &str| fields.iter().find(|it| it.name.eq_ignore_ascii_case(name));
    if asked.head || matches!(code, 204 | 304) {
        return End::Length(0);
    }
    if let Some(coding) = field("transfer-encoding") {
        assert!(coding.value.eq_ignore_ascii_case(b"chunked") && !asked.old);
        return End::Chunks;
    }
    match field("content-length") {
        Some(length) => {
            let text = std::str::from_utf8(length.value).expect("a length is text");
            End::Length(text.parse().expect("a length is a number"))
        }
        None => End::Close,
    }
}

/// Returns what chunks hold, and their length if they end.
fn chunks(script: &Script, bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let end = match lenient_chunks(bytes).expect("chunks are chunks") {
        httparse::Status::Complete(end) => Some(end),
        httparse::Status::Partial => None,
    };
    let (mut body, mut at) = (Vec::new(), 0);
    while let Ok(httparse::Status::Complete((line, size))) =
        httparse::parse_chunk_size(&bytes[at..])
    {
        at += line;
        let size = usize::try_from(size).expect("a chunk fits into memory");
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[at..bytes.len().min(at + size)]);
        at = bytes.len().min(at + size + 2);
    }
    if let Some(end) = end {
        let mut trailers = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let read = httparse::parse_headers(&bytes[at..end], &mut trailers);
        let trailers = read.expect("trailers are fields").unwrap().1;
        for trailer in trailers {
            let same = |(name, _): &Field| name.eq_ignore_ascii_case(trailer.name);
            assert!(
                script.trailers.iter().any(same),
                "{} is nobody's",
                trailer.name
            );
        }
    }
    (body, end)
}

/// An answer of wrun's own says its status.
fn check_ours(asked: Asked, code: u16, body: &[u8]) {
    let status = StatusCode::from_u16(code).expect("it is ours");
    let text = format!("{code} {}\n", status.canonical_reason().unwrap_or(""));
    assert!(asked.head || body == text.as_bytes(), "no answer of ours");
}

/// A body is what the guest wrote, and all of it if the guest ended it.
fn check_body(script: &Script, ended: bool, body: &[u8]) {
    let wrote = script.body.iter().flatten().flatten().copied();
    let wrote: Vec<u8> = wrote.collect();
    assert!(wrote.starts_with(body), "the guest did not write that");
    if ended && script.body.is_some() {
        assert!(script.ends, "a body ends that the guest did not end");
        assert_eq!(body.len(), wrote.len(), "a body ends before its end");
    }
}

fn check_second(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut second = httparse::Response::new(&mut fields);
    let head = match second.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        other => panic!("the second answer is none: {other:?}"),
    };
    assert_eq!((second.code, &bytes[head..]), (Some(200), SECOND_BODY));
}

/// Names of fields that mean something to those who read answers.
const NAMES: [&str; 16] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "trailer",
    "date",
    "x-request-id",
    "upgrade",
    "keep-alive",
    "te",
    "host",
    "server",
    "set-cookie",
    "content-type",
    "retry-after",
    "proxy-connection",
    "http2-settings",
];

/// Reads a script out of a fuzzer's bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Reads a length and as many bytes as there are of it.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::from(self.byte()?).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn field(&mut self) -> Option<Field> {
        let name = String::from_utf8(self.bytes()?).ok()?;
        Some((name, self.bytes()?))
    }

    fn script(mut self) -> Option<(Asked, Script)> {
        let flags = self.byte()?;
        let asked = Asked {
            head: flags & 1 != 0,
            old: flags & 2 != 0,
        };
        let mut script = Script {
            status: u16::from_be_bytes([self.byte()?, self.byte()?]),
            body: (flags & 4 != 0).then(Vec::new),
            ends: flags & 8 != 0,
            traps: flags & 16 != 0,
            ..Script::default()
        };
        while let Some(what) = self.byte() {
            match what % 6 {
                0 => script.fields.push(self.field()?),
                1 => {
                    let name = NAMES[usize::from(self.byte()?) % NAMES.len()];
                    script.fields.push((name.to_owned(), self.bytes()?));
                }
                2 => {
                    let length = self.byte()?.to_string();
                    script
                        .fields
                        .push(("content-length".to_owned(), length.into_bytes()));
                }
                3 => script
                    .body
                    .iter_mut()
                    .for_each(|body| body.push(Vec::new())),
                4 => script.trailers.push(self.field()?),
                _ => {
                    // A short piece, or one that is long and all the same.
                    let piece = match self.byte()? {
                        255 => vec![b'x'; usize::from(self.byte()?) << 10],
                        len => {
                            let len = usize::from(len).min(self.0.len());
                            let (piece, rest) = self.0.split_at(len);
                            self.0 = rest;
                            piece.to_vec()
                        }
                    };
                    script
                        .body
                        .iter_mut()
                        .for_each(|body| body.push(piece.clone()));
                }
            }
        }
        Some((asked, script))
    }
}
