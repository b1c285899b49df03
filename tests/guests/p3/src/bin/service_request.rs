//! Describes the request that the guest saw, one line per fact.

use wasip3::http::types::{Method, Scheme};
use wrun_test_services::{ErrorCode, Request, Response, service, text};

service!(handle);

async fn handle(request: Request) -> Result<Response, ErrorCode> {
    let mut lines = format!(
        "method {}\nscheme {}\nauthority {}\npath-with-query {}\n",
        method(&request),
        scheme(&request),
        request.get_authority().as_deref().unwrap_or("-"),
        request.get_path_with_query().as_deref().unwrap_or("-"),
    );
    for (name, value) in request.get_headers().copy_all() {
        lines += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
    }
    Ok(text(lines))
}

fn method(request: &Request) -> String {
    match request.get_method() {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Connect => "CONNECT".to_owned(),
        Method::Options => "OPTIONS".to_owned(),
        Method::Trace => "TRACE".to_owned(),
        Method::Patch => "PATCH".to_owned(),
        Method::Other(name) => name,
    }
}

fn scheme(request: &Request) -> String {
    match request.get_scheme() {
        Some(Scheme::Http) => "http".to_owned(),
        Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Other(name)) => name,
        None => "-".to_owned(),
    }
}
