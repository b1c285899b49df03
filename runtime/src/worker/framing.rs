//! Where one HTTP/1.1 message ends and the next begins, strictly after RFC 9112.
//!
//! hyper is lenient in places where two parsers in a row may disagree, which is what request smuggling lives on: bare LF,
//! fragments, odd chunk lines. This looks at the bytes before hyper does and refuses them. It does not parse fields: what
//! framing a head asks for is told by the gate, from hyper's own view of it, so there is only one reading of the fields.

/// What is wrong with the bytes of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Violation {
    #[error("a line ends in LF without CR")]
    BareLf,
    #[error("a CR stands alone")]
    BareCr,
    #[error("the request target has a fragment")]
    Fragment,
    #[error("a header field is folded")]
    Folded,
    #[error("the length is given more than once")]
    Length,
    #[error("a chunk is malformed")]
    Chunk,
    #[error("trailers are too long")]
    Trailers,
    #[error("bytes follow a message that was not understood")]
    Unframed,
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyFraming {
    /// By its length, 0 for no body.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Chunk extensions and trailers, at most this many bytes each: nobody has a use for more.
const EXTENSION_MAX: usize = 256;
const TRAILERS_MAX: usize = 8 << 10;

/// The fields that say how long a body is. hyper merges equal ones and drops a length beside chunks, so they are counted
/// here, before it does.
const LENGTH_FIELDS: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// The place in the stream of messages.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    after_cr: bool,
    /// Bytes of the current line, without its end.
    line: usize,
    /// Bytes of the current head's lines, extensions or trailers.
    total: usize,
    /// How much of the current line is the beginning of each of [`LENGTH_FIELDS`].
    matched: [usize; 2],
    /// How many of them the current head has.
    lengths: usize,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Before or in a request line.
    #[default]
    RequestLine,
    Fields,
    /// The head is over and nobody has said yet what follows.
    HeadEnd,
    Length(u64),
    ChunkSize(u64),
    ChunkExtension {
        size: u64,
        quoted: bool,
    },
    ChunkData(u64),
    ChunkEnd,
    Trailers,
}

impl Framing {
    /// Tells what follows the head that just ended.
    pub(super) fn body(&mut self, framing: BodyFraming) {
        if self.state == State::HeadEnd {
            self.enter(match framing {
                BodyFraming::Length(0) => State::RequestLine,
                BodyFraming::Length(len) => State::Length(len),
                BodyFraming::Chunked => State::ChunkSize(0),
            });
        }
    }

    /// Tells whether part of a head has come and its end has not.
    pub(super) fn in_head(&self) -> bool {
        match self.state {
            State::RequestLine => self.total > 0,
            State::Fields => true,
            _ => false,
        }
    }

    /// Tells whether a head is to come, or has come in part.
    pub(super) fn is_before_head_end(&self) -> bool {
        matches!(self.state, State::RequestLine | State::Fields)
    }

