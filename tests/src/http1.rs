//! A client of HTTP/1.1 that sends exactly the bytes it is given and tells a clean end from a broken one.

use crate::response::Response;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, ErrorKind, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long to wait for the server's next byte.
const PATIENCE: Duration = Duration::from_secs(60);

/// More fields than any answer has.
const FIELDS_MAX: usize = 1100;

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes that were received and not used yet.
    unread: Vec<u8>,
    /// Whether the answers that come have no body, because HEAD asked for them.
    head_only: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Panics
    ///
    /// If the connection is refused.
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr, PATIENCE)
            .unwrap_or_else(|error| panic!("failed to connect to {addr}: {error}"))
    }

    /// Connects; every later wait ends after `patience`.
    pub fn try_open(addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            head_only: false,
        })
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    ///
    /// If the connection is broken.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the connection takes bytes");
    }

    /// Sends bytes as they are, unless the connection is broken.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says whether the answers that come have no body, because HEAD asked for them.
    pub fn expects_no_body(&mut self, head_only: bool) {
        self.head_only = head_only;
    }

    /// Sends the head of a request with `host` and the given fields.
    #[track_caller]
    pub fn send_head(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        self.head_only = method == "HEAD";
        self.send(format_head(method, target, headers));
    }

    /// Sends a request and returns the answer.
    ///
    /// # Panics
    ///
    /// If the connection breaks before the end of the answer.
    #[track_caller]
    pub fn exchange(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        if !body.is_empty() {
            all.push(("content-length", &length));
        }
        self.send_head(method, target, &all);
        // The server may answer and stop reading before it has the whole body; then the answer counts.
        let _ = self.try_send(body);
        self.response()
    }

    /// Sends a GET and returns the answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.exchange("GET", target, &[], &[])
    }

    /// Reads one answer.
    ///
    /// # Panics
    ///
    /// If the connection breaks before its end.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response().expect("a whole answer")
    }

    /// Reads one answer. A body that ends too early is `UnexpectedEof`, or whatever broke the connection.
    pub fn try_response(&mut self) -> io::Result<Response> {
        let head = self.head()?;
        let mut bytes = Vec::new();
        let mut body = self.body(&head)?;
        body.read_to_end(&mut bytes)?;
        let trailers = std::mem::take(&mut body.trailers);
        Ok(Response {
            body: bytes,
            trailers,
            ..head
        })
    }

    /// Reads the head of an answer and leaves the body.
    pub fn head(&mut self) -> io::Result<Response> {
        loop {
            if let Some((len, head)) = parse_head(&self.unread)? {
                self.unread.drain(..len);
                return Ok(head);
            }
            self.fill()?;
        }
    }

    /// Returns the body that follows `head`, to be read piece by piece.
    pub fn body(&mut self, head: &Response) -> io::Result<Body<'_>> {
        let framing = if self.head_only || head.status < 200 || matches!(head.status, 204 | 304) {
            Framing::Length(0)
        } else if head.header("transfer-encoding") == Some("chunked") {
            Framing::Chunk {
                left: 0,
                first: true,
            }
        } else if let Some(length) = head.header("content-length") {
            Framing::Length(length.parse().map_err(invalid)?)
        } else {
            Framing::UntilClosed
        };
        Ok(Body {
            connection: self,
            framing,
            trailers: Vec::new(),
        })
    }

    /// Reads whatever still comes until the server closes the connection cleanly.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.unread);
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Tells whether the connection has ended, without waiting; what was received in the meantime is kept.
    ///
    /// # Panics
    ///
    /// If the socket cannot be switched between waiting and not waiting.
    pub fn has_ended(&mut self) -> bool {
        self.stream
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let ended = loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        self.stream
            .set_nonblocking(false)
            .expect("a socket can be made blocking");
        ended
    }

    /// Tells whether there is something to read, without waiting.
    ///
    /// # Panics
    ///
    /// If the kernel cannot say.
    pub fn has_bytes(&self) -> bool {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::ZERO).expect("a socket can be looked at");
        ready > 0 || !self.unread.is_empty()
    }

    /// Returns the same connection again, for a thread that sends while this one receives.
    ///
    /// # Panics
    ///
    /// If there are no descriptors left.
    pub fn second_handle(&self) -> Self {
        let stream = self
            .stream
            .try_clone()
            .expect("a descriptor for a second handle");
        Self {
            stream,
            unread: Vec::new(),
            head_only: false,
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Receives at least one more byte.
    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            len => {
                self.unread.extend_from_slice(&piece[..len]);
                Ok(())
            }
        }
    }

    /// Takes the next line, without its end.
    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(invalid);
            }
            self.fill()?;
        }
    }
}

