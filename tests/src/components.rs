//! Components that no toolchain makes: broken, hostile, or almost right. Written as text, because what is wrong with
//! each should be seen.

use std::fs;
use std::path::Path;

/// A 0.2 handler that returns without an answer: the smallest component that wrun serves.
pub fn silent_handler() -> Vec<u8> {
    binary(&component(HANDLER, ""))
}

/// A module, not a component.
pub fn core_module() -> Vec<u8> {
    binary("(module (func (export \"handle\")))")
}

/// A component that exports something, but no handler.
pub fn without_handler() -> Vec<u8> {
    binary(
        "(component
            (core module $module (func (export \"run\")))
            (core instance $instance (instantiate $module))
            (func $run (canon lift (core func $instance \"run\")))
            (instance $jobs (export \"run\" (func $run)))
            (export \"acme:batch/jobs@1.0.0\" (instance $jobs)))",
    )
}

/// A component with a handler of 0.2 and one of 0.3.
pub fn two_handlers() -> Vec<u8> {
    let second = "(instance $second (export \"handle\" (func $handle)))
        (export \"wasi:http/handler@0.3.0\" (instance $second))";
    binary(&component(HANDLER, second))
}

/// A handler that needs two interfaces that nobody offers: `acme:cache/store@1.0.0` and `acme:mail/outbox@0.1.0`.
pub fn unknown_imports() -> Vec<u8> {
    let imports = "(import \"acme:cache/store@1.0.0\" (instance
            (export \"get\" (func (param \"key\" string) (result string)))))
        (import \"acme:mail/outbox@0.1.0\" (instance (export \"send\" (func (param \"text\" string)))))";
    binary(&component(HANDLER, imports))
}

/// A component that passes requests on to another handler, which it imports.
pub fn middleware() -> Vec<u8> {
    binary(
        "(component
            (import \"wasi:http/handler@0.3.0\" (instance $next (export \"handle\" (func))))
            (export \"wasi:http/handler@0.3.0\" (instance $next)))",
    )
}

/// A handler that is quick to write down and takes for ever to compile: thousands of values that each of many nested
/// loops may change.
pub fn compile_bomb() -> Vec<u8> {
    const LOCALS: usize = 20_000;
    const LOOPS: usize = 2_000;
    let mut body = format!("(local {})", "i64 ".repeat(LOCALS));
    body += &"(loop ".repeat(LOOPS);
    for local in 2..LOCALS {
        body += &format!(
            "(local.set {local} (i64.add (local.get {local}) (local.get {})))",
            local + 1
        );
    }
    body += &"(br_if 0 (local.get 0)))".repeat(LOOPS);
    let handler = format!("(func (export \"handle\") (param i32 i32) {body})");
    binary(&component(&handler, ""))
}

/// Writes a component to `folder/component.wasm`, replacing what is there in one step as a careful build does.
///
/// # Panics
///
/// If the folder cannot be written to.
pub fn put(folder: &Path, component: &[u8]) -> std::path::PathBuf {
    let path = folder.join("component.wasm");
    let new = folder.join("component.new");
    fs::write(&new, component).expect("the folder takes files");
    fs::rename(&new, &path).expect("a file can be renamed");
    path
}

/// Reads a component of `guests`.
///
/// # Panics
///
/// If it is not there.
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

const HANDLER: &str = "(func (export \"handle\") (param i32 i32))";

/// Returns a component that exports the core function `handle` as a handler of wasi:http 0.2.
fn component(handle: &str, more: &str) -> String {
    format!(
        "(component
            (import \"wasi:http/types@0.2.0\" (instance $types
                (export \"incoming-request\" (type (sub resource)))
                (export \"response-outparam\" (type (sub resource)))))
            (alias export $types \"incoming-request\" (type $request))
            (alias export $types \"response-outparam\" (type $outparam))
            (core module $module {handle})
            (core instance $instance (instantiate $module))
            (func $handle (param \"request\" (own $request)) (param \"response-out\" (own $outparam))
                (canon lift (core func $instance \"handle\")))
            (instance $handler (export \"handle\" (func $handle)))
            (export \"wasi:http/incoming-handler@0.2.0\" (instance $handler))
            {more})"
    )
}

fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text of a component")
}
