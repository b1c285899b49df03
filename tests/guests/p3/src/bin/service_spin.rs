//! Burns CPU without awaiting: `?ms=N` for that long, otherwise for ever without calling the host.

use std::hint::black_box;

use wasip3::clocks::monotonic_clock;
use wrun_test_services::{ErrorCode, Request, Response, ms, service, text};

service!(handle);

async fn handle(request: Request) -> Result<Response, ErrorCode> {
    match ms(&request) {
        Some(ms) => {
            spin_for(ms);
            Ok(text(format!("spun {ms} ms\n")))
        }
        None => spin_for_ever(),
    }
}

fn spin_for(ms: u64) {
    let end = monotonic_clock::now() + ms * 1_000_000;
    while monotonic_clock::now() < end {
        black_box((0..1000_u32).fold(0, u32::wrapping_add));
    }
}

fn spin_for_ever() -> ! {
    let mut rounds = 0_u64;
    loop {
        rounds = black_box(rounds.wrapping_add(1));
    }
}
