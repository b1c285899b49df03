//! Holds an HTTP server to cases that are written as bytes: what it answers, whether it goes on with the connection, and
//! what its application saw. One request in, one request out, or none: never another one.
//!
//! Behind the bytes of a case comes one more request, the probe. It must be answered where the connection goes on, and
//! must not even be seen where it does not.

use crate::http1::Connection;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// What is sent behind every case, and what the application sees of it.
const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n";
const PROBE_SEEN: &str = "GET /probe probe 0";

/// More answers than any case asks for.
const ANSWERS_MAX: usize = 20;

/// A server under test.
pub trait Subject {
    /// Where it listens.
    fn addr(&self) -> SocketAddr;

    /// What its application has seen since this was last asked: `METHOD TARGET AUTHORITY LENGTH BODY` of each request, in
    /// order.
    fn seen(&self) -> Vec<String>;

    /// How long to wait for its next byte.
    fn patience(&self) -> Duration;
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It serves the next request.
    Kept,
    /// It ends, and nothing more is read from it.
    Closed,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// Where it is written what has to happen.
    pub rule: &'static str,
    sent: Vec<u8>,
    /// Whether the client says at the end that it will send nothing more.
    ends: bool,
    /// Whether the bytes stop in the middle: then no probe follows.
    stops: bool,
    answers: Vec<u16>,
    fate: Fate,
    seen: Vec<String>,
    /// Lines that the first answer's body must have, or must not begin with.
    lines: Vec<&'static str>,
    no_fields: Vec<&'static str>,
    /// Fields of the answers without a body.
    bodiless: bool,
}

/// Begins a case, which ends with one of the verdicts below.
pub fn case(name: impl Into<String>, rule: &'static str, sent: impl Into<Vec<u8>>) -> Case {
    Case {
        name: name.into(),
        rule,
        sent: sent.into(),
        ends: false,
        stops: false,
        answers: Vec::new(),
        fate: Fate::Kept,
        seen: Vec::new(),
        lines: Vec::new(),
        no_fields: Vec::new(),
        bodiless: false,
    }
}

impl Case {
    /// The application sees these requests and answers each with 200.
    #[must_use]
    pub fn seen<S: Into<String>>(mut self, seen: impl IntoIterator<Item = S>) -> Self {
        self.seen = seen.into_iter().map(Into::into).collect();
        self.answers = vec![200; self.seen.len()];
        self
    }

    /// The application sees one request and answers it with 200.
    #[must_use]
    pub fn sees(self, seen: impl Into<String>) -> Self {
        self.seen([seen.into()])
    }

    /// Nobody sees it; the answer has this status and is the last.
    #[must_use]
    pub fn refused(mut self, status: u16) -> Self {
        self.answers = vec![status];
        self.closed()
    }

    /// After what was seen, something is refused with this status.
    #[must_use]
    pub fn then_refused(mut self, status: u16) -> Self {
        self.answers.push(status);
        self.closed()
    }

    /// Nobody sees it and nobody answers.
    #[must_use]
    pub fn dropped(self) -> Self {
        self.closed()
    }

