//! The clock by which guests are preempted: ticks of the worker's own CPU time.
//!
//! A POSIX CPU timer signals the worker's thread each [`TICK_MS`] of CPU time that it burns (the kernel rounds up to its
//! scheduler tick, 4 ms at 250 Hz). An idle worker therefore has no ticks at all, and no ticker thread makes the kernel
//! flush the address translations of a second core.

use anyhow::Context as _;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;
use wasmtime::Engine;

/// CPU time between two ticks, in milliseconds.
const TICK_MS: u64 = 2;

/// The engine whose epoch the handler moves on. Set once, never freed.
static ENGINE: AtomicPtr<Engine> = AtomicPtr::new(ptr::null_mut());

/// The CPU time of the worker's thread at its last tick, in nanoseconds.
static CPU_NS: AtomicU64 = AtomicU64::new(0);

/// Starts ticking for the calling thread, which runs all guests of this process, until the process ends.
pub(super) fn start(engine: &Engine) -> anyhow::Result<()> {
    let engine = Box::into_raw(Box::new(engine.clone()));
    if ENGINE
        .compare_exchange(
            ptr::null_mut(),
            engine,
            Ordering::Release,
            Ordering::Relaxed,
        )
        .is_err()
    {
        anyhow::bail!("a process has one engine");
    }
    // The guest's stack is small and not ours: the handler runs on the thread's alternate stack.
    let flags = SaFlags::SA_RESTART | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::Handler(tick), flags, SigSet::empty());
    // SAFETY: `tick` is async-signal-safe, see there.
    unsafe { sigaction(Signal::SIGVTALRM, &action) }
        .context("failed to install the tick handler")?;
    let notify = SigevNotify::SigevThreadId {
        signal: Signal::SIGVTALRM,
        thread_id: gettid().as_raw(),
        si_value: 0,
    };
    let mut timer = Timer::new(ClockId::CLOCK_THREAD_CPUTIME_ID, SigEvent::new(notify))
        .context("failed to create a CPU timer")?;
    let period = Duration::from_millis(TICK_MS).into();
    timer
        .set(Expiration::Interval(period), TimerSetTimeFlags::empty())
        .context("failed to start a CPU timer")?;
    // Dropping it would end the ticks.
    std::mem::forget(timer);
    Ok(())
}

/// Returns the CPU time of this worker at its last tick.
pub(super) fn cpu_ns() -> u64 {
    CPU_NS.load(Ordering::Relaxed)
}

/// The signal handler: atomics and one clock_gettime(2), both async-signal-safe.
extern "C" fn tick(_signal: nix::libc::c_int) {
    if let Ok(now) = nix::time::clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
        let now = Duration::from(now).as_nanos();
        CPU_NS.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    let engine = ENGINE.load(Ordering::Acquire);
    // SAFETY: null before `start`, and afterwards a leaked, and so ever valid, engine.
    if let Some(engine) = unsafe { engine.as_ref() } {
        engine.increment_epoch();
    }
}
