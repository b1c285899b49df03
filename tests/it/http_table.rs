//! HTTP/1.1 as RFC 9110 and RFC 9112 have it, in over 200 cases of our own, each of them bytes in full view: what is
//! answered, what the guest sees of it, and whether the next request on the connection is the next request.

mod body;
mod chunks;
mod connections;
mod fields;
mod lengths;
mod request_line;
mod slow;
mod targets;

use crate::serve;
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;
use wrun_tests::http_table::{Case, Subject, faults, faults_together};
use wrun_tests::lenient::Lenient;
use wrun_tests::{SOON, Server, eventually};

/// A guest that logs what it sees, behind the server under test.
struct Witness {
    server: Server,
    /// Log lines that were looked at.
    read: Cell<usize>,
    asked: Cell<usize>,
}

impl Witness {
    fn start() -> Self {
        let launch = serve("http_witness")
            .flag("--request-body", "1000B")
            .flag("--header-timeout", "1s")
            .flag("--stall-timeout", "1s");
        let witness = Self {
            server: launch.start(),
            read: Cell::new(0),
            asked: Cell::new(0),
        };
        witness.seen();
        witness
    }
}

impl Subject for Witness {
    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Asks for a page of its own and returns what came into the log before it: there is one worker, and it writes in order.
    fn seen(&self) -> Vec<String> {
        let number = self.asked.replace(self.asked.get() + 1);
        let last = format!("GET /seen-{number} test.example 0");
        self.server.get(&format!("/seen-{number}")).ok();
        let mut seen = eventually("the guest's line in the log", SOON, || {
            let lines = self.server.log().lines();
            let seen: Vec<String> = lines[self.read.get()..]
                .iter()
                .filter_map(|line| saw(line))
                .collect();
            let whole = seen.last() == Some(&last);
            whole.then(|| {
                self.read.set(lines.len());
                seen
            })
        });
        seen.pop();
        seen
    }

    fn patience(&self) -> Duration {
        SOON
    }
}

/// Returns what the guest saw, if it says so in this line of the log.
fn saw(line: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(event["message"].as_str()?.strip_prefix("saw ")?.to_owned())
}

/// Cases by what they are about; each is tried alone.
fn groups() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("request line", request_line::cases()),
        ("targets", targets::cases()),
        ("hosts", targets::hosts()),
        ("fields", fields::cases()),
        ("lengths", lengths::cases()),
        ("codings", lengths::codings()),
        ("bodies", body::cases()),
        ("chunks", chunks::good()),
        ("broken chunks", chunks::broken()),
        ("connections", connections::cases()),
    ]
}

#[test]
fn every_case_of_the_http_table_is_as_the_rfcs_have_it() {
    let witness = Witness::start();
    let groups = groups();
    let count: usize = groups.iter().map(|(_, cases)| cases.len()).sum();
    let mut all = Vec::new();
    for (_, cases) in &groups {
        all.extend(faults(&witness, cases));
    }
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
    assert!(count >= 200, "{count} cases");
    assert_eq!(witness.server.worker().restarts, 0);
}

#[test]
fn request_that_stops_anywhere_is_given_up() {
    let witness = Witness::start();
    let all = faults_together(&witness, &slow::cases());
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
    assert_eq!(witness.server.worker().restarts, 0);
}

#[test]
fn lenient_server_does_not_pass_the_http_table() {
    for (what, cases) in groups() {
        let all = faults(&Lenient::start(), &cases);
        assert!(!all.is_empty(), "{what}");
    }
}