    /// Looks at the next bytes and returns how many of them belong to the current message: the rest must wait until the
    /// message has been taken.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::HeadEnd if at == 0 => return Err(Violation::Unframed),
                State::HeadEnd => break,
                State::Length(left) | State::ChunkData(left) => {
                    let len = usize::try_from(left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len() - at);
                    at += len;
                    if self.pass(left - len as u64) {
                        break;
                    }
                }
                _ => {
                    at += self.skip(&bytes[at..]);
                    let Some(byte) = bytes.get(at) else {
                        break;
                    };
                    let ended = self.step(*byte)?;
                    at += 1;
                    if ended {
                        break;
                    }
                }
            }
        }
        Ok(at)
    }

    /// Leaves `left` bytes of a body or a chunk; returns whether the message is over.
    fn pass(&mut self, left: u64) -> bool {
        match (self.state, left) {
            (State::Length(_), 0) => {
                self.enter(State::RequestLine);
                return true;
            }
            (State::Length(_), left) => self.state = State::Length(left),
            (_, 0) => self.enter(State::ChunkEnd),
            (_, left) => self.state = State::ChunkData(left),
        }
        false
    }

    /// Takes the bytes that come first and of which nothing but their number matters: most of a head. Returns how many.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        let only_counts = match self.state {
            _ if self.after_cr => false,
            State::RequestLine => true,
            // What is no longer the beginning of such a name will not be one in this line.
            State::Fields => self.line > 0 && !self.matched.contains(&self.line),
            _ => false,
        };
        if !only_counts {
            return 0;
        }
        let matters = |byte: &u8| matches!(byte, b'\r' | b'\n' | b'#');
        let len = bytes.iter().position(matters).unwrap_or(bytes.len());
        self.line += len;
        self.total += len;
        len
    }

    /// Takes one byte of a line; returns whether it ended a head or a message.
    fn step(&mut self, byte: u8) -> Result<bool, Violation> {
        match (std::mem::take(&mut self.after_cr), byte) {
            (true, b'\n') => return self.end_line(),
            (true, _) => return Err(Violation::BareCr),
            (false, b'\n') => return Err(Violation::BareLf),
            (false, b'\r') => {
                self.after_cr = true;
                self.total += 1;
                return Ok(false);
            }
            (false, _) => {}
        }
        let was = self.state;
        let begins_extension =
            byte == b';' && matches!(was, State::ChunkExtension { quoted: false, .. });
        match was {
            State::RequestLine if byte == b'#' => return Err(Violation::Fragment),
            State::Fields if self.line == 0 && matches!(byte, b' ' | b'\t') => {
                return Err(Violation::Folded);
            }
            State::ChunkSize(size) => self.state = self.chunk_size(size, byte)?,
            State::ChunkExtension { size, quoted } => {
                self.state = State::ChunkExtension {
                    size,
                    quoted: quoted ^ (byte == b'"'),
                };
                let printable = byte.is_ascii_graphic() || (quoted && byte == b' ');
                let empty = begins_extension && self.line == 0;
                if !printable || empty || self.total >= EXTENSION_MAX {
                    return Err(Violation::Chunk);
                }
            }
            State::ChunkEnd => return Err(Violation::Chunk),
            State::Trailers if self.total >= TRAILERS_MAX => return Err(Violation::Trailers),
            _ => {}
        }
        let extended = begins_extension
            || matches!(
                (was, self.state),
                (State::ChunkSize(_), State::ChunkExtension { .. })
            );
        if was == State::Fields {
            self.count_lengths(byte)?;
        }
        // The `;` is no part of the extension: an empty one is told by its length.
        self.line = if extended { 0 } else { self.line + 1 };
        self.total += 1;
        Ok(false)
    }

    /// Takes one byte of a field's line, `self.line` bytes into it.
    fn count_lengths(&mut self, byte: u8) -> Result<(), Violation> {
        if self.line == 0 {
            self.matched = [0; 2];
        }
        for (name, matched) in LENGTH_FIELDS.iter().zip(&mut self.matched) {
            if *matched != self.line {
                continue;
            }
            match name.get(self.line) {
                Some(letter) if byte.eq_ignore_ascii_case(letter) => *matched += 1,
                None if byte == b':' => self.lengths += 1,
                _ => {}
            }
        }
        if self.lengths > 1 {
            Err(Violation::Length)
        } else {
            Ok(())
        }
    }

    fn chunk_size(&self, size: u64, byte: u8) -> Result<State, Violation> {
        match char::from(byte).to_digit(16) {
            Some(digit) if size >> 60 == 0 => Ok(State::ChunkSize((size << 4) | u64::from(digit))),
            None if byte == b';' && self.line > 0 => Ok(State::ChunkExtension {
                size,
                quoted: false,
            }),
            _ => Err(Violation::Chunk),
        }
    }

    /// Takes the end of a line; returns whether it ended a head or a message.
    fn end_line(&mut self) -> Result<bool, Violation> {
        let empty = self.line == 0;
        self.line = 0;
        self.total += 1;
        let next = match self.state {
            // Empty lines before a request are tolerated, as RFC 9112 §2.2 asks.
            State::RequestLine if empty => State::RequestLine,
            State::RequestLine => State::Fields,
            State::Fields if empty => State::HeadEnd,
            // A `;` with nothing behind it, or a quote that is never closed.
            State::ChunkExtension { quoted: true, .. } => return Err(Violation::Chunk),
            State::ChunkSize(_) | State::ChunkExtension { .. } if empty => {
                return Err(Violation::Chunk);
            }
            State::ChunkSize(0) | State::ChunkExtension { size: 0, .. } => State::Trailers,
            State::ChunkSize(size) | State::ChunkExtension { size, .. } => State::ChunkData(size),
            State::ChunkEnd => State::ChunkSize(0),
            State::Trailers if empty => State::RequestLine,
            state => state,
        };
        let ended = matches!(next, State::HeadEnd)
            || matches!((self.state, next), (State::Trailers, State::RequestLine));
        if next != self.state {
            self.enter(next);
        }
        Ok(ended)
    }

    fn enter(&mut self, state: State) {
        let keep_total = matches!((self.state, state), (State::RequestLine, State::Fields));
        self.state = state;
        self.line = 0;
        self.lengths = 0;
        if !keep_total {
            self.total = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(bytes: &[u8]) -> Result<usize, Violation> {
        Framing::default().scan(bytes)
    }

    fn chunked(bytes: &[u8]) -> Result<usize, Violation> {
        let mut framing = Framing::default();
        framing.scan(b"POST / HTTP/1.1\r\n\r\n").unwrap();
        framing.body(BodyFraming::Chunked);
        framing.scan(bytes)
    }

    #[test]
    fn head_ends_at_its_empty_line_and_what_follows_waits() {
        assert_eq!(head_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"), Ok(27));
    }

    #[test]
    fn empty_lines_before_a_request_are_part_of_it() {
        assert_eq!(head_of(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Ok(22));
    }

    #[test]
    fn what_hyper_would_let_pass_is_refused() {
        assert_eq!(
            head_of(b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
            Err(Violation::BareLf)
        );
        assert_eq!(
            head_of(b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"),
            Err(Violation::BareCr)
        );
        assert_eq!(
            head_of(b"GET /#top HTTP/1.1\r\n\r\n"),
            Err(Violation::Fragment)
        );
        assert_eq!(
            head_of(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"),
            Err(Violation::Folded)
        );
    }

    #[test]
    fn second_length_is_refused_whatever_it_says() {
        for fields in [
            "Content-Length: 5\r\ncontent-length: 5\r\n",
            "Content-Length: 5\r\nA: b\r\nTRANSFER-ENCODING: chunked\r\n",
            "transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(head_of(head.as_bytes()), Err(Violation::Length), "{fields}");
        }
        let head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Lengths: 5\r\nX-Content-Length: 5\r\n\r\n";
        assert_eq!(head_of(head), Ok(head.len()));
    }

    #[test]
    fn bytes_that_are_skipped_change_nothing() {
        for head in [
            "GET /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX#Y: z\r\n\r\nhello",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\rX",
            "GET / HTTP/1.1\r\nContent-Length : 5\r\nA: b\n",
            "GET / HTTP/1.1\r\nContent-Length: 5\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
        ] {
            let mut byte_by_byte = Framing::default();
            let mut taken = 0;
            let ended = head.bytes().find_map(|byte| {
                taken += 1;
                byte_by_byte
                    .step(byte)
                    .map(|ended| ended.then_some(taken))
                    .transpose()
            });
            let mut framing = Framing::default();
            assert_eq!(
                framing.scan(head.as_bytes()),
                ended.unwrap_or(Ok(taken)),
                "{head:?}"
            );
            let state = |it: &Framing| (it.state, it.line, it.total, it.lengths);
            assert_eq!(state(&framing), state(&byte_by_byte), "{head:?}");
        }
    }

    #[test]
    fn body_ends_by_its_length_however_it_is_cut() {
        let mut framing = Framing::default();
        framing.scan(b"POST / HTTP/1.1\r\n\r\n").unwrap();
        framing.body(BodyFraming::Length(5));
        assert_eq!(framing.scan(b"he"), Ok(2));
        assert_eq!(framing.scan(b"lloGET /"), Ok(3));
        assert_eq!(framing.scan(b"GET /"), Ok(5));
        assert!(framing.in_head());
    }

    #[test]
    fn chunked_body_ends_after_its_trailers() {
        assert_eq!(chunked(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok(15));
        assert_eq!(chunked(b"5;a=\"b c\"\r\nhello\r\n0\r\n\r\nGET"), Ok(23));
        assert_eq!(chunked(b"a\r\n0123456789\r\n0\r\nX: y\r\n\r\n"), Ok(26));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bytes in [
            &b"5;\r\nhello\r\n0\r\n\r\n"[..],
            b"5 \r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"\r\n",
            b"5\r\nhelloX\r\n",
            b"5\nhello\r\n",
            b"fffffffffffffffff\r\n",
            b"-1\r\n",
            b"5;a b\r\n",
        ] {
            assert!(
                chunked(bytes).is_err(),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
