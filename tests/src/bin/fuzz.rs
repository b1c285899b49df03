//! `just fuzz`: one of the targets of `wrun::fuzz`, which `WRUN_FUZZ` names, for libFuzzer to call.
//!
//! Usage: WRUN_FUZZ=TARGET fuzz [FOLDER…] [-max_total_time=SECONDS]. libFuzzer has the `main`, and is linked by
//! `tests/fuzz/run`. It is clang's and not that of the crate `libfuzzer-sys`, whose dependencies would have wasmtime
//! built a second time.

#![no_main]

use std::process::abort;
use std::slice;
use std::sync::OnceLock;
use wrun::fuzz::{TARGETS, Target};

/// Tries an input.
///
/// # Safety
///
/// There are `len` bytes at `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn LLVMFuzzerTestOneInput(bytes: *const u8, len: usize) -> i32 {
    static TARGET: OnceLock<Target> = OnceLock::new();
    let bytes = match len {
        // libFuzzer passes a null pointer then.
        0 => &[],
        // SAFETY: by the contract of this function, and libFuzzer keeps them until it returns.
        _ => unsafe { slice::from_raw_parts(bytes, len) },
    };
    // A panic is what libFuzzer calls a crash.
    if std::panic::catch_unwind(|| TARGET.get_or_init(target)(bytes)).is_err() {
        abort();
    }
    0
}

fn target() -> Target {
    let wanted = std::env::var("WRUN_FUZZ").unwrap_or_default();
    let target = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names = || TARGETS.map(|(name, _)| name).join(", ");
    target
        .unwrap_or_else(|| panic!("WRUN_FUZZ names one of {}", names()))
        .1
}
