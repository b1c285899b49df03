//! The list of what is measured: which guest, which requests, how many at a time, where, and what is hoped for.

use super::contender::Contender::{self, Hyper, Node, Wasmtime, Wrun};
use super::guests::Guest;
use crate::response::Response;

/// Something that is measured, a table of the result.
#[derive(Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is called above its table.
    pub title: &'static str,
    /// What is done.
    pub work: Work,
    /// Who takes part, in this order.
    pub contenders: &'static [Contender],
    /// What is hoped for.
    pub goals: &'static [Goal],
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Requests, one after the other.
    Requests(Requests),
    /// Starts, and workers that are killed.
    Starts,
    /// New versions while requests are answered.
    Deploys,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// What wrun and wasmtime serve.
    pub guest: Guest,
    /// What is asked, of every contender.
    pub request: Request,
    /// How it is asked.
    pub load: Load,
    /// Whether one endless CPU-bound client for each worker is there, too.
    pub hogs: bool,
    /// Where all of them run.
    pub place: Place,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Its method.
    pub method: &'static str,
    /// Its path and query.
    pub target: &'static str,
    /// The length of its body, which is all `x`.
    pub body_len: usize,
    /// What makes an answer a good one.
    pub answer: Answer,
}

/// What makes an answer with status 200 a good one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// That it has some body.
    Something,
    /// That it has the request's body.
    Echo,
    /// That its body has this length.
    Length(usize),
    /// That its body is this text.
    Text(&'static str),
}

/// How requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Each connection sends the next request when it has the answer to the last.
    Closed {
        /// How many there are.
        connections: usize,
    },
    /// At a fixed rate, whether or not there are answers; a request's time begins when it was due.
    Rate {
        /// Requests per second of all connections.
        per_second: usize,
        /// How many there are.
        connections: usize,
    },
}

/// Where workers and load run.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// As many workers as were asked for, and everything where the kernel puts it.
    Anywhere,
    /// So many workers, each on a core of its own, and the load on the other cores, if there are any.
    Pinned(usize),
    /// So many workers, however few cores there are.
    Crowded(usize),
}

/// What is hoped for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least so many times the rate of this contender.
    Times(Contender, f64),
    /// 99 of 100 requests in fewer milliseconds.
    P99Ms(f64),
    /// A worker that was killed is replaced in so many milliseconds.
    ReplacedMs(f64),
    /// No request fails.
    NoneFails,
}

impl Request {
    const fn get(target: &'static str, answer: Answer) -> Self {
        Self {
            method: "GET",
            target,
            body_len: 0,
            answer,
        }
    }

    /// Returns its body.
    pub fn body(&self) -> Vec<u8> {
        vec![b'x'; self.body_len]
    }

    /// Tells whether this is what was to be answered.
    pub fn is_answered_by(&self, response: &Response) -> bool {
        response.status == 200
            && match self.answer {
                Answer::Something => !response.body.is_empty(),
                Answer::Echo => response.body == self.body(),
                Answer::Length(length) => response.body.len() == length,
                Answer::Text(text) => response.text().trim_end() == text,
            }
    }
}

