//! The harness of wrun's tests: real processes, real sockets, a deadline on every wait.
//!
//! Knows wrun from the outside only: its command line, its log, what it answers. The tests are in `tests/it`, a test
//! target of the package `wrun`, because only there cargo tells where the binary is.

pub mod attacks;
pub mod baseline;
pub mod bench;
pub mod bench_state;
pub mod checkout;
pub mod components;
pub mod compromised;
pub mod docs;
mod engine;
pub mod faults;
pub mod guests;
pub mod hostile;
pub mod hosts;
pub mod http1;
pub mod http2;
pub mod http_table;
pub mod kafka;
pub mod launch;
pub mod lenient;
pub mod load;
pub mod lock_history;
pub mod log;
pub mod mariadb;
pub mod murder;
pub mod nats;
pub mod npm;
pub mod outcome;
pub mod overload;
pub mod postgres;
pub mod process;
pub mod project;
pub mod proxy;
pub mod queue_history;
pub mod rabbitmq;
mod random;
pub mod redis;
pub mod response;
pub mod sale;
pub mod server;
pub mod soak;
pub mod state;
pub mod tansu;
pub mod terminal;
pub mod third_party;
pub mod tls_front;
pub mod tracee;
pub mod upstream;
pub mod wait;
pub mod workbench;

pub use baseline::Baseline;
pub use http1::Connection;
pub use http2::Http2;
pub use launch::{Launch, Wrun};
pub use outcome::Outcome;
pub use response::Response;
pub use server::{Server, Worker};
pub use tempfile::TempDir;
pub use wait::{SOON, eventually};

use std::path::Path;

/// Returns the top folder of the repository.
///
/// # Panics
///
/// If this package was moved out of it.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the repository")
}

/// Returns a folder that is removed when it is dropped.
///
/// # Panics
///
/// If it cannot be made.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("temporary folders can be made")
}
