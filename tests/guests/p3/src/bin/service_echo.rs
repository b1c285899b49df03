//! Sends the request body back: piece by piece, or on `/direct` as the very stream that the host gave.

use wasip3::http::types::Fields;
use wasip3::wit_bindgen::StreamResult;
use wasip3::{spawn_local, wit_future};
use wrun_test_services::{ErrorCode, Request, Response, path, service, streamed};

const PIECE_LEN_MAX: usize = 64 * 1024;

service!(handle);

async fn handle(request: Request) -> Result<Response, ErrorCode> {
    if path(&request) == "/direct" {
        Ok(direct(request))
    } else {
        Ok(piece_by_piece(request))
    }
}

fn direct(request: Request) -> Response {
    let (_handled, handled_reader) = wit_future::new(|| Ok(()));
    let (from, trailers) = Request::consume_body(request, handled_reader);
    let (response, _sent) = Response::new(Fields::new(), Some(from), trailers);
    response
}

fn piece_by_piece(request: Request) -> Response {
    let content_type = request.get_headers().get("content-type");
    let (response, mut to) = streamed(200, content_type.first().map_or(b"text/plain", |v| v));
    let (_handled, handled_reader) = wit_future::new(|| Ok(()));
    let (mut from, trailers) = Request::consume_body(request, handled_reader);
    spawn_local(async move {
        let mut piece = Vec::with_capacity(PIECE_LEN_MAX);
        loop {
            let (result, read) = from.read(piece).await;
            if result == StreamResult::Dropped && read.is_empty() {
                break;
            }
            piece = to.stream.write_all(read).await;
            if !piece.is_empty() {
                return; // The client went away.
            }
            piece.reserve(PIECE_LEN_MAX);
        }
        drop(from);
        let end = trailers.await;
        to.finish(end).await;
    });
    response
}
