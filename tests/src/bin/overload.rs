//! `just overload`: four times as many requests as the server can answer, and five hundred clients that are slow on
//! purpose. Fails if those it could answer are not answered, if the others are not told so quickly, or if a tool is missing.
//!
//! Usage: overload [BINARY]

use std::process::ExitCode;
use wrun_tests::guests::guest;
use wrun_tests::overload::{self, Part};
use wrun_tests::{Wrun, repository};

fn main() -> ExitCode {
    let binary = std::env::args()
        .nth(1)
        .map_or_else(|| repository().join("target/release/wrun"), Into::into);
    let wrun = Wrun::new(binary);
    let mut good = true;
    for part in [
        overload::at_four_times_capacity(wrun.serve(guest("http_spin"))),
        overload::with_more_connections(wrun.serve(guest("http_spin"))),
        overload::slow_clients(wrun.serve(guest("http_stream")), "-H", "heads"),
        overload::slow_clients(wrun.serve(guest("http_sink")), "-B", "bodies"),
        overload::slow_clients(wrun.serve(guest("http_stream")), "-X", "reading"),
    ] {
        let Part { lines, holds } = part;
        println!("{lines}");
        println!("{}", if holds { "  holds" } else { "  DOES NOT HOLD" });
        good &= holds;
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
