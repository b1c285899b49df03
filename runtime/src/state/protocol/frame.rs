//! Frames as bytes: what waits to be written, and what was read and is not a whole message yet.
//!
//! Does no I/O of its own, so that the blocking and the non-blocking ends of a connection share it.

use super::{FRAME_MAX, FromState, Reply};
use crate::state::db::DbError;
use crate::state::queue::QueueError;
use serde::{Serialize, de::DeserializeOwned};
use std::io;

/// The bytes of a frame's length.
const HEAD: usize = 4;

/// How much is read at a time.
const READ: usize = 64 << 10;

/// A buffer that a large frame made larger than this is given back once it is empty.
const KEPT: usize = 1 << 20;

/// A message does not fit into a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("over {FRAME_MAX} bytes")]
pub struct Oversized;

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them were written.
    written: usize,
}

impl Outgoing {
    /// Adds a message, unless it is too large.
    pub fn push<T: Serialize>(&mut self, message: &T) -> Result<(), Oversized> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEAD]);
        let body = Body {
            bytes: &mut self.bytes,
            end: start + HEAD + FRAME_MAX,
        };
        let encoded = postcard::to_io(message, body).is_ok();
        match u32::try_from(self.bytes.len() - start - HEAD) {
            Ok(len) if encoded => {
                self.bytes[start..start + HEAD].copy_from_slice(&len.to_le_bytes());
                Ok(())
            }
            _ => {
                self.bytes.truncate(start);
                Err(Oversized)
            }
        }
    }

    /// Adds an answer, if one is wanted.
    pub fn answer(&mut self, id: u64, reply: Reply) {
        if id == 0 {
            return;
        }
        let instead = match &reply {
            Reply::Messages(_) => Reply::Queue(QueueError::TooLarge("the messages".to_owned())),
            _ => Reply::Db(DbError::TooLarge("the result".to_owned())),
        };
        if self.push(&FromState::Reply { id, reply }).is_err() {
            // It is short.
            let _ = self.push(&FromState::Reply { id, reply: instead });
        }
    }

    /// Writes as much as `write` takes: until all is written, or until it would block.
    pub fn write(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while !self.is_empty() {
            match write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(())
    }

    /// Returns how many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Tells whether all is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.written = 0;
    }

    /// Keeps a reader that is always a little behind from making the buffer grow for ever.
    fn compact(&mut self) {
        if self.written > self.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

/// The body of a frame as it is encoded: it ends where it would be too large, not where memory does.
struct Body<'a> {
    bytes: &'a mut Vec<u8>,
    end: usize,
}

impl io::Write for Body<'_> {
    fn write(&mut self, some: &[u8]) -> io::Result<usize> {
        if some.len() > self.end - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(some);
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that were read.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
}

impl Incoming {
    /// Returns the buffer to append to, with room for more.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEPT);
        }
        self.bytes.reserve(READ);
        &mut self.bytes
    }

    /// Takes the next message: `None` if it has not arrived in whole, an error if it is none.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((head, rest)) = self.bytes[self.taken..].split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*head) as usize;
        if len > FRAME_MAX {
            return Err(garbage("a frame is too large"));
        }
        let Some(frame) = rest.get(..len) else {
            return Ok(None);
        };
        let (message, left) =
            postcard::take_from_bytes(frame).map_err(|_| garbage("a frame is no message"))?;
        if !left.is_empty() {
            return Err(garbage("a frame holds more than a message"));
        }
        self.taken += HEAD + len;
        Ok(Some(message))
    }

    /// Returns how many bytes have arrived that are not taken.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Tells whether every byte that has arrived is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn garbage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::super::{Call, Request};
    use super::*;

    fn written(messages: &[Request]) -> Vec<u8> {
        let mut out = Outgoing::default();
        for message in messages {
            out.push(message).unwrap();
        }
        let mut bytes = Vec::new();
        out.write(|some| {
            bytes.extend_from_slice(some);
            Ok(some.len())
        })
        .unwrap();
        bytes
    }

    fn beat(id: u64) -> Request {
        Request {
            id,
            call: Call::Heartbeat,
        }
    }

    #[test]
    fn messages_arrive_in_order_however_they_are_cut() {
        let bytes = written(&[beat(1), beat(2), beat(3)]);
        let mut incoming = Incoming::default();
        let mut ids = Vec::new();
        for byte in bytes {
            incoming.room().extend_from_slice(&[byte]);
            while let Some(request) = incoming.take::<Request>().unwrap() {
                ids.push(request.id);
            }
        }
        assert_eq!(ids, [1, 2, 3]);
        assert!(incoming.is_empty());
    }

    #[test]
    fn length_over_the_limit_is_an_error_before_its_bytes_come() {
        let mut incoming = Incoming::default();
        incoming.room().extend_from_slice(&u32::MAX.to_le_bytes());
        let error = incoming.take::<Request>().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn garbage_and_trailing_bytes_are_errors() {
        let mut bytes = written(&[beat(1)]);
        bytes[0] += 1;
        bytes.push(0);
        for frame in [bytes, vec![2, 0, 0, 0, 0xff, 0xff]] {
            let mut incoming = Incoming::default();
            incoming.room().extend_from_slice(&frame);
            assert!(incoming.take::<Request>().is_err());
        }
    }

    #[test]
    fn oversized_message_leaves_the_others_as_they_were() {
        let mut out = Outgoing::default();
        out.push(&beat(1)).unwrap();
        let before = out.len();
        assert_eq!(out.push(&vec![0_u8; FRAME_MAX + 1]), Err(Oversized));
        assert_eq!(out.len(), before);
    }

    #[test]
    fn writer_that_takes_little_gets_every_byte_once() {
        let mut out = Outgoing::default();
        let mut got = Vec::new();
        for id in 0..100 {
            out.push(&beat(id)).unwrap();
            let mut turns = 0;
            out.write(|some| {
                turns += 1;
                if turns > 2 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                got.extend_from_slice(&some[..1]);
                Ok(1)
            })
            .unwrap();
        }
        out.write(|some| {
            got.extend_from_slice(some);
            Ok(some.len())
        })
        .unwrap();
        let all: Vec<_> = (0..100).map(beat).collect();
        assert_eq!(got, written(&all));
    }
}
