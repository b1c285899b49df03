//! Answers that are faulty or out of the ordinary, chosen by the path.

use std::thread;
use std::time::Duration;

use wasip2::http::types::Fields;
use wrun_test_guests::response::{self, ResponseBody};
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query};

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match query::path(&request).as_str() {
        "/content-length-short" => declare_ten_and_write(out, b"short"),
        "/content-length-long" => declare_five_and_write(out, b"too long!!"),
        // Right for HEAD, which has no body to measure; wrong for GET.
        "/content-length-wrong-on-head" => declare_ten_and_write(out, b""),
        "/hop" => response::text(out, &try_hop_headers()),
        "/status" => status(&request, out),
        "/big-headers" => big_headers(&request, out),
        "/204-with-body" => send(out, 204, Fields::new(), b"nobody should see this\n", None),
        "/trailers" => {
            // HTTP/1.1 hosts send only the trailers that were announced.
            let fields = response::fields(&[("trailer", "x-trailer")]);
            let trailers = response::fields(&[("x-trailer", "yes")]);
            send(out, 200, fields, b"body\n", Some(trailers));
        }
        "/late" => late(&request, out),
        "/cookies" => {
            let cookies = [("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2; Path=/")];
            response::respond(out, 200, &cookies, b"cookies\n");
        }
        other => response::respond(out, 404, &[], other.as_bytes()),
    }
}

fn declare_ten_and_write(out: ResponseOutparam, body: &[u8]) {
    send(
        out,
        200,
        response::fields(&[("content-length", "10")]),
        body,
        None,
    );
}

fn declare_five_and_write(out: ResponseOutparam, body: &[u8]) {
    send(
        out,
        200,
        response::fields(&[("content-length", "5")]),
        body,
        None,
    );
}

/// Sends exactly this, and leaves it to the host to object.
fn send(out: ResponseOutparam, status: u16, fields: Fields, body: &[u8], trailers: Option<Fields>) {
    let response = ResponseBody::start(out, status, fields);
    let _ = response.write(body);
    let _ = response.finish(trailers);
}

/// One line per header that belongs to the connection and not to the guest: `<name> refused|accepted`.
fn try_hop_headers() -> String {
    let mut lines = String::new();
    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
    ] {
        let verdict = match Fields::new().set(name, &[value.into()]) {
            Ok(()) => "accepted",
            Err(_) => "refused",
        };
        lines += &format!("{name} {verdict}\n");
    }
    lines
}

fn status(request: &IncomingRequest, out: ResponseOutparam) {
    let code = query::number(request, "code").unwrap_or(200);
    let line = format!("status {code}\n");
    let response = wasip2::http::types::OutgoingResponse::new(Fields::new());
    match response.set_status_code(code) {
        Ok(()) => send(out, code, Fields::new(), line.as_bytes(), None),
        Err(()) => response::text(out, &format!("refused {code}\n")),
    }
}

fn big_headers(request: &IncomingRequest, out: ResponseOutparam) {
    let count = query::number::<usize>(request, "count").unwrap_or(1);
    let size = query::number(request, "size").unwrap_or(1);
    let fields = Fields::new();
    for index in 0..count {
        let value = "v".repeat(size).into_bytes();
        if let Err(error) = fields.append(&format!("x-big-{index}"), &value) {
            return response::text(out, &format!("refused at {index}: {error:?}\n"));
        }
    }
    send(out, 200, fields, b"big\n", None);
}

fn late(request: &IncomingRequest, out: ResponseOutparam) {
    let response = ResponseBody::start(out, 200, response::fields(&[("x-early", "yes")]));
    let ms = query::number(request, "ms").unwrap_or(0);
    thread::sleep(Duration::from_millis(ms));
    let _ = response.write(b"late\n");
    let _ = response.finish(None);
}
