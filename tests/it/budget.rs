//! What one request costs its worker in things that do not depend on time: system calls, page faults, instructions. Each
//! has a budget in `tests/budget.toml`, so that what makes requests dearer is noticed, and allowed on purpose only.
//!
//! `WRUN_WRITE_BUDGET=1` writes a new budget: what was measured, and a part of it more.

use crate::wrun;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wrun_tests::guests::{example, guest};
use wrun_tests::tracee::Tracee;
use wrun_tests::{Connection, Server, process, repository};

/// Set to write a new budget.
const WRITE: &str = "WRUN_WRITE_BUDGET";

/// By how much a new budget exceeds what was measured.
const ALLOWANCE: f64 = 1.15;

/// Requests before anything is counted, and requests of which page faults and system calls are counted. Together they are
/// fewer than a connection may carry.
const WARM_UP: u64 = 300;
const COUNTED: u64 = 200;

const PATIENCE: Duration = Duration::from_secs(60);

/// What one request costs, or may cost.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Cost {
    system_calls: f64,
    page_faults: f64,
    instructions: f64,
}

/// What was measured; without ptrace only page faults can be.
#[derive(Debug)]
struct Measured {
    page_faults: f64,
    traced: io::Result<Traced>,
}

#[derive(Debug)]
struct Traced {
    system_calls: BTreeMap<String, u64>,
    /// Unless there would be too many to count.
    instructions: Option<f64>,
}

impl Measured {
    /// Returns each cost and what it may be; what was not measured is left out.
    fn against(&self, budget: &Cost) -> Vec<(&'static str, f64, f64)> {
        let mut costs = vec![("page faults", self.page_faults, budget.page_faults)];
        if let Ok(traced) = &self.traced {
            costs.push(("system calls", traced.system_calls(), budget.system_calls));
            let instructions = traced.instructions.into_iter();
            costs.extend(instructions.map(|it| ("instructions", it, budget.instructions)));
        }
        costs
    }

    /// Returns which costs exceed the budget.
    fn over(&self, budget: &Cost) -> Vec<&'static str> {
        let costs = self.against(budget).into_iter();
        costs
            .filter(|(_, cost, may_be)| cost > may_be)
            .map(|(name, ..)| name)
            .collect()
    }

    /// Returns all of it as text.
    fn describe(&self, budget: &Cost) -> String {
        let mut lines = String::from("each request:\n");
        for (name, cost, may_be) in self.against(budget) {
            lines += &format!("  {name}: {cost:.2}, may be {may_be:.2}\n");
        }
        match &self.traced {
            Ok(traced) => {
                for (name, count) in &traced.system_calls {
                    lines += &format!("    {name}: {:.2}\n", *count as f64 / COUNTED as f64);
                }
            }
            Err(error) => lines += &format!("  not countable here, because of ptrace: {error}\n"),
        }
        lines
    }
}

impl Traced {
    fn system_calls(&self) -> f64 {
        self.system_calls.values().sum::<u64>() as f64 / COUNTED as f64
    }
}

/// A client that asks again as soon as it has an answer, without ever waiting itself.
struct Client {
    connection: Connection,
    request: String,
}

impl Client {
    fn open(server: &Server, target: &str) -> Self {
        let connection = Connection::try_open(server.addr(), PATIENCE);
        let request = format!("GET {target} HTTP/1.1\r\nhost: budget.example\r\n\r\n");
        Self {
            connection: connection.expect("the server accepts"),
            request,
        }
    }

    /// Asks so many times, one after the other.
    fn ask(&mut self, times: u64) {
        for _ in 0..times {
            self.connection.send(&self.request);
            assert_eq!(self.connection.response().status, 200);
        }
    }

    /// Returns a function that asks again if there is an answer, and tells whether there were so many.
    fn until(&mut self, enough: u64) -> impl FnMut() -> bool {
        let mut answers = 0;
        move || {
            if self.connection.has_bytes() {
                assert_eq!(self.connection.response().status, 200);
                self.connection.send(&self.request);
                answers += 1;
            }
            answers >= enough
        }
    }
}

/// Measures a guest's requests on one connection to one worker, which has settled.
fn measure(path: &Path, target: &str, instructions: bool) -> Measured {
    let server = wrun().serve(path).start();
    let worker = server.worker().pid;
    let mut client = Client::open(&server, target);
    client.ask(WARM_UP);
    let before = process::page_faults(worker);
    client.ask(COUNTED);
    let page_faults = process::page_faults(worker) - before;
    Measured {
        page_faults: page_faults as f64 / COUNTED as f64,
        traced: trace(&server, worker, client, instructions),
    }
}

fn trace(
    server: &Server,
    worker: i32,
    mut client: Client,
    instructions: bool,
) -> io::Result<Traced> {
    // It would take a worker that is slowed down so much for one that hangs.
    server.signal(Signal::SIGSTOP);
    let mut tracee = Tracee::attach(worker)?;
    client.connection.send(&client.request);
    // What is counted begins and ends with an answer.
    tracee.system_calls(client.until(1))?;
    let system_calls = tracee.system_calls(client.until(COUNTED))?;
    let instructions = match instructions {
        true => Some(tracee.instructions(client.until(1))? as f64),
        false => None,
    };
    Ok(Traced {
        system_calls,
        instructions,
    })
}

fn budget_file() -> PathBuf {
    repository().join("tests/budget.toml")
}

fn read_budget() -> Cost {
    let text = fs::read_to_string(budget_file()).expect("there is a budget");
    toml::from_str(&text).expect("it has these figures")
}

/// Writes what was measured and a part of it more, below the comment.
fn write_budget(measured: &Measured) {
    let traced = measured.traced.as_ref().expect("ptrace is allowed");
    let text = fs::read_to_string(budget_file()).expect("there is a budget");
    let comment = text.lines().take_while(|line| line.starts_with('#'));
    let mut text: String = comment.map(|line| format!("{line}\n")).collect();
    // A page now and then is no regression.
    let page_faults = (measured.page_faults * ALLOWANCE).max(0.5);
    text += &format!(
        "system-calls = {:.1}\npage-faults = {page_faults:.1}\ninstructions = {:.0}\n",
        traced.system_calls() * ALLOWANCE,
        traced.instructions.expect("they were counted") * ALLOWANCE
    );
    fs::write(budget_file(), text).expect("it can be written");
}

#[test]
fn hello_costs_no_more_than_its_budget() {
    let measured = measure(&example("hello"), "/", true);
    if std::env::var_os(WRITE).is_some() {
        write_budget(&measured);
    }
    let budget = read_budget();
    let text = measured.describe(&budget);
    println!("{text}");
    assert!(
        measured.over(&budget).is_empty(),
        "{text}if it has to be: {WRITE}=1 cargo test --release -p wrun --test it budget"
    );
}

/// The control: one guest that works longer, one that touches a new megabyte.
#[test]
fn budget_notices_guests_that_do_more() {
    let budget = read_budget();
    let toil = measure(&guest("http_toil"), "/?rounds=50000", true);
    let grow = measure(&guest("http_static"), "/", false);
    let expected: [&[&str]; 2] = match toil.traced.is_ok() {
        true => [&["instructions"], &["page faults", "system calls"]],
        false => [&[], &["page faults"]],
    };
    for (measured, expected) in [toil, grow].iter().zip(expected) {
        let over = measured.over(&budget);
        let noticed = expected.iter().all(|name| over.contains(name));
        assert!(noticed, "{}", measured.describe(&budget));
    }
}