    /// The connection ends with it.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.fate = Fate::Closed;
        self
    }

    /// The client is told to go on first.
    #[must_use]
    pub fn after_100(mut self) -> Self {
        self.answers.insert(0, 100);
        self
    }

    /// The application sees this field, `name: value`.
    #[must_use]
    pub fn with_field(mut self, line: &'static str) -> Self {
        self.lines.push(line);
        self
    }

    /// The application does not see a field of this name.
    #[must_use]
    pub fn without_field(mut self, name: &'static str) -> Self {
        self.no_fields.push(name);
        self
    }

    /// The answers have no bodies, because HEAD asks for none.
    #[must_use]
    pub fn bodiless(mut self) -> Self {
        self.bodiless = true;
        self
    }

    /// The client sends nothing more, and says so.
    #[must_use]
    pub fn ends(mut self) -> Self {
        self.ends = true;
        self.stops = true;
        self.closed()
    }

    /// The client sends nothing more, and does not say so.
    #[must_use]
    pub fn stops(mut self) -> Self {
        self.stops = true;
        self.closed()
    }

    /// Returns the bytes that are sent.
    fn bytes(&self) -> Vec<u8> {
        let probe = if self.stops { "" } else { PROBE };
        [&self.sent, probe.as_bytes()].concat()
    }

    fn send(&self, subject: &impl Subject) -> io::Result<Connection> {
        let mut connection = Connection::try_open(subject.addr(), subject.patience())?;
        // The server may have answered and closed before it has everything.
        let _ = connection.try_send(self.bytes());
        if self.ends {
            connection.finish_sending();
        }
        Ok(connection)
    }

    /// Reads what comes back and says what is wrong with it.
    fn judge(&self, connection: &mut Connection) -> Vec<String> {
        let mut faults = Vec::new();
        let mut wanted = self.answers.clone();
        if self.fate == Fate::Kept {
            wanted.push(200);
        }
        let mut answers = Vec::new();
        let end = loop {
            connection.expects_no_body(self.bodiless && answers.len() < self.answers.len());
            if self.fate == Fate::Kept && answers.len() == wanted.len() {
                break None;
            }
            match connection.try_response() {
                Ok(_) if answers.len() == ANSWERS_MAX => break None,
                Ok(response) => answers.push(response),
                Err(error) => break Some(error),
            }
        };
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        if statuses != wanted {
            faults.push(format!("answered {statuses:?} and not {wanted:?}"));
        }
        match end {
            // A reset says the same as a clean end: nothing more was read.
            Some(error) if self.fate == Fate::Closed && is_end(&error) => {}
            None if self.fate == Fate::Kept => {}
            end => faults.push(format!("the connection's end: {end:?}")),
        }
        let Some(first) = answers.iter().find(|answer| answer.status >= 200) else {
            return faults;
        };
        if first.header("date").is_none() && first.status == 200 {
            faults.push("no date".to_owned());
        }
        let text = first.text();
        for line in &self.lines {
            if !text.lines().any(|seen| seen == *line) {
                faults.push(format!("{line:?} was not seen: {text:?}"));
            }
        }
        for name in &self.no_fields {
            if text
                .lines()
                .any(|seen| seen.starts_with(&format!("{name}: ")))
            {
                faults.push(format!("{name} was seen: {text:?}"));
            }
        }
        faults
    }

    /// Returns what the application must have seen.
    fn wanted(&self) -> Vec<String> {
        let mut wanted = self.seen.clone();
        if self.fate == Fate::Kept {
            wanted.push(PROBE_SEEN.to_owned());
        }
        wanted
    }

    fn says(&self, faults: Vec<String>) -> Vec<String> {
        let place = |fault| format!("{} ({}): {fault}", self.name, self.rule);
        faults.into_iter().map(place).collect()
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// Tries one case after the other; returns what did not hold.
pub fn faults(subject: &impl Subject, cases: &[Case]) -> Vec<String> {
    let mut all = Vec::new();
    for case in cases {
        let mut faults = match case.send(subject) {
            Ok(mut connection) => case.judge(&mut connection),
            Err(error) => vec![error.to_string()],
        };
        let seen = subject.seen();
        if seen != case.wanted() {
            faults.push(format!("{seen:?} was seen and not {:?}", case.wanted()));
        }
        all.extend(case.says(faults));
    }
    all
}

/// Sends all cases and then waits for each: for cases that the server waits for, too.
pub fn faults_together(subject: &impl Subject, cases: &[Case]) -> Vec<String> {
    let sent: Vec<_> = cases.iter().map(|case| case.send(subject)).collect();
    let mut all = Vec::new();
    for (case, connection) in cases.iter().zip(sent) {
        let faults = match connection {
            Ok(mut connection) => case.judge(&mut connection),
            Err(error) => vec![error.to_string()],
        };
        all.extend(case.says(faults));
    }
    let mut wanted: Vec<String> = cases.iter().flat_map(Case::wanted).collect();
    let mut seen = subject.seen();
    wanted.sort_unstable();
    seen.sort_unstable();
    if seen != wanted {
        all.push(format!("{seen:?} was seen and not {wanted:?}"));
    }
    all
}
