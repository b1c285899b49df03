//! Answers of 0.3 that would put a connection out of step if they went out as they are.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::spawn_local;
use wasip3::{wit_future, wit_stream};
use wrun_test_services::{path, service, text};

service!(handle);

async fn handle(request: Request) -> Result<Response, ErrorCode> {
    Ok(match path(&request).as_str() {
        "/short" => send(200, &[("content-length", "10")], b"short"),
        "/long" => send(200, &[("content-length", "5")], b"too long!!"),
        "/twice" => send(
            200,
            &[("content-length", "5"), ("content-length", "6")],
            b"hello",
        ),
        "/204" => send(204, &[], b"nobody should see this\n"),
        "/304" => send(304, &[], b"nobody should see this\n"),
        "/100" => send(100, &[], b""),
        "/101" => send(101, &[], b""),
        "/hop" => send(
            200,
            &[
                ("connection", "x"),
                ("transfer-encoding", "gzip"),
                ("upgrade", "x"),
                ("keep-alive", "x"),
            ],
            b"hop\n",
        ),
        "/split" => send(
            200,
            &[("x-a", "b\r\nx-c: d"), ("x-e", "f\n\nHTTP/1.1 200 OK")],
            b"split\n",
        ),
        _ => text("harmless\n"),
    })
}

/// Sends what the host takes of this.
fn send(status: u16, headers: &[(&str, &str)], body: &'static [u8]) -> Response {
    let fields = Fields::new();
    for (name, value) in headers {
        let _ = fields.append(name, value.as_bytes());
    }
    let (mut stream, stream_reader) = wit_stream::new();
    let (end, end_reader) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(stream_reader), end_reader);
    let _ = response.set_status_code(status);
    spawn_local(async move {
        stream.write_all(body.to_vec()).await;
        drop(stream);
        let _ = end.write(Ok(None)).await;
    });
    response
}
