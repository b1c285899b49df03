//! What guests share, as the tests see it: through the guests in `tests/guests/state`, the operator's commands, and the
//! state process that they all talk to.

use crate::process;
use crate::server::Server;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A lock as `wrun lock ls --json` shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Lock {
    /// The label of its space.
    pub space: String,
    /// Its key.
    pub key: String,
    /// The fencing token that it was granted with.
    pub token: u64,
    /// The worker that holds it.
    pub pid: i32,
    /// How many wait for it.
    pub waiting: u64,
}

/// A queue as `wrun queue ls --json` shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Queue {
    /// Its label.
    pub queue: String,
    /// All its messages.
    pub messages: u64,
    /// Those that could be handled now.
    pub ready: u64,
    /// Those whose time has not come.
    pub delayed: u64,
    /// Messages that wait for it in outboxes.
    pub outbox: u64,
    /// Those that are being handled.
    pub in_flight: u64,
    /// Its dead letters.
    pub dead: u64,
    /// Workers that take messages from it.
    pub consumers: u64,
}

/// A try at handling a message, as the consumers in `tests/guests/state` note it when it begins.
#[derive(Clone, Debug, Deserialize)]
pub struct Try {
    /// The message.
    pub id: String,
    /// The queue that it came from.
    pub queue: String,
    /// Its key.
    pub key: Option<String>,
    /// Which try this is.
    pub attempt: u32,
    /// How many messages its instance was given.
    pub batch: u32,
    /// Whether no earlier try at the message got as far as noting itself.
    pub first: bool,
    /// What came of extending a delivery, if it did that.
    pub extended: Option<Value>,
    /// When it began, in nanoseconds since 1970.
    pub start_ns: i64,
    /// When it ended, if it did.
    pub end_ns: Option<i64>,
    /// What was sent.
    pub body: Value,
}

impl Server {
    /// Sends one GET and returns the JSON that it is answered with.
    #[track_caller]
    pub fn get_json(&self, target: &str) -> Value {
        parse(&self.get(target).ok())
    }

    /// Has `state_db` do these steps, and returns what came of each.
    #[track_caller]
    pub fn script(&self, steps: &Value) -> Vec<Value> {
        parse(&self.post("/", steps.to_string().as_bytes()).ok())
    }

    /// Has `state_db` do one step, and returns what came of it.
    #[track_caller]
    pub fn step(&self, step: Value) -> Value {
        self.script(&Value::from(vec![step])).remove(0)
    }

    /// Has `state_queue` send these messages together, and returns what came of it.
    #[track_caller]
    pub fn send(&self, messages: &Value) -> Value {
        parse(&self.post("/send", messages.to_string().as_bytes()).ok())
    }

    /// Returns every try at handling a message, in the order in which they began.
    #[track_caller]
    pub fn tries(&self) -> Vec<Try> {
        parse(&self.get("/handled").ok())
    }

    /// Waits until the tries are as `are_so` wants them, and returns them.
    #[track_caller]
    pub fn when_tried(&self, what: &str, are_so: impl Fn(&[Try]) -> bool) -> Vec<Try> {
        eventually(what, SOON, || {
            Some(self.tries()).filter(|tries| are_so(tries))
        })
    }

    /// Runs a `wrun` command with `--json` and returns what it prints.
    #[track_caller]
    pub fn command<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        parse(&self.control(args.iter().chain(&["--json"])).ok())
    }

    /// Returns all locks that are held.
    #[track_caller]
    pub fn locks(&self) -> Vec<Lock> {
        self.command(&["lock", "ls"])
    }

    /// Waits until this key is held and `waiting` wait for it.
    #[track_caller]
    pub fn when_held(&self, key: &str, waiting: u64) -> Lock {
        let what = format!("{key} is held, and {waiting} wait for it");
        eventually(&what, SOON, || {
            let mut locks = self.locks().into_iter();
            locks.find(|lock| lock.key == key && lock.waiting == waiting)
        })
    }

    /// Waits until no lock is held.
    #[track_caller]
    pub fn when_nothing_is_held(&self) {
        eventually("no lock is held", SOON, || {
            self.locks().is_empty().then_some(())
        });
    }

    /// Returns how the queue with this label stands.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn queue(&self, label: &str) -> Queue {
        let queues: Vec<Queue> = self.command(&["queue", "ls"]);
        let mut queues = queues.into_iter();
        queues
            .find(|queue| queue.queue == label)
            .expect("the manifest names the queue")
    }

    /// Waits until the queue `jobs` stands as `is_so` wants it.
    #[track_caller]
    pub fn when_queue(&self, what: &str, is_so: impl Fn(&Queue) -> bool) -> Queue {
        eventually(what, SOON, || {
            Some(self.queue("jobs")).filter(|queue| is_so(queue))
        })
    }

    /// Returns the state process, if one runs.
    #[track_caller]
    pub fn state_process(&self) -> Option<i32> {
        let pid = self.ps()["state"]["pid"].as_i64()?;
        i32::try_from(pid).ok()
    }

    /// Kills the state process and waits for the next one.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn kill_state_process(&self) {
        let killed = self.state_process().expect("a state process");
        process::send(killed, Signal::SIGKILL);
        eventually("another state process", SOON, || {
            self.state_process().filter(|pid| *pid != killed)
        });
    }
}

/// Returns what a guest's call returned.
///
/// # Panics
///
/// If it failed.
#[track_caller]
pub fn ok(result: &Value) -> &Value {
    match result.get("ok") {
        Some(value) => value,
        None => panic!("the call failed: {result}"),
    }
}

/// Returns the name of the error that a guest's call failed with; an engine's is its SQLSTATE.
///
/// # Panics
///
/// If it did not fail.
#[track_caller]
pub fn error(result: &Value) -> &str {
    let name = result["error"].as_str();
    match (name, result["code"].as_str()) {
        (Some("db" | "refused"), Some(code)) => code,
        (Some(name), _) => name,
        (None, _) => panic!("the call did not fail: {result}"),
    }
}

/// Returns the rows that a guest's query returned.
///
/// # Panics
///
/// If it failed.
#[track_caller]
pub fn rows(result: &Value) -> &Value {
    &ok(result)["rows"]
}

#[track_caller]
fn parse<T: DeserializeOwned>(text: &str) -> T {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {text}"),
    }
}
