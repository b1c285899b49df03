//! A guest's context of WASI: environment, stdio, clocks, random numbers; no folders and no sockets.
//!
//! Made when the guest first asks for something of it. Most requests are answered without, and making it costs more than
//! many of them: generators of random numbers are seeded, streams and clocks allocated.

use super::log::GuestLog;
use std::sync::Arc;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

/// Random bytes that a guest gets in one call, at most.
const RANDOM_MAX: u64 = 64 << 10;

/// What the contexts of one server have in common.
pub(crate) struct Settings {
    pub(crate) env: Vec<(String, String)>,
    /// Bytes that one request may write to the log.
    pub(crate) log_max: u64,
}

/// The context of one instance.
pub(crate) struct Wasi {
    settings: Arc<Settings>,
    request_id: Arc<str>,
    ctx: Option<Box<WasiCtx>>,
}

impl Wasi {
    pub(crate) fn new(settings: Arc<Settings>, request_id: Arc<str>) -> Self {
        Self {
            settings,
            request_id,
            ctx: None,
        }
    }

    pub(crate) fn ctx(&mut self) -> &mut WasiCtx {
        self.ctx.get_or_insert_with(|| {
            let log = GuestLog::new(self.request_id.clone(), self.settings.log_max);
            let mut builder = WasiCtxBuilder::new();
            builder
                .stdout(log.stdout())
                .stderr(log.stderr())
                .envs(&self.settings.env)
                .max_random_size(RANDOM_MAX);
            Box::new(builder.build())
        })
    }
}
