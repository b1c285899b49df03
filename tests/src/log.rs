//! A server's stderr, read by a thread of its own so that the server never waits for the test.

use crate::wait::{SOON, eventually};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The lines so far.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    /// Starts to read `stderr`.
    pub fn read(stderr: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let lines = Arc::clone(&log.lines);
        thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lock(&lines).lines.push(text);
                line.clear();
            }
            lock(&lines).ended = true;
        });
        log
    }

    /// Returns all lines so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).lines.clone()
    }

    /// Returns everything so far.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Tells whether every process that could write to the log has closed it.
    pub fn ended(&self) -> bool {
        lock(&self.lines).ended
    }

    /// Returns all events so far: the lines that are JSON.
    pub fn events(&self) -> Vec<Value> {
        self.lines()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Returns the first line, waiting for it; `None` if the log ended without one.
    pub fn first_line(&self, within: Duration) -> Option<String> {
        eventually("the first line on stderr", within, || {
            let lines = lock(&self.lines);
            match lines.lines.first() {
                Some(line) => Some(Some(line.clone())),
                None => lines.ended.then_some(None),
            }
        })
    }

    /// Returns the first event that `is_it` accepts, waiting for it.
    ///
    /// # Panics
    ///
    /// If it does not come soon.
    #[track_caller]
    pub fn event(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(what, SOON, || self.events().into_iter().find(&is_it))
    }

    /// Returns the first line that contains `text`, waiting for it.
    ///
    /// # Panics
    ///
    /// If it does not come soon.
    #[track_caller]
    pub fn line_with(&self, text: &str) -> String {
        eventually(text, SOON, || {
            self.lines().into_iter().find(|line| line.contains(text))
        })
    }
}

fn lock(lines: &Mutex<Lines>) -> std::sync::MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
