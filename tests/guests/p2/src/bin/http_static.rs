//! Counts in a `static` and leaves marks in fresh memory: a second request must see neither.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, response};

const PAGE_LEN: usize = 64 * 1024;
const PAGES: usize = 16;
const MARK: u8 = 0xA5;

static CALLS: AtomicU32 = AtomicU32::new(0);
static KEPT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

handler!(handle);

/// Answers the calls that this instance has seen, the MiB it has kept, and the bytes of newly grown
/// memory that were not zero: `calls 1`, `kept 1`, `dirty 0` in a fresh instance.
fn handle(_request: IncomingRequest, out: ResponseOutparam) {
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let mut kept = KEPT.lock().expect("no earlier call panicked");
    let kept_len = kept.len() + PAGE_LEN * PAGES;
    kept.resize(kept_len, MARK);
    let lines = format!(
        "calls {calls}\nkept {}\ndirty {}\n",
        kept.len() / (PAGE_LEN * PAGES),
        dirty_bytes_in_new_pages(),
    );
    response::text(out, &lines);
}

/// Grows the memory behind the allocator's back, because an allocator would clear what it hands out.
fn dirty_bytes_in_new_pages() -> usize {
    let first_page = core::arch::wasm32::memory_grow::<0>(PAGES);
    assert_ne!(first_page, usize::MAX, "the host refused {PAGES} pages");
    let start = (first_page * PAGE_LEN) as *mut u8;
    // SAFETY: these pages were grown just now and nothing else knows of them.
    let pages = unsafe { std::slice::from_raw_parts_mut(start, PAGES * PAGE_LEN) };
    let dirty = pages.iter().filter(|byte| **byte != 0).count();
    pages.fill(MARK);
    dirty
}