/// What `just bench` does, in order.
pub const SCENARIOS: [Scenario; 17] = [
    Scenario {
        name: "hello-rust",
        title: "Hello, Rust, wasi:http 0.2",
        work: hello(Guest::HelloRust, CLOSED),
        contenders: &Contender::ALL,
        goals: &[
            Goal::Times(Hyper, 0.7),
            Goal::Times(Node, 1.0),
            Goal::Times(Wasmtime, 7.0),
        ],
    },
    Scenario {
        name: "hello-bindings",
        title: "Hello, Rust, wasi:http 0.2 without a library",
        work: hello(Guest::HelloBindings, CLOSED),
        contenders: &[Hyper, Wasmtime, Wrun],
        goals: &[],
    },
    Scenario {
        name: "hello-rust-0.3",
        title: "Hello, Rust, wasi:http 0.3 (`wasmtime serve` uses an instance up to 128 times)",
        work: hello(Guest::HelloRust03, CLOSED),
        contenders: &[Hyper, Wasmtime, Wrun],
        goals: &[],
    },
    Scenario {
        name: "hello-js",
        title: "Hello, JavaScript",
        work: hello(Guest::HelloJs, CLOSED),
        contenders: &Contender::ALL,
        goals: &[Goal::Times(Wasmtime, 8.0)],
    },
    Scenario {
        name: "hello-python",
        title: "Hello, Python",
        work: hello(Guest::HelloPython, CLOSED),
        contenders: &[Hyper, Wasmtime, Wrun],
        goals: &[Goal::Times(Wasmtime, 6.0)],
    },
    Scenario {
        name: "hello-rate",
        title: "Hello, Rust, 2000 requests per second",
        work: hello(
            Guest::HelloRust,
            Load::Rate {
                per_second: 2000,
                connections: 32,
            },
        ),
        contenders: &Contender::ALL,
        goals: &[],
    },
    Scenario {
        name: "echo",
        title: "Echo of 64 KiB",
        work: requests(
            Guest::Echo,
            Request {
                method: "POST",
                target: "/echo",
                body_len: 64 << 10,
                answer: Answer::Echo,
            },
            CLOSED,
        ),
        contenders: &Contender::ALL,
        goals: &[],
    },
    Scenario {
        name: "stream",
        title: "Stream of 10 MiB",
        work: requests(
            Guest::Stream,
            Request::get("/stream?bytes=10485760", Answer::Length(10 << 20)),
            Load::Closed { connections: 8 },
        ),
        contenders: &Contender::ALL,
        goals: &[],
    },
    Scenario {
        name: "db-read",
        title: "A row read from the database",
        work: requests(
            Guest::State,
            Request::get("/read", Answer::Something),
            CLOSED,
        ),
        contenders: &[Wrun],
        goals: &[],
    },
    Scenario {
        name: "lock",
        title: "A lock acquired and released",
        work: requests(
            Guest::State,
            Request::get("/lock", Answer::Something),
            CLOSED,
        ),
        contenders: &[Wrun],
        goals: &[],
    },
    Scenario {
        name: "cpu",
        title: "CPU-bound, about 1 ms",
        work: requests(
            Guest::Toil,
            Request::get("/toil?rounds=600000", Answer::Text(TOILED)),
            CLOSED,
        ),
        contenders: &Contender::ALL,
        goals: &[],
    },
    Scenario {
        name: "hog",
        title: "Cheap requests, 400 per second, while one CPU hog runs per worker",
        work: Work::Requests(Requests {
            guest: Guest::Spin,
            request: Request::get("/spin?ms=0", Answer::Something),
            load: Load::Rate {
                per_second: 400,
                connections: 16,
            },
            hogs: true,
            place: Place::Anywhere,
        }),
        contenders: &Contender::ALL,
        goals: &[Goal::P99Ms(20.0)],
    },
    Scenario {
        name: "one-worker",
        title: "Hello, Rust, one worker pinned to a core",
        work: placed(Place::Pinned(1)),
        contenders: &[Hyper, Node, Wrun],
        goals: &[],
    },
    Scenario {
        name: "two-workers",
        title: "Hello, Rust, two workers pinned to two cores",
        work: placed(Place::Pinned(2)),
        contenders: &[Hyper, Node, Wrun],
        goals: &[],
    },
    Scenario {
        name: "eight-workers",
        title: "Hello, Rust, eight workers whatever the number of cores",
        work: placed(Place::Crowded(8)),
        contenders: &[Hyper, Node, Wrun],
        goals: &[],
    },
    Scenario {
        name: "start",
        title: "Starts of hello, and a worker that is killed",
        work: Work::Starts,
        contenders: &Contender::ALL,
        goals: &[Goal::ReplacedMs(150.0)],
    },
    Scenario {
        name: "deploy",
        title: "Deploys under load",
        work: Work::Deploys,
        contenders: &[Node, Wrun],
        goals: &[Goal::NoneFails],
    },
];

/// What 600000 rounds of `tests/guests/p2/src/toil.rs` come to.
const TOILED: &str = "3180273128";

const CLOSED: Load = Load::Closed { connections: 32 };

const fn hello(guest: Guest, load: Load) -> Work {
    requests(guest, Request::get("/", Answer::Something), load)
}

const fn placed(place: Place) -> Work {
    Work::Requests(Requests {
        guest: Guest::HelloRust,
        request: Request::get("/", Answer::Something),
        load: CLOSED,
        hogs: false,
        place,
    })
}

const fn requests(guest: Guest, request: Request, load: Load) -> Work {
    Work::Requests(Requests {
        guest,
        request,
        load,
        hogs: false,
        place: Place::Anywhere,
    })
}
