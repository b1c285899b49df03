//! What building has to say: passed on as it comes, and the last of it kept to be shown.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::unix::pipe::Receiver;

/// How many bytes are kept.
const KEPT_MAX: usize = 64 << 10;

/// How many are read at a time.
const READ_MAX: usize = 4096;

/// A pipe that is read from until this process ends.
pub(super) struct Output {
    reader: Receiver,
    writer: PipeWriter,
    kept: Mutex<Vec<u8>>,
}

impl Output {
    /// Returns a pipe that is read from here on.
    pub(super) fn open() -> Result<Arc<Self>, Failure> {
        let open = || {
            let (reader, writer) = io::pipe()?;
            Ok::<_, io::Error>(Arc::new(Self {
                reader: Receiver::from_owned_fd(OwnedFd::from(reader))?,
                writer,
                kept: Mutex::default(),
            }))
        };
        let output = open().or_fail(ExitCode::System, || "cannot make a pipe".to_owned())?;
        let reading = Arc::clone(&output);
        tokio::spawn(async move {
            let mut bytes = [0; READ_MAX];
            while reading.reader.readable().await.is_ok() {
                while let Ok(len @ 1..) = reading.reader.try_read(&mut bytes) {
                    reading.pass_on(&bytes[..len]);
                }
            }
        });
        Ok(output)
    }

    /// Returns the end to write to.
    pub(super) fn writer(&self) -> io::Result<Stdio> {
        self.writer.try_clone().map(Stdio::from)
    }

    /// Takes in what was written until now.
    pub(super) fn take(&self) {
        let mut bytes = [0; READ_MAX];
        // The event loop may not have heard of it yet, so it is not asked.
        while let Ok(len @ 1..) = nix::unistd::read(&self.reader, &mut bytes) {
            self.pass_on(&bytes[..len]);
        }
    }

    fn pass_on(&self, bytes: &[u8]) {
        // Without a reader there are still those who look at the page.
        let _ = io::stdout().write_all(bytes);
        let _ = io::stdout().flush();
        let mut kept = self.kept();
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT_MAX);
        kept.drain(..surplus);
    }

    /// Forgets what was kept.
    pub(super) fn forget(&self) {
        self.kept().clear();
    }

    /// Returns what was kept as plain text.
    pub(super) fn text(&self) -> String {
        plain(&self.kept())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<u8>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the text without colours and other things that are for terminals.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = anstream::adapter::strip_str(&text).to_string();
    text.replace(
        |char: char| char.is_control() && char != '\n' && char != '\t',
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_neither_colours_nor_control_characters() {
        let printed = b"\x1b[1m\x1b[31merror\x1b[0m: no\r\n\tat \xff<x>\x07\n";
        assert_eq!(plain(printed), "error: no\n\tat \u{fffd}<x>\n");
    }

    #[tokio::test]
    async fn last_of_the_output_is_kept() {
        let output = Output::open().unwrap();
        let mut writer = output.writer.try_clone().unwrap();
        for _ in 0..KEPT_MAX / 1024 {
            writer.write_all(&[b'a'; 1024]).unwrap();
            output.take();
        }
        writer.write_all(b"the end").unwrap();
        output.take();
        assert_eq!(output.text().len(), KEPT_MAX);
        assert!(output.text().ends_with("athe end"));
        output.forget();
        assert_eq!(output.text(), "");
    }
}
