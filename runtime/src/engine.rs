//! The engine: turns a component into machine code, and machine code into one instance per request or batch of messages.
//!
//! Only this module and `host` name wasmtime. Compiling happens in a child process of its own (`prepare`), running in the
//! workers (`handler`); both build their wasmtime `Engine` from the same `profile`, or one would refuse the other's code.

mod answer;
mod artifact;
mod body;
mod compile;
mod consumer;
mod contents;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