/// Sends one request on a connection of its own and returns the answer, unless the connection breaks or `patience` ends.
pub(crate) fn try_exchange(
    addr: SocketAddr,
    patience: Duration,
    (method, target): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Response> {
    let length = body.len().to_string();
    let mut all = headers.to_vec();
    all.push(("content-length", &length));
    let mut connection = Connection::try_open(addr, patience)?;
    connection.try_send(format_head(method, target, &all) + body)?;
    connection.try_response()
}

fn format_head(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let fields: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("{method} {target} HTTP/1.1\r\nhost: test.example\r\n{fields}\r\n")
}

/// The body of an answer, read from its connection. An end before the framing says so is an error.
#[derive(Debug)]
pub struct Body<'a> {
    connection: &'a mut Connection,
    framing: Framing,
    /// The fields after the body, known at its end.
    pub trailers: Vec<(String, String)>,
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunk { left: u64, first: bool },
    UntilClosed,
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.framing {
            Framing::Length(0) => Ok(0),
            Framing::Length(left) => {
                let len = self.read_some(into, left)?;
                self.framing = Framing::Length(left - len as u64);
                Ok(len)
            }
            Framing::Chunk { left: 0, first } => {
                let left = self.next_chunk(first)?;
                if left == 0 {
                    self.framing = Framing::Length(0);
                    return Ok(0);
                }
                self.framing = Framing::Chunk { left, first: false };
                self.read(into)
            }
            Framing::Chunk { left, first } => {
                let len = self.read_some(into, left)?;
                self.framing = Framing::Chunk {
                    left: left - len as u64,
                    first,
                };
                Ok(len)
            }
            Framing::UntilClosed => match self.read_some(into, u64::MAX) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                result => result,
            },
        }
    }
}

impl Body<'_> {
    /// Reads between 1 and `max` bytes.
    fn read_some(&mut self, into: &mut [u8], max: u64) -> io::Result<usize> {
        if self.connection.unread.is_empty() {
            self.connection.fill()?;
        }
        let unread = &mut self.connection.unread;
        let len = into
            .len()
            .min(unread.len())
            .min(usize::try_from(max).unwrap_or(usize::MAX));
        into[..len].copy_from_slice(&unread[..len]);
        unread.drain(..len);
        Ok(len)
    }

    /// Reads the line before a chunk and returns the chunk's length; after the last one, reads the trailers.
    fn next_chunk(&mut self, first: bool) -> io::Result<u64> {
        if !first && !self.connection.line()?.is_empty() {
            return Err(invalid("a chunk is longer than it said"));
        }
        let line = self.connection.line()?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(invalid)?;
        if size == 0 {
            loop {
                let line = self.connection.line()?;
                let Some((name, value)) = line.split_once(':') else {
                    break;
                };
                self.trailers
                    .push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        Ok(size)
    }
}

/// Parses the head at the start of `bytes`: its length and itself, or nothing if it is not complete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Response)>> {
    let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(len) = head.parse(bytes).map_err(invalid)? else {
        return Ok(None);
    };
    let headers = head.headers.iter().map(|field| {
        (
            field.name.to_ascii_lowercase(),
            String::from_utf8_lossy(field.value).into_owned(),
        )
    });
    let status = head.code.expect("a complete head has a status");
    Ok(Some((
        len,
        Response {
            status,
            headers: headers.collect(),
            ..Response::default()
        },
    )))
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error.to_string())
}
