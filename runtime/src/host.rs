//! What guests call: one file per interface that wrun gives a meaning of its own.
//!
//! `wasi:cli` is wasmtime's, but for when its context is made (`cli`) and where output goes (`log`); `wasi:http` is
//! wasmtime's, but for who may be called (`http`). `lock`, `db`, `queue` and `keyvalue` convert, call the state process and
//! convert back. Guest input never panics here.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub(crate) mod batch;
pub mod bindings;
pub(crate) mod cli;
pub(crate) mod config;
mod db;
pub(crate) mod drafts;
pub(crate) mod http;
mod keyvalue;
mod lock;
pub(crate) mod log;
pub(crate) mod queue;
pub(crate) mod quota;
pub(crate) mod shared;
