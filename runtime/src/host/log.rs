//! A guest's stdout and stderr: lines of the log, with the request's id, escaped and bounded.

use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// The longest line in bytes; a longer one is broken.
const LINE_MAX: usize = 1024;

/// What one request may write to the log.
pub(crate) struct GuestLog {
    request_id: Arc<str>,
    budget: Arc<Mutex<Budget>>,
}

impl GuestLog {
    /// Returns a log that takes up to `max` bytes of request `request_id`.
    pub(crate) fn new(request_id: Arc<str>, max: u64) -> Self {
        Self {
            request_id,
            budget: Arc::new(Mutex::new(Budget {
                left: max,
                told: false,
            })),
        }
    }

    pub(crate) fn stdout(&self) -> GuestStream {
        self.stream("stdout")
    }

    pub(crate) fn stderr(&self) -> GuestStream {
        self.stream("stderr")
    }

    fn stream(&self, name: &'static str) -> GuestStream {
        let lines = Lines {
            name,
            request_id: self.request_id.clone(),
            budget: self.budget.clone(),
            partial: Vec::new(),
        };
        GuestStream(Arc::new(Mutex::new(lines)))
    }
}

/// Bytes left, shared by both streams of a request.
struct Budget {
    left: u64,
    told: bool,
}

/// One stream of a guest, cut into lines.
struct Lines {
    name: &'static str,
    request_id: Arc<str>,
    budget: Arc<Mutex<Budget>>,
    partial: Vec<u8>,
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        let bytes = self.take(bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(LINE_MAX) {
                self.partial.extend_from_slice(piece);
                if self.partial.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                    self.flush();
                }
            }
        }
    }

    /// Returns as much of `bytes` as the request may still write; says once that there was more.
    fn take<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let len = usize::try_from(budget.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        budget.left -= len as u64;
        let (kept, dropped) = bytes.split_at(len);
        if !dropped.is_empty() && !budget.told {
            budget.told = true;
            tracing::warn!(
                request_id = &*self.request_id,
                "guest passed its limit on log output; the rest is dropped"
            );
        }
        kept
    }

    fn flush(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            tracing::info!(target: "guest", request_id = &*self.request_id, stream = self.name, "{}", escape(line));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Makes a guest's line safe to show: no control characters, so that it can neither steer a terminal nor fake a line.
fn escape(line: &[u8]) -> String {
    let mut shown = String::with_capacity(line.len());
    for char in String::from_utf8_lossy(line).chars() {
        if char.is_control() && char != '\t' {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

/// A guest's stdout or stderr; every handle that the guest opens on it writes to the same lines.
#[derive(Clone)]
pub(crate) struct GuestStream(Arc<Mutex<Lines>>);

impl GuestStream {
    fn write(&self, bytes: &[u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes);
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Self::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        // Never full: what is over the budget is dropped.
        Ok(64 << 10)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::write(&self, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_invalid_utf8_is_replaced() {
        assert_eq!(
            escape(b"\x1b[2Jhi\0\tthere\xff"),
            "\\u{1b}[2Jhi\\u{0}\tthere\u{fffd}"
        );
    }

    #[test]
    fn output_over_the_budget_is_dropped() {
        let log = GuestLog::new(Arc::from("1"), 10);
        let lines = log.stdout();
        let lines = lines.0.lock().unwrap();
        assert_eq!(lines.take(b"12345678"), b"12345678");
        assert_eq!(lines.take(b"12345678"), b"12");
        assert_eq!(lines.take(b"1"), b"");
    }
}
