//! Burns CPU: `?ms=N` for that long, `?rounds=N` for so much work, otherwise for ever without calling the host.

use std::hint::black_box;

use wasip2::clocks::monotonic_clock;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if let Some(rounds) = query::number::<u64>(&request, "rounds") {
        spin_rounds(rounds);
        return response::text(out, &format!("spun {rounds} rounds\n"));
    }
    match query::number::<u64>(&request, "ms") {
        Some(ms) => {
            spin_for(ms);
            response::text(out, &format!("spun {ms} ms\n"));
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

fn spin_rounds(rounds: u64) {
    let mut done = 0_u64;
    while done < rounds {
        done = black_box(done.wrapping_add(1));
    }
}

fn spin_for_ever() -> ! {
    let mut rounds = 0_u64;
    loop {
        rounds = black_box(rounds.wrapping_add(1));
    }
}
