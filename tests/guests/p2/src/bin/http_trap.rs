//! Ends the wrong way: `/before`, `/headers`, `/exit`, `/silent` or `/panic`.

use wrun_test_guests::response::{self, ResponseBody};
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query};

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match query::path(&request).as_str() {
        "/before" => core::arch::wasm32::unreachable(),
        "/headers" => trap_after_the_first_piece(out),
        // WASI 0.2 only tells failure from success, so the host does not see the 3.
        "/exit" => std::process::exit(3),
        "/silent" => {}
        "/panic" => panic!("asked to panic"),
        other => response::respond(out, 404, &[], other.as_bytes()),
    }
}

fn trap_after_the_first_piece(out: ResponseOutparam) {
    let response = ResponseBody::start(out, 200, response::fields(&[]));
    let _ = response.write(b"partial\n");
    let _ = response.flush();
    core::arch::wasm32::unreachable()
}
