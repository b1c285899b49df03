//! How wasmtime is set up: one place, because code compiled under one set-up is refused by any other.

use serde::{Deserialize, Serialize};
use wasmtime::{Config, WasmBacktraceDetails};

/// Which handler a component exports.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// `wasi:http/incoming-handler@0.2`.
    IncomingHandler,
    /// `wasi:http/handler@0.3`.
    Service,
}

/// What of a component decides how it is compiled and run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// The handler that it exports; `None` if it handles no requests.
    pub(crate) kind: Option<Kind>,
    /// Whether it exports `wrun:queue/consumer`: it handles messages.
    pub(crate) consumer: bool,
    /// Whether it needs the component model's concurrency: any 0.3 interface does. Where it is not needed it is off,
    /// because with it each call of a guest goes through a task of its own.
    pub(crate) concurrency: bool,
}

impl Profile {
    /// Returns the settings that compiler and workers share.
    pub(crate) fn config(self) -> Config {
        let mut config = Config::new();
        config
            .concurrency_support(self.concurrency)
            // What makes a guest yield to its neighbours, and end: see `ticks`.
            .epoch_interruption(true)
            .memory_init_cow(true)
            // Nobody unwinds through guest code from outside, and registering the tables costs time at start.
            .native_unwind_info(false)
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .wasm_memory64(false)
            .max_wasm_stack(WASM_STACK)
            // Host calls run on the same stack above the guest's share; overflowing that part would end the process.
            .async_stack_size(WASM_STACK + HOST_STACK);
        config
    }
}

/// The stack that a guest may use, in bytes.
const WASM_STACK: usize = 512 << 10;

/// The stack that host functions may use on top of it, in bytes.
const HOST_STACK: usize = 1536 << 10;
