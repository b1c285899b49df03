//! The query of a request: `?name=value&…`.

use std::str::FromStr;
use wrun_sdk::http::Request;

/// Returns every parameter of this name.
pub fn all(request: &Request, name: &str) -> Vec<String> {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// Returns the first parameter of this name.
pub fn text(request: &Request, name: &str) -> Option<String> {
    all(request, name).into_iter().next()
}

/// Returns the first parameter of this name as a number.
///
/// # Panics
///
/// If it is none: a test that misspells one should see a trap.
pub fn number<T: FromStr>(request: &Request, name: &str) -> Option<T> {
    let value = text(request, name)?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("query parameter {name}={value} is not a number of the wanted kind"),
    }
}
