//! What guests call: one file per interface that wrun gives a meaning of its own.
//!
//! `wasi:cli` is wasmtime's, but for where output goes (`log`); `wasi:http` is wasmtime's, but for who may be called
//! (`http`). Guest input never panics here.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub(crate) mod http;
pub(crate) mod log;
