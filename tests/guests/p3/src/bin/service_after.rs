//! Answers at once, and writes a line to stdout 200 ms later.

use wasip3::clocks::monotonic_clock;
use wasip3::spawn_local;
use wrun_test_services::{ErrorCode, Request, Response, service, text};

const AFTER_NS: u64 = 200_000_000;

service!(handle);

async fn handle(_request: Request) -> Result<Response, ErrorCode> {
    spawn_local(async {
        monotonic_clock::wait_for(AFTER_NS).await;
        println!("after the answer");
    });
    Ok(text("answered\n"))
}
