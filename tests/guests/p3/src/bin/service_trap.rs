//! Ends the wrong way: `/before`, `/body`, `/panic`, `/body-error`, or `/error`.

use wasip3::spawn_local;
use wrun_test_services::{ErrorCode, Request, Response, path, service, streamed, text};

service!(handle);

async fn handle(request: Request) -> Result<Response, ErrorCode> {
    match path(&request).as_str() {
        "/before" => core::arch::wasm32::unreachable(),
        "/body" => Ok(trap_after_the_first_piece()),
        "/panic" => panic!("asked to panic"),
        "/body-error" => Ok(fail_after_the_first_piece()),
        "/error" => Err(ErrorCode::InternalError(Some("asked to fail".to_owned()))),
        other => Ok(text(format!("no such fault: {other}\n"))),
    }
}

fn trap_after_the_first_piece() -> Response {
    let (response, mut out) = streamed(200, b"text/plain");
    spawn_local(async move {
        out.stream.write_all(b"partial\n".to_vec()).await;
        core::arch::wasm32::unreachable();
    });
    response
}

fn fail_after_the_first_piece() -> Response {
    let (response, mut out) = streamed(200, b"text/plain");
    spawn_local(async move {
        out.stream.write_all(b"partial\n".to_vec()).await;
        let end = Err(ErrorCode::InternalError(Some("asked to fail".to_owned())));
        out.finish(end).await;
    });
    response
}
