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
mod fuse;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod guest;
mod handler;
mod inspect;
mod key;
mod linker;
mod mapping;
mod memory;
mod pool;
mod prepare;
mod profile;
mod sections;
mod stack;
mod store;
mod ticks;

pub use body::ResponseBody;
pub use compile::compile_file;
pub use guest::Stopped;
pub use handler::{BodyError, Handler, RequestBody};
pub use key::Key;
pub use pool::instances;
pub use prepare::{Prepared, prepare};
