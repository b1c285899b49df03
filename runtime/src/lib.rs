//! wrun: serves a WebAssembly component on every core, a fresh instance for every request.
//!
//! `ARCHITECTURE.md` beside this crate's `src` says how the parts fit. Each module may name those after it and the
//! leaves, never the other way round: `cli → supervisor → worker → engine → host → state`; leaves: `config`, `exit_code`,
//! `failure`, `ipc`, `listener`, `log`, `package`, `sandbox`, `state_folder`. `fuzz` is for fuzzing alone.

pub mod cli;
pub mod config;
pub mod engine;
pub mod exit_code;
pub mod failure;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod host;
pub mod ipc;
pub mod listener;
pub mod log;
pub mod package;
pub mod sandbox;
pub mod state;
pub mod state_folder;
pub mod supervisor;
pub mod worker;
