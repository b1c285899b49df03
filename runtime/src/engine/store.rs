//! What the host keeps for one request's instance, and the limits on it.

use super::ticks;
use crate::host::cli::Wasi;
use crate::host::config::Variables;
use crate::host::http::Egress;
use crate::host::shared::{Share, ShareView};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// The state of one request on the host's side. Dropped with its store, and with it everything that the guest held.
pub(crate) struct GuestState {
    pub(crate) wasi: Wasi,
    pub(crate) http: WasiHttpCtx,
    pub(crate) table: ResourceTable,
    pub(crate) egress: Egress,
    pub(crate) share: Share,
    pub(crate) variables: Variables,
    pub(crate) memory: MemoryLimit,
    pub(crate) cpu: Arc<CpuMeter>,
}

impl GuestState {
    /// Returns what `wrun:lock`, `wrun:db`, `wrun:queue` and `wasi:keyvalue` work on.
    pub(crate) fn share(&mut self) -> ShareView<'_> {
        ShareView {
            share: &mut self.share,
            table: &mut self.table,
        }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: self.wasi.ctx(),
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.egress,
        }
    }
}

/// Sets the limits that wasmtime enforces on `store`.
pub(crate) fn limit(store: &mut Store<GuestState>, handles: usize, host_call: usize) {
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(host_call);
    store.set_max_component_handles(handles);
    store.data_mut().table.set_max_capacity(handles);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(handles);
    }
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(preempt);
}

/// At a tick, lets the worker's other requests run, or ends a guest that has used up its CPU time.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the signature of wasmtime's callback"
)]
fn preempt(store: StoreContextMut<'_, GuestState>) -> wasmtime::Result<UpdateDeadline> {
    if store.data().cpu.is_exhausted() {
        return Ok(UpdateDeadline::Interrupt);
    }
    // tokio defers a task that yields until it has looked for I/O; a plain wake-up would be run before that.
    Ok(UpdateDeadline::YieldCustom(
        1,
        Box::pin(tokio::task::yield_now()),
    ))
}

/// Sums up the memory that one request's instance has, over all its memories and tables.
pub(crate) struct MemoryLimit {
    used: usize,
    max: usize,
}

impl MemoryLimit {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: 0, max }
    }

    /// Takes what growing needs, or leaves all as it was.
    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.max {
            return false;
        }
        self.used = used;
        true
    }
}

/// The size of a table element on the host, in bytes.
const TABLE_ELEMENT: usize = size_of::<usize>();

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(
            current.saturating_mul(TABLE_ELEMENT),
            desired.saturating_mul(TABLE_ELEMENT),
        ))
    }
}

/// Counts the CPU time of one request: what passes on the worker's thread while its guest, or a host call of it, runs.
pub(crate) struct CpuMeter {
    used_ns: AtomicU64,
    slice_start_ns: AtomicU64,
    budget_ns: u64,
}

impl CpuMeter {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            used_ns: AtomicU64::new(0),
            slice_start_ns: AtomicU64::new(0),
            budget_ns: u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The guest is about to be polled.
    pub(crate) fn enter(&self) {
        self.slice_start_ns
            .store(ticks::cpu_ns(), Ordering::Relaxed);
    }

    /// The guest was polled.
    pub(crate) fn leave(&self) {
        self.used_ns.store(self.used_ns(), Ordering::Relaxed);
        self.enter();
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.used_ns() >= self.budget_ns
    }

    fn used_ns(&self) -> u64 {
        let slice = ticks::cpu_ns().saturating_sub(self.slice_start_ns.load(Ordering::Relaxed));
        self.used_ns.load(Ordering::Relaxed).saturating_add(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed_over_memories_and_tables() {
        let mut limit = MemoryLimit::new(1 << 20);
        assert!(limit.memory_growing(0, 512 << 10, None).unwrap());
        assert!(limit.memory_growing(0, 256 << 10, None).unwrap());
        assert!(
            !limit.table_growing(0, 64 << 10, None).unwrap(),
            "8 bytes an element are 512 KiB"
        );
        assert!(limit.table_growing(0, 1 << 10, None).unwrap());
    }

    #[test]
    fn refused_growth_costs_nothing() {
        let mut limit = MemoryLimit::new(1 << 20);
        assert!(!limit.memory_growing(0, 2 << 20, None).unwrap());
        assert!(limit.memory_growing(0, 1 << 20, None).unwrap());
    }
}
