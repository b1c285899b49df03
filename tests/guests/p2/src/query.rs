//! The query of a request: `?name=value&…`, percent-decoded.

use std::str::FromStr;

use crate::IncomingRequest;

/// Returns the path without the query.
pub fn path(request: &IncomingRequest) -> String {
    let full = request.path_with_query().unwrap_or_default();
    full.split('?').next().unwrap_or_default().to_owned()
}

/// Returns the first parameter of this name.
pub fn text(request: &IncomingRequest, name: &str) -> Option<String> {
    let full = request.path_with_query()?;
    let (_, query) = full.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| decode(value))
}

/// Returns the first parameter of this name as a number; a test that misspells one should see a trap.
pub fn number<T: FromStr>(request: &IncomingRequest, name: &str) -> Option<T> {
    let value = text(request, name)?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("query parameter {name}={value} is not a number of the wanted kind"),
    }
}

/// Tells whether `?name=1` was given.
pub fn flag(request: &IncomingRequest, name: &str) -> bool {
    text(request, name).as_deref() == Some("1")
}

fn decode(encoded: &str) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'+' => b' ',
            b'%' => (hex(rest.next()) << 4) | hex(rest.next()),
            other => other,
        };
        bytes.push(decoded);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: Option<u8>) -> u8 {
    digit
        .and_then(|digit| char::from(digit).to_digit(16))
        .and_then(|value| u8::try_from(value).ok())
        .expect("two hexadecimal digits after %")
}
